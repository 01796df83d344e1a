//! What the server keeps open for us.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::Inode;
use crate::platform::Platform;
use crate::wire::{FileHandle, FopenFlags, LockOwner, OpenFlags};

/// Whether the server knows of a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// It opened a file for it, to be released.
    File,
    /// It opened a directory for it, to be released.
    Directory,
    /// It needs no opening (ENOSYS to OPEN or OPENDIR).
    Nothing,
}

/// A file or directory that is open on the server, shared by those who opened it
/// in the same way. When the last of them goes, it is released.
pub(super) struct Handle<P: Platform> {
    pub(super) inode: Arc<Inode<P>>,
    pub(super) fh: FileHandle,
    /// The flags it was opened with. READ, WRITE and RELEASE repeat them.
    pub(super) flags: OpenFlags,
    /// How the server wants it treated.
    pub(super) fopen: FopenFlags,
    opened: Opened,
    /// Owner of the flock that goes with it on the server, 0 for none.
    flock: AtomicU64,
}

impl<P: Platform> Handle<P> {
    pub(super) fn new(
        inode: Arc<Inode<P>>,
        fh: FileHandle,
        flags: OpenFlags,
        fopen: FopenFlags,
        opened: Opened,
    ) -> Arc<Self> {
        let flags = flags.difference(OpenFlags::TRUNC);
        Arc::new(Self {
            inode,
            fh,
            flags,
            fopen,
            opened,
            flock: AtomicU64::new(0),
        })
    }

    /// Returns whether the server is told when the handle goes.
    pub(super) fn is_released(&self) -> bool {
        self.opened != Opened::Nothing
    }

    /// Notes that `owner` may have a flock on the server, to be dropped with the
    /// handle.
    pub(super) fn set_flock_owner(&self, owner: LockOwner) {
        self.flock.store(owner.0, Relaxed);
    }
}

impl<P: Platform> Drop for Handle<P> {
    fn drop(&mut self) {
        let conn = &self.inode.fs.conn;
        match self.opened {
            Opened::File => {
                let (node, fh, flags) = (self.inode.node, self.fh, self.flags);
                match *self.flock.get_mut() {
                    0 => conn.release(node, fh, flags),
                    owner => conn.release_unlocking(node, fh, flags, LockOwner(owner)),
                }
            }
            Opened::Directory => conn.release_dir(self.inode.node, self.fh, self.flags),
            Opened::Nothing => {}
        }
    }
}

/// The handles of an inode that further opens may use (S1-06).
///
/// Only plain opens of regular files share: each of the flags left out here
/// changes what the server does on the handle.
pub(super) struct SharedHandles<P: Platform> {
    read: Weak<Handle<P>>,
    write: Weak<Handle<P>>,
}

impl<P: Platform> Default for SharedHandles<P> {
    fn default() -> Self {
        Self {
            read: Weak::new(),
            write: Weak::new(),
        }
    }
}

/// Flags that mean nothing to the server.
const HARMLESS: OpenFlags = OpenFlags::NOFOLLOW
    .union(OpenFlags::CLOEXEC)
    .union(OpenFlags::LARGEFILE)
    .union(OpenFlags::NOCTTY)
    .union(OpenFlags::NONBLOCK);

/// Returns whether an open with these flags may share a handle. A truncating one
/// never does (S1-08).
pub(super) fn shareable(flags: OpenFlags) -> bool {
    flags
        .difference(HARMLESS.union(OpenFlags::ACCESS_MODE))
        .is_empty()
}

impl<P: Platform> SharedHandles<P> {
    /// Returns a handle that can do what `flags` ask for.
    pub(super) fn get(&self, flags: OpenFlags) -> Option<Arc<Handle<P>>> {
        let fits = |h: &Arc<Handle<P>>| {
            (!flags.readable() || h.flags.readable()) && (!flags.writable() || h.flags.writable())
        };
        [&self.read, &self.write]
            .into_iter()
            .filter_map(Weak::upgrade)
            .find(fits)
    }

    /// Offers a handle to others. One that can read and write is kept before one
    /// that can only write.
    pub(super) fn put(&mut self, handle: &Arc<Handle<P>>) {
        let place = if handle.flags.writable() {
            &mut self.write
        } else {
            &mut self.read
        };
        let better = place
            .upgrade()
            .is_none_or(|old| handle.flags.readable() && !old.flags.readable());
        if better {
            *place = Arc::downgrade(handle);
        }
    }
}
