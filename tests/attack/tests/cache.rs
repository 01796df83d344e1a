//! What is kept, for how long, and what ends it (protocol.md 4.1 to 4.6, 4.11).

use std::sync::Arc;
use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::conn::Config;
use virtio_fs::fs::{At, CachePolicy, Changes, Durable, MountOptions, Symlinks};
use virtio_fs::platform::{Caller, Capabilities};
use virtio_fs::wire::{FallocateMode, OpenFlags, RenameFlags, SeekWhence};
use virtio_fs_attack::{Guest, tree};
use virtio_fs_fake::{
    Errno as HostErrno, Fake, Fault, MemFs, NodeIds, Op, ROOT_ID, Rule, fopen, init,
};

const LONG: Duration = Duration::from_secs(1000);

/// A mount whose names and attributes hold long.
fn lasting() -> Guest {
    Guest::on(Fake::new().fs(tree()).tune(|server| {
        server.entry_valid = LONG;
        server.attr_valid = LONG;
    }))
}

fn with_policy(cache: CachePolicy) -> Guest {
    let options = MountOptions {
        cache,
        ..MountOptions::default()
    };
    Guest::with(Fake::new().fs(tree()), Config::default(), options)
}

fn sent(guest: &Guest, call: impl FnOnce()) -> Vec<(Op, u64)> {
    guest.settle();
    guest.fake.clear_log();
    call();
    guest.fake.counts().into_iter().collect()
}

const NOTHING: &[(Op, u64)] = &[];

#[test]
fn what_is_valid_is_not_asked_for() {
    let guest = lasting();
    guest.stat("/dir/sub/leaf").unwrap();
    let ops = sent(&guest, || {
        for _ in 0..10 {
            guest.stat("/dir/sub/leaf").unwrap();
        }
    });
    assert_eq!(ops, NOTHING);
    guest.finish();
}

#[test]
fn names_and_attributes_end_each_at_their_own_time() {
    // Who may search every directory needs no attributes to do so.
    for (capabilities, for_searching) in [(Capabilities::all(), 0), (Capabilities::empty(), 1)] {
        let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
            server.entry_valid = Duration::from_secs(10);
            server.attr_valid = Duration::from_secs(3);
        }));
        guest.platform.set_caller(Caller {
            uid: 1000,
            capabilities,
            ..Caller::ROOT
        });
        guest.stat("/witness").unwrap();
        guest.platform.advance(Duration::from_secs(2));
        let stat = || assert!(guest.stat("/witness").is_ok());
        assert_eq!(sent(&guest, stat), NOTHING);
        guest.platform.advance(Duration::from_secs(2));
        assert_eq!(sent(&guest, stat), [(Op::GETATTR, 1 + for_searching)]);
        guest.platform.advance(Duration::from_secs(7));
        let mut ops = vec![(Op::LOOKUP, 1), (Op::GETATTR, for_searching)];
        ops.retain(|(_, count)| *count > 0);
        assert_eq!(sent(&guest, stat), ops);
        guest.finish();
    }
}

#[test]
fn a_name_that_holds_for_no_time_is_not_kept() {
    let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
        server.entry_valid = Duration::ZERO;
        server.attr_valid = Duration::ZERO;
    }));
    guest.stat("/dir/sub/leaf").unwrap();
    assert_eq!(guest.mount.file_system().dentry_count(), 0);
    guest.settle();
    assert_eq!(
        guest.fake.nodes().len(),
        0,
        "the server keeps nothing for us"
    );
    guest.finish();
}

#[test]
fn a_negative_entry_holds_as_long_as_the_server_says() {
    let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
        server.entry_valid = LONG;
        server.attr_valid = LONG;
        server.negative_valid = Some(Duration::from_secs(5));
    }));
    let miss = || assert_eq!(guest.stat("/none").unwrap_err().errno(), Errno::ENOENT);
    miss();
    assert_eq!(sent(&guest, miss), NOTHING);
    guest.fake.fs(|fs| fs.file("/none", "")).unwrap();
    guest.platform.advance(Duration::from_secs(6));
    assert!(guest.stat("/none").is_ok());
    guest.finish();
}

