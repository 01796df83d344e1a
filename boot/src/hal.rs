//! virtio-drivers' [`Hal`] for this kernel: DMA memory is any memory, and a
//! device sees physical addresses (no IOMMU).

use core::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::memory::{CacheMode, LINEAR, frames, linear, map_mmio, translate};

/// The kernel's memory as devices see it.
#[derive(Clone, Copy, Debug)]
pub struct KernelHal;

// SAFETY: frames come zeroed, page aligned and are nobody else's until they are
// freed; mapped registers are mapped nowhere else; `share` returns the address
// behind the buffer.
unsafe impl Hal for KernelHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        match frames::allocate_zeroed(pages) {
            // Frame 0 is never handed out, and 0 is how failure is told.
            Some(addr) => (addr, NonNull::new(linear(addr)).expect("LINEAR is not 0")),
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        // SAFETY: the caller returns what `dma_alloc` gave.
        unsafe { frames::free(paddr, pages) };
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        let registers = map_mmio(paddr, size as u64, CacheMode::Uncached)
            .unwrap_or_else(|error| panic!("registers at {paddr:#x}+{size:#x}: {error}"));
        NonNull::new(registers).expect("device memory is not mapped at 0")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let addr = buffer.cast::<u8>().as_ptr() as u64;
        // Heap and DMA memory, nearly every buffer, without a walk.
        if (LINEAR..crate::memory::MMIO).contains(&addr) {
            return addr - LINEAR;
        }
        let start = translate(addr).expect("a mapped buffer");
        debug_assert!(
            buffer.is_empty()
                || translate(addr + buffer.len() as u64 - 1)
                    == Some(start + buffer.len() as u64 - 1),
            "a buffer in one physical run"
        );
        start
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
