//! Requests about the contents of files, byte by byte.

use core::num::NonZeroU32;

use super::*;

fn xattr(text: &str) -> &XattrName {
    XattrName::new(text.as_bytes()).unwrap()
}

#[test]
fn opening_and_closing() {
    let (id, fh, flags) = (node(3), FileHandle(4), OpenFlags::RDWR);
    plain(
        &Open {
            node: id,
            flags,
            set_ids: SetIds::Keep,
        },
        Bytes::new().u32(2).u32(0),
    );
    plain(
        &Open {
            node: id,
            flags,
            set_ids: SetIds::Clear,
        },
        Bytes::new().u32(2).u32(1),
    );
    plain(&Opendir { node: id, flags }, Bytes::new().u32(2).u32(0));
    let release = ReleaseFlags::FLOCK_UNLOCK;
    let close = Release {
        node: id,
        fh,
        flags,
        release,
        lock_owner: LockOwner(9),
    };
    plain(&close, Bytes::new().u64(4).u32(2).u32(2).u64(9));
    plain(
        &Releasedir {
            node: id,
            fh,
            flags,
        },
        Bytes::new().u64(4).u32(2).u32(0).u64(0),
    );
    plain(
        &Flush {
            node: id,
            fh,
            lock_owner: LockOwner(9),
        },
        Bytes::new().u64(4).u64(0).u64(9),
    );
    let flags = FsyncFlags::FDATASYNC;
    plain(
        &Fsync {
            node: id,
            fh,
            flags,
        },
        Bytes::new().u64(4).u32(1).u32(0),
    );
    plain(
        &Fsyncdir {
            node: id,
            fh,
            flags,
        },
        Bytes::new().u64(4).u32(1).u32(0),
    );
}

#[test]
fn reads_say_how_much_room_they_need() {
    let (id, fh, flags) = (node(3), FileHandle(4), OpenFlags::RDWR);
    let read = Read {
        node: id,
        fh,
        offset: 5,
        size: 4096,
        lock_owner: None,
        flags,
    };
    plain(
        &read,
        Bytes::new()
            .u64(4)
            .u64(5)
            .u32(4096)
            .u32(0)
            .u64(0)
            .u32(2)
            .u32(0),
    );
    assert_eq!((read.data_in(), read.data_out()), (4096, 0));
    let read = Read {
        lock_owner: Some(LockOwner(9)),
        ..read
    };
    plain(
        &read,
        Bytes::new()
            .u64(4)
            .u64(5)
            .u32(4096)
            .u32(2)
            .u64(9)
            .u32(2)
            .u32(0),
    );

    let (cookie, size) = (DirCookie(0x7fff_ffff_ffff_ffff), 8192);
    let body = || {
        Bytes::new()
            .u64(4)
            .u64(cookie.0)
            .u32(8192)
            .u32(0)
            .u64(0)
            .u32(2)
            .u32(0)
    };
    let readdir = Readdir {
        node: id,
        fh,
        cookie,
        size,
        flags,
    };
    plain(&readdir, body());
    assert_eq!(readdir.data_in(), 8192);
    let readdir = Readdirplus {
        node: id,
        fh,
        cookie,
        size,
        flags,
    };
    plain(&readdir, body());
    assert_eq!(readdir.data_in(), 8192);
    assert_eq!(Readlink { node: id }.data_in(), 4096);
}

#[test]
fn writes_announce_their_data_in_the_header() {
    let write = Write {
        node: node(3),
        fh: FileHandle(4),
        offset: 5,
        size: 6,
        lock_owner: Some(LockOwner(9)),
        origin: WriteOrigin::Cache,
        set_ids: SetIds::Clear,
        flags: OpenFlags::WRONLY | OpenFlags::APPEND,
    };
    assert_eq!(write.data_out(), 6);
    let short = Bytes::new().u64(4).u64(5).u32(6).u32(7);
    let body = short.clone().u64(9).u32(0o2001).u32(0);
    encodes(&write, minor(9), 0, &body);
    encodes(&write, minor(8), 0, &short);
    let write = Write {
        lock_owner: None,
        origin: WriteOrigin::Caller,
        set_ids: SetIds::Keep,
        ..write
    };
    plain(
        &write,
        Bytes::new()
            .u64(4)
            .u64(5)
            .u32(6)
            .u32(0)
            .u64(0)
            .u32(0o2001)
            .u32(0),
    );
}

#[test]
fn ranges_of_files() {
    let (id, fh) = (node(3), FileHandle(4));
    let lseek = Lseek {
        node: id,
        fh,
        offset: 5,
        whence: SeekWhence::Hole,
    };
    plain(&lseek, Bytes::new().u64(4).u64(5).u32(4).u32(0));
    let mode = FallocateMode::KEEP_SIZE | FallocateMode::PUNCH_HOLE;
    let fallocate = Fallocate {
        node: id,
        fh,
        offset: 5,
        len: 6,
        mode,
    };
    plain(&fallocate, Bytes::new().u64(4).u64(5).u64(6).u32(3).u32(0));
    let range = CopyRange {
        node_in: id,
        fh_in: fh,
        offset_in: 5,
        node_out: node(6),
        fh_out: FileHandle(7),
        offset_out: 8,
        len: 9,
        flags: 0,
    };
    let body = || {
        Bytes::new()
            .u64(4)
            .u64(5)
            .u64(6)
            .u64(7)
            .u64(8)
            .u64(9)
            .u64(0)
    };
    plain(&CopyFileRange(range), body());
    plain(&CopyFileRange64(range), body());
}

