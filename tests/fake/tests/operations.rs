//! The server and the tree, request by request.

mod client;

use client::{Client, cstr, longs, read_in, records, u32_at, u64_at, words};
use virtio_fs_fake::{
    ATTR_SUBMOUNT, Drive, Fake, IOCTL_REVERSE, MemFs, NodeIds, Notification, Op, ROOT_ID,
    ServerConfig, fattr, init,
};

fn mounted(fill: impl FnOnce(&mut MemFs)) -> (Client, virtio_fs_fake::Handle) {
    let mut fs = MemFs::new();
    fill(&mut fs);
    Client::mount(Fake::new().fs(fs))
}

/// Looks a file up and opens it.
fn opened(client: &mut Client, name: &str, flags: i32) -> (u64, u64) {
    let node = client.lookup(ROOT_ID, name).unwrap();
    (node, client.open(node, flags).unwrap())
}

#[test]
fn init_negotiates_flags_and_the_lower_minor() {
    let (transport, handle) = Fake::new().tune(|c| c.minor = 38).build();
    let mut client = Client::probe(transport, &handle);
    assert_eq!(
        client.call(Op::GETATTR, 1, &[0; 16], 104),
        Err(libc::EINVAL)
    );
    assert!(handle.take_violations()[0].contains("no session"));
    let reply = client
        .init(
            40,
            init::ASYNC_READ | init::WRITEBACK_CACHE | init::INIT_EXT,
        )
        .unwrap();
    assert_eq!((u32_at(&reply, 0), u32_at(&reply, 4)), (7, 38));
    assert_eq!(
        u64::from(u32_at(&reply, 12)),
        init::ASYNC_READ | init::INIT_EXT
    );
    assert_eq!(
        handle.negotiated(),
        Some((38, init::ASYNC_READ | init::INIT_EXT))
    );
    // A client that is too old, and one that is too new.
    assert_eq!(client.init(26, 0), Err(libc::EPROTO));
    let mut args = words(&[8, 0]);
    args.resize(64, 0);
    let reply = client.call(Op::INIT, 0, &args, 64).unwrap();
    assert_eq!((u32_at(&reply, 0), u32_at(&reply, 4)), (7, 38));
    assert_eq!(handle.negotiated(), None);
}

#[test]
fn virtiofsd_answers_init_as_measured() {
    let (transport, handle) = Fake::new().server(ServerConfig::virtiofsd()).build();
    let mut client = Client::probe(transport, &handle);
    let reply = client.init(45, !(1 << 31)).unwrap();
    let expected = [
        7,
        38,
        1 << 17,
        0x4844_f829,
        49149 << 16 | 65535,
        1 << 20,
        1,
        256,
        0x104,
    ];
    let got: Vec<u32> = (0..9).map(|i| u32_at(&reply, 4 * i)).collect();
    assert_eq!(got, expected);
}

#[test]
fn lookups_are_counted_and_forgotten() {
    let (mut client, handle) = mounted(|fs| {
        fs.mkdir("d").unwrap();
        fs.file("d/f", "x").unwrap();
    });
    let d = client.lookup(ROOT_ID, "d").unwrap();
    let f = client.lookup(d, "f").unwrap();
    assert_eq!(client.lookup(d, "f"), Ok(f));
    assert_eq!(client.lookup(d, "g"), Err(libc::ENOENT));
    handle.assert_lookups([(d, 1), (f, 2)]);
    client.forget(f, 2);
    handle.assert_lookups([(d, 1)]);
    let again = client.lookup(d, "f").unwrap();
    assert!(again > f, "ids are not used twice");
    let args = [&words(&[2, 0])[..], &longs(&[d, 1, again, 1])].concat();
    assert_eq!(client.exchange(Op::BATCH_FORGET, 0, &args, 0).used_len, 0);
    handle.assert_lookups([]);
    // Too much, unknown, the root.
    client.forget(d, 1);
    client.forget(ROOT_ID, 1);
    assert_eq!(handle.take_violations().len(), 2);
}

