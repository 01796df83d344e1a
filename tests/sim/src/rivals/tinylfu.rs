//! W-TinyLFU: a small LRU window in front of a segmented LRU; what leaves the
//! window must be more frequent than what it would displace. Frequencies are
//! exact here and halved from time to time.

use std::collections::HashMap;

use virtio_fs::dax::{Access, Admission, InodeKey, Policy, RangeId};

use super::{Key, Queue, Repeats, key};

/// The policy.
#[derive(Debug)]
pub struct TinyLfu {
    ranges: usize,
    new: Queue<RangeId>,
    probation: Queue<RangeId>,
    protected: Queue<RangeId>,
    counts: HashMap<Key, u32>,
    noted: usize,
    keys: HashMap<RangeId, Key>,
    repeats: Repeats,
}

impl TinyLfu {
    /// For a window of `ranges`.
    pub fn new(ranges: usize) -> Self {
        Self {
            ranges,
            new: Queue::new(),
            probation: Queue::new(),
            protected: Queue::new(),
            counts: HashMap::new(),
            noted: 0,
            keys: HashMap::new(),
            repeats: Repeats::default(),
        }
    }

    fn note(&mut self, key: Key) {
        *self.counts.entry(key).or_default() += 1;
        self.noted += 1;
        if self.noted >= 10 * self.ranges {
            self.noted = 0;
            self.counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }

    fn count(&self, range: RangeId) -> u32 {
        let key = self.keys.get(&range);
        key.and_then(|key| self.counts.get(key))
            .copied()
            .unwrap_or(0)
    }
}

impl Policy for TinyLfu {
    fn hit(&mut self, range: RangeId, access: &Access) {
        if self.repeats.is_repeat(range) {
            return;
        }
        self.note(key(access));
        if self.new.take(range) {
            self.new.push(range);
        } else if self.probation.take(range) || self.protected.take(range) {
            self.protected.push(range);
            if self.protected.len() > self.ranges * 4 / 5 {
                let demoted = self.protected.pop();
                demoted
                    .into_iter()
                    .for_each(|range| self.probation.push(range));
            }
        }
    }

    fn admit(&mut self, access: &Access, _: usize) -> Admission {
        self.note(key(access));
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        self.repeats.is_repeat(range);
        self.keys.insert(range, key(access));
        self.new.push(range);
        while self.new.len() > (self.ranges / 50).max(1) {
            let aged = self.new.pop();
            aged.into_iter()
                .for_each(|range| self.probation.push(range));
        }
    }

    fn unmapped(&mut self, range: RangeId) {
        self.keys.remove(&range);
        let _ = self.new.take(range) || self.probation.take(range) || self.protected.take(range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        let candidate = self.new.first(&mut *may);
        let resident = self.probation.first(&mut *may);
        let resident = resident.or_else(|| self.protected.first(may));
        match (candidate, resident) {
            (Some(candidate), Some(resident)) => {
                let wins = self.count(candidate) > self.count(resident);
                Some(if wins { resident } else { candidate })
            }
            (candidate, resident) => candidate.or(resident),
        }
    }

    fn reset(&mut self) {
        *self = Self::new(self.ranges);
    }
}
