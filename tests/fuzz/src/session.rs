//! A whole session with a device and a server that the input makes up and that lie by its choice.
//!
//! Nothing may panic, wait for ever or touch memory that is not shared; when the mount has ended, no
//! request and no memory is left, but what was deliberately kept from a device that would not let go.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use virtio_fs::conn::{Attach, Config, Connection, DaxMode, Deadlines, State};
use virtio_fs::fs::{CachePolicy, FlushPolicy, Mount, MountOptions, Process};
use virtio_fs::wire::Silence;
use virtio_fs_attack::{Guest, tree};
use virtio_fs_calls::{Call, Driver, Source};
use virtio_fs_fake::{
    AttrField, DestroyReply, DirFault, EntryField, Fake, Fault, Handle, Interrupts, NodeIds,
    Notification, Op, Placement, Rule, Sharing, WindowRules, feature,
};

use crate::input::Input;

/// Calls in one input, at most.
const CALLS: usize = 150;

/// Runs one input.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let fake = device(&mut input);
    let (config, options) = (config(&mut input), options(&mut input));
    let fake = (0..input.below(3)).fold(fake, |fake, _| fake.fault(rule(&mut input)));
    let guest = match open(fake, config, options) {
        Ok(guest) => guest,
        Err(fake) => return leave(&fake),
    };
    {
        let platform = guest.platform.clone();
        let mut driver = Driver::new(&guest.process, move |caller, groups: &[u32]| {
            platform.set_caller(caller);
            platform.set_groups(groups);
        });
        for _ in 0..CALLS {
            if input.is_empty() {
                break;
            }
            if input.chance(4) {
                event(&mut input, &guest);
            } else {
                let call = Call::choose(&mut input, driver.open());
                let _ = driver.run(&call);
            }
        }
    }
    guest.fake.clear_faults();
    guest.platform.set_caller(virtio_fs::platform::Caller::ROOT);
    guest.fake.release_held();
    guest.conn.work();
    if guest.conn.state() == State::Ready {
        // A session that is alive answers; by what its server made of the lies, of course.
        let _ = guest.stat("/");
    }
    let Guest {
        process,
        mount,
        conn,
        fake,
        transport,
        platform,
    } = guest;
    drop(process);
    mount.unmount();
    assert_ne!(conn.state(), State::Ready);
    drop((conn, transport, platform));
    leave(&fake);
}

/// Opens and mounts a device, which may be refused at any step.
fn open(fake: Fake, config: Config, options: MountOptions) -> Result<Guest, Handle> {
    let (transport, fake) = fake.build();
    let (platform, transport) = (fake.platform(), Arc::new(transport));
    let opened = Connection::open(Arc::new(platform.clone()), transport.clone(), config);
    let Ok(conn) = opened else { return Err(fake) };
    let Ok(mount) = Mount::new(conn.clone(), options) else {
        return Err(fake);
    };
    Ok(Guest {
        process: Process::new(&mount),
        mount,
        conn,
        platform,
        transport,
        fake,
    })
}

/// Checks what is left. What the server complains about is its own doing: it made the driver ask for
/// what there is not.
fn leave(fake: &Handle) {
    let memory = fake.memory().take_violations();
    assert!(memory.is_empty(), "memory: {}", memory.join("; "));
    let _ = fake.take_violations();
    let usage = fake.usage();
    // Slots, rings and tables: what the settings allow, whatever the device says.
    assert!(usage.peak_dma_pages < 1 << 14, "{usage:?}");
    assert_eq!(usage.shares, 0, "shared for ever");
}