#[test]
fn recycled_ids_get_a_new_generation() {
    let mut fs = MemFs::new();
    fs.file("a", "").unwrap();
    fs.file("b", "").unwrap();
    let (mut client, handle) =
        Client::mount(Fake::new().fs(fs).tune(|c| c.node_ids = NodeIds::Recycled));
    let a = client.lookup(ROOT_ID, "a").unwrap();
    assert_eq!(handle.generation(a), Some(0));
    client.forget(a, 1);
    assert_eq!(client.lookup(ROOT_ID, "b"), Ok(a));
    assert_eq!(handle.generation(a), Some(1));
    client.forget(a, 1);
}

#[test]
fn files_are_made_written_read_and_removed() {
    let (mut client, handle) = mounted(|_| ());
    client.who = [1000, 100, 7];
    let args = [
        &words(&[(libc::O_RDWR | libc::O_CREAT) as u32, 0o640, 0o22, 0])[..],
        &cstr("f"),
    ];
    let made = client
        .call(Op::CREATE, ROOT_ID, &args.concat(), 144)
        .unwrap();
    let (node, fh) = (u64_at(&made, 0), u64_at(&made, 128));
    assert_eq!(fh, 0, "the first handle is 0");
    assert_eq!(client.write(node, fh, 3, b"hello", 0), Ok(5));
    assert_eq!(client.write(node, fh, 0, b"!", libc::O_APPEND), Ok(1));
    assert_eq!(client.read(node, fh, 0, 100).unwrap(), b"\0\0\0hello!");
    let stat = handle.fs(|fs| fs.stat("f")).unwrap();
    assert_eq!(
        (stat.mode, stat.uid, stat.gid, stat.size),
        (0o100640, 1000, 100, 9)
    );
    client.call(Op::UNLINK, ROOT_ID, &cstr("f"), 0).unwrap();
    assert_eq!(
        client.read(node, fh, 3, 5).unwrap(),
        b"hello",
        "unlinked but open"
    );
    client.release(Op::RELEASE, node, fh, libc::O_RDWR);
    assert_eq!(client.read(node, fh, 3, 5), Err(libc::EBADF));
    assert_eq!(handle.take_violations().len(), 1);
    client.forget(node, 1);
    let record = &handle.log()[1];
    assert_eq!(
        (record.op, record.uid, record.gid, record.pid),
        (Op::CREATE, 1000, 100, 7)
    );
}

#[test]
fn a_tebibyte_of_hole_costs_nothing() {
    let (mut client, handle) = mounted(|fs| {
        fs.sparse("f", 1 << 40).unwrap();
        fs.write_at("f", (1 << 39) + 5, b"x").unwrap();
    });
    let (node, fh) = opened(&mut client, "f", libc::O_RDWR);
    let seek = |client: &mut Client, at: u64, whence: i32| {
        let args = [&longs(&[fh, at])[..], &words(&[whence as u32, 0])].concat();
        client
            .call(Op::LSEEK, node, &args, 8)
            .map(|r| u64_at(&r, 0))
    };
    assert_eq!(seek(&mut client, 0, libc::SEEK_DATA), Ok(1 << 39));
    assert_eq!(
        seek(&mut client, 1 << 39, libc::SEEK_HOLE),
        Ok((1 << 39) + 4096)
    );
    assert_eq!(
        seek(&mut client, 1 << 40, libc::SEEK_HOLE),
        Err(libc::ENXIO)
    );
    assert_eq!(client.read(node, fh, (1 << 39) + 4, 3).unwrap(), b"\0x\0");
    assert_eq!(handle.fs(|fs| fs.stat("f")).unwrap().blocks, 8);
}

