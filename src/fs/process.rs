//! Paths and descriptors, for kernels without a VFS of their own.
//!
//! A [`Process`] has a root, a working directory and descriptors, and offers the
//! calls of POSIX.1-2024 under their names, with `at` in place of the `*at`
//! variants. Its errors are those of the manual pages.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::description::Description;
use super::file::Durable;
use super::walk::{Last, Parent, Trust, Walk};
use super::{Access, Changes, File, Inode, Metadata, Mount};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::sync::SpinLock;
use crate::wire::{FileType, LockOwner, Mode, OpenFlags, Rdev, RenameFlags, StatfsReply};

/// Descriptors that one process may have.
const OPEN_MAX: usize = 1024;

/// Names an open file of a [`Process`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub u32);

/// Where a relative path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The working directory.
    Cwd,
    /// An open directory.
    Fd(Fd),
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symlinks {
    /// The file that it points to is meant.
    Follow,
    /// The link itself is meant.
    NoFollow,
}

/// A root, a working directory, and open files.
///
/// All calls take `&self` and may be made from several threads.
pub struct Process<P: Platform> {
    root: Arc<Inode<P>>,
    cwd: SpinLock<Arc<Inode<P>>>,
    files: SpinLock<Vec<Option<Arc<Description<P>>>>>,
    owner: LockOwner,
}

/// Lock owners are numbered; 0 stands for nobody.
static NEXT_OWNER: AtomicU64 = AtomicU64::new(1);

impl<P: Platform> Process<P> {
    /// Makes a process at the root of a mount.
    pub fn new(mount: &Mount<P>) -> Self {
        let root = mount.root().clone();
        let owner = LockOwner(NEXT_OWNER.fetch_add(1, Relaxed));
        Self {
            cwd: SpinLock::new(root.clone()),
            root,
            files: SpinLock::new(Vec::new()),
            owner,
        }
    }

    /// Returns the number under which this process holds locks.
    pub fn lock_owner(&self) -> LockOwner {
        self.owner
    }

    fn start(&self, at: At) -> Result<Arc<Inode<P>>> {
        match at {
            At::Cwd => Ok(self.cwd.lock().clone()),
            At::Fd(fd) => Ok(self.description(fd)?.inode().clone()),
        }
    }

    /// Runs `call`, and once more with fresh lookups if the server did not know
    /// what the path led to (ESTALE; EBADF from one that was restarted).
    fn retry<T>(&self, mut call: impl FnMut(Trust) -> Result<T>) -> Result<T> {
        match call(Trust::Cache) {
            Err(error)
                if error.origin() == Origin::Server
                    && matches!(error.errno(), Errno::ESTALE | Errno::EBADF) =>
            {
                call(Trust::Nothing)
            }
            result => result,
        }
    }

