//! The notification queue: what a server says unasked, and what it should not.

use std::time::Duration;

use virtio_fs_attack::{Guest, Lines, tree};
use virtio_fs_fake::{Fake, Notification, Op, ServerConfig};

/// A guest that believes everything for long, on a device with notifications.
fn guest(tune: impl FnOnce(&mut ServerConfig)) -> Guest {
    Guest::on(Fake::new().fs(tree()).notifications(4096).tune(|server| {
        server.entry_valid = Duration::from_secs(1000);
        server.attr_valid = Duration::from_secs(1000);
        tune(server);
    }))
}

/// Lets notifications arrive.
fn arrive(guest: &Guest) {
    guest.fake.step();
    guest.conn.work();
}

/// How many LOOKUPs and GETATTRs a stat of this path costs.
fn cost(guest: &Guest, path: &str) -> usize {
    let asked = || guest.fake.count(Op::LOOKUP) + guest.fake.count(Op::GETATTR);
    let before = asked();
    let _ = guest.stat(path);
    (asked() - before) as usize
}

#[test]
fn a_device_with_notifications_is_driven_with_its_queues_shifted() {
    let guest = guest(|_| ());
    assert!(guest.conn.has_notifications());
    guest.assert_works();
    guest.finish();
}

#[test]
fn an_invalidated_entry_is_asked_for_again() {
    let guest = guest(|_| ());
    guest.stat("/dir/file").unwrap();
    assert_eq!(cost(&guest, "/dir/file"), 0);
    let parent = guest.inode("/dir").node().get();
    for flags in [0, 1] {
        guest.fake.notify(&Notification::InvalEntry {
            parent,
            name: b"file".to_vec(),
            flags,
        });
        arrive(&guest);
        assert_eq!(cost(&guest, "/dir/file"), 1, "flags {flags}");
        assert_eq!(cost(&guest, "/dir/file"), 0);
    }
    guest.finish();
}

#[test]
fn invalidated_attributes_are_asked_for_again() {
    let guest = guest(|_| ());
    let nodeid = guest.inode("/dir/file").node().get();
    assert_eq!(cost(&guest, "/dir/file"), 0);
    guest.fake.notify(&Notification::InvalInode {
        nodeid,
        off: -1,
        len: 0,
    });
    arrive(&guest);
    assert_eq!(cost(&guest, "/dir/file"), 1);
    guest.finish();
}

#[test]
fn a_new_epoch_makes_every_name_stale() {
    let guest = guest(|_| ());
    guest.stat("/dir/file").unwrap();
    guest.fake.notify(&Notification::IncEpoch);
    arrive(&guest);
    assert_eq!(
        cost(&guest, "/dir/file"),
        2,
        "one for each part of the path"
    );
    guest.finish();
}

#[test]
fn a_retrieve_is_answered() {
    let guest = guest(|_| ());
    let nodeid = guest.inode("/dir/file").node().get();
    guest.fake.notify(&Notification::Retrieve {
        notify_unique: 77,
        nodeid,
        offset: 0,
        size: 10,
    });
    arrive(&guest);
    guest.fake.step();
    assert_eq!(guest.fake.count(Op::NOTIFY_REPLY), 1);
    guest.finish();
}

#[test]
fn notifications_of_unknown_objects_change_nothing() {
    let guest = guest(|_| ());
    guest.stat("/dir/file").unwrap();
    Lines::clear();
    for notification in [
        Notification::InvalInode {
            nodeid: 987_654,
            off: 0,
            len: 0,
        },
        Notification::InvalEntry {
            parent: 987_654,
            name: b"x".to_vec(),
            flags: 0,
        },
        Notification::Delete {
            parent: 987_654,
            child: 1,
            name: b"x".to_vec(),
        },
        Notification::Prune {
            nodeids: vec![0, 987_654],
        },
        Notification::Poll { kh: 987_654 },
        Notification::Resend,
    ] {
        guest.fake.notify(&notification);
    }
    arrive(&guest);
    assert_eq!(cost(&guest, "/dir/file"), 0);
    assert_eq!(guest.conn.counters().notifications.get(), 6);
    assert!(Lines::take_errors().is_empty());
    guest.finish();
}

#[test]
fn malformed_notifications_get_a_line_each_and_leave_the_mount_working() {
    let guest = guest(|_| ());
    Lines::clear();
    for (code, payload) in [
        (0, vec![]),
        (-5, vec![]),
        (99, vec![1; 40]),
        (2, vec![1; 23]),
        (3, vec![0xff; 40]),
    ] {
        guest.fake.notify(&Notification::Raw { code, payload });
    }
    arrive(&guest);
    assert_eq!(Lines::take_errors().len(), 5);
    guest.assert_works();
    guest.finish();
}

#[test]
fn more_notifications_than_buffers_all_arrive() {
    let guest = guest(|_| ());
    let nodeid = guest.inode("/dir/file").node().get();
    for _ in 0..200 {
        guest.fake.notify(&Notification::InvalInode {
            nodeid,
            off: 0,
            len: 0,
        });
    }
    for _ in 0..40 {
        arrive(&guest);
    }
    assert_eq!(guest.conn.counters().notifications.get(), 200);
    guest.finish();
}