#[test]
fn fallocate_has_all_modes() {
    let page = |n: u8| vec![n; 4096];
    let (mut client, handle) = mounted(|fs| {
        fs.file("f", [page(1), page(2), page(3)].concat()).unwrap();
    });
    let (node, fh) = opened(&mut client, "f", libc::O_RDWR);
    let mut run = |mode: i32, offset: u64, len: u64| {
        let args = [&longs(&[fh, offset, len])[..], &words(&[mode as u32, 0])].concat();
        client.call(Op::FALLOCATE, node, &args, 0).map(|_| ())
    };
    let content = || handle.fs(|fs| fs.read("f")).unwrap();
    let (keep, punch) = (libc::FALLOC_FL_KEEP_SIZE, libc::FALLOC_FL_PUNCH_HOLE);
    run(keep, 0, 1 << 20).unwrap();
    assert_eq!(content().len(), 3 * 4096);
    run(punch | keep, 4096, 4096).unwrap();
    assert_eq!(content(), [page(1), page(0), page(3)].concat());
    run(libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096).unwrap();
    assert_eq!(content(), [page(0), page(3)].concat());
    run(libc::FALLOC_FL_INSERT_RANGE, 4096, 4096).unwrap();
    assert_eq!(content(), [page(0), page(0), page(3)].concat());
    run(libc::FALLOC_FL_ZERO_RANGE, 2 * 4096, 2 * 4096).unwrap();
    assert_eq!(content(), vec![0; 4 * 4096]);
    run(0, 0, 5 * 4096).unwrap();
    assert_eq!(content().len(), 5 * 4096);
    assert_eq!(run(punch, 0, 4096), Err(libc::EOPNOTSUPP));
    assert_eq!(run(0, 0, 0), Err(libc::EINVAL));
    assert_eq!(run(0, u64::MAX, 2), Err(libc::EFBIG));
    assert_eq!(
        run(libc::FALLOC_FL_COLLAPSE_RANGE, 1, 4096),
        Err(libc::EINVAL)
    );
}

#[test]
fn ranges_are_copied_by_both_opcodes() {
    let (mut client, handle) = mounted(|fs| {
        fs.file("a", "0123456789").unwrap();
        fs.file("b", "").unwrap();
    });
    let (a, fh_a) = opened(&mut client, "a", libc::O_RDONLY);
    let (b, fh_b) = opened(&mut client, "b", libc::O_RDWR);
    for (op, at) in [(Op::COPY_FILE_RANGE, 0), (Op::COPY_FILE_RANGE_64, 4)] {
        let args = longs(&[fh_a, 2, b, fh_b, at, 4, 0]);
        let done = client.call(op, a, &args, 8).unwrap();
        assert_eq!(u64_at(&done, 0), 4);
    }
    assert_eq!(handle.fs(|fs| fs.read("b")).unwrap(), b"23452345");
    let overlap = longs(&[fh_b, 0, b, fh_b, 2, 4, 0]);
    assert_eq!(
        client.call(Op::COPY_FILE_RANGE, b, &overlap, 8),
        Err(libc::EINVAL)
    );
}

/// Lists a directory in replies of `size` bytes.
fn list(client: &mut Client, op: Op, node: u64, size: u32) -> Vec<(String, u64, u64)> {
    let open = client.call(Op::OPENDIR, node, &[0; 8], 16).unwrap();
    let fh = u64_at(&open, 0);
    let mut all = Vec::new();
    loop {
        let cookie = all.last().map_or(0, |(_, cookie, _)| *cookie);
        let reply = client
            .call(op, node, &read_in(fh, cookie, size), size as usize)
            .unwrap();
        if reply.is_empty() {
            break;
        }
        all.extend(records(op, &reply));
    }
    client.release(Op::RELEASEDIR, node, fh, 0);
    all
}

#[test]
fn a_directory_of_a_hundred_thousand_is_listed_once_each() {
    let (mut client, handle) = mounted(|fs| fs.fill("/", "file", 100_000).unwrap());
    let mut names: Vec<_> = list(&mut client, Op::READDIR, ROOT_ID, 65536)
        .into_iter()
        .map(|(name, ..)| name)
        .collect();
    assert!(!names.is_sorted(), "cookies are hashes");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100_002);
    assert_eq!(
        (&*names[0], &*names[1], &*names[100_001]),
        (".", "..", "file99999")
    );
    handle.assert_lookups([]);
}

#[test]
fn readdirplus_counts_all_but_the_dots() {
    let (mut client, handle) = mounted(|fs| fs.fill("/", "f", 100).unwrap());
    let all = list(&mut client, Op::READDIRPLUS, ROOT_ID, 4096);
    assert_eq!(all.len(), 102);
    let counted = all.iter().filter(|(_, _, node)| *node != 0);
    handle.assert_lookups(counted.map(|(_, _, node)| (*node, 1)));
    assert_eq!(handle.nodes().len(), 100);
}