#[test]
fn an_enoent_promises_nothing_unless_the_policy_does() {
    let guest = with_policy(CachePolicy::Auto);
    for _ in 0..3 {
        let ops = sent(&guest, || assert!(guest.stat("/none").is_err()));
        assert_eq!(ops, [(Op::LOOKUP, 1)]);
    }
    guest.finish();
    let guest = with_policy(CachePolicy::Always);
    assert!(guest.stat("/none").is_err());
    assert_eq!(
        sent(&guest, || assert!(guest.stat("/none").is_err())),
        NOTHING
    );
    guest.finish();
}

#[test]
fn no_policy_means_to_ask_each_time() {
    let guest = with_policy(CachePolicy::None);
    guest.stat("/witness").unwrap();
    let ops = sent(&guest, || assert!(guest.stat("/witness").is_ok()));
    assert!(ops.contains(&(Op::LOOKUP, 1)), "{ops:?}");
    guest.finish();
}

#[test]
fn a_policy_of_always_outlasts_the_servers_lifetimes() {
    for policy in [CachePolicy::Always, CachePolicy::Metadata] {
        let guest = with_policy(policy);
        guest.stat("/dir/file").unwrap();
        guest.names("/dir").unwrap();
        guest.platform.advance(Duration::from_secs(100_000));
        let ops = sent(&guest, || {
            guest.stat("/dir/file").unwrap();
        });
        assert_eq!(ops, NOTHING);
        guest.finish();
    }
}

/// A change made here, and what must be asked for afterwards: each path with
/// whether its attributes are out of date.
struct Change {
    what: &'static str,
    make: fn(&Guest),
    asked: &'static [&'static str],
    kept: &'static [&'static str],
}

fn rename(guest: &Guest, old: &str, new: &str, flags: RenameFlags) {
    let (old, new) = (old.as_bytes(), new.as_bytes());
    guest
        .process
        .rename(At::Cwd, old, At::Cwd, new, flags)
        .unwrap();
}

fn file(guest: &Guest, path: &str) -> Arc<virtio_fs::fs::File<virtio_fs_fake::FakePlatform>> {
    guest.inode(path).open(OpenFlags::RDWR).unwrap()
}

const CHANGES: &[Change] = &[
    Change {
        what: "CREATE",
        make: |g| {
            let flags = OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::EXCL;
            let fd = g.process.open(At::Cwd, b"/dir/new", flags, 0o600).unwrap();
            g.process.close(fd).unwrap();
        },
        asked: &["/dir"],
        kept: &["/dir/new", "/dir/file", "/witness"],
    },
    Change {
        what: "MKDIR",
        make: |g| g.process.mkdir(At::Cwd, b"/dir/new", 0o700).unwrap(),
        asked: &["/dir"],
        kept: &["/dir/new", "/dir/file"],
    },
    Change {
        what: "SYMLINK",
        make: |g| g.process.symlink(b"x", At::Cwd, b"/dir/new").unwrap(),
        asked: &["/dir"],
        kept: &["/dir/new", "/dir/file"],
    },
    Change {
        what: "LINK",
        make: |g| {
            let follow = Symlinks::NoFollow;
            g.process
                .link(At::Cwd, b"/witness", follow, At::Cwd, b"/dir/new")
                .unwrap();
        },
        asked: &["/dir"],
        kept: &["/dir/file"],
    },
    Change {
        what: "UNLINK",
        make: |g| g.process.unlink(At::Cwd, b"/dir/other").unwrap(),
        asked: &["/dir"],
        kept: &["/dir/file", "/witness"],
    },
    Change {
        what: "RMDIR",
        make: |g| g.process.rmdir(At::Cwd, b"/empty").unwrap(),
        asked: &["/"],
        kept: &["/dir", "/dir/file"],
    },
    Change {
        what: "RENAME",
        make: |g| rename(g, "/dir/other", "/moved", RenameFlags::empty()),
        asked: &["/dir", "/", "/moved"],
        kept: &["/dir/file", "/witness"],
    },
    Change {
        what: "RENAME over",
        make: |g| rename(g, "/dir/other", "/witness", RenameFlags::empty()),
        asked: &["/dir", "/", "/witness"],
        kept: &["/dir/file"],
    },
    Change {
        what: "RENAME2 EXCHANGE",
        make: |g| rename(g, "/dir/other", "/witness", RenameFlags::EXCHANGE),
        asked: &["/dir", "/", "/witness", "/dir/other"],
        kept: &["/dir/file"],
    },
    Change {
        what: "WRITE",
        make: |g| assert_eq!(file(g, "/dir/file").write_at(20_000, b"x").unwrap(), 1),
        asked: &["/dir/file"],
        kept: &["/dir", "/witness"],
    },
    Change {
        what: "FALLOCATE",
        make: |g| {
            let file = file(g, "/dir/file");
            file.allocate(0, 50_000, FallocateMode::empty()).unwrap();
        },
        asked: &["/dir/file"],
        kept: &["/dir", "/witness"],
    },
    Change {
        what: "COPY_FILE_RANGE",
        make: |g| {
            let target = file(g, "/dir/other");
            file(g, "/dir/file").copy_to(0, &target, 0, 100).unwrap();
        },
        asked: &["/dir/other"],
        kept: &["/dir", "/witness"],
    },
    Change {
        what: "SETATTR",
        make: |g| {
            let changes = Changes {
                size: Some(1),
                ..Changes::default()
            };
            g.process
                .set(At::Cwd, b"/dir/file", Symlinks::Follow, &changes)
                .unwrap();
        },
        asked: &[],
        kept: &["/dir/file", "/dir", "/witness"],
    },
    Change {
        what: "O_TRUNC",
        make: |g| {
            let flags = OpenFlags::WRONLY | OpenFlags::TRUNC;
            drop(g.inode("/dir/file").open(flags).unwrap());
        },
        asked: &["/dir/file"],
        kept: &["/dir", "/witness"],
    },
    Change {
        what: "READ",
        make: |g| drop(g.read("/dir/file").unwrap()),
        asked: &[],
        kept: &["/dir", "/witness"],
    },
];

