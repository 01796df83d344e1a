//! Work that belongs to no caller.

use core::time::Duration;

use super::pool::{Class, SlotId};
use super::slot::Cleanup;
use super::{Connection, State};
use crate::platform::Platform;
use crate::wire::{Found, Lookup, NodeId, Opcode, Open, Opendir, Release, Releasedir};

impl<P: Platform> Connection<P> {
    /// Does what is due, without blocking for longer than a request takes:
    /// sends forgets, cleans up after requests that were given up, looks after
    /// the device. Returns when it wants to be called again, at the latest.
    ///
    /// The driver starts no thread. A kernel that has some runs this in one; a
    /// kernel that has none loses nothing but promptness, for other calls do the
    /// same work as they come by.
    pub fn work(&self) -> Option<Duration> {
        if self.state() != State::Ready {
            return None;
        }
        self.poll();
        self.tidy();
        self.forgets.flush_old(self);
        if self.device_failed() {
            self.lose_device("it needs a reset");
        }
        let idle = self.now() + Duration::from_millis(500);
        Some(self.forgets.due().map_or(idle, |due| due.min(idle)))
    }

    /// Runs [`work`](Self::work) until the connection ends. For a thread of the
    /// kernel's. Blocks.
    pub fn run_worker(&self) {
        while let Some(next) = self.work() {
            self.platform.park(Some(next));
        }
    }

    /// Cleans up after replies that nobody took, and sends old forgets.
    pub(super) fn tidy(&self) {
        while let Some(id) = self.pool.next_to_clean(&self.platform) {
            self.clean_up(id);
        }
        self.forgets.flush_old(self);
    }
}
