//! A file that the server named to us.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use spin::Once;

use super::FileSystem;
use super::acl::Acl;
use super::attr::AttrCache;
use super::attr_cache::AttrCell;
use super::dir_cache::DirCache;
use super::handle::{Handle, SharedHandles};
use super::writeback::Pages;
use crate::dax::Owner;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::sync::{Rank, SpinLock, SpinRwLock};
use crate::wire::{FileType, Generation, NameBuf, NodeId};

/// An inode: identity, attributes, and what is cached with it.
///
/// Its identity, node id and generation, never changes, and neither does its
/// type: a server that answers otherwise has another file in its place, and gets
/// a new inode (S4-M01).
pub struct Inode<P: Platform> {
    pub(super) fs: Arc<FileSystem<P>>,
    pub(super) node: NodeId,
    /// Of the node id that it has in this session.
    generation: AtomicU64,
    kind: FileType,
    flags: AtomicU8,
    /// Threads that make it durable.
    syncing: AtomicU16,
    /// Counts changes of the names in this directory, made here. A lookup that
    /// was under way meanwhile must not be remembered.
    names: AtomicU32,
    device: u64,
    /// What the server counts of us: given back when the inode goes.
    lookups: AtomicU64,
    pub(super) attr: AttrCell,
    place: SpinLock<Option<Arc<Place<P>>>>,
    pub(super) extra: SpinRwLock<Option<Box<Extra<P>>>>,
    /// What the DAX window knows of the file, if it uses it.
    pub(super) owner: Option<Box<Owner<P>>>,
    /// What is cached of its data, from the first time that something is.
    pub(super) pages: Once<Box<Pages<P>>>,
}

/// Where an inode was last seen: a name in a directory. What a path to it is
/// made of, for `..`, getcwd, and finding it again.
pub(super) struct Place<P: Platform> {
    pub(super) parent: Arc<Inode<P>>,
    pub(super) name: NameBuf,
}

/// Parts that few inodes have.
pub(super) struct Extra<P: Platform> {
    /// Target of a symbolic link.
    pub(super) target: Option<Arc<[u8]>>,
    /// Entries of a directory.
    pub(super) dir: Option<Arc<DirCache>>,
    /// The access control list, where the attributes say that it is kept here.
    pub(super) acl: Option<Arc<Acl>>,
    /// Handles that opens share.
    pub(super) handles: SharedHandles<P>,
    /// Handles for reading, until the file is opened for writing.
    pub(super) readers: Vec<Weak<Handle<P>>>,
}

impl<P: Platform> Default for Extra<P> {
    fn default() -> Self {
        Self {
            target: None,
            dir: None,
            acl: None,
            handles: SharedHandles::default(),
            readers: Vec::new(),
        }
    }
}

/// The server contradicted itself about this inode.
const BAD: u8 = 1 << 0;
/// Somebody looks up names of this directory: READDIRPLUS pays.
const WANTS_PLUS: u8 = 1 << 1;
/// Something was changed here that no fsync has followed.
const UNSYNCED: u8 = 1 << 2;
/// Somebody took a lock on it, here or on the server.
const LOCKED: u8 = 1 << 3;
/// A directory that was removed here: nothing is in it, and nothing comes into it.
const DEAD: u8 = 1 << 4;
/// It was opened for writing: what is opened from here on is the file that is
/// written, wherever the host had it before.
const WRITTEN: u8 = 1 << 5;

impl<P: Platform> Inode<P> {
    pub(super) fn new(
        fs: Arc<FileSystem<P>>,
        node: NodeId,
        generation: Generation,
        device: u64,
        attr: AttrCache,
    ) -> Self {
        let owner = match &fs.dax {
            Some(dax) if fs.uses_window(&attr.attr) => Some(Box::new(dax.owner(node))),
            _ => None,
        };
        Self {
            fs,
            node,
            generation: AtomicU64::new(generation.0),
            kind: attr.attr.mode.file_type(),
            flags: AtomicU8::new(0),
            syncing: AtomicU16::new(0),
            names: AtomicU32::new(0),
            device,
            lookups: AtomicU64::new(0),
            attr: AttrCell::new(&attr),
            place: SpinLock::new(Rank::Extra, None),
            extra: SpinRwLock::new(Rank::Extra, None),
            owner,
            pages: Once::new(),
        }
    }

