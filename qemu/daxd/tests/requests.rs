//! Every operation, over a ring, against a real directory.

mod front_end;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use front_end::fuse::{ROOT, name, outcome, request, u32_at, u64_at, with_name, words};
use front_end::{Scratch, started};

/// Name and kind of each record of a READDIR reply, and the last cookie.
fn records(mut reply: &[u8]) -> (BTreeMap<String, u32>, u64) {
    let (mut names, mut cookie) = (BTreeMap::new(), 0);
    while !reply.is_empty() {
        let len = u32_at(reply, 16) as usize;
        cookie = u64_at(reply, 8);
        let text = String::from_utf8(reply[24..24 + len].to_vec()).expect("UTF-8");
        assert_eq!(names.insert(text, u32_at(reply, 20)), None, "a name twice");
        reply = &reply[(24 + len).next_multiple_of(8)..];
    }
    (names, cookie)
}

#[test]
fn limits_are_as_large_as_those_of_virtiofsd() {
    let scratch = Scratch::new("limits");
    fs::write(scratch.share().join("f"), vec![7; 1 << 20]).expect("a file");
    let (_daemon, mut vm) = started(&scratch, &[]);
    let reply = vm.init();
    assert_eq!((u32_at(&reply, 0), u32_at(&reply, 4)), (7, 38));
    assert_eq!(u32_at(&reply, 20), 1 << 20, "max_write");
    assert_eq!(u32_at(&reply, 28) & 0xffff, 256, "max_pages");
    let node = vm.lookup("f");
    let handle = vm.open(node, libc::O_RDWR).expect("OPEN");
    assert_eq!(
        vm.read(node, handle, 0, 1 << 20).expect("READ"),
        vec![7; 1 << 20]
    );
    assert_eq!(vm.write(node, handle, 0, &vec![9; 1 << 20]), Ok(1 << 20));
    assert_eq!(
        fs::read(scratch.share().join("f")).expect("the file"),
        vec![9; 1 << 20]
    );
}

#[test]
fn a_file_lives_through_all_its_operations() {
    let scratch = Scratch::new("life");
    let (_daemon, mut vm) = started(&scratch, &["--xattr"]);
    let share = scratch.share();
    let flags = (libc::O_RDWR | libc::O_CREAT | libc::O_EXCL) as u64;
    let created = vm
        .fuse(35, ROOT, &with_name(&[flags | 0o100640 << 32, 0], "f"), 144)
        .expect("CREATE");
    let (node, handle) = (u64_at(&created, 0), u64_at(&created, 128));
    assert_eq!(vm.write(node, handle, 0, b"0123456789"), Ok(10));
    assert_eq!(vm.read(node, handle, 2, 100), Ok(b"23456789".to_vec()));
    let attr = vm
        .fuse(3, node, &words(&[1, handle]), 104)
        .expect("GETATTR");
    assert_eq!((u64_at(&attr, 24), u32_at(&attr, 16 + 60)), (10, 0o100640));
    let mut set = vec![0; 88];
    set[0] = 1 << 3; // size
    set[16] = 4;
    assert_eq!(
        u64_at(&vm.fuse(4, node, &set, 104).expect("SETATTR"), 24),
        4
    );
    vm.fuse(43, node, &words(&[handle, 0, 8192, 0]), 0)
        .expect("FALLOCATE");
    assert_eq!(
        fs::metadata(share.join("f")).expect("it is there").len(),
        8192
    );
    let data = vm.fuse(46, node, &words(&[handle, 0, libc::SEEK_DATA as u64]), 8);
    assert_eq!(data, Ok(words(&[0])), "LSEEK");
    let value = [words(&[5]), name("user.a"), b"value".to_vec()].concat();
    match vm.fuse(21, node, &value, 0) {
        Err(libc::ENOTSUP) => {} // not every scratch file system has them
        other => {
            other.expect("SETXATTR");
            assert_eq!(
                vm.fuse(22, node, &with_name(&[64], "user.a"), 64),
                Ok(b"value".to_vec())
            );
            assert_eq!(
                vm.fuse(23, node, &words(&[64]), 64),
                Ok(b"user.a\0".to_vec())
            );
            vm.fuse(24, node, &name("user.a"), 0).expect("REMOVEXATTR");
            assert_eq!(
                vm.fuse(22, node, &with_name(&[64], "user.a"), 64),
                Err(libc::ENODATA)
            );
        }
    }
    vm.fuse(20, node, &words(&[handle, 0]), 0).expect("FSYNC");
    vm.fuse(25, node, &words(&[handle, 0, 0]), 0)
        .expect("FLUSH");
    vm.fuse(34, node, &words(&[6]), 0).expect("ACCESS");
    vm.fuse(13, ROOT, &with_name(&[node], "g"), 128)
        .expect("LINK");
    vm.fuse(
        12,
        ROOT,
        &[words(&[ROOT]), name("g"), name("h")].concat(),
        0,
    )
    .expect("RENAME");
    vm.fuse(
        45,
        ROOT,
        &[words(&[ROOT, 1]), name("h"), name("f")].concat(),
        0,
    )
    .expect_err("RENAME2 must not replace");
    assert_eq!(
        fs::metadata(share.join("h")).expect("it is there").nlink(),
        2
    );
    vm.fuse(10, ROOT, &name("f"), 0).expect("UNLINK");
    vm.fuse(10, ROOT, &name("h"), 0).expect("UNLINK");
    assert_eq!(
        vm.read(node, handle, 0, 2),
        Ok(b"01".to_vec()),
        "it is open still"
    );
    vm.fuse(18, node, &words(&[handle, 0, 0]), 0)
        .expect("RELEASE");
    assert_eq!(vm.read(node, handle, 0, 2), Err(libc::EBADF));
    assert_eq!(vm.entry(ROOT, "f"), Err(libc::ENOENT));
    assert_eq!(fs::read_dir(share).expect("the directory").count(), 0);
}

