//! The fates of requests: sent, given up, lost; the line for slots; who cleans
//! up after those who left; what data cost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::conn::{Class, Config, DataCache, Deadlines, State};
use virtio_fs::device::Data;
use virtio_fs::fs::{At, FlushPolicy, LockWait, MountOptions};
use virtio_fs::platform::Signal;
use virtio_fs::wire::{Getattr, Lock, LockKind, LockOwner, NodeId, OpenFlags};
use virtio_fs_attack::{Guest, assert_gone, tree};
use virtio_fs_fake::{Fake, Fault, Interrupts, Op, Rule, Sharing};

/// A mount whose server ignores INTERRUPT, as those in use do.
fn stubborn() -> Guest {
    narrow(64)
}

fn narrow(max_active: u16) -> Guest {
    let config = Config {
        max_active,
        ..Config::default()
    };
    let fake = Fake::new()
        .fs(tree())
        .tune(|server| server.interrupts = Interrupts::Ignored);
    Guest::with(fake, config, MountOptions::default())
}

/// Settings with which data go straight from and into callers' buffers.
fn uncached() -> Config {
    Config {
        data_cache: DataCache::None,
        ..Config::default()
    }
}

/// Signals the caller when it waits for the first time from now.
fn kill_waiter(guest: &Guest, signal: Signal) {
    let platform = guest.platform.clone();
    guest.platform.on_park(move |_| platform.set_signal(signal));
}

fn calm(guest: &Guest) {
    guest.platform.on_park(|_| ());
    guest.platform.set_signal(Signal::None);
}

#[test]
fn a_killed_caller_gets_away_and_its_request_stays_with_the_device() {
    let guest = stubborn();
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    let before = guest.fake.now();
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EINTR);
    assert!(guest.fake.now() - before < Duration::from_secs(3));
    calm(&guest);
    assert_eq!(guest.conn.counters().orphans.get(), 1);
    assert_eq!(guest.conn.load().0, 1, "the slot is the device's");
    assert_eq!(guest.fake.count(Op::INTERRUPT), 1);
    guest.assert_works();
    guest.fake.release_held();
    guest.conn.work();
    assert_eq!(guest.conn.load().0, 0);
    drop(inode);
    guest.finish();
}

#[test]
fn a_request_is_interrupted_once_only() {
    let guest = stubborn();
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(
        Op::GETATTR,
        Fault::Delay(Duration::from_millis(900)),
    ));
    kill_waiter(&guest, Signal::Kill);
    let _ = inode.revalidate();
    calm(&guest);
    assert_eq!(guest.fake.count(Op::INTERRUPT), 1);
    drop(inode);
    guest.finish();
}

#[test]
fn a_server_that_honours_the_interrupt_ends_the_call() {
    let guest = Guest::new();
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EINTR);
    calm(&guest);
    assert_eq!(guest.conn.counters().orphans.get(), 0);
    drop(inode);
    guest.finish();
}

#[test]
fn a_signal_that_does_not_kill_lets_short_requests_finish() {
    let guest = stubborn();
    let inode = guest.inode("/dir/file");
    guest
        .fake
        .fault(Rule::on(Op::GETATTR, Fault::Delay(Duration::from_secs(2))));
    kill_waiter(&guest, Signal::Interrupt);
    assert!(inode.revalidate().is_ok());
    calm(&guest);
    drop(inode);
    guest.finish();
}

