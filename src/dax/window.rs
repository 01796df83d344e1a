//! The window's ledger: which range shows what, who holds it, what is under way.
//!
//! A pure state machine. It sends nothing, waits for nothing and, once made,
//! allocates nothing: the glue holds a short lock around each call, sends the
//! request that a token describes outside of it, and hands the token back with
//! the outcome. Follows fs/fuse/dax.c for the set of operations; the treatment
//! of unknown outcomes and of QEMU's exact unmapping is our own
//! (protocol notes 5.5 and 5.6 name the behaviour).
//!
//! # Invariants
//! - A chunk of a file has at most one range, and is in the index exactly
//!   while that range is Mapping, Mapped or Unmapping.
//! - A range is on the free list exactly while it is Free.
//! - Only a Mapped or Orphaned range has pins; an Orphaned one has at least one.
//! - A range has a serial exactly while a token for it is out.
//! - A mapping's length is a positive multiple of the granule and at most a range.
//! - The totals equal what a walk over all ranges adds up to.

use alloc::vec::Vec;
use core::num::NonZeroU64;

use super::geometry::{Chunk, Geometry, InodeKey, RangeId, Rights};
use super::keymap::KeyMap;
use super::range::{
    MapRequest, MapToken, Mapping, Pin, Pinning, RangeState, Refusal, RemapError, Serial, Stale,
    UnmapRequest, UnmapToken,
};
use super::totals::Totals;

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: RangeState,
    pub(super) pins: u32,
    pub(super) serial: Option<Serial>,
}

/// The ledger of one window.
#[derive(Debug)]
pub struct Window {
    geometry: Geometry,
    pub(super) slots: Vec<Slot>,
    pub(super) free: Vec<RangeId>,
    pub(super) index: KeyMap,
    /// Where a chunk was found last, by a hash of it: right most of the time, and
    /// never believed without a look at the slot.
    hints: Vec<u32>,
    pub(super) totals: Totals,
    /// How many ranges may hold something at once; see [`Window::limit_live`].
    pub(super) live_limit: usize,
    next_serial: u64,
}

impl Window {
    /// Bytes of bookkeeping per range.
    pub const BYTES_PER_RANGE: usize =
        size_of::<Slot>() + size_of::<RangeId>() + KeyMap::ENTRY_BYTES + 2 * size_of::<u32>();

    /// Makes a ledger in which every range is free. Allocates all it will ever need.
    pub fn new(geometry: Geometry) -> Self {
        let count = geometry.count();
        let slot = || Slot {
            state: RangeState::Free,
            pins: 0,
            serial: None,
        };
        let mut free: Vec<_> = geometry.ranges().collect();
        free.reverse();
        Self {
            geometry,
            slots: (0..count).map(|_| slot()).collect(),
            free,
            index: KeyMap::new(count),
            hints: alloc::vec![0; 2 * count.next_power_of_two()],
            totals: Totals {
                free: count,
                ..Totals::default()
            },
            live_limit: count,
            next_serial: 1,
        }
    }

    /// Returns the cut of the window.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns the totals.
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// Returns how many ranges can be handed out now.
    pub const fn available(&self) -> usize {
        let live = self.slots.len() - self.totals.free;
        let allowed = self.live_limit.saturating_sub(live);
        if allowed < self.totals.free {
            allowed
        } else {
            self.totals.free
        }
    }

    /// Returns how many ranges may hold something at once.
    pub const fn live_limit(&self) -> usize {
        self.live_limit
    }

    /// Keeps at most `limit` ranges, and at least one, out of the free state
    /// until the next [`reset`](Self::reset). QEMU takes a memory region for
    /// each mapping and has few: when SETUPMAPPING fails with ranges free, the
    /// glue sets the limit to what was live and reclaims instead.
    pub fn limit_live(&mut self, limit: usize) {
        self.live_limit = limit.clamp(1, self.slots.len());
    }

    /// Returns the state of `range`, or `None` if there is no such range.
    pub fn state(&self, range: RangeId) -> Option<RangeState> {
        self.slots.get(range.index()).map(|slot| slot.state)
    }

