//! File data through the page cache.
//!
//! A file is used either through the DAX window or through cached pages, never
//! both. Reads take what is there, ask for the rest together with what will be
//! wanted next, and copy once, to the caller. Writes go to the server first and
//! then over the pages that are here (write-through).
//!
//! | what happens | what becomes of cached pages |
//! |---|---|
//! | open | dropped, unless the server says KEEP_CACHE or the policy keeps all |
//! | read or written with O_DIRECT or FOPEN_DIRECT_IO | not used; what is written goes over them |
//! | the server's mtime or size is another one | dropped, unless a change made here explains it (AUTO_INVAL_DATA), or the server promised to tell (EXPLICIT_INVAL_DATA) |
//! | truncated | cut, and the rest of the last page is zeros |
//! | allocated, punched, copied to on the server | dropped in that range |
//! | INVAL_INODE, STORE | dropped in that range, overwritten |

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::writeback::Pages;
use super::{File, FileSystem, Inode};
use crate::cache::{Found, Mapping, PAGE, Plan, Source, Store, Writer, fill};
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{FileType, FopenFlags, InitFlags, OpenFlags, SIZE_MAX};

/// All pages of a file.
pub(super) const ALL: Range<u64> = 0..u64::MAX;

/// Returns the pages that bytes are in.
pub(super) fn pages_of(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / PAGE..bytes.end.div_ceil(PAGE)
}

impl<P: Platform> FileSystem<P> {
    /// Returns how many bytes of memory cached pages have, and how many they may
    /// have.
    pub fn page_cache(&self) -> (u64, u64) {
        let store = self.pages.as_ref();
        store.map_or((0, 0), |store| (store.used() * PAGE, store.bound() * PAGE))
    }

    /// Returns how many cached pages went to make room, and how many were read
    /// ahead in vain.
    pub fn page_losses(&self) -> (u64, u64) {
        self.pages.as_ref().map_or((0, 0), |store| store.tallies())
    }

    /// Gives memory of cached pages back to the kernel: at least `bytes`, if so much
    /// can be had without waiting. Returns how much it was. For a kernel that is
    /// short of memory. Does not block.
    pub fn reclaim(&self, bytes: usize) -> usize {
        let pages = (bytes as u64).div_ceil(PAGE);
        let freed = self.pages.as_ref().map(|store| store.shrink(pages));
        (freed.unwrap_or(0) * PAGE) as usize
    }
}

impl<P: Platform> Inode<P> {
    /// Returns the file's cached pages, if it has had any.
    pub(super) fn mapping_here(&self) -> Option<&Arc<Mapping<P::Hal>>> {
        self.pages.get().map(|pages| &pages.mapping)
    }

    pub(super) fn pages_in(&self, store: &Arc<Store<P::Hal>>) -> &Pages<P> {
        self.pages.call_once(|| Box::new(Pages::new(store)))
    }

    /// Drops clean pages that may not hold any more.
    pub(super) fn drop_pages(&self, pages: &Range<u64>) {
        if let Some(mapping) = self.mapping_here() {
            mapping.discard_clean(pages);
        }
    }

    /// As [`drop_pages`](Self::drop_pages), of the pages that `len` bytes at
    /// `offset` are in.
    pub(super) fn drop_bytes(&self, offset: u64, len: u64) {
        self.drop_pages(&pages_of(&(offset..offset.saturating_add(len))));
    }

    /// Takes over what the server stores in the cache: data of pages that are here.
    pub(super) fn store_pages(&self, offset: u64, data: &[u8]) {
        let fits = offset.checked_add(data.len() as u64) <= Some(SIZE_MAX);
        if let Some(mapping) = self.mapping_here().filter(|_| fits) {
            mapping.overwrite(offset, data);
        }
    }

