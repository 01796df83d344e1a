//! Sessions that are lost and made anew: what callers see of it, what is found
//! again, what is lost, and that it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::conn::{Config, Restart, State};
use virtio_fs::fs::{At, CachePolicy, LockWait, MountOptions, Report};
use virtio_fs::platform::Signal;
use virtio_fs::wire::{Lock, LockKind, OpenFlags};
use virtio_fs_attack::{Guest, WITNESS, tree};
use virtio_fs_fake::{Fake, Fault, Interrupts, NodeIds, Op, Rule, init};

fn config() -> Config {
    Config {
        restart: Some(Restart::default()),
        ..Config::default()
    }
}

fn guest() -> Guest {
    on(Fake::new())
}

fn on(fake: Fake) -> Guest {
    Guest::with(fake.fs(tree()), config(), MountOptions::default())
}

fn report(guest: &Guest) -> Report {
    let report = guest.mount.file_system().last_restart();
    report.expect("the session was restarted")
}

fn errno<T: std::fmt::Debug>(result: virtio_fs::Result<T>) -> Errno {
    result.expect_err("it fails").errno()
}

// What callers see.

#[test]
fn a_server_that_is_replaced_while_nothing_goes_on_is_not_noticed() {
    for ids in [NodeIds::Counter, NodeIds::Stable, NodeIds::Recycled] {
        let guest = on(Fake::new().tune(|server| server.node_ids = ids));
        let (file, leaf) = (guest.inode("/dir/file"), guest.inode("/dir/sub/leaf"));
        let other = guest.inode("/dir/other");
        guest.fake.restart_server();
        // In another order than before, so that ids go to other files.
        assert_eq!(leaf.metadata().unwrap().size(), 4);
        assert_eq!(guest.read("/witness").unwrap(), WITNESS);
        assert_eq!(other.metadata().unwrap().size(), 5);
        assert_eq!(file.metadata().unwrap().size(), 10_000);
        assert!(Arc::ptr_eq(&guest.inode("/dir/file"), &file));
        assert!(Arc::ptr_eq(&guest.inode("/dir/sub/leaf"), &leaf));
        assert_eq!(guest.conn.state(), State::Ready);
        assert_eq!(guest.conn.counters().restarts.get(), 1);
        assert!(report(&guest).is_complete());
        drop((file, leaf, other));
        guest.finish();
    }
}

#[test]
fn a_question_in_flight_is_asked_again() {
    let guest = guest();
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::NeedsReset));
    assert_eq!(inode.revalidate().unwrap().size(), 10_000);
    assert_eq!(guest.conn.counters().requests_resent.get(), 1);
    drop(inode);
    guest.finish();
}

#[test]
fn every_kind_of_loss_leads_to_a_new_session() {
    type Lose = fn(&Guest);
    let ways: [(&str, Lose); 5] = [
        ("it asks for a reset", |guest| guest.fake.needs_reset()),
        ("its ring breaks", |guest| {
            guest.fake.fault(Rule::any(Fault::UsedStray(9999)));
        }),
        ("it falls silent with a question", |guest| {
            guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
        }),
        ("it falls silent with a caller's buffer", |guest| {
            guest.fake.fault(Rule::on(Op::READ, Fault::Hold));
        }),
        ("the kernel says so", |guest| guest.conn.restart().unwrap()),
    ];
    for (way, lose) in ways {
        let guest = on(Fake::new().tune(|server| server.interrupts = Interrupts::Ignored));
        let fd = guest
            .process
            .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
            .unwrap();
        lose(&guest);
        let mut buf = [0; 10];
        assert_eq!(guest.process.pread(fd, &mut buf, 5), Ok(10), "{way}");
        let inode = guest.inode("/dir/file");
        assert_eq!(inode.revalidate().unwrap().size(), 10_000, "{way}");
        assert_eq!(guest.conn.counters().restarts.get(), 1, "{way}");
        assert_eq!(guest.process.pwrite(fd, b"hello", 0), Ok(5), "{way}");
        drop(inode);
        guest.process.close(fd).unwrap();
        assert_eq!(
            guest.fake.fs(|fs| fs.read_at("/dir/file", 0, 5)).unwrap(),
            b"hello"
        );
        guest.finish();
    }
}