    /// Returns the server's name for the inode.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Returns which of the files that had this node id it is.
    pub fn generation(&self) -> Generation {
        Generation(self.generation.load(Relaxed))
    }

    /// Notes the generation that its node id has in a new session.
    pub(super) fn set_generation(&self, generation: Generation) {
        self.generation.store(generation.0, Relaxed);
    }

    /// Returns its type. It never changes.
    pub fn file_type(&self) -> FileType {
        self.kind
    }

    /// Returns whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub(super) fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Returns the number of its file system, for `st_dev`. Submounts have
    /// numbers of their own.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// Returns the file system that it belongs to.
    pub fn file_system(&self) -> &Arc<FileSystem<P>> {
        &self.fs
    }

    /// Refuses a bad inode. To be called at the start of every operation.
    pub(super) fn check(&self) -> Result<()> {
        if self.flags.load(Relaxed) & BAD == 0 {
            Ok(())
        } else {
            Err(Error::new(Errno::EIO, Origin::Protocol))
        }
    }

    /// Returns whether names may be looked up in it: a directory, neither bad nor
    /// removed.
    pub(super) fn is_living_dir(&self) -> bool {
        self.is_dir() && self.flags.load(Acquire) & (BAD | DEAD) == 0
    }

    /// Refuses what is not a directory, or bad.
    pub(super) fn check_dir(&self) -> Result<()> {
        self.check()?;
        if self.is_dir() {
            Ok(())
        } else {
            Err(Error::caller(Errno::ENOTDIR))
        }
    }

    /// Marks the inode bad: the server's word on it cannot be relied on. Its
    /// users keep it, and get EIO.
    pub(super) fn mark_bad(&self, why: &str) {
        if self.flags.fetch_or(BAD, AcqRel) & BAD == 0 {
            log::error!("virtio-fs: inode {} is bad: {why}", self.node);
        }
    }

    pub(super) fn is_bad(&self) -> bool {
        self.flags.load(Acquire) & BAD != 0
    }

    /// Notes that a name of this directory was asked for.
    pub(super) fn advise_plus(&self) {
        if self.flags.load(Relaxed) & WANTS_PLUS == 0 {
            self.flags.fetch_or(WANTS_PLUS, Relaxed);
        }
    }

    /// Returns whether one was since the last time.
    pub(super) fn take_plus_advice(&self) -> bool {
        self.flags.fetch_and(!WANTS_PLUS, Relaxed) & WANTS_PLUS != 0
    }

    /// Notes a change that fsync must make durable: after it was made, so that an
    /// fsync that another thread does meanwhile does not take the note off.
    pub(super) fn set_unsynced(&self) {
        if self.flags.load(Relaxed) & UNSYNCED == 0 {
            self.flags.fetch_or(UNSYNCED, Relaxed);
        }
    }

    /// Begins to make changes durable; [`end_sync`](Self::end_sync) comes after.
    /// False if there are none: none that is noted, none that another thread has
    /// begun with and may yet fail at, and no page that can be stored to without
    /// anybody noticing.
    pub(super) fn begin_sync(&self) -> bool {
        self.syncing.fetch_add(1, AcqRel);
        let noted = self.flags.fetch_and(!UNSYNCED, AcqRel) & UNSYNCED != 0;
        // Looked at after the flag: who has taken it was counted before.
        let others = self.syncing.load(Acquire) > 1;
        let stored = self.owner.as_ref().is_some_and(|owner| owner.is_stored());
        if noted || others || stored {
            return true;
        }
        self.syncing.fetch_sub(1, AcqRel);
        false
    }

    /// Ends what [`begin_sync`](Self::begin_sync) has begun. What is not durable
    /// was noted again before.
    pub(super) fn end_sync(&self) {
        self.syncing.fetch_sub(1, AcqRel);
    }

    /// Notes that the directory was removed.
    pub(super) fn set_dead(&self) {
        self.flags.fetch_or(DEAD, AcqRel);
    }

    /// Refuses a directory that was removed: a server may not even find it.
    pub(super) fn check_alive(&self) -> Result<()> {
        if self.flags.load(Acquire) & DEAD == 0 {
            Ok(())
        } else {
            Err(Error::caller(Errno::ENOENT))
        }
    }

