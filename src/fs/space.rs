//! Space in files: holes, allocation, copying.

use super::File;
use super::attr::Stale;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{
    CopyFileRange, CopyFileRange64, CopyRange, Fallocate, FallocateMode, FileType, Lseek, Opcode,
    OpenFlags, SIZE_MAX, SeekWhence,
};

/// Bytes copied at once where the server does not copy by itself.
const COPY_BUFFER: usize = 128 << 10;

impl<P: Platform> File<P> {
    /// Finds the next data or hole from `offset` on: lseek(2) with SEEK_DATA and
    /// SEEK_HOLE. Blocks.
    ///
    /// A server without LSEEK has all data and a hole at the end.
    ///
    /// # Errors
    ///
    /// ENXIO beyond the end, EINVAL for another `whence`.
    pub fn seek(&self, offset: u64, whence: SeekWhence) -> Result<u64> {
        let inode = self.inode();
        inode.check()?;
        if !matches!(whence, SeekWhence::Data | SeekWhence::Hole) {
            return Err(Error::caller(Errno::EINVAL));
        }
        if offset > SIZE_MAX {
            return Err(Error::caller(Errno::ENXIO));
        }
        inode.sync_pages()?;
        let request = Lseek {
            node: inode.node,
            fh: self.handle.fh(),
            offset,
            whence,
        };
        if let Some(found) = inode
            .fs
            .lacking
            .unless(Opcode::Lseek, || inode.fs.conn.ask(&request))
        {
            return found;
        }
        let size = inode.fresh_attr(Stale::SIZE, self.fh())?.size;
        match whence {
            _ if offset >= size => Err(Error::caller(Errno::ENXIO)),
            SeekWhence::Data => Ok(offset),
            _ => Ok(size),
        }
    }

    /// Allocates, frees or zeroes `len` bytes at `offset`: fallocate(2). Blocks.
    ///
    /// # Errors
    ///
    /// EBADF if it is not open for writing, EINVAL for an empty range, EFBIG,
    /// ENODEV for what is no regular file, EOPNOTSUPP, and the server's.
    pub fn allocate(&self, offset: u64, len: u64, mode: FallocateMode) -> Result<()> {
        let inode = self.inode();
        inode.check()?;
        check_allocation(offset, len, mode)?;
        if !self.flags.writable() {
            return Err(Error::caller(Errno::EBADF));
        }
        inode.fs.check_writable()?;
        if inode.file_type() != FileType::Regular {
            return Err(Error::caller(Errno::ENODEV));
        }
        let end = offset.checked_add(len).filter(|&end| end <= SIZE_MAX);
        let end = end.ok_or(Error::caller(Errno::EFBIG))?;
        let known =
            FallocateMode::KEEP_SIZE | FallocateMode::PUNCH_HOLE | FallocateMode::ZERO_RANGE;
        if !known.contains(mode) {
            return Err(Error::caller(Errno::EOPNOTSUPP));
        }
        inode.clear_set_ids()?;
        // No part of the file goes away, but pages that are accessed would be
        // replaced.
        let _layout = inode.break_layout(u64::MAX)?;
        let _gate = inode.close_gate()?;
        let request = Fallocate {
            node: inode.node,
            fh: self.handle.fh(),
            offset,
            len,
            mode,
        };
        let asked = inode.fs.ask_now();
        let result = inode
            .fs
            .lacking
            .unless(Opcode::Fallocate, || inode.fs.conn.ask(&request))
            .unwrap_or(Err(Error::caller(Errno::EOPNOTSUPP)));
        inode.set_unsynced();
        inode.drop_bytes(offset, len);
        match result {
            Ok(()) if mode.contains(FallocateMode::KEEP_SIZE) => {
                inode.attr_changed(inode.written())
            }
            Ok(()) => {
                let old = inode.last_attr().size;
                inode.resize_pages(old, old.max(end));
                inode.attr_became(asked, inode.written(), |attr| {
                    attr.size = attr.size.max(end)
                });
            }
            Err(_) => inode.attr_changed(Stale::all()),
        }
        result
    }

