//! Replies that no honest server sends (protocol.md 4.14). Each gets its errno
//! and one line in the log, and the mount goes on.

use virtio_fs::Errno;
use virtio_fs::conn::Config;
use virtio_fs::error::Result;
use virtio_fs::fs::{At, Changes, Durable, MountOptions, Symlinks};
use virtio_fs::wire::{FallocateMode, Mode, OpenFlags, Rdev, RenameFlags, SeekWhence};
use virtio_fs_attack::{Guest, Lines, tree};
use virtio_fs_fake::{AttrField, DirFault, EntryField, Fake, Fault, Op, Rule, init};

/// What a call does on `tree`.
type Call = fn(&Guest) -> Result<()>;

fn chmod(g: &Guest) -> Result<()> {
    let changes = Changes {
        permissions: Some(0o600),
        ..Changes::default()
    };
    g.process
        .set(At::Cwd, b"/dir/file", Symlinks::Follow, &changes)
}

/// Runs `call` on an open file, and closes it whatever comes.
fn with_file(g: &Guest, call: impl FnOnce(virtio_fs::fs::Fd) -> Result<()>) -> Result<()> {
    let fd = g
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .expect("opens");
    let result = call(fd);
    let closed = g.process.close(fd);
    result.and(closed)
}

fn write_one(g: &Guest) -> Result<()> {
    with_file(g, |fd| g.process.pwrite(fd, &[1; 100], 0).map(drop))
}

fn copy_some(g: &Guest) -> Result<()> {
    let from = g.inode("/dir/file").open(OpenFlags::RDONLY).expect("opens");
    let to = g.inode("/dir/other").open(OpenFlags::RDWR).expect("opens");
    from.copy_to(0, &to, 0, 100).map(drop)
}

fn sync_dir(g: &Guest) -> Result<()> {
    g.inode("/dir").open_dir().expect("opens").sync()
}

/// Each operation with a reply that is waited for, and whether the reply has a
/// struct of a fixed length. Opening and looking up happen before the fault.
const CALLS: &[(Op, bool, Call)] = &[
    (Op::LOOKUP, true, |g| g.stat("/dir/sub/leaf").map(drop)),
    (Op::GETATTR, true, |g| {
        g.inode("/dir/file").revalidate().map(drop)
    }),
    (Op::SETATTR, true, chmod),
    (Op::READLINK, false, |g| {
        g.process.readlink(At::Cwd, b"/dir/link").map(drop)
    }),
    (Op::SYMLINK, true, |g| {
        g.process.symlink(b"target", At::Cwd, b"/dir/new")
    }),
    (Op::MKNOD, true, |g| {
        let mode = Mode::new(virtio_fs::wire::FileType::Fifo, 0o600);
        g.process.mknod(At::Cwd, b"/dir/new", mode, Rdev(0))
    }),
    (Op::MKDIR, true, |g| {
        g.process.mkdir(At::Cwd, b"/dir/new", 0o700)
    }),
    (Op::UNLINK, false, |g| {
        g.process.unlink(At::Cwd, b"/dir/other")
    }),
    (Op::RMDIR, false, |g| g.process.rmdir(At::Cwd, b"/empty")),
    (Op::RENAME, false, |g| {
        let flags = RenameFlags::empty();
        g.process
            .rename(At::Cwd, b"/dir/other", At::Cwd, b"/moved", flags)
    }),
    (Op::RENAME2, false, |g| {
        let flags = RenameFlags::NOREPLACE;
        g.process
            .rename(At::Cwd, b"/dir/other", At::Cwd, b"/moved", flags)
    }),
    (Op::LINK, true, |g| {
        let follow = Symlinks::NoFollow;
        g.process
            .link(At::Cwd, b"/dir/other", follow, At::Cwd, b"/linked")
    }),
    (Op::OPEN, true, |g| {
        g.inode("/dir/other").open(OpenFlags::RDONLY).map(drop)
    }),
    (Op::READ, false, |g| {
        with_file(g, |fd| g.process.pread(fd, &mut [0; 100], 0).map(drop))
    }),
    (Op::WRITE, true, write_one),
    (Op::STATFS, true, |g| {
        g.process.statfs(At::Cwd, b"/").map(drop)
    }),
    (Op::FSYNC, false, |g| {
        with_file(g, |fd| {
            g.process.pwrite(fd, b"x", 0).expect("writes");
            g.process.fsync(fd, Durable::All)
        })
    }),
    (Op::FLUSH, false, write_one),
    (Op::OPENDIR, true, sync_dir),
    (Op::READDIR, false, |g| g.names("/dir").map(drop)),
    (Op::READDIRPLUS, false, |g| g.names("/dir").map(drop)),
    (Op::FSYNCDIR, false, sync_dir),
    (Op::CREATE, true, |g| {
        let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
        g.process
            .open(At::Cwd, b"/dir/new", flags, 0o600)
            .map(|fd| g.process.close(fd).expect("closes"))
    }),
    (Op::FALLOCATE, false, |g| {
        let file = g.inode("/dir/file").open(OpenFlags::RDWR).expect("opens");
        file.allocate(0, 100, FallocateMode::empty())
    }),
    (Op::LSEEK, true, |g| {
        let file = g.inode("/dir/file").open(OpenFlags::RDWR).expect("opens");
        file.seek(0, SeekWhence::Hole).map(drop)
    }),
    (Op::COPY_FILE_RANGE, true, copy_some),
    (Op::COPY_FILE_RANGE_64, true, copy_some),
    (Op::SYNCFS, false, |g| g.mount.file_system().sync()),
    (Op::TMPFILE, true, |g| {
        g.inode("/dir").tmpfile(OpenFlags::RDWR, 0o600).map(drop)
    }),
];

