//! Where threads wait for something that is not a reply.

use alloc::collections::VecDeque;
use core::time::Duration;

use super::{Rank, SpinLock, park};
use crate::platform::{Platform, Signal};

/// Threads that wait for one condition, woken in the order they came.
///
/// Waiting may allocate the first time that many threads wait at once; waking
/// never does. Thread context only.
pub struct WaitQueue<P: Platform> {
    waiting: SpinLock<Waiting<P::Thread>>,
}

struct Waiting<T> {
    next_ticket: u64,
    /// Wake-ups so far, to tell whether one came since a thread looked.
    wakes: u64,
    threads: VecDeque<(u64, T)>,
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitEnd<T> {
    /// The condition came true.
    Ready(T),
    /// The deadline passed first.
    TimedOut,
    /// The thread was signalled first.
    Signalled(Signal),
}

impl<P: Platform> Default for WaitQueue<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Platform> WaitQueue<P> {
    /// Makes an empty queue.
    pub fn new() -> Self {
        Self {
            waiting: SpinLock::new(
                Rank::Leaf,
                Waiting {
                    next_ticket: 0,
                    wakes: 0,
                    threads: VecDeque::new(),
                },
            ),
        }
    }

    /// Sleeps until `ready` returns something, `deadline` passes, or the thread
    /// is killed. Blocks.
    ///
    /// `ready` is tried once before sleeping and after every wake-up. It may
    /// take spin locks; it must not sleep.
    pub fn wait<T>(
        &self,
        platform: &P,
        deadline: Option<Duration>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> WaitEnd<T> {
        if let Some(value) = ready() {
            return WaitEnd::Ready(value);
        }
        let thread = platform.current_thread();
        let ticket = {
            let mut waiting = self.waiting.lock();
            let ticket = waiting.next_ticket;
            waiting.next_ticket += 1;
            waiting.threads.push_back((ticket, thread));
            ticket
        };
        let mut seen;
        let end = loop {
            // After queueing, so that a wake-up in between is not missed.
            seen = self.waiting.lock().wakes;
            if let Some(value) = ready() {
                break WaitEnd::Ready(value);
            }
            if let signal @ Signal::Kill = platform.signal() {
                break WaitEnd::Signalled(signal);
            }
            if deadline.is_some_and(|deadline| platform.now() >= deadline) {
                break WaitEnd::TimedOut;
            }
            park(platform, deadline);
        };
        let mut waiting = self.waiting.lock();
        let was_first = waiting
            .threads
            .front()
            .is_some_and(|(first, _)| *first == ticket);
        waiting.threads.retain(|(t, _)| *t != ticket);
        // A wake-up meant for whoever is first may have reached us as we left, or
        // while we had found already what we waited for.
        if was_first
            && (!matches!(end, WaitEnd::Ready(_)) || waiting.wakes != seen)
            && let Some((_, next)) = waiting.threads.front()
        {
            platform.unpark(next);
        }
        end
    }

    /// Wakes the thread that has waited longest. Does not block.
    pub fn wake_one(&self, platform: &P) {
        let mut waiting = self.waiting.lock();
        waiting.wakes = waiting.wakes.wrapping_add(1);
        if let Some((_, thread)) = waiting.threads.front() {
            platform.unpark(thread);
        }
    }

    /// Wakes every thread that waits. Does not block.
    pub fn wake_all(&self, platform: &P) {
        for (_, thread) in &self.waiting.lock().threads {
            platform.unpark(thread);
        }
    }

    /// Returns whether any thread waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.lock().threads.is_empty()
    }
}