#[test]
fn nodes_of_other_kinds() {
    let scratch = Scratch::new("kinds");
    let (_daemon, mut vm) = started(&scratch, &[]);
    vm.fuse(9, ROOT, &with_name(&[0o755], "d"), 128)
        .expect("MKDIR");
    vm.fuse(8, ROOT, &with_name(&[0o10644, 0], "p"), 128)
        .expect("MKNOD");
    let link = vm
        .fuse(6, ROOT, &[name("l"), name("to/where")].concat(), 128)
        .expect("SYMLINK");
    assert_eq!(
        vm.fuse(5, u64_at(&link, 0), &[], 4095),
        Ok(b"to/where".to_vec())
    );
    assert_eq!(
        vm.fuse(5, u64_at(&link, 0), &[], 3),
        Err(libc::EINVAL),
        "no room"
    );
    let pipe = vm.lookup("p");
    assert_eq!(
        vm.open(pipe, libc::O_RDONLY),
        Err(libc::EBADF),
        "a pipe is the guest's own business"
    );
    vm.fuse(11, ROOT, &name("d"), 0).expect("RMDIR");
    assert_eq!(vm.fuse(17, ROOT, &[], 80).expect("STATFS").len(), 80);
}

#[test]
fn truncation_at_open_happens() {
    let scratch = Scratch::new("trunc");
    fs::write(scratch.share().join("f"), b"content").expect("a file");
    let (_daemon, mut vm) = started(&scratch, &[]);
    assert_ne!(
        u32_at(&vm.init(), 12) & 1 << 3,
        0,
        "ATOMIC_O_TRUNC is agreed on"
    );
    let node = vm.lookup("f");
    vm.open(node, libc::O_WRONLY | libc::O_TRUNC).expect("OPEN");
    assert_eq!(
        fs::metadata(scratch.share().join("f"))
            .expect("it is there")
            .len(),
        0
    );
}

#[test]
fn a_directory_is_read_whole_with_its_dots() {
    let scratch = Scratch::new("readdir");
    for n in 0..300 {
        fs::write(scratch.share().join(format!("file-number-{n}")), b"").expect("a file");
    }
    let (_daemon, mut vm) = started(&scratch, &[]);
    let opened = vm.fuse(27, ROOT, &words(&[0]), 16).expect("OPENDIR");
    let handle = u64_at(&opened, 0);
    let (mut all, mut cookie) = (BTreeMap::new(), 0);
    loop {
        let reply = vm
            .fuse(28, ROOT, &words(&[handle, cookie, 4096, 0, 0]), 4096)
            .expect("READDIR");
        if reply.is_empty() {
            break;
        }
        let (mut names, last) = records(&reply);
        cookie = last;
        all.append(&mut names);
    }
    assert_eq!(all.len(), 302);
    assert_eq!((all["."], all[".."], all["file-number-0"]), (4, 4, 8));
    assert_eq!(
        vm.fuse(28, ROOT, &words(&[handle, 0, 24, 0, 0]), 24),
        Err(libc::EINVAL),
        "not a false end"
    );

    let plus = vm
        .fuse(44, ROOT, &words(&[handle, 0, 65536, 0, 0]), 65536)
        .expect("READDIRPLUS");
    let (mut rest, mut looked_up) = (&plus[..], 0);
    while !rest.is_empty() {
        let len = u32_at(rest, 128 + 16) as usize;
        let dots = rest[152..152 + len].iter().all(|&b| b == b'.');
        assert_eq!(u64_at(rest, 0) == 0, dots, "the dots carry no node");
        looked_up += u32::from(!dots);
        rest = &rest[(152 + len).next_multiple_of(8)..];
    }
    assert_eq!(looked_up, 300);
    vm.fuse(30, ROOT, &words(&[handle, 0]), 0)
        .expect("FSYNCDIR");
    vm.fuse(29, ROOT, &words(&[handle, 0, 0]), 0)
        .expect("RELEASEDIR");
    assert_eq!(
        vm.fuse(28, ROOT, &words(&[handle, 0, 4096, 0, 0]), 4096),
        Err(libc::EBADF)
    );
}

