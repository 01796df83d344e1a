//! The split virtqueue (virtio 1.3, 2.7), driver side.
//!
//! # What it promises
//!
//! - [`Ring::add`] either takes a chain, and then exactly one [`Used`] names its
//!   token, or refuses and leaves everything as it was.
//! - What the device writes is believed only where it agrees with the private
//!   records here: a used id must head a chain in flight, the used index may
//!   not run ahead of what was made available. A device that breaks a rule makes
//!   the ring [broken](RingError): it is not read any more, and the owner resets
//!   it.
//! - Descriptor contents are never read back from shared memory.
//!
//! # Fences
//!
//! - The driver stores descriptors and ring entries, then stores `avail.idx`
//!   with Release; it pairs with the device's load of `avail.idx`.
//! - Between that store and the load of `avail_event` (or `used.flags`) stands
//!   a full fence; it pairs with the device's own, between its store of
//!   `avail_event` and its last look at `avail.idx`. Without it both sides can
//!   miss the other's store and the request sleeps for ever (2.7.13.4.1).
//! - The driver loads `used.idx` with Acquire before it reads used entries or a
//!   reply; it pairs with the device's store of `used.idx`.
//! - [`Ring::enable_interrupts`] stores `used_event`, then a full fence, then
//!   looks at `used.idx` again (2.7.7.1).

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

use super::dma::{DmaRegion, OutOfDma};
use super::table::{
    Access, DESC_INDIRECT, DESC_NEXT, DESC_SIZE, DESC_WRITE, DescriptorTable, write_descriptor,
};
use super::transport::QueueLayout;
use crate::platform::Hal;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::atomic::fence;

const AVAIL_NO_INTERRUPT: u16 = 1;
const USED_NO_NOTIFY: u16 = 1;

/// Marks a descriptor that heads no chain.
const NO_TOKEN: u16 = u16::MAX;

/// Returns whether the step of an index from `old` to `new` passed `event`:
/// the other side wants to hear of it (2.7.10, `vring_need_event` in Linux).
/// All arithmetic is modulo 2^16.
pub(crate) const fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Which optional ring features were negotiated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFeatures {
    /// VIRTIO_F_INDIRECT_DESC: a request takes one descriptor, however long.
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX: each side says at which index it wants to hear.
    pub event_idx: bool,
}

/// A request that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// The token given to [`Ring::add`].
    pub token: u16,
    /// Bytes that the device says it wrote. Its word only: it may be more than
    /// the request had room for, and the reader checks it against that.
    pub written: u32,
}

/// The device broke a rule of the ring. It cannot be trusted until it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The used index is further ahead than there are requests in flight.
    UsedIndex {
        /// What the device wrote.
        index: u16,
        /// What was read last.
        last: u16,
        /// Requests in flight.
        in_flight: u16,
    },
    /// A used entry names no chain in flight.
    UsedId(u32),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UsedIndex {
                index,
                last,
                in_flight,
            } => {
                write!(
                    f,
                    "used index {index} after {last} with {in_flight} requests in flight"
                )
            }
            Self::UsedId(id) => write!(f, "used id {id} heads no request in flight"),
        }
    }
}

impl core::error::Error for RingError {}

/// There are not enough free descriptors just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingFull;

/// What the driver remembers of a chain in flight, by its first descriptor.
#[derive(Clone, Copy)]
struct Chain {
    token: u16,
    descriptors: u16,
}

const IDLE: Chain = Chain {
    token: NO_TOKEN,
    descriptors: 0,
};

/// One virtqueue.
///
/// # Invariants
///
/// - `free` descriptors are linked from `free_head` through `next`; the others
///   belong to chains in flight.
/// - `chains[d].token != NO_TOKEN` iff `d` heads a chain in flight; there are
///   `in_flight` of them.
/// - `available` counts every chain ever added, `seen` every used entry read,
///   modulo 2^16; `available - seen == in_flight`.
pub struct Ring<H: Hal> {
    memory: DmaRegion<H>,
    size: u16,
    features: RingFeatures,
    next: Box<[u16]>,
    chains: Box<[Chain]>,
    free_head: u16,
    free: u16,
    in_flight: u16,
    available: u16,
    /// `available` when the device was last asked whether it wants a kick.
    published: u16,
    seen: u16,
    interrupts: bool,
    broken: Option<RingError>,
}

