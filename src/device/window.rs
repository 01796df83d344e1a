//! The DAX window as memory: shared memory region 0 (virtio 1.3, 5.11.6.4).
//!
//! This is one of the few places with unsafe code. The host writes into the
//! window whenever it likes, and so do other guests and other CPUs of this one,
//! so no reference into it is ever made: bytes are copied out of it and into it
//! here, inside its bounds, and nowhere else.
//!
//! Copies go through [`Window::enter`], which a reset of the device closes: the
//! host takes the mappings away then, and nobody may be among them.

#![expect(unsafe_code, reason = "the one place that touches the window's bytes")]

use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32};

use crate::platform::PhysAddr;

/// Where a kernel has mapped a shared memory region.
///
/// # Invariants
///
/// Every access inside `base` and `len` is an access to the device's memory and
/// to nothing else of the program's, for as long as the program runs. Where the
/// host maps nothing, it reads junk or ends in a fault, as with any device that
/// is not there.
pub struct WindowMemory {
    base: NonNull<u8>,
    len: u64,
}

// SAFETY: a place in the address space, bound to no thread.
unsafe impl Send for WindowMemory {}
// SAFETY: shared use means copies by address; no reference into it exists.
unsafe impl Sync for WindowMemory {}

impl WindowMemory {
    /// Takes over `len` bytes at `base`.
    ///
    /// # Safety
    ///
    /// All of them must be mapped for reading and writing, write-back cached as
    /// memory is, to the device's region and nothing else, and stay so for as
    /// long as the program runs. Nobody may make references into them.
    pub const unsafe fn new(base: NonNull<u8>, len: u64) -> Self {
        Self { base, len }
    }

    /// Returns the length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the address of byte `offset` if `len` bytes from there lie inside.
    #[inline]
    fn at(&self, offset: u64, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len as u64)?;
        if end > self.len {
            return None;
        }
        // SAFETY: inside the one region that the type's invariant speaks of.
        Some(unsafe { self.base.add(offset as usize) })
    }
}

impl fmt::Debug for WindowMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:p}", self.len, self.base)
    }
}

/// The window of a session, and who is copying.
#[derive(Debug)]
pub struct Window {
    memory: WindowMemory,
    /// Where the region lies in physical memory.
    addr: PhysAddr,
    /// Copies under way; [`CLOSED`] once there shall be no more.
    inside: AtomicU32,
    /// The host may map something.
    used: AtomicBool,
}

const CLOSED: u32 = 1 << 31;

/// A copy was not made: it does not lie inside the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outside;

impl Window {
    pub(crate) const fn new(memory: WindowMemory, addr: PhysAddr) -> Self {
        Self {
            memory,
            addr,
            inside: AtomicU32::new(0),
            used: AtomicBool::new(false),
        }
    }

    /// Returns the length in bytes.
    pub const fn len(&self) -> u64 {
        self.memory.len()
    }

    /// Returns whether the window has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Returns the physical address of byte `offset`, for page tables.
    pub(crate) const fn phys(&self, offset: u64) -> PhysAddr {
        self.addr + offset
    }

    /// Begins to copy. `None` once the session is ending. Does not block.
    #[inline]
    pub fn enter(&self) -> Option<Inside<'_>> {
        let old = self.inside.fetch_add(1, Acquire);
        let inside = Inside { window: self };
        (old & CLOSED == 0).then_some(inside)
    }

    /// Lets nobody in from now on. Returns whether nobody is inside any more.
    pub(crate) fn close(&self) -> bool {
        self.inside.fetch_or(CLOSED, AcqRel) & !CLOSED == 0
    }

    /// Lets copies begin again, in a new session. Nobody is inside.
    pub(crate) fn open(&self) {
        self.inside.fetch_and(!CLOSED, AcqRel);
    }

    /// Notes that the host is asked to map something.
    pub(crate) fn mark_used(&self) {
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }

    /// Notes whether the host has been told to unmap everything. Returns whether
    /// it may have mapped something.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed)
    }
}

/// Permission to copy, until it is dropped.
#[derive(Debug)]
pub struct Inside<'a> {
    window: &'a Window,
}

impl Inside<'_> {
    /// Copies from byte `offset` of the window into `out`. What the host changes
    /// meanwhile is copied as it was before or after, byte by byte.
    ///
    /// # Errors
    ///
    /// [`Outside`]; nothing was copied.
    #[inline]
    pub fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), Outside> {
        let from = self.window.memory.at(offset, out.len()).ok_or(Outside)?;
        // SAFETY: (1) `at` checked the source's bounds; device memory is readable
        // everywhere (`WindowMemory`). (2) The destination is an exclusive slice,
        // and no slice can lie in the window, into which there are no references.
        // (3) Others may write the source at the same time. The copy is a call of
        // memcpy on a foreign address: each byte is loaded once, whatever was
        // loaded goes to `out` as plain bytes, and nothing is decided by it.
        unsafe {
            out.as_mut_ptr()
                .copy_from_nonoverlapping(from.as_ptr(), out.len())
        };
        Ok(())
    }

    /// Copies `data` to byte `offset` of the window.
    ///
    /// # Errors
    ///
    /// [`Outside`]; nothing was copied.
    #[inline]
    pub fn write(&self, offset: u64, data: &[u8]) -> Result<(), Outside> {
        let to = self.window.memory.at(offset, data.len()).ok_or(Outside)?;
        // SAFETY: as in `read`, with source and destination exchanged.
        unsafe {
            to.as_ptr()
                .copy_from_nonoverlapping(data.as_ptr(), data.len())
        };
        Ok(())
    }
}

impl Drop for Inside<'_> {
    #[inline]
    fn drop(&mut self) {
        self.window.inside.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::boxed::Box;

    fn window(len: usize) -> Window {
        let bytes: &'static mut [u8] = Box::leak(std::vec![0; len].into_boxed_slice());
        // SAFETY: leaked memory that nothing else refers to from here on.
        Window::new(
            unsafe { WindowMemory::new(NonNull::from(bytes).cast(), len as u64) },
            0,
        )
    }

    #[test]
    fn copies_stay_inside() {
        let window = window(64);
        let inside = window.enter().expect("open");
        inside.write(60, &[1, 2, 3, 4]).expect("fits");
        let mut out = [0; 4];
        assert_eq!(inside.read(60, &mut out), Ok(()));
        assert_eq!(out, [1, 2, 3, 4]);
        assert_eq!(inside.read(61, &mut out), Err(Outside));
        assert_eq!(inside.read(u64::MAX, &mut out), Err(Outside));
        assert_eq!(inside.write(64, &[0]), Err(Outside));
        assert_eq!(inside.write(64, &[]), Ok(()));
    }

    #[test]
    fn a_closed_window_empties_and_lets_nobody_in() {
        let window = window(64);
        let inside = window.enter().expect("open");
        assert!(!window.close(), "one is inside");
        assert!(window.enter().is_none());
        assert!(!window.close(), "the refused one has left again");
        drop(inside);
        assert!(window.close());
    }
}
