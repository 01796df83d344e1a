//! What the driver does when the server says that something changed.

use core::time::Duration;

use virtio_fs::Errno;
use virtio_fs::fs::{At, Symlinks};
use virtio_fs::wire::{InvalKind, Name, NodeId, Notification, PollEvents, Unique};
use virtio_fs_fake::{Fake, MemFs, Op};
use virtio_fs_tests::Guest;

fn guest() -> Guest {
    let mut fs = MemFs::new();
    fs.mkdir("/dir").unwrap();
    fs.file("/dir/file", "content").unwrap();
    // Nothing ends by itself.
    let day = Duration::from_secs(86_400);
    Guest::new(Fake::new().fs(fs).tune(|config| {
        config.entry_valid = day;
        config.attr_valid = day;
    }))
}

fn size(guest: &Guest) -> Result<u64, Errno> {
    guest
        .process
        .stat(At::Cwd, b"dir/file", Symlinks::Follow)
        .map(|m| m.size())
        .map_err(|e| e.errno())
}

fn node(guest: &Guest, path: &[u8]) -> NodeId {
    guest
        .process
        .lookup(At::Cwd, path, Symlinks::Follow)
        .unwrap()
        .node()
}

fn tell(guest: &Guest, notification: &Notification<'_>) {
    guest
        .mount
        .file_system()
        .notified(notification)
        .expect("a notification is obeyed");
}

fn requests(guest: &Guest) -> (u64, u64) {
    (guest.fake.count(Op::LOOKUP), guest.fake.count(Op::GETATTR))
}

#[test]
fn a_stale_inode_is_asked_for_its_attributes_once() {
    let guest = guest();
    assert_eq!(size(&guest), Ok(7));
    guest.fake.fs(|fs| fs.truncate("/dir/file", 3)).unwrap();
    assert_eq!(size(&guest), Ok(7), "nobody has said anything");
    guest.fake.clear_log();
    let node = node(&guest, b"dir/file");
    tell(&guest, &Notification::InvalInode { node, range: None });
    assert_eq!(size(&guest), Ok(3));
    assert_eq!(size(&guest), Ok(3));
    assert_eq!(requests(&guest), (0, 1));
    guest.fake.fs(|fs| fs.truncate("/dir/file", 9)).unwrap();
    let data = b"abc";
    tell(
        &guest,
        &Notification::Store {
            node,
            offset: 0,
            data,
        },
    );
    assert_eq!(size(&guest), Ok(9));
    guest.finish();
}

#[test]
fn a_stale_name_is_looked_up_again_whether_dropped_or_expired() {
    for kind in [InvalKind::Drop, InvalKind::Expire] {
        let guest = guest();
        size(&guest).unwrap();
        let parent = node(&guest, b"dir");
        guest.fake.clear_log();
        let name = Name::new(b"file").unwrap();
        tell(&guest, &Notification::InvalEntry { parent, name, kind });
        assert_eq!(size(&guest), Ok(7));
        assert_eq!(guest.fake.count(Op::LOOKUP), 1);
        assert_eq!(size(&guest), Ok(7));
        assert_eq!(guest.fake.count(Op::LOOKUP), 1);
        guest.finish();
    }
}

#[test]
fn a_deleted_name_is_gone_unless_it_stands_for_another_file_by_now() {
    let guest = guest();
    size(&guest).unwrap();
    let (parent, child) = (node(&guest, b"dir"), node(&guest, b"dir/file"));
    let name = Name::new(b"file").unwrap();
    guest.fake.fs(|fs| fs.remove("/dir/file")).unwrap();
    guest.fake.clear_log();
    let other = NodeId::new(child.get() + 1000).unwrap();
    tell(
        &guest,
        &Notification::Delete {
            parent,
            child: other,
            name,
        },
    );
    assert_eq!(size(&guest), Ok(7), "that was about another file");
    tell(
        &guest,
        &Notification::Delete {
            parent,
            child,
            name,
        },
    );
    assert_eq!(size(&guest), Err(Errno::ENOENT));
    guest.finish();
}

#[test]
fn a_new_epoch_makes_every_name_be_asked_for() {
    let guest = guest();
    size(&guest).unwrap();
    guest.fake.clear_log();
    tell(&guest, &Notification::IncEpoch);
    size(&guest).unwrap();
    size(&guest).unwrap();
    assert_eq!(guest.fake.count(Op::LOOKUP), 2, "dir and file, once each");
    guest.finish();
}

