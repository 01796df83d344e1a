//! What is remembered of chunks that are not mapped.
//!
//! A bounded table, ordered by last access. When it is full the one accessed
//! longest ago goes, but a chunk that proved useful is passed over a few times,
//! so that a long scan does not wash the useful ones out.

use alloc::vec::Vec;

use super::super::keymap::{FileChunk, KeyMap};
use super::list::List;
use super::score::Score;

/// How a burst began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// With an access that continued the one before.
    InSequence,
    /// Otherwise.
    Anew,
}

/// What is known of one chunk, mapped or not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct History {
    /// Decaying sum of what mappings saved, or would have saved.
    pub(super) score: Score,
    /// The score as it was when the current burst began.
    pub(super) prior: Score,
    /// Tick of the last access.
    pub(super) last: u64,
    /// Tick at which the current burst of accesses began.
    pub(super) began: u64,
    /// What the current burst has added to the score.
    pub(super) burst: u32,
    /// What all accesses after the first burst would have saved, up to the cost
    /// of a mapping.
    pub(super) later: u32,
    /// What requests have cost more than accesses through the window would have,
    /// since the burst began or was cut short.
    pub(super) regret: u32,
    /// How often the current burst was cut short by an unmapping.
    pub(super) cuts: u32,
    /// Number of the access with which the current burst began.
    pub(super) began_at: u64,
    /// Its number as a newcomer.
    pub(super) newcomer: u32,
    /// The current burst began on a chunk that was not mapped: in sequence or not.
    pub(super) absent: Option<Start>,
    /// Whether there was an access at all.
    pub(super) known: bool,
    /// Whether it was admitted in the hope that it will be used again.
    pub(super) promising: bool,
    /// Whether it was mapped at all since it was a newcomer.
    pub(super) tried: bool,
    /// Whether it was mapped since the last access that found it absent.
    pub(super) unmapped: bool,
    /// Whether it was mapped, in passing, when last seen.
    pub(super) passed: bool,
}

#[derive(Debug)]
struct Ghost {
    key: FileChunk,
    history: History,
}

/// The table.
#[derive(Debug)]
pub(super) struct Ghosts {
    ghosts: Vec<Option<Ghost>>,
    index: KeyMap,
    recency: List,
    unused: Vec<u32>,
}

impl Ghosts {
    /// Bytes per entry.
    pub(super) const ENTRY_BYTES: usize =
        size_of::<Option<Ghost>>() + KeyMap::ENTRY_BYTES + List::SLOT_BYTES + size_of::<u32>();

    /// How many useful entries are passed over in search of a useless one.
    const PASSES: usize = 4;

    pub(super) fn new(capacity: usize) -> Self {
        Self {
            ghosts: (0..capacity).map(|_| None).collect(),
            index: KeyMap::new(capacity),
            recency: List::new(capacity),
            unused: (0..capacity as u32).rev().collect(),
        }
    }

    pub(super) fn get(&self, key: FileChunk) -> Option<&History> {
        let slot = self.index.get(key)?;
        self.ghosts[slot as usize]
            .as_ref()
            .map(|ghost| &ghost.history)
    }

    pub(super) fn take(&mut self, key: FileChunk) -> Option<History> {
        let slot = self.index.remove(key)?;
        self.recency.remove(slot);
        self.unused.push(slot);
        self.ghosts[slot as usize].take().map(|ghost| ghost.history)
    }

    /// Remembers `history` as of now. Entries for which `useless` holds go first.
    pub(super) fn put(
        &mut self,
        key: FileChunk,
        history: History,
        useless: impl Fn(&History) -> bool,
    ) {
        if let Some(slot) = self.index.get(key) {
            self.ghosts[slot as usize] = Some(Ghost { key, history });
            self.recency.touch(slot);
            return;
        }
        if self.unused.is_empty() {
            self.make_room(useless);
        }
        let Some(slot) = self.unused.pop() else {
            return;
        };
        self.ghosts[slot as usize] = Some(Ghost { key, history });
        self.index.insert(key, slot);
        self.recency.push_last(slot);
    }

    pub(super) fn clear(&mut self) {
        while let Some(slot) = self.recency.first() {
            self.forget(slot);
        }
    }

    fn make_room(&mut self, useless: impl Fn(&History) -> bool) {
        for _ in 0..Self::PASSES {
            let Some(slot) = self.recency.first() else {
                return;
            };
            let ghost = self.ghosts[slot as usize].as_ref();
            if ghost.is_none_or(|ghost| useless(&ghost.history)) {
                break;
            }
            self.recency.touch(slot);
        }
        if let Some(slot) = self.recency.first() {
            self.forget(slot);
        }
    }

    fn forget(&mut self, slot: u32) {
        self.recency.remove(slot);
        if let Some(ghost) = self.ghosts[slot as usize].take() {
            self.index.remove(ghost.key);
        }
        self.unused.push(slot);
    }
}
