//! More calls of a [`Process`]: extended attributes, locks, space, control.
//!
//! What a path names is as in the other calls; `f` in front of a name means an
//! open file.

use super::xattr::{check_new, checked};
use super::{At, Fd, IoctlResult, LockWait, Process, Statx, Symlinks};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{FallocateMode, Lock, LockKind, SIZE_MAX, XattrFlags};

/// Most bytes that one copy_file_range(2) copies.
const COPY_MAX: u64 = 0x7fff_f000;

impl<P: Platform> Process<P> {
    // Extended attributes.

    /// Copies the value of an extended attribute to `value` and returns its
    /// length; with an empty `value`, the length alone: getxattr(2),
    /// lgetxattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of getxattr(2).
    pub fn getxattr(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        name: &[u8],
        value: &mut [u8],
    ) -> Result<usize> {
        checked(name)?;
        self.with_inode(at, path, symlinks, |inode| inode.get_xattr(name, value))
    }

    /// As [`getxattr`](Self::getxattr), of an open file: fgetxattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// EBADF, and as there.
    pub fn fgetxattr(&self, fd: Fd, name: &[u8], value: &mut [u8]) -> Result<usize> {
        self.description(fd)?.opened()?.get_xattr(name, value)
    }

    /// Sets an extended attribute: setxattr(2), lsetxattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of setxattr(2).
    pub fn setxattr(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        check_new(name, value, flags)?;
        self.with_inode(at, path, symlinks, |inode| {
            inode.set_xattr(name, value, flags)
        })
    }

    /// As [`setxattr`](Self::setxattr), of an open file: fsetxattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// EBADF, and as there.
    pub fn fsetxattr(&self, fd: Fd, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.description(fd)?
            .opened()?
            .set_xattr(name, value, flags)
    }

    /// Copies the names of the extended attributes to `list`, each with a NUL
    /// behind it, and returns their length; with an empty `list`, the length
    /// alone: listxattr(2), llistxattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of listxattr(2).
    pub fn listxattr(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        list: &mut [u8],
    ) -> Result<usize> {
        self.with_inode(at, path, symlinks, |inode| inode.list_xattr(list))
    }

    /// As [`listxattr`](Self::listxattr), of an open file: flistxattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// EBADF, and as there.
    pub fn flistxattr(&self, fd: Fd, list: &mut [u8]) -> Result<usize> {
        self.description(fd)?.opened()?.list_xattr(list)
    }

    /// Removes an extended attribute: removexattr(2), lremovexattr(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of removexattr(2).
    pub fn removexattr(&self, at: At, path: &[u8], symlinks: Symlinks, name: &[u8]) -> Result<()> {
        checked(name)?;
        self.with_inode(at, path, symlinks, |inode| inode.remove_xattr(name))
    }

    /// As [`removexattr`](Self::removexattr), of an open file: fremovexattr(2).
    /// Blocks.
    ///
    /// # Errors
    ///
    /// EBADF, and as there.
    pub fn fremovexattr(&self, fd: Fd, name: &[u8]) -> Result<()> {
        self.description(fd)?.opened()?.remove_xattr(name)
    }

    // Locks.

    /// Takes, converts or drops a lock of this process on a range of an open
    /// file: F_SETLK and F_SETLKW of fcntl(2). The process loses it when it closes
    /// any descriptor of the file. Blocks where the server keeps the locks, and if
    /// it waits.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2); EAGAIN where a lock is in the way.
    pub fn lock(&self, fd: Fd, lock: Lock, wait: LockWait) -> Result<()> {
        self.description(fd)?.lock(self.owner, lock, wait)
    }

    /// Returns a lock that is in the way of `wanted`: F_GETLK of fcntl(2). Blocks
    /// where the server keeps the locks.
    ///
    /// # Errors
    ///
    /// Those of fcntl(2).
    pub fn test_lock(&self, fd: Fd, wanted: Lock) -> Result<Option<Lock>> {
        self.description(fd)?.test_lock(self.owner, wanted)
    }

    /// Locks or unlocks a whole file or directory: flock(2). The lock belongs to
    /// the open file, duplicated descriptors included, and goes with the last of
    /// them. Blocks where the server keeps the locks, and if it waits.
    ///
    /// # Errors
    ///
    /// Those of flock(2).
    pub fn flock(&self, fd: Fd, kind: LockKind, wait: LockWait) -> Result<()> {
        self.description(fd)?.flock(kind, wait)
    }

    // Space and copies.

    /// Allocates, frees or zeroes a range of an open file: fallocate(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of fallocate(2).
    pub fn fallocate(&self, fd: Fd, mode: FallocateMode, offset: u64, len: u64) -> Result<()> {
        let description = self.description(fd)?;
        description.opened()?;
        super::space::check_allocation(offset, len, mode)?;
        description.writable()?.allocate(offset, len, mode)
    }

    /// Copies up to `len` bytes from one open file to another, on the server if it
    /// can: copy_file_range(2). `None` for an offset stands for the position,
    /// which moves then. Returns how many bytes. Blocks.
    ///
    /// # Errors
    ///
    /// Those of copy_file_range(2).
    pub fn copy_file_range(
        &self,
        from: Fd,
        offset: Option<u64>,
        to: Fd,
        to_offset: Option<u64>,
        len: u64,
    ) -> Result<u64> {
        let (source, target) = (self.description(from)?, self.description(to)?);
        source.opened()?;
        target.opened()?;
        let start = offset.map_or_else(|| source.position(), Ok)?;
        let target_start = to_offset.map_or_else(|| target.position(), Ok)?;
        if start > SIZE_MAX || target_start > SIZE_MAX {
            return Err(Error::caller(Errno::EINVAL));
        }
        let n = source
            .file()?
            .copy_to(start, target.file()?, target_start, len.min(COPY_MAX))?;
        if offset.is_none() {
            source.set_position(start + n)?;
        }
        if to_offset.is_none() {
            target.set_position(target_start + n)?;
        }
        Ok(n)
    }

    // Control.

    /// Controls a device, file or directory: ioctl(2). See
    /// [`File::ioctl`](super::File::ioctl). Blocks.
    ///
    /// # Errors
    ///
    /// EBADF, ENOTTY, and those of the one asked for.
    pub fn ioctl(
        &self,
        fd: Fd,
        cmd: u32,
        arg: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<IoctlResult> {
        self.description(fd)?.ioctl(cmd, arg, input, output)
    }

    /// Returns the attributes of a file and the time when it was made: statx(2).
    /// Blocks.
    ///
    /// # Errors
    ///
    /// Those of statx(2).
    pub fn statx(&self, at: At, path: &[u8], symlinks: Symlinks) -> Result<Statx> {
        self.with_inode(at, path, symlinks, |inode| inode.statx())
    }
}
