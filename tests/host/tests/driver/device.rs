//! The driver as it is, in this process, against a real virtiofsd.

use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use virtio_fs::conn::{Config, Connection, State};
use virtio_fs::fs::{Mount, MountOptions};
use virtio_fs::wire::OpenFlags;
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;
use virtio_fs_host::{Buffer, Daemon, HostPlatform, daemon, hal};

const FILE_LEN: usize = (3 << 20) + 1234;

fn bytes() -> Vec<u8> {
    (0..FILE_LEN as u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}

fn share() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bytes"), bytes()).unwrap();
    folder
}

fn start(folder: &tempfile::TempDir) -> Daemon {
    daemon::Config::virtiofsd(folder.path()).start().unwrap()
}

/// Opens a session and mounts it.
fn mount(daemon: &Daemon, waiting: Waiting) -> Mount<HostPlatform> {
    let transport = Arc::new(daemon.connect(Options::default()).unwrap());
    let mut config = Config::default();
    let target = Arc::new(OnceLock::<Weak<Connection<HostPlatform>>>::new());
    if waiting == Waiting::Sleep {
        config.vectors = transport.queues() + 1;
        let target = target.clone();
        transport
            .set_interrupt_handler(Box::new(move |vector| {
                if let Some(conn) = target.get().and_then(Weak::upgrade) {
                    conn.interrupt(Some(vector));
                }
            }))
            .unwrap();
    }
    let platform = Arc::new(HostPlatform::new(waiting));
    let conn = Connection::open(platform, transport, config).unwrap();
    target.set(Arc::downgrade(&conn)).unwrap();
    Mount::new(conn, MountOptions::default()).unwrap()
}

#[test]
fn files_are_read_exactly_and_without_a_bounce() {
    let folder = share();
    let content = bytes();
    for waiting in [Waiting::Poll, Waiting::Sleep] {
        let daemon = start(&folder);
        let mount = mount(&daemon, waiting);
        let file = mount
            .root()
            .lookup(b"bytes")
            .unwrap()
            .open(OpenFlags::RDONLY)
            .unwrap();
        let mut buffer = Buffer::new(FILE_LEN + 100);
        let before = hal::bounces_of_this_thread();
        for size in [1, 4095, 4096, 65_537, 1 << 20, FILE_LEN, FILE_LEN + 100] {
            let len = file.read_at(0, &mut buffer[..size]).unwrap();
            assert!(buffer[..len] == content[..size.min(FILE_LEN)], "{size}");
            assert_eq!(len, size.min(FILE_LEN));
        }
        assert_eq!(hal::bounces_of_this_thread(), before);
        drop(file);
        mount.unmount();
    }
    assert_eq!(hal::live_bounces(), 0);
}

#[test]
fn a_daemon_killed_fails_calls_in_bounded_time() {
    let folder = share();
    for waiting in [Waiting::Poll, Waiting::Sleep] {
        let mut daemon = start(&folder);
        let mount = mount(&daemon, waiting);
        daemon.pause();
        std::thread::scope(|scope| {
            let root = mount.root();
            let caller = scope.spawn(|| root.lookup(b"bytes").map(drop));
            std::thread::sleep(Duration::from_millis(50));
            let begun = Instant::now();
            daemon.kill();
            assert!(caller.join().unwrap().is_err());
            assert!(
                begun.elapsed() < Duration::from_secs(3),
                "{:?}",
                begun.elapsed()
            );
        });
        assert_eq!(mount.connection().state(), State::Lost);
        assert!(mount.root().lookup(b"none").is_err());
    }
}

#[test]
fn eight_mounts_work_side_by_side() {
    let folder = share();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let daemon = start(&folder);
                let mount = mount(&daemon, Waiting::Sleep);
                let inode = mount.root().lookup(b"bytes").unwrap();
                for _ in 0..200 {
                    assert_eq!(inode.revalidate().unwrap().size(), FILE_LEN as u64);
                }
                drop(inode);
                mount.unmount();
            });
        }
    });
}
