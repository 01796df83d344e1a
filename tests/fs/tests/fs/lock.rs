//! Advisory locks, kept by the server and kept here.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::fs::{At, Fd, LockWait, Process};
use virtio_fs::platform::Signal;
use virtio_fs::wire::{FopenFlags, Lock, LockKind, OpenFlags};
use virtio_fs_fake::{Drive, Fake, FakePlatform, MemFs, Op, init};
use virtio_fs_tests::Guest;

fn tree() -> MemFs {
    let mut fs = MemFs::new();
    fs.mkdir("/dir").unwrap();
    fs.file("/file", "content").unwrap();
    fs.file("/other", "content").unwrap();
    fs
}

/// A server that keeps locks, and one that does not.
fn both() -> [Guest; 2] {
    [remote(), Guest::new(local(Fake::new()))]
}

fn remote() -> Guest {
    Guest::new(Fake::new().fs(tree()))
}

fn local(fake: Fake) -> Fake {
    fake.fs(tree())
        .tune(|config| config.flags &= !(init::POSIX_LOCKS | init::FLOCK_LOCKS))
}

fn range(kind: LockKind, start: u64, end: u64) -> Lock {
    Lock {
        start,
        end,
        kind,
        pid: 0,
    }
}

fn read(start: u64, end: u64) -> Lock {
    range(LockKind::Read, start, end)
}

fn write(start: u64, end: u64) -> Lock {
    range(LockKind::Write, start, end)
}

fn open(process: &Process<FakePlatform>, path: &str) -> Fd {
    process
        .open(At::Cwd, path.as_bytes(), OpenFlags::RDWR, 0)
        .unwrap()
}

fn errno<T>(result: virtio_fs::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| error.errno())
}