/// Kills a caller of `call` while `op` is with the server, and delivers the
/// reply when nobody waits any more.
fn orphaned(op: Op, call: impl FnOnce(&Guest) -> virtio_fs::error::Result<()>) {
    let guest = stubborn();
    for path in ["/dir/file", "/dir/sub"] {
        guest.stat(path).unwrap();
    }
    guest.fake.fault(Rule::on(op, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    assert_eq!(call(&guest).unwrap_err().errno(), Errno::EINTR, "{op:?}");
    calm(&guest);
    assert_eq!(guest.conn.counters().orphans.get(), 1, "{op:?}");
    guest.fake.release_held();
    guest.assert_works();
    guest.assert_balanced();
    let open = guest.fake.open_handles();
    assert!(open.is_empty(), "{op:?}: {open:?}");
    guest.finish();
}

#[test]
fn the_lookup_of_an_orphan_is_forgotten() {
    orphaned(Op::LOOKUP, |g| g.stat("/dir/sub/leaf").map(drop));
    orphaned(Op::MKDIR, |g| g.process.mkdir(At::Cwd, b"/dir/new", 0o700));
    orphaned(Op::SYMLINK, |g| {
        g.process.symlink(b"x", At::Cwd, b"/dir/new")
    });
}

#[test]
fn the_handle_of_an_orphan_is_released() {
    orphaned(Op::OPEN, |g| g.read("/dir/file").map(drop));
    orphaned(Op::OPENDIR, |g| g.names("/dir").map(drop));
}

#[test]
fn node_and_handle_of_an_orphaned_create_are_both_given_back() {
    orphaned(Op::CREATE, |g| {
        let flags = OpenFlags::CREAT | OpenFlags::RDWR | OpenFlags::EXCL;
        g.process.open(At::Cwd, b"/dir/new", flags, 0o600).map(drop)
    });
    orphaned(Op::TMPFILE, |g| {
        g.inode("/dir").tmpfile(OpenFlags::RDWR, 0o600).map(drop)
    });
}

#[test]
fn what_is_not_known_after_a_kill_is_asked_for() {
    let guest = stubborn();
    guest.stat("/dir/other").unwrap();
    guest.fake.fault(Rule::on(Op::UNLINK, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    let unlink = guest.process.unlink(At::Cwd, b"/dir/other");
    assert_eq!(unlink.unwrap_err().errno(), Errno::EINTR);
    calm(&guest);
    // It was done all the same.
    assert_eq!(guest.stat("/dir/other").unwrap_err().errno(), Errno::ENOENT);
    guest.fake.release_held();
    guest.finish();
}

#[test]
fn a_killed_caller_whose_buffers_are_lent_gets_away_by_a_reset() {
    for sharing in [Sharing::Direct, Sharing::Bounced] {
        let fake = Fake::new()
            .fs(tree())
            .sharing(sharing)
            .tune(|server| server.interrupts = Interrupts::Ignored);
        let guest = Guest::with(fake, uncached(), MountOptions::default());
        let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
        guest.fake.fault(Rule::on(Op::READ, Fault::Hold));
        kill_waiter(&guest, Signal::Kill);
        let before = guest.fake.now();
        let mut buf = [0x55; 100];
        assert!(file.read_at(0, &mut buf).is_err());
        assert!(guest.fake.now() - before < Duration::from_secs(65));
        calm(&guest);
        assert_eq!(guest.conn.state(), State::Lost);
        let before = buf;
        guest.fake.release_held();
        assert_eq!(buf, before, "nobody writes into it any more");
        drop(file);
        let Guest {
            mount,
            process,
            conn,
            fake,
            ..
        } = guest;
        drop(process);
        mount.unmount();
        drop(conn);
        assert_gone(&fake);
    }
}

#[test]
fn each_class_of_requests_has_its_own_deadline() {
    let deadlines = Deadlines {
        metadata: Some(Duration::from_secs(2)),
        data: Some(Duration::from_secs(5)),
        lock: None,
        sync: Some(Duration::from_secs(9)),
    };
    let config = Config {
        deadlines,
        ..Config::default()
    };
    for (op, seconds) in [(Op::GETATTR, 2), (Op::WRITE, 5), (Op::FSYNC, 9)] {
        for interrupts in [Interrupts::Ignored, Interrupts::Honoured] {
            let fake = Fake::new()
                .fs(tree())
                .tune(|server| server.interrupts = interrupts);
            let guest = Guest::with(fake, config.clone(), MountOptions::default());
            let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
            guest.fake.fault(Rule::on(op, Fault::Hold));
            let before = guest.fake.now();
            let error = match op {
                Op::GETATTR => file.inode().revalidate().map(drop),
                Op::WRITE => file.write_at(0, b"x").map(drop),
                _ => {
                    file.write_at(0, b"x").unwrap();
                    file.sync(virtio_fs::fs::Durable::All)
                }
            };
            let errno = error.unwrap_err().errno();
            let waited = guest.fake.now() - before;
            let least = Duration::from_secs(seconds);
            assert!(
                waited >= least && waited < least + Duration::from_secs(2),
                "{op:?}: {waited:?}"
            );
            let lent = op == Op::WRITE && interrupts == Interrupts::Ignored;
            let expected = if lent { Errno::EIO } else { Errno::ETIMEDOUT };
            assert_eq!(errno, expected, "{op:?} {interrupts:?}");
            assert_eq!(guest.conn.counters().timeouts.get(), 1);
        }
    }
}

#[test]
fn the_servers_own_timeout_is_honoured() {
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.interrupts = Interrupts::Ignored;
        server.flags |= virtio_fs_fake::init::REQUEST_TIMEOUT;
        server.request_timeout = 3;
    });
    let guest = Guest::on(fake);
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    let before = guest.fake.now();
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ETIMEDOUT);
    assert!(guest.fake.now() - before < Duration::from_secs(6));
    guest.fake.release_held();
    drop(inode);
    guest.finish();
}

#[test]
fn slots_of_orphans_that_came_back_serve_those_who_wait_in_line() {
    // All slots are held by lookups that were given up; their replies come only
    // when the next caller stands in line already.
    let guest = narrow(2);
    guest.stat("/dir").unwrap();
    let dir = guest.inode("/dir");
    guest.fake.fault(Rule::on(Op::LOOKUP, Fault::Hold).times(2));
    kill_waiter(&guest, Signal::Kill);
    for name in [&b"file"[..], b"other"] {
        assert_eq!(dir.lookup(name).err().unwrap().errno(), Errno::EINTR);
    }
    calm(&guest);
    let (control, mut waits) = (guest.fake.control(), 0);
    guest.platform.on_park(move |_| {
        waits += 1;
        if waits == 3 {
            control.release_held();
        }
    });
    assert!(dir.lookup(b"sub").is_ok());
    guest.platform.on_park(|_| ());
    assert_eq!(guest.conn.counters().slot_waits.get(), 1);
    drop(dir);
    guest.finish();
}

#[test]
fn a_server_that_returns_nothing_loses_the_device_and_no_caller_waits_for_ever() {
    let guest = narrow(2);
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::any(Fault::Hold).always());
    for _ in 0..2 {
        assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ETIMEDOUT);
    }
    let before = guest.fake.now();
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ENOTCONN);
    assert!(guest.fake.now() - before < Duration::from_secs(60));
    assert_eq!(guest.conn.state(), State::Lost);
    assert_eq!(guest.conn.load(), (0, 0));
}

