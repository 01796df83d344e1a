//! What an inode and its name take, tables included, measured at the allocator.
//! One test in a process of its own; the daemon is another.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{At, Mount, MountOptions, Process, Symlinks};
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;
use virtio_fs_host::{HostPlatform, daemon};

/// Counts the bytes that are allocated and not freed.
struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Names and inodes that are looked up.
const COUNT: u64 = 10_000;
/// From so many on the bound holds: below, what a mount has once weighs more.
const FROM: u64 = 2000;
/// Bytes for each.
const BOUND: u64 = 400;

#[test]
fn an_inode_with_a_name_of_20_bytes_stays_within_its_bytes_however_full_the_tables_are() {
    let share = tempfile::tempdir().unwrap();
    let name = |i: u64| format!("a-name-of-{i:010}");
    for i in 0..COUNT {
        std::fs::File::create(share.path().join(name(i))).unwrap();
    }
    let daemon = daemon::Config::virtiofsd(share.path())
        .arguments(["--cache", "auto", "--log-level", "error"])
        .start()
        .expect("virtiofsd starts");
    let transport = Arc::new(daemon.connect(Options::default()).expect("connects"));
    let platform = Arc::new(HostPlatform::new(Waiting::Poll));
    let conn = Connection::open(platform, transport, Config::default()).expect("opens");
    let options = MountOptions {
        max_dentries: 4 * COUNT as usize,
        ..MountOptions::default()
    };
    let mount = Mount::new(conn, options).expect("mounts");
    let process = Process::new(&mount);
    let before = LIVE.load(Relaxed);
    let mut most = 0;
    for i in 0..COUNT {
        let name = name(i);
        process
            .stat(At::Cwd, name.as_bytes(), Symlinks::NoFollow)
            .unwrap();
        if i >= FROM && i % 10 == 0 {
            let live = LIVE.load(Relaxed) - before - name.len() as u64;
            most = most.max(live / (i + 1));
        }
    }
    let live = (LIVE.load(Relaxed) - before) / COUNT;
    println!("{most} bytes at most, {live} at {COUNT}");
    assert_eq!(mount.file_system().dentry_count() as u64, COUNT);
    assert!(most <= BOUND, "{most} bytes for each");
    drop(process);
    mount.unmount();
}
