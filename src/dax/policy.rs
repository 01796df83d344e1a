//! What a reclaim policy is told and what it decides.
//!
//! A policy sees the accesses of one window and answers two questions: shall
//! this chunk be mapped or read by READ, and which range goes next. It sends
//! nothing and has no clock; the ledger stays with [`Window`](super::Window).
//! The trait is small so that the simulator in `tests/sim` can run other
//! systems' policies on the same ledger.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::geometry::{Chunk, InodeKey, RangeId};

/// How the bytes are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Copied to or from the caller's memory: READ or WRITE would do as well.
    Copy,
    /// A page of the window itself is needed: there is no way around a mapping.
    Fault,
}

/// One access to one chunk. An access that crosses a border is two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The file.
    pub inode: InodeKey,
    /// The chunk of the file.
    pub chunk: Chunk,
    /// First byte, counted from the start of the chunk.
    pub at: u32,
    /// Length in bytes, inside the chunk.
    pub len: u32,
    /// How many bytes of the chunk can be mapped.
    pub chunk_len: u32,
    /// Copy or fault.
    pub kind: Kind,
    /// Bytes that the same open file has moved in sequence before this access;
    /// 0 if this access does not continue the one before. See [`Stream`].
    pub run: u64,
}

/// Recognises sequential access. One per open file or mapped area, kept by
/// whoever opened it.
///
/// Threads that use it at once may find no sequence where there was one, and
/// nothing worse.
#[derive(Debug, Default)]
pub struct Stream {
    next: AtomicU64,
    run: AtomicU64,
}

impl Stream {
    /// Returns the [`Access::run`] of an access that begins at `offset`.
    #[inline]
    pub fn run_at(&self, offset: u64) -> u64 {
        match offset == self.next.load(Relaxed) {
            true => self.run.load(Relaxed),
            false => 0,
        }
    }

    /// Notes an access whose run was `run`. Two pieces of one that crosses a border
    /// are noted one after the other.
    #[inline]
    pub fn note(&self, offset: u64, len: u64, run: u64) {
        self.run.store(run.saturating_add(len), Relaxed);
        self.next.store(offset.saturating_add(len), Relaxed);
    }
}

/// What things cost, in nanoseconds. Only ratios matter. The glue may measure
/// and update them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A SETUPMAPPING and, sooner or later, its entry of a REMOVEMAPPING.
    pub map: u32,
    /// A READ or WRITE round trip without its data.
    pub request: u32,
    /// One KiB through a READ or WRITE.
    pub request_kib: u32,
    /// An access through the window without its data.
    pub access: u32,
    /// One KiB copied from or to the window.
    pub access_kib: u32,
}

impl Costs {
    /// Figures of a Linux guest under TCG with one CPU (see tests/sim/RESULTS.md).
    pub const MEASURED: Self = Self {
        map: 1_350_000,
        request: 200_000,
        request_kib: 550,
        access: 10_000,
        access_kib: 500,
    };

    /// Returns the cost of moving `len` bytes by request.
    pub fn by_request(&self, len: u32) -> u64 {
        u64::from(self.request) + u64::from(self.request_kib) * u64::from(len) / 1024
    }

    /// Returns the cost of moving `len` bytes through a mapped range.
    pub fn by_window(&self, len: u32) -> u64 {
        u64::from(self.access) + u64::from(self.access_kib) * u64::from(len) / 1024
    }

    /// Returns what a mapping saves an access: for a fault the mapping itself,
    /// without which it cannot be.
    pub fn saving(&self, access: &Access) -> u64 {
        match access.kind {
            Kind::Fault => self.map.into(),
            Kind::Copy => self
                .by_request(access.len)
                .saturating_sub(self.by_window(access.len)),
        }
    }
}

/// What to do about a chunk that is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Map it, unmapping another if none is free.
    Map,
    /// Leave it; move the bytes by READ or WRITE.
    Request,
}

/// A reclaim policy. Every method is short enough for a spin lock, and none
/// allocates.
///
/// The caller reports each access exactly once: to [`hit`](Self::hit) if the
/// chunk is mapped, to [`admit`](Self::admit) if not. A mapping is reported to
/// [`mapped`](Self::mapped) when it is there, each end of one to
/// [`unmapped`](Self::unmapped) when it begins to be taken down.
pub trait Policy {
    /// Notes an access to a mapped range.
    fn hit(&mut self, range: RangeId, access: &Access);

    /// Decides about an access to a chunk that is not mapped, with `free` ranges
    /// at hand. A fault is mapped whatever the answer.
    fn admit(&mut self, access: &Access, free: usize) -> Admission;

    /// Notes that `range` now shows the chunk of `access`, which was admitted.
    fn mapped(&mut self, range: RangeId, access: &Access);

    /// Notes that `range` now shows the chunk of `access` ahead of its use.
    fn mapped_ahead(&mut self, range: RangeId, access: &Access) {
        self.mapped(range, access);
    }

    /// Notes that `range` no longer shows anything.
    fn unmapped(&mut self, range: RangeId);

    /// Chooses a range to unmap among those that `may` allows. Called when a
    /// range is needed for a chunk of `wanted`, or by the worker with `None`.
    fn victim(
        &mut self,
        wanted: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId>;

    /// Says how many ranges the worker should unmap now.
    fn surplus(&self, free: usize) -> usize {
        let _ = free;
        0
    }

    /// Says whether the chunk after that of `access` should be mapped ahead, with
    /// `free` ranges at hand.
    fn ahead(&mut self, access: &Access, free: usize) -> bool {
        let _ = (access, free);
        false
    }

    /// Forgets the ranges: the device was reset.
    fn reset(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_counts_what_came_in_sequence() {
        let stream = Stream::default();
        let note = |offset, len| {
            let run = stream.run_at(offset);
            stream.note(offset, len, run);
            run
        };
        assert_eq!(note(0, 10), 0);
        assert_eq!(note(10, 5), 10);
        assert_eq!(note(15, 5), 15);
        assert_eq!(note(40, 5), 0);
        assert_eq!(note(45, 5), 5);
        assert_eq!(note(u64::MAX, 5), 0);
    }

    #[test]
    fn a_dear_window_saves_nothing() {
        let costs = Costs {
            access: 1_000_000,
            ..Costs::MEASURED
        };
        let access = Access {
            inode: InodeKey(1),
            chunk: Chunk(0),
            at: 0,
            len: 4096,
            chunk_len: 4096,
            kind: Kind::Copy,
            run: 0,
        };
        assert_eq!(costs.saving(&access), 0);
        assert_eq!(Costs::MEASURED.saving(&access), 190_200);
    }
}
