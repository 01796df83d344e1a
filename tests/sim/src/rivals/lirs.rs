//! LIRS, which CLOCK-Pro approximates: the reuse distance of a newcomer against
//! the recency of those that stay.

use virtio_fs::dax::{Access, Admission, InodeKey, Policy, RangeId};

use super::{Key, Queue, Repeats, key};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Low,
    High,
}

/// The policy. The stack's last entry is the latest.
#[derive(Debug)]
pub struct Lirs {
    ranges: usize,
    stack: Vec<(Key, Status)>,
    resident: Vec<Option<Key>>,
    high: Queue<RangeId>,
    repeats: Repeats,
}

impl Lirs {
    /// For a window of `ranges`.
    pub fn new(ranges: usize) -> Self {
        Self {
            ranges,
            stack: Vec::new(),
            resident: vec![None; ranges],
            high: Queue::new(),
            repeats: Repeats::default(),
        }
    }

    fn low_limit(&self) -> usize {
        self.ranges - (self.ranges / 20).max(1)
    }

    fn lows(&self) -> usize {
        let low = |entry: &&(Key, Status)| entry.1 == Status::Low;
        self.stack.iter().filter(low).count()
    }

    /// The oldest entry of the stack is always one that stays.
    fn prune(&mut self) {
        let first_low = self.stack.iter().position(|entry| entry.1 == Status::Low);
        self.stack.drain(..first_low.unwrap_or(self.stack.len()));
        // Bounds the ghosts; the original leaves that open.
        while self.stack.len() > 6 * self.ranges {
            let resident = &self.resident;
            let ghost = |entry: &(Key, Status)| !resident.contains(&Some(entry.0));
            match self.stack.iter().position(ghost) {
                Some(place) => self.stack.remove(place),
                None => return,
            };
        }
    }

    fn touch(&mut self, range: RangeId, key: Key) {
        let place = self.stack.iter().position(|entry| entry.0 == key);
        let old = place.map(|place| self.stack.remove(place).1);
        let status = match old {
            Some(Status::Low) => Status::Low,
            Some(Status::High) => Status::Low,
            None if self.lows() < self.low_limit() => Status::Low,
            None => Status::High,
        };
        self.stack.push((key, status));
        self.high.take(range);
        if status == Status::High {
            self.high.push(range);
        }
        if self.lows() > self.low_limit() {
            // Pruned, so the first is one that stayed; now it does not.
            let (demoted, _) = self.stack.remove(0);
            let place = self
                .resident
                .iter()
                .position(|&other| other == Some(demoted));
            if let Some(place) = place {
                self.high.push(RangeId::from_index(place as u32));
            }
        }
        self.prune();
    }
}

impl Policy for Lirs {
    fn hit(&mut self, range: RangeId, access: &Access) {
        if !self.repeats.is_repeat(range) {
            self.touch(range, key(access));
        }
    }

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        self.repeats.is_repeat(range);
        self.resident[range.index()] = Some(key(access));
        self.touch(range, key(access));
    }

    fn unmapped(&mut self, range: RangeId) {
        self.resident[range.index()] = None;
        self.high.take(range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        if let Some(range) = self.high.first(&mut *may) {
            return Some(range);
        }
        let order = self.stack.iter().map(|entry| entry.0);
        let place = |key| self.resident.iter().position(|&other| other == Some(key));
        let ranges = order
            .filter_map(place)
            .map(|at| RangeId::from_index(at as u32));
        ranges.into_iter().find(|&range| may(range))
    }

    fn reset(&mut self) {
        *self = Self::new(self.ranges);
    }
}
