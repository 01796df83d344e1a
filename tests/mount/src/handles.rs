//! Numbers for what the kernel has open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::value::{Answer, Errno};

/// What is open, by number. A request that is under way keeps what it works on,
/// even if it is closed meanwhile.
pub(crate) struct Handles<T> {
    next: AtomicU64,
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Handles<T> {
    pub(crate) fn new() -> Self {
        Self {
            next: AtomicU64::new(1),
            open: RwLock::default(),
        }
    }

    /// Returns a number for `opened`. None is given out twice.
    pub(crate) fn insert(&self, opened: Arc<T>) -> u64 {
        let fh = self.next.fetch_add(1, Ordering::Relaxed);
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(fh, opened);
        fh
    }

    pub(crate) fn get(&self, fh: u64) -> Answer<Arc<T>> {
        self.open
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&fh)
            .cloned()
            .ok_or(Errno(libc::EBADF))
    }

    pub(crate) fn remove(&self, fh: u64) -> Answer<Arc<T>> {
        self.open
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&fh)
            .ok_or(Errno(libc::EBADF))
    }

    /// Closes everything.
    pub(crate) fn clear(&self) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let gone = std::mem::take(&mut *open);
        drop(open);
        drop(gone);
    }
}
