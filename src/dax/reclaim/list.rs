//! Doubly linked lists over slot numbers: fixed memory, O(1) moves.
//!
//! A slot is in at most one list of its table. Links are numbers, not
//! pointers, because slots already have numbers.

use alloc::vec::Vec;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

/// One list. The table has one link per slot.
#[derive(Debug)]
pub(super) struct List {
    links: Vec<Link>,
    first: u32,
    last: u32,
    len: usize,
}

impl List {
    /// Bytes per slot.
    pub(super) const SLOT_BYTES: usize = size_of::<Link>();

    pub(super) fn new(slots: usize) -> Self {
        let link = Link {
            previous: NONE,
            next: NONE,
        };
        Self {
            links: (0..slots).map(|_| link).collect(),
            first: NONE,
            last: NONE,
            len: 0,
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        core::iter::successors(self.first(), |&slot| {
            let next = self.links[slot as usize].next;
            (next != NONE).then_some(next)
        })
    }

    /// Adds a slot that is not in the list, as the last.
    pub(super) fn push_last(&mut self, slot: u32) {
        self.links[slot as usize] = Link {
            previous: self.last,
            next: NONE,
        };
        match self.last {
            NONE => self.first = slot,
            last => self.links[last as usize].next = slot,
        }
        self.last = slot;
        self.len += 1;
    }

    /// Adds a slot that is not in the list, as the first.
    pub(super) fn push_first(&mut self, slot: u32) {
        self.links[slot as usize] = Link {
            previous: NONE,
            next: self.first,
        };
        match self.first {
            NONE => self.last = slot,
            first => self.links[first as usize].previous = slot,
        }
        self.first = slot;
        self.len += 1;
    }

    /// Takes a slot out that is in the list.
    pub(super) fn remove(&mut self, slot: u32) {
        let Link { previous, next } = self.links[slot as usize];
        match previous {
            NONE => self.first = next,
            previous => self.links[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            next => self.links[next as usize].previous = previous,
        }
        self.len -= 1;
    }

    /// Makes a slot of the list the last.
    pub(super) fn touch(&mut self, slot: u32) {
        if self.last != slot {
            self.remove(slot);
            self.push_last(slot);
        }
    }

    pub(super) fn clear(&mut self) {
        (self.first, self.last, self.len) = (NONE, NONE, 0);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;
    use std::vec::Vec;

    use super::*;
    use crate::dax::testing::Random;

    #[test]
    fn list_agrees_with_a_deque() {
        let seed = 0x5eed_0201;
        std::println!("seed {seed:#x}");
        let mut random = Random(seed);
        let (mut list, mut model) = (List::new(6), VecDeque::new());
        for _ in 0..20_000 {
            let slot = random.below(6) as u32;
            let within = model.contains(&slot);
            match (within, random.below(3)) {
                (false, 0) => {
                    list.push_first(slot);
                    model.push_front(slot);
                }
                (false, _) => {
                    list.push_last(slot);
                    model.push_back(slot);
                }
                (true, which) => {
                    model.retain(|&other| other != slot);
                    if which == 0 {
                        list.touch(slot);
                        model.push_back(slot);
                    } else {
                        list.remove(slot);
                    }
                }
            }
            assert_eq!(list.iter().collect::<Vec<_>>(), Vec::from(model.clone()));
            assert_eq!(list.len(), model.len());
            assert_eq!(list.first(), model.front().copied());
        }
    }
}
