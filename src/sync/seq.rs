//! Words that are read without a lock.

use super::atomic::Ordering::{Acquire, Relaxed, Release};
use super::atomic::{AtomicU32, AtomicU64, fence, spin_loop};
use super::order::{Note, Rank};

/// `N` words that change together.
///
/// Readers write nothing, so that any number of CPUs read at once without taking
/// a cache line from each other; they read again if a change came in between.
/// Changes exclude each other by spinning. Thread context only: a reader would
/// wait for ever for a change that it interrupted. A change counts as a lock of
/// rank [`Attributes`](Rank::Attributes).
///
/// # Invariants
///
/// - `turn` is odd while somebody changes the words, and grows with each change.
pub struct SeqWords<const N: usize> {
    turn: AtomicU32,
    words: [AtomicU64; N],
}

impl<const N: usize> SeqWords<N> {
    /// Holds `words`.
    pub fn new(words: [u64; N]) -> Self {
        Self {
            turn: AtomicU32::new(0),
            words: words.map(AtomicU64::new),
        }
    }

    /// Returns the words.
    #[inline]
    pub fn read(&self) -> [u64; N] {
        self.consistent(|words| words.each_ref().map(|word| word.load(Relaxed)))
    }

    /// Returns the first `M` words. `M` is at most `N`.
    #[inline]
    pub fn read_first<const M: usize>(&self) -> [u64; M] {
        const { assert!(M <= N) };
        self.consistent(|words| core::array::from_fn(|i| words[i].load(Relaxed)))
    }

    #[inline]
    fn consistent<R>(&self, read: impl Fn(&[AtomicU64; N]) -> R) -> R {
        loop {
            // Acquire: pairs with the release at the end of a change.
            let turn = self.turn.load(Acquire);
            if turn & 1 == 0 {
                let result = read(&self.words);
                // Pairs with the fence at the beginning of a change: who read one of
                // its words sees its odd turn here.
                fence(Acquire);
                if self.turn.load(Relaxed) == turn {
                    return result;
                }
            }
            spin_loop();
        }
    }

    /// Changes the words. `change` is short, does not panic, and does not come back
    /// here.
    pub fn update<R>(&self, change: impl FnOnce(&mut [u64; N]) -> R) -> R {
        let _note = Note::wait(Rank::Attributes);
        let turn = loop {
            let turn = self.turn.load(Relaxed);
            let odd = turn.wrapping_add(1);
            // Acquire: after the change before.
            if turn & 1 == 0
                && self
                    .turn
                    .compare_exchange_weak(turn, odd, Acquire, Relaxed)
                    .is_ok()
            {
                break turn;
            }
            spin_loop();
        };
        fence(Release);
        let mut words = core::array::from_fn(|i| self.words[i].load(Relaxed));
        let result = change(&mut words);
        for (word, value) in self.words.iter().zip(words) {
            word.store(value, Relaxed);
        }
        self.turn.store(turn.wrapping_add(2), Release);
        result
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn no_change_is_lost_and_none_is_seen_in_part() {
        let words = Arc::new(SeqWords::new([0u64; 5]));
        let done = Arc::new(AtomicBool::new(false));
        let readers: std::vec::Vec<_> = (0..2)
            .map(|_| {
                let (words, done) = (words.clone(), done.clone());
                std::thread::spawn(move || {
                    let mut last = 0;
                    while !done.load(Relaxed) {
                        let seen = words.read();
                        assert!(seen.iter().all(|&w| w == seen[0]), "{seen:?}");
                        assert!(seen[0] >= last, "time goes on");
                        assert!(words.read_first::<2>()[0] >= seen[0]);
                        last = seen[0];
                    }
                })
            })
            .collect();
        let writers: std::vec::Vec<_> = (0..2)
            .map(|_| {
                let words = words.clone();
                std::thread::spawn(move || {
                    for _ in 0..20_000 {
                        words.update(|words| words.iter_mut().for_each(|w| *w += 1));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(words.read(), [40_000; 5]);
    }
}
