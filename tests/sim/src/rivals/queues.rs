//! Policies of two queues and a list of ghosts: 2Q and S3-FIFO.

use std::collections::HashMap;

use virtio_fs::dax::{Access, Admission, InodeKey, Policy, RangeId};

use super::{Key, Queue, Repeats, key};

/// 2Q: newcomers pass a FIFO of a quarter of the ranges; what comes back after
/// it joins an LRU list. Ghosts for half as many ranges as the window has.
#[derive(Debug)]
pub struct TwoQueues {
    ranges: usize,
    new: Queue<RangeId>,
    main: Queue<RangeId>,
    ghosts: Queue<Key>,
    keys: HashMap<RangeId, Key>,
    repeats: Repeats,
}

impl TwoQueues {
    /// For a window of `ranges`.
    pub fn new(ranges: usize) -> Self {
        Self {
            ranges,
            new: Queue::new(),
            main: Queue::new(),
            ghosts: Queue::new(),
            keys: HashMap::new(),
            repeats: Repeats::default(),
        }
    }
}

impl Policy for TwoQueues {
    fn hit(&mut self, range: RangeId, _: &Access) {
        if !self.repeats.is_repeat(range) && self.main.take(range) {
            self.main.push(range);
        }
    }

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        self.keys.insert(range, key(access));
        if self.ghosts.take(key(access)) {
            self.main.push(range);
        } else {
            self.new.push(range);
        }
    }

    fn unmapped(&mut self, range: RangeId) {
        let key = self.keys.remove(&range);
        if self.new.take(range) {
            key.into_iter().for_each(|key| self.ghosts.push(key));
            self.ghosts.trim((self.ranges / 2).max(1));
        }
        self.main.take(range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        if self.new.len() > self.ranges / 4 {
            self.new.first(&mut *may).or_else(|| self.main.first(may))
        } else {
            self.main.first(&mut *may).or_else(|| self.new.first(may))
        }
    }

    fn reset(&mut self) {
        *self = Self::new(self.ranges);
    }
}

/// S3-FIFO: a small FIFO of a tenth, a main FIFO with up to three second
/// chances, ghosts for as many ranges as the window has.
#[derive(Debug)]
pub struct S3Fifo {
    ranges: usize,
    small: Queue<RangeId>,
    main: Queue<RangeId>,
    ghosts: Queue<Key>,
    counts: HashMap<RangeId, (Key, u8)>,
    repeats: Repeats,
}

impl S3Fifo {
    /// For a window of `ranges`.
    pub fn new(ranges: usize) -> Self {
        Self {
            ranges,
            small: Queue::new(),
            main: Queue::new(),
            ghosts: Queue::new(),
            counts: HashMap::new(),
            repeats: Repeats::default(),
        }
    }
}

impl Policy for S3Fifo {
    fn hit(&mut self, range: RangeId, _: &Access) {
        if self.repeats.is_repeat(range) {
            return;
        }
        if let Some((_, count)) = self.counts.get_mut(&range) {
            *count = (*count + 1).min(3);
        }
    }

    fn admit(&mut self, _: &Access, _: usize) -> Admission {
        Admission::Map
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        self.repeats.is_repeat(range);
        self.counts.insert(range, (key(access), 0));
        if self.ghosts.take(key(access)) {
            self.main.push(range);
        } else {
            self.small.push(range);
        }
    }

    fn unmapped(&mut self, range: RangeId) {
        let entry = self.counts.remove(&range);
        if self.small.take(range) {
            entry.into_iter().for_each(|(key, _)| self.ghosts.push(key));
            self.ghosts.trim(self.ranges);
        }
        self.main.take(range);
    }

    fn victim(
        &mut self,
        _: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        // Each step moves a range on or takes a second chance away.
        for _ in 0..6 * self.ranges + 6 {
            let from_small = self.small.len() * 10 >= self.ranges || self.main.len() == 0;
            let queue = if from_small {
                &mut self.small
            } else {
                &mut self.main
            };
            let Some(range) = queue.pop() else {
                continue;
            };
            let count = self.counts.get_mut(&range).map(|(_, count)| count);
            match count {
                Some(count) if from_small && *count > 0 => {
                    *count = 0;
                    self.main.push(range);
                }
                Some(count) if *count > 0 => {
                    *count -= 1;
                    self.main.push(range);
                }
                _ if may(range) => {
                    let queue = if from_small {
                        &mut self.small
                    } else {
                        &mut self.main
                    };
                    queue.push(range);
                    return Some(range);
                }
                _ => self.main.push(range),
            }
        }
        None
    }

    fn reset(&mut self) {
        *self = Self::new(self.ranges);
    }
}
