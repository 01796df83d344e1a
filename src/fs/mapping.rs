//! Whether an open file may be mapped: what mmap(2) checks before any page of it is
//! wanted (Linux: `do_mmap`, `fuse_file_mmap`).

use super::{Access, File};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{FileType, FopenFlags, InitFlags};

/// Whether stores through a mapping change the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They do: MAP_SHARED.
    Shared,
    /// The first store to a page makes a copy of it: MAP_PRIVATE.
    Private,
}

impl<P: Platform> File<P> {
    /// Checks that the file may be mapped for `access`. To be called once for each
    /// mapping, before its first [fault](super::Inode::fault). Sends nothing.
    ///
    /// A file that the server wants used directly (FOPEN_DIRECT_IO) has no cache
    /// whose pages could be shared, unless the server allows it
    /// (DIRECT_IO_ALLOW_MMAP): the kernel's cache must then write its dirty pages
    /// back before, and drop its pages after, each direct access. The DAX window is
    /// no such cache: its pages are the file's own.
    ///
    /// # Errors
    ///
    /// ENODEV for what is no regular file, and for a shared mapping of a direct
    /// file that may not be had; EACCES if it was not opened for reading, or for a
    /// shared mapping with stores not for writing.
    pub fn may_map(&self, access: Access, sharing: Sharing) -> Result<()> {
        let inode = self.inode();
        inode.check()?;
        if inode.file_type() != FileType::Regular {
            return Err(Error::caller(Errno::ENODEV));
        }
        let stores = sharing == Sharing::Shared && access.contains(Access::WRITE);
        // Whatever it is for, pages are read first.
        if !self.flags().readable() || stores && !self.flags().writable() {
            return Err(Error::caller(Errno::EACCES));
        }
        if stores {
            inode.fs.check_writable()?;
        }
        let direct = self.server_flags().contains(FopenFlags::DIRECT_IO);
        let refused = direct
            && sharing == Sharing::Shared
            && inode.owner.is_none()
            && !inode.fs.conn.limits().has(InitFlags::DIRECT_IO_ALLOW_MMAP);
        if refused {
            Err(Error::caller(Errno::ENODEV))
        } else {
            Ok(())
        }
    }
}
