//! Changing attributes, and making them durable: what is sent, and what is not.

use virtio_fs::fs::{At, Changes, Durable, SetTime, Symlinks};
use virtio_fs::wire::{OpenFlags, Time};
use virtio_fs_fake::{Fake, MemFs, Op, fattr};
use virtio_fs_tests::Guest;

fn guest() -> Guest {
    let mut fs = MemFs::new();
    fs.file("/file", "0123456789").unwrap();
    Guest::new(Fake::new().fs(fs))
}

fn change(guest: &Guest, changes: Changes) {
    let set = guest
        .process
        .set(At::Cwd, b"file", Symlinks::Follow, &changes);
    set.unwrap();
}

#[test]
fn a_change_of_nothing_sends_nothing() {
    let guest = guest();
    guest
        .process
        .lookup(At::Cwd, b"file", Symlinks::Follow)
        .unwrap();
    change(&guest, Changes::default());
    // chown(2) with both ids -1 is one of them.
    assert_eq!(guest.fake.count(Op::SETATTR), 0);
    guest.finish();
}

#[test]
fn a_change_carries_what_changes_and_nothing_else() {
    let time = SetTime::To(Time::new(1_000_000, 5));
    let none = Changes::default;
    for (changes, valid) in [
        (
            Changes {
                permissions: Some(0o600),
                ..none()
            },
            fattr::MODE,
        ),
        (
            Changes {
                uid: Some(7),
                ..none()
            },
            fattr::UID,
        ),
        (
            Changes {
                gid: Some(7),
                ..none()
            },
            fattr::GID,
        ),
        (
            Changes {
                uid: Some(7),
                gid: Some(8),
                ..none()
            },
            fattr::UID | fattr::GID,
        ),
        (
            Changes {
                size: Some(5),
                ..none()
            },
            fattr::SIZE,
        ),
        (
            Changes {
                atime: time,
                ..none()
            },
            fattr::ATIME,
        ),
        (
            Changes {
                mtime: time,
                ..none()
            },
            fattr::MTIME,
        ),
        (
            Changes {
                mtime: SetTime::Now,
                ..none()
            },
            fattr::MTIME | fattr::MTIME_NOW,
        ),
    ] {
        let guest = guest();
        change(&guest, changes);
        let log = guest.fake.log();
        let sent = log.iter().find(|record| record.op == Op::SETATTR).unwrap();
        let word = u32::from_le_bytes(sent.args[..4].try_into().unwrap());
        assert_eq!(word, valid, "{changes:?}");
        guest.finish();
    }
}

#[test]
fn durability_is_asked_for_once_and_only_after_a_change() {
    let guest = guest();
    let p = &guest.process;
    let reader = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    p.fsync(reader, Durable::All).unwrap();
    assert_eq!(guest.fake.count(Op::FSYNC), 0, "nothing was changed");
    let writer = p.open(At::Cwd, b"file", OpenFlags::WRONLY, 0).unwrap();
    p.fsync(writer, Durable::All).unwrap();
    assert_eq!(guest.fake.count(Op::FSYNC), 0, "nothing was changed yet");
    p.write(writer, b"new").unwrap();
    p.fsync(writer, Durable::All).unwrap();
    p.fsync(reader, Durable::All).unwrap();
    assert_eq!(guest.fake.count(Op::FSYNC), 1);
    p.close(reader).unwrap();
    p.close(writer).unwrap();
    guest.finish();
}