    /// Returns up to `size` bytes from `offset` on, as far as they are cached.
    /// Allocates.
    pub(super) fn retrieve_pages(&self, offset: u64, size: u32) -> Vec<u8> {
        let mut data = Vec::new();
        let end = self
            .last_attr()
            .size
            .min(offset.saturating_add(size.into()));
        let Some(mapping) = self.mapping_here() else {
            return data;
        };
        let most = (self.fs.conn.limits().max_write as usize).min(self.fs.conn.fitting());
        while data.len() < most {
            let pos = offset + data.len() as u64;
            let Some(folio) = mapping.find(pos / PAGE).filter(|_| pos < end) else {
                break;
            };
            let at = (pos - folio.first() * PAGE) as u32;
            let Found::Ready(n) = folio.look(at) else {
                break;
            };
            let n = n.min((end - pos) as usize).min(most - data.len());
            let from = data.len();
            data.resize(from + n, 0);
            folio.read(at, &mut data[from..]);
        }
        data
    }

    /// Follows a change of the size made here.
    pub(super) fn resize_pages(&self, old: u64, new: u64) {
        if let Some(mapping) = self.mapping_here() {
            mapping.resize(old, new);
        }
    }

    /// Looks at what the server says of a file whose size or mtime is not what was
    /// known. `ours` if a change made here explains the time.
    pub(super) fn data_changed(&self, old_size: u64, new_size: u64, ours: bool) {
        let Some(mapping) = self.mapping_here() else {
            return;
        };
        let limits = self.fs.conn.limits();
        let told =
            limits.has(InitFlags::EXPLICIT_INVAL_DATA) && !limits.has(InitFlags::AUTO_INVAL_DATA);
        let explained = ours && old_size == new_size;
        if told && old_size != new_size {
            mapping.resize(old_size, new_size);
        } else if !told && !explained {
            mapping.discard_clean(&ALL);
        }
    }
}

impl<P: Platform> File<P> {
    /// Returns the pages through which the file is read, if it is.
    pub(super) fn mapping(&self) -> Option<&Arc<Mapping<P::Hal>>> {
        let inode = self.inode();
        let store = inode.fs.pages.as_ref()?;
        let direct = self.handle.fopen.contains(FopenFlags::DIRECT_IO)
            || self.flags.contains(OpenFlags::DIRECT);
        let cached = !direct && inode.owner.is_none() && inode.file_type() == FileType::Regular;
        cached.then(|| &inode.pages_in(store).mapping)
    }

    pub(super) fn source(&self) -> Source {
        Source {
            node: self.inode().node,
            fh: self.handle.fh(),
            flags: self.handle.flags,
        }
    }

    /// Drops what is cached when the file is opened, unless it may be kept
    /// (close-to-open).
    pub(super) fn open_pages(&self) {
        let keep = self.handle.fopen.contains(FopenFlags::KEEP_CACHE)
            || self.inode().fs.options.cache.keeps_all();
        if !keep {
            self.inode().drop_pages(&ALL);
        }
    }

