//! A spin lock that an interrupt handler can use without ever spinning.

use super::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use super::atomic::{AtomicBool, fence};
use super::{Rank, SpinLock};

/// Guards `T`, and remembers that somebody wanted work done who could not wait.
///
/// An interrupt handler that finds the lock held may have interrupted its very
/// holder: to wait would be for ever. So it leaves a note and goes; whoever
/// releases the lock reads the note and does the work. No interrupt needs to be
/// masked for that.
///
/// A note is never missed: there is a full fence between leaving it and the
/// attempt, and between the release and reading it. Whichever fence comes first,
/// the other side sees what was stored before it: the attempt finds the lock
/// free, or the holder finds the note. (The release of a spin lock alone is no
/// such fence: the read after it may be done before the lock is seen free.)
pub struct HandoffLock<T> {
    value: SpinLock<T>,
    wanted: AtomicBool,
}

impl<T> HandoffLock<T> {
    /// Wraps `value`.
    pub fn new(rank: Rank, value: T) -> Self {
        Self {
            value: SpinLock::new(rank, value),
            wanted: AtomicBool::new(false),
        }
    }

    /// Runs `section` with the value, then `work` as often as it was
    /// [requested](Self::request) meanwhile. Thread context only.
    pub fn with<R>(&self, section: impl FnOnce(&mut T) -> R, work: impl FnMut(&mut T)) -> R {
        let result = section(&mut self.value.lock());
        self.settle(work);
        result
    }

    /// Has `work` run: now, if the lock is free, or else by its holder. Returns
    /// at once. Any context.
    pub fn request(&self, work: impl FnMut(&mut T)) {
        // An exchange, so that whoever takes one note sees what all stored who
        // left it.
        self.wanted.swap(true, Release);
        self.settle(work);
    }

    fn settle(&self, mut work: impl FnMut(&mut T)) {
        loop {
            // Pairs with itself on the other side; see above.
            fence(SeqCst);
            if !self.wanted.load(Relaxed) {
                return;
            }
            let Some(mut value) = self.value.try_lock() else {
                return;
            };
            // Taken before the work, so that a later request asks anew; Acquire,
            // so that the work sees what was there when it was asked for.
            if self.wanted.swap(false, Acquire) {
                work(&mut value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_request_while_the_lock_is_held_is_done_by_the_holder() {
        let lock = HandoffLock::new(Rank::Leaf, 0);
        lock.with(
            |n| {
                *n += 1;
                // An interrupt on the same CPU: it cannot wait, and returns.
                lock.request(|n| *n += 100);
            },
            |n| *n += 10,
        );
        lock.with(
            |n| assert_eq!(*n, 11, "the holder did the work, with its own hands"),
            |_| (),
        );
    }

    #[test]
    fn no_request_is_lost_between_threads() {
        let lock = Arc::new(HandoffLock::new(Rank::Leaf, 0u64));
        let mut threads = std::vec::Vec::new();
        for _ in 0..4 {
            let lock = lock.clone();
            threads.push(std::thread::spawn(move || {
                for _ in 0..20_000 {
                    lock.request(|n| *n += 1);
                    lock.with(|_| (), |n| *n += 1);
                }
            }));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(!lock.wanted.load(SeqCst), "a note was left behind");
    }
}