/// A mount that knows the names of `tree`, so that only the operation itself
/// meets the fault.
fn guest_for(op: Op) -> Guest {
    let fake = Fake::new().fs(tree()).tune(|server| {
        if op == Op::READDIR {
            server.flags &= !init::DO_READDIRPLUS;
        }
        if op == Op::COPY_FILE_RANGE {
            server.missing.insert(Op::COPY_FILE_RANGE_64);
        }
    });
    let guest = Guest::with(fake, Config::default(), MountOptions::default());
    for path in ["/dir/file", "/dir/other", "/dir/link", "/dir/sub", "/empty"] {
        guest.stat(path).expect("exists");
    }
    if op == Op::COPY_FILE_RANGE {
        copy_some(&guest).expect("copies, and learns what is missing");
    }
    guest
}

fn call_of(op: Op) -> Call {
    CALLS
        .iter()
        .find(|(o, ..)| *o == op)
        .expect("is in the table")
        .2
}

/// Spoils one reply to `op` and checks what becomes of it.
fn spoilt(op: Op, what: &str, fault: Fault, errno: Errno) {
    let guest = guest_for(op);
    guest.fake.fault(Rule::on(op, fault));
    Lines::clear();
    let before = guest.conn.counters().malformed_replies.get();
    let error = call_of(op)(&guest).expect_err(&format!("{op:?} with {what}"));
    assert_eq!(error.errno(), errno, "{op:?} with {what}");
    let lines = Lines::take_errors();
    assert_eq!(lines.len(), 1, "{op:?} with {what}: {lines:?}");
    let malformed = guest.conn.counters().malformed_replies.get() - before;
    assert_eq!(malformed, 1, "{op:?} with {what}");
    guest.assert_works();
    guest.finish();
}

/// Spoils one reply to each operation in the same way.
fn spoilt_everywhere(what: &str, fault: impl Fn() -> Fault) {
    for (op, ..) in CALLS {
        spoilt(*op, what, fault(), Errno::EIO);
    }
}

#[test]
fn a_reply_shorter_than_its_struct_is_eio() {
    for (op, fixed, _) in CALLS {
        if *fixed {
            spoilt(*op, "one byte of body", Fault::Short(17), Errno::EIO);
            spoilt(*op, "no body", Fault::Short(16), Errno::EIO);
        }
    }
}

#[test]
fn a_reply_shorter_than_a_header_is_eio() {
    spoilt_everywhere("8 bytes", || Fault::Short(8));
    spoilt_everywhere("15 bytes", || Fault::Short(15));
}

#[test]
fn a_reply_longer_than_its_struct_is_eio() {
    for (op, fixed, _) in CALLS {
        if *fixed {
            spoilt(*op, "more", Fault::Long(8), Errno::EIO);
        }
    }
}

#[test]
fn data_longer_than_the_buffer_are_eio() {
    for op in [Op::READ, Op::READLINK, Op::READDIR, Op::READDIRPLUS] {
        spoilt(op, "too much", Fault::Long(1 << 20), Errno::EIO);
    }
}