#[test]
fn a_killed_caller_leaves_the_line() {
    let guest = narrow(1);
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EINTR);
    // The only slot is the device's now.
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EINTR);
    assert_eq!(guest.fake.count(Op::GETATTR), 2, "the root's and the first");
    calm(&guest);
    assert_eq!(guest.conn.load(), (1, 0));
    guest.fake.release_held();
    drop(inode);
    guest.finish();
}

#[test]
fn forced_requests_are_sent_when_all_other_slots_are_taken() {
    let config = Config {
        max_active: 1,
        ..Config::default()
    };
    let options = MountOptions {
        flush: FlushPolicy::Always,
        ..MountOptions::default()
    };
    let fake = Fake::new()
        .fs(tree())
        .tune(|server| server.interrupts = Interrupts::Ignored);
    let guest = Guest::with(fake, config, options);
    let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
    let inode = file.inode().clone();
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EINTR);
    calm(&guest);
    assert_eq!(guest.conn.load().0, 1);
    file.flush(LockOwner(1)).unwrap();
    drop(file);
    guest.fake.step();
    assert_eq!(guest.fake.count(Op::RELEASE), 1);
    guest.fake.release_held();
    drop(inode);
    guest.finish();
}

#[test]
fn background_requests_that_were_given_up_do_not_count_for_ever() {
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.interrupts = Interrupts::Ignored;
        server.max_background = 1;
    });
    let guest = Guest::on(fake);
    let root = Getattr {
        node: NodeId::ROOT,
        fh: None,
    };
    let ask = || guest.conn.call(&root, Data::None, Class::Background);
    for _ in 0..3 {
        guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
        kill_waiter(&guest, Signal::Kill);
        assert_eq!(ask().unwrap_err().errno(), Errno::EINTR);
        calm(&guest);
        guest.fake.release_held();
        guest.conn.work();
    }
    assert!(ask().is_ok());
    assert_eq!(guest.conn.counters().slot_waits.get(), 0);
    guest.finish();
}

#[test]
fn forgets_that_find_the_queue_full_go_later() {
    let mut fs = tree();
    fs.mkdir("/many").unwrap();
    fs.fill("/many", "n", 2000).unwrap();
    let config = Config {
        forget_batch: 1,
        ..Config::default()
    };
    let options = MountOptions {
        max_dentries: 4096,
        ..MountOptions::default()
    };
    let fake = Fake::new().fs(fs).drive(virtio_fs_fake::Drive::Manual);
    let guest = Guest::with(fake, config, options);
    for name in guest.names("/many").unwrap() {
        let _ = guest.stat(&format!("/many/{name}"));
    }
    // Nobody works on the queue meanwhile.
    guest.mount.file_system().shrink(usize::MAX);
    assert!(guest.conn.pending_forgets() > 1000);
    guest.finish();
}

