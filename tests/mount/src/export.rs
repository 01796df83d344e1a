//! The virtio-fs driver behind `/dev/fuse`: every request of the kernel becomes
//! a call of the driver's inode-level face.
//!
//! Linux in front keeps its own dentry and page cache and, with
//! `default_permissions`, checks permissions itself. Lifetimes of 0
//! ([`Settings::lifetime`]) make it ask each time, so that what it sees is the
//! driver's answer, from the driver's caches.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use virtio_fs::conn::Connection;
use virtio_fs::fs::{
    Access, Dir, DirEntry as DriverEntry, Durable, File, Inode, LockWait, Metadata, Mount,
};
use virtio_fs::platform::{Caller, Capabilities};
use virtio_fs::wire::{
    DirCookie, FallocateMode, FopenFlags, InitFlags, LockOwner, Mode, OpenFlags, Rdev, RenameFlags,
    SeekWhence, XattrFlags,
};
use virtio_fs_host::HostPlatform;
use virtio_fs_host::platform::set_caller;

use crate::caller::{self, SetIds};
use crate::convert::{self, whole};
use crate::handles::Handles;
use crate::listing::record;
use crate::nodes::Nodes;
use crate::operations::{Context, Create, DirSink, Io, Operations};
use crate::value;
use crate::value::{
    Answer, Attributes, CopyEnd, Entry, Errno, Features, Lock, LockCall, Opened, Rename, SetAttr,
    Statfs,
};

type Node = Arc<Inode<HostPlatform>>;
type OpenFile = Arc<File<HostPlatform>>;

/// How the driver shows to the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long the kernel may believe names and attributes.
    pub lifetime: Duration,
    /// The driver checks permissions as well, so it must know the callers'
    /// groups and capabilities, which cost a look into `/proc` each time.
    pub check_permissions: bool,
}

/// A mount of the driver's, for [`serve`](crate::serve()).
pub struct Export {
    mount: Mount<HostPlatform>,
    settings: Settings,
    nodes: Nodes,
    files: Handles<File<HostPlatform>>,
    dirs: Handles<Mutex<Dir<HostPlatform>>>,
}

impl Export {
    /// Makes `mount` ready to be served.
    pub fn new(mount: Mount<HostPlatform>, settings: Settings) -> Self {
        Self {
            nodes: Nodes::new(mount.root().clone()),
            mount,
            settings,
            files: Handles::new(),
            dirs: Handles::new(),
        }
    }

    /// Returns the mount, when it is not served any more.
    pub fn into_mount(self) -> Mount<HostPlatform> {
        self.mount
    }

    fn conn(&self) -> &Connection<HostPlatform> {
        self.mount.connection()
    }

    /// Makes what this thread does next count as `context`'s doing.
    fn act_as(&self, context: &Context, umask: u32, set_ids: SetIds) {
        let mut caller = Caller {
            uid: context.uid,
            gid: context.gid,
            pid: context.pid,
            umask,
            capabilities: match context.uid {
                0 => Capabilities::all(),
                _ => Capabilities::empty(),
            },
        };
        let mut groups: HashSet<u32> = context.group.into_iter().collect();
        if self.settings.check_permissions
            && let Some(known) = caller::look_up(context.pid)
        {
            caller.capabilities = known.capabilities;
            groups.extend(known.groups);
        }
        caller
            .capabilities
            .set(Capabilities::FSETID, set_ids == SetIds::Keep);
        set_caller(caller, &groups.into_iter().collect::<Vec<_>>());
    }

    /// As [`act_as`](Self::act_as), for requests that make nothing.
    fn caller(&self, context: &Context) {
        if self.settings.check_permissions {
            self.act_as(context, 0, SetIds::of(context));
        }
    }

    fn attributes(&self, metadata: &Metadata) -> Attributes {
        Attributes {
            valid: self.settings.lifetime,
            attr: convert::attr(metadata),
        }
    }

    /// The answer that hands `inode` to the kernel.
    fn entry(&self, inode: Node) -> Answer<Entry> {
        let metadata = inode.metadata()?;
        Ok(self.hand_out(inode, &metadata))
    }

    fn look_up(&self, parent: &Node, name: &[u8]) -> Answer<Entry> {
        let (inode, metadata) = parent.lookup_with_metadata(name)?;
        Ok(self.hand_out(inode, &metadata))
    }

    fn hand_out(&self, inode: Node, metadata: &Metadata) -> Entry {
        Entry {
            generation: inode.generation().0,
            node: self.nodes.enter(inode),
            name_valid: self.settings.lifetime,
            attr_valid: self.settings.lifetime,
            attr: convert::attr(metadata),
        }
    }