#[test]
fn a_body_where_none_belongs_is_eio() {
    for op in [Op::UNLINK, Op::RMDIR, Op::RENAME, Op::FLUSH, Op::FSYNC] {
        spoilt(op, "a body", Fault::Long(8), Errno::EIO);
    }
}

#[test]
fn a_reply_with_another_id_is_eio() {
    spoilt_everywhere("id 0", || Fault::Unique(0));
    spoilt_everywhere("another id", || Fault::Unique(0x1234));
}

#[test]
fn a_header_with_another_length_is_eio() {
    for len in [0, 15, u32::MAX] {
        spoilt_everywhere("another length", || Fault::HeaderLen(len));
    }
}

#[test]
fn a_positive_error_is_eio() {
    spoilt_everywhere("error 5", || Fault::Error(5));
    spoilt_everywhere("the largest error", || Fault::Error(i32::MAX));
}

#[test]
fn an_error_of_the_kernels_own_is_eio() {
    for error in [-512, -4095, i32::MIN] {
        spoilt_everywhere("an internal error", || Fault::Error(error));
    }
}

#[test]
fn an_error_with_a_body_is_eio() {
    for (op, fixed, _) in CALLS {
        if *fixed {
            spoilt(*op, "error and body", Fault::ErrorWithBody(-2), Errno::EIO);
        }
    }
}

#[test]
fn a_reply_that_was_not_written_is_eio() {
    spoilt_everywhere("nothing written", || Fault::Unwritten);
}

#[test]
fn a_used_length_below_a_header_is_eio() {
    spoilt_everywhere("15 bytes used", || Fault::UsedLen(15));
}

#[test]
fn a_used_length_beyond_the_buffer_is_eio() {
    for (op, ..) in CALLS {
        // The server believes that these were taken: its own loss.
        let grants = matches!(
            *op,
            Op::LOOKUP | Op::SYMLINK | Op::MKNOD | Op::MKDIR | Op::LINK | Op::CREATE | Op::TMPFILE
        ) || matches!(*op, Op::OPEN | Op::OPENDIR | Op::READDIRPLUS);
        if !grants {
            spoilt(*op, "all bytes used", Fault::UsedLen(u32::MAX), Errno::EIO);
        }
    }
}

#[test]
fn every_error_of_the_server_passes_through_without_a_line() {
    for (op, _, call) in CALLS {
        for error in [1u16, 5, 28, 122] {
            let guest = guest_for(*op);
            guest
                .fake
                .fault(Rule::on(*op, Fault::Error(-i32::from(error))).times(2));
            Lines::clear();
            let result = call(&guest).expect_err("fails").errno();
            assert_eq!(result, Errno::new(error).expect("is one"), "{op:?}");
            assert_eq!(Lines::take_errors(), Vec::<String>::new());
            guest.assert_works();
            guest.finish();
        }
    }
}

const ENTRIES: &[Op] = &[
    Op::LOOKUP,
    Op::SYMLINK,
    Op::MKNOD,
    Op::MKDIR,
    Op::LINK,
    Op::CREATE,
    Op::TMPFILE,
];
const ATTRS: &[Op] = &[
    Op::LOOKUP,
    Op::SYMLINK,
    Op::MKNOD,
    Op::MKDIR,
    Op::LINK,
    Op::CREATE,
    Op::TMPFILE,
    Op::GETATTR,
    Op::SETATTR,
];

#[test]
fn a_mode_without_a_file_type_is_eio_and_the_node_is_forgotten() {
    for op in ATTRS {
        for mode in [0, 0o644, 0o170_000, 0o030_644] {
            spoilt(
                *op,
                "no type",
                Fault::Attr(AttrField::Mode, mode),
                Errno::EIO,
            );
        }
    }
}

#[test]
fn a_size_beyond_i64_is_eio_and_the_node_is_forgotten() {
    for op in ATTRS {
        for size in [1 << 63, u64::MAX] {
            spoilt(*op, "size", Fault::Attr(AttrField::Size, size), Errno::EIO);
        }
    }
}

#[test]
fn a_new_file_with_node_id_0_is_eio() {
    for op in ENTRIES.iter().filter(|op| **op != Op::LOOKUP) {
        spoilt(
            *op,
            "node 0",
            Fault::Entry(EntryField::Nodeid, 0),
            Errno::EIO,
        );
    }
}

#[test]
fn a_name_that_leads_to_node_id_1_is_eio() {
    for op in ENTRIES {
        spoilt(
            *op,
            "node 1",
            Fault::Entry(EntryField::Nodeid, 1),
            Errno::EIO,
        );
    }
}

