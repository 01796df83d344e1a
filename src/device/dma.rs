//! Memory that the driver owns and the device can see.
//!
//! This is one of the few places with unsafe code. A [`DmaRegion`] hands out
//! atomics and copies, never references to bytes that a device may write: what
//! a device writes may change under the reader's eyes, so it is copied out once
//! and judged afterwards.

#![expect(
    unsafe_code,
    reason = "the one place that turns DMA pages into typed accesses"
)]

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use crate::platform::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Whole pages of physically contiguous, zeroed memory.
///
/// # Invariants
///
/// `base` points to `len` bytes from [`Hal::dma_alloc`], which nothing else in
/// the program refers to, until `drop` gives them back.
pub struct DmaRegion<H: Hal> {
    base: NonNull<u8>,
    paddr: PhysAddr,
    len: usize,
    hal: PhantomData<fn() -> H>,
}

// SAFETY: the region owns its memory, and DMA memory is not bound to a thread.
unsafe impl<H: Hal> Send for DmaRegion<H> {}
// SAFETY: through a shared reference the memory is only touched with atomic
// instructions (`u16`, `u32`, `u64`) or volatile byte copies of areas that are
// the caller's to order against the device; none of them creates a reference
// to plain bytes.
unsafe impl<H: Hal> Sync for DmaRegion<H> {}

/// No DMA memory is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfDma;

impl<H: Hal> DmaRegion<H> {
    /// Allocates at least `len` bytes, zeroed, in whole pages.
    ///
    /// # Errors
    ///
    /// [`OutOfDma`] if the kernel has none.
    pub fn new(len: usize) -> Result<Self, OutOfDma> {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let (paddr, base) = H::dma_alloc(pages, BufferDirection::Both);
        if paddr == 0 {
            return Err(OutOfDma);
        }
        Ok(Self {
            base,
            paddr,
            len: pages * PAGE_SIZE,
            hal: PhantomData,
        })
    }

    /// Returns the number of bytes, a multiple of the page size.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the region has no bytes; it never does.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the device's address of byte `offset`.
    pub const fn paddr(&self, offset: usize) -> PhysAddr {
        assert!(offset <= self.len, "offset outside the DMA region");
        self.paddr + offset as PhysAddr
    }

    fn at<T>(&self, offset: usize) -> NonNull<T> {
        assert!(
            offset.is_multiple_of(align_of::<T>())
                && offset <= self.len
                && size_of::<T>() <= self.len - offset,
            "access outside the DMA region"
        );
        // SAFETY: the assertion keeps the result inside the one allocation that
        // `base` points to.
        unsafe { self.base.add(offset).cast() }
    }

    /// Returns the 16-bit word at `offset`, which must be a multiple of 2.
    pub fn u16(&self, offset: usize) -> &AtomicU16 {
        // SAFETY: `at` checked bounds and alignment; the memory lives as long as
        // `self`; every shared access to it is atomic or volatile.
        unsafe { self.at::<AtomicU16>(offset).as_ref() }
    }

    /// Returns the 32-bit word at `offset`, which must be a multiple of 4.
    pub fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `u16`.
        unsafe { self.at::<AtomicU32>(offset).as_ref() }
    }

    /// Returns the 64-bit word at `offset`, which must be a multiple of 8.
    pub fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `u16`.
        unsafe { self.at::<AtomicU64>(offset).as_ref() }
    }

    /// Returns the bytes of the region for the driver to fill in.
    ///
    /// The exclusive borrow keeps other CPUs out. Keeping the device out is the
    /// caller's duty: only an area that is not lent to the device, or that the
    /// device may only read, is filled in this way.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: type invariant: `base` and `len` describe one live allocation,
        // and `&mut self` makes this the only reference into it. All bit
        // patterns are valid bytes and the pages were zeroed at first.
        unsafe { core::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Copies `out.len()` bytes at `offset` out of the region, once and in
    /// order, so that what is judged afterwards cannot change any more.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(
            offset <= self.len && out.len() <= self.len - offset,
            "read outside the DMA region"
        );
        for (i, byte) in out.iter_mut().enumerate() {
            // SAFETY: `offset + i` is inside the allocation (asserted above).
            // Volatile, because the device may write at the same time.
            *byte = unsafe { self.base.add(offset + i).read_volatile() };
        }
    }
}

/// For pages of files: bytes that several CPUs and the device may use at once,
/// and of which nothing but the bytes themselves depends. Like the DAX window
/// they are only ever copied.
impl<H: Hal> DmaRegion<H> {
    fn area(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "copy outside the DMA region"
        );
        // SAFETY: the assertion keeps the result inside the one allocation that
        // `base` points to, or at its end.
        unsafe { self.base.add(offset).as_ptr() }
    }

    /// Copies from byte `offset` on into `out`. What somebody changes meanwhile is
    /// copied as it was before or after, byte by byte.
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) {
        let from = self.area(offset, out.len());
        // SAFETY: (1) `area` checked the source's bounds. (2) The destination is an
        // exclusive slice, and nobody gets a slice of a region but through
        // `bytes_mut`, which excludes this call. (3) Others may write the source at
        // the same time: memcpy loads each byte once, whatever it loads goes to
        // `out` as plain bytes, and nothing is decided by it.
        unsafe { out.as_mut_ptr().copy_from_nonoverlapping(from, out.len()) };
    }

    /// Copies `data` to byte `offset`. Who copies out meanwhile gets old bytes or
    /// new ones.
    pub fn copy_in(&self, offset: usize, data: &[u8]) {
        let to = self.area(offset, data.len());
        // SAFETY: as in `copy_out`, with source and destination exchanged.
        unsafe { to.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }

    /// Makes `len` bytes from `offset` on zero.
    pub fn zero(&self, offset: usize, len: usize) {
        let to = self.area(offset, len);
        // SAFETY: as in `copy_in`.
        unsafe { to.write_bytes(0, len) };
    }
}

impl<H: Hal> DmaRegion<H> {
    /// Keeps the memory from ever being used again, because a device may still
    /// write to it. The region is empty from then on.
    pub(crate) fn leak(&mut self) {
        self.len = 0;
    }
}

impl<H: Hal> Drop for DmaRegion<H> {
    fn drop(&mut self) {
        if self.len == 0 {
            return;
        }
        // SAFETY: these are the values that `dma_alloc` returned in `new`, and
        // nothing refers to the memory any more.
        let status = unsafe { H::dma_dealloc(self.paddr, self.base, self.len / PAGE_SIZE) };
        if status != 0 {
            log::error!(
                "virtio-fs: the kernel refused to take back {} bytes of DMA memory",
                self.len
            );
        }
    }
}
