//! A run of pages of one file: their memory, and in which state they are.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

use intrusive_collections::{KeyAdapter, RBTreeAtomicLink, intrusive_adapter};

use super::state::{States, span};
use super::{FOLIO_PAGES, Mapping, PAGE, Store};
use crate::conn::{NOT_DONE, PageOwner, Piece, SlotId};
use crate::device::dma::DmaRegion;
use crate::error::{Error, Result};
use crate::platform::Hal;
use crate::sync::{Rank, SpinLock};

/// Up to 64 pages that follow each other in a file and in memory.
pub(crate) struct Folio<H: Hal + 'static> {
    link: RBTreeAtomicLink,
    first: u64,
    count: u32,
    memory: Arc<DmaRegion<H>>,
    home: Weak<Mapping<H>>,
    store: Weak<Store<H>>,
    /// Where the store's clock has it.
    place: AtomicU32,
    /// The valid pages, to be looked at without the lock.
    valid: AtomicU64,
    /// Bytes that count: fewer than there are where the file ended early.
    end: AtomicU32,
    /// Pages that were read by somebody.
    seen: AtomicU64,
    /// Pages that came before anybody asked.
    ahead: AtomicU64,
    /// Spared by the clock the next time.
    used: AtomicBool,
    inner: SpinLock<Inner>,
}

struct Inner {
    pages: States,
    io: Io,
    /// Not in its file any more.
    detached: bool,
    error: Option<Error>,
}

/// Which requests have pages of the folio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Io {
    None,
    One(SlotId),
    Many,
}

intrusive_adapter!(pub(super) ByIndex<H> = Arc<Folio<H>>: Folio<H> { link => RBTreeAtomicLink } where H: Hal + 'static);

impl<'a, H: Hal + 'static> KeyAdapter<'a> for ByIndex<H> {
    type Key = u64;

    fn get_key(&self, folio: &'a Folio<H>) -> u64 {
        folio.first
    }
}

/// What became of bytes for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// They are there; and the page was not dirty before, or was.
    Done(bool),
    /// The page is on its way, with the request in this slot, if there is one.
    Wait(Option<SlotId>),
    /// The rest of the page must be read first.
    Unread,
    /// The folio is not in its file any more, or the page was dropped meanwhile.
    Gone,
}

/// What a reader finds at a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// So many bytes to copy.
    Ready(usize),
    /// They are on their way, with the request in this slot, if there is one.
    Filling(Option<SlotId>),
    /// They could not be had, the last time.
    Failed(Error),
    /// The file ended before them when they were asked for.
    Ended,
    /// Nothing.
    Absent,
}

