//! The heap: talc over blocks from the frame allocator, behind an
//! interrupt-safe lock. It grows by 4 MiB or by what one allocation needs, gives
//! blocks back when they are empty, and ends where memory ends.

use core::{
    alloc::{GlobalAlloc, Layout},
    ptr,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use talc::{
    TalcLock,
    source::{GlobalAllocSource, Manual},
};

use super::{PAGE, frames, linear};
use crate::sync::RawIrqLock;

#[cfg_attr(panic = "abort", global_allocator)]
static HEAP: Heap = Heap {
    talc: TalcLock::new(GlobalAllocSource::new(Frames)),
    allocations: AtomicU64::new(0),
    in_use: AtomicUsize::new(0),
    crashed: AtomicBool::new(false),
};

/// Memory for the report of a crash, which may have happened inside the heap:
/// enough to read the line tables of a large unit.
static RESERVE: TalcLock<RawIrqLock, Manual> = TalcLock::new(Manual);
const RESERVE_BYTES: usize = 8 << 20;
static RESERVE_START: AtomicUsize = AtomicUsize::new(0);

struct Heap {
    talc: TalcLock<RawIrqLock, GlobalAllocSource<Frames>>,
    allocations: AtomicU64,
    in_use: AtomicUsize,
    /// Serve everything from the reserve, and take nothing back that is not its.
    crashed: AtomicBool,
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

// SAFETY: talc is a correct allocator, twice.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.crashed.load(Ordering::Relaxed) {
            // SAFETY: the caller's promise: the size is not 0.
            return unsafe { RESERVE.alloc(layout) };
        }
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.in_use.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise: the size is not 0.
        unsafe { self.talc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if self.crashed.load(Ordering::Relaxed) {
            let addr = block as usize;
            let start = RESERVE_START.load(Ordering::Relaxed);
            if (start..start + RESERVE_BYTES).contains(&addr) {
                // SAFETY: the block lies in the reserve, so it came from there.
                unsafe { RESERVE.dealloc(block, layout) };
            }
            return;
        }
        self.in_use.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller returns what `alloc` gave.
        unsafe { self.talc.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.crashed.load(Ordering::Relaxed) {
            // SAFETY: the caller's promise: `size` fits the alignment.
            let new =
                unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
            if !new.is_null() {
                // SAFETY: both are at least this long, and disjoint.
                unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(size)) };
                // SAFETY: the caller gives `block` up.
                unsafe { self.dealloc(block, layout) };
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
    if let Some(addr) = frames::allocate(RESERVE_BYTES / PAGE as usize) {
        // SAFETY: the frames were just taken and are given to the reserve for good.
        unsafe { RESERVE.lock().claim(linear(addr), RESERVE_BYTES) };
        RESERVE_START.store(linear(addr) as usize, Ordering::Relaxed);
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
    HEAP.crashed.store(true, Ordering::Relaxed);
}
