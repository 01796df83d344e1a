//! Reading and writing of open files.

use core::sync::atomic::Ordering::Relaxed;

use super::File;
use super::attr::Stale;
use crate::conn::{Class, Connection};
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{FileType, FopenFlags, OpenFlags, Read, SIZE_MAX, Write, WriteOrigin};

/// What was written, and where as far as is known.
pub(super) struct Written {
    pub(super) offset: u64,
    pub(super) len: usize,
}

impl Written {
    /// Returns the offset behind it.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.len as u64
    }
}

impl<P: Platform> File<P> {
    /// Reads into `buf` from byte `offset` on, straight from the device. Returns
    /// how many bytes; fewer than asked for mean the end of the file. Blocks.
    ///
    /// # Errors
    ///
    /// EBADF if it is not open for reading, EINVAL for a range that reaches beyond
    /// `i64::MAX`, and the server's. An error after some bytes is not returned;
    /// the next call meets it.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.read_vectored_at(offset, &mut [buf])
    }

    /// As [`read_at`](Self::read_at), into several buffers in turn.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn read_vectored_at(&self, offset: u64, bufs: &mut [&mut [u8]]) -> Result<usize> {
        let inode = self.inode();
        inode.check()?;
        if !self.flags.readable() {
            return Err(Error::caller(Errno::EBADF));
        }
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        check_end(offset, total)?;
        if let Some(n) = self.read_mapped(offset, bufs) {
            return Ok(n);
        }
        let layout = inode.share_layout()?;
        let mut room = total;
        let mapping = self.mapping();
        if mapping.is_none() {
            inode.sync_pages()?;
        }
        let size = if layout.is_some() || mapping.is_some() {
            Some(inode.fresh_attr(Stale::SIZE, self.fh())?.size)
        } else {
            self.known_size()
        };
        if let Some(size) = size {
            room = room.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(room));
        }
        let result = match (layout, mapping, size) {
            (Some(_), _, Some(size)) => self.read_window(offset, bufs, room, size),
            (_, Some(mapping), Some(size)) => {
                self.read_pages_into(mapping, offset, bufs, room, size)
            }
            _ => self.read_by_request(offset, bufs, room),
        };
        if let Ok(n) = result {
            if n > 0 {
                inode.read_happened();
            }
            if n < room {
                self.ended_early(offset + n as u64);
            }
        }
        result
    }

    /// Reads by READ requests.
    pub(super) fn read_by_request(
        &self,
        offset: u64,
        bufs: &mut [&mut [u8]],
        room: usize,
    ) -> Result<usize> {
        for_each_chunk(self, room, bufs, |at, chunk| {
            let len = chunk.iter().map(|b| b.len()).sum();
            self.read_chunk(offset + at as u64, chunk, len)
        })
    }

    /// The size, where it is known well enough to tell the end of the file
    /// without asking.
    fn known_size(&self) -> Option<u64> {
        let inode = self.inode();
        let direct = self.handle.fopen.contains(FopenFlags::DIRECT_IO);
        if direct || inode.file_type() != FileType::Regular {
            return None;
        }
        inode.cached_attr(Stale::SIZE).map(|attr| attr.size)
    }

    /// The file is shorter than was known: somebody else cut it.
    fn ended_early(&self, end: u64) {
        if self.inode().file_type() == FileType::Regular && end < self.inode().last_attr().size {
            self.inode().attr_changed(Stale::all());
        }
    }

    fn read_chunk(&self, offset: u64, chunk: &mut [&mut [u8]], len: usize) -> Result<usize> {
        let request = Read {
            node: self.inode().node,
            fh: self.handle.fh(),
            offset,
            size: len as u32,
            lock_owner: None,
            flags: self.handle.flags,
        };
        self.inode()
            .fs
            .conn
            .call(&request, Data::Sink(chunk), Class::Normal)
    }

    /// Writes `data` at byte `offset`, straight to the device. Returns how many
    /// bytes, at least one. Blocks.
    ///
    /// On a file that is open for appending the data go to its end, wherever
    /// that is by then, and `offset` does not matter.
    ///
    /// # Errors
    ///
    /// EBADF if it is not open for writing, EINVAL beyond `i64::MAX`, EFBIG where
    /// the end of the file is there, and the server's. An error after some bytes is not returned; the next call meets
    /// it.
    pub fn write_at(&self, offset: u64, data: &[u8]) -> Result<usize> {
        self.write_vectored_at(offset, &[data])
    }

    /// As [`write_at`](Self::write_at), from several buffers in turn.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write_vectored_at(&self, offset: u64, bufs: &[&[u8]]) -> Result<usize> {
        Ok(self.write_from(offset, bufs, WriteOrigin::Caller)?.len)
    }

    /// As [`write_at`](Self::write_at), and says where that was: where the file is
    /// open for appending, by what is known here of its size.
    pub(super) fn write_somewhere(&self, offset: u64, data: &[u8]) -> Result<Written> {
        self.write_from(offset, &[data], WriteOrigin::Caller)
    }

    /// Writes what a page cache above the driver kept back, such as pages of a
    /// shared mapping: at `offset`, also where the file is open for appending.
    /// Returns how many bytes, at least one. Blocks.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    pub fn write_back_at(&self, offset: u64, data: &[u8]) -> Result<usize> {
        Ok(self.write_from(offset, &[data], WriteOrigin::Cache)?.len)
    }

    fn write_from(&self, offset: u64, bufs: &[&[u8]], origin: WriteOrigin) -> Result<Written> {
        let inode = self.inode();
        inode.check()?;
        if !self.flags.writable() {
            return Err(Error::caller(Errno::EBADF));
        }
        inode.fs.check_writable()?;
        let total: usize = bufs.iter().map(|b| b.len()).sum();
        if total == 0 {
            return Ok(Written { offset, len: 0 });
        }
        let append = origin == WriteOrigin::Caller && self.flags.contains(OpenFlags::APPEND);
        if !append {
            check_end(offset, total)?;
            if origin == WriteOrigin::Caller
                && let Some(len) = self.write_mapped(offset, bufs)
            {
                return Ok(Written { offset, len });
            }
        }
        inode.clear_set_ids()?;
        if origin == WriteOrigin::Caller
            && let Some(pages) = self.pages_for_writing()
        {
            self.unflushed.store(true, Relaxed);
            inode.set_unsynced();
            let result = self.write_pages_from(pages, offset, bufs, total, append);
            inode.set_unsynced();
            return result;
        }
        inode.sync_pages()?;
        let _layout = inode.share_layout()?;
        // A server with handles puts what is appended at the end, wherever that is;
        // to one without, O_APPEND may be news, and where we write back it is not told.
        let start = match append {
            true if self.handle.is_released() && !inode.fs.writes_back() => inode.last_attr().size,
            true => inode.fresh_attr(Stale::SIZE, self.fh())?.size,
            false => offset,
        };
        let room = total.min((SIZE_MAX - start) as usize);
        if room == 0 {
            return Err(Error::caller(Errno::EFBIG));
        }
        self.unflushed.store(true, Relaxed);
        let window = self.window_size(start + room as u64)?;
        let asked = inode.fs.ask_now();
        let writer = self.begin_write();
        let result = match window {
            Some(size) => self.write_window(start, bufs, room, size),
            None => self.write_by_request(start, bufs, room, origin),
        };
        inode.set_unsynced();
        match result {
            // The size stays as it is, whoever else writes meanwhile.
            Ok(_) if window.is_some() => inode.attr_changed(inode.written()),
            Ok(n) => {
                let end = start + n as u64;
                let old = inode.last_attr().size;
                if end > old {
                    inode.resize_pages(old, end);
                }
                // Somebody else may have appended as well: where others change files,
                // only the server knows where the data are, and where the end is now.
                let size = if append && !inode.fs.options.cache.keeps_all() {
                    inode.drop_bytes(start, u64::MAX);
                    self.end_write(writer);
                    Stale::SIZE
                } else {
                    self.written_through(start, bufs, n, writer);
                    Stale::empty()
                };
                inode.attr_became(asked, inode.written() | size, |attr| {
                    attr.size = attr.size.max(end);
                });
            }
            // Some of it may be there.
            Err(_) => {
                inode.drop_bytes(start, room as u64);
                self.end_write(writer);
                inode.attr_changed(Stale::all());
            }
        }
        result.map(|len| Written { offset: start, len })
    }

    /// Writes by WRITE requests.
    pub(super) fn write_by_request(
        &self,
        offset: u64,
        bufs: &[&[u8]],
        room: usize,
        origin: WriteOrigin,
    ) -> Result<usize> {
        let result = for_each_chunk_out(self, room, bufs, |at, chunk, len| {
            self.write_chunk(offset + at as u64, chunk, len, origin)
        });
        if let Some(owner) = &self.inode().owner
            && result.is_ok()
        {
            owner.set_bare(true);
        }
        if let Some(pages) = self.inode().pages.get()
            && result.is_ok()
        {
            pages.set_bare(true);
        }
        result
    }

    fn write_chunk(
        &self,
        offset: u64,
        chunk: &[&[u8]],
        len: usize,
        origin: WriteOrigin,
    ) -> Result<usize> {
        let inode = self.inode();
        let request = Write {
            node: inode.node,
            fh: self.handle.fh(),
            offset,
            size: len as u32,
            lock_owner: None,
            origin,
            set_ids: inode.set_ids_on_change(),
            flags: self.handle.flags,
        };
        let count = inode
            .fs
            .conn
            .call(&request, Data::Source(chunk), Class::Normal)?;
        let n = count.progress_of(len as u64).map_err(|why| {
            inode.fs.counters().malformed_replies.add(1);
            log::error!(
                "virtio-fs: WRITE of {len} bytes to node {}: {why}",
                inode.node
            );
            Error::protocol()
        })?;
        Ok(n as usize)
    }
}

