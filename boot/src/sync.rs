//! A spin lock that interrupt handlers may take too.
//!
//! It keeps interrupts off while held, so that no handler can spin for a lock
//! that its own CPU holds, and no thread is preempted while others wait.

use core::sync::atomic::{AtomicBool, Ordering};

use lock_api::{GuardNoSend, RawMutex};

/// A mutual exclusion lock for data that interrupt handlers share.
///
/// Held for a few hundred instructions at most; never across a wait.
pub type IrqMutex<T> = lock_api::Mutex<RawIrqLock, T>;

/// The lock behind [`IrqMutex`].
#[derive(Debug)]
pub struct RawIrqLock {
    locked: AtomicBool,
    /// Whether the holder had interrupts on. Only the holder touches it.
    restore: AtomicBool,
}

// SAFETY: `locked` goes from false to true in one compare-and-exchange, so at
// most one caller holds the lock; Acquire there pairs with Release in `unlock`.
unsafe impl RawMutex for RawIrqLock {
    const INIT: Self = Self {
        locked: AtomicBool::new(false),
        restore: AtomicBool::new(false),
    };

    // The interrupt flag belongs to the CPU that took the lock.
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        while !self.try_lock() {
            while self.locked.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    fn try_lock(&self) -> bool {
        let enabled = disable_interrupts();
        let taken = self
            .locked
            .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if taken {
            self.restore.store(enabled, Ordering::Relaxed);
        } else {
            restore_interrupts(enabled);
        }
        taken
    }

    unsafe fn unlock(&self) {
        let enabled = self.restore.load(Ordering::Relaxed);
        self.locked.store(false, Ordering::Release);
        restore_interrupts(enabled);
    }
}

/// Turns interrupts off on this CPU and says whether they were on. Does nothing
/// in an ordinary process, where the tests of pure code run.
pub fn disable_interrupts() -> bool {
    if cfg!(panic = "abort") {
        let enabled = x86_64::instructions::interrupts::are_enabled();
        x86_64::instructions::interrupts::disable();
        enabled
    } else {
        false
    }
}

/// Turns interrupts on if `enabled`, the value that [`disable_interrupts`] gave.
pub fn restore_interrupts(enabled: bool) {
    if enabled {
        x86_64::instructions::interrupts::enable();
    }
}

/// Runs `f` with interrupts off on this CPU.
pub fn without_interrupts<T>(f: impl FnOnce() -> T) -> T {
    let enabled = disable_interrupts();
    let result = f();
    restore_interrupts(enabled);
    result
}