#[test]
fn each_change_outdates_what_it_touches_and_nothing_else() {
    for change in CHANGES {
        let guest = lasting();
        let known = ["/", "/dir", "/dir/file", "/dir/other", "/witness", "/empty"];
        for path in known {
            guest.stat(path).unwrap();
        }
        (change.make)(&guest);
        for path in change.kept {
            let ops = sent(&guest, || assert!(guest.stat(path).is_ok()));
            assert_eq!(ops, NOTHING, "{}: {path} is asked for", change.what);
        }
        for path in change.asked {
            let ops = sent(&guest, || assert!(guest.stat(path).is_ok()));
            assert!(!ops.is_empty(), "{}: {path} is not asked for", change.what);
        }
        // Whatever is asked for or not, it is the truth.
        for path in known.iter().chain(&["/dir/new", "/moved"]) {
            let ours = guest.stat(path);
            let theirs = guest.fake.fs(|fs| fs.stat(path));
            let ours = ours.map(|m| (m.attr.size, m.attr.nlink, m.attr.mode.bits()));
            let theirs = theirs.map(|s| (s.size, s.nlink, s.mode));
            assert_eq!(ours.ok(), theirs.ok(), "{}: {path}", change.what);
        }
        guest.finish();
    }
}

#[test]
fn a_name_that_was_removed_here_is_gone_at_once_and_one_made_here_is_there() {
    for policy in [CachePolicy::Auto, CachePolicy::Always] {
        let guest = with_policy(policy);
        for _ in 0..3 {
            guest.process.mkdir(At::Cwd, b"/dir/x", 0o700).unwrap();
            assert!(guest.stat("/dir/x").is_ok());
            guest.process.rmdir(At::Cwd, b"/dir/x").unwrap();
            assert_eq!(guest.stat("/dir/x").unwrap_err().errno(), Errno::ENOENT);
        }
        guest.finish();
    }
}

#[test]
fn a_late_answer_does_not_overwrite_a_newer_one() {
    let guest = lasting();
    let inode = guest.inode("/dir/file");
    // The old size is on its way while the file grows and the new size is heard.
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    let (other, control) = (inode.clone(), guest.fake.control());
    let mut done = false;
    guest.platform.on_park(move |_| {
        if !core::mem::replace(&mut done, true) {
            control.fs(|fs| fs.truncate("/dir/file", 77)).unwrap();
            assert_eq!(other.revalidate().unwrap().size(), 77);
            control.release_held();
        }
    });
    // Its own caller gets what the server said then.
    assert_eq!(inode.revalidate().unwrap().size(), 10_000);
    guest.platform.on_park(|_| ());
    assert_eq!(inode.metadata().unwrap().size(), 77);
    drop(inode);
    guest.finish();
}

