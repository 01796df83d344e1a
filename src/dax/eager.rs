//! Whether to map at the first touch while ranges are free.
//!
//! Mapping at once is right if most mappings pay for themselves, reading first
//! is right for files that are touched once. Which of the two holds is learnt:
//! each early mapping is judged after a number of further ones, or when it
//! goes, by whether it had saved its cost.

use alloc::vec::Vec;

use super::geometry::RangeId;

/// Early mappings under watch, and the verdict so far.
#[derive(Debug)]
pub(super) struct Eager {
    watched: Vec<Option<Trial>>,
    next: usize,
    /// Share of early mappings that paid, in 1/256, recent ones weighing more.
    paid: u32,
    refused: u32,
}

/// Names one early mapping of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) range: RangeId,
    pub(super) serial: u32,
}

impl Eager {
    /// After how many further early mappings one is judged, at most.
    const WATCHED: usize = 64;
    /// Every so often one is tried although few have paid.
    const PROBE: u32 = 32;

    /// Starts hopeful: an empty window is there to be filled.
    pub(super) fn new(window: usize) -> Self {
        Self {
            watched: (0..window.min(Self::WATCHED)).map(|_| None).collect(),
            next: 0,
            paid: 256,
            refused: 0,
        }
    }

    /// Says whether to map at once.
    pub(super) fn advises(&mut self) -> bool {
        if self.paid >= 128 {
            return true;
        }
        self.refused = (self.refused + 1) % Self::PROBE;
        self.refused == 0
    }

    /// Watches an early mapping. Returns the one whose time is up.
    pub(super) fn watch(&mut self, trial: Trial) -> Option<Trial> {
        let due = self.watched[self.next].replace(trial);
        self.next = (self.next + 1) % self.watched.len();
        due
    }

    /// Notes how much of its cost a mapping had saved, in 1/256.
    pub(super) fn judge(&mut self, paid: u32) {
        self.paid = (self.paid * 7 + paid.min(256)) / 8;
    }
}
