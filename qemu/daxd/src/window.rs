//! The DAX window: which piece of which file is mapped where.
//!
//! The daemon keeps its own table and checks each request against it before it
//! asks the front end, so that what a front end would refuse (QEMU 11.1: a
//! mapping over a live one, past the end of the file or of the window, an unmap
//! that does not name one whole mapping) is a plain error for the guest and
//! leaves everything as it was. virtio 1.3, 5.11.6.3; protocol.md 5.6.
//!
//! States of a piece; none overlaps another, each lies in the window:
//! - mapping: the front end was asked, nobody may rely on it yet;
//! - live;
//! - unmapping: the front end was asked. Where it refuses, the piece is live
//!   again, so that a later REMOVEMAPPING can repair it and no map goes over it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{debug, warn};

use crate::faults::{self, Fault, Faults};

/// What offsets and lengths in SETUPMAPPING are multiples of. The host maps whole
/// pages.
pub const PAGE: u64 = 4096;

/// How many memory regions a front end may come to announce. QEMU 11.1 makes each
/// mapping a region, and aborts (`vhost_user_add_remove_regions`) when there are
/// more than 512. What it has removed or added but not announced yet is not known
/// here, so some are left.
pub const MAX_REGIONS: usize = 500;

/// Whether the guest may write through a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reads only.
    Read,
    /// Reads and writes.
    ReadWrite,
}

/// A piece of a file and its place in the window, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins in the file.
    pub file_offset: u64,
    /// Where it begins in the window.
    pub window_offset: u64,
    /// Its length.
    pub len: u64,
}

/// A part of the window, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where it begins in the window.
    pub window_offset: u64,
    /// Its length.
    pub len: u64,
}

/// The side that owns the window's address space: QEMU, or a test.
pub trait FrontEnd: Send + Sync {
    /// Maps `piece` of `file`, and returns after it was done or refused.
    ///
    /// # Errors
    /// The front end refused, or is gone.
    fn map(&self, piece: Piece, file: &File, access: Access) -> io::Result<()>;

    /// Removes the mapping that is exactly `span`.
    ///
    /// # Errors
    /// The front end refused, or is gone.
    fn unmap(&self, span: Span) -> io::Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Mapping,
    Live,
    Unmapping,
}

#[derive(Debug, Clone, Copy)]
struct Mapped {
    len: u64,
    /// Device and inode number of the file on the host.
    file: (u64, u64),
    file_offset: u64,
    access: Access,
    state: State,
    /// Tells this mapping from a later one at the same place.
    serial: u64,
}

/// How often what was done to the window.
#[derive(Debug, Default)]
pub struct WindowStats {
    /// Mappings made.
    pub maps: AtomicU64,
    /// Mappings removed.
    pub unmaps: AtomicU64,
    /// Requests that were answered without asking the front end: the very mapping
    /// was there.
    pub repeats: AtomicU64,
    /// Requests refused here, by their form or by the table.
    pub refused: AtomicU64,
    /// Requests that the front end refused.
    pub rejected: AtomicU64,
}

/// The window of one device.
pub struct Window {
    size: u64,
    table: Mutex<Table>,
    front_end: Mutex<Option<Arc<dyn FrontEnd>>>,
    /// Memory regions that the front end has announced, guest memory included.
    regions: AtomicUsize,
    stats: WindowStats,
    faults: Faults,
}

