//! Open files.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};

use super::attr::Stale;
use super::filesystem::Asked;
use super::handle::{Handle, Opened, shareable};
use super::options::FlushPolicy;
use super::perm::Access;
use super::{Changes, Inode, Metadata};
use crate::cache::ReadAhead;
use crate::conn::Class;
use crate::dax::Stream;
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::sync::{Rank, SpinLock};
use crate::wire::{
    FileHandle, FileType, Flush, FopenFlags, Fsync, FsyncFlags, InitFlags, LockFamily, LockOwner,
    Opcode, Open, OpenFlags, SetIds,
};

/// A file that somebody opened: an open file description, in POSIX words,
/// without a position.
///
/// Descriptors that were duplicated share one through an [`Arc`]. Each close of
/// a descriptor calls [`flush`](Self::flush); the server's handle is released
/// when the last reference goes, without waiting for it.
pub struct File<P: Platform> {
    pub(super) handle: Arc<Handle<P>>,
    pub(super) flags: OpenFlags,
    /// Something was written that no FLUSH has followed.
    pub(super) unflushed: AtomicBool,
    /// Where it was read and written last, to see a sequence.
    pub(super) stream: Stream,
    /// The same for cached pages.
    pub(super) ahead: SpinLock<ReadAhead>,
    /// The last error of writing out that it was told of.
    pub(super) seen_error: AtomicU64,
    /// Owner of its flock, 0 before the first.
    pub(super) flock: AtomicU64,
    /// Its name in notifications, 0 before the first POLL.
    pub(super) poll: AtomicU64,
}

/// How much [`File::sync`] makes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// Data, and what is needed to find them: fdatasync(2).
    Data,
    /// Data and all attributes: fsync(2).
    All,
}

impl<P: Platform> Inode<P> {
    /// Opens the file. Blocks, unless a handle can be shared.
    ///
    /// O_CREAT is not for here: see [`create`](Self::create). O_TRUNC empties the
    /// file.
    ///
    /// # Errors
    ///
    /// EISDIR for a directory (see [`open_dir`](Self::open_dir)), ELOOP for a
    /// symbolic link, ENXIO for a socket, EACCES, EROFS, and the server's.
    pub fn open(self: &Arc<Self>, flags: OpenFlags) -> Result<Arc<File<P>>> {
        self.check()?;
        match self.file_type() {
            FileType::Directory => return Err(Error::caller(Errno::EISDIR)),
            FileType::Symlink => return Err(Error::caller(Errno::ELOOP)),
            FileType::Socket => return Err(Error::caller(Errno::ENXIO)),
            _ => {}
        }
        let mut wanted = Access::empty();
        wanted.set(Access::READ, flags.readable());
        wanted.set(
            Access::WRITE,
            flags.writable() || flags.contains(OpenFlags::TRUNC),
        );
        self.permission(wanted)?;
        self.open_unchecked(flags)
    }

    /// As [`open`](Self::open), after permissions were checked.
    pub(super) fn open_unchecked(self: &Arc<Self>, flags: OpenFlags) -> Result<Arc<File<P>>> {
        // A server may tie a flock to the handle that it was taken through.
        let shares = self.file_type() == FileType::Regular
            && self.fs.options.cache.shares_handles()
            && !self.fs.locks_remotely(LockFamily::Flock);
        if shares
            && shareable(flags)
            && let Some(handle) = self
                .extra
                .read()
                .as_ref()
                .and_then(|extra| extra.handles.get(flags))
        {
            let file = File::new(handle, flags);
            file.open_pages();
            file.open_errors();
            return Ok(file);
        }
        let truncate = flags.contains(OpenFlags::TRUNC);
        let atomic = self.fs.conn.limits().has(InitFlags::ATOMIC_O_TRUNC);
        let mut sent = flags.for_open();
        if truncate && !atomic {
            sent.remove(OpenFlags::TRUNC);
        }
        if truncate {
            self.clear_set_ids()?;
        }
        self.fs.settle_window();
        let fresh = self.may_copy_up();
        let handle = if truncate && atomic {
            let _layout = self.break_layout(0)?;
            let _gate = self.close_gate()?;
            let asked = self.fs.ask_now();
            let handle = self.open_handle(sent)?;
            self.truncated(asked, 0);
            handle
        } else {
            self.open_handle(sent)?
        };
        if truncate && !atomic {
            let changes = Changes {
                size: Some(0),
                ..Changes::default()
            };
            self.set_attr(&changes, Some((handle.fh(), LockOwner(0))))?;
        }
        if fresh && (flags.writable() || truncate) {
            self.opened_for_writing();
        } else if fresh {
            self.opened_for_reading(&handle);
        }
        if shares && shareable(flags) && !handle.fopen.contains(FopenFlags::DIRECT_IO) {
            self.with_extra(|extra| extra.handles.put(&handle));
        }
        let file = File::new(handle, flags);
        file.open_pages();
        file.open_errors();
        Ok(file)
    }

