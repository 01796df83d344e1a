//! Misbehaviour: each kind does what it says, to the reply it says.

mod client;

use std::time::Duration;

use client::{Client, Reply, cstr, longs, read_in, records, u32_at, u64_at, words};
use virtio_drivers::Hal;
use virtio_drivers::transport::DeviceStatus;
use virtio_fs::device::Transport;
use virtio_fs::platform::Platform;
use virtio_fs_fake::{
    AttrField, DirFault, EntryField, Fake, FakeHal, Fault, Handle, MemFs, Op, ROOT_ID, Rule,
    WindowRules,
};

fn mounted() -> (Client, Handle) {
    let mut fs = MemFs::new();
    fs.file("f", "data").unwrap();
    Client::mount(Fake::new().fs(fs))
}

/// The reply to a LOOKUP of `f` with a fault, and the lookups it left.
fn lookup(fault: Fault) -> (Reply, usize) {
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(Op::LOOKUP, fault));
    let reply = client.exchange(Op::LOOKUP, ROOT_ID, &cstr("f"), 128);
    (reply, handle.nodes().len())
}

#[test]
fn replies_are_spoilt_as_asked_and_grants_taken_back() {
    let (reply, nodes) = lookup(Fault::Short(100));
    assert_eq!((reply.used_len, reply.len(), nodes), (100, 100, 0));
    // The client's buffer ends before the reply does.
    let (reply, nodes) = lookup(Fault::Long(8));
    assert_eq!((reply.used_len, reply.len(), nodes), (144, 152, 0));
    let (reply, nodes) = lookup(Fault::Unique(9));
    assert_eq!((reply.unique(), nodes), (9, 0));
    let (reply, nodes) = lookup(Fault::HeaderLen(143));
    assert_eq!((reply.used_len, reply.len(), nodes), (144, 143, 0));
    for error in [5, -512, -4095, i32::MIN] {
        let (reply, nodes) = lookup(Fault::Error(error));
        assert_eq!((reply.used_len, reply.error(), nodes), (16, error, 0));
    }
    let (reply, nodes) = lookup(Fault::ErrorWithBody(-5));
    assert_eq!((reply.used_len, reply.error(), nodes), (144, -5, 0));
    let (reply, nodes) = lookup(Fault::Body(vec![1; 3]));
    assert_eq!(
        (reply.used_len, &reply.raw[16..19], nodes),
        (19, &[1; 3][..], 0)
    );
    let (reply, nodes) = lookup(Fault::Unwritten);
    assert_eq!((reply.used_len, reply.raw, nodes), (0, vec![0; 144], 0));
    let (reply, nodes) = lookup(Fault::UsedLen(u32::MAX));
    assert_eq!((reply.used_len, nodes), (u32::MAX, 1));
    let (reply, nodes) = lookup(Fault::Edit(Box::new(|request, reply| {
        assert_eq!(&request[40..], b"f\0");
        reply[143] = 7;
    })));
    assert_eq!((reply.raw[143], nodes), (7, 1));
}

