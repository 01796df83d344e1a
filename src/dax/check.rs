//! The ledger's invariants, walked for tests.

use super::geometry::RangeId;
use super::range::RangeState;
use super::totals::Totals;
use super::window::Window;

impl Window {
    /// Walks everything and compares it with the invariants at the top.
    pub(super) fn check(&self) {
        let mut totals = Totals::default();
        let mut indexed = 0;
        for (at, slot) in self.slots.iter().enumerate() {
            let range = RangeId::from_index(at as u32);
            totals.enter(slot.state);
            totals.pins += u64::from(slot.pins);
            let listed = self.free.iter().filter(|&&free| free == range).count();
            assert_eq!(
                listed,
                usize::from(slot.state == RangeState::Free),
                "free list"
            );
            if let RangeState::Mapping { mapping, .. }
            | RangeState::Mapped(mapping)
            | RangeState::Unmapping(mapping) = slot.state
            {
                indexed += 1;
                assert_eq!(
                    self.find(mapping.inode, mapping.chunk),
                    Some(range),
                    "index"
                );
                assert!(self.fits(mapping.len), "length");
            }
            let pinnable = matches!(slot.state, RangeState::Mapped(_) | RangeState::Orphaned);
            assert!(slot.pins == 0 || pinnable, "pins on {:?}", slot.state);
            assert!(
                slot.pins > 0 || slot.state != RangeState::Orphaned,
                "orphan"
            );
            let busy = matches!(
                slot.state,
                RangeState::Mapping { .. } | RangeState::Unmapping(_) | RangeState::Repairing(_)
            );
            assert_eq!(slot.serial.is_some(), busy, "serial on {:?}", slot.state);
        }
        assert_eq!(self.index.len(), indexed, "index size");
        assert_eq!(self.totals, totals);
    }
}