#[test]
fn a_device_that_vanishes_for_good_ends_the_connection_after_all_attempts() {
    let guest = guest();
    guest.fake.vanish();
    let inode = guest.inode("/");
    assert_eq!(errno(inode.revalidate()), Errno::ENOTCONN);
    assert_eq!(guest.conn.state(), State::Lost);
    drop(inode);
    guest.process.getcwd().unwrap();
}

#[test]
fn a_worker_makes_the_session_anew_when_nobody_calls() {
    let guest = guest();
    guest.fake.restart_server();
    for _ in 0..4 {
        guest.conn.work();
    }
    assert_eq!(guest.conn.state(), State::Ready);
    assert_eq!(guest.conn.counters().restarts.get(), 1);
    guest.assert_works();
    guest.finish();
}

#[test]
fn a_server_that_dies_with_every_request_is_bounded_for_the_caller() {
    let guest = guest();
    let inode = guest.inode("/dir/file");
    guest
        .fake
        .fault(Rule::on(Op::GETXATTR, Fault::NeedsReset).always());
    let mut value = [0; 8];
    assert_eq!(errno(inode.get_xattr(b"user.x", &mut value)), Errno::EIO);
    let resends = u64::from(Restart::default().resends);
    assert_eq!(guest.conn.counters().restarts.get(), resends);
    // Others go on.
    guest.assert_works();
    drop(inode);
    guest.finish();
}

#[test]
fn a_server_that_never_answers_init_again_is_given_up() {
    let guest = guest();
    guest
        .fake
        .fault(Rule::on(Op::INIT, Fault::NeedsReset).always());
    guest.fake.needs_reset();
    let inode = guest.inode("/");
    assert_eq!(errno(inode.revalidate()), Errno::ENOTCONN);
    assert_eq!(guest.conn.state(), State::Lost);
    assert!(guest.fake.stats().resets <= 3 * u64::from(Restart::default().attempts) + 8);
    drop(inode);
}

#[test]
fn a_session_that_dies_at_any_step_of_being_made_is_made_all_the_same() {
    for step in 1..12 {
        let guest = guest();
        let fd = guest
            .process
            .open(At::Cwd, b"/dir/sub/leaf", OpenFlags::RDWR, 0)
            .unwrap();
        let inode = guest.inode("/dir/file");
        guest.fake.needs_reset();
        guest.fake.fault(Rule::any(Fault::NeedsReset).nth(step));
        let mut buf = [0; 4];
        assert_eq!(guest.process.pread(fd, &mut buf, 0), Ok(4), "step {step}");
        assert_eq!(&buf, b"leaf");
        assert_eq!(inode.revalidate().unwrap().size(), 10_000);
        assert!(report(&guest).is_complete());
        drop(inode);
        guest.process.close(fd).unwrap();
        guest.finish();
    }
}

#[test]
fn a_session_that_dies_after_each_of_its_answers_loses_no_caller() {
    for step in 1..40 {
        let guest = guest();
        guest.fake.fault(Rule::any(Fault::NeedsReset).nth(step));
        let fd = guest
            .process
            .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
            .unwrap();
        for n in 0..4u8 {
            assert_eq!(
                guest.process.pwrite(fd, &[n; 100], u64::from(n) * 100),
                Ok(100)
            );
            let mut buf = [9; 100];
            assert_eq!(
                guest.process.pread(fd, &mut buf, u64::from(n) * 100),
                Ok(100)
            );
            assert_eq!(buf, [n; 100], "step {step}");
            assert_eq!(guest.names("/dir").unwrap().len(), 6, "step {step}");
        }
        guest.process.close(fd).unwrap();
        guest.assert_works();
        guest.finish();
    }
}

// What is sent again, and what not.

