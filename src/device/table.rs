//! Descriptors: the pieces of a request, as the device reads them (virtio 1.3,
//! 2.7.5).

use super::dma::{DmaRegion, OutOfDma};
use crate::platform::{Hal, PhysAddr};
use crate::sync::atomic::Ordering::Relaxed;

/// Size of a descriptor in bytes.
pub(crate) const DESC_SIZE: usize = 16;

pub(super) const DESC_NEXT: u16 = 1;
pub(super) const DESC_WRITE: u16 = 2;
pub(super) const DESC_INDIRECT: u16 = 4;
/// A list of descriptors, prepared before it goes to a ring.
///
/// It lies in memory that the device can read, so that it serves as an indirect
/// table as it is. A ring without indirect descriptors copies it.
pub struct DescriptorTable<H: Hal> {
    memory: DmaRegion<H>,
    capacity: u16,
}

/// One piece of a request as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub addr: PhysAddr,
    /// Its length in bytes, not 0.
    pub len: u32,
    /// Who may write it.
    pub access: Access,
}

/// What the device may do with a [`Segment`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Write it.
    Write,
}

impl<H: Hal> DescriptorTable<H> {
    /// Allocates a table for up to `capacity` segments.
    ///
    /// # Errors
    ///
    /// [`OutOfDma`].
    pub fn new(capacity: u16) -> Result<Self, OutOfDma> {
        Ok(Self {
            memory: DmaRegion::new(usize::from(capacity) * DESC_SIZE)?,
            capacity,
        })
    }

    /// Returns how many segments fit.
    pub const fn capacity(&self) -> u16 {
        self.capacity
    }

    /// Returns where the device finds it, as an indirect table.
    pub(super) fn paddr(&self) -> PhysAddr {
        self.memory.paddr(0)
    }

    /// Writes segment `index`, chained to the next one if `more` follow.
    ///
    /// The table must not be in flight.
    pub(crate) fn set(&self, index: u16, segment: Segment, more: bool) {
        assert!(
            index < self.capacity,
            "segment outside the descriptor table"
        );
        let mut flags = if more { DESC_NEXT } else { 0 };
        if segment.access == Access::Write {
            flags |= DESC_WRITE;
        }
        let at = usize::from(index) * DESC_SIZE;
        write_descriptor(
            &self.memory,
            at,
            segment.addr,
            segment.len,
            flags,
            if more { index + 1 } else { 0 },
        );
    }

    /// Returns segment `index` as it was [set](Self::set). The device can only
    /// read the table, so this is the driver's own word.
    pub(crate) fn get(&self, index: u16) -> Segment {
        let at = usize::from(index) * DESC_SIZE;
        Segment {
            addr: u64::from_le(self.memory.u64(at).load(Relaxed)),
            len: u32::from_le(self.memory.u32(at + 8).load(Relaxed)),
            access: if u16::from_le(self.memory.u16(at + 12).load(Relaxed)) & DESC_WRITE != 0 {
                Access::Write
            } else {
                Access::Read
            },
        }
    }
}

/// Writes a descriptor at byte `at` of `memory`.
pub(super) fn write_descriptor<H: Hal>(
    memory: &DmaRegion<H>,
    at: usize,
    addr: PhysAddr,
    len: u32,
    flags: u16,
    next: u16,
) {
    memory.u64(at).store(addr.to_le(), Relaxed);
    memory.u32(at + 8).store(len.to_le(), Relaxed);
    memory.u16(at + 12).store(flags.to_le(), Relaxed);
    memory.u16(at + 14).store(next.to_le(), Relaxed);
}