    fn walk<'p>(&self, at: At, path: &'p [u8], trust: Trust) -> Result<Walk<'p, P>> {
        Walk::new(&self.root, &self.start(at)?, path, trust)
    }

    fn with_inode<T>(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        mut call: impl FnMut(&Arc<Inode<P>>) -> Result<T>,
    ) -> Result<T> {
        let last = match symlinks {
            Symlinks::Follow => Last::Follow,
            Symlinks::NoFollow => Last::NoFollow,
        };
        self.retry(|trust| call(&self.walk(at, path, trust)?.find(last)?))
    }

    fn with_parent<T>(
        &self,
        at: At,
        path: &[u8],
        mut call: impl FnMut(&Parent<'_, P>) -> Result<T>,
    ) -> Result<T> {
        self.retry(|trust| call(&self.walk(at, path, trust)?.parent()?))
    }

    /// Finds the inode that a path leads to. Blocks.
    ///
    /// # Errors
    ///
    /// Those of path_resolution(7).
    pub fn lookup(&self, at: At, path: &[u8], symlinks: Symlinks) -> Result<Arc<Inode<P>>> {
        self.with_inode(at, path, symlinks, |inode| Ok(inode.clone()))
    }

    // Descriptors.

    /// Returns what a descriptor stands for.
    ///
    /// # Errors
    ///
    /// EBADF.
    pub(super) fn description(&self, fd: Fd) -> Result<Arc<Description<P>>> {
        let files = self.files.lock();
        files
            .get(fd.0 as usize)
            .cloned()
            .flatten()
            .ok_or(Error::caller(Errno::EBADF))
    }

    /// Returns the open file behind a descriptor.
    ///
    /// # Errors
    ///
    /// EBADF; EISDIR for a directory.
    pub fn file(&self, fd: Fd) -> Result<Arc<File<P>>> {
        self.description(fd)?.file().cloned()
    }

    fn install(&self, description: Arc<Description<P>>) -> Result<Fd> {
        let mut files = self.files.lock();
        let free = files
            .iter()
            .position(Option::is_none)
            .unwrap_or(files.len());
        if free >= OPEN_MAX {
            drop(files);
            return Err(Error::caller(Errno::EMFILE));
        }
        if free == files.len() {
            files.push(None);
        }
        files[free] = Some(description);
        Ok(Fd(free as u32))
    }

    /// Opens a file, a directory for reading, or makes a file: open(2). Blocks.
    ///
    /// `permissions` are those of a file that is made.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open(&self, at: At, path: &[u8], flags: OpenFlags, permissions: u32) -> Result<Fd> {
        let description =
            self.retry(|trust| self.open_once(at, path, flags, permissions, trust))?;
        self.install(Arc::new(description))
    }

    fn open_once(
        &self,
        at: At,
        path: &[u8],
        flags: OpenFlags,
        permissions: u32,
        trust: Trust,
    ) -> Result<Description<P>> {
        if flags.contains(OpenFlags::TMPFILE) {
            let dir = self.walk(at, path, trust)?.find(Last::Follow)?;
            return Ok(Description::of_file(dir.tmpfile(flags, permissions)?));
        }
        if !flags.contains(OpenFlags::CREAT) {
            let last = if flags.contains(OpenFlags::NOFOLLOW) {
                Last::NoFollow
            } else {
                Last::Follow
            };
            return self.open_found(&self.walk(at, path, trust)?.find(last)?, flags);
        }
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(Error::caller(Errno::EINVAL));
        }
        let exclusive = flags.contains(OpenFlags::EXCL);
        let mut parent = self.walk(at, path, trust)?.parent()?;
        // Somebody may make the file, or remove it, between the two questions.
        for _ in 0..32 {
            if parent.slash || matches!(parent.name(), b"." | b"..") {
                return Err(Error::caller(Errno::EISDIR));
            }
            if !exclusive {
                match parent.dir.lookup(parent.name()) {
                    Ok(inode) if inode.file_type() == FileType::Symlink => {
                        if flags.contains(OpenFlags::NOFOLLOW) {
                            return Err(Error::caller(Errno::ELOOP));
                        }
                        parent = Walk::onward(parent, &inode, &self.root, trust)?;
                        continue;
                    }
                    Ok(inode) => match self.open_found(&inode, flags) {
                        Err(error) if error.errno() == Errno::ENOENT => continue,
                        result => return result,
                    },
                    Err(error) if error.errno() == Errno::ENOENT => {}
                    Err(error) => return Err(error),
                }
            }
            match parent.dir.create(parent.name(), flags, permissions) {
                Err(error) if error.errno() == Errno::EEXIST && !exclusive => {}
                result => return result.map(Description::of_file),
            }
        }
        Err(Error::caller(Errno::EAGAIN))
    }

    fn open_found(&self, inode: &Arc<Inode<P>>, flags: OpenFlags) -> Result<Description<P>> {
        if flags.contains(OpenFlags::DIRECTORY) && !inode.is_dir() {
            return Err(Error::caller(Errno::ENOTDIR));
        }
        if flags.contains(OpenFlags::PATH) {
            return Ok(Description::of_place(inode.clone()));
        }
        if inode.is_dir() {
            if flags.writable() || flags.intersects(OpenFlags::TRUNC | OpenFlags::CREAT) {
                return Err(Error::caller(Errno::EISDIR));
            }
            return Ok(Description::of_dir(inode.open_dir()?));
        }
        let flags = flags.difference(OpenFlags::CREAT | OpenFlags::EXCL);
        Ok(Description::of_file(inode.open(flags)?))
    }

    /// Closes a descriptor: close(2). Blocks if the server is told.
    ///
    /// # Errors
    ///
    /// EBADF; the server's report of earlier writes. The descriptor is closed in
    /// any case.
    pub fn close(&self, fd: Fd) -> Result<()> {
        let description = {
            let mut files = self.files.lock();
            let slot = files.get_mut(fd.0 as usize).and_then(Option::take);
            slot.ok_or(Error::caller(Errno::EBADF))?
        };
        description.close(self.owner)
    }

    /// Makes another descriptor for the same open file, position shared: dup(2).
    ///
    /// # Errors
    ///
    /// EBADF, EMFILE.
    pub fn dup(&self, fd: Fd) -> Result<Fd> {
        self.install(self.description(fd)?)
    }

    /// Reads from the position on: read(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of read(2).
    pub fn read(&self, fd: Fd, buf: &mut [u8]) -> Result<usize> {
        self.description(fd)?.read(buf)
    }

    /// Writes at the position, or at the end with O_APPEND: write(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn write(&self, fd: Fd, data: &[u8]) -> Result<usize> {
        self.description(fd)?.write(data)
    }

    /// Writes all of `data` at the position. Blocks.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn write_all(&self, fd: Fd, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let n = self.write(fd, data)?;
            data = &data[n..];
        }
        Ok(())
    }

    /// Reads at `offset`, the position untouched: pread(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of pread(2).
    pub fn pread(&self, fd: Fd, buf: &mut [u8], offset: u64) -> Result<usize> {
        self.file(fd)?.read_at(offset, buf)
    }

    /// Writes at `offset`, the position untouched: pwrite(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2).
    pub fn pwrite(&self, fd: Fd, data: &[u8], offset: u64) -> Result<usize> {
        self.file(fd)?.write_at(offset, data)
    }

    /// Moves the position: lseek(2). Blocks if the size must be asked for.
    ///
    /// # Errors
    ///
    /// Those of lseek(2).
    pub fn lseek(&self, fd: Fd, offset: i64, whence: crate::wire::SeekWhence) -> Result<u64> {
        self.description(fd)?.seek(offset, whence)
    }

    /// Calls `each` with the entries of an open directory from its position on,
    /// until it returns false: readdir(3). Returns whether the end was reached.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// ENOTDIR, and those of [`Dir::read`](super::Dir::read).
    pub fn read_dir(&self, fd: Fd, each: impl FnMut(super::DirEntry<'_>) -> bool) -> Result<bool> {
        self.description(fd)?.read_dir(each)
    }

    /// Makes an open file durable: fsync(2), fdatasync(2). Blocks.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn fsync(&self, fd: Fd, durable: Durable) -> Result<()> {
        self.description(fd)?.sync(durable)
    }

    /// Returns the attributes of an open file: fstat(2). Blocks if they must be
    /// asked for.
    ///
    /// # Errors
    ///
    /// EBADF, and those of [`Inode::metadata`].
    pub fn fstat(&self, fd: Fd) -> Result<Metadata> {
        self.description(fd)?.metadata()
    }

    /// Changes attributes of an open file: fchmod(2), fchown(2), ftruncate(2),
    /// futimens(3). Blocks.
    ///
    /// # Errors
    ///
    /// EBADF, and those of [`File::set_metadata`].
    pub fn fset(&self, fd: Fd, changes: &Changes) -> Result<()> {
        self.description(fd)?.set_metadata(changes).map(|_| ())
    }

    // Paths.

    /// Returns the attributes of a file: stat(2), lstat(2). Blocks if something
    /// must be asked for.
    ///
    /// # Errors
    ///
    /// Those of stat(2).
    pub fn stat(&self, at: At, path: &[u8], symlinks: Symlinks) -> Result<Metadata> {
        self.with_inode(at, path, symlinks, Inode::metadata)
    }

    /// Changes attributes of a file: chmod(2), chown(2), truncate(2),
    /// utimensat(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of the calls named.
    pub fn set(&self, at: At, path: &[u8], symlinks: Symlinks, changes: &Changes) -> Result<()> {
        self.with_inode(at, path, symlinks, |inode| {
            inode.set_metadata(changes).map(drop)
        })
    }

    /// Checks whether the caller may use a file: access(2). Blocks if attributes
    /// must be asked for.
    ///
    /// # Errors
    ///
    /// Those of access(2).
    pub fn access(&self, at: At, path: &[u8], wanted: Access) -> Result<()> {
        self.with_inode(at, path, Symlinks::Follow, |inode| inode.permission(wanted))
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
            if parent.name().is_empty() {
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
        self.with_parent(at, path, |from| {
            self.with_parent(new_at, new_path, |to| {
                if from.name().is_empty() || to.name().is_empty() {
                    return Err(Error::caller(Errno::EBUSY));
                }
                if (from.slash || to.slash) && !from.dir.lookup(from.name())?.is_dir() {
                    return Err(Error::caller(Errno::ENOTDIR));
                }
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
            inode.permission(Access::EXEC)?;
            Ok(inode.clone())
        })?;
        let old = core::mem::replace(&mut *self.cwd.lock(), dir);
        drop(old);
        Ok(())
    }

    /// Returns the path of the working directory: getcwd(3). Sends nothing.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG.
    pub fn getcwd(&self) -> Result<Vec<u8>> {
        self.path_of(&self.cwd.lock().clone())
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

/// Returns the directory for a new name, unless the path ends in what exists
/// anyway.
fn new_in<'a, P: Platform>(parent: &'a Parent<'_, P>) -> Result<&'a Arc<Inode<P>>> {
    match parent.name() {
        b"" | b"." | b".." => Err(Error::caller(Errno::EEXIST)),
        _ => Ok(&parent.dir),
    }
}

/// Only a directory may be named with a slash behind.
fn refuse_slash<P: Platform>(parent: &Parent<'_, P>) -> Result<()> {
    if !parent.slash {
        return Ok(());
    }
    match parent.dir.lookup(parent.name()) {
        Ok(_) => Err(Error::caller(Errno::EEXIST)),
        Err(_) => Err(Error::caller(Errno::ENOENT)),
    }
}

impl<P: Platform> Drop for Process<P> {
    fn drop(&mut self) {
        for description in self.files.get_mut().drain(..).flatten() {
            if let Err(error) = description.close(self.owner) {
                log::warn!("virtio-fs: closing {:?}: {error}", description.inode());
            }
        }
    }
}