impl<H: Hal + 'static> Folio<H> {
    /// Makes a folio of `count` pages of memory that is in no file yet.
    pub(super) fn new(store: Weak<Store<H>>, memory: DmaRegion<H>) -> Self {
        let count = (memory.len() as u64 / PAGE) as u32;
        debug_assert!(count <= FOLIO_PAGES, "a word has a bit for each page");
        Self {
            link: RBTreeAtomicLink::new(),
            first: 0,
            count,
            memory: Arc::new(memory),
            home: Weak::new(),
            store,
            place: AtomicU32::new(u32::MAX),
            valid: AtomicU64::new(0),
            end: AtomicU32::new(u32::MAX),
            seen: AtomicU64::new(0),
            ahead: AtomicU64::new(0),
            used: AtomicBool::new(false),
            inner: SpinLock::new(
                Rank::Folio,
                Inner {
                    pages: States::default(),
                    io: Io::None,
                    detached: false,
                    error: None,
                },
            ),
        }
    }

    /// Makes the folio be that of page `first` of a file, with nothing in it.
    pub(super) fn settle(&mut self, home: Weak<Mapping<H>>, first: u64) {
        (self.home, self.first) = (home, first);
        *self.valid.get_mut() = 0;
        *self.end.get_mut() = u32::MAX;
        *self.seen.get_mut() = 0;
        *self.ahead.get_mut() = 0;
        *self.used.get_mut() = false;
        *self.inner.get_mut() = Inner {
            pages: States::default(),
            io: Io::None,
            detached: false,
            error: None,
        };
    }

    /// Lets go of the file, and says whether nobody else has the memory.
    pub(super) fn unsettle(&mut self) -> bool {
        self.home = Weak::new();
        Arc::get_mut(&mut self.memory).is_some()
    }

    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the page behind its last.
    pub(crate) fn behind(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(super) fn home(&self) -> &Weak<Mapping<H>> {
        &self.home
    }

    pub(super) fn place(&self) -> &AtomicU32 {
        &self.place
    }

    /// Takes its second chance.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    /// Returns how many of its pages came ahead and were never read.
    pub(super) fn wasted(&self) -> u32 {
        (self.ahead.load(Relaxed) & !self.seen.load(Relaxed)).count_ones()
    }

    /// Returns the part of `pages` that lies in it, as bits.
    fn bits(&self, pages: &core::ops::Range<u64>) -> u64 {
        let from = pages.start.clamp(self.first, self.behind());
        let to = pages.end.clamp(from, self.behind());
        span((from - self.first) as u32, (to - from) as u32)
    }

    /// Returns what is at byte `at` of the folio.
    pub(crate) fn look(&self, at: u32) -> Found {
        let page = at / PAGE as u32;
        let run = (self.valid.load(Acquire) >> page).trailing_ones();
        let end = self.end.load(Relaxed);
        if run > 0 {
            return match ((page + run) * PAGE as u32).min(end).saturating_sub(at) {
                0 => Found::Ended,
                n => Found::Ready(n as usize),
            };
        }
        let inner = self.inner.lock();
        let bit = 1 << page;
        if inner.pages.valid() & bit != 0 {
            drop(inner);
            return self.look(at);
        }
        if inner.pages.filling() & bit != 0 {
            return Found::Filling(inner.io.slot());
        }
        match inner.error {
            Some(error) => Found::Failed(error),
            None if end <= at => Found::Ended,
            None => Found::Absent,
        }
    }

    /// Copies valid bytes out. Returns how many pages of those touched came ahead
    /// and were not read before.
    pub(crate) fn read(&self, at: u32, out: &mut [u8]) -> u32 {
        self.memory.copy_out(at as usize, out);
        self.note_use(at, out.len())
    }

    fn note_use(&self, at: u32, len: usize) -> u32 {
        let first = at / PAGE as u32;
        let last = (at + len.max(1) as u32 - 1) / PAGE as u32;
        let bits = span(first, last - first + 1);
        let seen = self.seen.load(Relaxed);
        if bits & !seen != 0 {
            let new = bits & !self.seen.fetch_or(bits, Relaxed);
            return (new & self.ahead.load(Relaxed)).count_ones();
        }
        // Used again, not only for the first time.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        0
    }

    /// Claims absent pages from byte page `from` on, at most up to page `limit` of
    /// the file, for the request in `slot`. Returns how many; `None` once it is
    /// detached.
    pub(super) fn claim(&self, from: u64, limit: u64, slot: SlotId, early: bool) -> Option<u32> {
        let mut inner = self.inner.lock();
        if inner.detached {
            return None;
        }
        let at = (from - self.first) as u32;
        let wanted = self.bits(&(from..limit)) >> at;
        let taken = (inner.pages.valid() | inner.pages.filling()) >> at;
        let run = (wanted & !taken).trailing_ones();
        if run == 0 {
            return Some(0);
        }
        if self.end.load(Relaxed) <= (at + run) * PAGE as u32 {
            // The file has grown since it ended here.
            let tail = span(self.end.load(Relaxed) / PAGE as u32, 1);
            let stale = tail & !(inner.pages.dirty() | inner.pages.filling());
            inner.pages.discard(stale);
            self.end.store(u32::MAX, Relaxed);
        }
        let claimed = inner.pages.claim(span(at, run));
        inner.error = None;
        inner.use_slot(slot);
        let ahead = self.ahead.load(Relaxed) & !claimed;
        self.ahead
            .store(ahead | if early { claimed } else { 0 }, Relaxed);
        self.seen.fetch_and(!claimed, Relaxed);
        self.publish(&inner);
        Some(run)
    }

    /// Returns how many pages from `page` on are here or on their way.
    pub(super) fn present_from(&self, page: u64) -> u32 {
        let inner = self.inner.lock();
        let at = (page - self.first) as u32;
        let run = ((inner.pages.valid() | inner.pages.filling()) >> at).trailing_ones();
        run.min(self.count - at)
    }

    fn publish(&self, inner: &Inner) {
        self.valid.store(inner.pages.valid(), Release);
    }

    /// Makes pages absent whatever they hold, as soon as they are not on their way.
    /// Returns how many dirty ones went.
    pub(super) fn discard(&self, pages: &core::ops::Range<u64>) -> u32 {
        let mut inner = self.inner.lock();
        let bits = self.bits(pages);
        let dirty = inner.pages.discard(bits);
        self.publish(&inner);
        dirty.count_ones()
    }

    /// As [`discard`](Self::discard), but dirty pages and those being written stay.
    pub(super) fn discard_clean(&self, pages: &core::ops::Range<u64>) {
        let mut inner = self.inner.lock();
        let kept = inner.pages.dirty() | inner.pages.writing();
        let bits = self.bits(pages) & !kept;
        inner.pages.discard(bits);
        self.publish(&inner);
    }

    /// Takes the folio out of use, unless a page is on its way or dirty. From here
    /// on it is the caller's to take out of its file.
    pub(super) fn detach_if_idle(&self) -> bool {
        let mut inner = self.inner.lock();
        let idle = inner.pages.is_idle() && !inner.detached;
        inner.detached |= idle;
        idle
    }

    /// Copies `data` over what is valid from byte `at` on. Pages that are on their
    /// way are dropped when they come: nobody knows whether they hold it.
    pub(super) fn overwrite(&self, at: u32, data: &[u8]) {
        let end = at + data.len() as u32;
        let mut done = 0;
        for page in at / PAGE as u32..end.div_ceil(PAGE as u32) {
            let stop = ((page + 1) * PAGE as u32).min(end) - at;
            let bit = 1 << page;
            let mut inner = self.inner.lock();
            let valid = inner.pages.valid() & bit != 0;
            if inner.pages.filling() & bit != 0 {
                inner.pages.discard(bit);
            }
            drop(inner);
            if valid {
                let part = &data[done as usize..stop as usize];
                self.memory.copy_in((at + done) as usize, part);
            }
            done = stop;
        }
        if self.end.load(Relaxed) < end {
            self.end.store(u32::MAX, Relaxed);
        }
    }

    /// Puts `data`, which lie in one page, at byte `at`, to be written out later. If
    /// `fresh` the page need not be read first: nothing else in it counts. Calls
    /// `before` when they are there, before the page can be written out, and `soiled`
    /// if that made it dirty, before anybody can find it so.
    pub(crate) fn put(
        &self,
        at: u32,
        data: &[u8],
        fresh: bool,
        before: impl FnOnce(),
        soiled: impl FnOnce(),
    ) -> Put {
        let page = at / PAGE as u32;
        let bit = 1 << page;
        let mut inner = self.inner.lock();
        if inner.detached {
            return Put::Gone;
        }
        if inner.pages.filling() & bit != 0 {
            return Put::Wait(inner.io.slot());
        }
        let valid = inner.pages.valid() & bit != 0;
        if !valid && !fresh {
            return Put::Unread;
        }
        if !valid {
            inner.pages.claim(bit);
            inner.error = None;
        }
        drop(inner);
        if !valid {
            let (start, stop) = (page * PAGE as u32, (page + 1) * PAGE as u32);
            let end = at + data.len() as u32;
            self.memory.zero(start as usize, (at - start) as usize);
            self.memory.zero(end as usize, (stop - end) as usize);
        }
        self.memory.copy_in(at as usize, data);
        let mut inner = self.inner.lock();
        if !valid {
            inner.pages.filled(bit, bit);
            inner.rest();
            self.publish(&inner);
        }
        if inner.detached || inner.pages.valid() & bit == 0 {
            return Put::Gone;
        }
        drop(inner);
        // The size, which whoever writes the page out looks at.
        before();
        let mut inner = self.inner.lock();
        if inner.detached || inner.pages.valid() & bit == 0 {
            return Put::Gone;
        }
        let new = inner.pages.soil(bit);
        if new != 0 {
            soiled();
        }
        self.publish(&inner);
        if self.end.load(Relaxed) < at + data.len() as u32 {
            self.end.store(u32::MAX, Relaxed);
        }
        self.seen.fetch_or(bit, Relaxed);
        Put::Done(new != 0)
    }

    /// Returns whether a page is on its way here.
    pub(crate) fn is_filling(&self, page: u64) -> bool {
        self.filling(page).is_some()
    }

    /// Returns the slot of the request that a page comes with, if it is on its way.
    pub(crate) fn filling(&self, page: u64) -> Option<Option<SlotId>> {
        let inner = self.inner.lock();
        let busy = inner.pages.filling() & self.bits(&(page..page + 1)) != 0;
        busy.then(|| inner.io.slot())
    }

    /// Returns why a page that is absent could not be had.
    pub(crate) fn failure(&self, page: u64) -> Option<Error> {
        let inner = self.inner.lock();
        let busy = inner.pages.valid() | inner.pages.filling();
        let absent = busy & self.bits(&(page..page + 1)) == 0;
        inner.error.filter(|_| absent && !inner.detached)
    }

    /// Takes the dirty pages from `from` on that follow each other, up to `limit`,
    /// for the request in `slot`. Returns how many.
    pub(super) fn take_dirty(&self, from: u64, limit: u64, slot: SlotId) -> u32 {
        let mut inner = self.inner.lock();
        let at = (from - self.first) as u32;
        let ready = inner.pages.dirty() & !inner.pages.writing() & self.bits(&(from..limit));
        let run = (ready >> at).trailing_ones();
        if run > 0 {
            inner.pages.take_dirty(span(at, run));
            inner.use_slot(slot);
        }
        run
    }

    /// Returns the first page from `from` on that can be written out.
    pub(super) fn next_dirty(&self, from: u64) -> Option<u64> {
        let inner = self.inner.lock();
        let ready = inner.pages.dirty() & !inner.pages.writing();
        let at = from.saturating_sub(self.first) as u32;
        let ready = ready.checked_shr(at)? << at;
        (ready != 0).then(|| self.first + u64::from(ready.trailing_zeros()))
    }

    /// Returns the slot of the request that a page in `pages` is on its way with,
    /// if one is.
    pub(super) fn writing(&self, pages: &core::ops::Range<u64>) -> Option<Option<SlotId>> {
        let inner = self.inner.lock();
        let busy = inner.pages.writing() & self.bits(pages) != 0;
        busy.then(|| inner.io.slot())
    }

    /// Makes bytes from `at` on zero where the page is valid, to the page's end.
    pub(super) fn zero_tail(&self, at: u32) {
        let page = at / PAGE as u32;
        let mut inner = self.inner.lock();
        if inner.pages.filling() & 1 << page != 0 {
            inner.pages.discard(1 << page);
        }
        let valid = inner.pages.valid() & 1 << page != 0;
        drop(inner);
        if valid {
            let len = (page + 1) * PAGE as u32 - at;
            self.memory.zero(at as usize, len as usize);
        }
    }

    /// Does not believe any more that the file ended in or before page `page`.
    pub(crate) fn forget_end(&self, page: u64) {
        self.discard_clean(&(page..page + 1));
        let mut inner = self.inner.lock();
        let tail = self.end.load(Relaxed) / PAGE as u32;
        if tail < self.count {
            let clean = span(tail, 1) & !(inner.pages.dirty() | inner.pages.writing());
            inner.pages.discard(clean);
            self.publish(&inner);
        }
        self.end.store(u32::MAX, Relaxed);
    }

    /// Notes that what lies behind the end that the file had is zeros now.
    pub(super) fn outgrow(&self) {
        self.end.store(u32::MAX, Relaxed);
    }

    pub(super) fn piece(self: &Arc<Self>, page: u64, count: u32) -> Piece<H> {
        Piece {
            memory: self.memory.clone(),
            owner: self.clone(),
            offset: (page - self.first) as u32 * PAGE as u32,
            len: count * PAGE as u32,
        }
    }
}

