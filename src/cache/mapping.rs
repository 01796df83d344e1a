//! The cached pages of one file.

use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};

use intrusive_collections::{Bound, RBTree};

use super::folio::ByIndex;
use super::{ErrSeq, Folio, PAGE, Store, Writers};
use crate::conn::{Piece, SlotId};
use crate::platform::Hal;
use crate::sync::{Rank, SpinRwLock};

/// The pages of a file, in folios that do not overlap.
pub(crate) struct Mapping<H: Hal + 'static> {
    me: Weak<Self>,
    store: Arc<Store<H>>,
    tree: SpinRwLock<RBTree<ByIndex<H>>>,
    writers: Writers,
    /// Pages that are dirty.
    dirty: AtomicU64,
    /// The size is what is known here, whatever the server says.
    owns_size: AtomicBool,
    errors: ErrSeq,
}

/// What became of an attempt to claim pages.
pub(crate) enum Claim<H: Hal + 'static> {
    /// So many are the caller's to fill.
    Pages(Piece<H>, u32),
    /// The first one is there, or on its way.
    Taken,
    /// There is no memory for it.
    Full,
}

impl<H: Hal + 'static> Mapping<H> {
    pub(crate) fn new(store: &Arc<Store<H>>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            store: store.clone(),
            tree: SpinRwLock::new(Rank::Pages, RBTree::new(ByIndex::new())),
            writers: Writers::default(),
            dirty: AtomicU64::new(0),
            owns_size: AtomicBool::new(false),
            errors: ErrSeq::default(),
        })
    }

    /// Returns who writes to the file on the server.
    pub(crate) fn writers(&self) -> &Writers {
        &self.writers
    }

    /// Returns the errors of writing out.
    pub(crate) fn errors(&self) -> &ErrSeq {
        &self.errors
    }

    /// Returns whether the file's size is what is known here.
    pub(crate) fn owns_size(&self) -> bool {
        self.owns_size.load(Acquire)
    }

    /// Sets that.
    pub(crate) fn own_size(&self, owns: bool) {
        self.owns_size.store(owns, Release);
    }

    /// Returns the number of dirty pages.
    pub(crate) fn dirty(&self) -> u64 {
        self.dirty.load(Relaxed)
    }

    /// Returns whether the server has everything, or has refused it.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty() == 0 && {
            let mut busy = false;
            self.for_each(&(0..u64::MAX), |folio| {
                busy |= folio.writing(&(0..u64::MAX)).is_some();
            });
            !busy && self.dirty() == 0
        }
    }

    /// Notes that so many pages became dirty.
    pub(crate) fn soiled(&self, pages: u32) {
        if pages > 0 {
            self.dirty.fetch_add(pages.into(), AcqRel);
            self.store.soiled(pages);
        }
    }

    fn cleaned(&self, pages: u32) {
        if pages > 0 {
            self.dirty.fetch_sub(pages.into(), AcqRel);
            self.store.cleaned(pages);
        }
    }

    /// Returns the first page in `pages` that can be written out.
    pub(crate) fn next_dirty(&self, pages: &Range<u64>) -> Option<u64> {
        let mut left = pages.clone();
        while !left.is_empty()
            && let Some(folio) = self.first_in(&left)
        {
            if let Some(page) = folio.next_dirty(left.start) {
                return (page < pages.end).then_some(page);
            }
            left.start = folio.behind();
        }
        None
    }

    /// Takes dirty pages from `page` on, up to `limit`, for the request in `slot`.
    pub(crate) fn take_dirty(
        &self,
        page: u64,
        limit: u64,
        slot: SlotId,
    ) -> Option<(Piece<H>, u32)> {
        let folio = self.find(page)?;
        let n = folio.take_dirty(page, limit, slot);
        self.cleaned(n);
        (n > 0).then(|| (folio.piece(page, n), n))
    }

    /// Finds the folio of a page, or makes one of up to `want` pages. `None` if there
    /// is no memory.
    pub(crate) fn find_or_make(&self, page: u64, want: u64) -> Option<Arc<Folio<H>>> {
        loop {
            if let Some(folio) = self.find(page) {
                return Some(folio);
            }
            let limit = page + want.max(1);
            let next = self.first_in(&(page..limit)).map(|folio| folio.first());
            let gap = next.unwrap_or(limit).saturating_sub(page);
            let folio = self.store.allocate(&self.me, page, gap)?;
            match self.insert(folio.clone()) {
                Ok(()) => return Some(folio),
                Err(taken) => {
                    drop(folio);
                    self.store.retire(taken);
                }
            }
        }
    }

    /// Returns the folio that page `page` is in.
    pub(crate) fn find(&self, page: u64) -> Option<Arc<Folio<H>>> {
        let tree = self.tree.read();
        let cursor = tree.upper_bound(Bound::Included(&page));
        (page < cursor.get()?.behind()).then(|| cursor.clone_pointer())?
    }

    /// Returns the first folio that has a page in `pages`.
    pub(crate) fn first_in(&self, pages: &Range<u64>) -> Option<Arc<Folio<H>>> {
        let tree = self.tree.read();
        let mut cursor = tree.upper_bound(Bound::Included(&pages.start));
        if cursor
            .get()
            .is_none_or(|folio| folio.behind() <= pages.start)
        {
            cursor = tree.lower_bound(Bound::Included(&pages.start));
        }
        (cursor.get()?.first() < pages.end).then(|| cursor.clone_pointer())?
    }

    /// Calls `each` with every folio that has a page in `pages`, in order.
    pub(crate) fn for_each(&self, pages: &Range<u64>, mut each: impl FnMut(&Arc<Folio<H>>)) {
        let mut left = pages.clone();
        while let Some(folio) = self.first_in(&left) {
            each(&folio);
            left.start = folio.behind();
            if left.is_empty() {
                break;
            }
        }
    }

    /// Claims pages from `page` on, up to `limit`, for the request in `slot`, with
    /// new memory where there is none. `early` if nobody has asked for them yet.
    pub(crate) fn claim(&self, page: u64, limit: u64, slot: SlotId, early: bool) -> Claim<H> {
        loop {
            if let Some(folio) = self.find(page) {
                match folio.claim(page, limit, slot, early) {
                    Some(0) => return Claim::Taken,
                    Some(n) => return Claim::Pages(folio.piece(page, n), n),
                    // It goes away just now.
                    None => {
                        core::hint::spin_loop();
                        continue;
                    }
                }
            }
            let next = self.first_in(&(page..limit)).map(|folio| folio.first());
            let gap = next.unwrap_or(limit) - page;
            let Some(folio) = self.store.allocate(&self.me, page, gap) else {
                return Claim::Full;
            };
            let n = folio.claim(page, limit, slot, early);
            let piece = folio.piece(page, folio.count());
            match self.insert(folio) {
                Ok(()) => return Claim::Pages(piece, n.unwrap_or(0)),
                // Somebody was faster.
                Err(folio) => {
                    drop(piece);
                    self.store.retire(folio);
                }
            }
        }
    }

    /// Puts a folio in, unless its pages are taken.
    fn insert(&self, folio: Arc<Folio<H>>) -> Result<(), Arc<Folio<H>>> {
        let mut tree = self.tree.write();
        let before = tree.upper_bound(Bound::Included(&folio.first()));
        let taken = before.get().is_some_and(|f| f.behind() > folio.first());
        let after = tree.lower_bound(Bound::Included(&folio.first()));
        if taken || after.get().is_some_and(|f| f.first() < folio.behind()) {
            return Err(folio);
        }
        tree.insert(folio.clone());
        drop(tree);
        self.store.keep(folio);
        Ok(())
    }

    /// Takes a folio that was detached out of the file.
    pub(super) fn remove(&self, folio: &Folio<H>) -> Option<Arc<Folio<H>>> {
        let mut tree = self.tree.write();
        let mut cursor = tree.find_mut(&folio.first());
        let same = cursor.get().is_some_and(|f| core::ptr::eq(f, folio));
        same.then(|| cursor.remove()).flatten()
    }

    /// Takes the folio out of the file and gives its memory back, unless a page of
    /// it is dirty or on its way.
    pub(super) fn drop_folio(&self, folio: Arc<Folio<H>>) -> bool {
        let idle = folio.detach_if_idle();
        if idle {
            let removed = self.remove(&folio);
            self.store.forget(&folio);
            drop(removed);
            self.store.retire(folio);
        }
        idle
    }

    /// Drops clean pages: what is known of them may not hold any more. Dirty pages
    /// stay, and those on their way are dropped when they come.
    pub(crate) fn discard_clean(&self, pages: &Range<u64>) {
        self.for_each(pages, |folio| {
            folio.discard_clean(pages);
            let whole = pages.start <= folio.first() && folio.behind() <= pages.end;
            if whole {
                self.drop_folio(folio.clone());
            }
        });
    }

    /// Drops pages, dirty ones too: they do not exist any more. Returns how many
    /// dirty ones went.
    pub(crate) fn discard(&self, pages: &Range<u64>) -> u32 {
        let mut dirty = 0;
        self.for_each(pages, |folio| {
            let gone = folio.discard(pages);
            self.cleaned(gone);
            dirty += gone;
            let whole = pages.start <= folio.first() && folio.behind() <= pages.end;
            if whole {
                self.drop_folio(folio.clone());
            }
        });
        dirty
    }

    /// Copies what was written to the server into the pages that are here.
    pub(crate) fn overwrite(&self, offset: u64, data: &[u8]) {
        let end = offset + data.len() as u64;
        self.for_each(&(offset / PAGE..end.div_ceil(PAGE)), |folio| {
            let from = offset.max(folio.first() * PAGE);
            let to = end.min(folio.behind() * PAGE);
            let part = &data[(from - offset) as usize..(to - offset) as usize];
            folio.overwrite((from - folio.first() * PAGE) as u32, part);
        });
    }

    /// Follows the file's end from `old` to `new`: what was cut off is gone, and
    /// what was added is zeros.
    pub(crate) fn resize(&self, old: u64, new: u64) {
        if new < old {
            self.discard(&(new.div_ceil(PAGE)..u64::MAX));
        }
        let edge = old.min(new);
        if let Some(folio) = self.find(edge / PAGE) {
            if new < old && !edge.is_multiple_of(PAGE) {
                folio.zero_tail((edge - folio.first() * PAGE) as u32);
            }
            folio.outgrow();
        }
    }

    /// Returns the first page in `pages` that is neither here nor on its way.
    pub(crate) fn next_absent(&self, pages: &Range<u64>) -> Option<u64> {
        let mut page = pages.start;
        while page < pages.end {
            let Some(folio) = self.find(page) else {
                return Some(page);
            };
            match folio.present_from(page) {
                0 => return Some(page),
                n => page += u64::from(n),
            }
        }
        None
    }
}

impl<H: Hal + 'static> Drop for Mapping<H> {
    fn drop(&mut self) {
        self.store.cleaned(*self.dirty.get_mut() as u32);
        let mut tree = self.tree.get_mut().take();
        while let Some(folio) = tree.front_mut().remove() {
            self.store.forget(&folio);
            self.store.retire(folio);
        }
    }
}