#[test]
fn fields_of_entries_and_attributes_are_replaced() {
    let entry = [
        (EntryField::Nodeid, 0, 8, 0),
        (EntryField::Generation, 8, 8, 1),
        (EntryField::EntryValid, 16, 8, 1),
        (EntryField::AttrValid, 24, 8, 1),
        (EntryField::EntryValidNsec, 32, 4, 1),
        (EntryField::AttrValidNsec, 36, 4, 1),
    ];
    for (field, at, width, nodes) in entry {
        let (reply, left) = lookup(Fault::Entry(field, 0x1234_5678));
        assert_eq!(
            u64_at(&reply.raw, 16 + at) << (64 - 8 * width) >> (64 - 8 * width),
            0x1234_5678
        );
        assert_eq!(left, nodes, "{field:?}");
    }
    let attr = [
        (AttrField::Size, 8),
        (AttrField::Blocks, 16),
        (AttrField::MtimeNsec, 52),
        (AttrField::Mode, 60),
        (AttrField::Blksize, 80),
    ];
    for (field, at) in attr {
        let (reply, _) = lookup(Fault::Attr(field, u64::MAX));
        assert_eq!(u32_at(&reply.raw, 16 + 40 + at), u32::MAX, "{field:?}");
        let (mut client, handle) = mounted();
        handle.fault(Rule::on(Op::GETATTR, Fault::Attr(field, u64::MAX)));
        let reply = client.call(Op::GETATTR, ROOT_ID, &[0; 16], 104).unwrap();
        assert_eq!(u32_at(&reply, 16 + at), u32::MAX, "{field:?}");
    }
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(Op::STATX, Fault::Attr(AttrField::Size, 1 << 63)));
    let reply = client
        .call(
            Op::STATX,
            ROOT_ID,
            &[&[0; 16][..], &words(&[0, 0])].concat(),
            288,
        )
        .unwrap();
    assert_eq!(u64_at(&reply, 32 + 40), 1 << 63);
    let body = Fault::Patch {
        offset: 2,
        bytes: vec![9, 9],
    };
    handle.fault(Rule::on(Op::STATFS, body));
    assert_eq!(
        client.call(Op::STATFS, ROOT_ID, &[], 80).unwrap()[1..5],
        [0, 9, 9, 0]
    );
}

#[test]
fn rules_count_from_when_they_are_made() {
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(Op::STATFS, Fault::Error(-5)).nth(2).times(2));
    let mut ask = || client.call(Op::STATFS, ROOT_ID, &[], 80).err();
    let seen = [ask(), ask(), ask(), ask()];
    assert_eq!(seen, [None, Some(5), Some(5), None]);
    handle.fault(Rule::any(Fault::Error(-6)).always());
    assert_eq!([ask(), ask()], [Some(6), Some(6)]);
    handle.clear_faults();
    assert_eq!(ask(), None);
}

#[test]
fn directory_records_are_spoilt() {
    for op in [Op::READDIR, Op::READDIRPLUS] {
        let (mut client, handle) = mounted();
        let fh = u64_at(&client.call(Op::OPENDIR, ROOT_ID, &[0; 8], 16).unwrap(), 0);
        let mut read = |fault| {
            handle.fault(Rule::on(op, Fault::Dir(fault)));
            client
                .call(op, ROOT_ID, &read_in(fh, 0, 4096), 4096)
                .unwrap()
        };
        let cookies = read(DirFault::Cookie(7));
        assert!(
            records(op, &cookies)
                .iter()
                .all(|(_, cookie, _)| *cookie == 7)
        );
        let named = read(DirFault::Name(b"/".into()));
        assert!(records(op, &named).iter().any(|(name, ..)| name == "/"));
        let whole = named.len();
        assert_eq!(read(DirFault::Cut(3)).len(), whole - 3);
        assert_eq!(read(DirFault::Extra(vec![1; 9])).len(), whole + 9);
        let long = read(DirFault::NameLen(0xFFFF_FFFF));
        assert!(long.windows(4).any(|w| w == [0xFF; 4]));
        let typed = read(DirFault::Type(0x77));
        assert!(typed.windows(4).any(|w| w == [0x77, 0, 0, 0]));
    }
}

/// Sends `n` STATFS with a fault on the first and returns the used elements in
/// order, then resets.
fn ring(n: u16, fault: Fault, expected: usize) -> Vec<(u32, u32)> {
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(Op::STATFS, fault));
    let flights: Vec<_> = (0..n)
        .map(|slot| {
            let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
            client.submit(1, slot, bytes, 96)
        })
        .collect();
    let used = (0..expected).map(|_| client.wait(1)).collect();
    assert!(client.rings[1].take().is_none());
    client.reset();
    for flight in flights {
        client.finish(flight, 0);
    }
    used
}