#[test]
fn a_late_answer_does_not_undo_a_write() {
    let guest = lasting();
    let file = file(&guest, "/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    let (other, control) = (file.clone(), guest.fake.control());
    let mut done = false;
    guest.platform.on_park(move |_| {
        if !core::mem::replace(&mut done, true) {
            assert_eq!(other.write_at(19_999, b"x").unwrap(), 1);
            control.release_held();
        }
    });
    file.inode().revalidate().unwrap();
    guest.platform.on_park(|_| ());
    assert_eq!(file.metadata().unwrap().size(), 20_000);
    drop(file);
    guest.finish();
}

#[test]
fn a_write_that_races_with_a_truncation_claims_no_size() {
    let guest = lasting();
    let file = file(&guest, "/dir/file");
    guest.fake.fault(Rule::on(Op::WRITE, Fault::Hold));
    let (other, control) = (file.clone(), guest.fake.control());
    let mut done = false;
    guest.platform.on_park(move |_| {
        if !core::mem::replace(&mut done, true) {
            let changes = Changes {
                size: Some(5),
                ..Changes::default()
            };
            other.set_metadata(&changes).unwrap();
            control.release_held();
        }
    });
    assert_eq!(file.write_at(0, &[1; 100]).unwrap(), 100);
    guest.platform.on_park(|_| ());
    assert_eq!(file.metadata().unwrap().size(), 5);
    drop(file);
    guest.finish();
}

#[test]
fn an_inode_made_anew_does_not_take_attributes_from_before_a_change() {
    let guest = lasting();
    guest.stat("/dir").unwrap();
    // READDIRPLUS is on its way with the old size; meanwhile the file is found,
    // written, and let go.
    guest.fake.fault(Rule::on(Op::READDIRPLUS, Fault::Hold));
    let (fs, control) = (guest.mount.file_system().clone(), guest.fake.control());
    let dir = guest.inode("/dir");
    let inner = dir.clone();
    let mut done = false;
    guest.platform.on_park(move |_| {
        if !core::mem::replace(&mut done, true) {
            let file = inner
                .lookup(b"file")
                .unwrap()
                .open(OpenFlags::RDWR)
                .unwrap();
            file.write_at(29_999, b"x").unwrap();
            drop(file);
            fs.shrink(usize::MAX);
            control.release_held();
        }
    });
    guest.names("/dir").unwrap();
    guest.platform.on_park(|_| ());
    assert_eq!(guest.stat("/dir/file").unwrap().size(), 30_000);
    drop(dir);
    guest.finish();
}

/// Runs `meanwhile` while the reply to a LOOKUP of `name` in `/dir` is on its
/// way, and returns what the name stands for afterwards.
fn lookup_race(
    policy: CachePolicy,
    name: &'static [u8],
    meanwhile: fn(&Arc<virtio_fs::fs::Inode<virtio_fs_fake::FakePlatform>>),
) -> (bool, bool) {
    let options = MountOptions {
        cache: policy,
        ..MountOptions::default()
    };
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.entry_valid = LONG;
        server.attr_valid = LONG;
    });
    let guest = Guest::with(fake, Config::default(), options);
    let dir = guest.inode("/dir");
    guest.fake.fault(Rule::on(Op::LOOKUP, Fault::Hold));
    let (inner, control) = (dir.clone(), guest.fake.control());
    let mut done = false;
    guest.platform.on_park(move |_| {
        if !core::mem::replace(&mut done, true) {
            meanwhile(&inner);
            control.release_held();
        }
    });
    let _ = dir.lookup(name);
    guest.platform.on_park(|_| ());
    let ours = dir.lookup(name).is_ok();
    let path = format!("/dir/{}", String::from_utf8_lossy(name));
    let theirs = guest.fake.fs(|fs| fs.stat(&path)).is_ok();
    drop(dir);
    guest.finish();
    (ours, theirs)
}

#[test]
fn a_lookup_that_races_with_a_change_of_the_name_is_not_remembered() {
    for policy in [CachePolicy::Auto, CachePolicy::Always] {
        let (ours, theirs) = lookup_race(policy, b"other", |dir| dir.unlink(b"other").unwrap());
        assert_eq!((ours, theirs), (false, false), "UNLINK");
        let (ours, theirs) = lookup_race(policy, b"new", |dir| {
            drop(dir.mkdir(b"new", 0o700).unwrap());
        });
        assert_eq!((ours, theirs), (true, true), "MKDIR");
        let (ours, theirs) = lookup_race(policy, b"other", |dir| {
            let flags = RenameFlags::empty();
            dir.rename(b"other", dir, b"third", flags).unwrap();
        });
        assert_eq!((ours, theirs), (false, false), "RENAME from");
        let (ours, theirs) = lookup_race(policy, b"third", |dir| {
            let flags = RenameFlags::empty();
            dir.rename(b"other", dir, b"third", flags).unwrap();
        });
        assert_eq!((ours, theirs), (true, true), "RENAME to");
    }
}

