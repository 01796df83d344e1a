//! The three systems' policies, and LRU.

use virtio_fs::dax::{Access, Admission, InodeKey, Policy, RangeId};

use super::{Queue, Repeats};

/// Linux: oldest mapping first. A worker keeps a fifth of the ranges free, ten
/// at most per run, one REMOVEMAPPING each.
#[derive(Debug)]
pub struct Fifo {
    busy: Queue<RangeId>,
    ranges: usize,
}

impl Fifo {
    /// For a window of `ranges`.
    pub const fn new(ranges: usize) -> Self {
        Self {
            busy: Queue::new(),
            ranges,
        }
    }
}

impl Policy for Fifo {
    fn hit(&mut self, _: RangeId, _: &Access) {}

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, _: &Access) {
        self.busy.push(range);
    }

    fn unmapped(&mut self, range: RangeId) {
        self.busy.take(range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        self.busy.first(may)
    }

    fn surplus(&self, free: usize) -> usize {
        if free < (self.ranges / 5).max(1) {
            10
        } else {
            0
        }
    }

    fn reset(&mut self) {
        self.busy = Queue::new();
    }
}

/// OSv: latest mapping first.
#[derive(Debug, Default)]
pub struct Lifo {
    stack: Vec<RangeId>,
}

impl Policy for Lifo {
    fn hit(&mut self, _: RangeId, _: &Access) {}

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, _: &Access) {
        self.stack.push(range);
    }

    fn unmapped(&mut self, range: RangeId) {
        self.stack.retain(|&other| other != range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        self.stack.iter().rev().copied().find(|&range| may(range))
    }

    fn reset(&mut self) {
        self.stack.clear();
    }
}

/// DragonOS: a hand that goes round when nothing is free and spares what was
/// accessed since it last passed.
#[derive(Debug)]
pub struct Clock {
    accessed: Vec<bool>,
    hand: usize,
}

impl Clock {
    /// For a window of `ranges`.
    pub fn new(ranges: usize) -> Self {
        Self {
            accessed: vec![false; ranges],
            hand: 0,
        }
    }
}

impl Policy for Clock {
    fn hit(&mut self, range: RangeId, _: &Access) {
        self.accessed[range.index()] = true;
    }

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, _: &Access) {
        self.accessed[range.index()] = true;
    }

    fn unmapped(&mut self, range: RangeId) {
        self.accessed[range.index()] = false;
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        for _ in 0..2 * self.accessed.len() + 1 {
            let range = RangeId::from_index(self.hand as u32);
            self.hand = (self.hand + 1) % self.accessed.len();
            let spared = std::mem::take(&mut self.accessed[range.index()]);
            if !spared && may(range) {
                return Some(range);
            }
        }
        None
    }

    fn reset(&mut self) {
        self.accessed.fill(false);
    }
}

/// Least recently used first.
#[derive(Debug)]
pub struct Lru {
    order: Queue<RangeId>,
    repeats: Repeats,
}

impl Default for Lru {
    fn default() -> Self {
        Self {
            order: Queue::new(),
            repeats: Repeats::default(),
        }
    }
}

impl Policy for Lru {
    fn hit(&mut self, range: RangeId, _: &Access) {
        if !self.repeats.is_repeat(range) && self.order.take(range) {
            self.order.push(range);
        }
    }

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, _: &Access) {
        self.order.push(range);
    }

    fn unmapped(&mut self, range: RangeId) {
        self.order.take(range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        self.order.first(may)
    }

    fn reset(&mut self) {
        self.order = Queue::new();
    }
}
