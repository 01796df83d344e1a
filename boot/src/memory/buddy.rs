//! The buddy allocator of page frames, as pure bookkeeping over frame numbers.
//!
//! Free frames stand in blocks of 2^order frames, aligned to their size, one
//! list per order. A request of any length takes the next larger block and gives
//! the rest back at once; a run is returned in aligned pieces, each merged with
//! its free buddy as far as it goes. So runs need not be powers of two, cost
//! nothing beyond their frames, and memory never stays in splinters.
//!
//! # Invariants
//!
//! - A frame with an order is the first of a free block of that order, and is on
//!   that order's list; every other frame has none.
//! - Two buddies of one order are never both free (below the top order).

/// Blocks of 2^0 to 2^18 frames: 4 KiB to 1 GiB.
const ORDERS: usize = 19;

/// No frame: the end of a list.
const NIL: u32 = u32::MAX;

/// What the allocator keeps for each frame: 12 bytes, 0.3 % of memory.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    next: u32,
    prev: u32,
    order: Option<u8>,
}

impl Frame {
    /// A frame that is not free.
    pub const USED: Self = Self {
        next: NIL,
        prev: NIL,
        order: None,
    };
}

/// The allocator over frames 0 to `frames.len()`, all in use at first.
#[derive(Debug)]
pub struct Buddy<'a> {
    frames: &'a mut [Frame],
    heads: [u32; ORDERS],
    free: usize,
}

impl<'a> Buddy<'a> {
    /// Takes over `frames`, which must all be [`Frame::USED`].
    pub fn new(frames: &'a mut [Frame]) -> Self {
        assert!(frames.len() < NIL as usize, "frame numbers fit in 32 bits");
        Self {
            frames,
            heads: [NIL; ORDERS],
            free: 0,
        }
    }

    /// Returns the number of free frames.
    pub fn free_frames(&self) -> usize {
        self.free
    }

    /// Takes `count` frames in a row, aligned to the next power of two of
    /// `count` (to 1 GiB at most). `None` if no run is that long.
    pub fn allocate(&mut self, count: usize) -> Option<usize> {
        if count == 0 || count > 1 << (ORDERS - 1) {
            return None;
        }
        let order = count.next_power_of_two().trailing_zeros() as usize;
        let from = (order..ORDERS).find(|&order| self.heads[order] != NIL)?;
        let first = self.heads[from] as usize;
        self.unlink(first, from);
        // Everything of the block behind the run is free again.
        self.insert(first + count, (1 << from) - count);
        Some(first)
    }

    /// Gives `count` frames from `first` back: a run from
    /// [`allocate`](Self::allocate), a part of one, or memory found at boot.
    ///
    /// # Panics
    ///
    /// If the frames do not exist or the first is free already.
    pub fn insert(&mut self, first: usize, count: usize) {
        assert!(
            first + count <= self.frames.len(),
            "frames {first}+{count} do not exist"
        );
        let (mut at, end) = (first, first + count);
        while at < end {
            let aligned = if at == 0 {
                ORDERS - 1
            } else {
                (at.trailing_zeros() as usize).min(ORDERS - 1)
            };
            let fits = (end - at).ilog2() as usize;
            let order = aligned.min(fits);
            self.merge(at, order);
            at += 1 << order;
        }
    }

    fn merge(&mut self, mut first: usize, mut order: usize) {
        assert!(
            self.frames[first].order.is_none(),
            "frame {first} is freed twice"
        );
        self.free += 1 << order;
        while order < ORDERS - 1 {
            let buddy = first ^ (1 << order);
            match self.frames.get(buddy) {
                Some(frame) if frame.order == Some(order as u8) => self.unlink(buddy, order),
                _ => break,
            }
            // `unlink` counted the buddy out, but it stays free.
            self.free += 1 << order;
            first &= !(1 << order);
            order += 1;
        }
        let head = self.heads[order];
        self.frames[first] = Frame {
            next: head,
            prev: NIL,
            order: Some(order as u8),
        };
        if head != NIL {
            self.frames[head as usize].prev = first as u32;
        }
        self.heads[order] = first as u32;
    }

    fn unlink(&mut self, first: usize, order: usize) {
        let Frame { next, prev, .. } = self.frames[first];
        match prev {
            NIL => self.heads[order] = next,
            prev => self.frames[prev as usize].next = next,
        }
        if next != NIL {
            self.frames[next as usize].prev = prev;
        }
        self.frames[first] = Frame::USED;
        self.free -= 1 << order;
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use super::*;

    fn check(buddy: &Buddy) {
        let mut free = 0;
        for (order, &head) in buddy.heads.iter().enumerate() {
            let (mut at, mut prev) = (head, NIL);
            while at != NIL {
                let frame = buddy.frames[at as usize];
                assert_eq!(frame.order, Some(order as u8));
                assert_eq!(frame.prev, prev);
                assert_eq!(at as usize % (1 << order), 0, "block is aligned");
                if order < ORDERS - 1 {
                    let other = buddy.frames.get(at as usize ^ (1 << order));
                    assert_ne!(other.and_then(|f| f.order), Some(order as u8));
                }
                free += 1 << order;
                (prev, at) = (at, frame.next);
            }
        }
        assert_eq!(free, buddy.free);
    }

    #[test]
    fn random_runs_never_overlap_and_coalesce_when_freed() {
        const SEED: u64 = 0x5eed_0001;
        const FRAMES: usize = 5000;
        std::println!("seed {SEED:#x}");
        let mut state = SEED;
        let mut random = move |below: usize| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let mut frames = vec![Frame::USED; FRAMES];
        let mut buddy = Buddy::new(&mut frames);
        buddy.insert(3, FRAMES - 3);
        let mut runs: Vec<(usize, usize)> = Vec::new();
        let mut owned = vec![false; FRAMES];
        for _ in 0..20_000 {
            if random(2) == 0 {
                let order = random(8);
                let count = 1 + random(1 << order);
                if let Some(first) = buddy.allocate(count) {
                    assert_eq!(first % count.next_power_of_two(), 0);
                    for frame in &mut owned[first..first + count] {
                        assert!(!*frame, "frame handed out twice");
                        *frame = true;
                    }
                    runs.push((first, count));
                }
            } else if !runs.is_empty() {
                let (first, count) = runs.swap_remove(random(runs.len()));
                owned[first..first + count].fill(false);
                buddy.insert(first, count);
            }
            let used: usize = runs.iter().map(|run| run.1).sum();
            assert_eq!(buddy.free_frames(), FRAMES - 3 - used);
        }
        check(&buddy);
        for (first, count) in runs {
            buddy.insert(first, count);
        }
        check(&buddy);
        assert_eq!(buddy.free_frames(), FRAMES - 3);
        assert_eq!(buddy.allocate(2048), Some(2048), "splinters were merged");
    }

    #[test]
    fn a_run_longer_than_any_is_refused_and_changes_nothing() {
        let mut frames = vec![Frame::USED; 64];
        let mut buddy = Buddy::new(&mut frames);
        buddy.insert(0, 64);
        assert_eq!(buddy.allocate(65), None);
        assert_eq!(buddy.allocate(0), None);
        assert_eq!(buddy.free_frames(), 64);
        assert_eq!(buddy.allocate(64), Some(0));
        assert_eq!(buddy.allocate(1), None);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn a_double_free_is_caught() {
        let mut frames = vec![Frame::USED; 8];
        let mut buddy = Buddy::new(&mut frames);
        buddy.insert(5, 1);
        buddy.insert(5, 1);
    }
}
