//! What requests look like, byte by byte.

extern crate std;

use super::*;

fn target(text: &str) -> &Target {
    Target::new(text.as_bytes()).unwrap()
}

#[test]
fn init_is_64_bytes_with_the_high_flags_behind_the_low_ones() {
    let flags = InitFlags::ASYNC_READ | InitFlags::INIT_EXT | InitFlags::HAS_INODE_DAX;
    let init = Init {
        major: 7,
        minor: 45,
        max_readahead: 0x20000,
        flags,
    };
    let body = Bytes::new()
        .u32(7)
        .u32(45)
        .u32(0x20000)
        .u32(1 | 1 << 30)
        .u32(2)
        .zeros(44);
    plain(&init, body);
    plain(&Destroy, Bytes::new());
}

#[test]
fn requests_of_the_high_priority_queue() {
    plain(
        &Forget {
            node: node(5),
            lookups: 3,
        },
        Bytes::new().u64(3),
    );
    let nodes = [ForgetOne::new(node(5), 3), ForgetOne::new(node(6), 1)];
    let (batch, rest) = BatchForget::split(&nodes);
    assert!(rest.is_empty());
    plain(
        &batch,
        Bytes::new().u32(2).u32(0).u64(5).u64(3).u64(6).u64(1),
    );
    let interrupt = Interrupt {
        target: Unique::new(8).unwrap(),
        node: Some(node(5)),
    };
    plain(&interrupt, Bytes::new().u64(8));
}

#[test]
fn batches_are_split_where_servers_would_exit() {
    let nodes = std::vec![ForgetOne::new(node(5), 1); BatchForget::MAX + 2];
    let (batch, rest) = BatchForget::split(&nodes);
    assert_eq!(encoded_len(&batch, Dialect::INITIAL), 40 + 8 + 16 * 65536);
    assert_eq!(rest.len(), 2);
    let mappings = [Mapping {
        window_offset: 0,
        len: 4096,
    }; 257];
    let (batch, rest) = Removemapping::split(node(2), &mappings);
    assert_eq!(encoded_len(&batch, Dialect::INITIAL), 40 + 4 + 16 * 256);
    assert_eq!(rest.len(), 1);
}

#[test]
fn names_end_with_one_nul() {
    let (parent, name) = (node(9), name("hello.txt"));
    let body = || Bytes::new().str("hello.txt\0");
    plain(&Lookup { parent, name }, body());
    plain(&Unlink { parent, name }, body());
    plain(&Rmdir { parent, name }, body());
    plain(&Readlink { node: parent }, Bytes::new());
}

#[test]
fn renames_and_links_carry_the_other_node_in_their_arguments() {
    let (parent, new_parent, old, new) = (node(9), node(8), name("a"), name("bc"));
    let rename = Rename {
        parent,
        name: old,
        new_parent,
        new_name: new,
    };
    assert_eq!(rename.node(), Some(parent));
    plain(&rename, Bytes::new().u64(8).str("a\0bc\0"));
    let flags = RenameFlags::EXCHANGE;
    let rename = Rename2 {
        parent,
        name: old,
        new_parent,
        new_name: new,
        flags,
    };
    plain(&rename, Bytes::new().u64(8).u32(2).u32(0).str("a\0bc\0"));
    let link = Link {
        node: node(7),
        new_parent,
        new_name: new,
    };
    assert_eq!(link.node(), Some(new_parent));
    plain(&link, Bytes::new().u64(7).str("bc\0"));
}

#[test]
fn attributes_are_asked_for_by_node_or_by_handle() {
    let (id, fh) = (node(3), FileHandle(0));
    plain(&Getattr { node: id, fh: None }, Bytes::new().zeros(16));
    plain(
        &Getattr {
            node: id,
            fh: Some(fh),
        },
        Bytes::new().u32(1).u32(0).u64(0),
    );
    let statx = Statx {
        node: id,
        fh: Some(FileHandle(4)),
        flags: StatxFlags::DONT_SYNC,
        mask: StatxMask::BASIC_STATS | StatxMask::BTIME,
    };
    plain(
        &statx,
        Bytes::new().u32(1).u32(0).u64(4).u32(0x4000).u32(0xfff),
    );
}

#[test]
fn setattr_says_which_fields_count() {
    plain(&Setattr::new(node(3)), Bytes::new().zeros(88));
    let setattr = Setattr {
        fh: Some(FileHandle(0x11)),
        lock_owner: Some(LockOwner(0x22)),
        mode: Some(0o100_600),
        uid: Some(1),
        gid: Some(2),
        size: Some(0x33),
        atime: SetTime::Now,
        mtime: SetTime::To(Time::new(-1, 7)),
        ctime: Some(Time::new(5, 6)),
        set_ids: SetIds::Clear,
        ..Setattr::new(node(3))
    };
    // All bits but ATIME with a value and MTIME_NOW.
    let valid = 0xfff & !(1 << 8);
    let body = Bytes::new()
        .u32(valid)
        .u32(0)
        .u64(0x11)
        .u64(0x33)
        .u64(0x22)
        .u64(0)
        .u64(u64::MAX)
        .u64(5)
        .u32(0)
        .u32(7)
        .u32(6)
        .u32(0o100_600)
        .u32(0)
        .u32(1)
        .u32(2)
        .u32(0);
    plain(&setattr, body);
}

#[test]
fn file_systems_and_permission() {
    plain(&Statfs { node: node(3) }, Bytes::new());
    plain(&Syncfs { node: node(3) }, Bytes::new().u64(0));
    let mask = AccessMask::READ | AccessMask::EXEC;
    plain(
        &Access {
            node: node(3),
            mask,
        },
        Bytes::new().u32(5).u32(0),
    );
    let unique = Unique::nth(8);
    let reply = NotifyReply {
        unique,
        node: node(3),
        offset: 4,
        size: 5,
    };
    assert_eq!(reply.data_out(), 5);
    assert_eq!(reply.unique(), Some(unique));
    plain(&reply, Bytes::new().u64(0).u64(4).u32(5).zeros(20));
}

#[test]
fn requests_print_as_one_readable_line() {
    use std::string::ToString;
    let lookup = Lookup {
        parent: NodeId::ROOT,
        name: name("hello.txt"),
    };
    assert_eq!(lookup.to_string(), "LOOKUP node=1 \"hello.txt\"");
    let symlink = Symlink {
        parent: NodeId::ROOT,
        name: name("l"),
        target: target("../a\n"),
        extensions: Extensions::NONE,
    };
    assert_eq!(symlink.to_string(), r#"SYMLINK node=1 "l" -> "../a\n""#);
    let setattr = Setattr {
        size: Some(5),
        ..Setattr::new(node(2))
    };
    assert_eq!(setattr.to_string(), "SETATTR node=2 size=5 valid=0x8");
    let init = Init {
        major: 7,
        minor: 45,
        max_readahead: 0,
        flags: InitFlags::ASYNC_READ,
    };
    assert_eq!(init.to_string(), "INIT 7.45 readahead=0 flags=ASYNC_READ");
}