#[test]
fn what_cannot_be_repeated_gets_eio_and_is_done_once() {
    let guest = guest();
    guest.fake.fault(Rule::on(Op::MKDIR, Fault::NeedsReset));
    assert_eq!(
        errno(guest.process.mkdir(At::Cwd, b"/new", 0o755)),
        Errno::EIO
    );
    assert_eq!(guest.fake.count(Op::MKDIR), 1);
    assert_eq!(guest.conn.counters().requests_lost.get(), 1);
    // It was carried out; the caller can see that.
    assert!(guest.stat("/new").is_ok());
    guest.finish();
}

#[test]
fn an_appending_write_is_never_sent_twice() {
    let guest = guest();
    let flags = OpenFlags::WRONLY | OpenFlags::APPEND;
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/other", flags, 0)
        .unwrap();
    guest.fake.fault(Rule::on(Op::WRITE, Fault::NeedsReset));
    assert_eq!(errno(guest.process.write(fd, b"+tail")), Errno::EIO);
    assert_eq!(
        guest.fake.fs(|fs| fs.read("/dir/other")).unwrap(),
        b"other+tail"
    );
    assert_eq!(guest.process.write(fd, b"!"), Ok(1));
    assert_eq!(
        guest.fake.fs(|fs| fs.read("/dir/other")).unwrap(),
        b"other+tail!"
    );
    guest.process.close(fd).unwrap();
    guest.finish();
}

#[test]
fn a_write_whose_answer_was_lost_is_repeated_with_the_same_effect() {
    let guest = guest();
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/other", OpenFlags::RDWR, 0)
        .unwrap();
    guest.fake.fault(Rule::on(Op::WRITE, Fault::NeedsReset));
    assert_eq!(guest.process.pwrite(fd, b"OTH", 0), Ok(3));
    assert_eq!(guest.fake.count(Op::WRITE), 2);
    assert_eq!(guest.fake.fs(|fs| fs.read("/dir/other")).unwrap(), b"OTHer");
    guest.fake.fault(Rule::on(Op::FSYNC, Fault::NeedsReset));
    guest
        .process
        .fsync(fd, virtio_fs::fs::Durable::All)
        .unwrap();
    assert_eq!(guest.fake.count(Op::FSYNC), 2);
    guest.process.close(fd).unwrap();
    guest.finish();
}

// What is found again.

#[test]
fn open_files_and_directories_go_on_where_they_were() {
    let guest = guest();
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .unwrap();
    let mut dir = guest.inode("/dir").open_dir().unwrap();
    let mut first = Vec::new();
    dir.read(|entry| {
        first.push(entry.name.to_vec());
        first.len() < 3
    })
    .unwrap();
    first.pop();
    let mut buf = [0; 100];
    assert_eq!(guest.process.read(fd, &mut buf), Ok(100));
    guest.fake.restart_server();
    assert_eq!(guest.process.read(fd, &mut buf), Ok(100));
    assert_eq!(guest.process.write(fd, b"at 200"), Ok(6));
    dir.read(|entry| {
        first.push(entry.name.to_vec());
        true
    })
    .unwrap();
    first.sort();
    first.dedup();
    assert_eq!(first.len(), 6, "{first:?}");
    let written = guest.fake.fs(|fs| fs.read_at("/dir/file", 200, 6)).unwrap();
    assert_eq!(written, b"at 200");
    assert_eq!(
        (report(&guest).handles, report(&guest).lost_handles),
        (2, 0)
    );
    drop(dir);
    guest.process.close(fd).unwrap();
    guest.finish();
}

#[test]
fn a_file_that_was_replaced_is_stale_and_the_new_one_is_another() {
    let guest = guest();
    let old = guest.inode("/dir/other");
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/other", OpenFlags::RDONLY, 0)
        .unwrap();
    guest.fake.fs(|fs| {
        // Kept elsewhere, so that its inode number is not given away.
        fs.move_to("/dir/other", "/elsewhere").unwrap();
        fs.file("/dir/other", "another one").unwrap();
    });
    guest.fake.restart_server();
    let mut buf = [0; 4];
    assert_eq!(errno(guest.process.pread(fd, &mut buf, 0)), Errno::ESTALE);
    assert_eq!(errno(old.revalidate()), Errno::ESTALE);
    assert_eq!(guest.read("/dir/other").unwrap(), b"another one");
    assert!(!Arc::ptr_eq(&guest.inode("/dir/other"), &old));
    let report = report(&guest);
    assert_eq!((report.lost_handles, report.stale), (1, 1));
    assert_eq!(report.lost_paths, [b"/dir/other".to_vec()]);
    guest.process.close(fd).unwrap();
    drop(old);
    guest.finish();
}