#[test]
fn a_listing_goes_on_where_an_entry_vanished() {
    let (mut client, handle) = mounted(|fs| fs.fill("/", "f", 50).unwrap());
    let whole = list(&mut client, Op::READDIR, ROOT_ID, 4096);
    let open = client.call(Op::OPENDIR, ROOT_ID, &[0; 8], 16).unwrap();
    let middle = whole.iter().position(|(n, ..)| n.len() > 2).unwrap() + 20;
    handle
        .fs(|fs| fs.remove(&whole[middle].0))
        .unwrap_or_default();
    let args = read_in(u64_at(&open, 0), whole[middle].1, 4096);
    let rest = records(
        Op::READDIR,
        &client.call(Op::READDIR, ROOT_ID, &args, 4096).unwrap(),
    );
    assert_eq!(rest, whole[middle + 1..]);
}

#[test]
fn rename_follows_its_flags() {
    let (mut client, handle) = mounted(|fs| {
        fs.mkdir("d").unwrap();
        fs.mkdir("d/e").unwrap();
        fs.file("a", "a").unwrap();
        fs.file("b", "b").unwrap();
    });
    let mut rename = |flags: u32, old: &str, new: &str| {
        let args = [
            &longs(&[ROOT_ID])[..],
            &words(&[flags, 0]),
            &cstr(old),
            &cstr(new),
        ]
        .concat();
        client.call(Op::RENAME2, ROOT_ID, &args, 0).map(|_| ())
    };
    assert_eq!(rename(libc::RENAME_NOREPLACE, "a", "b"), Err(libc::EEXIST));
    rename(libc::RENAME_EXCHANGE, "a", "d").unwrap();
    assert_eq!(handle.fs(|fs| fs.names("a")).unwrap(), ["e"]);
    rename(libc::RENAME_WHITEOUT, "b", "c").unwrap();
    let white = handle.fs(|fs| fs.stat("b")).unwrap();
    assert_eq!((white.mode & libc::S_IFMT, white.rdev), (libc::S_IFCHR, 0));
    assert_eq!(rename(8, "c", "x"), Err(libc::EINVAL));
    assert_eq!(
        rename(libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE, "c", "d"),
        Err(libc::EINVAL)
    );
    assert_eq!(rename(0, "d", "a"), Err(libc::EISDIR));
    assert_eq!(rename(0, "a", "c"), Err(libc::ENOTDIR));
    rename(0, "c", "d").unwrap();
    assert_eq!(handle.fs(|fs| fs.read("d")).unwrap(), b"b");
    // Under itself: a directory below the moved one.
    let a = client.lookup(ROOT_ID, "a").unwrap();
    let args = [&longs(&[a])[..], &cstr("a"), &cstr("x")].concat();
    assert_eq!(
        client.call(Op::RENAME, ROOT_ID, &args, 0).unwrap_err(),
        libc::EINVAL
    );
    assert_eq!(handle.fs(|fs| fs.stat("/")).unwrap().nlink, 3);
}

#[test]
fn links_tmpfiles_and_special_files_are_made() {
    let (mut client, handle) = mounted(|_| ());
    let args = [&words(&[libc::O_RDWR as u32, 0o600, 0, 0])[..], &cstr("")].concat();
    let made = client.call(Op::TMPFILE, ROOT_ID, &args, 144).unwrap();
    let (node, fh) = (u64_at(&made, 0), u64_at(&made, 128));
    assert_eq!(u32_at(&made, 40 + 64), 0, "no name yet");
    let args = [&longs(&[node])[..], &cstr("f")].concat();
    let linked = client.call(Op::LINK, ROOT_ID, &args, 128).unwrap();
    assert_eq!((u64_at(&linked, 0), u32_at(&linked, 40 + 64)), (node, 1));
    assert_eq!(handle.lookups(node), 2);
    client.release(Op::RELEASE, node, fh, libc::O_RDWR);
    let args = [cstr("l"), cstr("to/there")].concat();
    let link = u64_at(&client.call(Op::SYMLINK, ROOT_ID, &args, 128).unwrap(), 0);
    assert_eq!(
        client.call(Op::READLINK, link, &[], 4096).unwrap(),
        b"to/there"
    );
    let args = [&words(&[libc::S_IFIFO | 0o600, 0, 0o77, 0])[..], &cstr("p")].concat();
    client.call(Op::MKNOD, ROOT_ID, &args, 128).unwrap();
    let args = [&words(&[0o2755, 0])[..], &cstr("d")].concat();
    client.call(Op::MKDIR, ROOT_ID, &args, 128).unwrap();
    assert_eq!(handle.fs(|fs| fs.names("/")).unwrap(), ["d", "f", "l", "p"]);
    assert_eq!(
        client.call(Op::RMDIR, ROOT_ID, &cstr("p"), 0),
        Err(libc::ENOTDIR)
    );
    assert_eq!(
        client.call(Op::UNLINK, ROOT_ID, &cstr("d"), 0),
        Err(libc::EISDIR)
    );
    client.call(Op::RMDIR, ROOT_ID, &cstr("d"), 0).unwrap();
}