#[derive(Default)]
struct Table {
    pieces: BTreeMap<u64, Mapped>,
    serial: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code below leaves a guarded value half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Window {
    /// A window of `size` bytes, 0 for none, with nothing mapped and no front end.
    pub fn new(size: u64) -> Self {
        Self {
            size,
            table: Mutex::default(),
            front_end: Mutex::new(None),
            regions: AtomicUsize::new(0),
            stats: WindowStats::default(),
            faults: Faults::default(),
        }
    }

    /// Lets requests fail on purpose.
    pub fn with_faults(self, rules: &[faults::Rule]) -> Self {
        let faults = Faults::new(rules);
        Self { faults, ..self }
    }

    /// Size in bytes; 0 for no window.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Counters.
    pub fn stats(&self) -> &WindowStats {
        &self.stats
    }

    /// Number of mappings in the table.
    pub fn mappings(&self) -> usize {
        lock(&self.table).pieces.len()
    }

    /// Takes the number of memory regions that the front end has announced.
    pub fn set_regions(&self, regions: usize) {
        self.regions.store(regions, Ordering::Relaxed);
    }

    /// Takes the front end that is asked from now on.
    pub fn connect(&self, front_end: Arc<dyn FrontEnd>) {
        *lock(&self.front_end) = Some(front_end);
    }

    /// Drops the front end and everything that it had mapped.
    pub fn disconnect(&self) {
        *lock(&self.front_end) = None;
        self.forget();
    }

    /// Maps `piece` of `file`. Blocks until the front end has done it.
    ///
    /// The very same mapping a second time succeeds without asking: Linux sends it
    /// to make a mapping writable, and mappings here are writable where the file is.
    ///
    /// # Errors
    /// - `ENODEV`: no window, or no front end that maps;
    /// - `EINVAL`: empty, not in pages, outside the window, or no regular file;
    /// - `ENXIO`: reaches past the end of the file;
    /// - `EEXIST`: overlaps another mapping;
    /// - `ENOMEM`: no more than [`MAX_REGIONS`], or the front end refused.
    ///
    /// After an error the window is as it was.
    pub fn map(&self, piece: Piece, file: &File, access: Access) -> io::Result<()> {
        self.faults.strike(Fault::Map)?;
        let result = self
            .try_map(piece, file, access)
            .and_then(|()| self.faults.strike(Fault::Mapped));
        debug!("map {piece:?} {access:?}: {result:?}");
        result
    }

    fn try_map(&self, piece: Piece, file: &File, access: Access) -> io::Result<()> {
        let (serial, front_end) = match self.reserve(piece, file, access) {
            Ok(Some(reserved)) => reserved,
            Ok(None) => {
                self.stats.repeats.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(e) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                return Err(e);
            }
        };
        let result = front_end.map(piece, file, access);
        let ours = self.settle(piece.window_offset, serial, result.is_ok());
        match result {
            Ok(()) if ours => {
                self.stats.maps.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Ok(()) => {
                // The session ended meanwhile, nobody knows of this mapping.
                let _ = front_end.unmap(Span {
                    window_offset: piece.window_offset,
                    len: piece.len,
                });
                Err(errno(libc::ECANCELED))
            }
            Err(e) => {
                self.stats.rejected.fetch_add(1, Ordering::Relaxed);
                warn!("the front end refused to map {piece:?}: {e}");
                Err(errno(libc::ENOMEM))
            }
        }
    }

    /// Enters `piece` as being mapped. None: the very same one is live.
    fn reserve(
        &self,
        piece: Piece,
        file: &File,
        access: Access,
    ) -> io::Result<Option<(u64, Arc<dyn FrontEnd>)>> {
        let front_end = self.front_end()?;
        self.check(Span {
            window_offset: piece.window_offset,
            len: piece.len,
        })?;
        let file_end = piece
            .file_offset
            .checked_add(piece.len)
            .ok_or(errno(libc::EINVAL))?;
        if !piece.file_offset.is_multiple_of(PAGE) {
            return Err(errno(libc::EINVAL));
        }
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(errno(libc::EINVAL));
        }
        if file_end > metadata.len() {
            return Err(errno(libc::ENXIO));
        }
        let file = (metadata.dev(), metadata.ino());

        let mut table = lock(&self.table);
        let end = piece.window_offset + piece.len;
        if let Some((&at, there)) = table.pieces.range(..end).next_back()
            && at + there.len > piece.window_offset
        {
            let same = at == piece.window_offset
                && (there.len, there.file, there.file_offset)
                    == (piece.len, file, piece.file_offset)
                && there.state == State::Live
                && (there.access == Access::ReadWrite || access == Access::Read);
            return if same {
                Ok(None)
            } else {
                Err(errno(libc::EEXIST))
            };
        }
        let asked = table
            .pieces
            .values()
            .filter(|there| there.state == State::Mapping)
            .count();
        if self.regions.load(Ordering::Relaxed) + asked >= MAX_REGIONS {
            return Err(errno(libc::ENOMEM));
        }
        table.serial += 1;
        let serial = table.serial;
        table.pieces.insert(
            piece.window_offset,
            Mapped {
                len: piece.len,
                file,
                file_offset: piece.file_offset,
                access,
                state: State::Mapping,
                serial,
            },
        );
        Ok(Some((serial, front_end)))
    }

    /// Ends what [`Self::reserve`] began; false if the table was cleared meanwhile.
    fn settle(&self, window_offset: u64, serial: u64, mapped: bool) -> bool {
        let mut table = lock(&self.table);
        match table.pieces.get_mut(&window_offset) {
            Some(there) if there.serial == serial => {
                if mapped {
                    there.state = State::Live;
                } else {
                    table.pieces.remove(&window_offset);
                }
                true
            }
            _ => false,
        }
    }

    /// Removes the mappings that are exactly `spans`. Blocks until the front end
    /// has done it.
    ///
    /// # Errors
    /// - `ENODEV`: no window, or no front end that maps;
    /// - `EINVAL`: a span is empty, not in pages, outside the window or named twice;
    /// - `ENOENT`: a span is no live mapping, or only a part of one.
    ///
    /// After these nothing was removed.
    /// - `EIO`: the front end refused one; the others are removed, that one stays.
    pub fn unmap(&self, spans: &[Span]) -> io::Result<()> {
        self.faults.strike(Fault::Unmap)?;
        let result = self
            .try_unmap(spans)
            .and_then(|()| self.faults.strike(Fault::Unmapped));
        debug!("unmap {spans:?}: {result:?}");
        result
    }

    fn try_unmap(&self, spans: &[Span]) -> io::Result<()> {
        let front_end = match self.begin_unmap(spans) {
            Ok(front_end) => front_end,
            Err(e) => {
                self.stats.refused.fetch_add(1, Ordering::Relaxed);
                return Err(e);
            }
        };
        let mut result = Ok(());
        for &span in spans {
            match front_end.unmap(span) {
                Ok(()) => {
                    self.stats.unmaps.fetch_add(1, Ordering::Relaxed);
                    lock(&self.table).pieces.remove(&span.window_offset);
                }
                Err(e) => {
                    self.stats.rejected.fetch_add(1, Ordering::Relaxed);
                    warn!("the front end refused to unmap {span:?}: {e}");
                    if let Some(there) = lock(&self.table).pieces.get_mut(&span.window_offset) {
                        there.state = State::Live;
                    }
                    result = Err(errno(libc::EIO));
                }
            }
        }
        result
    }

    /// Marks all of `spans`, or none.
    fn begin_unmap(&self, spans: &[Span]) -> io::Result<Arc<dyn FrontEnd>> {
        let front_end = self.front_end()?;
        for &span in spans {
            self.check(span)?;
        }
        let mut table = lock(&self.table);
        let exact =
            |there: &Mapped, span: &Span| there.len == span.len && there.state == State::Live;
        if !spans.iter().all(|s| {
            table
                .pieces
                .get(&s.window_offset)
                .is_some_and(|there| exact(there, s))
        }) {
            return Err(errno(libc::ENOENT));
        }
        for (n, span) in spans.iter().enumerate() {
            let there = table
                .pieces
                .get_mut(&span.window_offset)
                .ok_or(errno(libc::ENOENT))?;
            if there.state == State::Unmapping {
                for done in &spans[..n] {
                    if let Some(there) = table.pieces.get_mut(&done.window_offset) {
                        there.state = State::Live;
                    }
                }
                return Err(errno(libc::EINVAL));
            }
            there.state = State::Unmapping;
        }
        Ok(front_end)
    }

    /// Forgets all mappings after a device reset, at which a front end drops them
    /// by itself.
    pub fn forget(&self) {
        lock(&self.table).pieces.clear();
    }

    /// Forgets all mappings, at the beginning and the end of a session, and asks
    /// the front end to remove those that it may still have. After a device reset
    /// it has none, so its answer does not matter.
    pub fn clear(&self) {
        let pieces = std::mem::take(&mut lock(&self.table).pieces);
        let Ok(front_end) = self.front_end() else {
            return;
        };
        for (window_offset, there) in pieces {
            // One that is being mapped is removed by the thread that maps it.
            if there.state == State::Live
                && let Err(e) = front_end.unmap(Span {
                    window_offset,
                    len: there.len,
                })
            {
                debug!("a mapping at {window_offset:#x} was gone already: {e}");
            }
        }
    }

    fn front_end(&self) -> io::Result<Arc<dyn FrontEnd>> {
        if self.size == 0 {
            return Err(errno(libc::ENODEV));
        }
        lock(&self.front_end).clone().ok_or(errno(libc::ENODEV))
    }

    fn check(&self, span: Span) -> io::Result<()> {
        let inside = span
            .window_offset
            .checked_add(span.len)
            .is_some_and(|end| end <= self.size);
        if span.len == 0
            || !span.len.is_multiple_of(PAGE)
            || !span.window_offset.is_multiple_of(PAGE)
            || !inside
        {
            return Err(errno(libc::EINVAL));
        }
        Ok(())
    }
}