#[test]
fn a_file_without_a_name_is_stale_and_the_rest_is_not() {
    let guest = guest();
    let open = |path: &[u8]| guest.process.open(At::Cwd, path, OpenFlags::RDWR, 0);
    let (gone, kept) = (open(b"/dir/other").unwrap(), open(b"/dir/file").unwrap());
    guest.process.unlink(At::Cwd, b"/dir/other").unwrap();
    guest.fake.restart_server();
    assert_eq!(errno(guest.process.pwrite(gone, b"x", 0)), Errno::ESTALE);
    assert_eq!(guest.process.pwrite(kept, b"x", 0), Ok(1));
    // As with NFS, the end of what was written to it may be told of.
    let _ = guest.process.close(gone);
    guest.process.close(kept).unwrap();
    guest.finish();
}

#[test]
fn a_hard_link_met_under_another_name_first_stays_one_inode() {
    let guest = guest();
    guest
        .fake
        .fs(|fs| fs.hard_link("/dir/other", "/twin"))
        .unwrap();
    let inode = guest.inode("/dir/other");
    guest.fake.restart_server();
    assert!(Arc::ptr_eq(&guest.inode("/twin"), &inode));
    assert!(Arc::ptr_eq(&guest.inode("/dir/other"), &inode));
    drop(inode);
    guest.finish();
}

#[test]
fn a_directory_that_went_takes_what_is_below_it_along() {
    let guest = guest();
    let leaf = guest.inode("/dir/sub/leaf");
    let other = guest.inode("/dir/other");
    guest
        .fake
        .fs(|fs| fs.move_to("/dir/sub", "/moved"))
        .unwrap();
    guest.fake.restart_server();
    assert_eq!(errno(leaf.revalidate()), Errno::ESTALE);
    assert_eq!(other.revalidate().unwrap().size(), 5);
    assert_eq!(report(&guest).stale, 2);
    drop((leaf, other));
    guest.finish();
}

#[test]
fn names_and_attributes_are_asked_for_anew() {
    let options = MountOptions {
        cache: CachePolicy::Always,
        ..MountOptions::default()
    };
    let guest = Guest::with(Fake::new().fs(tree()), config(), options);
    assert_eq!(guest.stat("/dir/other").unwrap().size(), 5);
    assert_eq!(errno(guest.stat("/absent")), Errno::ENOENT);
    assert_eq!(guest.names("/dir").unwrap().len(), 6);
    guest.fake.fs(|fs| {
        fs.write_at("/dir/other", 5, b" longer").unwrap();
        fs.file("/absent", "here now").unwrap();
        fs.file("/dir/new", "new").unwrap();
    });
    guest.fake.restart_server();
    guest.conn.work();
    guest.conn.work();
    assert_eq!(guest.stat("/dir/other").unwrap().size(), 12);
    assert_eq!(guest.stat("/absent").unwrap().size(), 8);
    assert_eq!(guest.names("/dir").unwrap().len(), 7);
    guest.finish();
}

// Locks.

fn lock(start: u64, end: u64, kind: LockKind) -> Lock {
    Lock {
        start,
        end,
        kind,
        pid: 0,
    }
}

