//! Writing to cached pages, and bringing them to the server later.
//!
//! While a file has dirty pages its size is what is known here, and the handle that
//! made the first of them stays open for the others, and with it the inode in
//! memory. Times stay the server's: it sets them when the pages come. So who asks
//! for attributes has the pages written out first, and nothing need be sent but the
//! WRITEs themselves (Linux sends a SETATTR for the times in addition).
//!
//! Written through are: the first write to a file that was not made here, which takes
//! set-id bits and capabilities off it (S4-M02), O_SYNC and O_DSYNC, O_DIRECT,
//! and whatever there is no memory for.
//!
//! # Locks
//!
//! The gate of a file is shared by writes and by writing out, and taken alone by
//! what cuts or appends to it. It is held across requests. It is an order of its own
//! with the layout of files that use the window, which have no pages.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use super::attr::Stale;
use super::cached::ALL;
use super::handle::Handle;
use super::io::Written;
use super::{File, FileSystem, Inode};
use crate::cache::{Mapping, PAGE, Put, Source, Store, await_written, fill, write_out};
use crate::conn::{DataCache, Turn};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::sync::{ExclusiveGuard, Rank, SharedGuard, SleepRwLock, SpinLock};
use crate::wire::{InitFlags, Mode, OpenFlags, SIZE_MAX};

/// How old dirty pages get at most before they are written out, where somebody
/// runs [`FileSystem::work`].
const AGE: Duration = Duration::from_secs(5);

/// The cached pages of a file, and what writing to them takes.
pub(super) struct Pages<P: Platform> {
    pub(super) mapping: Arc<Mapping<P::Hal>>,
    gate: SleepRwLock<P>,
    /// Through which dirty pages go.
    writer: SpinLock<Option<Arc<Handle<P>>>>,
    /// The file stands in the list of those with dirty pages.
    listed: AtomicBool,
    /// Nothing that a write takes off a file can be on it.
    bare: AtomicBool,
    /// The errors that the attributes are known to bear.
    errors: AtomicU64,
}

impl<P: Platform> Pages<P> {
    pub(super) fn new(store: &Arc<Store<P::Hal>>) -> Self {
        Self {
            mapping: Mapping::new(store),
            gate: SleepRwLock::new(),
            writer: SpinLock::new(Rank::Leaf, None),
            listed: AtomicBool::new(false),
            bare: AtomicBool::new(false),
            errors: AtomicU64::new(0),
        }
    }

    /// Notes whether set-id bits or capabilities may be on the file.
    pub(super) fn set_bare(&self, bare: bool) {
        self.bare.store(bare, Relaxed);
    }
}

/// Keeps a file from being written to, or cut, meanwhile.
pub(super) enum Gate<'a, P: Platform> {
    /// Others may write as well.
    Shared { _guard: SharedGuard<'a, P> },
    /// Nobody else does.
    Alone { _guard: ExclusiveGuard<'a, P> },
}

impl<P: Platform> FileSystem<P> {
    /// Returns whether written data are kept back.
    pub(super) fn writes_back(&self) -> bool {
        self.pages.is_some()
            && self.conn.config().data_cache == DataCache::WriteBack
            && self.conn.limits().has(InitFlags::WRITEBACK_CACHE)
    }

    /// Returns with which flags the server makes a file so that pages can be read and
    /// written out through it: not every one that takes part does as much for CREATE
    /// as for OPEN. Where the end is, is known here alone.
    pub(super) fn lazily(&self, flags: OpenFlags) -> OpenFlags {
        if !self.writes_back() || !flags.writable() {
            return flags;
        }
        flags.difference(OpenFlags::APPEND | OpenFlags::ACCESS_MODE) | OpenFlags::RDWR
    }

    /// Writes out every file's dirty pages. Blocks. The errors are those of the
    /// files.
    pub(super) fn write_out_all(&self) {
        let listed: Vec<_> = self.dirty.lock().files.clone();
        for inode in listed {
            if let Err(error) = inode.sync_pages() {
                log::warn!("virtio-fs: writing out node {}: {error}", inode.node);
            }
        }
    }

    /// Writes out what has been dirty for long. Blocks if there is any. Returns when
    /// to look again.
    pub(super) fn write_out_old(&self) -> Option<Duration> {
        let now = self.now();
        let due = {
            let mut dirty = self.dirty.lock();
            let due = *dirty.due.get_or_insert(now + AGE);
            if dirty.files.is_empty() {
                dirty.due = None;
                return None;
            }
            if now < due {
                return Some(due);
            }
            dirty.due = Some(now + AGE);
            now + AGE
        };
        self.write_out_all();
        Some(due)
    }

    /// Lets go of files whose dirty pages cannot be written any more.
    pub(super) fn give_up_dirty(&self) {
        let files = core::mem::take(&mut self.dirty.lock().files);
        for inode in &files {
            if let Some(pages) = inode.pages.get() {
                let lost = pages.mapping.discard(&ALL);
                if lost > 0 {
                    log::error!("virtio-fs: node {}: {lost} dirty pages lost", inode.node);
                }
                // Outside of the lock: the last reference sends RELEASE.
                let writer = pages.writer.lock().take();
                drop(writer);
            }
        }
    }
}

/// Files with dirty pages, kept in memory for them.
pub(super) struct DirtyFiles<P: Platform> {
    files: Vec<Arc<Inode<P>>>,
    /// When they are looked at.
    due: Option<Duration>,
}

impl<P: Platform> Default for DirtyFiles<P> {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            due: None,
        }
    }
}

