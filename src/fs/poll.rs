//! Readiness of files: poll(2), and who is woken when it changes.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::task::Waker;

use super::File;
use crate::error::Result;
use crate::platform::Platform;
use crate::sync::{Rank, SpinLock};
use crate::wire::{Opcode, Poll, PollEvents, PollFlags, PollHandle};

/// What a file is ready for where nobody says otherwise.
const ALWAYS: PollEvents = PollEvents::IN
    .union(PollEvents::OUT)
    .union(PollEvents::RDNORM)
    .union(PollEvents::WRNORM);

/// Names of polled files; 0 stands for none.
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(1);

/// Who waits for a notification that a file is ready.
pub(super) struct Pollers(SpinLock<Vec<(PollHandle, Waker)>>);

impl Default for Pollers {
    fn default() -> Self {
        Self(SpinLock::new(Rank::Leaf, Vec::new()))
    }
}

impl Pollers {
    fn add(&self, handle: PollHandle, waker: &Waker) {
        let mut pollers = self.0.lock();
        let known = |(h, w): &(PollHandle, Waker)| *h == handle && w.will_wake(waker);
        if !pollers.iter().any(known) {
            pollers.push((handle, waker.clone()));
        }
    }

    /// Takes out all who wait for a file; they are woken, or dropped, outside of
    /// the lock.
    fn take(&self, handle: PollHandle) -> Vec<(PollHandle, Waker)> {
        self.0
            .lock()
            .extract_if(.., |(h, _)| *h == handle)
            .collect()
    }

    /// Wakes who waits for a file. A name that is not known is ignored.
    pub(super) fn wake(&self, handle: PollHandle) {
        for (_, waker) in self.take(handle) {
            waker.wake();
        }
    }
}

impl<P: Platform> File<P> {
    /// Returns which of `events` the file is ready for: poll(2). Blocks.
    ///
    /// If it is ready for none, `waker` is woken once the server says that this
    /// has changed; ask again then. A server that cannot say so never wakes it,
    /// and one that does not know POLL has files that are always ready.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn poll(&self, events: PollEvents, waker: Option<&Waker>) -> Result<PollEvents> {
        let inode = self.inode();
        inode.check()?;
        let fs = &inode.fs;
        // In place before the server knows of it, so that none is missed.
        if let Some(waker) = waker {
            fs.pollers.add(self.poll_handle(), waker);
        }
        let request = Poll {
            node: inode.node,
            fh: self.handle.fh(),
            kh: self.poll_handle(),
            flags: match waker {
                Some(_) => PollFlags::SCHEDULE_NOTIFY,
                None => PollFlags::empty(),
            },
            events,
        };
        let ready = fs
            .lacking
            .unless(Opcode::Poll, || fs.conn.ask(&request))
            .unwrap_or(Ok(ALWAYS & events));
        // Errors come whether they were asked for or not.
        let unasked = PollEvents::ERR | PollEvents::HUP | PollEvents::NVAL;
        let ready = ready.map(|ready| ready & (events | unasked));
        if !matches!(ready, Ok(ready) if ready.is_empty()) {
            self.stop_polling();
        }
        ready
    }

    fn poll_handle(&self) -> PollHandle {
        match self.poll.load(Relaxed) {
            0 => {
                let new = NEXT_HANDLE.fetch_add(1, Relaxed);
                let old = self.poll.compare_exchange(0, new, Relaxed, Relaxed);
                PollHandle(old.err().unwrap_or(new))
            }
            handle => PollHandle(handle),
        }
    }

    /// Forgets who waits for this file.
    pub(super) fn stop_polling(&self) {
        let handle = self.poll.load(Relaxed);
        if handle != 0 {
            drop(self.inode().fs.pollers.take(PollHandle(handle)));
        }
    }
}
