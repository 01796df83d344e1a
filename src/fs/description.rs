//! Open file descriptions: what descriptors stand for, positions included.

use alloc::sync::Arc;

use super::attr::Stale;
use super::file::Durable;
use super::lock::{LockWait, new_owner};
use super::{Changes, Dir, DirEntry, File, Inode, IoctlResult, Metadata};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::sync::SleepLock;
use crate::wire::{
    DirCookie, FopenFlags, Lock, LockFamily, LockKind, LockOwner, OpenFlags, SIZE_MAX, SeekWhence,
};

/// What is open, and where in it. Shared by duplicated descriptors.
pub(super) struct Description<P: Platform> {
    kind: Kind<P>,
}

enum Kind<P: Platform> {
    /// The position is held for the length of a read or write, so that two
    /// threads do not read the same bytes (2.9.7 of POSIX).
    File(Arc<File<P>>, SleepLock<P, Position>),
    /// With the owner of its flock, for the directory has no [`File`].
    Dir(Arc<Inode<P>>, SleepLock<P, Dir<P>>, LockOwner),
    /// O_PATH: a place, not a file.
    Place(Arc<Inode<P>>),
}

/// A position in a file.
enum Position {
    At(u64),
    /// Behind what was appended: where the server put it is asked for when
    /// somebody wants to know.
    Appended {
        /// Where that is unless others appended as well.
        expected: u64,
        /// How the attributes stood then.
        version: u64,
    },
}

impl Position {
    /// Returns the offset. Blocks if it must ask for the size.
    fn resolve<P: Platform>(&mut self, file: &File<P>) -> Result<u64> {
        let offset = match *self {
            Self::At(offset) => return Ok(offset),
            // The end of the file says where it is only while the file is as it was.
            Self::Appended { expected, version } if version != file.inode().last_version() => {
                expected
            }
            Self::Appended { .. } => file.inode().fresh_attr(Stale::SIZE, file.fh())?.size,
        };
        *self = Self::At(offset);
        Ok(offset)
    }
}

impl<P: Platform> Description<P> {
    pub(super) fn of_file(file: Arc<File<P>>) -> Self {
        Self {
            kind: Kind::File(file, SleepLock::new(Position::At(0))),
        }
    }

    pub(super) fn of_dir(dir: Dir<P>) -> Self {
        Self {
            kind: Kind::Dir(dir.inode().clone(), SleepLock::new(dir), new_owner()),
        }
    }

    pub(super) fn of_place(inode: Arc<Inode<P>>) -> Self {
        Self {
            kind: Kind::Place(inode),
        }
    }

    pub(super) fn inode(&self) -> &Arc<Inode<P>> {
        match &self.kind {
            Kind::File(file, _) => file.inode(),
            Kind::Dir(inode, ..) | Kind::Place(inode) => inode,
        }
    }

    pub(super) fn file(&self) -> Result<&Arc<File<P>>> {
        match &self.kind {
            Kind::File(file, _) => Ok(file),
            Kind::Dir(..) => Err(Error::caller(Errno::EISDIR)),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir(..))
    }

