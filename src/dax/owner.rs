//! A file as the window knows it.

use alloc::boxed::Box;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU8};

use super::InodeKey;
use crate::platform::Platform;
use crate::sync::SleepRwLock;
use crate::wire::NodeId;

/// A file that may have ranges of the window.
pub struct Owner<P: Platform> {
    pub(super) key: InodeKey,
    pub(super) node: NodeId,
    /// The layout of the file: shared for accesses and faults, exclusive for
    /// whatever takes pages away from under them.
    layout: SleepRwLock<P>,
    /// A WRITE has gone out since set-id bits or capabilities may have been given
    /// to the file, and has taken them off it.
    bare: AtomicBool,
    /// Pages of it may be in page tables.
    faulted: AtomicBool,
    /// Some of them may be stored to, or were.
    stored: AtomicBool,
    /// Mappings refused in a row for a reason that lies in the file.
    refusals: AtomicU8,
    /// Once its inode is gone: the lookups to give back, and the next such owner.
    pub(super) lookups: u64,
    pub(super) next: Option<Box<Self>>,
}

/// After so many refusals in a row a file is not tried again.
const PATIENCE: u8 = 4;

impl<P: Platform> Owner<P> {
    pub(super) fn new(key: InodeKey, node: NodeId) -> Self {
        Self {
            key,
            node,
            layout: SleepRwLock::new(),
            bare: AtomicBool::new(false),
            faulted: AtomicBool::new(false),
            stored: AtomicBool::new(false),
            refusals: AtomicU8::new(0),
            lookups: 0,
            next: None,
        }
    }

    /// Returns the lock that accesses share and truncations have alone.
    pub(crate) fn layout(&self) -> &SleepRwLock<P> {
        &self.layout
    }

    /// Returns whether the file surely has no privileges that a change of its data
    /// takes away.
    pub(crate) fn is_bare(&self) -> bool {
        self.bare.load(Relaxed)
    }

    /// Notes whether it has.
    pub(crate) fn set_bare(&self, bare: bool) {
        if self.bare.load(Relaxed) != bare {
            self.bare.store(bare, Relaxed);
        }
    }

    /// Returns the file's name for the kernel's page tables.
    pub(crate) fn mapping(&self) -> u64 {
        self.key.0
    }

    /// Returns whether pages of it may be in page tables.
    pub(crate) fn is_faulted(&self) -> bool {
        self.faulted.load(Relaxed)
    }

    /// Notes that they may, or that they were taken out while nobody could put
    /// any in.
    pub(crate) fn set_faulted(&self, faulted: bool) {
        self.faulted.store(faulted, Relaxed);
    }

    /// Returns whether pages of it may be stored to without anybody noticing, or
    /// were since that was noted last.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored.load(Relaxed)
    }

    /// Notes that they may, or that none can be any more and the file is noted as
    /// changed.
    pub(crate) fn set_stored(&self, stored: bool) {
        self.stored.store(stored, Relaxed);
    }

    /// Returns whether it still makes sense to map the file.
    pub(super) fn is_mappable(&self) -> bool {
        self.refusals.load(Relaxed) < PATIENCE
    }

    pub(super) fn mapped(&self) {
        if self.refusals.load(Relaxed) != 0 {
            self.refusals.store(0, Relaxed);
        }
    }

    pub(super) fn refused(&self) {
        let n = self.refusals.load(Relaxed);
        self.refusals.store(n.saturating_add(1), Relaxed);
    }
}
