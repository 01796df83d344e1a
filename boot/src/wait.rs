//! Wait queues: threads that sleep until something becomes true.
//!
//! A waiter puts itself in the queue before it looks once more and parks, so a
//! wake-up between the look and the park is not lost.

use alloc::{collections::VecDeque, sync::Arc};
use core::time::Duration;

use crate::{
    clock,
    sync::IrqMutex,
    thread::{Thread, current, park},
};

/// Threads that wait for something to become true.
pub struct WaitQueue {
    waiters: IrqMutex<VecDeque<Arc<Thread>>>,
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl WaitQueue {
    /// Makes a queue that nobody waits in.
    pub const fn new() -> Self {
        Self {
            waiters: IrqMutex::new(VecDeque::new()),
        }
    }

    /// Blocks until `ready` returns something, and returns it. `None` if
    /// `deadline` on [`clock::now`] comes first. Whoever makes `ready` succeed
    /// calls [`wake_all`](Self::wake_all) or [`wake_one`](Self::wake_one) after.
    pub fn wait_for<T>(
        &self,
        deadline: Option<Duration>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        loop {
            if let Some(value) = ready() {
                return Some(value);
            }
            let me = current();
            self.waiters.lock().push_back(me.clone());
            // Looked at again now that a wake-up cannot be missed any more.
            let value = ready();
            let expired = deadline.is_some_and(|deadline| clock::now() >= deadline);
            if value.is_none() && !expired {
                park(deadline);
            }
            let mut waiters = self.waiters.lock();
            match waiters.iter().position(|thread| Arc::ptr_eq(thread, &me)) {
                Some(at) => drop(waiters.remove(at)),
                // A wake-up for one went to us: if we do not need it, pass it on.
                None if value.is_none() && expired => {
                    if let Some(other) = waiters.pop_front() {
                        other.unpark();
                    }
                }
                None => {}
            }
            drop(waiters);
            if value.is_some() || expired {
                return value;
            }
        }
    }

    /// Wakes the thread that has waited longest.
    pub fn wake_one(&self) {
        let first = self.waiters.lock().pop_front();
        if let Some(thread) = first {
            thread.unpark();
        }
    }

    /// Wakes all.
    pub fn wake_all(&self) {
        let mut waiters = self.waiters.lock();
        while let Some(thread) = waiters.pop_front() {
            thread.unpark();
        }
    }
}
