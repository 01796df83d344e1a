//! A lock that may be held across a request.

use core::ops::{Deref, DerefMut};

use super::order::Note;
use super::{Rank, SpinLock, WaitEnd, WaitQueue};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;

/// Guards `T` for as long as it takes. Thread context only.
///
/// For what belongs to one caller most of the time, like the position of a
/// descriptor. The value is taken out while the lock is held.
pub struct SleepLock<P: Platform, T> {
    value: SpinLock<Option<T>>,
    queue: WaitQueue<P>,
}

/// Gives the value back when it is dropped.
pub struct SleepGuard<'a, P: Platform, T> {
    lock: &'a SleepLock<P, T>,
    platform: &'a P,
    value: Option<T>,
    _note: Note,
}

impl<P: Platform, T> SleepLock<P, T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self {
            value: SpinLock::new(Rank::Leaf, Some(value)),
            queue: WaitQueue::new(),
        }
    }

    /// Takes the lock. Blocks while somebody else has it.
    ///
    /// # Errors
    ///
    /// EINTR if the caller is killed meanwhile.
    pub fn lock<'a>(&'a self, platform: &'a P) -> Result<SleepGuard<'a, P, T>> {
        let note = Note::wait(Rank::Position);
        match self.queue.wait(platform, None, || self.value.lock().take()) {
            WaitEnd::Ready(value) => Ok(SleepGuard {
                lock: self,
                platform,
                value: Some(value),
                _note: note,
            }),
            _ => Err(Error::new(Errno::EINTR, Origin::Platform)),
        }
    }
}

impl<P: Platform, T> Deref for SleepGuard<'_, P, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
            .as_ref()
            .expect("the guard holds the value until it is dropped")
    }
}

impl<P: Platform, T> DerefMut for SleepGuard<'_, P, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value
            .as_mut()
            .expect("the guard holds the value until it is dropped")
    }
}

impl<P: Platform, T> Drop for SleepGuard<'_, P, T> {
    fn drop(&mut self) {
        *self.lock.value.lock() = self.value.take();
        self.lock.queue.wake_one(self.platform);
    }
}
