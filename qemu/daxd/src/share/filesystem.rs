//! The `FileSystem` of fuse-backend-rs, for [`Share`]: almost everything goes on to
//! its passthrough.
//!
//! O_DIRECT is dropped everywhere, as virtiofsd does by default: the guest's buffers
//! need not suit the host's disk, and data in the window is in the host's page
//! cache anyway.

use std::collections::hash_map::Entry as Slot;
use std::ffi::CStr;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fuse_backend_rs::abi::fuse_abi::{CreateIn, OpenOptions, SetattrValid, stat64, statvfs64};
use fuse_backend_rs::api::filesystem::{
    Context, DirEntry, Entry, FileSystem, GetxattrReply, ListxattrReply, ZeroCopyReader,
    ZeroCopyWriter,
};

use super::directory::{OpenDirectory, Taken};
use super::{Share, errno};
use crate::options::{Cache, Writes};
use crate::window::Access;

type Opened = (Option<u64>, OpenOptions, Option<u32>);
type Attributes = (stat64, Duration);

/// Takes off what a handle cannot have here: O_DIRECT, for guest memory need not
/// be aligned, and O_PATH, for READ and WRITE could not set the flags of such a
/// descriptor (see [`settable`]). No client sends O_PATH.
fn openable(flags: u32) -> u32 {
    flags & !((libc::O_DIRECT | libc::O_PATH) as u32)
}

/// Keeps of the flags that come with READ and WRITE those that `F_SETFL` takes on
/// any file.
///
/// The crate sets its descriptor to whatever flags differ from those before, and
/// where that fails it closes the descriptor, which its handle still owns: the
/// number is then closed once more, when somebody else may have it.
fn settable(flags: u32) -> u32 {
    flags & (libc::O_ACCMODE | libc::O_APPEND | libc::O_NONBLOCK) as u32
}

impl Share {
    fn directory(&self, node: u64, handle: u64) -> io::Result<Arc<OpenDirectory>> {
        let directories = self
            .directories
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        directories
            .get(&handle)
            .filter(|d| d.node == node)
            .cloned()
            .ok_or(errno(libc::EBADF))
    }

    /// A directory's handle is ours, the passthrough does not know it.
    fn file_handle(&self, node: u64, handle: Option<u64>) -> Option<u64> {
        handle.filter(|&handle| self.directory(node, handle).is_err())
    }

    fn changes_on_open(flags: u32) -> bool {
        flags as i32 & libc::O_ACCMODE != libc::O_RDONLY || flags as i32 & libc::O_TRUNC != 0
    }
}

impl FileSystem for Share {
    type Inode = u64;
    type Handle = u64;