#[test]
fn ranges_exclude_each_other_wherever_they_are_kept() {
    for guest in both() {
        let (a, b) = (&guest.process, Process::new(&guest.mount));
        let (fa, fb) = (open(a, "file"), open(&b, "file"));
        a.lock(fa, write(0, 9), LockWait::Fail).unwrap();
        assert_eq!(
            errno(b.lock(fb, read(5, 20), LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        let found = b.test_lock(fb, read(5, 20)).unwrap().unwrap();
        assert_eq!(
            (found.kind, found.start, found.end),
            (LockKind::Write, 0, 9)
        );
        b.lock(fb, write(10, Lock::END), LockWait::Fail).unwrap();
        // A hole in the middle, and a weaker lock in front of it.
        a.lock(fa, range(LockKind::Unlock, 4, 6), LockWait::Fail)
            .unwrap();
        a.lock(fa, read(0, 3), LockWait::Fail).unwrap();
        b.lock(fb, read(2, 6), LockWait::Fail).unwrap();
        assert_eq!(
            errno(b.lock(fb, write(2, 6), LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        assert_eq!(b.test_lock(fb, write(4, 6)).unwrap(), None);
        a.close(fa).unwrap();
        b.lock(fb, write(0, Lock::END), LockWait::Fail).unwrap();
        b.close(fb).unwrap();
        drop(b);
        guest.finish();
    }
}

#[test]
fn a_lock_needs_a_file_open_for_it_and_a_range_that_is_one() {
    for guest in both() {
        let p = &guest.process;
        let reader = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
        let writer = p.open(At::Cwd, b"file", OpenFlags::WRONLY, 0).unwrap();
        let lock = |fd, lock| errno(p.lock(fd, lock, LockWait::Fail));
        assert_eq!(lock(reader, write(0, 1)), Err(Errno::EBADF));
        assert_eq!(lock(writer, read(0, 1)), Err(Errno::EBADF));
        assert_eq!(lock(reader, read(2, 1)), Err(Errno::EINVAL));
        assert_eq!(lock(reader, read(0, u64::MAX)), Err(Errno::EOVERFLOW));
        lock(reader, read(0, 1)).unwrap();
        lock(writer, write(0, 1)).unwrap();
        let nothing = range(LockKind::Unlock, 0, 1);
        assert_eq!(errno(p.test_lock(reader, nothing)), Err(Errno::EINVAL));
        guest.finish();
    }
}

#[test]
fn closing_any_descriptor_drops_the_locks_of_the_process() {
    for flags in [0, FopenFlags::NOFLUSH.bits()] {
        for guest in both() {
            guest.fake.tune(|config| config.open_flags = flags);
            let (a, b) = (&guest.process, Process::new(&guest.mount));
            let (first, second) = (open(a, "file"), open(a, "file"));
            let theirs = open(&b, "file");
            a.lock(first, write(0, 9), LockWait::Fail).unwrap();
            b.lock(theirs, write(20, 29), LockWait::Fail).unwrap();
            // The lock was not taken through this one.
            a.close(second).unwrap();
            b.lock(theirs, write(0, 9), LockWait::Fail).unwrap();
            let ino = guest.fake.fs(|fs| fs.find("/file").unwrap());
            drop(b);
            assert!(
                guest.fake.locks(ino).is_empty(),
                "the other's went with his process"
            );
            a.lock(first, write(0, 99), LockWait::Fail).unwrap();
            guest.finish();
        }
    }
}

#[test]
fn a_flock_belongs_to_the_open_file_and_its_duplicates() {
    for guest in both() {
        let p = &guest.process;
        let (one, two) = (open(p, "file"), open(p, "file"));
        let again = p.dup(one).unwrap();
        p.flock(one, LockKind::Write, LockWait::Fail).unwrap();
        p.flock(again, LockKind::Write, LockWait::Fail).unwrap();
        assert_eq!(
            errno(p.flock(two, LockKind::Read, LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        p.close(one).unwrap();
        assert_eq!(
            errno(p.flock(two, LockKind::Read, LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        p.flock(again, LockKind::Read, LockWait::Fail).unwrap();
        p.flock(two, LockKind::Read, LockWait::Fail).unwrap();
        p.close(again).unwrap();
        guest.conn.work();
        p.flock(two, LockKind::Write, LockWait::Fail).unwrap();
        // POSIX locks are another family.
        p.lock(two, write(0, 9), LockWait::Fail).unwrap();
        p.flock(two, LockKind::Unlock, LockWait::Fail).unwrap();
        p.close(two).unwrap();
        guest.finish();
    }
}

#[test]
fn directories_can_be_locked_by_flock() {
    for guest in both() {
        let p = &guest.process;
        let dir = || p.open(At::Cwd, b"dir", OpenFlags::DIRECTORY, 0).unwrap();
        let (one, two) = (dir(), dir());
        p.flock(one, LockKind::Write, LockWait::Fail).unwrap();
        assert_eq!(
            errno(p.flock(two, LockKind::Read, LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        p.close(one).unwrap();
        p.flock(two, LockKind::Write, LockWait::Fail).unwrap();
        guest.finish();
    }
}

#[test]
fn a_server_that_turns_out_to_know_no_locks_is_asked_once() {
    for lacking in [Op::SETLK, Op::GETLK] {
        let fake = Fake::new().fs(tree());
        let guest = Guest::new(fake.tune(|config| {
            config.missing.insert(lacking);
        }));
        let (a, b) = (&guest.process, Process::new(&guest.mount));
        let (fa, fb) = (open(a, "file"), open(&b, "file"));
        assert_eq!(a.test_lock(fa, write(0, 9)).unwrap(), None);
        a.lock(fa, write(0, 9), LockWait::Fail).unwrap();
        assert_eq!(
            errno(b.lock(fb, write(0, 9), LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        assert_eq!(guest.fake.count(lacking), 1);
        a.close(fa).unwrap();
        b.lock(fb, write(0, 9), LockWait::Fail).unwrap();
        drop(b);
        guest.finish();
    }
}

/// Runs `wait` in a thread of its own and returns when it must be waiting.
fn in_thread<'s, 'e: 's, T: Send + 's>(
    scope: &'s thread::Scope<'s, 'e>,
    wait: impl FnOnce() -> T + Send + 's,
) -> thread::ScopedJoinHandle<'s, T> {
    let (started, begin) = mpsc::channel();
    let handle = scope.spawn(move || {
        started.send(()).unwrap();
        wait()
    });
    begin.recv().unwrap();
    thread::sleep(Duration::from_millis(30));
    assert!(!handle.is_finished(), "nothing was waited for");
    handle
}

fn threaded() -> [Guest; 2] {
    let fake = || Fake::new().drive(Drive::Threads);
    [Guest::new(fake().fs(tree())), Guest::new(local(fake()))]
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free() {
    for guest in threaded() {
        let (a, b) = (&guest.process, Process::new(&guest.mount));
        let (fa, fb) = (open(a, "file"), open(&b, "file"));
        a.lock(fa, write(0, 9), LockWait::Wait).unwrap();
        thread::scope(|scope| {
            let waits = in_thread(scope, || b.lock(fb, write(5, 14), LockWait::Wait));
            a.lock(fa, range(LockKind::Unlock, 5, 9), LockWait::Fail)
                .unwrap();
            waits.join().unwrap().unwrap();
        });
        assert_eq!(
            errno(a.lock(fa, read(9, 9), LockWait::Fail)),
            Err(Errno::EAGAIN)
        );
        thread::scope(|scope| {
            let waits = in_thread(scope, || a.lock(fa, write(0, 99), LockWait::Wait));
            b.close(fb).unwrap();
            waits.join().unwrap().unwrap();
        });
        drop(b);
        finish_threaded(guest);
    }
}

#[test]
fn a_circle_of_waiting_processes_is_edeadlk() {
    for guest in threaded() {
        let (a, b) = (&guest.process, Process::new(&guest.mount));
        let (fa, fb) = (open(a, "file"), open(&b, "file"));
        let (oa, ob) = (open(a, "other"), open(&b, "other"));
        a.lock(fa, write(0, 9), LockWait::Wait).unwrap();
        b.lock(ob, write(0, 9), LockWait::Wait).unwrap();
        thread::scope(|scope| {
            let waits = in_thread(scope, || b.lock(fb, write(0, 9), LockWait::Wait));
            assert_eq!(
                errno(a.lock(oa, write(0, 9), LockWait::Wait)),
                Err(Errno::EDEADLK)
            );
            a.close(fa).unwrap();
            waits.join().unwrap().unwrap();
        });
        drop(b);
        finish_threaded(guest);
    }
}

#[test]
fn a_signal_ends_the_wait_and_leaves_no_lock() {
    for guest in threaded() {
        let (a, b) = (&guest.process, Process::new(&guest.mount));
        let (fa, fb) = (open(a, "file"), open(&b, "file"));
        a.lock(fa, write(0, 9), LockWait::Wait).unwrap();
        a.flock(fa, LockKind::Write, LockWait::Wait).unwrap();
        for flock in [false, true] {
            thread::scope(|scope| {
                let waits = in_thread(scope, || match flock {
                    true => b.flock(fb, LockKind::Read, LockWait::Wait),
                    false => b.lock(fb, read(0, 9), LockWait::Wait),
                });
                guest.fake.platform().set_signal(Signal::Interrupt);
                assert_eq!(errno(waits.join().unwrap()), Err(Errno::EINTR));
                guest.fake.platform().set_signal(Signal::None);
            });
        }
        a.flock(fa, LockKind::Unlock, LockWait::Fail).unwrap();
        a.lock(fa, range(LockKind::Unlock, 0, 9), LockWait::Fail)
            .unwrap();
        let c = Process::new(&guest.mount);
        let fc = open(&c, "file");
        c.lock(fc, write(0, Lock::END), LockWait::Fail).unwrap();
        c.flock(fc, LockKind::Write, LockWait::Fail).unwrap();
        drop((b, c));
        finish_threaded(guest);
    }
}

/// As [`Guest::finish`], on the host's clock.
fn finish_threaded(guest: Guest) {
    let Guest {
        process,
        mount,
        conn,
        fake,
    } = guest;
    drop(process);
    for _ in 0..1000 {
        conn.work();
        if fake.open_handles().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert!(fake.open_handles().is_empty());
    mount.unmount();
    assert_eq!(conn.load().0, 0);
    drop(conn);
    drop(fake);
}