    /// Returns the file for writing, for which no directory is open.
    pub(super) fn writable(&self) -> Result<&Arc<File<P>>> {
        match &self.kind {
            Kind::File(file, _) => Ok(file),
            Kind::Dir(..) | Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    fn platform(&self) -> &P {
        self.inode().fs.platform()
    }

    fn positioned(&self) -> Result<(&File<P>, &SleepLock<P, Position>)> {
        match &self.kind {
            Kind::File(file, position) => Ok((file, position)),
            Kind::Dir(..) => Err(Error::caller(Errno::EISDIR)),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn read(&self, buf: &mut [u8]) -> Result<usize> {
        let (file, position) = self.positioned()?;
        if file.server_flags().contains(FopenFlags::STREAM) {
            // No position, so a reader who waits keeps no writer waiting.
            return file.read_at(0, buf);
        }
        let mut position = position.lock(self.platform())?;
        let offset = position.resolve(file)?;
        let n = file.read_at(offset, buf)?;
        *position = Position::At(offset + n as u64);
        Ok(n)
    }

    pub(super) fn write(&self, data: &[u8]) -> Result<usize> {
        self.writable()?;
        let (file, position) = self.positioned()?;
        if file.server_flags().contains(FopenFlags::STREAM) {
            return file.write_at(0, data);
        }
        let mut position = position.lock(self.platform())?;
        // To append nothing does not even move the position.
        if file.flags().contains(OpenFlags::APPEND) && !data.is_empty() {
            let written = file.write_somewhere(0, data)?;
            *position = Position::Appended {
                expected: written.end(),
                version: file.inode().last_version(),
            };
            return Ok(written.len);
        }
        let offset = position.resolve(file)?;
        let n = file.write_at(offset, data)?;
        *position = Position::At(offset + n as u64);
        Ok(n)
    }

    pub(super) fn seek(&self, offset: i64, whence: SeekWhence) -> Result<u64> {
        let invalid = Error::caller(Errno::EINVAL);
        let (file, position) = match &self.kind {
            Kind::File(file, position) => (file, position),
            Kind::Dir(_, dir, _) => {
                // What telldir returned, and the beginning.
                let mut dir = dir.lock(self.platform())?;
                match whence {
                    SeekWhence::Set => {
                        dir.seek(DirCookie(u64::try_from(offset).map_err(|_| invalid)?));
                    }
                    SeekWhence::Current if offset == 0 => {}
                    _ => return Err(invalid),
                }
                return Ok(dir.position().0);
            }
            Kind::Place(_) => return Err(Error::caller(Errno::EBADF)),
        };
        file.check_seekable()?;
        let mut position = position.lock(self.platform())?;
        let base = match whence {
            SeekWhence::Set => 0,
            SeekWhence::Current => position.resolve(file)?,
            SeekWhence::End => file.size()?,
            SeekWhence::Data | SeekWhence::Hole => {
                let offset = u64::try_from(offset).map_err(|_| Error::caller(Errno::ENXIO))?;
                let found = file.seek(offset, whence)?;
                *position = Position::At(found);
                return Ok(found);
            }
        };
        let target = base
            .checked_add_signed(offset)
            .filter(|&target| target <= SIZE_MAX)
            .ok_or(invalid)?;
        *position = Position::At(target);
        Ok(target)
    }

    pub(super) fn read_dir(&self, each: impl FnMut(DirEntry<'_>) -> bool) -> Result<bool> {
        match &self.kind {
            Kind::Dir(_, dir, _) => dir.lock(self.platform())?.read(each),
            _ => Err(Error::caller(Errno::ENOTDIR)),
        }
    }

    pub(super) fn sync(&self, durable: Durable) -> Result<()> {
        match &self.kind {
            Kind::File(file, _) => file.sync(durable),
            Kind::Dir(_, dir, _) => dir.lock(self.platform())?.sync(),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn metadata(&self) -> Result<Metadata> {
        match &self.kind {
            Kind::File(file, _) => file.metadata(),
            Kind::Dir(inode, ..) | Kind::Place(inode) => inode.metadata(),
        }
    }

    pub(super) fn set_metadata(&self, changes: &Changes) -> Result<Metadata> {
        match &self.kind {
            Kind::File(file, _) => file.set_metadata(changes),
            Kind::Dir(..) if changes.size.is_some() => Err(Error::caller(Errno::EINVAL)),
            Kind::Dir(inode, ..) => inode.set_metadata(changes),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    /// Returns the inode, unless only the place is open.
    pub(super) fn opened(&self) -> Result<&Arc<Inode<P>>> {
        match &self.kind {
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
            _ => Ok(self.inode()),
        }
    }

    pub(super) fn position(&self) -> Result<u64> {
        let (file, position) = self.positioned()?;
        position.lock(self.platform())?.resolve(file)
    }

    pub(super) fn set_position(&self, to: u64) -> Result<()> {
        *self.positioned()?.1.lock(self.platform())? = Position::At(to);
        Ok(())
    }

    /// Locks of directories are kept here: the server has no requests for them.
    pub(super) fn lock(&self, owner: LockOwner, lock: Lock, wait: LockWait) -> Result<()> {
        match &self.kind {
            Kind::File(file, _) => file.set_lock(owner, lock, wait),
            Kind::Dir(..) if lock.kind == LockKind::Write => Err(Error::caller(Errno::EBADF)),
            Kind::Dir(inode, ..) => inode.lock_range_here(owner, lock, wait),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn test_lock(&self, owner: LockOwner, wanted: Lock) -> Result<Option<Lock>> {
        match &self.kind {
            Kind::File(file, _) => file.get_lock(owner, wanted),
            Kind::Dir(inode, ..) => inode.test_lock_here(owner, wanted),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn flock(&self, kind: LockKind, wait: LockWait) -> Result<()> {
        match &self.kind {
            Kind::File(file, _) => file.flock(kind, wait),
            Kind::Dir(inode, _, owner) => inode.flock_here(*owner, kind, wait),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn ioctl(
        &self,
        cmd: u32,
        arg: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<IoctlResult> {
        match &self.kind {
            Kind::File(file, _) => file.ioctl(cmd, arg, input, output),
            Kind::Dir(_, dir, _) => {
                let mut dir = dir.lock(self.platform())?;
                dir.ioctl(cmd, arg, input, output)
            }
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn close(&self, owner: LockOwner) -> Result<()> {
        match &self.kind {
            Kind::File(file, _) => file.flush(owner),
            Kind::Dir(inode, ..) => {
                inode.unlock_here(LockFamily::Posix, owner);
                Ok(())
            }
            Kind::Place(_) => Ok(()),
        }
    }
}

impl<P: Platform> Drop for Description<P> {
    fn drop(&mut self) {
        if let Kind::Dir(inode, _, owner) = &self.kind {
            inode.unlock_here(LockFamily::Flock, *owner);
        }
    }
}
