//! Which requests are repeatable, read off their encoded form.

use super::*;
use crate::wire::{
    Credentials, Dialect, FileHandle, Getattr, Name, Request, SetIds, Setattr, Unique, Unlink,
    Write, WriteOrigin, encode,
};

fn node(id: u64) -> NodeId {
    NodeId::new(id).unwrap()
}

fn verdict<R: Request>(request: &R) -> Redo {
    let mut page = [0; 512];
    let (unique, who) = (Unique::nth(0), Credentials::DRIVER);
    let len = encode(request, unique, who, Dialect::INITIAL, &mut page).unwrap();
    redo(R::OPCODE, request.node().unwrap(), &page[..len.args])
}

fn write(offset: u64, flags: OpenFlags, origin: WriteOrigin) -> Write {
    Write {
        node: node(5),
        fh: FileHandle(1),
        offset,
        size: 100,
        lock_owner: None,
        origin,
        set_ids: SetIds::Keep,
        flags,
    }
}

fn bytes(start: u64, end: u64) -> Span {
    Span {
        node: 5,
        start,
        end,
    }
}

#[test]
fn a_question_may_be_asked_twice_and_a_name_not_removed_twice() {
    let question = Getattr {
        node: node(5),
        fh: None,
    };
    assert_eq!(verdict(&question), Redo::Yes);
    let unlink = Unlink {
        parent: node(5),
        name: Name::new(b"x").unwrap(),
    };
    assert_eq!(verdict(&unlink), Redo::No);
}

#[test]
fn a_write_may_be_repeated_at_an_offset_but_not_at_the_end() {
    let plain = write(50, OpenFlags::WRONLY, WriteOrigin::Caller);
    assert_eq!(verdict(&plain), Redo::Unless(bytes(50, 150)));
    let append = OpenFlags::WRONLY | OpenFlags::APPEND;
    assert_eq!(verdict(&write(50, append, WriteOrigin::Caller)), Redo::No);
    // A cache says itself where its pages belong.
    let cached = write(0, append, WriteOrigin::Cache);
    assert_eq!(verdict(&cached), Redo::Unless(bytes(0, 100)));
}

#[test]
fn permissions_may_be_set_twice_and_a_size_unless_data_changed() {
    let mut request = Setattr::new(node(5));
    request.mode = Some(0o644);
    assert_eq!(verdict(&request), Redo::Yes);
    request.size = Some(10);
    assert_eq!(verdict(&request), Redo::Unless(bytes(0, u64::MAX)));
}

#[test]
fn a_later_change_of_the_same_bytes_is_seen_and_others_are_not() {
    let changes = Changes::new();
    let first = changes.note(bytes(0, 100));
    assert!(!changes.touched(first, &bytes(0, 100)), "its own note");
    changes.note(bytes(100, 200));
    let other = Span {
        node: 6,
        ..bytes(0, 100)
    };
    changes.note(other);
    assert!(!changes.touched(first, &bytes(0, 100)));
    changes.note(bytes(99, 101));
    assert!(changes.touched(first, &bytes(0, 100)));
}

#[test]
fn of_two_writes_at_once_only_the_later_is_repeated() {
    let changes = Changes::new();
    let first = changes.note(bytes(0, 100));
    let second = changes.note(bytes(50, 150));
    assert!(changes.touched(first, &bytes(0, 100)));
    assert!(!changes.touched(second, &bytes(50, 150)));
}

#[test]
fn what_is_no_longer_remembered_counts_as_touched() {
    let changes = Changes::new();
    let mark = changes.note(bytes(0, 1));
    for _ in 0..KEPT {
        changes.note(bytes(1000, 1001));
    }
    assert!(!changes.touched(mark, &bytes(0, 1)));
    changes.note(bytes(1000, 1001));
    assert!(changes.touched(mark, &bytes(0, 1)));
}
