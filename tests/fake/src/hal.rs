//! The `Hal` of virtio-drivers on top of [`Memory`](crate::Memory).

use core::ptr::NonNull;
use std::alloc::{Layout, dealloc};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::memory::{current, memory_of};

/// Implements [`Hal`] on the [`Memory`](crate::Memory) of the calling thread.
///
/// # Panics
///
/// `share` panics on a thread that is attached to no memory, and
/// `mmio_phys_to_virt` for an address that is no register space: both have no
/// way to fail, and both are mistakes of the test or the driver.
#[derive(Clone, Copy, Debug)]
pub struct FakeHal;

// SAFETY: `dma_alloc` hands out zeroed, page aligned memory of the global
// allocator that nobody else has, and `mmio_phys_to_virt` pointers into the
// window's mapping, which only the driver and other mappings of it access.
unsafe impl Hal for FakeHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let memory = current();
        let block = memory.and_then(|memory| memory.alloc(pages));
        block.unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(at: PhysAddr, host: NonNull<u8>, pages: usize) -> i32 {
        // The memory may be gone if the test dropped it before the driver.
        if memory_of(at).is_some_and(|memory| !memory.dealloc(at, host, pages)) {
            return -1;
        }
        let Ok(layout) = Layout::from_size_align(pages * PAGE_SIZE, PAGE_SIZE) else {
            return -1;
        };
        // SAFETY: the caller promises that `host` came from `dma_alloc` with as
        // many pages, where this layout was used.
        unsafe { dealloc(host.as_ptr(), layout) };
        0
    }

    unsafe fn mmio_phys_to_virt(at: PhysAddr, len: usize) -> NonNull<u8> {
        let host = memory_of(at).and_then(|memory| memory.mmio(at, len));
        host.unwrap_or_else(|| panic!("no registers at {at:#x}, {len} bytes"))
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let memory = current().expect("thread is attached to a fake memory");
        memory.share(buffer, direction)
    }

    unsafe fn unshare(at: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        // The test may have dropped the fake first: nothing to check against.
        if let Some(memory) = memory_of(at).or_else(current) {
            memory.unshare(at, buffer, direction);
        }
    }
}