#[test]
fn attributes_are_set_and_privileges_killed() {
    let (mut client, handle) = mounted(|fs| {
        fs.file("f", "0123456789").unwrap();
        fs.chmod("f", 0o6775).unwrap();
    });
    let node = client.lookup(ROOT_ID, "f").unwrap();
    let mut set = |valid: u32, size: u64, mtime: u64| {
        let args = [
            &words(&[valid, 0])[..],
            &longs(&[0, size, 0, 0, mtime, 0]),
            &words(&[0, 5, 0, 0o644, 0, 7, 8, 0]),
        ];
        client.call(Op::SETATTR, node, &args.concat(), 104)
    };
    set(fattr::SIZE | fattr::MTIME | fattr::KILL_SUIDGID, 4, 1234).unwrap();
    let stat = handle.fs(|fs| fs.stat("f")).unwrap();
    assert_eq!(
        (stat.size, stat.mode & 0o7777, stat.mtime.as_nanos()),
        (4, 0o775, 1_234_000_000_005)
    );
    let attr = set(fattr::MODE | fattr::UID | fattr::GID, 0, 0).unwrap();
    assert_eq!(
        [60, 68, 72].map(|at| u32_at(&attr, 16 + at)),
        [0o100644, 7, 8]
    );
    assert_eq!(set(fattr::ATIME_NOW, 0, 0), Err(libc::EINVAL));
    assert_eq!(handle.take_violations().len(), 1);
    let statx = client
        .call(
            Op::STATX,
            node,
            &[&[0; 16][..], &words(&[0, 0xFFF])].concat(),
            288,
        )
        .unwrap();
    assert_eq!((u64_at(&statx, 32 + 40), u32_at(&statx, 32 + 20)), (4, 7));
}

#[test]
fn xattrs_follow_the_size_protocol() {
    let (mut client, handle) = mounted(|fs| {
        fs.file("f", "").unwrap();
    });
    let node = client.lookup(ROOT_ID, "f").unwrap();
    let mut set = |flags: i32, value: &str| {
        let args = [
            &words(&[value.len() as u32, flags as u32, 0, 0])[..],
            &cstr("user.a"),
            value.as_bytes(),
        ];
        client
            .call(Op::SETXATTR, node, &args.concat(), 0)
            .map(|_| ())
    };
    assert_eq!(set(libc::XATTR_REPLACE, "1"), Err(libc::ENODATA));
    set(0, "value").unwrap();
    assert_eq!(set(libc::XATTR_CREATE, "1"), Err(libc::EEXIST));
    let mut get = |size: u32, name: &str| {
        let args = [&words(&[size, 0])[..], &cstr(name)].concat();
        client.call(Op::GETXATTR, node, &args, size.max(8) as usize)
    };
    assert_eq!(get(0, "user.a").map(|r| u32_at(&r, 0)), Ok(5));
    assert_eq!(get(4, "user.a"), Err(libc::ERANGE));
    assert_eq!(get(5, "user.a").unwrap(), b"value");
    assert_eq!(get(5, "user.b"), Err(libc::ENODATA));
    assert_eq!(
        client
            .call(Op::LISTXATTR, node, &words(&[64, 0]), 64)
            .unwrap(),
        b"user.a\0"
    );
    client
        .call(Op::REMOVEXATTR, node, &cstr("user.a"), 0)
        .unwrap();
    assert_eq!(
        client.call(Op::REMOVEXATTR, node, &cstr("user.a"), 0),
        Err(libc::ENODATA)
    );
    assert_eq!(
        handle.fs(|fs| fs.getxattr("f", "user.a")),
        Err(virtio_fs_fake::Errno(libc::ENODATA))
    );
}