#[test]
fn of_two_changes_that_race_neither_is_believed_to_be_the_last() {
    // UNLINK is done on the server, its reply on its way; somebody makes the
    // name anew; then the reply comes.
    let guest = with_policy(CachePolicy::Always);
    let dir = guest.inode("/dir");
    guest.fake.fault(Rule::on(Op::UNLINK, Fault::Hold));
    let (inner, control) = (dir.clone(), guest.fake.control());
    let mut done = false;
    guest.platform.on_park(move |_| {
        if !core::mem::replace(&mut done, true) {
            drop(inner.mkdir(b"other", 0o700).unwrap());
            control.release_held();
        }
    });
    dir.unlink(b"other").unwrap();
    guest.platform.on_park(|_| ());
    assert!(dir.lookup(b"other").unwrap().is_dir());
    drop(dir);
    guest.finish();
}

#[test]
fn a_rename_that_moves_nothing_leaves_both_names() {
    for policy in [CachePolicy::Auto, CachePolicy::Always] {
        let guest = with_policy(policy);
        rename(&guest, "/dir/sub", "/dir/sub", RenameFlags::empty());
        assert!(guest.stat("/dir/sub").is_ok(), "onto itself");
        let no = Symlinks::NoFollow;
        guest
            .process
            .link(At::Cwd, b"/witness", no, At::Cwd, b"/twin")
            .unwrap();
        rename(&guest, "/witness", "/twin", RenameFlags::empty());
        assert!(
            guest.stat("/witness").is_ok(),
            "onto another name of the file"
        );
        assert!(guest.stat("/twin").is_ok());
        guest.finish();
    }
}

// Directories.

#[test]
fn readdirplus_counts_its_lookups_and_fills_the_caches() {
    let guest = lasting();
    guest.stat("/dir").unwrap();
    guest.names("/dir").unwrap();
    assert_eq!(guest.fake.count(Op::READDIRPLUS), 1);
    guest.assert_balanced();
    let ops = sent(&guest, || {
        for path in ["/dir/file", "/dir/other", "/dir/sub", "/dir/link"] {
            guest.stat(path).unwrap();
        }
    });
    assert_eq!(ops, NOTHING);
    guest.finish();
}

fn many(count: usize) -> MemFs {
    let mut fs = tree();
    fs.mkdir("/many").unwrap();
    fs.fill("/many", "entry-", count).unwrap();
    fs
}

#[test]
fn names_that_nobody_looks_up_are_listed_without_lookups_after_the_first_reply() {
    let guest = Guest::on(Fake::new().fs(many(3000)));
    assert_eq!(guest.names("/many").unwrap().len(), 3002);
    assert_eq!(guest.fake.count(Op::READDIRPLUS), 1);
    assert!(guest.fake.count(Op::READDIR) >= 1);
    guest.finish();
}

#[test]
fn without_the_adaptive_rule_all_replies_are_of_the_plus_kind() {
    let fake = Fake::new()
        .fs(many(3000))
        .tune(|server| server.flags &= !init::READDIRPLUS_AUTO);
    let guest = Guest::on(fake);
    guest.names("/many").unwrap();
    assert_eq!(guest.fake.count(Op::READDIR), 0);
    guest.finish();
}

#[test]
fn a_directory_is_kept_where_the_server_allows_until_it_changes() {
    let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
        server.entry_valid = LONG;
        server.attr_valid = LONG;
        server.opendir_flags = fopen::CACHE_DIR | fopen::KEEP_CACHE;
    }));
    let names = guest.names("/dir").unwrap();
    let ops = sent(&guest, || assert_eq!(guest.names("/dir").unwrap(), names));
    assert_eq!(ops, NOTHING);
    guest.process.mkdir(At::Cwd, b"/dir/new", 0o700).unwrap();
    assert_eq!(guest.names("/dir").unwrap().len(), names.len() + 1);
    // A change on the host shows as soon as the attributes are asked for anew.
    guest.names("/dir").unwrap();
    guest.platform.advance(Duration::from_secs(5));
    guest.fake.fs(|fs| fs.file("/dir/hosts", "")).unwrap();
    guest.inode("/dir").revalidate().unwrap();
    assert_eq!(guest.names("/dir").unwrap().len(), names.len() + 2);
    guest.finish();
}

