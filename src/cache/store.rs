//! The memory of a mount's page cache: a bound, and who has to go to keep it.
//!
//! The clock algorithm: a hand goes round all folios, spares those that were read
//! more than once since it last came by, and takes the others. One pass over a file
//! larger than the cache therefore does not push out what is used again and again.
//! What goes is kept as a spare folio of its size, so that a stream of reads does not
//! allocate.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::folio::set_place;
use super::{FOLIO_PAGES, Folio, Mapping, PAGE};
use crate::conn::Counter;
use crate::device::dma::DmaRegion;
use crate::platform::Hal;
use crate::sync::{Rank, SpinLock};

/// Sizes of folios: 1, 2, 4, … 64 pages.
const CLASSES: usize = FOLIO_PAGES.ilog2() as usize + 1;
/// Spare folios of each size that are kept at most.
const SPARES: usize = 32;
/// Folios that one search for a victim looks at, at most: all, twice.
const ROUNDS: usize = 2;

/// All folios of a mount.
pub(crate) struct Store<H: Hal + 'static> {
    me: Weak<Self>,
    /// Pages that there may be.
    bound: u64,
    /// Pages that there are, spare ones included.
    used: AtomicU64,
    clock: SpinLock<Clock<H>>,
    spare: SpinLock<[Vec<Arc<Folio<H>>>; CLASSES]>,
    /// Pages that are dirty.
    dirty: AtomicU64,
    /// Pages dropped to make room.
    evicted: Counter,
    /// Pages read ahead that nobody read.
    wasted: Counter,
}

struct Clock<H: Hal + 'static> {
    folios: Vec<Option<Arc<Folio<H>>>>,
    free: Vec<u32>,
    hand: usize,
}