    fn opened(&self, file: OpenFile) -> Opened {
        let kept = FopenFlags::DIRECT_IO
            | FopenFlags::KEEP_CACHE
            | FopenFlags::NONSEEKABLE
            | FopenFlags::STREAM
            | FopenFlags::NOFLUSH
            | FopenFlags::PARALLEL_DIRECT_WRITES;
        let flags = (file.server_flags() & kept).bits();
        Opened {
            fh: self.files.insert(file),
            flags,
        }
    }

    fn made(&self, file: OpenFile) -> Answer<(Entry, Opened)> {
        let entry = self.entry(file.inode().clone())?;
        Ok((entry, self.opened(file)))
    }

    fn list(
        &self,
        fh: u64,
        offset: u64,
        mut each: impl FnMut(&Node, DriverEntry<'_>) -> bool,
    ) -> Answer<()> {
        let dir = self.dirs.get(fh)?;
        let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
        let inode = dir.inode().clone();
        dir.seek(DirCookie(offset));
        dir.read(|entry| each(&inode, entry))?;
        Ok(())
    }
}

impl Operations for Export {
    fn init(&self, offered: Features) -> value::Settings {
        let limits = self.conn().limits();
        let mut features = Features::ASYNC_READ
            | Features::ATOMIC_O_TRUNC
            | Features::AUTO_INVAL_DATA
            | Features::ASYNC_DIO
            | Features::PARALLEL_DIROPS
            | Features::HANDLE_KILLPRIV_V2
            | Features::SETXATTR_EXT
            | Features::CREATE_SUPP_GROUP
            | Features::DIRECT_IO_ALLOW_MMAP
            | Features::POSIX_LOCKS
            | Features::FLOCK_LOCKS;
        for (theirs, ours) in [
            (InitFlags::DO_READDIRPLUS, Features::DO_READDIRPLUS),
            (InitFlags::READDIRPLUS_AUTO, Features::READDIRPLUS_AUTO),
            (InitFlags::DONT_MASK, Features::DONT_MASK),
            (InitFlags::POSIX_ACL, Features::POSIX_ACL),
        ] {
            features.set(ours, limits.has(theirs));
        }
        value::Settings {
            features: features & offered,
            max_write: 1 << 20,
            time_granularity: limits.time_gran,
        }
    }

    fn destroy(&self) {
        self.files.clear();
        self.dirs.clear();
        self.nodes.clear();
    }