fn lock(fh: u64, owner: u64, start: u64, end: u64, kind: i32) -> Vec<u8> {
    [
        &longs(&[fh, owner, start, end])[..],
        &words(&[kind as u32, 42, 0, 0]),
    ]
    .concat()
}

#[test]
fn locks_conflict_split_wait_and_deadlock() {
    let (mut client, handle) = mounted(|fs| {
        fs.file("f", "").unwrap();
    });
    let (node, fh) = opened(&mut client, "f", libc::O_RDWR);
    let ino = handle.fs(|fs| fs.find("f")).unwrap();
    client
        .call(Op::SETLK, node, &lock(fh, 1, 0, 99, libc::F_WRLCK), 0)
        .unwrap();
    client
        .call(Op::SETLK, node, &lock(fh, 1, 40, 49, libc::F_UNLCK), 0)
        .unwrap();
    assert_eq!(handle.locks(ino).len(), 2);
    assert_eq!(
        client.call(Op::SETLK, node, &lock(fh, 2, 45, 50, libc::F_RDLCK), 0),
        Err(libc::EAGAIN)
    );
    client
        .call(Op::SETLK, node, &lock(fh, 2, 40, 49, libc::F_WRLCK), 0)
        .unwrap();
    let held = client
        .call(
            Op::GETLK,
            node,
            &lock(fh, 3, 0, u64::MAX, libc::F_RDLCK),
            24,
        )
        .unwrap();
    assert_eq!(
        (u64_at(&held, 8), u32_at(&held, 16), u32_at(&held, 20)),
        (39, libc::F_WRLCK as u32, 42)
    );
    // Owner 2 waits for 1; then 1 must not wait for 2.
    let (_, bytes) = client.message(Op::SETLKW, node, &lock(fh, 2, 0, 0, libc::F_WRLCK));
    let waiting = client.submit(1, 3, bytes, 16);
    assert_eq!(
        client.call(Op::SETLKW, node, &lock(fh, 1, 45, 45, libc::F_RDLCK), 0),
        Err(libc::EDEADLK)
    );
    assert_eq!(handle.in_flight(), 1);
    // FLUSH drops the locks of its owner, and the waiter gets his.
    let flush = [&longs(&[fh])[..], &[0; 8], &longs(&[1])].concat();
    let (_, bytes) = client.message(Op::FLUSH, node, &flush);
    let flushing = client.submit(1, 0, bytes, 16);
    let mut done = [client.wait(1), client.wait(1)];
    done.sort();
    assert_eq!(done, [(0, 16), (6, 16)]);
    client.finish(flushing, 16).body().unwrap();
    client.finish(waiting, 16).body().unwrap();
    // An interrupted wait ends with EINTR.
    let (unique, bytes) = client.message(Op::SETLKW, node, &lock(fh, 9, 0, 0, libc::F_WRLCK));
    let waiting = client.submit(1, 3, bytes, 16);
    client.exchange(Op::INTERRUPT, 0, &longs(&[unique]), 0);
    let (_, len) = client.wait(1);
    assert_eq!(client.finish(waiting, len).body(), Err(libc::EINTR));
}