    /// Notes that the file was opened for writing. Returns whether it was before.
    pub(super) fn set_written(&self) -> bool {
        self.was_written() || self.flags.fetch_or(WRITTEN, AcqRel) & WRITTEN != 0
    }

    /// Returns whether the file was ever opened for writing.
    pub(super) fn was_written(&self) -> bool {
        self.flags.load(Acquire) & WRITTEN != 0
    }

    /// Notes that there may be a lock on the inode, from now on.
    pub(super) fn set_locked(&self) {
        if self.flags.load(Relaxed) & LOCKED == 0 {
            self.flags.fetch_or(LOCKED, AcqRel);
        }
    }

    /// Returns whether there ever was one.
    pub(super) fn was_locked(&self) -> bool {
        self.flags.load(Acquire) & LOCKED != 0
    }

    /// Returns a number that changes with the names in this directory.
    pub(super) fn names_version(&self) -> u32 {
        self.names.load(Acquire)
    }

    /// Notes that a name in this directory was made, removed or replaced here.
    ///
    /// Returns the number that [`names_version`](Self::names_version) gave before.
    pub(super) fn names_changed(&self) -> u32 {
        self.set_unsynced();
        self.names_outdated()
    }

    /// Notes that somebody changed a name in this directory. Returns the number
    /// from before.
    pub(super) fn names_outdated(&self) -> u32 {
        let before = self.names.fetch_add(1, Release);
        if let Some(extra) = &mut *self.extra.write() {
            extra.dir = None;
        }
        self.attr_changed(super::attr::Stale::DIRECTORY);
        before
    }

    /// Counts one more lookup of the server's.
    pub(super) fn count_lookup(&self) {
        self.lookups.fetch_add(1, Relaxed);
    }

    /// Notes that the server counts none any more: it forgot us.
    pub(super) fn reset_lookups(&self) {
        self.lookups.store(0, Relaxed);
    }

    /// Returns how many lookups the server counts for this inode.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Relaxed)
    }

    /// Returns whether this is `above`, or a directory in it at any depth.
    pub(super) fn is_below(self: &Arc<Self>, above: &Self) -> bool {
        let mut at = Some(self.clone());
        while let Some(dir) = at {
            if core::ptr::eq(&*dir, above) {
                return true;
            }
            at = dir.place().map(|place| place.parent.clone());
        }
        false
    }

    pub(super) fn place(&self) -> Option<Arc<Place<P>>> {
        self.place.lock().clone()
    }

    /// Notes where the inode is. The old place is returned, to be dropped
    /// outside of locks.
    pub(super) fn set_place(&self, place: Option<Arc<Place<P>>>) -> Option<Arc<Place<P>>> {
        core::mem::replace(&mut *self.place.lock(), place)
    }

    /// Returns the directory that this one is in; the root is its own parent.
    pub fn parent(self: &Arc<Self>) -> Arc<Self> {
        self.place()
            .map_or_else(|| self.clone(), |place| place.parent.clone())
    }

    pub(super) fn with_extra<R>(&self, f: impl FnOnce(&mut Extra<P>) -> R) -> R {
        f(self.extra.write().get_or_insert_with(Box::default))
    }
}

impl<P: Platform> Drop for Inode<P> {
    fn drop(&mut self) {
        self.fs.inodes.remove(self);
        if self.was_locked() {
            self.fs.locks.forget(self.lock_key());
        }
        let version = self.last_version();
        self.fs.note_eviction(version);
        let lookups = *self.lookups.get_mut();
        // With ranges to unmap first, which takes requests, it is for others to
        // forget it.
        let now = match (&self.fs.dax, self.owner.take()) {
            (Some(dax), Some(owner)) => dax.orphan(owner, lookups).is_some(),
            _ => true,
        };
        if now {
            self.fs.conn.forget(self.node, lookups);
        }
        // The parents that only this inode kept go one by one, not one inside
        // the other: paths can be deeper than stacks.
        let mut place = self.place.get_mut().take();
        while let Some(Place { parent, .. }) = place.and_then(Arc::into_inner) {
            // Where it is: tables know inodes by address.
            place = if self.fs.inodes.retire(&parent) {
                parent.set_place(None)
            } else {
                None
            };
        }
    }
}

impl<P: Platform> core::fmt::Debug for Inode<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (node, generation) = (self.node, self.generation());
        write!(f, "inode {node}.{generation} {:?}", self.kind)
    }
}