impl<P: Platform> Inode<P> {
    /// Keeps everybody from writing to the file's pages, for a request that changes
    /// its data or size, and writes out what is dirty. `None` where nothing is kept
    /// back. Blocks.
    pub(super) fn close_gate(self: &Arc<Self>) -> Result<Option<Gate<'_, P>>> {
        if !self.fs.writes_back() {
            return Ok(None);
        }
        let Some(pages) = self.pages.get() else {
            return Ok(None);
        };
        let guard = pages.gate.take(self.fs.platform())?;
        // What a truncation cuts off, too: the server may refuse it.
        self.write_out_gated(pages)?;
        Ok(Some(Gate::Alone { _guard: guard }))
    }

    /// Writes out all dirty pages and waits for them. Blocks. What went wrong with
    /// a page is told to the open files.
    pub(super) fn sync_pages(self: &Arc<Self>) -> Result<()> {
        let Some(pages) = self.pages.get() else {
            return Ok(());
        };
        if !pages.listed.load(Acquire) {
            return Ok(());
        }
        {
            let _gate = pages.gate.share(self.fs.platform())?;
            self.write_out_gated(pages)?;
        }
        self.settle_pages(pages)
    }

    /// As [`sync_pages`](Self::sync_pages), with the gate held. Again while that makes
    /// fewer pages dirty, and for those that were on their way and dirty again.
    fn write_out_gated(&self, pages: &Pages<P>) -> Result<()> {
        let conn = &self.fs.conn;
        let (mut last, mut rounds) = (u64::MAX, 0);
        // Of each request a page at least gets done, so that this ends.
        while rounds < 2 {
            let handle = pages.writer.lock().clone();
            if let Some(handle) = handle {
                let size = || self.last_attr().size;
                let source = source_of(&handle);
                write_out(conn, &pages.mapping, &ALL, size, &source, Turn::Wait)?;
            }
            await_written(conn, &pages.mapping, &ALL)?;
            let left = pages.mapping.dirty();
            if left == 0 {
                break;
            }
            if left >= last {
                rounds += 1;
            }
            last = left;
        }
        Ok(())
    }

    /// Lets go of what a file without dirty pages needs no more.
    fn settle_pages(self: &Arc<Self>, pages: &Pages<P>) -> Result<()> {
        let _gate = pages.gate.take(self.fs.platform())?;
        if !pages.mapping.is_clean() {
            return Ok(());
        }
        if pages.mapping.owns_size() {
            // Answers to questions from before the server had it all are too old.
            self.attr_changed(self.written());
        }
        pages.mapping.own_size(false);
        let errors = pages.mapping.errors().sample();
        if pages.errors.swap(errors, AcqRel) != errors {
            // The server does not have all of it.
            self.attr_changed(Stale::all());
        }
        let writer = pages.writer.lock().take();
        if pages.listed.swap(false, AcqRel) {
            let mut dirty = self.fs.dirty.lock();
            dirty.files.retain(|file| !Arc::ptr_eq(file, self));
        }
        // Outside of locks: the last reference sends RELEASE.
        drop(writer);
        Ok(())
    }

    /// Notes that the file was made here, so that nothing can be on it that a write
    /// takes off.
    pub(super) fn made_here(&self) {
        if self.fs.writes_back()
            && let Some(store) = &self.fs.pages
            && self.owner.is_none()
        {
            self.pages_in(store).set_bare(true);
        }
    }

    /// Returns the size that the file has by what is kept back here.
    pub(super) fn own_size(&self) -> Option<u64> {
        let mapping = self.mapping_here()?;
        mapping.owns_size().then(|| self.last_attr().size)
    }
}