impl<H: Hal> Ring<H> {
    /// Allocates a queue of `size` entries, a power of two up to 32768.
    /// Interrupts are off until [`enable_interrupts`](Self::enable_interrupts).
    ///
    /// # Errors
    ///
    /// [`OutOfDma`].
    pub fn new(size: u16, features: RingFeatures) -> Result<Self, OutOfDma> {
        assert!(size.is_power_of_two() && size <= 32768, "ring size");
        let n = usize::from(size);
        let memory = DmaRegion::new(used_offset(size) + 6 + 8 * n)?;
        let mut ring = Self {
            memory,
            size,
            features,
            next: (1..=size).collect(),
            chains: vec![IDLE; n].into_boxed_slice(),
            free_head: 0,
            free: size,
            in_flight: 0,
            available: 0,
            published: 0,
            seen: 0,
            interrupts: true,
            broken: None,
        };
        ring.disable_interrupts();
        Ok(ring)
    }

    /// Returns where the queue lies, to be told to the device.
    pub fn layout(&self, vector: Option<u16>) -> QueueLayout {
        QueueLayout {
            size: self.size,
            descriptors: self.memory.paddr(0),
            available: self.memory.paddr(avail_offset(self.size)),
            used: self.memory.paddr(used_offset(self.size)),
            vector,
        }
    }

    /// Keeps the ring's memory from being used again, because a device may still
    /// write to it. The ring may only be dropped after that.
    pub(crate) fn leak(&mut self) {
        self.memory.leak();
    }

    /// Returns the number of entries.
    pub const fn size(&self) -> u16 {
        self.size
    }

    /// Returns which optional features it uses.
    pub const fn features(&self) -> RingFeatures {
        self.features
    }

    /// Returns how many requests the device holds.
    pub const fn in_flight(&self) -> u16 {
        self.in_flight
    }

    /// Returns what the device did wrong, if it did.
    pub const fn broken(&self) -> Option<RingError> {
        self.broken
    }

    /// Returns how many segments a chain may have: what `table_capacity` holds,
    /// or the size of the queue if that is less (2.7.5.3.1 asks it of indirect
    /// tables as well).
    pub fn max_segments(&self, table_capacity: u16) -> u16 {
        table_capacity.min(self.size)
    }

    /// Makes the first `segments` entries of `table` available to the device,
    /// under `token`. The device sees it at the next [`publish`](Self::publish).
    ///
    /// From here to its [`Used`] entry, or to a reset, the memory of the table
    /// and of all its segments belongs to the device.
    ///
    /// # Errors
    ///
    /// [`RingFull`]: nothing was changed; try again after a [`pop`](Self::pop).
    pub fn add(
        &mut self,
        token: u16,
        table: &DescriptorTable<H>,
        segments: u16,
    ) -> Result<(), RingFull> {
        assert!(
            token != NO_TOKEN && segments > 0 && segments <= table.capacity(),
            "malformed chain"
        );
        let descriptors = if self.features.indirect { 1 } else { segments };
        if self.broken.is_some() || descriptors > self.free {
            return Err(RingFull);
        }
        let head = self.free_head;
        if self.features.indirect {
            let d = self.take_descriptor();
            let len = u32::from(segments) * DESC_SIZE as u32;
            let at = usize::from(d) * DESC_SIZE;
            write_descriptor(&self.memory, at, table.paddr(), len, DESC_INDIRECT, 0);
        } else {
            for i in 0..segments {
                let segment = table.get(i);
                let d = self.take_descriptor();
                let last = i + 1 == segments;
                let mut flags = if last { 0 } else { DESC_NEXT };
                if segment.access == Access::Write {
                    flags |= DESC_WRITE;
                }
                let next = if last { 0 } else { self.free_head };
                let at = usize::from(d) * DESC_SIZE;
                write_descriptor(&self.memory, at, segment.addr, segment.len, flags, next);
            }
        }
        self.chains[usize::from(head)] = Chain { token, descriptors };
        let slot = usize::from(self.available & (self.size - 1));
        self.memory
            .u16(avail_offset(self.size) + 4 + 2 * slot)
            .store(head.to_le(), Relaxed);
        self.available = self.available.wrapping_add(1);
        self.in_flight += 1;
        Ok(())
    }

    fn take_descriptor(&mut self) -> u16 {
        let d = self.free_head;
        self.free_head = self.next[usize::from(d)];
        self.free -= 1;
        d
    }

