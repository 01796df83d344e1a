//! The way back for ranges of unknown fate, and the end of a session.
//!
//! Linux uses a range again although its unmapping failed, DragonOS never
//! again. Here it is retired until something proves its state: an exact
//! unmapping that succeeds, a mapping in its place that succeeds, or a reset of
//! the device, which removes all mappings.

use super::geometry::{Chunk, InodeKey, RangeId, Rights};
use super::range::{MapToken, RangeState, Refusal, RepairToken, Stale};
use super::window::Window;

impl Window {
    /// Returns the first range of unknown fate from `from` on, for repair.
    pub fn next_unknown(&self, from: usize) -> Option<RangeId> {
        let rest = self.slots.get(from..)?;
        let step = rest
            .iter()
            .position(|slot| matches!(slot.state, RangeState::Unknown(_)))?;
        Some(RangeId::from_index((from + step) as u32))
    }

    /// Takes a range of unknown fate for `chunk`: a mapping that succeeds in the
    /// place of the old one proves the state as well as an unmapping does. By
    /// the specification it replaces what was there; QEMU refuses if something
    /// was. `len` must equal the unknown length, so that nothing of the old
    /// mapping can stick out.
    ///
    /// # Errors
    /// As [`begin_map`](Self::begin_map); `NoSuchRange`; `State` if `range` is not Unknown.
    pub fn begin_map_over(
        &mut self,
        range: RangeId,
        inode: InodeKey,
        chunk: Chunk,
        len: u32,
        rights: Rights,
    ) -> Result<MapToken, Refusal> {
        let mapping = self.vet(inode, chunk, len, rights)?;
        match self.state(range).ok_or(Refusal::NoSuchRange)? {
            RangeState::Unknown(old) if old == len => self.start_map(range, mapping, Some(old)),
            RangeState::Unknown(_) => Err(Refusal::Length),
            _ => Err(Refusal::State),
        }
    }

    /// Begins to repair a range of unknown fate by unmapping exactly what may be
    /// there. If that fails too, [`begin_map_over`](Self::begin_map_over) or a
    /// reset of the device is left.
    ///
    /// # Errors
    /// `NoSuchRange`; `State` unless Unknown.
    pub fn begin_repair(&mut self, range: RangeId) -> Result<RepairToken, Refusal> {
        let RangeState::Unknown(len) = self.state(range).ok_or(Refusal::NoSuchRange)? else {
            return Err(Refusal::State);
        };
        let request = self.unmap_request(range, len)?;
        self.set(range, RangeState::Repairing(len));
        Ok(RepairToken {
            range,
            serial: self.issue(range),
            request,
        })
    }

    /// Ends a repair that succeeded. The range is free again.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn commit_repair(&mut self, token: RepairToken) -> Result<(), Stale> {
        self.redeem(token.range, token.serial)?;
        self.set(token.range, RangeState::Free);
        Ok(())
    }

    /// Ends a repair that failed. The range stays retired.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn fail_repair(&mut self, token: RepairToken) -> Result<(), Stale> {
        let RangeState::Repairing(len) = self.redeem(token.range, token.serial)? else {
            return Err(Stale);
        };
        self.set(token.range, RangeState::Unknown(len));
        Ok(())
    }

    /// Forgets everything: the device was reset, which removes all mappings and
    /// ends all requests. Ranges that are still pinned become free with their
    /// last pin.
    pub fn reset(&mut self) {
        self.index.clear();
        self.live_limit = self.slots.len();
        for index in 0..self.slots.len() {
            let range = RangeId::from_index(index as u32);
            self.slots[index].serial = None;
            let state = if self.slots[index].pins > 0 {
                RangeState::Orphaned
            } else {
                RangeState::Free
            };
            self.set(range, state);
        }
    }
}
