//! What replies mean, and which are refused.

use core::time::Duration;

use super::*;
use crate::errno::Errno;

const D: Dialect = Dialect::INITIAL;

/// Attributes of a regular file; every field has its own value.
fn attr_bytes(mode: u32, size: u64, blksize: u32, flags: u32) -> Bytes {
    Bytes::new()
        .u64(11)
        .u64(size)
        .u64(13)
        .u64(14)
        .u64(15)
        .u64(u64::MAX)
        .u32(17)
        .u32(u32::MAX)
        .u32(19)
        .u32(mode)
        .u32(21)
        .u32(22)
        .u32(23)
        .u32(24)
        .u32(blksize)
        .u32(flags)
}

fn attr() -> Attr {
    Attr {
        ino: 11,
        size: 12,
        blocks: 13,
        atime: Time::new(14, 17),
        mtime: Time::new(15, 999_999_999),
        ctime: Time::new(-1, 19),
        nlink: 21,
        uid: 22,
        gid: 23,
        rdev: Rdev(24),
        mode: Mode::new(FileType::Regular, 0o644),
        blksize_log2: 9,
        flags: AttrFlags::DAX,
    }
}

fn good_attr() -> Bytes {
    attr_bytes(0o100_644, 12, 512, 0xffff_fffe)
}

fn entry_bytes(node: u64, attr: &Bytes) -> Bytes {
    Bytes::new()
        .u64(node)
        .u64(2)
        .u64(3)
        .u64(4)
        .u32(5)
        .u32(6)
        .join(attr)
}

fn entry() -> Entry {
    Entry {
        node: node(77),
        generation: Generation(2),
        entry_valid: Duration::new(3, 5),
        attr_valid: Duration::new(4, 6),
        attr: Ok(attr()),
    }
}

#[test]
fn attributes_come_with_their_lifetime() {
    let bytes = Bytes::new().u64(9).u32(u32::MAX).u32(0).join(&good_attr());
    let reply = AttrReply {
        valid: Duration::new(9, 999_999_999),
        attr: attr(),
    };
    decodes::<Getattr>(D, &bytes, reply);
    decodes::<Setattr>(D, &bytes, reply);
}

#[test]
fn old_servers_answer_without_block_size_and_flags() {
    let short = Bytes(good_attr().0[..80].to_vec());
    let attr = Attr {
        blksize_log2: 12,
        flags: AttrFlags::empty(),
        ..attr()
    };
    let bytes = Bytes::new().u64(9).u32(0).u32(0).join(&short);
    assert_eq!(bytes.0.len(), 96);
    decodes::<Getattr>(
        minor(8),
        &bytes,
        AttrReply {
            valid: Duration::from_secs(9),
            attr,
        },
    );
    let bytes = entry_bytes(77, &short);
    assert_eq!(bytes.0.len(), 120);
    let entry = Entry {
        attr: Ok(attr),
        ..entry()
    };
    decodes::<Lookup<'_>>(minor(8), &bytes, Found::Entry(entry));
    let open = OpenReply {
        fh: FileHandle(1),
        flags: FopenFlags::KEEP_CACHE,
    };
    let bytes = bytes.u64(1).u32(2).u32(0);
    decodes::<Create<'_>>(minor(8), &bytes, Created { entry, open });
}

#[test]
fn bad_attributes_are_refused_and_odd_ones_repaired() {
    let refused = |attr: Bytes| {
        let bytes = Bytes::new().zeros(16).join(&attr);
        decode::<Getattr>(&D, &bytes.0, 0).unwrap_err()
    };
    for mode in [0, 0o644, 0o030_000, 0o170_000] {
        assert_eq!(refused(attr_bytes(mode, 12, 512, 0)), Malformed::Mode(mode));
    }
    for size in [1 << 63, u64::MAX] {
        assert_eq!(
            refused(attr_bytes(0o100_644, size, 512, 0)),
            Malformed::Offset(size)
        );
    }
    for (blksize, repaired) in [
        (0, 4096),
        (513, 4096),
        (u32::MAX, 4096),
        (1, 1),
        (1 << 31, 1 << 31),
    ] {
        let bytes = Bytes::new()
            .zeros(16)
            .join(&attr_bytes(0o100_644, 12, blksize, 0));
        let reply = decode::<Getattr>(&D, &bytes.0, 0).unwrap();
        assert_eq!(reply.attr.blksize(), repaired, "{blksize}");
    }
    let max = i64::MAX as u64;
    let bytes = Bytes::new()
        .zeros(16)
        .join(&attr_bytes(0o100_644, max, 512, 0));
    assert_eq!(decode::<Getattr>(&D, &bytes.0, 0).unwrap().attr.size, max);
}