impl Io {
    fn slot(self) -> Option<SlotId> {
        match self {
            Self::One(slot) => Some(slot),
            Self::None | Self::Many => None,
        }
    }
}

impl Inner {
    fn use_slot(&mut self, slot: SlotId) {
        self.io = match self.io {
            Io::One(other) if other != slot => Io::Many,
            Io::Many => Io::Many,
            _ => Io::One(slot),
        };
    }

    fn rest(&mut self) {
        if self.pages.filling() | self.pages.writing() == 0 {
            self.io = Io::None;
        }
    }
}

impl<H: Hal + 'static> PageOwner for Folio<H> {
    fn done(&self, offset: u32, len: u32, outcome: Result<u32>) {
        let page = PAGE as u32;
        let bits = span(offset / page, len.div_ceil(page));
        let home = self.home.upgrade();
        if self.inner.lock().pages.writing() & bits != 0 {
            return self.wrote(offset, len, outcome, home.as_deref());
        }
        let mut good = 0;
        // Where the size is ours to say, what the server has not is a hole.
        let hole = home.is_some_and(|home| home.owns_size());
        let outcome = match outcome {
            Ok(got) if got < len && hole => {
                self.memory
                    .zero((offset + got) as usize, (len - got) as usize);
                Ok(len)
            }
            outcome => outcome,
        };
        if let Ok(got) = outcome {
            let whole = got.div_ceil(page);
            if got < len {
                // The rest of the page where the file ended reads as zeros.
                let tail = (whole * page - got) as usize;
                self.memory.zero((offset + got) as usize, tail);
            }
            good = span(offset / page, whole);
        }
        let mut inner = self.inner.lock();
        match outcome {
            Ok(got) if got < len && inner.pages.filling() & bits == bits => {
                self.end.store(offset + got, Relaxed);
            }
            // Not sent: whoever wants them asks again.
            Err(NOT_DONE) => {}
            Err(error) => inner.error = Some(error),
            Ok(_) => {}
        }
        inner.pages.filled(bits, good);
        inner.rest();
        self.publish(&inner);
    }
}