#[test]
fn a_directory_is_not_kept_where_the_server_does_not_say_so() {
    let guest = lasting();
    guest.names("/dir").unwrap();
    let ops = sent(&guest, || drop(guest.names("/dir").unwrap()));
    assert!(!ops.is_empty());
    guest.finish();
}

// ENOSYS (4.6): asked once, then never again.

/// The second of two calls sends no `op`; both end as the table says.
fn learned(
    op: Op,
    flags: u64,
    call: impl Fn(&Guest) -> Result<(), Errno>,
    ends: Result<(), Errno>,
) {
    let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
        server.missing.insert(op);
        server.flags |= flags;
    }));
    for _ in 0..3 {
        assert_eq!(call(&guest), ends, "{op:?}");
    }
    assert_eq!(guest.fake.count(op), 1, "{op:?} is asked for once");
    guest.assert_works();
    guest.finish();
}

fn plain<T>(result: virtio_fs::error::Result<T>) -> Result<(), Errno> {
    result.map(drop).map_err(virtio_fs::Error::errno)
}

#[test]
fn open_that_is_missing_means_no_opens() {
    learned(
        Op::OPEN,
        init::NO_OPEN_SUPPORT,
        |g| plain(g.read("/witness")),
        Ok(()),
    );
}

#[test]
fn open_that_is_missing_without_leave_is_an_error() {
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.missing.insert(Op::OPEN);
    });
    let guest = Guest::on(fake);
    assert_eq!(guest.read("/witness").unwrap_err().errno(), Errno::ENOSYS);
    guest.finish();
}

#[test]
fn opendir_that_is_missing_means_no_opens() {
    let call = |g: &Guest| plain(g.names("/dir"));
    learned(Op::OPENDIR, init::NO_OPENDIR_SUPPORT, call, Ok(()));
}

#[test]
fn create_that_is_missing_becomes_mknod_and_open() {
    let call = |g: &Guest| {
        let flags = OpenFlags::CREAT | OpenFlags::RDWR;
        let fd = g.process.open(At::Cwd, b"/dir/new", flags, 0o600);
        plain(g.process.close(fd.unwrap()))?;
        plain(g.process.unlink(At::Cwd, b"/dir/new"))
    };
    learned(Op::CREATE, 0, call, Ok(()));
}

#[test]
fn tmpfile_that_is_missing_is_eopnotsupp() {
    let call = |g: &Guest| plain(g.inode("/dir").tmpfile(OpenFlags::RDWR, 0o600));
    learned(Op::TMPFILE, 0, call, Err(Errno::EOPNOTSUPP));
}

#[test]
fn flush_fsync_fsyncdir_and_syncfs_that_are_missing_are_done() {
    let write = |g: &Guest| {
        let fd = g
            .process
            .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
            .unwrap();
        g.process.write(fd, b"x").unwrap();
        plain(g.process.fsync(fd, Durable::All))?;
        plain(g.process.close(fd))
    };
    learned(Op::FLUSH, 0, write, Ok(()));
    learned(Op::FSYNC, 0, write, Ok(()));
    let sync = |g: &Guest| plain(g.inode("/dir").open_dir().unwrap().sync());
    learned(Op::FSYNCDIR, 0, sync, Ok(()));
    learned(
        Op::SYNCFS,
        0,
        |g| plain(g.mount.file_system().sync()),
        Ok(()),
    );
}

#[test]
fn rename2_that_is_missing_is_einval() {
    let call = |g: &Guest| {
        let flags = RenameFlags::NOREPLACE;
        plain(
            g.process
                .rename(At::Cwd, b"/witness", At::Cwd, b"/x", flags),
        )
    };
    learned(Op::RENAME2, 0, call, Err(Errno::EINVAL));
}

#[test]
fn link_that_is_missing_is_eperm() {
    let call = |g: &Guest| {
        let no = Symlinks::NoFollow;
        plain(g.process.link(At::Cwd, b"/witness", no, At::Cwd, b"/x"))
    };
    learned(Op::LINK, 0, call, Err(Errno::EPERM));
}

