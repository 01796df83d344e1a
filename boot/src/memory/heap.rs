//! The heap: talc over blocks from the frame allocator, behind an
//! interrupt-safe lock. It grows by 4 MiB or by what one allocation needs, gives
//! blocks back when they are empty, and ends where memory ends.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use talc::{TalcLock, source::GlobalAllocSource};

use super::{PAGE, frames, linear};
use crate::sync::RawIrqLock;

#[global_allocator]
static HEAP: Heap = Heap {
    talc: TalcLock::new(GlobalAllocSource::new(Frames)),
    allocations: AtomicU64::new(0),
    in_use: AtomicUsize::new(0),
    emergency: AtomicBool::new(false),
    next: AtomicUsize::new(0),
};

/// Memory for the report of a crash, which may have happened inside the heap.
const EMERGENCY_PAGES: usize = 2048;
static EMERGENCY_START: AtomicUsize = AtomicUsize::new(0);

struct Heap {
    talc: TalcLock<RawIrqLock, GlobalAllocSource<Frames>>,
    allocations: AtomicU64,
    in_use: AtomicUsize,
    emergency: AtomicBool,
    next: AtomicUsize,
}

/// Whole pages, as the heap's own source of memory.
#[derive(Debug)]
struct Frames;

// SAFETY: runs of frames are disjoint, page aligned (no larger alignment is
// handed out), and stay mapped in the linear map.
unsafe impl GlobalAlloc for Frames {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE as usize {
            return ptr::null_mut();
        }
        match frames::allocate(layout.size().div_ceil(PAGE as usize)) {
            Some(addr) => linear(addr),
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let addr = block as u64 - super::LINEAR;
        // SAFETY: the caller returns a block from `alloc`, which nobody uses.
        unsafe { frames::free(addr, layout.size().div_ceil(PAGE as usize)) };
    }
}

impl Heap {
    /// Takes from the reserve, which only grows: the kernel is about to end.
    fn bump(&self, layout: Layout) -> *mut u8 {
        let start = EMERGENCY_START.load(Ordering::Relaxed);
        let result = self.next.try_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            let end = next.next_multiple_of(layout.align()) + layout.size();
            (start != 0 && end <= EMERGENCY_PAGES * PAGE as usize).then_some(end)
        });
        match result {
            Ok(before) => (start + before.next_multiple_of(layout.align())) as *mut u8,
            Err(_) => ptr::null_mut(),
        }
    }
}

// SAFETY: talc is a correct allocator; the reserve hands out disjoint, aligned
// pieces of a page run that is nobody else's and takes nothing back.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.emergency.load(Ordering::Relaxed) {
            return self.bump(layout);
        }
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.in_use.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise: the size is not 0.
        unsafe { self.talc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.emergency.load(Ordering::Relaxed) {
            return;
        }
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller returns what `alloc` gave.
        unsafe { self.talc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.emergency.load(Ordering::Relaxed) {
            let new = self.bump(Layout::from_size_align(size, layout.align()).unwrap_or(layout));
            if !new.is_null() {
                // SAFETY: both are at least this long, and disjoint.
                unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
            }
            return new;
        }
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.in_use.fetch_add(size, Ordering::Relaxed);
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller passes what `alloc` gave.
        unsafe { self.talc.realloc(block, layout, size) }
    }
}

/// Sets the reserve for crash reports aside.
pub(super) fn init() {
    if let Some(addr) = frames::allocate(EMERGENCY_PAGES) {
        EMERGENCY_START.store(linear(addr) as usize, Ordering::Relaxed);
    }
}

/// Returns how many times anything was allocated or grown on the heap since
/// boot. A test reads it around a path that must not allocate.
pub fn allocations() -> u64 {
    HEAP.allocations.load(Ordering::Relaxed)
}

/// Returns the number of bytes in use on the heap.
pub fn in_use() -> usize {
    HEAP.in_use.load(Ordering::Relaxed)
}

/// Serves everything from the reserve from now on: the heap may be what broke.
pub(crate) fn enter_emergency() {
    HEAP.emergency.store(true, Ordering::Relaxed);
}