    /// Copies up to `len` bytes to another file, on the server if it can:
    /// copy_file_range(2). Returns how many; fewer at the end of the source.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// EBADF if the files are not open for reading and for writing or the target
    /// appends, EINVAL for overlapping ranges of one file, EXDEV for another
    /// file system, EFBIG, and the server's.
    pub fn copy_to(&self, offset: u64, target: &Self, target_offset: u64, len: u64) -> Result<u64> {
        let (from, to) = (self.inode(), target.inode());
        from.check()?;
        to.check()?;
        if !self.flags.readable()
            || !target.flags.writable()
            || target.flags.contains(OpenFlags::APPEND)
        {
            return Err(Error::caller(Errno::EBADF));
        }
        to.fs.check_writable()?;
        if !alloc::sync::Arc::ptr_eq(&from.fs, &to.fs) {
            return Err(Error::caller(Errno::EXDEV));
        }
        let beyond = |at: u64| at.checked_add(len).is_none_or(|end| end > SIZE_MAX);
        if beyond(offset) || beyond(target_offset) {
            return Err(Error::caller(Errno::EFBIG));
        }
        let same = alloc::sync::Arc::ptr_eq(from, to);
        // Only what there is to copy can overlap, and costs a file its set-id bits.
        let len = if same || to.has_set_ids() {
            let size = from.fresh_attr(Stale::SIZE, self.fh())?.size;
            len.min(size.saturating_sub(offset))
        } else {
            len
        };
        if same && len > 0 && offset < target_offset + len && target_offset < offset + len {
            return Err(Error::caller(Errno::EINVAL));
        }
        if len == 0 {
            return Ok(0);
        }
        to.clear_set_ids()?;
        target
            .unflushed
            .store(true, core::sync::atomic::Ordering::Relaxed);
        from.sync_pages()?;
        to.sync_pages()?;
        let layout = to.share_layout()?;
        let asked = to.fs.ask_now();
        let result = match self.copy_on_server(offset, target, target_offset, len) {
            Some(Err(error)) if matches!(error.errno(), Errno::EXDEV | Errno::EOPNOTSUPP) => None,
            result => result,
        };
        to.set_unsynced();
        match result {
            Some(Ok(n)) => {
                let end = target_offset + n;
                to.drop_bytes(target_offset, n);
                let old = to.last_attr().size;
                to.resize_pages(old, old.max(end));
                to.attr_became(asked, to.written(), |attr| attr.size = attr.size.max(end));
                Ok(n)
            }
            Some(Err(error)) => {
                to.drop_bytes(target_offset, len);
                to.attr_changed(Stale::all());
                Err(error)
            }
            None => {
                drop(layout);
                self.copy_here(offset, target, target_offset, len)
            }
        }
    }

    /// `None` if the server cannot.
    fn copy_on_server(
        &self,
        offset: u64,
        target: &Self,
        target_offset: u64,
        len: u64,
    ) -> Option<Result<u64>> {
        let fs = &self.inode().fs;
        let range = |len| CopyRange {
            node_in: self.inode().node,
            fh_in: self.handle.fh(),
            offset_in: offset,
            node_out: target.inode().node,
            fh_out: target.handle.fh(),
            offset_out: target_offset,
            len,
            flags: 0,
        };
        // The older operation returns the number in 32 bits.
        let short = len.min(u64::from(u32::MAX) & !0xfff);
        let (count, asked) = match fs.lacking.unless(Opcode::CopyFileRange64, || {
            fs.conn.ask(&CopyFileRange64(range(len)))
        }) {
            Some(count) => (count, len),
            None => {
                let ask = || fs.conn.ask(&CopyFileRange(range(short)));
                (fs.lacking.unless(Opcode::CopyFileRange, ask)?, short)
            }
        };
        Some(count.and_then(|count| {
            count.of(asked).map_err(|why| {
                fs.counters().malformed_replies.add(1);
                log::error!(
                    "virtio-fs: COPY_FILE_RANGE to node {}: {why}",
                    target.inode().node
                );
                Error::protocol()
            })
        }))
    }

    fn copy_here(&self, offset: u64, target: &Self, target_offset: u64, len: u64) -> Result<u64> {
        let mut buf = alloc::vec![0; COPY_BUFFER.min(len as usize)];
        let mut done = 0;
        while done < len {
            let step = ((len - done) as usize).min(buf.len());
            let n = match self.read_at(offset + done, &mut buf[..step]) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            };
            match target.write_at(target_offset + done, &buf[..n]) {
                Ok(written) => {
                    done += written as u64;
                    if written < n {
                        break;
                    }
                }
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }
}

/// Refuses what no file can be asked for, as fallocate(2) does before it looks at
/// the file.
pub(super) fn check_allocation(offset: u64, len: u64, mode: FallocateMode) -> Result<()> {
    if len == 0 || offset > SIZE_MAX {
        return Err(Error::caller(Errno::EINVAL));
    }
    let keeps = mode.contains(FallocateMode::KEEP_SIZE);
    let kind = mode.difference(FallocateMode::KEEP_SIZE);
    let possible = if kind == FallocateMode::PUNCH_HOLE {
        keeps
    } else if kind == FallocateMode::COLLAPSE_RANGE || kind == FallocateMode::INSERT_RANGE {
        !keeps
    } else {
        kind.is_empty() || kind == FallocateMode::ZERO_RANGE || kind == FallocateMode::UNSHARE_RANGE
    };
    if possible {
        Ok(())
    } else {
        Err(Error::caller(Errno::EOPNOTSUPP))
    }
}
