//! Requests that create, with their extension blocks.

extern crate std;

use super::*;

const SUPP: InitFlags = InitFlags::CREATE_SUPP_GROUP;
const LABEL: InitFlags = InitFlags::SECURITY_CTX;

fn mkdir<'a>(extensions: Extensions<'a>) -> Mkdir<'a> {
    Mkdir {
        parent: node(3),
        name: name("dir"),
        mode: 0o755,
        umask: 0o022,
        extensions,
    }
}

fn mkdir_body() -> Bytes {
    Bytes::new().u32(0o755).u32(0o022).str("dir\0")
}

fn context<'a>(value: &'a [u8]) -> SecurityContext<'a> {
    SecurityContext {
        name: XattrName::new(b"security.selinux").unwrap(),
        value,
    }
}

#[test]
fn arguments_names_and_old_short_forms() {
    let (parent, name, extensions) = (node(3), name("new"), Extensions::NONE);
    let create = Create {
        parent,
        name,
        flags: OpenFlags::RDWR | OpenFlags::CREAT,
        mode: 0o100_644,
        umask: 0o022,
        set_ids: SetIds::Clear,
        extensions,
    };
    let short = Bytes::new().u32(0o102).u32(0o100_644);
    let full = short.clone().u32(0o022).u32(1);
    encodes(&create, minor(12), 0, &full.str("new\0"));
    encodes(&create, minor(11), 0, &short.str("new\0"));

    let mode = Mode::new(FileType::CharDevice, 0o600);
    let mknod = Mknod {
        parent,
        name,
        mode,
        rdev: Rdev::new(1, 3),
        umask: 0o077,
        extensions,
    };
    let short = Bytes::new().u32(0o020_600).u32(0x103);
    let full = short.clone().u32(0o077).u32(0);
    encodes(&mknod, minor(12), 0, &full.str("new\0"));
    encodes(&mknod, minor(11), 0, &short.str("new\0"));

    let tmpfile = Tmpfile {
        parent,
        name,
        flags: OpenFlags::RDWR,
        mode: 0o100_600,
        umask: 0,
        extensions,
    };
    let body = Bytes::new()
        .u32(2)
        .u32(0o100_600)
        .u32(0)
        .u32(0)
        .str("new\0");
    encodes(&tmpfile, Dialect::INITIAL, 0, &body);

    let target = Target::new(b"a/b").unwrap();
    let symlink = Symlink {
        parent,
        name,
        target,
        extensions,
    };
    encodes(
        &symlink,
        Dialect::INITIAL,
        0,
        &Bytes::new().str("new\0a/b\0"),
    );
}

#[test]
fn nothing_follows_the_name_that_was_not_negotiated() {
    let extensions = Extensions {
        context: Some(context(b"label")),
        group: Some(7),
    };
    encodes(&mkdir(extensions), Dialect::INITIAL, 0, &mkdir_body());
    encodes(&mkdir(Extensions::NONE), with(SUPP), 0, &mkdir_body());
}

#[test]
fn one_supplementary_group_is_16_bytes() {
    let extensions = Extensions {
        context: None,
        group: Some(7),
    };
    let body = mkdir_body().u32(16).u32(32).u32(1).u32(7);
    encodes(&mkdir(extensions), with(SUPP), 16, &body);
}

#[test]
fn negotiated_security_contexts_are_sent_even_if_there_is_none() {
    let body = mkdir_body().u32(8).u32(0);
    encodes(&mkdir(Extensions::NONE), with(LABEL), 8, &body);
}

#[test]
fn a_security_context_is_padded_at_its_end() {
    // 8 + 8 + 17 bytes of name + value.
    for (value, padding) in [("", 7), ("1234567", 0), ("12345678", 7), ("123456", 1)] {
        let extensions = Extensions {
            context: Some(context(value.as_bytes())),
            group: None,
        };
        let size = 33 + value.len() + padding;
        let body = mkdir_body()
            .u32(size as u32)
            .u32(1)
            .u32(value.len() as u32)
            .u32(0)
            .str("security.selinux\0")
            .str(value)
            .zeros(padding);
        encodes(&mkdir(extensions), with(LABEL), size, &body);
    }
}

#[test]
fn both_blocks_follow_one_another() {
    let extensions = Extensions {
        context: Some(context(b"1234567")),
        group: Some(7),
    };
    let body = mkdir_body()
        .u32(40)
        .u32(1)
        .u32(7)
        .u32(0)
        .str("security.selinux\x001234567")
        .u32(16)
        .u32(32)
        .u32(1)
        .u32(7);
    encodes(&mkdir(extensions), with(SUPP | LABEL), 56, &body);
}

#[test]
fn extensions_too_long_for_their_field_are_refused() {
    let value = std::vec![b'x'; 8 * 65536];
    let extensions = Extensions {
        context: Some(context(&value)),
        group: None,
    };
    let request = mkdir(extensions);
    let mut buf = std::vec![0; value.len() + 200];
    let needed = encoded_len(&request, with(LABEL));
    assert!(needed <= buf.len());
    let result = encode(&request, Unique::nth(0), CREDENTIALS, with(LABEL), &mut buf);
    assert_eq!(result, Err(TooLong { needed }));
}
