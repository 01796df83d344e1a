//! Sums over the ranges of a window, kept in step with every change of state.

use super::range::RangeState;

/// How many ranges are in which state, and the bytes that the host is known to
/// map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ranges that are Free.
    pub free: usize,
    /// Ranges that are Mapped.
    pub mapped: usize,
    /// Ranges that are Mapping, Unmapping or Repairing.
    pub busy: usize,
    /// Ranges that are Unknown.
    pub unknown: usize,
    /// Ranges that are Orphaned.
    pub orphaned: usize,
    /// Bytes of files shown by Mapped and Unmapping ranges.
    pub mapped_bytes: u64,
    /// Pins out.
    pub pins: u64,
}

impl Totals {
    fn part(&mut self, state: RangeState) -> (&mut usize, u64) {
        match state {
            RangeState::Free => (&mut self.free, 0),
            RangeState::Mapped(mapping) => (&mut self.mapped, mapping.len.into()),
            RangeState::Unmapping(mapping) => (&mut self.busy, mapping.len.into()),
            RangeState::Mapping { .. } | RangeState::Repairing(_) => (&mut self.busy, 0),
            RangeState::Unknown(_) => (&mut self.unknown, 0),
            RangeState::Orphaned => (&mut self.orphaned, 0),
        }
    }

    pub(super) fn leave(&mut self, state: RangeState) {
        let (count, bytes) = self.part(state);
        *count -= 1;
        self.mapped_bytes -= bytes;
    }

    pub(super) fn enter(&mut self, state: RangeState) {
        let (count, bytes) = self.part(state);
        *count += 1;
        self.mapped_bytes += bytes;
    }
}
