//! A binary heap over slot numbers whose keys may change: fixed memory,
//! O(log n) changes, the least key at hand.

use alloc::vec::Vec;

const NONE: u32 = u32::MAX;

/// The heap. A slot is in it at most once.
#[derive(Debug)]
pub(super) struct Heap<K> {
    entries: Vec<(K, u32)>,
    places: Vec<u32>,
}

impl<K: Ord + Copy> Heap<K> {
    /// Bytes per slot.
    pub(super) const SLOT_BYTES: usize = size_of::<(K, u32)>() + size_of::<u32>();

    pub(super) fn new(slots: usize) -> Self {
        Self {
            entries: Vec::with_capacity(slots),
            places: (0..slots).map(|_| NONE).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn least(&self) -> Option<(K, u32)> {
        self.entries.first().copied()
    }

    /// Returns the slots, each before those of greater keys below it.
    pub(super) fn iter(&self) -> impl Iterator<Item = (K, u32)> + '_ {
        self.entries.iter().copied()
    }

    /// Adds a slot, or changes its key.
    pub(super) fn set(&mut self, slot: u32, key: K) {
        let mut place = self.places[slot as usize] as usize;
        if place == NONE as usize {
            place = self.entries.len();
            self.entries.push((key, slot));
            self.places[slot as usize] = place as u32;
        } else {
            self.entries[place].0 = key;
        }
        self.settle(place);
    }

    /// Takes a slot out, if it is in.
    pub(super) fn remove(&mut self, slot: u32) {
        let place = core::mem::replace(&mut self.places[slot as usize], NONE);
        if place == NONE {
            return;
        }
        self.entries.swap_remove(place as usize);
        if let Some(&(_, moved)) = self.entries.get(place as usize) {
            self.places[moved as usize] = place;
            self.settle(place as usize);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.places.fill(NONE);
    }

    /// Moves the entry at `place` up or down to where it belongs.
    fn settle(&mut self, mut place: usize) {
        while place > 0 && self.entries[place] < self.entries[(place - 1) / 2] {
            self.swap(place, (place - 1) / 2);
            place = (place - 1) / 2;
        }
        loop {
            let mut least = place;
            for child in [2 * place + 1, 2 * place + 2] {
                if child < self.entries.len() && self.entries[child] < self.entries[least] {
                    least = child;
                }
            }
            if least == place {
                return;
            }
            self.swap(place, least);
            place = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.entries.swap(a, b);
        for place in [a, b] {
            self.places[self.entries[place].1 as usize] = place as u32;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::dax::testing::Random;

    #[test]
    fn heap_agrees_with_a_search() {
        let seed = 0x5eed_0301;
        std::println!("seed {seed:#x}");
        let mut random = Random(seed);
        let mut heap = Heap::new(20);
        let mut model = [None; 20];
        for _ in 0..50_000 {
            let slot = random.below(20);
            if random.below(3) == 0 {
                heap.remove(slot as u32);
                model[slot as usize] = None;
            } else {
                let key = random.below(50);
                heap.set(slot as u32, key);
                model[slot as usize] = Some(key);
            }
            let present = model.iter().flatten();
            assert_eq!(heap.len(), present.clone().count());
            assert_eq!(heap.least().map(|(key, _)| key), present.min().copied());
            if let Some((key, slot)) = heap.least() {
                assert_eq!(model[slot as usize], Some(key));
            }
        }
    }
}
