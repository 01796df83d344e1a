//! Nothing is allocated under the lock: once a pool is made, no access, hit or
//! miss, asks the heap for anything.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use virtio_fs::dax::{Costs, Pool, Reclaim, Rights, Step, Window};
use virtio_fs_sim::synthetic::{Shape, WORKLOADS};

/// The system's allocator, counting what each thread asks for.
struct Counting;

thread_local! {
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: both methods pass their arguments unchanged to `System`, which fulfils
// the contract; counting touches no memory that the allocator manages (a
// constant-initialised thread local without destructor allocates nothing).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.set(ASKED.get() + 1);
        // SAFETY: the caller keeps GlobalAlloc's contract for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn pool_allocates_nothing_after_it_is_made() {
    for workload in WORKLOADS {
        let shape = Shape {
            window: 16,
            working_set: 64,
            accesses: 3_000,
            seed: 1,
        };
        let trace = workload.trace(shape).prepare().expect("ranges");
        let window = Window::new(trace.geometry);
        let policy = Reclaim::new(trace.geometry.count(), Costs::MEASURED);
        let mut pool = Pool::new(window, policy);
        let before = ASKED.get();
        for access in &trace.accesses {
            let mut step = pool.access(access, Rights::Writable);
            loop {
                step = match step {
                    Step::Use(pin) => {
                        pool.window_mut().unpin(pin);
                        break;
                    }
                    Step::Map(token) => {
                        Step::Use(pool.commit_map(token, access).expect("session lives"))
                    }
                    Step::Evict(token) => {
                        let window = pool.window_mut();
                        window.commit_unmap(token).expect("session lives");
                        pool.claim(access, Rights::Writable)
                    }
                    Step::Request => break,
                    Step::Remap(_) | Step::Wait => panic!("one thread, fixed sizes"),
                };
            }
        }
        assert_eq!(ASKED.get(), before, "{} allocated", workload.name);
    }
}