#[test]
fn the_used_ring_lies() {
    assert_eq!(ring(2, Fault::UsedId(77), 2), [(77, 96), (2, 96)]);
    assert_eq!(
        ring(2, Fault::UsedStray(u32::MAX), 3),
        [(u32::MAX, 96), (0, 96), (2, 96)]
    );
    assert_eq!(ring(2, Fault::UsedTwice, 3), [(0, 96), (0, 96), (2, 96)]);
    assert_eq!(ring(1, Fault::UsedLen(5000), 1), [(0, 5000)]);
    assert_eq!(ring(1, Fault::IndexJump(3), 4)[0], (0, 96));
    assert_eq!(ring(1, Fault::Hold, 0), []);
}

#[test]
fn replies_come_late_or_out_of_order() {
    assert_eq!(ring(3, Fault::After(2), 3), [(2, 96), (4, 96), (0, 96)]);
    assert_eq!(
        ring(1, Fault::After(2), 1),
        [(0, 96)],
        "nothing else goes on"
    );
    assert_eq!(
        ring(2, Fault::Delay(Duration::from_secs(5)), 2),
        [(2, 96), (0, 96)]
    );
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(Op::STATFS, Fault::Hold));
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    handle.platform().park(Some(Duration::from_secs(60)));
    assert!(client.rings[1].take().is_none());
    assert_eq!(handle.release_held(), 1);
    let (_, len) = client.wait(1);
    client.finish(flight, len).body().unwrap();
}

#[test]
fn an_interrupt_ends_what_is_held_back_with_eintr() {
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(Op::LOOKUP, Fault::Hold));
    let (unique, bytes) = client.message(Op::LOOKUP, ROOT_ID, &cstr("f"));
    let flight = client.submit(1, 3, bytes, 144);
    assert_eq!(handle.nodes().len(), 1);
    client.exchange(Op::INTERRUPT, 0, &longs(&[unique]), 0);
    let (_, len) = client.wait(1);
    assert_eq!(client.finish(flight, len).body(), Err(libc::EINTR));
    handle.assert_lookups([]);
}

#[test]
fn the_device_changes_under_a_request() {
    let (mut client, handle) = mounted();
    handle.fault(Rule::on(
        Op::STATFS,
        Fault::Config {
            offset: 36,
            bytes: vec![9],
        },
    ));
    client.call(Op::STATFS, ROOT_ID, &[], 80).unwrap();
    let mut count = [0; 1];
    client.transport.read_config(36, &mut count).unwrap();
    assert_eq!((count, client.transport.config_generation()), ([9], 1));
    handle.fault(Rule::on(Op::STATFS, Fault::NeedsReset));
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    assert!(
        client
            .transport
            .status()
            .contains(DeviceStatus::DEVICE_NEEDS_RESET)
    );
    client.start(u64::MAX);
    client.finish(flight, 0);
    client.init(45, 0).unwrap();
    client.call(Op::STATFS, ROOT_ID, &[], 80).unwrap();
}

#[test]
fn a_window_that_vanished_reads_as_ones() {
    let mut fs = MemFs::new();
    fs.file("f", [1; 4096]).unwrap();
    let (mut client, handle) = Client::mount(Fake::new().fs(fs).window(1 << 21, WindowRules::Spec));
    let node = client.lookup(ROOT_ID, "f").unwrap();
    let memory = client.transport.shared_memory(0).unwrap();
    // SAFETY: the region that the transport just named.
    let base = unsafe { FakeHal::mmio_phys_to_virt(memory.addr, memory.len as usize) }.as_ptr();
    let args = longs(&[u64::MAX, 0, 4096, 3, 0]);
    client.call(Op::SETUPMAPPING, node, &args, 0).unwrap();
    // SAFETY: the first page of the window is mapped.
    assert_eq!(unsafe { base.read_volatile() }, 1);
    handle.fault(Rule::on(Op::GETATTR, Fault::WindowVanish));
    client.call(Op::GETATTR, node, &[0; 16], 104).unwrap();
    // SAFETY: a vanished window reads as ones everywhere and swallows stores.
    unsafe {
        assert_eq!(base.add(8192).read_volatile(), 0xFF);
        base.write_volatile(3);
    }
    assert_eq!(handle.fs(|fs| fs.read("f")).unwrap()[0], 1);
    assert!(handle.mappings().is_empty() && client.transport.shared_memory(0).is_none());
}
