//! A lock that many may share across requests, and one have alone.

use super::atomic::AtomicU32;
use super::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use super::order::Note;
use super::{Rank, WaitEnd, WaitQueue};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;

/// Shared by accesses, exclusive for whoever takes the ground away from under
/// them. Thread context only; a thread takes it once.
///
/// Who wants it alone comes before those who come after, so that a stream of
/// accesses cannot keep a truncation waiting for ever.
pub struct SleepRwLock<P: Platform> {
    /// The number of sharers, [`ALONE`], [`WANTED`].
    state: AtomicU32,
    queue: WaitQueue<P>,
}

/// Somebody has the lock alone.
const ALONE: u32 = 1 << 31;
/// Somebody waits to have it alone.
const WANTED: u32 = 1 << 30;

/// Shares the lock until it is dropped.
pub struct SharedGuard<'a, P: Platform> {
    lock: &'a SleepRwLock<P>,
    platform: &'a P,
    _note: Note,
}

/// Has the lock alone until it is dropped.
pub struct ExclusiveGuard<'a, P: Platform> {
    lock: &'a SleepRwLock<P>,
    platform: &'a P,
    _note: Note,
}

impl<P: Platform> Default for SleepRwLock<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> SleepRwLock<P> {
    /// Makes a lock that nobody has.
    pub fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            queue: WaitQueue::new(),
        }
    }

    /// Shares the lock. Blocks while somebody has it, or wants it, alone.
    ///
    /// # Errors
    ///
    /// EINTR if the caller is killed meanwhile.
    pub fn share<'a>(&'a self, platform: &'a P) -> Result<SharedGuard<'a, P>> {
        let note = Note::wait(Rank::Layout);
        let taken = || {
            let step = |state: u32| (state & (ALONE | WANTED) == 0).then_some(state + 1);
            self.state.fetch_update(Acquire, Relaxed, step).ok()
        };
        match self.queue.wait(platform, None, taken) {
            WaitEnd::Ready(_) => Ok(SharedGuard {
                lock: self,
                platform,
                _note: note,
            }),
            _ => Err(Error::new(Errno::EINTR, Origin::Platform)),
        }
    }

    /// Returns whether somebody has the lock alone, or waits for that. No more
    /// than a hint.
    pub fn is_wanted(&self) -> bool {
        self.state.load(Relaxed) & (ALONE | WANTED) != 0
    }

    /// Takes the lock alone. Blocks while anybody has it.
    ///
    /// # Errors
    ///
    /// EINTR if the caller is killed meanwhile.
    pub fn take<'a>(&'a self, platform: &'a P) -> Result<ExclusiveGuard<'a, P>> {
        let note = Note::wait(Rank::Layout);
        let taken = || {
            let step = |state: u32| match state & !WANTED {
                0 => Some(ALONE),
                _ => Some(state | WANTED),
            };
            let old = self.state.fetch_update(AcqRel, Acquire, step);
            (old.unwrap_or(ALONE) & !WANTED == 0).then_some(())
        };
        match self.queue.wait(platform, None, taken) {
            WaitEnd::Ready(()) => Ok(ExclusiveGuard {
                lock: self,
                platform,
                _note: note,
            }),
            _ => {
                // Others who want it alone say so again when they wake.
                self.state.fetch_and(!WANTED, AcqRel);
                self.queue.wake_all(platform);
                Err(Error::new(Errno::EINTR, Origin::Platform))
            }
        }
    }
}

impl<P: Platform> Drop for SharedGuard<'_, P> {
    fn drop(&mut self) {
        if self.lock.state.fetch_sub(1, Release) == WANTED | 1 {
            self.lock.queue.wake_all(self.platform);
        }
    }
}

impl<P: Platform> Drop for ExclusiveGuard<'_, P> {
    fn drop(&mut self) {
        self.lock.state.fetch_and(!ALONE, Release);
        self.lock.queue.wake_all(self.platform);
    }
}