/// Spoils one reply to `op` in a way that is put right without an error.
fn harmless(op: Op, what: &str, fault: Fault) {
    let guest = guest_for(op);
    guest.fake.fault(Rule::on(op, fault));
    Lines::clear();
    if let Err(error) = call_of(op)(&guest) {
        panic!("{op:?} with {what}: {error}");
    }
    assert_eq!(Lines::take_errors(), Vec::<String>::new());
    guest.assert_works();
    guest.finish();
}

#[test]
fn nanoseconds_beyond_a_second_are_clamped() {
    use AttrField::{AtimeNsec, CtimeNsec, MtimeNsec};
    for op in ATTRS {
        for field in [AtimeNsec, MtimeNsec, CtimeNsec] {
            harmless(*op, "nsec", Fault::Attr(field, u64::MAX));
        }
    }
    let guest = Guest::new();
    let fault = Fault::Attr(MtimeNsec, 4_000_000_000);
    guest.fake.fault(Rule::on(Op::LOOKUP, fault));
    let attr = guest.stat("/witness").unwrap().attr;
    assert_eq!(attr.mtime.nsec, 999_999_999);
    guest.finish();
}

#[test]
fn a_block_size_that_is_none_becomes_4096() {
    for size in [0, 1000, 4095, u64::from(u32::MAX)] {
        let guest = Guest::new();
        let fault = Fault::Attr(AttrField::Blksize, size);
        guest.fake.fault(Rule::on(Op::LOOKUP, fault));
        assert_eq!(guest.stat("/witness").unwrap().attr.blksize(), 4096);
        guest.finish();
    }
}

#[test]
fn any_other_attribute_is_taken_as_it_is() {
    use AttrField::{Blocks, Flags, Gid, Ino, Nlink, Uid};
    for op in ATTRS {
        for field in [Ino, Blocks, Nlink, Uid, Gid, Flags] {
            harmless(*op, "all ones", Fault::Attr(field, u64::MAX));
        }
    }
}

#[test]
fn lifetimes_saturate() {
    use EntryField::{AttrValid, AttrValidNsec, EntryValid, EntryValidNsec};
    for op in ENTRIES {
        for field in [EntryValid, EntryValidNsec, AttrValid, AttrValidNsec] {
            harmless(*op, "for ever", Fault::Entry(field, u64::MAX));
        }
    }
}

#[test]
fn a_known_inode_that_changes_its_type_is_bad_and_its_name_leads_to_a_new_one() {
    let guest = Guest::new();
    let inode = guest.inode("/dir/file");
    let fifo = Fault::Attr(AttrField::Mode, 0o010_644);
    guest.fake.fault(Rule::on(Op::GETATTR, fifo));
    Lines::clear();
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EIO);
    assert_eq!(Lines::take_errors().len(), 1);
    let sent = guest.conn.counters().total_requests();
    assert_eq!(inode.metadata().unwrap_err().errno(), Errno::EIO);
    assert_eq!(
        inode.open(OpenFlags::RDONLY).err().unwrap().errno(),
        Errno::EIO
    );
    assert_eq!(
        guest.conn.counters().total_requests(),
        sent,
        "a bad inode asks nothing"
    );
    let again = guest.inode("/dir/file");
    assert!(!std::sync::Arc::ptr_eq(&inode, &again));
    assert!(again.metadata().is_ok());
    drop(again);
    drop(inode);
    guest.assert_works();
    guest.finish();
}

#[test]
fn a_generation_that_changes_makes_the_old_inode_bad() {
    let guest = Guest::new();
    let old = guest.inode("/dir/file");
    guest.mount.file_system().shrink(usize::MAX);
    let fault = Fault::Entry(EntryField::Generation, 77);
    guest.fake.fault(Rule::on(Op::LOOKUP, fault).nth(2));
    let new = guest.inode("/dir/file");
    assert!(!std::sync::Arc::ptr_eq(&old, &new));
    assert_eq!(old.metadata().unwrap_err().errno(), Errno::EIO);
    assert!(new.metadata().is_ok());
    // The server adds both inodes' lookups up under one node id.
    let total = guest.fake.lookups(new.node().get());
    assert_eq!(old.lookups() + new.lookups(), total);
    drop((old, new));
    guest.mount.file_system().shrink(usize::MAX);
    guest.assert_works();
    guest.finish();
}

