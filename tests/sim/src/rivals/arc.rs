//! ARC: a list of what was seen once and one of what was seen more often, with
//! ghosts of each that shift the balance.

use std::collections::HashMap;

use virtio_fs::dax::{Access, Admission, InodeKey, Policy, RangeId};

use super::{Key, Queue, Repeats, key};

/// The policy.
#[derive(Debug)]
pub struct Arc {
    ranges: usize,
    /// How many ranges the list of what was seen once should have.
    target: usize,
    once: Queue<RangeId>,
    often: Queue<RangeId>,
    once_ghosts: Queue<Key>,
    often_ghosts: Queue<Key>,
    keys: HashMap<RangeId, Key>,
    repeats: Repeats,
    /// The chunk to be mapped was a ghost, of the frequent kind or not.
    returning: Option<bool>,
}

impl Arc {
    /// For a window of `ranges`.
    pub fn new(ranges: usize) -> Self {
        Self {
            ranges,
            target: 0,
            once: Queue::new(),
            often: Queue::new(),
            once_ghosts: Queue::new(),
            often_ghosts: Queue::new(),
            keys: HashMap::new(),
            repeats: Repeats::default(),
            returning: None,
        }
    }
}

impl Policy for Arc {
    fn hit(&mut self, range: RangeId, _: &Access) {
        if !self.repeats.is_repeat(range) && (self.once.take(range) || self.often.take(range)) {
            self.often.push(range);
        }
    }

    fn admit(&mut self, access: &Access, _: usize) -> Admission {
        let (once, often) = (
            self.once_ghosts.len().max(1),
            self.often_ghosts.len().max(1),
        );
        self.returning = None;
        if self.once_ghosts.take(key(access)) {
            self.target = (self.target + (often / once).max(1)).min(self.ranges);
            self.returning = Some(false);
        } else if self.often_ghosts.take(key(access)) {
            self.target = self.target.saturating_sub((once / often).max(1));
            self.returning = Some(true);
        }
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        self.repeats.is_repeat(range);
        self.keys.insert(range, key(access));
        if self.returning.take().is_some() {
            self.often.push(range);
        } else {
            self.once.push(range);
        }
    }

    fn unmapped(&mut self, range: RangeId) {
        let Some(key) = self.keys.remove(&range) else {
            return;
        };
        if self.once.take(range) {
            self.once_ghosts.push(key);
            self.once_ghosts
                .trim(self.ranges - self.once.len().min(self.ranges));
        } else if self.often.take(range) {
            self.often_ghosts.push(key);
            let others = self.once.len() + self.often.len() + self.once_ghosts.len();
            self.often_ghosts
                .trim((2 * self.ranges).saturating_sub(others));
        }
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        let once = self.once.len();
        let from_once =
            once > self.target || (once > 0 && once == self.target && self.returning == Some(true));
        if from_once || self.often.len() == 0 {
            self.once.first(&mut *may).or_else(|| self.often.first(may))
        } else {
            self.often.first(&mut *may).or_else(|| self.once.first(may))
        }
    }

    fn reset(&mut self) {
        *self = Self::new(self.ranges);
    }
}