fn device(input: &mut Input<'_>) -> Fake {
    let mut fake = Fake::new()
        .fs(tree())
        .queues(1 + input.below(3) as u16)
        .queue_size(1 << (1 + input.below(8)))
        .placement(input.of(&[Placement::Contiguous, Placement::Scattered]))
        .sharing(input.of(&[Sharing::Direct, Sharing::Bounced]));
    let optional = [0, feature::INDIRECT_DESC, feature::EVENT_IDX];
    fake = fake.features(feature::VERSION_1 | input.of(&optional) | input.of(&optional));
    if input.chance(4) {
        let rules = [WindowRules::Spec, WindowRules::Qemu { slots: 2 }];
        fake = fake.window(1 << (21 + input.below(4)), input.of(&rules));
    }
    if input.chance(4) {
        fake = fake.notifications(input.of(&[4096, 64, 16, 0, u32::MAX]));
    }
    if input.chance(4) {
        fake = fake.reorder(input.number());
    }
    if input.chance(8) {
        fake = fake.latency(Duration::from_millis(input.below(5000) as u64));
    }
    if input.chance(16) {
        fake = fake.claim_queues(input.number() as u32);
    }
    if input.chance(16) {
        fake = fake.slow_reset(input.below(50) as u32);
    }
    if input.chance(16) {
        let len = input.below(64);
        fake = fake.config(input.take(len).to_vec());
    }
    fake.tune(|server| {
        if input.chance(3) {
            server.minor = input.of(&[45, 40, 38, 36, 31, 27]);
            server.flags = input.number();
            server.unasked_flags = input.number() & input.number();
            server.max_readahead = input.number() as u32;
            server.max_write = input.number() as u32;
            server.max_pages = input.number() as u16;
            server.max_background = input.number() as u16;
            server.congestion_threshold = input.number() as u16;
            server.time_gran = input.number() as u32;
            server.map_alignment = input.below(30) as u16;
            server.max_stack_depth = input.number() as u32;
            server.request_timeout = input.number() as u16;
        }
        if input.chance(3) {
            let second = |n: u64| Duration::from_secs(n % (1 << 40));
            server.entry_valid = second(input.number());
            server.attr_valid = second(input.number());
            server.negative_valid = input.chance(2).then(|| second(input.number()));
            server.open_flags = input.below(128) as u32;
            server.opendir_flags = input.below(128) as u32;
            server.first_fh = input.number();
        }
        server.node_ids = input.of(&[NodeIds::Counter, NodeIds::Stable, NodeIds::Recycled]);
        server.destroy = input.of(&[DestroyReply::Nothing, DestroyReply::Header]);
        server.interrupts = input.of(&[Interrupts::Honoured, Interrupts::Ignored]);
        for _ in 0..input.below(4) {
            let op = input.of(Op::ALL);
            if op != Op::INIT {
                server.missing.insert(op);
            }
        }
    })
}

fn config(input: &mut Input<'_>) -> Config {
    // Everything ends, a lock that is waited for as well.
    let limit = Some(Duration::from_secs(1 + input.below(60) as u64));
    Config {
        max_active: input.of(&[8, 1, 2, 64]),
        silence: input.of(&[Silence::TrustHeader, Silence::Refuse, Silence::Accept]),
        dax: input.of(&[DaxMode::Always, DaxMode::Never, DaxMode::Inode]),
        attach: input.of(&[Attach::IfIdle, Attach::TakeOver]),
        forget_batch: 1 + input.below(8),
        deadlines: Deadlines {
            metadata: limit,
            data: limit,
            lock: limit,
            sync: limit,
        },
        ..Config::default()
    }
}

fn options(input: &mut Input<'_>) -> MountOptions {
    MountOptions {
        cache: input.of(&[
            CachePolicy::Auto,
            CachePolicy::Always,
            CachePolicy::None,
            CachePolicy::Metadata,
        ]),
        default_permissions: !input.chance(4),
        max_dentries: input.of(&[16_384, 64, 8]),
        flush: input.of(&[FlushPolicy::WhenUseful, FlushPolicy::Always]),
        ..MountOptions::default()
    }
}

/// Something that happens beside the calls.
fn event(input: &mut Input<'_>, guest: &Guest) {
    let fake = &guest.fake;
    match input.below(12) {
        0..=5 => fake.fault(rule(input)),
        6 => fake.notify(&notification(input)),
        7 => fake.clear_faults(),
        8 => {
            fake.release_held();
            guest.conn.work();
        }
        9 => {
            guest.mount.file_system().shrink(input.below(20));
            guest.conn.flush_forgets();
        }
        10 => guest
            .platform
            .advance(Duration::from_millis(input.below(10_000) as u64)),
        _ => match input.below(8) {
            0 => fake.needs_reset(),
            1 => fake.vanish(),
            2 => fake.vanish_window(),
            3 => {
                let (offset, len) = (input.below(44), input.below(44));
                let bytes = input.take(len.min(44 - offset)).to_vec();
                if offset + bytes.len() <= 40 {
                    fake.change_config(offset, &bytes);
                }
            }
            // Another program on the host.
            4 => drop(fake.fs(|fs| fs.file("/dir/file", vec![1; 100]))),
            5 => drop(fake.fs(|fs| fs.remove("/dir/other"))),
            6 => drop(fake.fs(|fs| fs.mkdir("/dir/made"))),
            _ => guest.mount.file_system().revalidate_all(),
        },
    }
}