#[test]
fn what_the_passthrough_lacks_is_served() {
    let scratch = Scratch::new("extra");
    fs::write(scratch.share().join("a"), b"0123456789").expect("a file");
    fs::write(scratch.share().join("b"), b"").expect("a file");
    let (_daemon, mut vm) = started(&scratch, &[]);
    vm.fuse(50, ROOT, &words(&[0]), 0).expect("SYNCFS");
    let (a, b) = (vm.lookup("a"), vm.lookup("b"));
    let (from, to) = (
        vm.open(a, libc::O_RDONLY).expect("OPEN"),
        vm.open(b, libc::O_WRONLY).expect("OPEN"),
    );
    for (opcode, at) in [(47, 0), (53, 5)] {
        let copied = vm
            .fuse(opcode, a, &words(&[from, 2, b, to, at, 5, 0]), 8)
            .expect("COPY_FILE_RANGE");
        assert_eq!(u64_at(&copied, 0), 5);
    }
    assert_eq!(
        fs::read(scratch.share().join("b")).expect("the file"),
        b"2345623456"
    );
    assert_eq!(
        vm.fuse(47, a, &words(&[to, 2, b, to, 0, 5, 0]), 8),
        Err(libc::EBADF),
        "another node's handle"
    );
    assert_eq!(
        vm.fuse(47, a, &words(&[from, u64::MAX, b, to, 0, 5, 0]), 8),
        Err(libc::EINVAL)
    );
}

#[test]
fn several_queues_and_threads_serve_one_session() {
    for args in [
        &["--queues", "4"][..],
        &["--queues", "4", "--threads", "3"],
        &["--threads", "2"],
    ] {
        let scratch = Scratch::new("queues");
        fs::write(scratch.share().join("f"), (0..=255).collect::<Vec<u8>>()).expect("a file");
        let queues = if args[0] == "--queues" { 4 } else { 1 };
        let (_daemon, mut vm) = started(&scratch, args);
        let node = vm.lookup("f");
        let handle = vm.open(node, libc::O_RDONLY).expect("OPEN");
        for _ in 0..20 {
            let mut sent = BTreeMap::new();
            for queue in 1..=queues {
                for n in 0..16u64 {
                    let unique = vm.unique();
                    let body = words(&[handle, n * 16, 16, 0, 0]);
                    let head = vm.submit(queue, &request(15, unique, node, &body), 32);
                    sent.insert((queue, head), (unique, n));
                }
                vm.kick(queue);
            }
            for queue in 1..=queues {
                for _ in 0..16 {
                    let (head, used) = vm.wait(queue);
                    let (unique, n) = sent.remove(&(queue, head)).expect("one of ours, once");
                    let data = outcome(&vm.reply(queue, head, used, 32), unique).expect("READ");
                    assert_eq!(
                        data,
                        (n as u8 * 16..=n as u8 * 16 + 15).collect::<Vec<u8>>()
                    );
                }
            }
            assert!(sent.is_empty());
        }
    }
}

#[test]
fn forgotten_nodes_are_gone_and_the_root_stays() {
    let scratch = Scratch::new("forget");
    fs::write(scratch.share().join("f"), b"").expect("a file");
    let (_daemon, mut vm) = started(&scratch, &[]);
    let node = vm.lookup("f");
    assert_eq!(vm.lookup("f"), node);
    for (opcode, body) in [(2, words(&[1])), (42, words(&[1, node, 1]))] {
        vm.fuse(3, node, &words(&[0, 0]), 104).expect("it is known");
        let unique = vm.unique();
        let reply = vm.call(0, &request(opcode, unique, node, &body), 0);
        assert_eq!(reply.used, 0);
    }
    assert_eq!(vm.fuse(3, node, &words(&[0, 0]), 104), Err(libc::EBADF));
    let unique = vm.unique();
    vm.call(0, &request(2, unique, ROOT, &words(&[u64::MAX])), 0);
    vm.fuse(3, ROOT, &words(&[0, 0]), 104)
        .expect("the root stays");
}

#[test]
fn a_creation_belongs_to_who_asked() {
    let scratch = Scratch::new("owner");
    // SAFETY: the call has no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return; // only root can become somebody else
    }
    fs::set_permissions(scratch.share(), fs::Permissions::from_mode(0o777)).expect("to open it");
    let (_daemon, mut vm) = started(&scratch, &[]);
    let unique = vm.unique();
    let mut bytes = request(9, unique, ROOT, &with_name(&[0o755], "d"));
    bytes[24..28].copy_from_slice(&1234u32.to_le_bytes());
    bytes[28..32].copy_from_slice(&2345u32.to_le_bytes());
    let reply = vm.call(1, &bytes, 144);
    outcome(&reply, unique).expect("MKDIR");
    let made = fs::metadata(scratch.share().join("d")).expect("it is there");
    assert_eq!((made.uid(), made.gid()), (1234, 2345));
}
