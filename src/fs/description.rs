//! Open file descriptions: what descriptors stand for, positions included.

use alloc::sync::Arc;

use super::file::Durable;
use super::{Changes, Dir, DirEntry, File, Inode, Metadata};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::sync::SleepLock;
use crate::wire::{DirCookie, FileType, FopenFlags, LockOwner, OpenFlags, SIZE_MAX, SeekWhence};

/// What is open, and where in it. Shared by duplicated descriptors.
pub(super) struct Description<P: Platform> {
    kind: Kind<P>,
}

enum Kind<P: Platform> {
    /// The position is held for the length of a read or write, so that two
    /// threads do not read the same bytes (2.9.7 of POSIX).
    File(Arc<File<P>>, SleepLock<P, u64>),
    Dir(Arc<Inode<P>>, SleepLock<P, Dir<P>>),
    /// O_PATH: a place, not a file.
    Place(Arc<Inode<P>>),
}

impl<P: Platform> Description<P> {
    pub(super) fn of_file(file: Arc<File<P>>) -> Self {
        Self {
            kind: Kind::File(file, SleepLock::new(0)),
        }
    }

    pub(super) fn of_dir(dir: Dir<P>) -> Self {
        Self {
            kind: Kind::Dir(dir.inode().clone(), SleepLock::new(dir)),
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
            Kind::Dir(inode, _) | Kind::Place(inode) => inode,
        }
    }

    pub(super) fn file(&self) -> Result<&Arc<File<P>>> {
        match &self.kind {
            Kind::File(file, _) => Ok(file),
            Kind::Dir(..) => Err(Error::caller(Errno::EISDIR)),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    fn platform(&self) -> &P {
        self.inode().fs.platform()
    }

    fn positioned(&self) -> Result<(&File<P>, &SleepLock<P, u64>)> {
        match &self.kind {
            Kind::File(file, position) => Ok((file, position)),
            Kind::Dir(..) => Err(Error::caller(Errno::EISDIR)),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn read(&self, buf: &mut [u8]) -> Result<usize> {
        let (file, position) = self.positioned()?;
        let mut position = position.lock(self.platform())?;
        let n = file.read_at(*position, buf)?;
        *position += n as u64;
        Ok(n)
    }

    pub(super) fn write(&self, data: &[u8]) -> Result<usize> {
        let (file, position) = self.positioned()?;
        let mut position = position.lock(self.platform())?;
        if file.flags().contains(OpenFlags::APPEND) {
            let (n, end) = file.append(data)?;
            *position = end;
            return Ok(n);
        }
        let n = file.write_at(*position, data)?;
        *position += n as u64;
        Ok(n)
    }

    pub(super) fn seek(&self, offset: i64, whence: SeekWhence) -> Result<u64> {
        let invalid = Error::caller(Errno::EINVAL);
        let (file, position) = match &self.kind {
            Kind::File(file, position) => (file, position),
            Kind::Dir(_, dir) => {
                // What telldir returned, and the beginning.
                let mut dir = dir.lock(self.platform())?;
                match whence {
                    SeekWhence::Set => dir.seek(DirCookie(offset as u64)),
                    SeekWhence::Current if offset == 0 => {}
                    _ => return Err(invalid),
                }
                return Ok(dir.position().0);
            }
            Kind::Place(_) => return Err(Error::caller(Errno::EBADF)),
        };
        let stream = FopenFlags::STREAM | FopenFlags::NONSEEKABLE;
        if file.server_flags().intersects(stream) || file.inode().file_type() == FileType::Fifo {
            return Err(Error::caller(Errno::ESPIPE));
        }
        let mut position = position.lock(self.platform())?;
        let base = match whence {
            SeekWhence::Set => 0,
            SeekWhence::Current => *position,
            SeekWhence::End => file.metadata()?.size(),
            SeekWhence::Data | SeekWhence::Hole => {
                let offset = u64::try_from(offset).map_err(|_| Error::caller(Errno::ENXIO))?;
                *position = file.seek(offset, whence)?;
                return Ok(*position);
            }
        };
        let target = base
            .checked_add_signed(offset)
            .filter(|&target| target <= SIZE_MAX)
            .ok_or(invalid)?;
        *position = target;
        Ok(target)
    }

    pub(super) fn read_dir(&self, each: impl FnMut(DirEntry<'_>) -> bool) -> Result<bool> {
        match &self.kind {
            Kind::Dir(_, dir) => dir.lock(self.platform())?.read(each),
            _ => Err(Error::caller(Errno::ENOTDIR)),
        }
    }

    pub(super) fn sync(&self, durable: Durable) -> Result<()> {
        match &self.kind {
            Kind::File(file, _) => file.sync(durable),
            Kind::Dir(_, dir) => dir.lock(self.platform())?.sync(),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn metadata(&self) -> Result<Metadata> {
        match &self.kind {
            Kind::File(file, _) => file.metadata(),
            Kind::Dir(inode, _) | Kind::Place(inode) => inode.metadata(),
        }
    }

    pub(super) fn set_metadata(&self, changes: &Changes) -> Result<Metadata> {
        match &self.kind {
            Kind::File(file, _) => file.set_metadata(changes),
            Kind::Dir(inode, _) => inode.set_metadata(changes),
            Kind::Place(_) => Err(Error::caller(Errno::EBADF)),
        }
    }

    pub(super) fn close(&self, owner: LockOwner) -> Result<()> {
        match &self.kind {
            Kind::File(file, _) => file.flush(owner),
            Kind::Dir(..) | Kind::Place(_) => Ok(()),
        }
    }
}