#[test]
fn xattr_arguments_grow_with_setxattr_ext() {
    let (id, label) = (node(3), xattr("user.x"));
    let set = Setxattr {
        node: id,
        name: label,
        size: 10,
        flags: XattrFlags::REPLACE,
        ext_flags: SetxattrFlags::ACL_KILL_SGID,
    };
    assert_eq!(set.data_out(), 10);
    encodes(
        &set,
        Dialect::INITIAL,
        0,
        &Bytes::new().u32(10).u32(2).str("user.x\0"),
    );
    let body = Bytes::new().u32(10).u32(2).u32(1).u32(0).str("user.x\0");
    encodes(&set, with(InitFlags::SETXATTR_EXT), 0, &body);

    let size = NonZeroU32::new(256).unwrap();
    let get = Getxattr {
        node: id,
        name: label,
        size,
    };
    plain(&get, Bytes::new().u32(256).u32(0).str("user.x\0"));
    assert_eq!(get.data_in(), 256);
    plain(
        &GetxattrSize {
            node: id,
            name: label,
        },
        Bytes::new().u64(0).str("user.x\0"),
    );
    let list = Listxattr { node: id, size };
    plain(&list, Bytes::new().u32(256).u32(0));
    assert_eq!(list.data_in(), 256);
    plain(&ListxattrSize { node: id }, Bytes::new().u64(0));
    plain(
        &Removexattr {
            node: id,
            name: label,
        },
        Bytes::new().str("user.x\0"),
    );
}

#[test]
fn locks() {
    let args = LockArgs {
        node: node(3),
        fh: FileHandle(4),
        owner: LockOwner(5),
        lock: Lock {
            start: 6,
            end: 7,
            kind: LockKind::Write,
            pid: 8,
        },
        family: LockFamily::Posix,
    };
    let body = |flags| {
        Bytes::new()
            .u64(4)
            .u64(5)
            .u64(6)
            .u64(7)
            .u32(1)
            .u32(8)
            .u32(flags)
            .u32(0)
    };
    plain(&Getlk(args), body(0));
    plain(&Setlk(args), body(0));
    plain(
        &Setlkw(LockArgs {
            family: LockFamily::Flock,
            ..args
        }),
        body(1),
    );
}

#[test]
fn devices() {
    let (id, fh) = (node(3), FileHandle(4));
    let ioctl = Ioctl {
        node: id,
        fh,
        flags: IoctlFlags::DIR,
        cmd: 0x5401,
        arg: 6,
        in_size: 7,
        out_size: 8,
    };
    assert_eq!((ioctl.data_out(), ioctl.data_in()), (7, 8));
    plain(
        &ioctl,
        Bytes::new().u64(4).u32(16).u32(0x5401).u64(6).u32(7).u32(8),
    );
    let poll = Poll {
        node: id,
        fh,
        kh: PollHandle(5),
        flags: PollFlags::SCHEDULE_NOTIFY,
        events: PollEvents::IN | PollEvents::HUP,
    };
    plain(&poll, Bytes::new().u64(4).u64(5).u32(1).u32(0x11));
    plain(
        &Bmap {
            node: id,
            block: 5,
            block_size: 512,
        },
        Bytes::new().u64(5).u32(512).u32(0),
    );
}

#[test]
fn mappings() {
    let setup = Setupmapping {
        node: node(3),
        fh: FileHandle::NONE,
        file_offset: 0x20_0000,
        len: 0x1000,
        flags: MappingFlags::READ | MappingFlags::WRITE,
        window_offset: 0x40_0000,
    };
    plain(
        &setup,
        Bytes::new()
            .u64(u64::MAX)
            .u64(0x20_0000)
            .u64(0x1000)
            .u64(3)
            .u64(0x40_0000),
    );
    let mappings = [
        Mapping {
            window_offset: 0x20_0000,
            len: 0x1000,
        },
        Mapping {
            window_offset: 0x40_0000,
            len: 0x2000,
        },
    ];
    let (remove, _) = Removemapping::split(node(3), &mappings);
    let body = Bytes::new()
        .u32(2)
        .u64(0x20_0000)
        .u64(0x1000)
        .u64(0x40_0000)
        .u64(0x2000);
    plain(&remove, body);
}

#[test]
fn a_length_that_its_header_field_cannot_hold_is_refused() {
    let write = Write {
        node: node(3),
        fh: FileHandle(4),
        offset: 0,
        size: u32::MAX,
        lock_owner: None,
        origin: WriteOrigin::Caller,
        set_ids: SetIds::Keep,
        flags: OpenFlags::WRONLY,
    };
    let unique = Unique::nth(0);
    let mut buf = [0; 128];
    let result = encode(
        &write,
        unique,
        Credentials::DRIVER,
        Dialect::INITIAL,
        &mut buf,
    );
    assert_eq!(result, Err(TooLong { needed: 80 }));
    let write = Write {
        size: u32::MAX - 80,
        ..write
    };
    let result = encode(
        &write,
        unique,
        Credentials::DRIVER,
        Dialect::INITIAL,
        &mut buf,
    );
    assert_eq!(
        result,
        Ok(Encoded {
            args: 80,
            data: (u32::MAX - 80) as usize
        })
    );
    assert_eq!(buf[..4], [0xff; 4]);
}
