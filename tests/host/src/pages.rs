//! A free list of page ranges: first fit, neighbours joined on return.
//!
//! Pure numbers, so that it can be tested without memory. Invariants:
//! - ranges in `free` are not empty, do not overlap and do not touch;
//! - all lie in `0..len`.

use std::collections::BTreeMap;

/// Page ranges that nobody uses, by first page.
pub(crate) struct FreePages {
    free: BTreeMap<usize, usize>,
    len: usize,
}

impl FreePages {
    /// Starts with `len` pages, all free.
    pub(crate) fn new(len: usize) -> Self {
        let mut free = BTreeMap::new();
        if len > 0 {
            free.insert(0, len);
        }
        Self { free, len }
    }

    /// Takes `count` adjacent pages and returns the first. `None` if no free
    /// range is long enough, or `count` is 0.
    pub(crate) fn take(&mut self, count: usize) -> Option<usize> {
        if count == 0 {
            return None;
        }
        let (&first, &len) = self.free.iter().find(|&(_, &len)| len >= count)?;
        self.free.remove(&first);
        if len > count {
            self.free.insert(first + count, len - count);
        }
        Some(first)
    }

    /// Gives `count` pages from `first` back.
    ///
    /// # Panics
    ///
    /// If any of them is free already or never existed: a double free of the
    /// program under test.
    pub(crate) fn give(&mut self, first: usize, count: usize) {
        let end = first + count;
        assert!(
            count > 0 && end <= self.len,
            "pages {first}..{end} do not exist"
        );
        let before = self
            .free
            .range(..end)
            .next_back()
            .map(|(&at, &len)| (at, len));
        let mut joined = (first, count);
        if let Some((at, len)) = before {
            assert!(at + len <= first, "pages {first}..{end} are free already");
            if at + len == first {
                joined = (at, len + count);
            }
        }
        if let Some(len) = self.free.remove(&end) {
            joined.1 += len;
        }
        self.free.insert(joined.0, joined.1);
    }

    /// Counts the free pages.
    pub(crate) fn available(&self) -> usize {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_join_in_any_order_of_return() {
        for order in [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ] {
            let mut pages = FreePages::new(9);
            let taken: Vec<_> = (0..3).map(|_| pages.take(3).unwrap()).collect();
            assert_eq!(pages.take(1), None);
            for i in order {
                pages.give(taken[i], 3);
            }
            assert_eq!(pages.take(9), Some(0), "order {order:?}");
        }
    }

    #[test]
    fn first_fit_skips_holes_that_are_too_small() {
        let mut pages = FreePages::new(10);
        let small = pages.take(2).unwrap();
        let _held = pages.take(3).unwrap();
        pages.give(small, 2);
        assert_eq!(pages.take(3), Some(5));
        assert_eq!(pages.take(2), Some(0));
        assert_eq!(pages.available(), 2);
        assert_eq!(pages.take(3), None);
        assert_eq!(pages.take(0), None);
    }

    #[test]
    #[should_panic(expected = "free already")]
    fn a_second_free_is_caught() {
        let mut pages = FreePages::new(8);
        let first = pages.take(4).unwrap();
        pages.give(first, 4);
        pages.give(first + 1, 1);
    }

    #[test]
    fn random_use_never_hands_a_page_out_twice() {
        // xorshift: the sequence depends on the printed seed only.
        let seed = 0x9e37_79b9_7f4a_7c15_u64;
        println!("seed {seed:#x}");
        let mut state = seed;
        let mut next = move |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let mut pages = FreePages::new(64);
        let mut owned = [false; 64];
        let mut held: Vec<(usize, usize)> = Vec::new();
        for _ in 0..20_000 {
            if next(2) == 0 {
                let count = 1 + next(9) as usize;
                if let Some(first) = pages.take(count) {
                    for page in &mut owned[first..first + count] {
                        assert!(!std::mem::replace(page, true));
                    }
                    held.push((first, count));
                }
            } else if !held.is_empty() {
                let (first, count) = held.swap_remove(next(held.len() as u64) as usize);
                owned[first..first + count].fill(false);
                pages.give(first, count);
            }
            assert_eq!(
                pages.available(),
                owned.iter().filter(|&&page| !page).count()
            );
        }
    }
}
