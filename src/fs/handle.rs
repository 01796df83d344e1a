//! What the server keeps open for us.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::Inode;
use crate::platform::Platform;
use crate::sync::{Rank, SpinLock};
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
    fh: AtomicU64,
    /// What `fh` was before another took its place. Requests through it may still
    /// be under way, so it is released with the rest.
    replaced: SpinLock<Option<FileHandle>>,
    /// The flags it was opened with. READ, WRITE and RELEASE repeat them.
    pub(super) flags: OpenFlags,
    /// How the server wants it treated.
    pub(super) fopen: FopenFlags,
    opened: Opened,
    /// Owner of the flock that goes with it on the server, 0 for none.
    flock: AtomicU64,
    /// Its place among all that are open.
    place: usize,
}

/// All handles of a file system, to be opened again after a restart.
pub(super) struct Handles<P: Platform>(SpinLock<Places<P>>);

struct Places<P: Platform> {
    handles: Vec<Option<Weak<Handle<P>>>>,
    free: Vec<usize>,
}

impl<P: Platform> Default for Handles<P> {
    fn default() -> Self {
        Self(SpinLock::new(
            Rank::Leaf,
            Places {
                handles: Vec::new(),
                free: Vec::new(),
            },
        ))
    }
}

impl<P: Platform> Handles<P> {
    fn insert(&self, handle: Weak<Handle<P>>) -> usize {
        let places = &mut *self.0.lock();
        if let Some(place) = places.free.pop() {
            places.handles[place] = Some(handle);
            return place;
        }
        places.handles.push(Some(handle));
        places.handles.len() - 1
    }

    fn remove(&self, place: usize) {
        let places = &mut *self.0.lock();
        let old = places.handles.get_mut(place).and_then(Option::take);
        places.free.push(place);
        drop(old);
    }

    /// Returns those that are open now. Allocates.
    pub(super) fn all(&self) -> Vec<Arc<Handle<P>>> {
        let places = self.0.lock();
        let open = places.handles.iter().flatten();
        open.filter_map(Weak::upgrade).collect()
    }
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
        let fs = inode.fs.clone();
        Arc::new_cyclic(|handle| Self {
            inode,
            fh: AtomicU64::new(fh.0),
            replaced: SpinLock::new(Rank::Leaf, None),
            flags,
            fopen,
            opened,
            flock: AtomicU64::new(0),
            place: fs.handles.insert(handle.clone()),
        })
    }

    /// Returns whose flock goes with it, if anybody's.
    pub(super) fn flock_owner(&self) -> Option<LockOwner> {
        let owner = self.flock.load(Relaxed);
        (owner != 0).then_some(LockOwner(owner))
    }

    /// Returns whether it is of a directory.
    pub(super) fn is_dir(&self) -> bool {
        self.inode.is_dir()
    }

    /// Returns the server's name for it.
    pub(super) fn fh(&self) -> FileHandle {
        FileHandle(self.fh.load(Relaxed))
    }

    /// Has what comes from now on go to another handle of the same file. Once in a
    /// handle's life.
    pub(super) fn substitute(&self, fh: FileHandle) {
        let old = FileHandle(self.fh.swap(fh.0, Relaxed));
        *self.replaced.lock() = Some(old);
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
        self.inode.fs.handles.remove(self.place);
        let conn = &self.inode.fs.conn;
        match self.opened {
            Opened::File => {
                let (node, fh, flags) = (self.inode.node, self.fh(), self.flags);
                if let Some(replaced) = self.replaced.get_mut().take() {
                    conn.release(node, replaced, flags);
                }
                match *self.flock.get_mut() {
                    0 => conn.release(node, fh, flags),
                    owner => conn.release_unlocking(node, fh, flags, LockOwner(owner)),
                }
            }
            Opened::Directory => conn.release_dir(self.inode.node, self.fh(), self.flags),
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
        // One that was not opened again after a restart is of no use to others.
        let open = |h: &Arc<Handle<P>>| {
            !h.is_released() || h.inode.fs.conn.has_handle(h.inode.node, h.fh())
        };
        [&self.read, &self.write]
            .into_iter()
            .filter_map(Weak::upgrade)
            .find(|handle| fits(handle) && open(handle))
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