#[test]
fn lseek_that_is_missing_makes_a_file_of_data_with_a_hole_at_its_end() {
    let call = |g: &Guest| {
        let file = g.inode("/dir/file").open(OpenFlags::RDONLY).unwrap();
        assert_eq!(file.seek(5, SeekWhence::Data).unwrap(), 5);
        assert_eq!(file.seek(5, SeekWhence::Hole).unwrap(), 10_000);
        let beyond = file.seek(10_000, SeekWhence::Data);
        assert_eq!(beyond.unwrap_err().errno(), Errno::ENXIO);
        Ok(())
    };
    learned(Op::LSEEK, 0, call, Ok(()));
}

#[test]
fn fallocate_that_is_missing_is_eopnotsupp() {
    let call = |g: &Guest| {
        let file = g.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
        plain(file.allocate(0, 10, FallocateMode::empty()))
    };
    learned(Op::FALLOCATE, 0, call, Err(Errno::EOPNOTSUPP));
}

fn copies(g: &Guest) -> Result<(), Errno> {
    let from = g.inode("/dir/file").open(OpenFlags::RDONLY).unwrap();
    let to = g.inode("/dir/other").open(OpenFlags::RDWR).unwrap();
    assert_eq!(from.copy_to(0, &to, 0, 5000).unwrap(), 5000);
    let copy = g.fake.fs(|fs| fs.read("/dir/other")).unwrap();
    assert!(copy[..5000] == [7; 5000]);
    Ok(())
}

#[test]
fn copy_file_range_that_is_missing_becomes_the_older_one_then_read_and_write() {
    learned(Op::COPY_FILE_RANGE_64, 0, copies, Ok(()));
    let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
        server
            .missing
            .extend([Op::COPY_FILE_RANGE, Op::COPY_FILE_RANGE_64]);
    }));
    copies(&guest).unwrap();
    copies(&guest).unwrap();
    assert_eq!(guest.fake.count(Op::COPY_FILE_RANGE), 1);
    assert_eq!(guest.fake.count(Op::COPY_FILE_RANGE_64), 1);
    assert!(guest.fake.count(Op::WRITE) >= 2);
    guest.finish();
}

#[test]
fn readdirplus_that_is_missing_becomes_readdir() {
    learned(Op::READDIRPLUS, 0, |g| plain(g.names("/dir")), Ok(()));
}

#[test]
fn other_errors_than_enosys_are_not_remembered() {
    let guest = Guest::new();
    let file = file(&guest, "/dir/file");
    guest.fake.fault(Rule::on(Op::FALLOCATE, Fault::Error(-95)));
    let allocate = || plain(file.allocate(0, 10, FallocateMode::empty()));
    assert_eq!(allocate(), Err(Errno::EOPNOTSUPP));
    assert_eq!(allocate(), Ok(()));
    drop(file);
    guest.finish();
}

// Staleness.

#[test]
fn estale_and_ebadf_are_tried_once_more_with_fresh_lookups() {
    for errno in [116, 9] {
        let guest = lasting();
        guest.stat("/dir/file").unwrap();
        guest.fake.fault(Rule::on(Op::OPEN, Fault::Error(-errno)));
        assert_eq!(guest.read("/dir/file").unwrap().len(), 4096);
        guest
            .fake
            .fault(Rule::on(Op::OPEN, Fault::Error(-errno)).times(2));
        let error = guest.read("/dir/file").unwrap_err().errno();
        assert_eq!(i32::from(error.get()), errno, "the second one is passed on");
        guest.assert_works();
        // The fake opened the file and then said that it did not.
    }
}

#[test]
fn a_file_that_was_replaced_on_the_host_is_found_anew() {
    for ids in [NodeIds::Counter, NodeIds::Stable, NodeIds::Recycled] {
        let guest = Guest::on(Fake::new().fs(tree()).tune(|server| server.node_ids = ids));
        guest.stat("/witness").unwrap();
        guest
            .fake
            .fs(|fs| {
                fs.remove("/witness")?;
                fs.mkdir("/witness")?;
                Ok::<_, HostErrno>(())
            })
            .unwrap();
        guest.platform.advance(Duration::from_secs(2));
        assert!(guest.inode("/witness").is_dir(), "{ids:?}");
        guest.finish();
    }
}

// Bounds.