/// Refuses what would reach beyond the largest offset, as Linux does before it
/// looks at the file.
pub(super) fn check_end(offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= SIZE_MAX => Ok(()),
        _ => Err(Error::caller(Errno::EINVAL)),
    }
}

/// Calls `each` with pieces of `bufs` that fit one request, up to `room` bytes in
/// all, until one comes back short. Buffers that fit together go together.
fn for_each_chunk<P: Platform>(
    file: &File<P>,
    room: usize,
    bufs: &mut [&mut [u8]],
    mut each: impl FnMut(usize, &mut [&mut [u8]]) -> Result<usize>,
) -> Result<usize> {
    let conn = &file.inode().fs.conn;
    let mut max = conn.limits().max_read as usize;
    let mut done = 0;
    let mut bufs = &mut bufs[..];
    while done < room && !bufs.is_empty() {
        let left = room - done;
        let (count, sum) = fitting(bufs.iter().map(|b| b.len()), max.min(left));
        let result = if count > 0 {
            let (group, rest) = core::mem::take(&mut bufs).split_at_mut(count);
            bufs = rest;
            each(done, group).map(|n| (n, sum)).or_else(|error| {
                // Too many pieces for the queue: one after the other then.
                if error.errno() != Errno::E2BIG {
                    return Err(error);
                }
                let mut n = 0;
                for buf in group {
                    let len = buf.len();
                    let got = split(&mut max, len, safe_read(conn), |at, step| {
                        each(done + n + at, &mut [&mut buf[at..at + step]])
                    })?;
                    n += got;
                    if got < len {
                        break;
                    }
                }
                Ok((n, sum))
            })
        } else {
            // The first one alone is more than fits.
            let (first, rest) = core::mem::take(&mut bufs)
                .split_first_mut()
                .expect("bufs is not empty");
            bufs = rest;
            let len = first.len().min(left);
            split(&mut max, len, safe_read(conn), |at, step| {
                each(done + at, &mut [&mut first[at..at + step]])
            })
            .map(|n| (n, len))
        };
        match result {
            Ok((n, asked)) => {
                done += n;
                if n < asked {
                    break;
                }
            }
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// As [`for_each_chunk`], for buffers that are only read.
fn for_each_chunk_out<P: Platform>(
    file: &File<P>,
    room: usize,
    bufs: &[&[u8]],
    mut each: impl FnMut(usize, &[&[u8]], usize) -> Result<usize>,
) -> Result<usize> {
    let conn = &file.inode().fs.conn;
    let mut max = conn.limits().max_write as usize;
    let mut done = 0;
    let mut bufs = bufs;
    while done < room && !bufs.is_empty() {
        let left = room - done;
        let (count, sum) = fitting(bufs.iter().map(|b| b.len()), max.min(left));
        let result = if count > 0 {
            let (group, rest) = bufs.split_at(count);
            bufs = rest;
            match each(done, group, sum) {
                Err(error) if error.errno() == Errno::E2BIG => {
                    let mut n = 0;
                    for buf in group {
                        let got = split(&mut max, buf.len(), safe_write(conn), |at, step| {
                            each(done + n + at, &[&buf[at..at + step]], step)
                        })?;
                        n += got;
                        if got < buf.len() {
                            break;
                        }
                    }
                    Ok((n, sum))
                }
                result => result.map(|n| (n, sum)),
            }
        } else {
            let (first, rest) = bufs.split_first().expect("bufs is not empty");
            bufs = rest;
            let len = first.len().min(left);
            split(&mut max, len, safe_write(conn), |at, step| {
                each(done + at, &[&first[at..at + step]], step)
            })
            .map(|n| (n, len))
        };
        match result {
            Ok((n, asked)) => {
                done += n;
                if n < asked {
                    break;
                }
            }
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}

/// Returns how many bytes one READ surely can bring.
fn safe_read<P: Platform>(conn: &Connection<P>) -> usize {
    conn.fitting().min(conn.limits().max_read as usize)
}

/// Returns how many bytes one WRITE surely can carry.
fn safe_write<P: Platform>(conn: &Connection<P>) -> usize {
    conn.fitting().min(conn.limits().max_write as usize)
}

/// Returns how many buffers from the front fit `max` bytes together, and how many
/// bytes they are.
fn fitting(lens: impl Iterator<Item = usize>, max: usize) -> (usize, usize) {
    let (mut count, mut sum) = (0, 0usize);
    for len in lens {
        match sum.checked_add(len) {
            Some(more) if more <= max => (count, sum) = (count + 1, more),
            _ => break,
        }
    }
    (count, sum)
}

/// Deals with `len` bytes in steps of `max`, until a step comes back short. If
/// the queue turns out to take fewer scattered pages at once, the steps shrink
/// to `safe`.
fn split(
    max: &mut usize,
    len: usize,
    safe: usize,
    mut step: impl FnMut(usize, usize) -> Result<usize>,
) -> Result<usize> {
    let mut done = 0;
    while done < len {
        let size = (*max).min(len - done);
        match step(done, size) {
            Ok(n) => {
                done += n;
                if n < size {
                    break;
                }
            }
            Err(error) if error.errno() == Errno::E2BIG && size > safe && safe > 0 => *max = safe,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
    }
    Ok(done)
}