#[test]
fn unique_ids_are_even_and_differ() {
    let guest = Guest::new();
    for _ in 0..50 {
        guest.inode("/dir/file").revalidate().unwrap();
    }
    let mut seen = BTreeMap::new();
    for record in guest.fake.log() {
        if record.op != Op::FORGET && record.op != Op::BATCH_FORGET {
            assert_eq!(record.unique & 1, 0);
            assert!(seen.insert(record.unique, record.op).is_none());
        }
    }
    guest.finish();
}

#[test]
fn reads_and_writes_have_the_callers_size_and_no_bounce() {
    let fake = Fake::new().fs(tree());
    let guest = Guest::with(fake, uncached(), MountOptions::default());
    let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
    for len in [1usize, 100, 4096, 5000, 9999] {
        guest.fake.clear_log();
        let before = guest.fake.usage();
        let data = vec![len as u8; len];
        assert_eq!(file.write_at(0, &data).unwrap(), len);
        let mut back = vec![0; len];
        assert_eq!(file.read_at(0, &mut back).unwrap(), len);
        assert!(back == data);
        assert_eq!(guest.fake.count(Op::WRITE), 1);
        assert_eq!(guest.fake.count(Op::READ), 1);
        let after = guest.fake.usage();
        assert_eq!(
            before.allocations, after.allocations,
            "no DMA page is taken"
        );
        assert_eq!((before.shares, after.shares), (0, 0));
    }
    let counters = guest.conn.counters();
    assert_eq!(counters.long_requests.get(), 0);
    drop(file);
    guest.finish();
}

#[test]
fn a_long_symlink_takes_memory_for_as_long_as_it_takes() {
    let guest = Guest::new();
    let target = vec![b'a'; 4095];
    guest.process.symlink(&target, At::Cwd, b"/long").unwrap();
    assert_eq!(guest.conn.counters().long_requests.get(), 1);
    let read = guest.process.readlink(At::Cwd, b"/long").unwrap();
    assert_eq!(&*read, &target[..]);
    guest.process.unlink(At::Cwd, b"/long").unwrap();
    guest.finish();
}

#[test]
fn memory_that_runs_out_for_a_long_request_is_enomem_and_nothing_else() {
    let guest = Guest::new();
    guest.stat("/dir").unwrap();
    guest.fake.memory().fail_allocation(1);
    let target = vec![b'a'; 4095];
    let error = guest.process.symlink(&target, At::Cwd, b"/long");
    assert_eq!(error.unwrap_err().errno(), Errno::ENOMEM);
    guest.assert_works();
    guest.finish();
}

#[test]
fn data_larger_than_a_request_are_split_at_its_bounds() {
    let guest = Guest::on(
        Fake::new()
            .fs(tree())
            .tune(|server| server.max_write = 8192),
    );
    let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
    guest.fake.clear_log();
    assert_eq!(file.write_at(0, &[3; 20_000]).unwrap(), 20_000);
    assert_eq!(guest.fake.count(Op::WRITE), 3);
    drop(file);
    guest.finish();
}

#[test]
fn names_that_are_none_are_not_sent() {
    let guest = Guest::new();
    let root = guest.mount.root();
    guest.fake.clear_log();
    for name in [&b"a/b"[..], b"", b"a\0b"] {
        assert!(root.lookup(name).is_err());
        assert!(root.mkdir(name, 0o700).is_err());
        assert!(root.unlink(name).is_err());
    }
    assert!(root.lookup(&[b'x'; 5000]).is_err());
    assert_eq!(guest.fake.counts(), BTreeMap::new());
    guest.finish();
}

/// Who holds a lock on the server, and a file of theirs to wait for it with.
fn locked(
    max_active: u16,
) -> (
    Guest,
    Arc<virtio_fs::fs::File<virtio_fs_fake::FakePlatform>>,
) {
    let guest = narrow(max_active);
    let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
    file.set_lock(LockOwner(1), write_lock(), LockWait::Fail)
        .unwrap();
    (guest, file)
}

fn write_lock() -> Lock {
    Lock {
        start: 0,
        end: 99,
        kind: LockKind::Write,
        pid: 0,
    }
}