    fn open_handle(self: &Arc<Self>, flags: OpenFlags) -> Result<Arc<Handle<P>>> {
        let fs = &self.fs;
        // A server that takes part in writing back lets pages be read through what was
        // opened for writing only; where the end is, is known here alone.
        let flags = match fs.writes_back() {
            true => flags.difference(OpenFlags::APPEND),
            false => flags,
        };
        let request = Open {
            node: self.node,
            flags,
            set_ids: if flags.contains(OpenFlags::TRUNC) {
                self.set_ids_on_change()
            } else {
                SetIds::Keep
            },
        };
        let opened = if fs.conn.limits().has(InitFlags::NO_OPEN_SUPPORT) {
            fs.lacking.unless(Opcode::Open, || fs.conn.ask(&request))
        } else {
            Some(fs.conn.ask(&request))
        };
        match opened {
            None => {
                let flags_of_none = FopenFlags::KEEP_CACHE;
                Ok(Handle::new(
                    self.clone(),
                    FileHandle(0),
                    flags,
                    flags_of_none,
                    Opened::Nothing,
                ))
            }
            Some(Ok(reply)) => Ok(Handle::new(
                self.clone(),
                reply.fh,
                flags,
                reply.flags,
                Opened::File,
            )),
            Some(Err(error)) => {
                self.note_stale(error);
                Err(error)
            }
        }
    }

    /// Notes that the file was cut or extended to `size`. To be called while nobody
    /// else can change it.
    fn truncated(&self, asked: Asked, size: u64) {
        self.set_unsynced();
        self.resize_pages(self.last_attr().size, size);
        self.attr_became(asked, self.written(), |attr| attr.size = size);
    }
}

impl<P: Platform> File<P> {
    pub(super) fn new(handle: Arc<Handle<P>>, flags: OpenFlags) -> Arc<Self> {
        Arc::new(Self {
            handle,
            flags,
            unflushed: AtomicBool::new(false),
            stream: Stream::default(),
            ahead: SpinLock::new(Rank::Leaf, ReadAhead::default()),
            seen_error: AtomicU64::new(0),
            flock: AtomicU64::new(0),
            poll: AtomicU64::new(0),
        })
    }

    /// Returns the inode.
    pub fn inode(&self) -> &Arc<Inode<P>> {
        &self.handle.inode
    }

    /// Returns the flags it was opened with.
    pub fn flags(&self) -> OpenFlags {
        self.flags
    }

    /// Returns how the server wants it treated.
    pub fn server_flags(&self) -> FopenFlags {
        self.handle.fopen
    }