    fn lookup(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<Entry> {
        Ok(self.decorate(parent, self.inner.lookup(ctx, parent, name)?))
    }

    fn forget(&self, ctx: &Context, node: u64, count: u64) {
        self.inner.forget(ctx, node, count);
    }

    fn batch_forget(&self, ctx: &Context, requests: Vec<(u64, u64)>) {
        self.inner.batch_forget(ctx, requests);
    }

    fn getattr(&self, ctx: &Context, node: u64, handle: Option<u64>) -> io::Result<Attributes> {
        self.inner
            .getattr(ctx, node, self.file_handle(node, handle))
    }

    fn setattr(
        &self,
        ctx: &Context,
        node: u64,
        attr: stat64,
        handle: Option<u64>,
        valid: SetattrValid,
    ) -> io::Result<Attributes> {
        self.writable()?;
        self.inner
            .setattr(ctx, node, attr, self.file_handle(node, handle), valid)
    }

    fn readlink(&self, ctx: &Context, node: u64) -> io::Result<Vec<u8>> {
        self.inner.readlink(ctx, node)
    }

    fn symlink(&self, ctx: &Context, target: &CStr, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.writable()?;
        self.inner.symlink(ctx, target, parent, name)
    }

    fn mknod(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        rdev: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.writable()?;
        Ok(self.decorate(
            parent,
            self.inner.mknod(ctx, parent, name, mode, rdev, umask)?,
        ))
    }

    fn mkdir(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        mode: u32,
        umask: u32,
    ) -> io::Result<Entry> {
        self.writable()?;
        self.inner.mkdir(ctx, parent, name, mode, umask)
    }

    fn unlink(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        self.inner.unlink(ctx, parent, name)
    }

    fn rmdir(&self, ctx: &Context, parent: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        self.inner.rmdir(ctx, parent, name)
    }

    fn rename(
        &self,
        ctx: &Context,
        from: u64,
        old: &CStr,
        to: u64,
        new: &CStr,
        flags: u32,
    ) -> io::Result<()> {
        self.writable()?;
        self.inner.rename(ctx, from, old, to, new, flags)
    }

    fn link(&self, ctx: &Context, node: u64, parent: u64, name: &CStr) -> io::Result<Entry> {
        self.writable()?;
        Ok(self.decorate(parent, self.inner.link(ctx, node, parent, name)?))
    }

    fn open(&self, ctx: &Context, node: u64, flags: u32, fuse_flags: u32) -> io::Result<Opened> {
        if Self::changes_on_open(flags) {
            self.writable()?;
        }
        self.inner.open(ctx, node, openable(flags), fuse_flags)
    }

    fn create(
        &self,
        ctx: &Context,
        parent: u64,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<(Entry, Option<u64>, OpenOptions, Option<u32>)> {
        let args = CreateIn {
            flags: openable(args.flags),
            ..args
        };
        if self.writes == Writes::Allowed {
            let (entry, handle, options, backing) = self.inner.create(ctx, parent, name, args)?;
            return Ok((self.decorate(parent, entry), handle, options, backing));
        }
        // O_CREAT of a file that is there only opens it.
        let entry = self
            .lookup(ctx, parent, name)
            .map_err(|e| match e.raw_os_error() {
                Some(libc::ENOENT) => errno(libc::EROFS),
                _ => e,
            })?;
        let opened = if args.flags as i32 & libc::O_EXCL != 0 {
            Err(errno(libc::EEXIST))
        } else {
            let creating = (libc::O_CREAT | libc::O_EXCL) as u32;
            self.open(ctx, entry.inode, args.flags & !creating, args.fuse_flags)
        };
        match opened {
            Ok((handle, options, backing)) => Ok((entry, handle, options, backing)),
            Err(e) => {
                self.inner.forget(ctx, entry.inode, 1);
                Err(e)
            }
        }
    }

    fn read(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        writer: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.inner.read(
            ctx,
            node,
            handle,
            writer,
            size,
            offset,
            lock_owner,
            settable(flags),
        )
    }

    fn write(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        reader: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        self.writable()?;
        let flags = settable(flags);
        self.inner.write(
            ctx, node, handle, reader, size, offset, lock_owner, delayed, flags, fuse_flags,
        )
    }

    fn flush(&self, ctx: &Context, node: u64, handle: u64, lock_owner: u64) -> io::Result<()> {
        self.inner.flush(ctx, node, handle, lock_owner)
    }

    fn fsync(&self, ctx: &Context, node: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.inner.fsync(ctx, node, data_only, handle)
    }

    fn fallocate(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        mode: u32,
        offset: u64,
        length: u64,
    ) -> io::Result<()> {
        self.writable()?;
        self.inner
            .fallocate(ctx, node, handle, mode, offset, length)
    }

    fn release(
        &self,
        ctx: &Context,
        node: u64,
        flags: u32,
        handle: u64,
        flush: bool,
        flock_release: bool,
        lock_owner: Option<u64>,
    ) -> io::Result<()> {
        self.inner
            .release(ctx, node, flags, handle, flush, flock_release, lock_owner)
    }

    fn statfs(&self, ctx: &Context, node: u64) -> io::Result<statvfs64> {
        self.inner.statfs(ctx, node)
    }

    fn setxattr(
        &self,
        ctx: &Context,
        node: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> io::Result<()> {
        self.writable()?;
        self.inner.setxattr(ctx, node, name, value, flags)
    }

    fn getxattr(
        &self,
        ctx: &Context,
        node: u64,
        name: &CStr,
        size: u32,
    ) -> io::Result<GetxattrReply> {
        self.inner.getxattr(ctx, node, name, size)
    }

    fn listxattr(&self, ctx: &Context, node: u64, size: u32) -> io::Result<ListxattrReply> {
        self.inner.listxattr(ctx, node, size)
    }

    fn removexattr(&self, ctx: &Context, node: u64, name: &CStr) -> io::Result<()> {
        self.writable()?;
        self.inner.removexattr(ctx, node, name)
    }

    fn opendir(&self, _: &Context, node: u64, _: u32) -> io::Result<(Option<u64>, OpenOptions)> {
        let file = self.reopen(node, Access::Read)?;
        if !file.metadata()?.is_dir() {
            return Err(errno(libc::ENOTDIR));
        }
        let handle = self.next_directory.fetch_add(1, Ordering::Relaxed);
        let mut directories = self
            .directories
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        directories.insert(handle, Arc::new(OpenDirectory::new(node, file)));
        let options = match self.cache {
            Cache::Always => OpenOptions::KEEP_CACHE | OpenOptions::CACHE_DIR,
            Cache::Auto | Cache::Never => OpenOptions::empty(),
        };
        Ok((Some(handle), options))
    }

    fn readdir(
        &self,
        _: &Context,
        node: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>,
    ) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        self.directory(node, handle)?.read(offset, &mut |record| {
            let entry = DirEntry {
                ino: record.ino,
                offset: record.next,
                type_: record.kind.into(),
                name: record.name.to_bytes(),
            };
            add(entry).map(|n| if n == 0 { Taken::Full } else { Taken::Yes })
        })
    }

    fn readdirplus(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        size: u32,
        offset: u64,
        add: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>,
    ) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        self.directory(node, handle)?.read(offset, &mut |record| {
            let entry = if record.name == c"." || record.name == c".." {
                Entry::default()
            } else {
                match self.lookup(ctx, node, record.name) {
                    Ok(entry) => entry,
                    // It vanished meanwhile.
                    Err(e) if e.raw_os_error() == Some(libc::ENOENT) => return Ok(Taken::Skipped),
                    // The name is told, what is behind it must be asked for.
                    Err(_) => Entry::default(),
                }
            };
            let directory_entry = DirEntry {
                ino: record.ino,
                offset: record.next,
                type_: record.kind.into(),
                name: record.name.to_bytes(),
            };
            let added = add(directory_entry, entry);
            if entry.inode != 0 && !matches!(added, Ok(1..)) {
                self.inner.forget(ctx, entry.inode, 1);
            }
            added.map(|n| if n == 0 { Taken::Full } else { Taken::Yes })
        })
    }

    fn fsyncdir(&self, _: &Context, node: u64, data_only: bool, handle: u64) -> io::Result<()> {
        self.directory(node, handle)?.sync(data_only)
    }

    fn releasedir(&self, _: &Context, node: u64, _: u32, handle: u64) -> io::Result<()> {
        let mut directories = self
            .directories
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match directories.entry(handle) {
            Slot::Occupied(there) if there.get().node == node => {
                there.remove();
                Ok(())
            }
            _ => Err(errno(libc::EBADF)),
        }
    }

    fn access(&self, ctx: &Context, node: u64, mask: u32) -> io::Result<()> {
        if mask as i32 & libc::W_OK != 0 {
            self.writable()?;
        }
        self.inner.access(ctx, node, mask)
    }

    fn lseek(
        &self,
        ctx: &Context,
        node: u64,
        handle: u64,
        offset: u64,
        whence: u32,
    ) -> io::Result<u64> {
        self.inner.lseek(ctx, node, handle, offset, whence)
    }
}
