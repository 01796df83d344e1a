//! What the unit tests need of a kernel: memory whose device addresses are
//! unlike its pointers, so that a forgotten translation shows.

#![expect(unsafe_code, reason = "implements an unsafe trait over the heap")]

extern crate std;

use core::ptr::NonNull;
use std::alloc::{Layout, alloc_zeroed, dealloc};

use crate::platform::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Device address = pointer + this.
const OFFSET: u64 = 0x7000_0000_0000_0000;

/// Memory from the test process's heap.
pub(crate) struct TestHal;

impl TestHal {
    /// Returns the pointer that the device means by `addr`.
    pub(crate) fn pointer(addr: PhysAddr) -> *mut u8 {
        (addr - OFFSET) as *mut u8
    }
}

fn layout(pages: usize) -> Layout {
    Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE).unwrap()
}

// SAFETY: pages come zeroed and page-aligned from the heap and are exclusively
// the caller's; addresses differ from pointers by a constant.
unsafe impl Hal for TestHal {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty.
        let p = NonNull::new(unsafe { alloc_zeroed(layout(pages)) }).unwrap();
        (p.as_ptr() as u64 + OFFSET, p)
    }

    unsafe fn dma_dealloc(_: PhysAddr, vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller passes what `dma_alloc` returned.
        unsafe { dealloc(vaddr.as_ptr(), layout(pages)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("no device registers in unit tests")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.as_ptr().cast::<u8>() as u64 + OFFSET
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
