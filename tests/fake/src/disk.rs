//! Where file contents lie: one sparse memfd in chunks of 2 MiB.
//!
//! A real file, so that it can be mapped into the DAX window and a store
//! through the window is what the next READ returns; sparse, so that a chunk
//! with one byte in it costs one page; one, so that a hundred thousand files
//! need one descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

/// Bytes of a chunk: the size of a DAX range, so a range maps in one piece.
pub(crate) const CHUNK: u64 = 2 << 20;
/// Bytes of a host page.
pub(crate) const PAGE: u64 = 4096;

#[derive(Debug)]
pub(crate) struct Disk {
    file: File,
    end: u64,
    free: Vec<u64>,
}

/// Offset of a chunk on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunk(u64);

impl Chunk {
    /// Offset on the disk of a byte of this chunk.
    pub(crate) fn at(self, offset: u64) -> u64 {
        self.0 + offset
    }
}

impl Disk {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the name is a C string that lives through the call.
        let fd = unsafe { libc::memfd_create(c"virtio-fs-fake".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above made `fd`, nobody else owns it.
        let file = unsafe { File::from_raw_fd(fd) };
        Ok(Self {
            file,
            end: 0,
            free: Vec::new(),
        })
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Hands out a chunk of zeros.
    pub(crate) fn alloc(&mut self) -> io::Result<Chunk> {
        if let Some(at) = self.free.pop() {
            return Ok(Chunk(at));
        }
        let at = self.end;
        self.file.set_len(at + CHUNK)?;
        self.end = at + CHUNK;
        Ok(Chunk(at))
    }

    pub(crate) fn free(&mut self, chunk: Chunk) -> io::Result<()> {
        self.punch(chunk, 0, CHUNK)?;
        self.free.push(chunk.0);
        Ok(())
    }

    pub(crate) fn read(&self, chunk: Chunk, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, chunk.at(offset))
    }

    pub(crate) fn write(&self, chunk: Chunk, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, chunk.at(offset))
    }

    /// Turns a part of a chunk into zeros, whole pages of it into holes.
    pub(crate) fn punch(&self, chunk: Chunk, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: plain numbers and a descriptor that `self` keeps open.
        let rc = unsafe {
            libc::fallocate(
                self.fd(),
                mode,
                chunk.at(offset) as libc::off_t,
                len as libc::off_t,
            )
        };
        if rc == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Returns the first offset at or after `offset` in the chunk that is data
    /// (or a hole), [`CHUNK`] if there is none.
    pub(crate) fn seek(&self, chunk: Chunk, offset: u64, whence: libc::c_int) -> io::Result<u64> {
        if offset >= CHUNK {
            return Ok(CHUNK);
        }
        // SAFETY: plain numbers and a descriptor that `self` keeps open.
        let at = unsafe { libc::lseek(self.fd(), chunk.at(offset) as libc::off_t, whence) };
        if at < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENXIO) => Ok(CHUNK),
                _ => Err(error),
            };
        }
        Ok((at as u64 - chunk.at(0)).min(CHUNK))
    }
}