    fn lookup(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<Entry> {
        self.caller(context);
        self.look_up(&self.nodes.get(parent)?, name)
    }

    fn forget(&self, node: u64, lookups: u64) {
        self.nodes.forget(node, lookups);
    }

    fn getattr(&self, context: &Context, node: u64, fh: Option<u64>) -> Answer<Attributes> {
        self.caller(context);
        let metadata = match fh.and_then(|fh| self.files.get(fh).ok()) {
            Some(file) => file.metadata()?,
            None => self.nodes.get(node)?.metadata()?,
        };
        Ok(self.attributes(&metadata))
    }

    fn setattr(&self, context: &Context, node: u64, change: &SetAttr) -> Answer<Attributes> {
        self.act_as(context, 0, SetIds::when(change.kill_privileges));
        let changes = convert::changes(change);
        let metadata = match change.fh {
            Some(fh) => self.files.get(fh)?.set_metadata(&changes)?,
            None => self.nodes.get(node)?.set_metadata(&changes)?,
        };
        Ok(self.attributes(&metadata))
    }

    fn access(&self, context: &Context, node: u64, mask: u32) -> Answer<()> {
        self.caller(context);
        let inode = self.nodes.get(node)?;
        Ok(inode.permission(Access::from_bits_truncate(mask))?)
    }

    fn readlink(&self, context: &Context, node: u64) -> Answer<Vec<u8>> {
        self.caller(context);
        Ok(self.nodes.get(node)?.read_link()?.to_vec())
    }

    fn symlink(&self, context: &Context, new: &Create<'_>, target: &[u8]) -> Answer<Entry> {
        self.act_as(context, new.umask, SetIds::of(context));
        let parent = self.nodes.get(new.parent)?;
        self.entry(parent.symlink(new.name, target)?)
    }

    fn mknod(&self, context: &Context, new: &Create<'_>, rdev: u32) -> Answer<Entry> {
        self.act_as(context, new.umask, SetIds::of(context));
        let parent = self.nodes.get(new.parent)?;
        let mode = Mode::from_wire(new.mode).map_err(|_| Errno(libc::EINVAL))?;
        self.entry(parent.mknod(new.name, mode, Rdev(rdev))?)
    }

    fn mkdir(&self, context: &Context, new: &Create<'_>) -> Answer<Entry> {
        self.act_as(context, new.umask, SetIds::of(context));
        let parent = self.nodes.get(new.parent)?;
        self.entry(parent.mkdir(new.name, new.mode)?)
    }

    fn unlink(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<()> {
        self.caller(context);
        Ok(self.nodes.get(parent)?.unlink(name)?)
    }

    fn rmdir(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<()> {
        self.caller(context);
        Ok(self.nodes.get(parent)?.rmdir(name)?)
    }

    fn rename(&self, context: &Context, rename: &Rename<'_>) -> Answer<()> {
        self.caller(context);
        let from = self.nodes.get(rename.from)?;
        let to = self.nodes.get(rename.to)?;
        let flags = RenameFlags::from_bits_retain(rename.flags);
        Ok(from.rename(rename.name, &to, rename.new_name, flags)?)
    }

    fn link(&self, context: &Context, node: u64, parent: u64, name: &[u8]) -> Answer<Entry> {
        self.caller(context);
        let inode = self.nodes.get(node)?;
        self.nodes.get(parent)?.link(name, &inode)?;
        self.entry(inode)
    }

    fn open(&self, context: &Context, node: u64, flags: u32) -> Answer<Opened> {
        self.act_as(context, 0, SetIds::of(context));
        let flags = OpenFlags::from_bits_retain(flags);
        Ok(self.opened(self.nodes.get(node)?.open(flags)?))
    }

    fn create(&self, context: &Context, new: &Create<'_>, flags: u32) -> Answer<(Entry, Opened)> {
        self.act_as(context, new.umask, SetIds::of(context));
        let parent = self.nodes.get(new.parent)?;
        let flags = OpenFlags::from_bits_retain(flags);
        match parent.create(new.name, flags, new.mode) {
            // Somebody was faster, and the caller does not mind.
            Err(error)
                if error.errno() == virtio_fs::Errno::EEXIST
                    && !flags.contains(OpenFlags::EXCL) =>
            {
                let inode = parent.lookup(new.name)?;
                if inode.file_type() != virtio_fs::wire::FileType::Regular {
                    // The kernel looks again, and sees.
                    return Err(Errno(libc::ESTALE));
                }
                self.made(inode.open(flags.difference(OpenFlags::CREAT))?)
            }
            file => self.made(file?),
        }
    }

    fn tmpfile(&self, context: &Context, new: &Create<'_>, flags: u32) -> Answer<(Entry, Opened)> {
        self.act_as(context, new.umask, SetIds::of(context));
        let parent = self.nodes.get(new.parent)?;
        self.made(parent.tmpfile(OpenFlags::from_bits_retain(flags), new.mode)?)
    }

    fn read(&self, context: &Context, io: &Io, buffer: &mut [u8]) -> Answer<usize> {
        self.caller(context);
        Ok(self.files.get(io.fh)?.read_at(io.offset, buffer)?)
    }

    fn write(&self, context: &Context, io: &Io, data: &[u8]) -> Answer<usize> {
        self.act_as(context, 0, SetIds::when(io.kill_privileges));
        let file = self.files.get(io.fh)?;
        Ok(if io.from_cache {
            file.write_back_at(io.offset, data)?
        } else {
            file.write_at(io.offset, data)?
        })
    }

    fn flush(&self, context: &Context, _: u64, fh: u64, lock_owner: u64) -> Answer<()> {
        self.caller(context);
        Ok(self.files.get(fh)?.flush(LockOwner(lock_owner))?)
    }

    fn release(&self, _: u64, opened: Opened, _: Option<u64>) -> Answer<()> {
        self.files.remove(opened.fh).map(drop)
    }

    fn fsync(&self, context: &Context, _: u64, fh: u64, data_only: bool) -> Answer<()> {
        self.caller(context);
        let durable = if data_only {
            Durable::Data
        } else {
            Durable::All
        };
        Ok(self.files.get(fh)?.sync(durable)?)
    }

    fn opendir(&self, context: &Context, node: u64, _: u32) -> Answer<Opened> {
        self.caller(context);
        let dir = self.nodes.get(node)?.open_dir()?;
        Ok(Opened {
            fh: self.dirs.insert(Arc::new(Mutex::new(dir))),
            flags: 0,
        })
    }

    fn readdir(
        &self,
        context: &Context,
        _: u64,
        fh: u64,
        offset: u64,
        sink: &mut dyn DirSink,
    ) -> Answer<()> {
        self.caller(context);
        self.list(fh, offset, |_, entry| sink.add(record(&entry)))
    }

    fn readdirplus(
        &self,
        context: &Context,
        _: u64,
        fh: u64,
        offset: u64,
        sink: &mut dyn DirSink,
    ) -> Answer<()> {
        self.caller(context);
        self.list(fh, offset, |dir, entry| {
            let dots = matches!(entry.name, b"." | b"..");
            // One that is gone by now, or that only listing can reach, is a bare
            // name: node 0.
            let found = (!dots)
                .then(|| self.look_up(dir, entry.name))
                .and_then(Result::ok);
            let nothing = Entry::default();
            let added = sink.add_plus(record(&entry), found.as_ref().unwrap_or(&nothing));
            if let Some(found) = found.filter(|_| !added) {
                self.nodes.forget(found.node, 1);
            }
            added
        })
    }

    fn releasedir(&self, _: u64, opened: Opened) -> Answer<()> {
        self.dirs.remove(opened.fh).map(drop)
    }

    fn fsyncdir(&self, context: &Context, _: u64, fh: u64, _: bool) -> Answer<()> {
        self.caller(context);
        let dir = self.dirs.get(fh)?;
        let mut dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(dir.sync()?)
    }

    fn statfs(&self, context: &Context, node: u64) -> Answer<Statfs> {
        self.caller(context);
        Ok(convert::statfs(&self.nodes.get(node)?.statfs()?))
    }

    fn syncfs(&self, context: &Context, _: u64) -> Answer<()> {
        self.caller(context);
        Ok(self.mount.file_system().sync()?)
    }

    fn setxattr(
        &self,
        context: &Context,
        node: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Answer<()> {
        self.act_as(context, 0, SetIds::when(kill_sgid));
        let inode = self.nodes.get(node)?;
        Ok(inode.set_xattr(name, value, XattrFlags::from_bits_retain(flags))?)
    }

    fn getxattr(&self, context: &Context, node: u64, name: &[u8]) -> Answer<Vec<u8>> {
        self.caller(context);
        let inode = self.nodes.get(node)?;
        whole(|buffer| inode.get_xattr(name, buffer))
    }

    fn listxattr(&self, context: &Context, node: u64) -> Answer<Vec<u8>> {
        self.caller(context);
        let inode = self.nodes.get(node)?;
        whole(|buffer| inode.list_xattr(buffer))
    }

    fn removexattr(&self, context: &Context, node: u64, name: &[u8]) -> Answer<()> {
        self.caller(context);
        Ok(self.nodes.get(node)?.remove_xattr(name)?)
    }

    fn getlk(&self, context: &Context, _: u64, fh: u64, owner: u64, lock: &Lock) -> Answer<Lock> {
        self.caller(context);
        let file = self.files.get(fh)?;
        let held = file.get_lock(LockOwner(owner), convert::lock(lock)?)?;
        Ok(held.map_or(
            Lock {
                kind: libc::F_UNLCK as u32,
                ..*lock
            },
            |held| Lock {
                start: held.start,
                end: held.end,
                kind: held.kind as u32,
                pid: held.pid,
            },
        ))
    }

    fn setlk(&self, context: &Context, _: u64, fh: u64, call: LockCall, lock: &Lock) -> Answer<()> {
        self.caller(context);
        let file = self.files.get(fh)?;
        let lock = convert::lock(lock)?;
        let wait = if call.wait {
            LockWait::Wait
        } else {
            LockWait::Fail
        };
        if call.flock {
            file.flock(lock.kind, wait)?;
        } else {
            file.set_lock(LockOwner(call.owner), lock, wait)?;
        }
        Ok(())
    }

    fn fallocate(
        &self,
        context: &Context,
        _: u64,
        fh: u64,
        offset: u64,
        len: u64,
        mode: u32,
    ) -> Answer<()> {
        self.act_as(context, 0, SetIds::of(context));
        let mode = FallocateMode::from_bits_retain(mode);
        Ok(self.files.get(fh)?.allocate(offset, len, mode)?)
    }

    fn lseek(&self, context: &Context, _: u64, fh: u64, offset: u64, whence: u32) -> Answer<u64> {
        self.caller(context);
        let whence = match whence as i32 {
            libc::SEEK_DATA => SeekWhence::Data,
            libc::SEEK_HOLE => SeekWhence::Hole,
            _ => return Err(Errno(libc::EINVAL)),
        };
        Ok(self.files.get(fh)?.seek(offset, whence)?)
    }

    fn copy_file_range(
        &self,
        context: &Context,
        from: CopyEnd,
        to: CopyEnd,
        len: u64,
    ) -> Answer<u64> {
        self.act_as(context, 0, SetIds::of(context));
        let (source, target) = (self.files.get(from.fh)?, self.files.get(to.fh)?);
        Ok(source.copy_to(from.offset, &target, to.offset, len)?)
    }
}