#[test]
fn ioctl_retries_poll_notifies_bmap_maps() {
    let mut fs = MemFs::new();
    let ino = fs.file("f", "").unwrap();
    let (mut client, handle) = Client::mount(Fake::new().fs(fs).notifications(64));
    let (node, fh) = opened(&mut client, "f", libc::O_RDWR);
    let ioctl = |flags: u32, cmd: u32, input: &[u8], out: u32| {
        let sizes = words(&[input.len() as u32, out]);
        [
            &longs(&[fh])[..],
            &words(&[flags, cmd]),
            &longs(&[0x1000]),
            &sizes,
            input,
        ]
        .concat()
    };
    let retry = client
        .call(Op::IOCTL, node, &ioctl(2, IOCTL_REVERSE, b"", 0), 48)
        .unwrap();
    assert_eq!(
        (u32_at(&retry, 4), u64_at(&retry, 16), u64_at(&retry, 24)),
        (4, 0x1000, 8)
    );
    let done = client
        .call(
            Op::IOCTL,
            node,
            &ioctl(2, IOCTL_REVERSE, b"abcdefgh", 8),
            24,
        )
        .unwrap();
    assert_eq!((u32_at(&done, 0), &done[16..]), (8, &b"hgfedcba"[..]));
    assert_eq!(
        client.call(Op::IOCTL, node, &ioctl(0, 1, b"", 0), 16),
        Err(libc::ENOTTY)
    );
    // One notification buffer waits on queue 1.
    let buffer = client::Shared::new(vec![0; 64], virtio_drivers::BufferDirection::DeviceToDriver);
    client.rings[1].describe(0, buffer.paddr, 64, 2, 0);
    client.rings[1].publish(0);
    virtio_fs::device::Transport::notify(&client.transport, 1);
    handle.set_poll(ino, 0);
    let poll = [&longs(&[fh, 77])[..], &words(&[1, libc::POLLIN as u32])].concat();
    assert_eq!(
        u32_at(&client.call(Op::POLL, node, &poll, 8).unwrap(), 0),
        0
    );
    handle.set_poll(ino, libc::POLLIN as u32);
    assert_eq!(client.wait(1), (0, 24));
    let bytes = buffer.unshare();
    assert_eq!(
        (u32_at(&bytes, 0), u32_at(&bytes, 4), u64_at(&bytes, 8)),
        (24, 1, 0)
    );
    assert_eq!(u64_at(&bytes, 16), 77);
    handle.notify(&Notification::IncEpoch);
    let bmap = [&longs(&[5])[..], &words(&[512, 0])].concat();
    assert_eq!(
        u64_at(&client.call(Op::BMAP, node, &bmap, 8).unwrap(), 0) % (1 << 20),
        5
    );
}

#[test]
fn submounts_are_announced_and_have_their_own_numbers() {
    let (mut client, handle) = mounted(|fs| {
        fs.submount("m").unwrap();
        fs.file("m/f", "").unwrap();
        fs.file("f", "").unwrap();
    });
    let entry = client.call(Op::LOOKUP, ROOT_ID, &cstr("m"), 128).unwrap();
    assert_eq!(u32_at(&entry, 40 + 84), ATTR_SUBMOUNT);
    assert_eq!(u64_at(&entry, 40), 1, "numbers start again");
    let m = u64_at(&entry, 0);
    let attr = client.call(Op::GETATTR, m, &[0; 16], 104).unwrap();
    assert_eq!(u32_at(&attr, 16 + 84), 0, "only in entries");
    let args = [&longs(&[ROOT_ID])[..], &cstr("f"), &cstr("g")].concat();
    assert_eq!(client.call(Op::RENAME, m, &args, 0), Err(libc::EXDEV));
    assert_eq!(
        client.call(Op::RMDIR, ROOT_ID, &cstr("m"), 0),
        Err(libc::ENOTEMPTY)
    );
    handle.assert_lookups([(m, 1)]);
}

#[test]
fn every_opcode_can_be_missing() {
    let (mut client, handle) = mounted(|_| ());
    for &op in Op::ALL {
        if matches!(
            op,
            Op::INIT | Op::FORGET | Op::BATCH_FORGET | Op::INTERRUPT | Op::NOTIFY_REPLY
        ) {
            continue;
        }
        handle.tune(|config| {
            config.missing.insert(op);
        });
        assert_eq!(
            client.call(op, ROOT_ID, &[0; 16], 128),
            Err(libc::ENOSYS),
            "{op:?}"
        );
    }
    assert_eq!(client.call(Op(1234), ROOT_ID, &[], 0), Err(libc::ENOSYS));
}

