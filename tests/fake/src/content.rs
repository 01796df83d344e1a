//! The bytes of one file: sparse, of any size up to 2^63 - 1.
//!
//! # Invariants
//!
//! - Everything on the disk past `size` is zero, but for what a client stored
//!   through a mapping of the last, partial page; growing wipes that.

use std::collections::BTreeMap;
use std::io;

use crate::abi::{Errno, fail};
use crate::disk::{CHUNK, Chunk, Disk, PAGE};

/// The bytes of one file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    size: u64,
    chunks: BTreeMap<u64, Chunk>,
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// Splits a range at the borders of chunks: index, offset in the chunk, length.
fn pieces(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    core::iter::from_fn(move || {
        (at < end).then(|| {
            let inside = at % CHUNK;
            let n = (CHUNK - inside).min(end - at);
            let piece = (at / CHUNK, inside, n);
            at += n;
            piece
        })
    })
}

impl Content {
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads at most `len` bytes; fewer at the end of the file.
    pub(crate) fn read(&self, disk: &Disk, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        let len = len.min(self.size.saturating_sub(offset));
        let mut out = vec![0; len as usize];
        let mut at = 0;
        for (index, inside, n) in pieces(offset, len) {
            if let Some(&chunk) = self.chunks.get(&index) {
                disk.read(chunk, inside, &mut out[at..at + n as usize])?;
            }
            at += n as usize;
        }
        Ok(out)
    }

    pub(crate) fn write(&mut self, disk: &mut Disk, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|&end| end <= i64::MAX as u64);
        let Some(end) = end else {
            return fail(libc::EFBIG);
        };
        if data.is_empty() {
            return Ok(());
        }
        if end > self.size {
            self.resize(disk, end)?;
        }
        let mut at = 0;
        for (index, inside, n) in pieces(offset, data.len() as u64) {
            let chunk = self.chunk(disk, index)?;
            disk.write(chunk, inside, &data[at..at + n as usize])?;
            at += n as usize;
        }
        Ok(())
    }

    /// Returns the chunk, allocated if need be: for writing and mapping.
    pub(crate) fn chunk(&mut self, disk: &mut Disk, index: u64) -> Result<Chunk, Errno> {
        if let Some(&chunk) = self.chunks.get(&index) {
            return Ok(chunk);
        }
        let chunk = disk.alloc()?;
        self.chunks.insert(index, chunk);
        Ok(chunk)
    }

    pub(crate) fn resize(&mut self, disk: &mut Disk, size: u64) -> Result<(), Errno> {
        if size > i64::MAX as u64 {
            return fail(libc::EFBIG);
        }
        let edge = self.size.min(size);
        // The chunk at the edge: whatever lies behind it reads as zeros.
        if let Some(&chunk) = self.chunks.get(&(edge / CHUNK)) {
            disk.punch(chunk, edge % CHUNK, CHUNK - edge % CHUNK)?;
        }
        if size < self.size {
            for (_, chunk) in self.chunks.split_off(&size.div_ceil(CHUNK)) {
                disk.free(chunk)?;
            }
        }
        self.size = size;
        Ok(())
    }

    /// Makes a hole; the size stays.
    pub(crate) fn punch(&mut self, disk: &mut Disk, offset: u64, len: u64) -> Result<(), Errno> {
        let end = offset.saturating_add(len);
        for (&index, &chunk) in self.chunks.range(offset / CHUNK..end.div_ceil(CHUNK)) {
            let start = (index * CHUNK).max(offset);
            let stop = ((index + 1) * CHUNK).min(end);
            disk.punch(chunk, start - index * CHUNK, stop - start)?;
        }
        Ok(())
    }

    /// Returns the first extent of data at or after `offset`, cut at the size.
    pub(crate) fn data_after(&self, disk: &Disk, offset: u64) -> Result<Option<(u64, u64)>, Errno> {
        for (&index, &chunk) in self.chunks.range(offset / CHUNK..) {
            let base = index * CHUNK;
            let data = disk.seek(chunk, offset.saturating_sub(base), libc::SEEK_DATA)?;
            if data < CHUNK {
                let hole = disk.seek(chunk, data, libc::SEEK_HOLE)?;
                let (start, end) = (base + data, (base + hole).min(self.size));
                return Ok((start < end).then_some((start, end)));
            }
        }
        Ok(None)
    }

    pub(crate) fn seek_data(&self, disk: &Disk, offset: u64) -> Result<u64, Errno> {
        match self.data_after(disk, offset)? {
            Some((start, _)) => Ok(start),
            None => fail(libc::ENXIO),
        }
    }

    pub(crate) fn seek_hole(&self, disk: &Disk, offset: u64) -> Result<u64, Errno> {
        if offset >= self.size {
            return fail(libc::ENXIO);
        }
        let mut at = offset;
        while let Some((start, end)) = self.data_after(disk, at)? {
            if start > at {
                break;
            }
            at = end;
        }
        Ok(at.min(self.size))
    }

    /// Returns the number of 512 byte blocks that hold data.
    pub(crate) fn blocks(&self, disk: &Disk) -> Result<u64, Errno> {
        let (mut at, mut bytes) = (0, 0);
        while let Some((start, end)) = self.data_after(disk, at)? {
            bytes += end.next_multiple_of(PAGE) - start;
            at = end.next_multiple_of(PAGE);
        }
        Ok(bytes / 512)
    }

    /// Moves everything from `from` on to `to`; FALLOCATE's collapse and insert.
    pub(crate) fn shift(&mut self, disk: &mut Disk, from: u64, to: u64) -> Result<(), Errno> {
        let mut moved = Vec::new();
        let mut at = from;
        while let Some((start, end)) = self.data_after(disk, at)? {
            moved.push((start - from + to, self.read(disk, start, end - start)?));
            at = end;
        }
        let size = self.size - from + to;
        self.resize(disk, from.min(to))?;
        self.resize(disk, size)?;
        moved
            .iter()
            .try_for_each(|(at, data)| self.write(disk, *at, data))
    }

    pub(crate) fn clear(&mut self, disk: &mut Disk) -> Result<(), Errno> {
        self.resize(disk, 0)
    }
}