    /// Returns the attributes; asks through the open file if it must. Blocks then.
    ///
    /// # Errors
    ///
    /// As [`Inode::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        let inode = self.inode();
        inode.check()?;
        inode.sync_pages()?;
        Ok(Metadata {
            device: inode.device(),
            attr: inode.fresh_attr(Stale::all(), self.fh())?,
        })
    }

    /// Returns the size in bytes. Blocks if it must be asked for.
    pub(super) fn size(&self) -> Result<u64> {
        self.inode().check()?;
        Ok(self.inode().fresh_attr(Stale::SIZE, self.fh())?.size)
    }

    /// The handle, where the server has one.
    pub(super) fn fh(&self) -> Option<FileHandle> {
        Some(self.handle.fh())
    }

    /// Refuses positions in a file that has none, by its type or because the
    /// server says so.
    pub(super) fn check_seekable(&self) -> Result<()> {
        let stream = FopenFlags::STREAM | FopenFlags::NONSEEKABLE;
        if self.handle.fopen.intersects(stream) || self.inode().file_type() == FileType::Fifo {
            Err(Error::caller(Errno::ESPIPE))
        } else {
            Ok(())
        }
    }

    /// Changes attributes through the open file: its size may be changed whatever
    /// the permissions have become since. Blocks.
    ///
    /// # Errors
    ///
    /// EINVAL for the size of a file that is not open for writing, and as
    /// [`Inode::set_metadata`].
    pub fn set_metadata(&self, changes: &Changes) -> Result<Metadata> {
        let inode = self.inode();
        if changes.size.is_some() {
            if !self.flags.writable() {
                return Err(Error::caller(Errno::EINVAL));
            }
            return inode.set_attr(changes, Some((self.handle.fh(), LockOwner(0))));
        }
        inode.set_attr(changes, None)
    }

    /// Tells the server that a descriptor of `owner`'s is closed: it reports
    /// errors of earlier writes and drops the owner's POSIX locks. Not a
    /// promise of durability (S2-17). Blocks if it sends.
    ///
    /// # Errors
    ///
    /// The server's, which are those of close(2).
    pub fn flush(&self, owner: LockOwner) -> Result<()> {
        let result = self.send_flush(owner);
        self.inode().unlock_here(LockFamily::Posix, owner);
        result
    }

    fn send_flush(&self, owner: LockOwner) -> Result<()> {
        let written = self.flush_pages();
        let sent = self.send_flush_alone(owner);
        written.and(sent)
    }

    fn send_flush_alone(&self, owner: LockOwner) -> Result<()> {
        let fs = &self.inode().fs;
        // Closing any descriptor of a file drops the locks that any of them took.
        let locked = self.inode().was_locked() && fs.locks_remotely(LockFamily::Posix);
        let useful = self.unflushed.swap(false, Relaxed) | locked;
        if fs.options.flush == FlushPolicy::WhenUseful && !useful {
            return Ok(());
        }
        let silent = self.handle.fopen.contains(FopenFlags::NOFLUSH);
        if silent || fs.lacking.has(Opcode::Flush) {
            return if locked {
                self.unlock_remotely(owner)
            } else {
                Ok(())
            };
        }
        let request = Flush {
            node: self.inode().node,
            fh: self.handle.fh(),
            lock_owner: owner,
        };
        let flush = || fs.conn.call(&request, Data::None, Class::Forced);
        match fs.lacking.unless(Opcode::Flush, flush) {
            Some(result) => result,
            None if locked => self.unlock_remotely(owner),
            None => Ok(()),
        }
    }

    /// Makes what was written durable, stores to mapped pages too. Blocks. Sends
    /// nothing if nothing was changed here since the last time (S1-15).
    ///
    /// # Errors
    ///
    /// The server's; what was acknowledged before may then be lost.
    pub fn sync(&self, durable: Durable) -> Result<()> {
        let inode = self.inode();
        inode.check()?;
        self.flush_pages()?;
        if !inode.begin_sync() {
            return Ok(());
        }
        let flags = match durable {
            Durable::Data => FsyncFlags::FDATASYNC,
            Durable::All => FsyncFlags::empty(),
        };
        let request = Fsync {
            node: inode.node,
            fh: self.handle.fh(),
            flags,
        };
        let result = inode
            .fs
            .lacking
            .unless(Opcode::Fsync, || inode.fs.conn.ask(&request))
            .unwrap_or(Ok(()));
        if result.is_err() || durable == Durable::Data {
            inode.set_unsynced();
        }
        inode.end_sync();
        result
    }
}
