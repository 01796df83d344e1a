//! The shared directory: fuse-backend-rs' passthrough, with what it lacks.
//!
//! [`Share`] implements the crate's `FileSystem` by handing on to its
//! `PassthroughFs`, and adds: read-only shares, the SUBMOUNT and DAX attributes,
//! directories with `.` and `..` that survive names vanishing while they are read
//! (`directory`), SYNCFS and COPY_FILE_RANGE, and mappings.
//!
//! Where another file system begins is told from the device number; a bind mount
//! of the same file system is not noticed.

mod directory;
mod filesystem;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{ATTR_SUBMOUNT, FUSE_ATTR_DAX};
use fuse_backend_rs::abi::virtio_fs::{RemovemappingOne, SetupmappingFlags};
use fuse_backend_rs::api::filesystem::{Context, Entry, FileSystem};
use fuse_backend_rs::passthrough::{CachePolicy, Config, PassthroughFs};
use fuse_backend_rs::transport::FsCacheReqHandler;

use crate::limits::flag;
use crate::options::{Cache, Dax, Options, Submounts, Writes, Xattr};
use crate::window::{Access, Piece, Window};
use directory::OpenDirectory;

const DAY: Duration = Duration::from_secs(86400);

/// The directory that is shared in one connection.
pub struct Share {
    inner: PassthroughFs,
    writes: Writes,
    dax: Dax,
    cache: Cache,
    submounts: Submounts,
    /// Flags of INIT that both sides have.
    agreed: AtomicU64,
    directories: RwLock<HashMap<u64, Arc<OpenDirectory>>>,
    next_directory: AtomicU64,
}

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Share {
    /// Opens the directory that `options` name.
    ///
    /// # Errors
    /// The directory cannot be opened, or is not one.
    pub fn open(options: &Options) -> io::Result<Self> {
        let root = Path::new(&options.shared_dir).canonicalize()?;
        let root_dir = root
            .into_os_string()
            .into_string()
            .map_err(|_| errno(libc::EILSEQ))?;
        let (cache_policy, timeout) = match options.cache {
            Cache::Auto => (CachePolicy::Auto, Duration::from_secs(1)),
            Cache::Always => (CachePolicy::Always, DAY),
            Cache::Never => (CachePolicy::Never, Duration::ZERO),
        };
        let inner = PassthroughFs::new(Config {
            root_dir,
            cache_policy,
            attr_timeout: timeout,
            entry_timeout: timeout,
            xattr: options.xattr == Xattr::Passed,
            do_import: true,
            ..Config::default()
        })?;
        inner.import()?;
        Ok(Self {
            inner,
            writes: options.writes,
            dax: options.dax,
            cache: options.cache,
            submounts: options.submounts,
            agreed: AtomicU64::new(0),
            directories: RwLock::default(),
            next_directory: AtomicU64::new(1),
        })
    }

    /// Begins a session with these flags: no node and no handle of an earlier one
    /// is left.
    pub fn begin(&self, agreed: u64) {
        self.end();
        self.agreed.store(agreed, Ordering::Relaxed);
    }

    /// Drops all nodes and handles.
    pub fn end(&self) {
        self.directories
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.inner.destroy();
    }

    /// Opens a regular file or a directory anew.
    fn reopen(&self, node: u64, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => SetupmappingFlags::READ,
            Access::ReadWrite => SetupmappingFlags::WRITE,
        };
        let mut lent = Lent(None);
        self.inner.setupmapping(
            &Context::default(),
            node,
            0,
            0,
            0,
            flags.bits(),
            0,
            &mut lent,
        )?;
        lent.0.ok_or(errno(libc::EBADF))
    }

    /// Maps a piece of a file.
    ///
    /// QEMU 11.1 maps read-write whatever it is asked, so the file is opened for
    /// both if that is possible, and the guest told otherwise if it asked to write.
    ///
    /// # Errors
    /// As [`Window::map`]; `EROFS` for writing to a read-only share, `EBADF` for an
    /// unknown node, and what opening the file says.
    pub fn map(&self, window: &Window, node: u64, piece: Piece, wanted: Access) -> io::Result<()> {
        if self.writes == Writes::Refused {
            if wanted == Access::ReadWrite {
                return Err(errno(libc::EROFS));
            }
            return window.map(piece, &self.reopen(node, Access::Read)?, Access::Read);
        }
        match self.reopen(node, Access::ReadWrite) {
            Ok(file) => window.map(piece, &file, Access::ReadWrite),
            Err(e) if wanted == Access::ReadWrite => Err(e),
            Err(_) => window.map(piece, &self.reopen(node, Access::Read)?, Access::Read),
        }
    }

    /// Writes back the whole file system that `node` is on.
    ///
    /// # Errors
    /// What syncfs(2) says, `EBADF` for an unknown node.
    pub fn sync_file_system(&self, node: u64) -> io::Result<()> {
        let file = self.reopen(node, Access::Read)?;
        // SAFETY: the descriptor is that of `file`, which lives until the end of
        // this function; syncfs touches no memory of ours.
        match unsafe { libc::syncfs(file.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Copies inside the host, at most `len` bytes; returns how many.
    ///
    /// # Errors
    /// `EROFS` for a read-only share, `EBADF` for a handle that is not one of its
    /// node, and what copy_file_range(2) says.
    pub fn copy(&self, from: Place, to: Place, len: u64, flags: u64) -> io::Result<u64> {
        /// Linux copies no more at once, so no reply overflows 32 bits.
        const MOST: u64 = 0x7fff_f000;
        if self.writes == Writes::Refused {
            return Err(errno(libc::EROFS));
        }
        for place in [from, to] {
            self.inner
                .getattr(&Context::default(), place.node, Some(place.handle))?;
        }
        let source = self.reopen(from.node, Access::Read)?;
        let target = self.reopen(to.node, Access::ReadWrite)?;
        let offset = |n: u64| i64::try_from(n).map_err(|_| errno(libc::EINVAL));
        let (mut at, mut to_at) = (offset(from.offset)?, offset(to.offset)?);
        let flags = u32::try_from(flags).map_err(|_| errno(libc::EINVAL))?;
        // SAFETY: both descriptors are those of files that live until the end of
        // this function, both offsets are locals of the type that the call wants.
        let n = unsafe {
            libc::copy_file_range(
                source.as_raw_fd(),
                &mut at,
                target.as_raw_fd(),
                &mut to_at,
                len.min(MOST) as usize,
                flags,
            )
        };
        u64::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// Adds the attributes that were agreed on to the entry of a name in `parent`.
    fn decorate(&self, parent: u64, mut entry: Entry) -> Entry {
        let agreed = self.agreed.load(Ordering::Relaxed);
        let least = match self.dax {
            Dax::Never => None,
            Dax::Always => Some(0),
            Dax::AtLeast(n) => Some(n),
        };
        match entry.attr.st_mode & libc::S_IFMT {
            libc::S_IFREG
                if agreed & flag::HAS_INODE_DAX != 0
                    && least.is_some_and(|least| entry.attr.st_size as u64 >= least) =>
            {
                entry.attr_flags |= FUSE_ATTR_DAX;
            }
            libc::S_IFDIR
                if agreed & flag::SUBMOUNTS != 0 && self.submounts == Submounts::Announced =>
            {
                let parent = self.inner.getattr(&Context::default(), parent, None);
                if parent.is_ok_and(|(parent, _)| parent.st_dev != entry.attr.st_dev) {
                    entry.attr_flags |= ATTR_SUBMOUNT;
                }
            }
            _ => {}
        }
        entry
    }

    fn writable(&self) -> io::Result<()> {
        match self.writes {
            Writes::Allowed => Ok(()),
            Writes::Refused => Err(errno(libc::EROFS)),
        }
    }
}

/// A place in an open file.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its node.
    pub node: u64,
    /// The handle it was opened as.
    pub handle: u64,
    /// In bytes.
    pub offset: u64,
}

/// Receives the descriptor that `PassthroughFs::setupmapping` opens: its only way
/// to hand out a file of a node.
struct Lent(Option<File>);

impl FsCacheReqHandler for Lent {
    fn map(&mut self, _: u64, _: u64, _: u64, _: u64, fd: RawFd) -> io::Result<()> {
        // SAFETY: `PassthroughFs::setupmapping` owns the file until after this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.0 = Some(fd.try_clone_to_owned()?.into());
        Ok(())
    }

    fn unmap(&mut self, _: Vec<RemovemappingOne>) -> io::Result<()> {
        Err(errno(libc::ENOSYS))
    }
}