    /// Returns how many pins hold `range`.
    pub fn pins(&self, range: RangeId) -> u32 {
        self.slots.get(range.index()).map_or(0, |slot| slot.pins)
    }

    /// Says whether `range` is mapped and held by nobody.
    pub fn is_idle(&self, range: RangeId) -> bool {
        self.slots
            .get(range.index())
            .is_some_and(|slot| slot.pins == 0 && matches!(slot.state, RangeState::Mapped(_)))
    }

    /// Returns the range that shows `chunk`, or is about to, or no longer quite.
    pub fn find(&self, inode: InodeKey, chunk: Chunk) -> Option<RangeId> {
        self.index.get((inode, chunk)).map(RangeId::from_index)
    }

    /// Returns the ranges of `inode` from `chunk` on, in file order, for layout
    /// breaks, truncation and eviction.
    pub fn of_inode(
        &self,
        inode: InodeKey,
        from: Chunk,
    ) -> impl Iterator<Item = (Chunk, RangeId)> + '_ {
        self.index
            .of_inode(inode, from)
            .map(|(chunk, slot)| (chunk, RangeId::from_index(slot)))
    }

    /// Pins the range of `chunk` if it shows at least `len` bytes with `rights`.
    pub fn pin(&mut self, inode: InodeKey, chunk: Chunk, len: u32, rights: Rights) -> Pinning {
        let Some(range) = self.find_again(inode, chunk) else {
            return Pinning::Absent;
        };
        let slot = &mut self.slots[range.index()];
        let RangeState::Mapped(mapping) = slot.state else {
            return Pinning::Busy(range);
        };
        if mapping.len < len {
            return Pinning::TooShort(range);
        }
        if mapping.rights < rights {
            return Pinning::ReadOnly(range);
        }
        let Some(pins) = slot.pins.checked_add(1) else {
            return Pinning::Busy(range);
        };
        slot.pins = pins;
        self.totals.pins += 1;
        Pinning::Pinned(Pin {
            range,
            len: mapping.len,
            rights: mapping.rights,
        })
    }

    /// As [`find`](Self::find), for what is likely to have been found before.
    fn find_again(&mut self, inode: InodeKey, chunk: Chunk) -> Option<RangeId> {
        // Chunks of one file that lie side by side have hints side by side.
        let place = (inode.0.wrapping_mul(0x9E37_79B9) ^ chunk.0) as usize & (self.hints.len() - 1);
        let hint = self.hints[place];
        if let Some(slot) = self.slots.get(hint as usize)
            && let RangeState::Mapped(mapping) = &slot.state
            && mapping.inode == inode
            && mapping.chunk == chunk
        {
            return Some(RangeId::from_index(hint));
        }
        let found = self.index.get((inode, chunk))?;
        self.hints[place] = found;
        Some(RangeId::from_index(found))
    }

    /// Gives a pin back. Returns how many are left on the range, so that the
    /// glue can wake whoever waits for zero.
    #[inline]
    pub fn unpin(&mut self, pin: Pin) -> u32 {
        let slot = &mut self.slots[pin.range.index()];
        debug_assert!(slot.pins > 0, "pin of another window");
        if slot.pins == 0 {
            return 0;
        }
        slot.pins -= 1;
        let left = slot.pins;
        self.totals.pins -= 1;
        if left == 0 && matches!(slot.state, RangeState::Orphaned) {
            self.set(pin.range, RangeState::Free);
        }
        left
    }

    /// Takes a free range for `chunk`. Commit it when SETUPMAPPING succeeded,
    /// abort when the server refused it, lose it when nobody knows.
    ///
    /// # Errors
    /// `Present`, `Length`, `Offset`, or `NoFreeRange`.
    pub fn begin_map(
        &mut self,
        inode: InodeKey,
        chunk: Chunk,
        len: u32,
        rights: Rights,
    ) -> Result<MapToken, Refusal> {
        let mapping = self.vet(inode, chunk, len, rights)?;
        if self.available() == 0 {
            return Err(Refusal::NoFreeRange);
        }
        let range = *self.free.last().ok_or(Refusal::NoFreeRange)?;
        self.start_map(range, mapping, None)
    }

    /// Ends a mapping that succeeded. The range comes pinned for the caller, so
    /// that no reclaimer takes it before its first use.
    ///
    /// # Errors
    /// The session was reset meanwhile: the mapping is gone.
    pub fn commit_map(&mut self, token: MapToken) -> Result<Pin, Stale> {
        let range = token.range;
        let RangeState::Mapping { mapping, .. } = self.redeem(range, token.serial)? else {
            return Err(Stale);
        };
        self.set(range, RangeState::Mapped(mapping));
        self.slots[range.index()].pins = 1;
        self.totals.pins += 1;
        Ok(Pin {
            range,
            len: mapping.len,
            rights: mapping.rights,
        })
    }

    /// Ends a mapping that the server refused, or that was never sent. The range
    /// is as it was before.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn abort_map(&mut self, token: MapToken) -> Result<(), Stale> {
        let range = token.range;
        let RangeState::Mapping { mapping, over } = self.redeem(range, token.serial)? else {
            return Err(Stale);
        };
        self.index.remove((mapping.inode, mapping.chunk));
        self.set(range, over.map_or(RangeState::Free, RangeState::Unknown));
        Ok(())
    }

    /// Ends a mapping of which nobody knows whether it happened. The range is
    /// retired.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn lose_map(&mut self, token: MapToken) -> Result<(), Stale> {
        let range = token.range;
        let RangeState::Mapping { mapping, .. } = self.redeem(range, token.serial)? else {
            return Err(Stale);
        };
        self.index.remove((mapping.inode, mapping.chunk));
        self.set(range, RangeState::Unknown(mapping.len));
        Ok(())
    }

    /// Begins to unmap an idle range. From here on nobody can pin it.
    ///
    /// # Errors
    /// `NoSuchRange`; `State` unless Mapped; `Pinned`.
    pub fn begin_unmap(&mut self, range: RangeId) -> Result<UnmapToken, Refusal> {
        let slot = self.slots.get(range.index()).ok_or(Refusal::NoSuchRange)?;
        let RangeState::Mapped(mapping) = slot.state else {
            return Err(Refusal::State);
        };
        if slot.pins > 0 {
            return Err(Refusal::Pinned);
        }
        let request = self.unmap_request(range, mapping.len)?;
        self.set(range, RangeState::Unmapping(mapping));
        Ok(UnmapToken {
            range,
            serial: self.issue(range),
            request,
            mapping,
        })
    }

    /// Ends an unmapping that succeeded. The range is free.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn commit_unmap(&mut self, token: UnmapToken) -> Result<(), Stale> {
        self.end_unmap(token, |_| RangeState::Free)
    }

    /// Ends an unmapping that failed or whose outcome nobody knows. The range is
    /// retired; the chunk may be mapped elsewhere. A failed batch says nothing
    /// of any of its entries: lose them all.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn lose_unmap(&mut self, token: UnmapToken) -> Result<(), Stale> {
        self.end_unmap(token, |mapping| RangeState::Unknown(mapping.len))
    }

    /// Takes back an unmapping that was never sent. The range is mapped as before.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn cancel_unmap(&mut self, token: UnmapToken) -> Result<(), Stale> {
        let RangeState::Unmapping(mapping) = self.redeem(token.range, token.serial)? else {
            return Err(Stale);
        };
        self.set(token.range, RangeState::Mapped(mapping));
        Ok(())
    }

    /// Ends an unmapping that succeeded and begins to map the same chunk into
    /// the same range again, with another length (the file has grown) or other
    /// rights (first write). QEMU cannot map over a live mapping, hence two
    /// requests. Nobody else gets the range in between.
    ///
    /// # Errors
    /// `Length`, with the token back and nothing changed; or no token if the
    /// session was reset meanwhile.
    pub fn remap(
        &mut self,
        token: UnmapToken,
        len: u32,
        rights: Rights,
    ) -> Result<MapToken, RemapError> {
        let range = token.range;
        if !self.fits(len) {
            return Err(RemapError::Length(token));
        }
        let Ok(RangeState::Unmapping(old)) = self.redeem(range, token.serial) else {
            return Err(RemapError::Stale);
        };
        let mapping = Mapping { len, rights, ..old };
        self.set(range, RangeState::Free);
        self.index.remove((old.inode, old.chunk));
        self.start_map(range, mapping, None)
            .map_err(|_| RemapError::Stale)
    }

    pub(super) fn fits(&self, len: u32) -> bool {
        let len = u64::from(len);
        len > 0 && len <= self.geometry.range_size() && len.is_multiple_of(self.geometry.granule())
    }

    pub(super) fn vet(
        &self,
        inode: InodeKey,
        chunk: Chunk,
        len: u32,
        rights: Rights,
    ) -> Result<Mapping, Refusal> {
        if !self.fits(len) {
            return Err(Refusal::Length);
        }
        self.geometry.file_offset(chunk).ok_or(Refusal::Offset)?;
        match self.find(inode, chunk) {
            Some(range) => Err(Refusal::Present(range)),
            None => Ok(Mapping {
                inode,
                chunk,
                len,
                rights,
            }),
        }
    }

    /// `mapping` has been vetted, `range` exists and is Free or Unknown.
    pub(super) fn start_map(
        &mut self,
        range: RangeId,
        mapping: Mapping,
        over: Option<u32>,
    ) -> Result<MapToken, Refusal> {
        let request = MapRequest {
            file_offset: self
                .geometry
                .file_offset(mapping.chunk)
                .ok_or(Refusal::Offset)?,
            window_offset: self
                .geometry
                .window_offset(range, 0)
                .ok_or(Refusal::NoSuchRange)?,
            len: mapping.len,
            rights: mapping.rights,
        };
        if !self
            .index
            .insert((mapping.inode, mapping.chunk), range.index() as u32)
        {
            return Err(Refusal::NoFreeRange);
        }
        self.set(range, RangeState::Mapping { mapping, over });
        Ok(MapToken {
            range,
            serial: self.issue(range),
            request,
        })
    }

    fn end_unmap(
        &mut self,
        token: UnmapToken,
        next: impl FnOnce(Mapping) -> RangeState,
    ) -> Result<(), Stale> {
        let RangeState::Unmapping(mapping) = self.redeem(token.range, token.serial)? else {
            return Err(Stale);
        };
        self.index.remove((mapping.inode, mapping.chunk));
        self.set(token.range, next(mapping));
        Ok(())
    }

    pub(super) fn unmap_request(&self, range: RangeId, len: u32) -> Result<UnmapRequest, Refusal> {
        let window_offset = self.geometry.window_offset(range, 0);
        window_offset
            .map(|window_offset| UnmapRequest { window_offset, len })
            .ok_or(Refusal::NoSuchRange)
    }

    pub(super) fn issue(&mut self, range: RangeId) -> Serial {
        // 2^64 steps take longer than any machine lasts; wrapping would only skip 0.
        let serial = NonZeroU64::new(self.next_serial).unwrap_or(NonZeroU64::MIN);
        self.next_serial = self.next_serial.wrapping_add(1);
        self.slots[range.index()].serial = Some(serial);
        serial
    }

    /// Checks a token against its range and takes the serial off it.
    pub(super) fn redeem(&mut self, range: RangeId, serial: Serial) -> Result<RangeState, Stale> {
        let slot = self.slots.get_mut(range.index()).ok_or(Stale)?;
        if slot.serial != Some(serial) {
            return Err(Stale);
        }
        slot.serial = None;
        Ok(slot.state)
    }

    /// The only place that changes a state: keeps totals and free list in step.
    pub(super) fn set(&mut self, range: RangeId, next: RangeState) {
        let old = core::mem::replace(&mut self.slots[range.index()].state, next);
        log::trace!("dax range {}: {old:?} -> {next:?}", range.index());
        self.totals.leave(old);
        self.totals.enter(next);
        match (old == RangeState::Free, next == RangeState::Free) {
            // Ranges are taken from the end, remapped ones and reset too.
            (true, false) => {
                if let Some(at) = self.free.iter().rposition(|&free| free == range) {
                    self.free.swap_remove(at);
                }
            }
            (false, true) => self.free.push(range),
            _ => {}
        }
    }
}