impl<H: Hal + 'static> Folio<H> {
    /// Notes what became of pages that were written out, of `len` bytes `offset` on.
    fn wrote(&self, offset: u32, len: u32, outcome: Result<u32>, home: Option<&Mapping<H>>) {
        let page = PAGE as u32;
        let (first, count) = (offset / page, len.div_ceil(page));
        let all = span(first, count);
        // What goes out again, what is lost, and why. Of each request a page at
        // least is done with, so that this ends with any server.
        let (again, lost, why) = match outcome {
            Ok(n) if n == len => (0, 0, None),
            Ok(n) if n > 0 && n < page => {
                let one = span(first, 1);
                (all & !one, one, Some(Error::protocol()))
            }
            Ok(n) => (all & !span(first, n / page), 0, None),
            Err(NOT_DONE) => (all, 0, None),
            Err(error) => (0, all, Some(error)),
        };
        let mut inner = self.inner.lock();
        inner.pages.written(all);
        let new = inner.pages.soil(again);
        // What the server has is the truth then, unless it is newer already.
        let lost = lost & !inner.pages.dirty();
        inner.pages.discard(lost);
        inner.rest();
        self.publish(&inner);
        // Under the lock: who finds none counted and then none here is right.
        if let Some(home) = home {
            home.soiled(new.count_ones());
        }
        drop(inner);
        if let (Some(home), Some(error)) = (home, why) {
            home.errors().record(error);
        }
    }
}

impl<H: Hal + 'static> Drop for Folio<H> {
    fn drop(&mut self) {
        if let Some(store) = self.store.upgrade() {
            store.freed(self.count);
        }
    }
}

/// Orders what is written to `place` before the folio is found through it.
pub(super) fn set_place<H: Hal + 'static>(folio: &Folio<H>, place: u32) {
    folio.place.swap(place, AcqRel);
}