#[test]
fn lookup_finds_or_remembers_that_there_is_nothing() {
    decodes::<Lookup<'_>>(D, &entry_bytes(77, &good_attr()), Found::Entry(entry()));
    // The attributes of nothing are not looked at.
    let nothing = entry_bytes(0, &Bytes::new().zeros(88));
    decodes::<Lookup<'_>>(D, &nothing, Found::Negative(Duration::new(3, 5)));
    let root = entry_bytes(1, &good_attr());
    assert_eq!(
        decode::<Lookup<'_>>(&D, &root.0, 0),
        Err(Malformed::Node(1))
    );
}

#[test]
fn an_entry_with_bad_attributes_can_still_be_forgotten() {
    let bytes = entry_bytes(77, &attr_bytes(0, 12, 512, 0));
    let expected = Entry {
        attr: Err(Malformed::Mode(0)),
        ..entry()
    };
    decodes::<Lookup<'_>>(D, &bytes, Found::Entry(expected));
    decodes::<Mkdir<'_>>(D, &bytes, expected);
}

#[test]
fn what_was_made_is_there_and_is_not_the_root() {
    let good = entry_bytes(77, &good_attr());
    decodes::<Mknod<'_>>(D, &good, entry());
    decodes::<Mkdir<'_>>(D, &good, entry());
    decodes::<Symlink<'_>>(D, &good, entry());
    decodes::<Link<'_>>(D, &good, entry());
    let open = OpenReply {
        fh: FileHandle(0),
        flags: FopenFlags::from_bits_retain(0x4000_0003),
    };
    let tail = Bytes::new().u64(0).u32(0x4000_0003).u32(0);
    let created = Created {
        entry: entry(),
        open,
    };
    decodes::<Create<'_>>(D, &good.clone().join(&tail), created);
    decodes::<Tmpfile<'_>>(D, &good.join(&tail), created);
    for id in [0, 1] {
        let bad = entry_bytes(id, &good_attr());
        assert_eq!(decode::<Mkdir<'_>>(&D, &bad.0, 0), Err(Malformed::Node(id)));
        let bad = bad.join(&tail);
        assert_eq!(
            decode::<Create<'_>>(&D, &bad.0, 0),
            Err(Malformed::Node(id))
        );
    }
}

#[test]
fn handles_and_counts() {
    let open = OpenReply {
        fh: FileHandle(5),
        flags: FopenFlags::DIRECT_IO | FopenFlags::STREAM,
    };
    let bytes = Bytes::new().u64(5).u32(0x11).u32(0);
    decodes::<Open>(D, &bytes, open);
    decodes::<Opendir>(D, &bytes, open);
    let bytes = Bytes::new().u32(7).u32(0);
    decodes::<Write>(D, &bytes, Count(7));
    decodes::<CopyFileRange>(D, &bytes, Count(7));
    decodes::<CopyFileRange64>(D, &Bytes::new().u64(1 << 40), Count(1 << 40));
    decodes::<GetxattrSize<'_>>(D, &bytes, 7);
    decodes::<ListxattrSize>(D, &bytes, 7);
    decodes::<Bmap>(D, &Bytes::new().u64(8), 8);
    decodes::<Poll>(
        D,
        &Bytes::new().u32(5).u32(0),
        PollEvents::IN | PollEvents::OUT,
    );
    decodes::<Lseek>(D, &Bytes::new().u64(i64::MAX as u64), i64::MAX as u64);
    let negative = Bytes::new().u64(1 << 63);
    assert_eq!(
        decode::<Lseek>(&D, &negative.0, 0),
        Err(Malformed::Offset(1 << 63))
    );
}

#[test]
fn a_lock_in_the_way_has_a_kind_and_a_range() {
    let bytes = |start, end, kind| Bytes::new().u64(start).u64(end).u32(kind).u32(8);
    let lock = Lock {
        start: 6,
        end: 7,
        kind: LockKind::Write,
        pid: 8,
    };
    decodes::<Getlk>(D, &bytes(6, 7, 1), lock);
    // Whoever says "nothing in the way" need not state a range.
    let free = Lock {
        start: 0,
        end: Lock::END,
        kind: LockKind::Unlock,
        pid: 8,
    };
    decodes::<Getlk>(D, &bytes(9, 3, 2), free);
    for (start, end, kind, why) in [
        (8, 7, 0, Malformed::Offset(8)),
        (0, 1 << 63, 1, Malformed::Offset(1 << 63)),
        (0, 7, 3, Malformed::LockKind(3)),
    ] {
        assert_eq!(decode::<Getlk>(&D, &bytes(start, end, kind).0, 0), Err(why));
    }
}

#[test]
fn statfs_of_old_servers_is_short() {
    let short = Bytes::new()
        .u64(1)
        .u64(2)
        .u64(3)
        .u64(4)
        .u64(5)
        .u32(4096)
        .u32(255);
    let reply = StatfsReply {
        blocks: 1,
        bfree: 2,
        bavail: 3,
        files: 4,
        ffree: 5,
        bsize: 4096,
        namelen: 255,
        frsize: 512,
    };
    decodes::<Statfs>(D, &short.clone().u32(512).zeros(28), reply);
    decodes::<Statfs>(
        minor(3),
        &short,
        StatfsReply {
            frsize: 4096,
            ..reply
        },
    );
}

#[test]
fn statx_passes_the_same_checks_as_other_attributes() {
    let time = |sec: u64| Bytes::new().u64(sec).u32(sec as u32).u32(0);
    let bytes = |mask: u32, mode: u16, size: u64| {
        Bytes::new()
            .u64(1)
            .u32(2)
            .u32(0)
            .zeros(16)
            .u32(mask)
            .u32(512)
            .u64(0xff)
            .u32(21)
            .u32(22)
            .u32(23)
            .u16(mode)
            .u16(0)
            .u64(11)
            .u64(size)
            .u64(13)
            .u64(0x0f)
            .join(&time(14))
            .join(&time(15))
            .join(&time(16))
            .join(&time(17))
            .u32(1)
            .u32(3)
            .u32(0)
            .u32(0)
            .zeros(112)
    };
    let reply = StatxReply {
        valid: Duration::new(1, 2),
        mask: StatxMask::BASIC_STATS | StatxMask::BTIME,
        attr: Some(Attr {
            atime: Time::new(14, 14),
            mtime: Time::new(17, 17),
            ctime: Time::new(16, 16),
            rdev: Rdev::new(1, 3),
            flags: AttrFlags::empty(),
            ..attr()
        }),
        btime: Some(Time::new(15, 15)),
        attributes: 0x0f,
        attributes_mask: 0x0f,
    };
    decodes::<Statx>(D, &bytes(0xfff, 0o100_644, 12), reply);
    let basic = StatxReply {
        mask: StatxMask::BASIC_STATS,
        btime: None,
        ..reply
    };
    decodes::<Statx>(D, &bytes(0x7ff, 0o100_644, 12), basic);
    // Not all attributes: none, and nothing to check.
    let partial = StatxReply {
        mask: StatxMask::BTIME,
        attr: None,
        ..reply
    };
    decodes::<Statx>(D, &bytes(0x800, 0, u64::MAX), partial);
    for (mode, size, why) in [
        (0, 12, Malformed::Mode(0)),
        (0o100_644, 1 << 63, Malformed::Offset(1 << 63)),
    ] {
        assert_eq!(
            decode::<Statx>(&D, &bytes(0x7ff, mode, size).0, 0),
            Err(why)
        );
    }
}

#[test]
fn init_has_three_lengths_and_the_high_flags() {
    let bytes = Bytes::new()
        .u32(7)
        .u32(38)
        .u32(0x20000)
        .u32(0x4844_f829)
        .u16(12)
        .u16(9)
        .u32(1 << 20)
        .u32(1)
        .u16(256)
        .u16(21)
        .u32(0x104)
        .u32(2)
        .u16(60)
        .zeros(22);
    assert_eq!(bytes.0.len(), 64);
    let full = InitReply {
        major: 7,
        minor: 38,
        max_readahead: 0x20000,
        flags: InitFlags::from_bits_retain(0x104_4844_f829),
        max_background: 12,
        congestion_threshold: 9,
        max_write: 1 << 20,
        time_gran: 1,
        max_pages: 256,
        map_alignment: 21,
        max_stack_depth: 2,
        request_timeout: 60,
    };
    for len in 0..=65 {
        let cut = Bytes(bytes.clone().zeros(1).0[..len].to_vec());
        let result = decode::<Init>(&D, &cut.0, 0);
        match len {
            8 => assert_eq!(result.unwrap().max_write, 0),
            24 => assert_eq!(
                (result.unwrap().max_write, result.unwrap().time_gran),
                (1 << 20, 0)
            ),
            64 => assert_eq!(result, Ok(full)),
            _ => assert_eq!(result, Err(Malformed::PayloadLen(len))),
        }
    }
}

#[test]
fn flags_hold_that_were_sent_and_returned() {
    let reply = |flags| InitReply {
        flags,
        ..decode::<Init>(&D, &Bytes::new().u32(7).u32(33).0, 0).unwrap()
    };
    let sent = InitFlags::BIG_WRITES
        | InitFlags::INIT_EXT
        | InitFlags::HAS_INODE_DAX
        | InitFlags::CREATE_SUPP_GROUP;
    let returned = sent | InitFlags::POSIX_ACL;
    assert_eq!(reply(returned).active(sent), sent);
    // High flags without INIT_EXT: one server means HAS_INODE_DAX by that.
    let active = reply(returned - InitFlags::INIT_EXT).active(sent);
    assert_eq!(active, InitFlags::BIG_WRITES | InitFlags::HAS_INODE_DAX);
    let dialect = Dialect::negotiated(sent, &reply(returned));
    assert_eq!(
        dialect,
        Dialect {
            minor: 33,
            flags: sent
        }
    );
    let newer = InitReply {
        minor: 1000,
        ..reply(returned)
    };
    assert_eq!(Dialect::negotiated(sent, &newer).minor, MINOR);
}

#[test]
fn data_are_counted_and_ioctl_has_a_struct_before_them() {
    assert_eq!(decode::<Read>(&D, &[], 4096), Ok(4096));
    assert_eq!(decode::<Readdir>(&D, &[], 0), Ok(0));
    assert_eq!(decode::<Readdirplus>(&D, &[], 5), Ok(5));
    assert_eq!(decode::<Getxattr<'_>>(&D, &[], 5), Ok(5));
    assert_eq!(decode::<Listxattr>(&D, &[], 5), Ok(5));
    let bytes = Bytes::new().u32(-25i32 as u32).u32(4).u32(1).u32(2);
    let reply = IoctlReply {
        result: -25,
        flags: IoctlFlags::RETRY,
        areas: [1, 2],
        data: 0,
    };
    decodes::<Ioctl>(D, &bytes, reply);
    assert_eq!(decode::<Ioctl>(&D, &bytes.0, 9).unwrap().data, 9);
}

#[test]
fn a_link_target_is_not_empty_not_cut_and_ends_before_a_nul() {
    assert_eq!(decode::<Readlink>(&D, &[], 4095), Ok(4095));
    for len in [0, 4096] {
        assert_eq!(
            decode::<Readlink>(&D, &[], len),
            Err(Malformed::PayloadLen(len))
        );
    }
    assert_eq!(link_target(b"a/b").unwrap().as_bytes(), b"a/b");
    assert_eq!(link_target(b"a\0b").unwrap().as_bytes(), b"a");
    assert_eq!(link_target(b"\0b"), Err(Malformed::PayloadLen(0)));
    assert_eq!(link_target(b""), Err(Malformed::PayloadLen(0)));
}

#[test]
fn replies_without_payload_have_none() {
    fn check<R: Request<Reply = ()>>() {
        assert_eq!(decode::<R>(&D, &[], 0), Ok(()), "{}", R::OPCODE);
        assert_eq!(
            decode::<R>(&D, &[0], 0),
            Err(Malformed::PayloadLen(1)),
            "{}",
            R::OPCODE
        );
        assert_eq!(
            decode::<R>(&D, &[], 1),
            Err(Malformed::PayloadLen(1)),
            "{}",
            R::OPCODE
        );
        assert!(
            matches!(R::REPLY, ReplyShape::Empty | ReplyShape::None),
            "{}",
            R::OPCODE
        );
    }
    check::<Destroy>();
    check::<Forget>();
    check::<BatchForget<'_>>();
    check::<Interrupt>();
    check::<NotifyReply>();
    check::<Unlink<'_>>();
    check::<Rmdir<'_>>();
    check::<Rename<'_>>();
    check::<Rename2<'_>>();
    check::<Release>();
    check::<Releasedir>();
    check::<Flush>();
    check::<Fsync>();
    check::<Fsyncdir>();
    check::<Setxattr<'_>>();
    check::<Removexattr<'_>>();
    check::<Setlk>();
    check::<Setlkw>();
    check::<Access>();
    check::<Fallocate>();
    check::<Setupmapping>();
    check::<Removemapping<'_>>();
    check::<Syncfs>();
    assert_eq!(Malformed::Nothing.errno(), Errno::EIO);
}
