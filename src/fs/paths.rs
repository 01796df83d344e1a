//! The calls of a [`Process`] that take paths.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::ends::{check_rename_ends, new_in, refuse_existing, refuse_slash};
use super::walk::Arrival;
use super::{Access, At, Changes, Inode, Metadata, Process, Symlinks};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{Mode, Rdev, RenameFlags, StatfsReply};

impl<P: Platform> Process<P> {
    /// Returns the attributes of a file: stat(2), lstat(2). Blocks if something
    /// must be asked for.
    ///
    /// # Errors
    ///
    /// Those of stat(2).
    pub fn stat(&self, at: At, path: &[u8], symlinks: Symlinks) -> Result<Metadata> {
        self.with_arrival(at, path, symlinks, Arrival::metadata)
    }

    /// Changes attributes of a file: chmod(2), chown(2), truncate(2),
    /// utimensat(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of the calls named.
    pub fn set(&self, at: At, path: &[u8], symlinks: Symlinks, changes: &Changes) -> Result<()> {
        self.with_inode(at, path, symlinks, |inode| {
            inode.set_metadata(changes)?;
            Ok(())
        })
    }

    /// Checks whether the caller may use a file: access(2). Blocks if attributes
    /// must be asked for.
    ///
    /// # Errors
    ///
    /// Those of access(2).
    pub fn access(&self, at: At, path: &[u8], wanted: Access) -> Result<()> {
        self.with_inode(at, path, Symlinks::Follow, |inode| inode.access(wanted))
    }

    /// Returns what a symbolic link points to: readlink(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of readlink(2).
    pub fn readlink(&self, at: At, path: &[u8]) -> Result<Arc<[u8]>> {
        self.with_inode(at, path, Symlinks::NoFollow, Inode::read_link)
    }

    /// Makes a directory: mkdir(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of mkdir(2).
    pub fn mkdir(&self, at: At, path: &[u8], permissions: u32) -> Result<()> {
        self.with_parent(at, path, |parent| {
            let dir = new_in(parent)?;
            dir.mkdir(parent.name(), permissions).map(|_| ())
        })
    }

    /// Makes a file of another type: mknod(2), mkfifo(3). Blocks.
    ///
    /// # Errors
    ///
    /// Those of mknod(2).
    pub fn mknod(&self, at: At, path: &[u8], mode: Mode, rdev: Rdev) -> Result<()> {
        self.with_parent(at, path, |parent| {
            let dir = new_in(parent)?;
            refuse_slash(parent)?;
            dir.mknod(parent.name(), mode, rdev).map(|_| ())
        })
    }

    /// Makes a symbolic link: symlink(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of symlink(2).
    pub fn symlink(&self, target: &[u8], at: At, path: &[u8]) -> Result<()> {
        super::create::link_target(target)?;
        self.with_parent(at, path, |parent| {
            let dir = new_in(parent)?;
            refuse_slash(parent)?;
            dir.symlink(parent.name(), target).map(|_| ())
        })
    }

    /// Gives a file one more name: linkat(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of linkat(2).
    pub fn link(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        new_at: At,
        new_path: &[u8],
    ) -> Result<()> {
        self.with_inode(at, path, symlinks, |inode| {
            self.with_parent(new_at, new_path, |parent| {
                let dir = new_in(parent)?;
                refuse_slash(parent)?;
                if inode.is_dir() {
                    refuse_existing(dir, parent.name())?;
                }
                dir.link(parent.name(), inode)
            })
        })
    }

    /// Removes a name: unlink(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of unlink(2).
    pub fn unlink(&self, at: At, path: &[u8]) -> Result<()> {
        self.with_parent(at, path, |parent| {
            if matches!(parent.name(), b"" | b"." | b"..") {
                return Err(Error::caller(Errno::EISDIR));
            }
            if parent.slash {
                let inode = parent.dir.lookup(parent.name())?;
                return Err(Error::caller(if inode.is_dir() {
                    Errno::EISDIR
                } else {
                    Errno::ENOTDIR
                }));
            }
            parent.dir.unlink(parent.name())
        })
    }

    /// Removes an empty directory: rmdir(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of rmdir(2).
    pub fn rmdir(&self, at: At, path: &[u8]) -> Result<()> {
        self.with_parent(at, path, |parent| {
            if parent.name().is_empty() {
                return Err(Error::caller(Errno::EBUSY));
            }
            parent.dir.rmdir(parent.name())
        })
    }

    /// Moves a file: renameat2(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of renameat2(2).
    pub fn rename(
        &self,
        at: At,
        path: &[u8],
        new_at: At,
        new_path: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        super::remove::check_flags(flags)?;
        self.with_parent(at, path, |from| {
            self.with_parent(new_at, new_path, |to| {
                check_rename_ends(from, to, flags)?;
                from.dir.rename(from.name(), &to.dir, to.name(), flags)
            })
        })
    }

    /// Returns space and inode counts: statvfs(3). Blocks.
    ///
    /// # Errors
    ///
    /// Those of statvfs(3).
    pub fn statfs(&self, at: At, path: &[u8]) -> Result<StatfsReply> {
        self.with_inode(at, path, Symlinks::Follow, |inode| inode.statfs())
    }

    /// Changes the working directory: chdir(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of chdir(2).
    pub fn chdir(&self, at: At, path: &[u8]) -> Result<()> {
        let dir = self.with_inode(at, path, Symlinks::Follow, |inode| {
            inode.check_dir()?;
            inode.access(Access::EXEC)?;
            Ok(inode.clone())
        })?;
        let old = core::mem::replace(&mut *self.cwd.write(), dir);
        drop(old);
        Ok(())
    }

    /// Returns the path of the working directory: getcwd(3). Sends nothing.
    ///
    /// # Errors
    ///
    /// ENOENT if it was removed; ENAMETOOLONG.
    pub fn getcwd(&self) -> Result<Vec<u8>> {
        let cwd = self.cwd.read().clone();
        cwd.check_alive()?;
        self.path_of(&cwd)
    }

    /// Returns a path from the root to an inode, as it was last seen. Sends
    /// nothing.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG.
    pub fn path_of(&self, inode: &Arc<Inode<P>>) -> Result<Vec<u8>> {
        // Built from its end to its beginning.
        let mut reversed: Vec<u8> = Vec::new();
        let mut at = inode.clone();
        while !Arc::ptr_eq(&at, &self.root)
            && let Some(place) = at.place()
        {
            reversed.extend(place.name.iter().rev());
            reversed.push(b'/');
            if reversed.len() >= super::walk::PATH_MAX {
                return Err(Error::caller(Errno::ENAMETOOLONG));
            }
            at = place.parent.clone();
        }
        if reversed.is_empty() {
            reversed.push(b'/');
        }
        reversed.reverse();
        Ok(reversed)
    }
}