#[test]
fn a_directory_inside_itself_is_refused() {
    let guest = Guest::new();
    let dir = guest.inode("/dir");
    let node = dir.node().get();
    let generation = guest.fake.generation(node).unwrap();
    // The reply names `dir` where `sub` was asked for: the server counts a
    // lookup of `sub`, which is lost, and none of `dir`.
    guest
        .fake
        .fault(Rule::on(Op::LOOKUP, Fault::Entry(EntryField::Nodeid, node)));
    let fault = Fault::Entry(EntryField::Generation, generation);
    guest.fake.fault(Rule::on(Op::LOOKUP, fault));
    Lines::clear();
    let error = dir.lookup(b"sub").expect_err("is refused");
    assert_eq!(error.errno(), Errno::ELOOP);
    assert_eq!(Lines::take_errors().len(), 1);
    assert!(guest.process.path_of(&dir).unwrap() == b"/dir");
    drop(dir);
    guest.fake.clear_faults();
    assert_eq!(guest.read("/dir/sub/leaf").unwrap(), b"leaf");
    guest.mount.file_system().shrink(usize::MAX);
    guest.settle();
    // The server's own mistake: it said `dir` and counted nothing.
    assert_eq!(guest.fake.take_violations().len(), 1);
}

// READLINK.

#[test]
fn a_link_target_of_no_bytes_is_eio() {
    spoilt(Op::READLINK, "nothing", Fault::Body(vec![]), Errno::EIO);
}

#[test]
fn a_link_target_that_fills_the_buffer_is_eio() {
    spoilt(
        Op::READLINK,
        "4096",
        Fault::Body(vec![b'a'; 4096]),
        Errno::EIO,
    );
    spoilt(
        Op::READLINK,
        "4097",
        Fault::Body(vec![b'a'; 4097]),
        Errno::EIO,
    );
}

#[test]
fn a_link_target_is_cut_at_a_nul() {
    let guest = Guest::new();
    guest
        .fake
        .fault(Rule::on(Op::READLINK, Fault::Body(b"fi\0le".to_vec())));
    match guest.process.readlink(At::Cwd, b"/dir/link") {
        Ok(target) => assert_eq!(&*target, b"fi"),
        Err(error) => assert_eq!(error.errno(), Errno::EIO),
    }
    guest.assert_works();
    guest.finish();
}

#[test]
fn links_without_end_are_eloop() {
    let guest = Guest::new();
    guest
        .fake
        .fault(Rule::on(Op::READLINK, Fault::Body(b"/dir/link".to_vec())).always());
    let error = guest
        .process
        .stat(At::Cwd, b"/dir/link", Symlinks::Follow)
        .unwrap_err();
    assert_eq!(error.errno(), Errno::ELOOP);
    guest.finish();
}

// Directories.

/// Behind a bad record nobody knows where the next one begins, so the lookups
/// that the server counted for the rest of a READDIRPLUS are not found.
fn spoilt_dir(op: Op, fault: fn() -> DirFault) {
    if op == Op::READDIR {
        return spoilt(op, "a bad record", Fault::Dir(fault()), Errno::EIO);
    }
    let guest = guest_for(op);
    guest.fake.fault(Rule::on(op, Fault::Dir(fault())));
    Lines::clear();
    assert_eq!(guest.names("/dir").unwrap_err().errno(), Errno::EIO);
    assert_eq!(Lines::take_errors().len(), 1);
    guest.assert_works();
    guest.settle();
    // The fake takes all grants of a reply back whose length was changed.
    let broken = guest.fake.take_violations();
    assert!(broken.iter().all(|v| v.starts_with("FORGET")), "{broken:?}");
}

#[test]
fn a_record_without_a_name_is_eio() {
    spoilt_dir(Op::READDIR, || DirFault::NameLen(0));
    spoilt_dir(Op::READDIRPLUS, || DirFault::NameLen(0));
}

#[test]
fn a_record_whose_name_leaves_the_reply_is_eio() {
    for op in [Op::READDIR, Op::READDIRPLUS] {
        spoilt_dir(op, || DirFault::NameLen(4096));
        spoilt_dir(op, || DirFault::NameLen(u32::MAX));
        spoilt_dir(op, || DirFault::NameLen(1 << 31));
    }
}

#[test]
fn a_record_with_a_slash_or_nul_in_its_name_is_eio() {
    for op in [Op::READDIR, Op::READDIRPLUS] {
        spoilt_dir(op, || DirFault::Name(b"/".to_vec()));
        spoilt_dir(op, || DirFault::Name(b"\0".to_vec()));
    }
}