#[test]
fn forgets_go_out_in_batches() {
    let guest = Guest::on(Fake::new().fs(many(1000)));
    for i in guest.names("/many").unwrap() {
        let _ = guest.stat(&format!("/many/{i}"));
    }
    guest.mount.file_system().shrink(usize::MAX);
    guest.settle();
    let (batches, singles) = (
        guest.fake.count(Op::BATCH_FORGET),
        guest.fake.count(Op::FORGET),
    );
    assert!(
        batches > 0 && batches + singles <= 40,
        "{batches} + {singles}"
    );
    guest.finish();
}

#[test]
fn a_hundred_thousand_names_stay_within_the_bound() {
    let options = MountOptions {
        max_dentries: 1000,
        ..MountOptions::default()
    };
    let fake = Fake::new()
        .fs(many(100_000))
        .tune(|server| server.log_limit = 16);
    let guest = Guest::with(fake, Config::default(), options);
    let mut most = 0;
    let mut names = Vec::new();
    let mut dir = guest.inode("/many").open_dir().unwrap();
    dir.read(|entry| {
        names.push(entry.name.to_vec());
        true
    })
    .unwrap();
    drop(dir);
    assert_eq!(names.len(), 100_002);
    let dir = guest.inode("/many");
    for (i, name) in names.iter().skip(2).enumerate() {
        dir.lookup(name).unwrap();
        if i % 1000 == 0 {
            most = most.max(guest.fake.nodes().len());
            assert!(guest.mount.file_system().dentry_count() <= 1000);
        }
    }
    assert!(most <= 1000 + 8 * 64 + 600, "the server keeps {most} nodes");
    drop(dir);
    guest.finish();
}

#[test]
fn a_path_of_ten_thousand_levels_is_let_go_without_recursion() {
    let fs = MemFs::new();
    let guest = Guest::on(Fake::new().fs(fs).tune(|server| {
        server.entry_valid = LONG;
        server.attr_valid = LONG;
    }));
    let deep = std::thread::scope(|scope| {
        let small = std::thread::Builder::new().stack_size(256 << 10);
        let work = || {
            guest.fake.memory().attach();
            let mut dir = guest.mount.root().clone();
            for _ in 0..10_000 {
                dir = dir.mkdir(b"d", 0o700).unwrap();
            }
            guest.mount.file_system().shrink(usize::MAX);
            assert!(guest.mount.file_system().inode_count() > 10_000);
            // The last one keeps all the others.
            drop(dir);
            guest.mount.file_system().inode_count()
        };
        small.spawn_scoped(scope, work).unwrap().join().unwrap()
    });
    assert_eq!(deep, 1, "only the root is left");
    guest.settle();
    assert_eq!(guest.fake.nodes().len(), 0);
    guest.finish();
}

#[test]
fn inodes_that_go_leave_nothing_in_the_table() {
    let guest = Guest::on(Fake::new().fs(many(100)));
    for _ in 0..5 {
        for name in guest.names("/many").unwrap() {
            let _ = guest.stat(&format!("/many/{name}"));
        }
        guest.stat("/dir/sub/leaf").unwrap();
        guest.mount.file_system().shrink(usize::MAX);
        assert_eq!(guest.mount.file_system().inode_count(), 1);
    }
    guest.finish();
}

#[test]
fn submounts_in_memory_are_synced_and_those_that_went_are_not() {
    let mut fs = tree();
    fs.submount("/dir/other-fs").unwrap();
    let guest = Guest::on(Fake::new().fs(fs));
    let root = guest.stat("/").unwrap().device;
    let sub = guest.stat("/dir/other-fs").unwrap().device;
    assert_ne!(root, sub);
    guest.mount.file_system().sync().unwrap();
    assert_eq!(guest.fake.count(Op::SYNCFS), 2);
    guest.mount.file_system().shrink(usize::MAX);
    guest.settle();
    guest.mount.file_system().sync().unwrap();
    assert_eq!(guest.fake.count(Op::SYNCFS), 3);
    guest.finish();
}

#[test]
fn the_root_is_never_forgotten() {
    let guest = Guest::new();
    guest.stat("/").unwrap();
    guest.mount.file_system().shrink(usize::MAX);
    guest.settle();
    assert!(
        guest
            .fake
            .log()
            .iter()
            .all(|record| { record.op != Op::FORGET || record.nodeid != ROOT_ID })
    );
    guest.finish();
}
