//! Several threads on one mount, on the host's clock.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use virtio_fs::conn::Config;
use virtio_fs::fs::{At, Durable, MountOptions, Symlinks};
use virtio_fs::platform::Signal;
use virtio_fs::sync::SleepRwLock;
use virtio_fs::wire::{OpenFlags, RenameFlags};
use virtio_fs_attack::{Guest, Rng, tree};
use virtio_fs_fake::{Drive, Fake, Fault, Interrupt, Op, Rule};

fn work(guest: &Guest, seed: u64, calls: usize) {
    guest.fake.memory().attach();
    let mut rng = Rng::new(seed);
    let p = &guest.process;
    for i in 0..calls {
        let (a, b) = (rng.below(12), rng.below(12));
        let (one, two) = (format!("/dir/t{a}"), format!("/dir/sub/t{b}"));
        let (one, two) = (one.as_bytes(), two.as_bytes());
        match rng.below(9) {
            0 => drop(p.mkdir(At::Cwd, one, 0o755)),
            1 => drop(p.rmdir(At::Cwd, one)),
            2 => drop(p.unlink(At::Cwd, two)),
            3 => drop(p.rename(At::Cwd, one, At::Cwd, two, RenameFlags::empty())),
            4 => drop(p.rename(At::Cwd, two, At::Cwd, one, RenameFlags::empty())),
            5 => drop(guest.names("/dir")),
            6 => {
                let _ = p.stat(At::Cwd, one, Symlinks::NoFollow);
            }
            7 if i % 10 == 0 => drop(guest.mount.file_system().shrink(5)),
            _ => {
                let flags = OpenFlags::CREAT | OpenFlags::RDWR;
                if let Ok(fd) = p.open(At::Cwd, two, flags, 0o644) {
                    let data = [i as u8; 600];
                    let _ = p.pwrite(fd, &data, 0);
                    let _ = p.pread(fd, &mut [0; 600], 0);
                    p.close(fd).unwrap();
                }
            }
        }
    }
}

fn stress(fake: Fake, config: Config, seed: u64) {
    let interrupts = config.interrupt_line;
    let guest = Guest::with(fake.fs(tree()), config, MountOptions::default());
    if interrupts {
        let conn = Arc::downgrade(&guest.conn);
        guest.fake.on_interrupt(move |_: Interrupt| {
            if let Some(conn) = conn.upgrade() {
                conn.interrupt(None);
            }
        });
    }
    thread::scope(|scope| {
        for n in 0..4 {
            let guest = &guest;
            scope.spawn(move || work(guest, seed ^ n, 400));
        }
    });
    // What the threads left is what the server has.
    let end = Instant::now() + Duration::from_secs(20);
    while guest.conn.load() != (0, 0) || guest.fake.in_flight() > 0 {
        assert!(
            Instant::now() < end,
            "{:?} requests stay",
            guest.conn.load()
        );
        guest.conn.work();
        thread::sleep(Duration::from_millis(1));
    }
    guest.mount.file_system().revalidate_all();
    for name in guest.names("/dir").unwrap() {
        assert!(guest.stat(&format!("/dir/{name}")).is_ok(), "{name}");
    }
    let theirs = guest.fake.fs(|fs| fs.names("/dir")).unwrap().len();
    assert_eq!(guest.names("/dir").unwrap().len(), theirs + 2);
    while guest.conn.pending_forgets() > 0 || guest.fake.in_flight() > 0 {
        assert!(Instant::now() < end);
        guest.conn.flush_forgets();
        guest.conn.work();
        thread::sleep(Duration::from_millis(1));
    }
    let mut ours = std::collections::BTreeMap::new();
    guest.mount.file_system().audit(|node, lookups| {
        if node.get() != virtio_fs_fake::ROOT_ID {
            ours.insert(node.get(), lookups);
        }
    });
    guest.fake.assert_lookups(ours);
    let Guest {
        mount,
        process,
        conn,
        fake,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    assert_eq!(conn.load(), (0, 0));
    drop(conn);
    virtio_fs_attack::assert_gone(&fake);
}

#[test]
fn an_fsync_does_not_rely_on_one_that_another_thread_is_still_at() {
    let fake = Fake::new().drive(Drive::Threads).queues(2).fs(tree());
    let guest = Guest::with(fake, Config::default(), MountOptions::default());
    let path = b"/dir/file";
    let fd = guest.process.open(At::Cwd, path, OpenFlags::RDWR, 0);
    let fd = fd.unwrap();
    let file = guest.process.file(fd).unwrap();
    file.write_at(0, b"precious").unwrap();
    guest.fake.fault(Rule::on(Op::FSYNC, Fault::Hold));
    let end = Instant::now() + Duration::from_secs(20);
    let sync = || {
        guest.fake.memory().attach();
        file.sync(Durable::All)
    };
    thread::scope(|scope| {
        let first = scope.spawn(sync);
        while guest.fake.count(Op::FSYNC) < 1 {
            assert!(Instant::now() < end, "no FSYNC");
            thread::sleep(Duration::from_millis(1));
        }
        // The first one is not done yet, and may fail.
        sync().unwrap();
        assert_eq!(guest.fake.count(Op::FSYNC), 2);
        guest.fake.release_held();
        first.join().unwrap().unwrap();
    });
    sync().unwrap();
    assert_eq!(guest.fake.count(Op::FSYNC), 2, "nothing was left to do");
    drop(file);
    guest.process.close(fd).unwrap();
}

#[test]
fn threads_that_poll_share_a_mount() {
    let seed = Rng::from_env(11).number();
    let fake = Fake::new().drive(Drive::Threads).queues(2).reorder(seed);
    stress(fake, Config::default(), seed);
}

#[test]
fn threads_share_few_slots_in_turn() {
    let seed = Rng::from_env(12).number();
    let config = Config {
        max_active: 2,
        ..Config::default()
    };
    stress(
        Fake::new().drive(Drive::Threads).queue_size(8),
        config,
        seed,
    );
}

#[test]
fn who_does_not_get_the_lock_on_a_layout_does_not_give_it_back() {
    let guest = Guest::new();
    let platform = &guest.platform;
    // Who would have to wait comes back at once.
    platform.set_signal(Signal::Kill);
    let lock = SleepRwLock::new();
    // Each in a thread of its own: one that has a lock does not ask for it again.
    let share = || std::thread::scope(|s| s.spawn(|| lock.share(platform)).join().unwrap());
    let take = || std::thread::scope(|s| s.spawn(|| lock.take(platform)).join().unwrap());
    let alone = take().unwrap();
    assert!(share().is_err());
    assert!(take().is_err());
    assert!(share().is_err(), "it was given back");
    drop(alone);
    let (one, two) = (share().unwrap(), share().unwrap());
    assert!(take().is_err());
    drop(one);
    assert!(take().is_err(), "one sharer is left");
    drop(two);
    drop(take().unwrap());
    platform.set_signal(Signal::None);
    guest.finish();
}