fn source_of<P: Platform>(handle: &Handle<P>) -> Source {
    Source {
        node: handle.inode.node,
        fh: handle.fh(),
        // At its offset, whatever the file was opened for.
        flags: handle.flags.difference(OpenFlags::APPEND),
    }
}

impl<P: Platform> File<P> {
    /// Returns the pages that a write goes to, if it is kept back.
    pub(super) fn pages_for_writing(&self) -> Option<&Pages<P>> {
        let inode = self.inode();
        let durable = OpenFlags::SYNC | OpenFlags::DSYNC;
        if !inode.fs.writes_back() || self.flags.intersects(durable) {
            return None;
        }
        self.mapping()?;
        let pages = inode.pages.get()?;
        let set_ids = Mode::SET_UID | Mode::SET_GID;
        let bare = pages.bare.load(Relaxed) && inode.last_attr().mode.permissions() & set_ids == 0;
        bare.then_some(pages)
    }

    /// Writes `bufs`, `total` bytes, to the file's pages: at `offset`, or at its end.
    /// Returns how many bytes and where they begin. Blocks for what must be read
    /// first, and for others to be written out if too much is dirty.
    pub(super) fn write_pages_from(
        &self,
        pages: &Pages<P>,
        offset: u64,
        bufs: &[&[u8]],
        total: usize,
        append: bool,
    ) -> Result<Written> {
        let inode = self.inode();
        let fs = &inode.fs;
        let gate = if append {
            let guard = pages.gate.take(fs.platform())?;
            Gate::Alone { _guard: guard }
        } else {
            let guard = pages.gate.share(fs.platform())?;
            Gate::Shared { _guard: guard }
        };
        let size = inode.fresh_attr(Stale::SIZE, self.fh())?.size;
        let start = if append { size } else { offset };
        let room = total.min((SIZE_MAX - start) as usize);
        if room == 0 {
            return Err(Error::caller(Errno::EFBIG));
        }
        self.keep_back(pages);
        if start + room as u64 > size {
            inode.resize_pages(size, start + room as u64);
        }
        let mut done = 0;
        let mut result = Ok(());
        'all: for buf in bufs {
            let len = buf.len().min(room - done);
            let mut at = 0;
            while at < len {
                let pos = start + (done + at) as u64;
                let n = (len - at).min((PAGE - pos % PAGE) as usize);
                match self.write_page(pages, pos, &buf[at..at + n], room - done - at) {
                    Ok(()) => at += n,
                    Err(error) => {
                        done += at;
                        result = Err(error);
                        break 'all;
                    }
                }
            }
            done += at;
            if done == room {
                break;
            }
        }
        inode.attr_changed(inode.written());
        fs.counters()
            .page_copies
            .add(done.div_ceil(PAGE as usize) as u64);
        self.write_out_some(pages, &gate);
        match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(Written {
                offset: start,
                len: done,
            }),
        }
    }

    /// Puts the file on the list of those with dirty pages, before the first is.
    fn keep_back(&self, pages: &Pages<P>) {
        let inode = self.inode();
        pages.mapping.own_size(true);
        let mut writer = pages.writer.lock();
        if writer.is_none() {
            *writer = Some(self.handle.clone());
        }
        drop(writer);
        if !pages.listed.swap(true, AcqRel) {
            inode.fs.dirty.lock().files.push(inode.clone());
        }
    }

    /// Writes bytes of one page. `rest` bytes are to come, these included.
    fn write_page(&self, pages: &Pages<P>, pos: u64, data: &[u8], rest: usize) -> Result<()> {
        let inode = self.inode();
        let conn = &inode.fs.conn;
        let page = pos / PAGE;
        let end = pos + data.len() as u64;
        let grow = || {
            if end > inode.last_attr().size {
                let now = inode.fs.ask_now();
                let stale = inode.written();
                inode.attr_became(now, stale, |attr| attr.size = attr.size.max(end));
            }
        };
        // A file that grows gets longer runs, the longer it is.
        let more = (rest as u64).div_ceil(PAGE);
        let grows = page * PAGE >= inode.last_attr().size;
        let most = inode
            .fs
            .pages
            .as_ref()
            .map_or(1, |store| store.bound() / 16);
        let want = if grows {
            more.max(page.min(most))
        } else {
            more
        };
        loop {
            let Some(folio) = pages.mapping.find_or_make(page, want) else {
                // All memory is in use, much of it perhaps dirty.
                if pages.mapping.dirty() > 0 {
                    inode.write_out_gated(pages)?;
                    if pages.mapping.dirty() == 0 && inode.fs.reclaim(PAGE as usize) > 0 {
                        continue;
                    }
                }
                return self.write_page_through(pages, pos, data, grow);
            };
            let at = (pos - folio.first() * PAGE) as u32;
            let size = inode.last_attr().size;
            let fresh = data.len() as u64 == PAGE || page * PAGE >= size;
            match folio.put(at, data, fresh, grow, || pages.mapping.soiled(1)) {
                Put::Done(new) => {
                    if new {
                        conn.counters().pages_dirtied.add(1);
                    }
                    return Ok(());
                }
                Put::Gone => {}
                Put::Wait(slot) => {
                    let come = || (!folio.is_filling(page)).then_some(());
                    conn.await_pages(slot, come)?;
                }
                Put::Unread => {
                    let one = page..page + 1;
                    let source = self.source();
                    if fill(conn, &pages.mapping, &one, page + 1, &source)? == page {
                        return self.write_page_through(pages, pos, data, grow);
                    }
                    let slot = folio.filling(page);
                    let come = || (!folio.is_filling(page)).then_some(());
                    if let Some(slot) = slot {
                        conn.await_pages(slot, come)?;
                    }
                    if let Some(error) = folio.failure(page) {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Writes bytes for which there is no memory.
    fn write_page_through(
        &self,
        pages: &Pages<P>,
        pos: u64,
        data: &[u8],
        grow: impl Fn(),
    ) -> Result<()> {
        let origin = crate::wire::WriteOrigin::Caller;
        let mut done = 0;
        while done < data.len() {
            let rest = &data[done..];
            done += self.write_by_request(pos + done as u64, &[rest], rest.len(), origin)?;
        }
        pages.mapping.overwrite(pos, data);
        grow();
        Ok(())
    }

    /// Writes out some pages if enough follow each other for whole requests, and
    /// waits for them if too many are dirty.
    fn write_out_some(&self, pages: &Pages<P>, _gate: &Gate<'_, P>) {
        let inode = self.inode();
        let fs = &inode.fs;
        let Some(store) = &fs.pages else { return };
        let most = u64::from(fs.conn.limits().max_write) / PAGE;
        let much = store.dirty() > store.bound() / 2;
        if !much && pages.mapping.dirty() < 2 * most {
            return;
        }
        // Errors are told by fsync and close.
        let result = if much {
            inode.write_out_gated(pages)
        } else {
            let size = || inode.last_attr().size;
            let source = source_of(&self.handle);
            write_out(&fs.conn, &pages.mapping, &ALL, size, &source, Turn::IfFree)
        };
        if let Err(error) = result {
            log::warn!("virtio-fs: writing out node {}: {error}", inode.node);
        }
    }

    /// Writes out what is dirty, and tells an error that this open file has not been
    /// told of. Blocks.
    pub(super) fn flush_pages(&self) -> Result<()> {
        let inode = self.inode();
        let synced = inode.sync_pages();
        match inode.mapping_here() {
            Some(mapping) => mapping.errors().check(&self.seen_error).and(synced),
            None => synced,
        }
    }

    /// Notes which errors this open file need not be told of: those from before.
    pub(super) fn open_errors(&self) {
        let seen = self
            .inode()
            .mapping_here()
            .map(|mapping| mapping.errors().sample());
        self.seen_error.store(seen.unwrap_or(0), Release);
    }
}
