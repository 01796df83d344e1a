//! What costs nothing: calls on what is known and valid send no request and
//! allocate no memory. One test, because the allocator counts for the process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use virtio_fs::fs::{Access, At, Symlinks};
use virtio_fs::wire::OpenFlags;
use virtio_fs_attack::{Guest, tree};
use virtio_fs_fake::Fake;

/// Counts what the whole process allocates.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `System` with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn hot_calls_send_nothing_and_allocate_nothing() {
    let guest = Guest::on(Fake::new().fs(tree()).tune(|server| {
        server.entry_valid = Duration::from_secs(1000);
        server.attr_valid = Duration::from_secs(1000);
        server.negative_valid = Some(Duration::from_secs(1000));
    }));
    let fd = guest
        .process
        .open(At::Cwd, b"/dir/file", OpenFlags::RDWR, 0)
        .unwrap();
    let calls: [(&str, &dyn Fn()); 6] = [
        ("stat", &|| assert!(guest.stat("/dir/sub/leaf").is_ok())),
        ("absent", &|| assert!(guest.stat("/dir/none").is_err())),
        ("access", &|| {
            assert!(guest.process.access(At::Cwd, b"/dir", Access::READ).is_ok());
        }),
        ("lookup", &|| {
            let follow = Symlinks::NoFollow;
            assert!(guest.process.lookup(At::Cwd, b"/dir/other", follow).is_ok());
        }),
        ("fstat", &|| assert!(guest.process.fstat(fd).is_ok())),
        ("dot and dot dot", &|| {
            assert!(guest.stat("/dir/./sub/../sub/leaf").is_ok());
        }),
    ];
    for (what, call) in calls {
        call();
        let sent = guest.conn.counters().total_requests();
        let before = ALLOCATIONS.load(Relaxed);
        for _ in 0..100 {
            call();
        }
        let allocated = ALLOCATIONS.load(Relaxed) - before;
        assert_eq!(allocated, 0, "{what} allocates");
        assert_eq!(guest.conn.counters().total_requests(), sent, "{what} asks");
    }
    guest.process.close(fd).unwrap();
    guest.finish();
}
