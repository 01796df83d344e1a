//! Paths and descriptors, for kernels without a VFS of their own.
//!
//! A [`Process`] has a root, a working directory and descriptors, and offers the
//! calls of POSIX.1-2024 under their names, with `at` in place of the `*at`
//! variants. Its errors are those of the manual pages.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::description::Description;
use super::file::Durable;
use super::walk::{Arrival, Last, Parent, Trust, Walk};
use super::{Changes, File, Inode, Metadata, Mount};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::sync::{Rank, SpinRwLock};
use crate::wire::{FileType, LockOwner, OpenFlags};

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
    pub(super) root: Arc<Inode<P>>,
    pub(super) cwd: SpinRwLock<Arc<Inode<P>>>,
    files: SpinRwLock<Vec<Option<Arc<Description<P>>>>>,
    pub(super) owner: LockOwner,
}

impl<P: Platform> Process<P> {
    /// Makes a process at the root of a mount.
    pub fn new(mount: &Mount<P>) -> Self {
        let root = mount.root().clone();
        let owner = super::lock::new_owner();
        Self {
            cwd: SpinRwLock::new(Rank::Leaf, root.clone()),
            root,
            files: SpinRwLock::new(Rank::Leaf, Vec::new()),
            owner,
        }
    }

    /// Returns the number under which this process holds locks.
    pub fn lock_owner(&self) -> LockOwner {
        self.owner
    }

    pub(super) fn start(&self, at: At) -> Result<Arc<Inode<P>>> {
        match at {
            At::Cwd => Ok(self.cwd.read().clone()),
            At::Fd(fd) => Ok(self.description(fd)?.inode().clone()),
        }
    }

    /// Runs `call`, and once more with fresh lookups if the server did not know
    /// what the path led to (ESTALE; EBADF from one that was restarted).
    pub(super) fn retry<T>(&self, mut call: impl FnMut(Trust) -> Result<T>) -> Result<T> {
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

    pub(super) fn walk<'p>(&'p self, at: At, path: &'p [u8], trust: Trust) -> Result<Walk<'p, P>> {
        let start = match path.first() {
            // Whether `at` is good makes no difference to these.
            None | Some(b'/') => self.root.clone(),
            Some(_) => self.start(at)?,
        };
        Walk::new(&self.root, start, path, trust)
    }

    pub(super) fn with_inode<T>(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        mut call: impl FnMut(&Arc<Inode<P>>) -> Result<T>,
    ) -> Result<T> {
        self.with_arrival(at, path, symlinks, |arrival| call(&arrival.inode))
    }

    pub(super) fn with_arrival<T>(
        &self,
        at: At,
        path: &[u8],
        symlinks: Symlinks,
        mut call: impl FnMut(&Arrival<P>) -> Result<T>,
    ) -> Result<T> {
        let last = match symlinks {
            Symlinks::Follow => Last::Follow,
            Symlinks::NoFollow => Last::NoFollow,
        };
        self.retry(|trust| call(&self.walk(at, path, trust)?.find(last)?))
    }

    pub(super) fn with_parent<T>(
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
        let files = self.files.read();
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
        let mut files = self.files.write();
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
        let flags = if flags.contains(OpenFlags::PATH) {
            // A place is neither read nor written nor made.
            let kept = OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW | OpenFlags::CLOEXEC;
            flags & (kept | OpenFlags::PATH)
        } else {
            flags
        };
        if flags.contains(OpenFlags::TMPFILE) {
            let dir = self.walk(at, path, trust)?.find(Last::Follow)?.inode;
            return Ok(Description::of_file(dir.tmpfile(flags, permissions)?));
        }
        if !flags.contains(OpenFlags::CREAT) {
            let last = if flags.contains(OpenFlags::NOFOLLOW) {
                Last::NoFollow
            } else {
                Last::Follow
            };
            let found = self.walk(at, path, trust)?.find(last)?.inode;
            return self.open_found(&found, flags);
        }
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(Error::caller(Errno::EINVAL));
        }
        let exclusive = flags.contains(OpenFlags::EXCL);
        let mut parent = self.walk(at, path, trust)?.parent()?;
        // Somebody may make the file, or remove it, between the two questions.
        let mut races = 0;
        while races < 32 {
            let errno = match parent.name() {
                b"" | b"." | b".." if exclusive => Some(Errno::EEXIST),
                b"" | b"." | b".." => Some(Errno::EISDIR),
                _ if parent.slash => Some(Errno::EISDIR),
                _ => None,
            };
            if let Some(errno) = errno {
                return Err(Error::caller(errno));
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
                        Err(error) if error.errno() == Errno::ENOENT => {
                            races += 1;
                            continue;
                        }
                        result => return result,
                    },
                    Err(error) if error.errno() == Errno::ENOENT => {}
                    Err(error) => return Err(error),
                }
            }
            match parent.dir.create(parent.name(), flags, permissions) {
                Err(error) if error.errno() == Errno::EEXIST && !exclusive => races += 1,
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
            let mut files = self.files.write();
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
        let description = self.description(fd)?;
        if description.is_dir() {
            super::io::check_end(offset, buf.len())?;
        }
        let file = description.file()?;
        file.check_seekable()?;
        file.read_at(offset, buf)
    }

    /// Writes at `offset`, the position untouched: pwrite(2). Blocks.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2).
    pub fn pwrite(&self, fd: Fd, data: &[u8], offset: u64) -> Result<usize> {
        let description = self.description(fd)?;
        let file = description.writable()?;
        file.check_seekable()?;
        file.write_at(offset, data)
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