    /// Reads up to `room` bytes of a file of `size` bytes from its pages. They lie
    /// before the end. Fewer mean that the file turned out to be shorter.
    pub(super) fn read_pages_into(
        &self,
        mapping: &Arc<Mapping<P::Hal>>,
        offset: u64,
        bufs: &mut [&mut [u8]],
        room: usize,
        size: u64,
    ) -> Result<usize> {
        if room == 0 {
            return Ok(0);
        }
        let inode = self.inode();
        let counters = inode.fs.counters();
        let end = size.div_ceil(PAGE);
        let wanted = pages_of(&(offset..offset + room as u64));
        let max = self.readahead_max();
        let mut plan = {
            let count = wanted.end - wanted.start;
            let unit = u64::from(inode.fs.conn.limits().max_read) / PAGE;
            self.ahead.lock().note(wanted.start, count, max, unit)
        };
        let (mut done, mut missed, mut used, mut copies) = (0, 0, 0, 0);
        let mut result = Ok(());
        let mut healed = false;
        'all: for buf in bufs {
            let len = buf.len().min(room - done);
            let mut at = 0;
            // This call has asked for what is wanted next.
            let mut asked = false;
            while at < len {
                let pos = offset + (done + at) as u64;
                let folio = mapping.find(pos / PAGE);
                let found = folio.as_ref().map_or(Found::Absent, |folio| {
                    folio.look((pos - folio.first() * PAGE) as u32)
                });
                match (found, &folio) {
                    (Found::Ready(n), Some(folio)) => {
                        let n = n.min(len - at);
                        let out = &mut buf[at..at + n];
                        used += folio.read((pos - folio.first() * PAGE) as u32, out);
                        copies += 1;
                        at += n;
                        asked = false;
                    }
                    // It is longer now by what is known of it: asked once more.
                    (Found::Ended, Some(folio)) if !healed => {
                        healed = true;
                        let page = pos / PAGE;
                        folio.forget_end(page);
                        match self.ask_for(mapping, page..page + 1, &mut None, end) {
                            Ok(_) => {
                                missed += 1;
                                asked = true;
                            }
                            Err(error) => {
                                done += at;
                                result = Err(error);
                                break 'all;
                            }
                        }
                    }
                    (Found::Ended, _) => {
                        done += at;
                        break 'all;
                    }
                    (Found::Failed(error), _) if asked => {
                        done += at;
                        result = Err(error);
                        break 'all;
                    }
                    (Found::Filling(slot), Some(folio)) => {
                        missed += 1;
                        if let Some(plan) = plan.take() {
                            self.read_ahead(mapping, plan.runs(end));
                        }
                        let byte = (pos - folio.first() * PAGE) as u32;
                        let come = || match folio.look(byte) {
                            Found::Filling(_) => None,
                            found => Some(found),
                        };
                        // What came may be dropped again before it is looked up: it
                        // was there while this call was under way.
                        match inode.fs.conn.await_pages(slot, come) {
                            Ok(Found::Ready(n)) => {
                                let n = n.min(len - at);
                                used += folio.read(byte, &mut buf[at..at + n]);
                                copies += 1;
                                at += n;
                                asked = false;
                            }
                            // As somebody else's request was answered.
                            Ok(Found::Ended | Found::Failed(_)) if !asked => {}
                            Ok(Found::Ended) => {
                                done += at;
                                break 'all;
                            }
                            Ok(Found::Failed(error)) | Err(error) => {
                                done += at;
                                result = Err(error);
                                break 'all;
                            }
                            Ok(Found::Absent | Found::Filling(_)) => {}
                        }
                    }
                    _ => {
                        let page = pos / PAGE;
                        match self.ask_for(mapping, page..wanted.end.min(end), &mut plan, end) {
                            Ok(true) => {
                                missed += 1;
                                asked = true;
                            }
                            // There is no memory for it.
                            Ok(false) => {
                                let behind = mapping.first_in(&(page..wanted.end));
                                let stop =
                                    behind.map_or(u64::MAX, |f| f.first().max(page + 1) * PAGE);
                                let n = (len - at).min((stop - pos) as usize);
                                match self.read_around(pos, &mut buf[at..at + n]) {
                                    Ok(got) => {
                                        at += got;
                                        if got < n {
                                            done += at;
                                            break 'all;
                                        }
                                    }
                                    Err(error) => {
                                        done += at;
                                        result = Err(error);
                                        break 'all;
                                    }
                                }
                            }
                            Err(error) => {
                                done += at;
                                result = Err(error);
                                break 'all;
                            }
                        }
                    }
                }
            }
            done += at;
            if done == room {
                break;
            }
        }
        if let Some(plan) = plan.take()
            && result.is_ok()
        {
            self.read_ahead(mapping, plan.runs(end));
        }
        counters.page_copies.add(copies);
        if missed > 0 {
            counters.page_misses.add(missed);
        } else {
            counters.page_hits.add(wanted.end - wanted.start);
        }
        if used > 0 {
            counters.ahead_used.add(used.into());
        }
        match result {
            Err(error) if done == 0 => Err(error),
            _ => Ok(done),
        }
    }

    /// Reads by request what there is no memory for. The server must have the size
    /// first, where it is ours.
    fn read_around(&self, pos: u64, buf: &mut [u8]) -> Result<usize> {
        self.inode().sync_pages()?;
        let len = buf.len();
        self.read_by_request(pos, &mut [buf], len)
    }

    /// Returns how many pages to be ahead at most: what INIT settled, and no more
    /// than a part of the memory there is.
    fn readahead_max(&self) -> u64 {
        let fs = &self.inode().fs;
        let memory = fs.pages.as_ref().map_or(0, |store| store.bound() / 8);
        (u64::from(fs.conn.limits().max_readahead) / PAGE).min(memory)
    }

    /// Asks for absent pages that are wanted now, together with those that follow
    /// them by plan. Returns whether the first is on its way.
    fn ask_for(
        &self,
        mapping: &Arc<Mapping<P::Hal>>,
        wanted: Range<u64>,
        plan: &mut Option<Plan>,
        end: u64,
    ) -> Result<bool> {
        let fs = &self.inode().fs;
        // As much as may be in memory at once, and as is worth to be under way.
        let most = fs
            .pages
            .as_ref()
            .map_or(1, |store| store.bound() / 4)
            .max(1);
        let mut pages = wanted.start..wanted.end.min(wanted.start + most);
        let follows = |plan: &Plan| {
            plan.runs(end)
                .next()
                .filter(|run| plan.times == 1 && run.start == pages.end)
        };
        let together = plan.as_ref().and_then(follows);
        if let Some(run) = &together {
            pages.end = run.end;
            *plan = None;
        }
        let asked = fill(&fs.conn, mapping, &pages, wanted.end, &self.source())?;
        if together.is_some() && asked < pages.end {
            self.ahead.lock().stopped_at(asked, 1);
        }
        Ok(asked > wanted.start)
    }

    /// Asks for what will be wanted, as far as that keeps nobody waiting.
    fn read_ahead(
        &self,
        mapping: &Arc<Mapping<P::Hal>>,
        mut runs: impl Iterator<Item = Range<u64>>,
    ) {
        while let Some(run) = runs.next() {
            // What goes wrong here is met by whoever wants the pages.
            let asked = fill(&self.inode().fs.conn, mapping, &run, 0, &self.source());
            let asked = asked.unwrap_or(run.start);
            if asked < run.end {
                let left = 1 + runs.count() as u64;
                return self.ahead.lock().stopped_at(asked, left);
            }
        }
    }

    /// Notes that a WRITE begins, if there are pages that it may change.
    pub(super) fn begin_write(&self) -> Option<Writer> {
        Some(self.inode().mapping_here()?.writers().enter())
    }

    /// Notes that one has failed, and what it might have changed was dropped.
    pub(super) fn end_write(&self, writer: Option<Writer>) {
        if let (Some(mapping), Some(writer)) = (self.inode().mapping_here(), writer) {
            mapping.writers().leave(writer);
        }
    }

    /// Copies what was written to the server over the pages that are here, and
    /// drops those of which two writers at once make it unknown what they hold.
    pub(super) fn written_through(
        &self,
        offset: u64,
        bufs: &[&[u8]],
        written: usize,
        writer: Option<Writer>,
    ) {
        let Some(mapping) = self.inode().mapping_here() else {
            return;
        };
        let mut done = 0;
        for buf in bufs {
            let n = buf.len().min(written - done);
            mapping.overwrite(offset + done as u64, &buf[..n]);
            done += n;
        }
        if !writer.is_some_and(|writer| mapping.writers().leave(writer)) {
            self.inode().drop_bytes(offset, written as u64);
        }
    }
}
