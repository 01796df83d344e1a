//! What the options of the share change for the guest.

mod front_end;

use std::fs;
use std::os::unix::fs::MetadataExt;

use front_end::fuse::{ROOT, name, u32_at, u64_at, with_name, words};
use front_end::{Daemon, Scratch, Vm, started};

#[test]
fn a_read_only_share_is_not_changed() {
    let scratch = Scratch::new("readonly");
    let share = scratch.share();
    fs::write(share.join("f"), vec![1; 8192]).expect("a file");
    let (_daemon, mut vm) = started(&scratch, &["--readonly", "--xattr"]);
    let f = vm.lookup("f");
    let handle = vm.open(f, libc::O_RDONLY).expect("OPEN");
    let create = libc::O_CREAT as u64;
    for (what, opcode, node, body, room) in [
        ("SETATTR", 4, f, vec![0; 88], 104),
        ("SYMLINK", 6, ROOT, [name("l"), name("t")].concat(), 128),
        ("MKNOD", 8, ROOT, with_name(&[0o100644, 0], "n"), 128),
        ("MKDIR", 9, ROOT, with_name(&[0o755], "d"), 128),
        ("UNLINK", 10, ROOT, name("f"), 0),
        ("RMDIR", 11, ROOT, name("d"), 0),
        (
            "RENAME",
            12,
            ROOT,
            [words(&[ROOT]), name("f"), name("g")].concat(),
            0,
        ),
        ("LINK", 13, ROOT, with_name(&[f], "g"), 128),
        ("OPEN", 14, f, words(&[libc::O_RDWR as u64]), 16),
        ("OPEN", 14, f, words(&[libc::O_TRUNC as u64]), 16),
        (
            "WRITE",
            16,
            f,
            [words(&[handle, 0, 1, 0, 0]), vec![2]].concat(),
            8,
        ),
        (
            "SETXATTR",
            21,
            f,
            [words(&[1]), name("user.a"), vec![1]].concat(),
            0,
        ),
        ("REMOVEXATTR", 24, f, name("user.a"), 0),
        ("ACCESS", 34, f, words(&[2]), 0),
        (
            "CREATE",
            35,
            ROOT,
            with_name(&[create | 0o100644 << 32, 0], "new"),
            144,
        ),
        ("FALLOCATE", 43, f, words(&[handle, 0, 9000, 0]), 0),
        (
            "COPY_FILE_RANGE",
            47,
            f,
            words(&[handle, 0, f, handle, 4096, 1, 0]),
            8,
        ),
        ("SETUPMAPPING", 48, f, words(&[0, 0, 4096, 1, 0]), 0),
    ] {
        assert_eq!(
            vm.fuse(opcode, node, &body, room),
            Err(libc::EROFS),
            "{what}"
        );
    }
    // The front end maps read-write and finds that it may not: no way in.
    assert_eq!(vm.map(f, 0, 4096, 2, 0), Err(libc::ENOMEM));
    assert_eq!(vm.read(f, handle, 0, 4), Ok(vec![1; 4]));
    // O_CREAT of a file that is there opens it.
    vm.fuse(
        35,
        ROOT,
        &with_name(&[create | 0o100644 << 32, 0], "f"),
        144,
    )
    .expect("CREATE");
    assert_eq!(fs::read_dir(&share).expect("the directory").count(), 1);
    assert_eq!(fs::read(share.join("f")).expect("the file"), vec![1; 8192]);
}

#[test]
fn extended_attributes_are_hidden_unless_asked_for() {
    let scratch = Scratch::new("noxattr");
    fs::write(scratch.share().join("f"), b"").expect("a file");
    let (_daemon, mut vm) = started(&scratch, &[]);
    let f = vm.lookup("f");
    assert_eq!(
        vm.fuse(22, f, &with_name(&[64], "user.a"), 64),
        Err(libc::ENOSYS)
    );
    assert_eq!(vm.fuse(23, f, &words(&[64]), 64), Err(libc::ENOSYS));
}

#[test]
fn the_dax_attribute_follows_the_policy() {
    const DAX: u32 = 2;
    for (policy, small, large) in [("never", 0, 0), ("always", DAX, DAX), ("inode:1M", 0, DAX)] {
        let scratch = Scratch::new("attr");
        fs::write(scratch.share().join("small"), b"s").expect("a file");
        fs::write(scratch.share().join("large"), vec![0; 1 << 20]).expect("a file");
        fs::create_dir(scratch.share().join("d")).expect("a directory");
        let (_daemon, mut vm) = started(&scratch, &["--dax", policy]);
        assert_eq!(
            vm.entry(ROOT, "small").expect("LOOKUP").2,
            small,
            "{policy}"
        );
        assert_eq!(
            vm.entry(ROOT, "large").expect("LOOKUP").2,
            large,
            "{policy}"
        );
        assert_eq!(vm.entry(ROOT, "d").expect("LOOKUP").2, 0, "{policy}");
    }
}

#[test]
fn another_file_system_below_is_announced() {
    // Every machine has some below its root.
    const SUBMOUNT: u32 = 1;
    let root = fs::metadata("/").expect("a root").dev();
    let other = fs::metadata("/proc").expect("the tests need /proc").dev();
    assert_ne!(root, other);
    for (args, flags) in [(&[][..], SUBMOUNT), (&["--no-announce-submounts"], 0)] {
        let scratch = Scratch::new("submount");
        let daemon = Daemon::start_sharing(
            &scratch,
            "/".as_ref(),
            &[&["--readonly", "--window", "0"], args].concat(),
        );
        let mut vm = Vm::connect(&daemon.socket, 0, 1);
        vm.init();
        assert_eq!(vm.entry(ROOT, "proc").expect("LOOKUP").2, flags, "{args:?}");
        assert_eq!(vm.entry(ROOT, "usr").expect("LOOKUP").2, 0);
    }
}

#[test]
fn cache_modes_set_how_long_answers_hold() {
    for (mode, seconds, file, directory) in [
        ("auto", 1, 0, 0),
        ("always", 86400, 2, 2 | 8),
        ("never", 0, 1, 0),
    ] {
        let scratch = Scratch::new("cache");
        fs::write(scratch.share().join("f"), b"").expect("a file");
        let (_daemon, mut vm) = started(&scratch, &["--cache", mode]);
        let entry = vm.fuse(1, ROOT, &name("f"), 128).expect("LOOKUP");
        assert_eq!(
            (u64_at(&entry, 16), u64_at(&entry, 24)),
            (seconds, seconds),
            "{mode}"
        );
        let opened = vm
            .fuse(14, u64_at(&entry, 0), &words(&[0]), 16)
            .expect("OPEN");
        assert_eq!(u32_at(&opened, 8), file, "{mode}");
        let opened = vm.fuse(27, ROOT, &words(&[0]), 16).expect("OPENDIR");
        assert_eq!(u32_at(&opened, 8), directory, "{mode}");
    }
}