#[test]
fn malformed_requests_are_noticed() {
    let (mut client, handle) = mounted(|fs| {
        fs.file("f", "data").unwrap();
    });
    let (node, fh) = opened(&mut client, "f", libc::O_RDWR);
    let mut expect = |op: Op, node: u64, args: &[u8], room: usize, what: &str| {
        client.exchange(op, node, args, room);
        let found = handle.take_violations();
        assert!(
            found.len() == 1 && found[0].contains(what),
            "{what}: {found:?}"
        );
    };
    expect(Op::LOOKUP, ROOT_ID, b"f", 128, "without NUL");
    expect(Op::LOOKUP, ROOT_ID, &cstr("a/b"), 128, "no name");
    expect(Op::LOOKUP, ROOT_ID, &cstr("f"), 127, "does not fit");
    expect(Op::LOOKUP, 99, &cstr("f"), 128, "not known");
    expect(
        Op::MKDIR,
        ROOT_ID,
        &[&[0; 8][..], &cstr("..")].concat(),
        128,
        "no name",
    );
    expect(Op::UNLINK, ROOT_ID, b"f\0g\0", 0, "too many");
    expect(Op::GETATTR, ROOT_ID, &[0; 15], 104, "missing");
    expect(Op::GETATTR, ROOT_ID, &words(&[0, 1, 0, 0]), 104, "reserved");
    expect(Op::READ, node, &read_in(fh, 0, 4), 8, "with room for 8");
    expect(Op::READ, node, &read_in(fh, u64::MAX, 4), 4, "READ of");
    expect(Op::READ, node, &read_in(55, 0, 4), 4, "handle 55");
    expect(
        Op::READDIR,
        ROOT_ID,
        &read_in(0, 0, 4096),
        4000,
        "room 4000",
    );
    expect(
        Op::OPEN,
        node,
        &words(&[libc::O_CREAT as u32, 0]),
        16,
        "OPEN with flags",
    );
    expect(
        Op::SETLK,
        node,
        &lock(fh, 1, 5, 4, libc::F_RDLCK),
        0,
        "5 to 4",
    );
    expect(
        Op::SETUPMAPPING,
        node,
        &longs(&[0, 0, 4096, 3, 0]),
        0,
        "without a window",
    );
    handle.assert_lookups([(node, 1)]);
    // The header itself.
    let mut bad = |change: fn(&mut Vec<u8>), what: &str| {
        let (_, mut bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
        change(&mut bytes);
        client.exchange_raw(Op::STATFS, bytes, 80);
        let found = handle.take_violations();
        assert!(
            found.len() == 1 && found[0].contains(what),
            "{what}: {found:?}"
        );
    };
    bad(|b| b[0] += 1, "header says 41");
    bad(|b| b[8..16].fill(0), "unique is 0");
    bad(|b| b[38] = 1, "padding");
    // FORGET on a request queue.
    let (_, bytes) = client.message(Op::FORGET, node, &longs(&[1]));
    let flight = client.submit(1, 0, bytes, 0);
    client.wait(1);
    client.finish(flight, 0);
    assert!(handle.take_violations()[0].contains("does not belong on queue 1"));
    client.release(Op::RELEASE, node, fh, libc::O_RDONLY);
    assert!(handle.take_violations()[0].contains("RELEASE of handle"));
}

#[test]
fn groups_come_as_an_extension() {
    let (mut client, handle) = mounted(|_| ());
    let extension = words(&[16, 32, 1, 555]);
    let args = [&words(&[0o755, 0])[..], &cstr("d"), &extension].concat();
    let (_, mut bytes) = client.message(Op::MKDIR, ROOT_ID, &args);
    bytes[36] = 2;
    client
        .exchange_raw(Op::MKDIR, bytes.clone(), 128)
        .body()
        .unwrap();
    assert_eq!(handle.log().last().unwrap().groups, [555]);
    let kind = bytes.len() - 12;
    bytes[kind] = 33;
    client.exchange_raw(Op::MKDIR, bytes, 128);
    assert!(handle.take_violations()[0].contains("extension 33"));
}

#[test]
fn a_negative_entry_has_no_node() {
    let fake = Fake::new().tune(|c| c.negative_valid = Some(std::time::Duration::from_secs(5)));
    let (mut client, handle) = Client::mount(fake);
    let entry = client.call(Op::LOOKUP, ROOT_ID, &cstr("x"), 128).unwrap();
    assert_eq!(
        (entry.len(), u64_at(&entry, 0), u64_at(&entry, 16)),
        (128, 0, 5)
    );
    handle.assert_lookups([]);
}

#[test]
fn manual_drive_serves_nothing_unasked() {
    let (transport, handle) = Fake::new().drive(Drive::Manual).build();
    let mut client = Client::probe(transport, &handle);
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    assert_eq!(handle.stats().requests, 0);
    assert!(handle.step());
    let (_, len) = client.wait(1);
    assert_eq!(
        client.finish(flight, len).body(),
        Err(libc::EINVAL),
        "no INIT"
    );
    assert_eq!(handle.take_violations().len(), 1);
}