#[test]
fn pruned_nodes_are_forgotten_unless_they_are_in_use() {
    let guest = guest();
    size(&guest).unwrap();
    let prune = |guest: &Guest, node: NodeId| {
        let mut message = Vec::new();
        message.extend((16u32 + 16 + 8).to_le_bytes());
        message.extend(9u32.to_le_bytes());
        message.extend(0u64.to_le_bytes());
        message.extend(1u32.to_le_bytes());
        message.extend([0; 12]);
        message.extend(node.get().to_le_bytes());
        tell(guest, &Notification::parse(&message).unwrap());
        for _ in 0..4 {
            guest.conn.work();
            guest.fake.platform().advance(Duration::from_secs(1));
        }
    };
    let held = guest
        .process
        .lookup(At::Cwd, b"dir/file", Symlinks::Follow)
        .unwrap();
    let file = held.node();
    prune(&guest, file);
    assert!(guest.fake.lookups(file.get()) > 0, "somebody has it");
    drop(held);
    size(&guest).unwrap();
    prune(&guest, file);
    assert_eq!(guest.fake.lookups(file.get()), 0);
    assert_eq!(size(&guest), Ok(7));
    guest.finish();
}

#[test]
fn retrieve_is_answered_with_nothing_under_its_own_id() {
    let guest = guest();
    size(&guest).unwrap();
    let node = node(&guest, b"dir/file");
    let retrieve = Notification::Retrieve {
        unique: Unique::new(77).unwrap(),
        node,
        offset: 0,
        size: 100,
    };
    tell(&guest, &retrieve);
    assert_eq!(guest.fake.retrieved(), [(77, Vec::new())]);
    guest.finish();
}

#[test]
fn what_is_not_known_is_ignored() {
    let guest = guest();
    size(&guest).unwrap();
    guest.fake.clear_log();
    let node = NodeId::new(4711).unwrap();
    let name = Name::new(b"file").unwrap();
    let file = self::node(&guest, b"dir/file");
    for notification in [
        Notification::Resend,
        Notification::InvalInode { node, range: None },
        Notification::InvalEntry {
            parent: node,
            name,
            kind: InvalKind::Drop,
        },
        // A file has no names.
        Notification::InvalEntry {
            parent: file,
            name,
            kind: InvalKind::Drop,
        },
        Notification::Delete {
            parent: node,
            child: node,
            name,
        },
        Notification::Store {
            node,
            offset: 0,
            data: b"x",
        },
        Notification::Poll(virtio_fs::wire::PollHandle(99)),
    ] {
        tell(&guest, &notification);
    }
    assert_eq!(size(&guest), Ok(7));
    assert_eq!(requests(&guest), (0, 0));
    guest.finish();
}

#[test]
fn poll_wakes_who_waits_and_is_not_asked_of_a_server_without_it() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::task::{Wake, Waker};
    struct Count(AtomicU32);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }
    let guest = guest();
    let inode = guest
        .process
        .lookup(At::Cwd, b"dir/file", Symlinks::Follow)
        .unwrap();
    let ino = guest.fake.fs(|fs| fs.find("/dir/file").unwrap());
    guest.fake.set_poll(ino, 0);
    let file = inode.open(virtio_fs::wire::OpenFlags::RDONLY).unwrap();
    let count = Arc::new(Count(AtomicU32::new(0)));
    let waker = Waker::from(count.clone());
    let input = PollEvents::IN;
    assert_eq!(file.poll(input, None).unwrap(), PollEvents::empty());
    assert_eq!(file.poll(input, Some(&waker)).unwrap(), PollEvents::empty());
    assert_eq!(file.poll(input, Some(&waker)).unwrap(), PollEvents::empty());
    let handle = guest
        .fake
        .log()
        .iter()
        .rev()
        .find(|r| r.op == Op::POLL)
        .unwrap()
        .args[8..16]
        .to_vec();
    let handle = u64::from_le_bytes(handle.try_into().unwrap());
    tell(
        &guest,
        &Notification::Poll(virtio_fs::wire::PollHandle(handle)),
    );
    tell(
        &guest,
        &Notification::Poll(virtio_fs::wire::PollHandle(handle)),
    );
    assert_eq!(count.0.load(Relaxed), 1, "once for all the asking");
    guest.fake.set_poll(ino, input.bits());
    assert_eq!(
        file.poll(input | PollEvents::OUT, Some(&waker)).unwrap(),
        input
    );
    assert_eq!(
        Arc::strong_count(&count),
        2,
        "nobody keeps a waker for a ready file"
    );
    guest.fake.tune(|config| {
        config.missing.insert(Op::POLL);
    });
    guest.fake.clear_log();
    for _ in 0..3 {
        assert_eq!(
            file.poll(input | PollEvents::PRI, Some(&waker)).unwrap(),
            input
        );
    }
    assert_eq!(guest.fake.count(Op::POLL), 1);
    drop((file, inode));
    guest.finish();
}