#[test]
fn locks_that_the_server_kept_are_taken_again() {
    let guest = guest();
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .unwrap();
    let wanted = lock(10, 19, LockKind::Write);
    guest.process.lock(fd, wanted, LockWait::Fail).unwrap();
    guest
        .process
        .flock(fd, LockKind::Read, LockWait::Fail)
        .unwrap();
    let ino = guest.fake.fs(|fs| fs.find("/dir/file")).unwrap();
    let before = guest.fake.locks(ino);
    assert_eq!(before.len(), 2);
    guest.fake.restart_server();
    guest.assert_works();
    assert_eq!(guest.fake.locks(ino), before);
    assert_eq!(report(&guest).locks, 2);
    guest.process.close(fd).unwrap();
    assert_eq!(guest.fake.locks(ino), []);
    // What was dropped is not taken again.
    guest.fake.restart_server();
    guest.assert_works();
    assert_eq!(guest.fake.locks(ino), []);
    guest.finish();
}

#[test]
fn a_lock_that_is_refused_costs_the_open_file() {
    let guest = guest();
    let open = || {
        guest
            .process
            .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
            .unwrap()
    };
    let fd = open();
    let wanted = lock(10, 19, LockKind::Write);
    guest.process.lock(fd, wanted, LockWait::Fail).unwrap();
    guest.fake.restart_server();
    let eagain = -11;
    guest.fake.fault(Rule::on(Op::SETLK, Fault::Error(eagain)));
    assert_eq!(errno(guest.process.pwrite(fd, b"x", 0)), Errno::EIO);
    assert_eq!(report(&guest).lost_locks, 1);
    let again = open();
    assert_eq!(guest.process.pwrite(again, b"x", 0), Ok(1));
    guest.process.close(again).unwrap();
    let _ = guest.process.close(fd);
    guest.finish();
}

// Another server.

#[test]
fn a_server_with_other_limits_is_taken_as_it_is() {
    let guest = guest();
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .unwrap();
    guest.fake.tune(|server| {
        server.minor = 31;
        server.max_write = 4096;
        server.flags &= !(init::ATOMIC_O_TRUNC | init::MAX_PAGES | init::DO_READDIRPLUS);
    });
    guest.fake.restart_server();
    let data = vec![3; 9000];
    assert_eq!(guest.process.pwrite(fd, &data, 0), Ok(9000));
    assert_eq!(guest.conn.limits().minor, 31);
    assert_eq!(guest.conn.limits().max_write, 4096);
    guest.process.close(fd).unwrap();
    guest.assert_works();
    guest.finish();
}

#[test]
fn a_server_that_checks_no_acls_any_more_is_refused() {
    let guest = on(Fake::new().tune(|server| server.flags |= init::POSIX_ACL | init::DONT_MASK));
    guest.fake.tune(|server| server.flags &= !init::POSIX_ACL);
    guest.fake.restart_server();
    assert_eq!(errno(guest.stat("/witness")), Errno::ENOTCONN);
    assert_eq!(guest.conn.state(), State::Lost);
}

#[test]
fn another_root_is_refused() {
    let guest = guest();
    guest.fake.restart_server();
    let ino = virtio_fs_fake::AttrField::Ino;
    guest
        .fake
        .fault(Rule::on(Op::GETATTR, Fault::Attr(ino, 4711)).always());
    assert_eq!(errno(guest.stat("/witness")), Errno::ENOTCONN);
    assert_eq!(guest.conn.state(), State::Lost);
}

// Waiting and ending.

#[test]
fn a_killed_caller_gets_away_from_a_session_that_does_not_come() {
    let guest = guest();
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::INIT, Fault::Hold).always());
    guest.fake.needs_reset();
    let platform = guest.platform.clone();
    let parks = Arc::new(AtomicU64::new(0));
    guest.platform.on_park(move |_| {
        if parks.fetch_add(1, Ordering::Relaxed) == 20 {
            platform.set_signal(Signal::Kill);
        }
    });
    assert_eq!(errno(inode.revalidate()), Errno::EINTR);
    guest.platform.set_signal(Signal::None);
    guest.fake.clear_faults();
    assert_eq!(inode.revalidate().unwrap().size(), 10_000);
    drop(inode);
    guest.finish();
}

