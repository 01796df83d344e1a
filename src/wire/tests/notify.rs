//! Notifications.

extern crate std;

use super::*;

fn message(code: u32, body: &Bytes) -> std::vec::Vec<u8> {
    Bytes::new()
        .u32(16 + body.0.len() as u32)
        .u32(code)
        .u64(0)
        .join(body)
        .0
}

/// Checks that `body` means `expected`, and that it is refused when it is cut
/// anywhere or goes on, with a header that says so and with one that does not.
#[track_caller]
fn parses(code: u32, body: &Bytes, expected: Notification<'_>) {
    let bytes = message(code, body);
    assert_eq!(Notification::parse(&bytes), Ok(expected));
    for len in 0..bytes.len() {
        assert!(
            Notification::parse(&bytes[..len]).is_err(),
            "code {code}, {len} bytes"
        );
    }
    for len in 0..body.0.len() {
        let bytes = message(code, &Bytes(body.0[..len].to_vec()));
        assert!(
            Notification::parse(&bytes).is_err(),
            "code {code}, body of {len} bytes"
        );
    }
    let longer = message(code, &body.clone().zeros(1));
    assert!(
        Notification::parse(&longer).is_err(),
        "code {code}, one byte more"
    );
}

#[test]
fn every_code_is_parsed() {
    parses(1, &Bytes::new().u64(5), Notification::Poll(PollHandle(5)));
    let (parent, child) = (node(3), node(4));
    let entry = Bytes::new().u64(3).u32(2).u32(1).str("ab\0");
    let kind = InvalKind::Expire;
    parses(
        3,
        &entry,
        Notification::InvalEntry {
            parent,
            name: name("ab"),
            kind,
        },
    );
    let store = Bytes::new().u64(3).u64(4096).u32(3).u32(0).str("abc");
    parses(
        4,
        &store,
        Notification::Store {
            node: parent,
            offset: 4096,
            data: b"abc",
        },
    );
    let retrieve = Bytes::new().u64(8).u64(3).u64(4096).u32(7).u32(0);
    let unique = Unique::new(8).unwrap();
    parses(
        5,
        &retrieve,
        Notification::Retrieve {
            unique,
            node: parent,
            offset: 4096,
            size: 7,
        },
    );
    let delete = Bytes::new().u64(3).u64(4).u32(2).u32(0).str("ab\0");
    parses(
        6,
        &delete,
        Notification::Delete {
            parent,
            child,
            name: name("ab"),
        },
    );
    parses(7, &Bytes::new(), Notification::Resend);
    parses(8, &Bytes::new(), Notification::IncEpoch);
}

#[test]
fn a_stale_range_may_be_none_some_or_all_to_the_end() {
    for (off, len, range) in [
        (-1i64, 0i64, None),
        (i64::MIN, 5, None),
        (
            0,
            0,
            Some(InvalRange {
                offset: 0,
                len: None,
            }),
        ),
        (
            4096,
            -1,
            Some(InvalRange {
                offset: 4096,
                len: None,
            }),
        ),
        (
            4096,
            5,
            Some(InvalRange {
                offset: 4096,
                len: Some(5),
            }),
        ),
    ] {
        let body = Bytes::new().u64(3).u64(off as u64).u64(len as u64);
        parses(
            2,
            &body,
            Notification::InvalInode {
                node: node(3),
                range,
            },
        );
    }
}

#[test]
fn nodes_to_prune_are_listed() {
    let body = Bytes::new().u32(3).u32(0).u64(0).u64(5).u64(0).u64(6);
    let bytes = message(9, &body);
    let Ok(Notification::Prune(mut nodes)) = Notification::parse(&bytes) else {
        panic!("no list of nodes");
    };
    assert_eq!(
        (nodes.next(), nodes.next(), nodes.next()),
        (Some(node(5)), Some(node(6)), None)
    );
    let wrong = message(9, &Bytes::new().u32(u32::MAX).u32(0).u64(0).u64(5));
    assert_eq!(Notification::parse(&wrong), Err(Malformed::Truncated));
}

#[test]
fn impossible_notifications_are_refused() {
    let refused = |code, body: &Bytes| Notification::parse(&message(code, body)).unwrap_err();
    assert_eq!(refused(0, &Bytes::new()), Malformed::NotifyCode(0));
    assert_eq!(refused(10, &Bytes::new()), Malformed::NotifyCode(10));
    assert_eq!(refused(u32::MAX, &Bytes::new()), Malformed::NotifyCode(-1));
    let inode = Bytes::new().u64(0).u64(0).u64(0);
    assert_eq!(refused(2, &inode), Malformed::Node(0));
    let slash = Bytes::new().u64(3).u32(3).u32(0).str("a/b\0");
    assert_eq!(refused(3, &slash), Malformed::NameByte);
    let empty = Bytes::new().u64(3).u32(0).u32(0).str("\0");
    assert_eq!(refused(3, &empty), Malformed::NameLen(0));
    let no_nul = Bytes::new().u64(3).u32(2).u32(0).str("abc");
    assert_eq!(refused(3, &no_nul), Malformed::Truncated);
    let far = Bytes::new()
        .u64(3)
        .u64(i64::MAX as u64)
        .u32(1)
        .u32(0)
        .str("a");
    assert_eq!(refused(4, &far), Malformed::Offset(i64::MAX as u64));
    let unique = Bytes::new().u32(16).u32(7).u64(2).0;
    assert_eq!(Notification::parse(&unique), Err(Malformed::Unique(2)));
}