#[test]
fn a_record_that_is_cut_is_eio() {
    for op in [Op::READDIR, Op::READDIRPLUS] {
        spoilt_dir(op, || DirFault::Cut(9));
        spoilt_dir(op, || DirFault::Extra(vec![1; 23]));
    }
}

#[test]
fn a_cookie_of_64_bits_is_eio() {
    spoilt_dir(Op::READDIR, || DirFault::Cookie(u64::MAX));
    spoilt_dir(Op::READDIRPLUS, || DirFault::Cookie(1 << 63));
}

#[test]
fn a_type_of_a_record_that_is_none_is_unknown() {
    harmless(Op::READDIR, "type", Fault::Dir(DirFault::Type(77)));
    harmless(Op::READDIRPLUS, "type", Fault::Dir(DirFault::Type(77)));
}

/// A reply of one record that leads back to itself.
fn circle(op: Op) -> Rule {
    let dirent = if op == Op::READDIRPLUS { 128 } else { 0 };
    let mut body = vec![0; dirent];
    body.extend_from_slice(&5u64.to_le_bytes());
    body.extend_from_slice(&9u64.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes());
    body.extend_from_slice(&8u32.to_le_bytes());
    body.extend_from_slice(b"a\0\0\0\0\0\0\0");
    Rule::on(op, Fault::Body(body)).always()
}

#[test]
fn cookies_that_lead_in_a_circle_end_with_eio() {
    let guest = Guest::new();
    guest.stat("/dir").unwrap();
    guest.fake.fault(circle(Op::READDIR));
    guest.fake.fault(circle(Op::READDIRPLUS));
    Lines::clear();
    assert_eq!(guest.names("/dir").unwrap_err().errno(), Errno::EIO);
    assert_eq!(Lines::take_errors().len(), 1);
    let asked = guest.fake.count(Op::READDIR) + guest.fake.count(Op::READDIRPLUS);
    assert_eq!(asked, 2);
    guest.assert_works();
}

#[test]
fn bad_attributes_in_a_record_cost_the_entry_its_attributes_only() {
    for (field, value) in [(AttrField::Mode, 0), (AttrField::Size, u64::MAX)] {
        let guest = guest_for(Op::READDIRPLUS);
        guest
            .fake
            .fault(Rule::on(Op::READDIRPLUS, Fault::Attr(field, value)));
        Lines::clear();
        assert_eq!(guest.names("/dir").unwrap().len(), 6);
        assert_eq!(Lines::take_errors().len(), 1);
        guest.assert_works();
        guest.finish();
    }
}

// Counts.

#[test]
fn a_write_of_more_than_was_sent_is_eio() {
    for n in [101u32, u32::MAX] {
        let body = [n.to_le_bytes(), [0; 4]].concat();
        spoilt(Op::WRITE, "too much", Fault::Body(body), Errno::EIO);
    }
}

#[test]
fn a_write_of_nothing_is_eio() {
    spoilt(Op::WRITE, "nothing", Fault::Body(vec![0; 8]), Errno::EIO);
}

#[test]
fn a_copy_of_more_than_was_asked_for_is_eio() {
    let narrow = [101u32.to_le_bytes(), [0; 4]].concat();
    spoilt(
        Op::COPY_FILE_RANGE,
        "too much",
        Fault::Body(narrow),
        Errno::EIO,
    );
    for n in [101, u64::MAX] {
        let wide = Fault::Body(n.to_le_bytes().to_vec());
        spoilt(Op::COPY_FILE_RANGE_64, "too much", wide, Errno::EIO);
    }
}

#[test]
fn a_position_beyond_i64_is_eio() {
    for n in [1 << 63, u64::MAX] {
        let body = Fault::Body(n.to_le_bytes().to_vec());
        spoilt(Op::LSEEK, "no position", body, Errno::EIO);
    }
}

#[test]
fn unknown_flags_and_any_handle_from_open_are_taken() {
    for op in [Op::OPEN, Op::OPENDIR] {
        harmless(
            op,
            "flags",
            Fault::Patch {
                offset: 8,
                bytes: vec![0xff, 0xff, 0, 0],
            },
        );
    }
}

#[test]
fn a_statfs_of_all_ones_is_passed_on() {
    harmless(Op::STATFS, "all ones", Fault::Body(vec![0xff; 80]));
    harmless(Op::STATFS, "all zero", Fault::Body(vec![0; 80]));
}