fn unlock() -> Lock {
    Lock {
        kind: LockKind::Unlock,
        ..write_lock()
    }
}

#[test]
fn waiters_for_locks_leave_room_for_who_unlocks() {
    for max_active in [1, 2, 4] {
        let (guest, file) = locked(max_active);
        for owner in 2..=u64::from(max_active) + 1 {
            kill_waiter(&guest, Signal::Kill);
            let wait = file.set_lock(LockOwner(owner), write_lock(), LockWait::Wait);
            assert_eq!(wait.unwrap_err().errno(), Errno::EINTR);
            calm(&guest);
        }
        let most = u64::from(max_active / 2).max(1);
        assert_eq!(guest.fake.count(Op::SETLKW), most, "{max_active} slots");
        file.set_lock(LockOwner(1), unlock(), LockWait::Fail)
            .unwrap();
        drop(file);
        guest.assert_works();
        guest.finish();
    }
}

#[test]
fn a_lock_that_is_granted_after_its_caller_left_is_dropped() {
    for close_first in [false, true] {
        let (guest, file) = locked(8);
        let other = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
        kill_waiter(&guest, Signal::Kill);
        let wait = file.set_lock(LockOwner(2), write_lock(), LockWait::Wait);
        assert_eq!(wait.unwrap_err().errno(), Errno::EINTR);
        calm(&guest);
        let releases = guest.fake.count(Op::RELEASE);
        let file = (!close_first).then_some(file);
        guest.conn.work();
        assert_eq!(
            guest.fake.count(Op::RELEASE),
            releases,
            "it is still in use"
        );
        other
            .set_lock(LockOwner(1), unlock(), LockWait::Fail)
            .unwrap();
        guest.settle();
        let held = other.get_lock(LockOwner(3), write_lock()).unwrap();
        assert_eq!(held, None, "closed first: {close_first}");
        drop((file, other));
        guest.finish();
    }
}

#[test]
fn background_requests_at_their_limit_hold_nobody_else_up() {
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.interrupts = Interrupts::Ignored;
        server.max_background = 1;
    });
    let guest = Guest::on(fake);
    let root = Getattr {
        node: NodeId::ROOT,
        fh: None,
    };
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    kill_waiter(&guest, Signal::Kill);
    let first = guest.conn.call(&root, Data::None, Class::Background);
    assert_eq!(first.unwrap_err().errno(), Errno::EINTR);
    calm(&guest);
    let (conn, platform) = (guest.conn.clone(), guest.platform.clone());
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    guest.platform.on_park(move |_| {
        if count.fetch_add(1, Relaxed) == 0 {
            assert_eq!(conn.load().1, 1, "one is in line");
            let sent = conn.call(&root, Data::None, Class::Normal);
            assert!(sent.is_ok(), "{:?}", sent.map(drop));
            platform.set_signal(Signal::Kill);
        }
    });
    let second = guest.conn.call(&root, Data::None, Class::Background);
    assert_eq!(second.unwrap_err().errno(), Errno::EINTR);
    assert!(asked.load(Relaxed) > 0);
    calm(&guest);
    guest.fake.release_held();
    guest.finish();
}

#[test]
fn no_queue_idles_while_requests_wait_in_another() {
    for size in [8, 128] {
        for queues in [1u16, 2, 4, 16] {
            for cpu in [0, 3, 20] {
                let config = Config {
                    max_active: 2 * size,
                    ..Config::default()
                };
                let fake = Fake::new().fs(tree()).queue_size(size).queues(queues);
                let guest = Guest::with(fake, config, MountOptions::default());
                guest.platform.set_cpu(cpu);
                guest
                    .fake
                    .fault(Rule::on(Op::GETATTR, Fault::Hold).always());
                let root = Getattr {
                    node: NodeId::ROOT,
                    fh: None,
                };
                let waits = |n: u16| n.saturating_sub(size.saturating_mul(queues));
                let tickets: Vec<_> = (0..2 * size)
                    .map(|_| guest.conn.submit(&root, None).unwrap())
                    .collect();
                assert_eq!(
                    guest.conn.counters().queue_full.get(),
                    u64::from(waits(2 * size)),
                    "{queues} queues of {size}, CPU {cpu}"
                );
                guest.fake.clear_faults();
                guest.fake.release_held();
                for ticket in tickets {
                    ticket.wait().unwrap();
                }
                guest.finish();
            }
        }
    }
}