#[test]
fn a_wait_for_a_session_ends_with_the_deadline() {
    let mut config = config();
    config.deadlines.metadata = Some(Duration::from_secs(2));
    config.restart = Some(Restart {
        attempts: u32::MAX,
        ..Restart::default()
    });
    let guest = Guest::with(Fake::new().fs(tree()), config, MountOptions::default());
    let inode = guest.inode("/dir/file");
    let einval = -22;
    guest
        .fake
        .fault(Rule::on(Op::INIT, Fault::Error(einval)).always());
    guest.fake.needs_reset();
    assert_eq!(errno(inode.revalidate()), Errno::ETIMEDOUT);
    guest.fake.clear_faults();
    assert_eq!(inode.revalidate().unwrap().size(), 10_000);
    drop(inode);
    guest.finish();
}

#[test]
fn an_administrator_ends_a_restart() {
    let guest = guest();
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::INIT, Fault::Hold).always());
    guest.fake.needs_reset();
    let conn = guest.conn.clone();
    let parks = Arc::new(AtomicU64::new(0));
    guest.platform.on_park(move |_| {
        if parks.fetch_add(1, Ordering::Relaxed) == 20 {
            conn.abort();
        }
    });
    assert_eq!(errno(inode.revalidate()), Errno::ECONNABORTED);
    assert_eq!(guest.conn.state(), State::Aborted);
    assert_eq!(guest.conn.load(), (0, 0));
    drop(inode);
}

#[test]
fn unmounting_while_there_is_no_session_is_bounded_and_leaves_nothing() {
    let guest = guest();
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .unwrap();
    guest
        .fake
        .fault(Rule::on(Op::INIT, Fault::NeedsReset).always());
    guest.fake.restart_server();
    guest.conn.work();
    assert_eq!(guest.conn.state(), State::Restarting);
    guest.process.close(fd).unwrap();
    let Guest {
        process,
        mount,
        conn,
        fake,
        transport,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    assert_eq!(conn.load(), (0, 0));
    drop((conn, transport));
    virtio_fs_attack::assert_gone(&fake);
}

#[test]
fn the_kernel_is_told_what_became_of_it() {
    let guest = guest();
    let inode = guest.inode("/dir/other");
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let list = told.clone();
    guest
        .mount
        .file_system()
        .on_restart(Box::new(move |report| {
            list.lock().unwrap().push(report.clone())
        }));
    guest.conn.restart().unwrap();
    guest.conn.restart().unwrap();
    let told = told.lock().unwrap().clone();
    assert_eq!(told.iter().map(|r| r.life).collect::<Vec<_>>(), [1, 2]);
    drop(inode);
    guest.finish();
}

// Rest.

#[test]
fn a_frozen_mount_holds_nothing_of_the_device_and_thaws_with_another_server() {
    let guest = guest();
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .unwrap();
    guest.process.pwrite(fd, b"before", 0).unwrap();
    let fs = guest.mount.file_system();
    fs.freeze().unwrap();
    assert_eq!(guest.conn.state(), State::Frozen);
    assert_eq!(guest.fake.count(Op::SYNCFS), 1);
    assert_eq!(guest.fake.count(Op::DESTROY), 1);
    assert_eq!(guest.fake.in_flight(), 0);
    assert_eq!(errno(fs.freeze()), Errno::ETIMEDOUT);
    guest.fake.restart_server();
    let report = fs.thaw().unwrap();
    assert_eq!((report.handles, report.is_complete()), (1, true));
    let mut buf = [0; 6];
    assert_eq!(guest.process.pread(fd, &mut buf, 0), Ok(6));
    assert_eq!(&buf, b"before");
    guest.process.close(fd).unwrap();
    guest.finish();
}

#[test]
fn without_a_policy_nothing_is_restarted_but_a_mount_can_be_frozen() {
    let guest = Guest::new();
    let inode = guest.inode("/dir/file");
    guest.mount.file_system().freeze().unwrap();
    guest.mount.file_system().thaw().unwrap();
    assert_eq!(inode.revalidate().unwrap().size(), 10_000);
    guest.fake.needs_reset();
    guest.conn.work();
    assert_eq!(guest.conn.state(), State::Lost);
    drop(inode);
}
