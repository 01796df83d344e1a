//! The driver's locks and wait queues.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering};
pub use virtio_fs::sync::Rank;

use crate::platform::Platform;

#[path = "../../../src/sync/handoff.rs"]
mod handoff;
#[path = "../../../src/sync/rw.rs"]
mod rw;
#[path = "../../../src/sync/seq.rs"]
mod seq;
#[path = "../../../src/sync/sleep.rs"]
mod sleep;
#[path = "../../../src/sync/wait.rs"]
mod wait;

pub use handoff::HandoffLock;
pub use rw::{ExclusiveGuard, SharedGuard, SleepRwLock};
pub use seq::SeqWords;
pub use sleep::{SleepGuard, SleepLock};
pub use wait::{WaitEnd, WaitQueue};

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };
    pub(crate) use loom::thread::yield_now as spin_loop;
}

pub(crate) mod order {
    //! The order of locks is checked elsewhere.

    pub(crate) use virtio_fs::sync::Rank;

    pub(crate) struct Note;

    impl Note {
        pub(crate) const fn wait(_: Rank) -> Self {
            Self
        }
    }
}

pub(crate) fn park<P: Platform>(platform: &P, deadline: Option<Duration>) {
    platform.park(deadline);
}

/// The lock of the crate `spin`, step by step as it is there, but with loom's
/// atomic. Only the flag is modelled; what it guards is behind a lock of std's
/// that is always free.
pub struct SpinLock<T> {
    locked: AtomicBool,
    value: Mutex<T>,
}

/// Holds a [`SpinLock`].
pub struct SpinGuard<'a, T> {
    value: Option<MutexGuard<'a, T>>,
    locked: &'a AtomicBool,
}

impl<T> SpinLock<T> {
    /// Wraps `value`.
    pub fn new(_: Rank, value: T) -> Self {
        Self {
            locked: AtomicBool::new(false),
            value: Mutex::new(value),
        }
    }

    /// Takes the lock. Spins while another has it.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            loom::thread::yield_now();
        }
    }

    /// Takes the lock if nobody has it.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        self.locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        Some(SpinGuard {
            value: Some(self.value.try_lock().expect("the flag is ours")),
            locked: &self.locked,
        })
    }
}

impl<T> Drop for SpinGuard<'_, T> {
    fn drop(&mut self) {
        drop(self.value.take());
        self.locked.store(false, Ordering::Release);
    }
}

impl<T> core::ops::Deref for SpinGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("held until it is dropped")
    }
}

impl<T> core::ops::DerefMut for SpinGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("held until it is dropped")
    }
}
