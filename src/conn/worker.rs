//! Work that belongs to no caller.

use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::call::ReplyIds;
use super::pool::SlotId;
use super::slot::{Cleanup, Slot};
use super::{Connection, State};
use crate::platform::Platform;
use crate::sync::park;
use crate::wire::{
    Create, FileHandle, Found, LockOwner, Lookup, NodeId, Open, OpenFlags, REQUEST_HEADER, Release,
    ReleaseFlags, Releasedir, Request,
};

impl<P: Platform> Connection<P> {
    /// Does what is due, without blocking for longer than a request takes:
    /// sends forgets, cleans up after requests that were given up, passes
    /// notifications on, looks after the device. Returns when it wants to be called again, at the latest.
    ///
    /// The driver starts no thread. A kernel that has some runs this in one; a
    /// kernel that has none loses promptness, for other calls do the same work as
    /// they come by; only notifications wait for this one.
    pub fn work(&self) -> Option<Duration> {
        match self.state() {
            State::Ready => {}
            State::Restarting => return self.recover(),
            State::Frozen => return Some(self.now() + Duration::from_millis(500)),
            _ => return None,
        }
        self.poll();
        self.tidy();
        self.deliver_notifications();
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
            park(&*self.platform, Some(next));
        }
    }

    /// Cleans up after replies that nobody took, and sends old forgets.
    pub(super) fn tidy(&self) {
        while let Some(id) = self.pool.next_to_clean(&self.platform) {
            self.clean_up(id);
        }
        self.drop_locks();
        self.send_releases();
        self.forgets.flush_old(self);
    }

    /// Hands back what an abandoned reply handed out.
    pub(super) fn clean_up(&self, id: SlotId) {
        let slot = self.pool.slot(id);
        let cleanup = slot.cleanup();
        let node = NodeId::new(slot.node.load(Relaxed));
        let (mut forget, mut release, mut unlock) = (None, None, None);
        match cleanup {
            Cleanup::None => {}
            Cleanup::Pages => return self.finish_pages(id),
            Cleanup::Lock => unlock = self.stray_lock(slot),
            Cleanup::Closed => {
                if let Some(node) = node {
                    self.forgets.closed(node);
                }
            }
            Cleanup::Entry => {
                if let Ok(Found::Entry(entry)) =
                    self.read_reply::<Lookup<'_>>(slot, Lookup::REPLY.fixed_area(), ReplyIds::Ours)
                {
                    forget = Some(entry.node);
                }
            }
            Cleanup::Open | Cleanup::OpenDir => {
                if let Ok(opened) =
                    self.read_reply::<Open>(slot, Open::REPLY.fixed_area(), ReplyIds::Ours)
                {
                    release = node.map(|node| (node, opened.fh));
                }
            }
            Cleanup::EntryOpen => {
                if let Ok(created) =
                    self.read_reply::<Create<'_>>(slot, Create::REPLY.fixed_area(), ReplyIds::Ours)
                {
                    forget = Some(created.entry.node);
                    release = Some((created.entry.node, created.open.fh));
                }
            }
        }
        let flags = self.flags_of_open(slot);
        self.pool.put(&self.platform, id);
        if let Some(args) = unlock {
            self.drop_lock(args);
        }
        if let Some((node, fh)) = release {
            match cleanup {
                Cleanup::OpenDir => self.release_dir(node, fh, flags),
                _ => self.release(node, fh, flags),
            }
        }
        if let Some(node) = forget {
            self.forget_unkept(node);
        }
    }

    /// Returns the flags in the OPEN, OPENDIR, CREATE or TMPFILE that a slot
    /// holds, which RELEASE repeats: all four begin with them.
    fn flags_of_open(&self, slot: &Slot<P>) -> OpenFlags {
        let mut flags = [0; 4];
        let args = slot.args.lock();
        let page = args.long.as_ref().unwrap_or(&args.page);
        page.read(REQUEST_HEADER, &mut flags);
        let once = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY | OpenFlags::TRUNC;
        OpenFlags::from_bits_retain(u32::from_le_bytes(flags)).difference(once)
    }

    /// Has the server close a file. Does not block: without a free slot it goes
    /// out later. Nobody waits for the reply (S1-18).
    pub fn release(&self, node: NodeId, fh: FileHandle, flags: OpenFlags) {
        self.release_soon(PendingRelease {
            node,
            fh,
            flags,
            dir: false,
            flock: None,
        });
    }

    /// As [`release`](Self::release), and the flock(2) lock of `owner` goes with
    /// it.
    pub fn release_unlocking(
        &self,
        node: NodeId,
        fh: FileHandle,
        flags: OpenFlags,
        owner: LockOwner,
    ) {
        self.release_soon(PendingRelease {
            node,
            fh,
            flags,
            dir: false,
            flock: Some(owner),
        });
    }

    /// As [`release`](Self::release), for a directory.
    pub fn release_dir(&self, node: NodeId, fh: FileHandle, flags: OpenFlags) {
        self.release_soon(PendingRelease {
            node,
            fh,
            flags,
            dir: true,
            flock: None,
        });
    }

    fn release_soon(&self, release: PendingRelease) {
        let state = self.state();
        if state != State::Ready && !state.is_interlude() {
            return;
        }
        self.forgets.closing(release.node);
        if state == State::Ready && self.post_release(&release) {
            return;
        }
        self.releases.lock().push(release);
    }

    fn post_release(&self, release: &PendingRelease) -> bool {
        let &PendingRelease {
            node,
            fh,
            flags,
            dir,
            flock,
        } = release;
        // A handle that the server of this life does not have needs no closing.
        if !self.names.has_handle(node, fh) {
            self.names.drop_handle(node, fh);
            self.forgets.closed(node);
            return true;
        }
        if self.is_locking(node, fh) {
            return false;
        }
        if dir {
            let sent = self.post(&Releasedir { node, fh, flags });
            if sent {
                self.names.drop_handle(node, fh);
            }
            return sent;
        }
        let (release, lock_owner) = match flock {
            None => (ReleaseFlags::empty(), LockOwner(0)),
            Some(owner) => (ReleaseFlags::FLOCK_UNLOCK, owner),
        };
        let sent = self.post(&Release {
            node,
            fh,
            flags,
            release,
            lock_owner,
        });
        if sent {
            self.names.drop_handle(node, fh);
        }
        sent
    }

    fn send_releases(&self) {
        if self.state().is_interlude() {
            return;
        }
        let releases = core::mem::take(&mut *self.releases.lock());
        for release in releases {
            if self.state().is_interlude() || !self.post_release(&release) {
                self.releases.lock().push(release);
            }
        }
    }
}

/// A handle that the server should close.
pub(super) struct PendingRelease {
    node: NodeId,
    fh: FileHandle,
    flags: OpenFlags,
    dir: bool,
    /// Whose flock goes with it.
    flock: Option<LockOwner>,
}