    /// Shows the device everything added since the last call. Returns whether
    /// it must be notified.
    #[must_use = "the device may sleep until it is notified"]
    pub fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.available);
        if old == new {
            return false;
        }
        self.memory
            .u16(avail_offset(self.size) + 2)
            .store(new.to_le(), Release);
        fence(SeqCst);
        self.published = new;
        if self.features.event_idx {
            let event = u16::from_le(self.memory.u16(avail_event_offset(self.size)).load(Relaxed));
            need_event(event, new, old)
        } else {
            u16::from_le(self.memory.u16(used_offset(self.size)).load(Relaxed)) & USED_NO_NOTIFY
                == 0
        }
    }

    /// Takes the next finished request, if there is one.
    ///
    /// # Errors
    ///
    /// A [`RingError`], from now on at each call.
    pub fn pop(&mut self) -> Result<Option<Used>, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let index = u16::from_le(self.memory.u16(used_offset(self.size) + 2).load(Acquire));
        if index == self.seen {
            return Ok(None);
        }
        // A chain that was added but not yet published cannot have been used.
        let visible = self.in_flight - self.available.wrapping_sub(self.published);
        if index.wrapping_sub(self.seen) > visible {
            let error = RingError::UsedIndex {
                index,
                last: self.seen,
                in_flight: visible,
            };
            self.broken = Some(error);
            return Err(error);
        }
        let at = used_offset(self.size) + 4 + 8 * usize::from(self.seen & (self.size - 1));
        let id = u32::from_le(self.memory.u32(at).load(Relaxed));
        let written = u32::from_le(self.memory.u32(at + 4).load(Relaxed));
        let chain = match self.chains.get_mut(id as usize) {
            Some(chain) if chain.token != NO_TOKEN => core::mem::replace(chain, IDLE),
            _ => {
                self.broken = Some(RingError::UsedId(id));
                return Err(RingError::UsedId(id));
            }
        };
        self.give_back(id as u16, chain.descriptors);
        self.in_flight -= 1;
        self.seen = self.seen.wrapping_add(1);
        Ok(Some(Used {
            token: chain.token,
            written,
        }))
    }

    /// Puts the chain's descriptors back. They were taken one after the other
    /// from the free list, and `next` still links them in that order.
    fn give_back(&mut self, head: u16, descriptors: u16) {
        let mut last = head;
        for _ in 1..descriptors {
            last = self.next[usize::from(last)];
        }
        self.next[usize::from(last)] = self.free_head;
        self.free_head = head;
        self.free += descriptors;
    }

    /// Asks the device for an interrupt at the next used entry. Returns whether
    /// one is there already, for which no interrupt may come: look again.
    #[must_use = "an entry that came meanwhile may bring no interrupt"]
    pub fn enable_interrupts(&mut self) -> bool {
        self.interrupts = true;
        if self.features.event_idx {
            self.memory
                .u16(used_event_offset(self.size))
                .store(self.seen.to_le(), Relaxed);
        } else {
            self.memory.u16(avail_offset(self.size)).store(0, Relaxed);
        }
        fence(SeqCst);
        u16::from_le(self.memory.u16(used_offset(self.size) + 2).load(Acquire)) != self.seen
    }

    /// Tells the device that nobody waits for an interrupt. It may still send
    /// some.
    pub fn disable_interrupts(&mut self) {
        self.interrupts = false;
        if self.features.event_idx {
            // As far away as an index can be.
            let far = self.seen.wrapping_add(0x8000);
            self.memory
                .u16(used_event_offset(self.size))
                .store(far.to_le(), Relaxed);
        } else {
            self.memory
                .u16(avail_offset(self.size))
                .store(AVAIL_NO_INTERRUPT.to_le(), Relaxed);
        }
    }

    /// Returns whether interrupts were asked for.
    pub const fn interrupts_enabled(&self) -> bool {
        self.interrupts
    }

    /// Forgets everything in flight and starts afresh. Only after the device
    /// was reset: it no longer knows the queue.
    pub fn reset(&mut self) {
        for d in 0..self.size {
            self.next[usize::from(d)] = d + 1;
        }
        self.chains.fill(IDLE);
        // Word by word: a device that is stuck in its reset may still write.
        for at in (0..self.memory.len()).step_by(size_of::<u64>()) {
            self.memory.u64(at).store(0, Relaxed);
        }
        (self.free_head, self.free, self.in_flight) = (0, self.size, 0);
        (self.available, self.published, self.seen) = (0, 0, 0);
        self.broken = None;
        self.disable_interrupts();
    }

    /// Moves all indices of an idle ring to `index`, for tests of the wrap.
    #[cfg(test)]
    fn start_at(&mut self, index: u16) {
        (self.available, self.published, self.seen) = (index, index, index);
        self.memory
            .u16(avail_offset(self.size) + 2)
            .store(index, Relaxed);
        self.memory
            .u16(used_offset(self.size) + 2)
            .store(index, Relaxed);
    }
}

const fn avail_offset(size: u16) -> usize {
    size as usize * DESC_SIZE
}

const fn used_event_offset(size: u16) -> usize {
    avail_offset(size) + 4 + 2 * size as usize
}

/// The used ring is 4-byte aligned by the spec; a cache line of its own keeps
/// the device's writes away from the driver's.
const fn used_offset(size: u16) -> usize {
    (used_event_offset(size) + 2).next_multiple_of(64)
}

const fn avail_event_offset(size: u16) -> usize {
    used_offset(size) + 4 + 8 * size as usize
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