fn notification(input: &mut Input<'_>) -> Notification {
    let node = |input: &mut Input<'_>| input.of(&[1, 2, 3, 4, 5, 0, u64::MAX]);
    let name = |input: &mut Input<'_>| {
        let names: [&[u8]; 6] = [b"dir", b"file", b"", b"..", b"a/b", &[b'x'; 300]];
        input.of(&names).to_vec()
    };
    match input.below(8) {
        0 => Notification::Poll { kh: input.number() },
        1 => Notification::InvalInode {
            nodeid: node(input),
            off: input.number() as i64,
            len: input.number() as i64,
        },
        2 | 3 => Notification::InvalEntry {
            parent: node(input),
            name: name(input),
            flags: input.below(3) as u32,
        },
        4 => Notification::Store {
            nodeid: node(input),
            offset: input.number(),
            data: input.take(32).to_vec(),
        },
        5 => Notification::Retrieve {
            notify_unique: input.number(),
            nodeid: node(input),
            offset: input.number(),
            size: input.number() as u32,
        },
        6 => Notification::Delete {
            parent: node(input),
            child: node(input),
            name: name(input),
        },
        _ => {
            let (code, len) = (input.number() as i32, input.below(64));
            let payload = input.take(len).to_vec();
            Notification::Raw { code, payload }
        }
    }
}

fn rule(input: &mut Input<'_>) -> Rule {
    let fault = fault(input);
    let rule = if input.chance(3) {
        Rule::any(fault)
    } else {
        Rule::on(input.of(Op::ALL), fault)
    };
    let rule = rule.nth(1 + input.below(4) as u64);
    if input.chance(4) { rule.always() } else { rule }
}

fn fault(input: &mut Input<'_>) -> Fault {
    match input.below(28) {
        0 => Fault::Short(input.below(200)),
        1 => Fault::Long(input.below(5000)),
        2 => Fault::Unique(input.number()),
        3 => Fault::HeaderLen(input.number() as u32),
        4 => Fault::Error(input.number() as i32),
        5 => Fault::ErrorWithBody(input.number() as i32),
        6 | 7 => Fault::Attr(attr_field(input), input.number()),
        8 | 9 => Fault::Entry(entry_field(input), input.number()),
        10 => Fault::Patch {
            offset: input.below(160),
            bytes: input.take(8).to_vec(),
        },
        11 => {
            let len = input.below(200);
            Fault::Body(input.take(len).to_vec())
        }
        12..15 => Fault::Dir(dir_fault(input)),
        15 | 16 => edit(input),
        17 => Fault::Delay(Duration::from_millis(input.below(100_000) as u64)),
        18 => Fault::After(input.below(4) as u64),
        19 => Fault::Hold,
        20 => Fault::Unwritten,
        21 => Fault::UsedLen(input.number() as u32),
        22 => Fault::UsedId(input.number() as u32),
        23 => Fault::UsedStray(input.number() as u32),
        24 => Fault::UsedTwice,
        25 => Fault::IndexJump(input.number() as u16),
        26 => match input.below(3) {
            0 => Fault::NeedsReset,
            1 => Fault::Vanish,
            _ => Fault::WindowVanish,
        },
        _ => Fault::Config {
            offset: input.below(40),
            bytes: input.take(1).to_vec(),
        },
    }
}

fn attr_field(input: &mut Input<'_>) -> AttrField {
    input.of(&[
        AttrField::Mode,
        AttrField::Size,
        AttrField::Ino,
        AttrField::Blocks,
        AttrField::AtimeNsec,
        AttrField::MtimeNsec,
        AttrField::CtimeNsec,
        AttrField::Nlink,
        AttrField::Uid,
        AttrField::Gid,
        AttrField::Blksize,
        AttrField::Flags,
    ])
}

fn entry_field(input: &mut Input<'_>) -> EntryField {
    input.of(&[
        EntryField::Nodeid,
        EntryField::Generation,
        EntryField::EntryValid,
        EntryField::AttrValid,
        EntryField::EntryValidNsec,
        EntryField::AttrValidNsec,
    ])
}

fn dir_fault(input: &mut Input<'_>) -> DirFault {
    match input.below(6) {
        0 => DirFault::NameLen(input.number() as u32),
        1 => DirFault::Name(input.take(4).to_vec()),
        2 => DirFault::Type(input.number() as u32),
        3 => DirFault::Cookie(input.number()),
        4 => DirFault::Cut(input.below(200)),
        _ => {
            let len = input.below(100);
            DirFault::Extra(input.take(len).to_vec())
        }
    }
}

/// Bytes of replies, changed by a script of the input's.
fn edit(input: &mut Input<'_>) -> Fault {
    let len = input.below(64);
    let script: VecDeque<u8> = input.take(len).iter().copied().collect();
    let script = Arc::new(Mutex::new(script));
    Fault::Edit(Box::new(move |_, reply| {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..2 {
            if let (Some(at), Some(value)) = (script.pop_front(), script.pop_front())
                && let Some(byte) = reply.get_mut(usize::from(at))
            {
                *byte = value;
            }
        }
    }))
}