impl<H: Hal + 'static> Store<H> {
    /// Makes an empty store for `bytes` of pages.
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            bound: bytes as u64 / PAGE,
            used: AtomicU64::new(0),
            clock: SpinLock::new(
                Rank::Leaf,
                Clock {
                    folios: Vec::new(),
                    free: Vec::new(),
                    hand: 0,
                },
            ),
            spare: SpinLock::new(Rank::Leaf, core::array::from_fn(|_| Vec::new())),
            dirty: AtomicU64::new(0),
            evicted: Counter::default(),
            wasted: Counter::default(),
        })
    }

    /// Returns how many pages there may be.
    pub(crate) fn bound(&self) -> u64 {
        self.bound
    }

    /// Returns how many pages it has, spare ones included.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Returns how many pages went to make room, and how many were read ahead in
    /// vain.
    pub(crate) fn tallies(&self) -> (u64, u64) {
        (self.evicted.get(), self.wasted.get())
    }

    /// Finds memory for up to `want` pages from `first` on. `None` if every page is
    /// in use, or the kernel has no more.
    pub(super) fn allocate(
        &self,
        home: &Weak<Mapping<H>>,
        first: u64,
        want: u64,
    ) -> Option<Arc<Folio<H>>> {
        let mut class = want.clamp(1, FOLIO_PAGES.into()).ilog2() as usize;
        loop {
            let folio = self.take_spare(class).or_else(|| self.make(class));
            if let Some(mut folio) = folio {
                Arc::get_mut(&mut folio)?.settle(home.clone(), first);
                return Some(folio);
            }
            // Smaller ones may still be found.
            class = class.checked_sub(1)?;
        }
    }

    fn take_spare(&self, class: usize) -> Option<Arc<Folio<H>>> {
        self.spare.lock()[class].pop()
    }

    /// Makes a folio within the bound, for which others may have to go.
    fn make(&self, class: usize) -> Option<Arc<Folio<H>>> {
        let pages = 1u64 << class;
        if pages > self.bound {
            return None;
        }
        while self.used.fetch_add(pages, Relaxed) + pages > self.bound {
            self.used.fetch_sub(pages, Relaxed);
            if !self.free_spares(pages) {
                self.evict()?;
                if let Some(folio) = self.take_spare(class) {
                    return Some(folio);
                }
            }
        }
        match DmaRegion::new((pages * PAGE) as usize) {
            Ok(memory) => Some(Arc::new(Folio::new(self.me.clone(), memory))),
            Err(_) => {
                self.used.fetch_sub(pages, Relaxed);
                None
            }
        }
    }

    /// Gives spare memory back to the kernel. Returns whether there was any.
    fn free_spares(&self, pages: u64) -> bool {
        let mut freed = 0;
        while freed < pages {
            let folio = self.spare.lock().iter_mut().rev().find_map(Vec::pop);
            match folio {
                Some(folio) => freed += u64::from(folio.count()),
                None => break,
            }
        }
        freed > 0
    }

    /// Drops the folio that can best be spared. Returns how many pages went.
    fn evict(&self) -> Option<u32> {
        let mut looked = 0;
        loop {
            let folio = {
                let mut clock = self.clock.lock();
                let len = clock.folios.len();
                loop {
                    if looked >= ROUNDS * len {
                        return None;
                    }
                    looked += 1;
                    clock.hand = (clock.hand + 1) % len;
                    let folio = clock.folios[clock.hand].as_ref();
                    if let Some(folio) = folio.filter(|folio| !folio.take_used()) {
                        break folio.clone();
                    }
                }
            };
            let (home, pages) = (folio.home().upgrade(), folio.count());
            if home.is_some_and(|home| home.drop_folio(folio)) {
                self.evicted.add(pages.into());
                return Some(pages);
            }
        }
    }

    /// Drops up to `pages` clean pages. Returns how many went back to the kernel.
    pub(crate) fn shrink(&self, pages: u64) -> u64 {
        let before = self.used();
        while before.saturating_sub(self.used()) < pages {
            if !self.free_spares(pages) && self.evict().is_none() {
                break;
            }
        }
        before.saturating_sub(self.used())
    }

    /// Takes a folio that is in a file now into account.
    pub(super) fn keep(&self, folio: Arc<Folio<H>>) {
        let mut clock = self.clock.lock();
        match clock.free.pop() {
            Some(place) => {
                set_place(&folio, place);
                clock.folios[place as usize] = Some(folio);
            }
            None => {
                set_place(&folio, clock.folios.len() as u32);
                clock.folios.push(Some(folio));
            }
        }
    }

    /// Takes a folio that is in no file any more out of account.
    pub(super) fn forget(&self, folio: &Folio<H>) {
        self.wasted.add(folio.wasted().into());
        let mut clock = self.clock.lock();
        let place = folio.place().swap(u32::MAX, Relaxed);
        let ours = clock
            .folios
            .get_mut(place as usize)
            .and_then(|slot| slot.take_if(|there| core::ptr::eq(&**there, folio)));
        if ours.is_some() {
            clock.free.push(place);
        }
        drop(clock);
        drop(ours);
    }

    /// Keeps the memory of a folio that nobody uses, for the next one.
    pub(super) fn retire(&self, mut folio: Arc<Folio<H>>) {
        let free = Arc::get_mut(&mut folio).is_some_and(Folio::unsettle);
        let class = folio.count().ilog2() as usize;
        if free {
            let mut spare = self.spare.lock();
            if spare[class].len() < SPARES {
                return spare[class].push(folio);
            }
        }
        drop(folio);
    }

    /// Returns how many pages are dirty.
    pub(crate) fn dirty(&self) -> u64 {
        self.dirty.load(Relaxed)
    }

    pub(super) fn soiled(&self, pages: u32) {
        self.dirty.fetch_add(pages.into(), Relaxed);
    }

    pub(super) fn cleaned(&self, pages: u32) {
        self.dirty.fetch_sub(pages.into(), Relaxed);
    }

    /// Notes that a folio's memory is the kernel's again.
    pub(super) fn freed(&self, pages: u32) {
        self.used.fetch_sub(pages.into(), Relaxed);
    }
}
