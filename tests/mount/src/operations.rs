//! What a file system answers, one method for each request of the kernel.
//!
//! A method may block; others run meanwhile in other threads. Methods without
//! a default are those without which nothing can be mounted. ENOSYS makes the
//! kernel stop asking for most of the others.

use crate::value::{
    Answer, Attributes, CopyEnd, DirEntry, Entry, Errno, Features, Lock, LockCall, Opened, Rename,
    SetAttr, Settings, Statfs,
};

const ENOSYS: Errno = Errno(libc::ENOSYS);

/// On whose behalf a request is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process (thread) id; 0 for the kernel itself.
    pub pid: u32,
    /// The supplementary group that a creating request is to be judged by.
    pub group: Option<u32>,
}

/// What to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Create<'a> {
    /// Directory.
    pub parent: u64,
    /// Name; empty for a file without one.
    pub name: &'a [u8],
    /// Type and permissions.
    pub mode: u32,
    /// Permissions to leave out, if the file system wanted DONT_MASK.
    pub umask: u32,
}

/// The part of a file to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The file.
    pub node: u64,
    /// Its handle.
    pub fh: u64,
    /// First byte.
    pub offset: u64,
    /// Flags of the open file (O_*).
    pub flags: u32,
    /// Lock owner, if one is known.
    pub lock_owner: Option<u64>,
    /// The kernel writes back its cache: the caller is not who wrote.
    pub from_cache: bool,
    /// Set-id bits and capabilities are to go with this write.
    pub kill_privileges: bool,
}

/// Collects names until the kernel's buffer is full.
pub trait DirSink {
    /// Adds a name; false if it did not fit and comes again next time.
    fn add(&mut self, entry: DirEntry<'_>) -> bool;

    /// Adds a name with its inode, for `readdirplus`. A node id other than 0
    /// counts as a look-up of that node, except for `.` and `..`.
    fn add_plus(&mut self, entry: DirEntry<'_>, found: &Entry) -> bool;
}

/// A file system behind `/dev/fuse`.
#[expect(
    unused_variables,
    reason = "the defaults answer ENOSYS whatever they are asked"
)]
pub trait Operations: Send + Sync + 'static {
    /// Begins the session: chooses among the `offered` features.
    fn init(&self, offered: Features) -> Settings;

    /// Ends the session: the last call. The kernel forgets nothing one by one
    /// before.
    fn destroy(&self) {}

    /// Finds a name.
    fn lookup(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<Entry>;

    /// The kernel forgets `lookups` earlier answers with this node.
    fn forget(&self, node: u64, lookups: u64);

    /// Returns the attributes.
    fn getattr(&self, context: &Context, node: u64, fh: Option<u64>) -> Answer<Attributes>;

    /// Changes attributes and returns all of them.
    fn setattr(&self, context: &Context, node: u64, change: &SetAttr) -> Answer<Attributes> {
        Err(ENOSYS)
    }

    /// Says whether the caller may do what `mask` says (R_OK, W_OK, X_OK).
    fn access(&self, context: &Context, node: u64, mask: u32) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Returns the target of a symbolic link.
    fn readlink(&self, context: &Context, node: u64) -> Answer<Vec<u8>> {
        Err(ENOSYS)
    }

    /// Makes a symbolic link.
    fn symlink(&self, context: &Context, new: &Create<'_>, target: &[u8]) -> Answer<Entry> {
        Err(ENOSYS)
    }

    /// Makes a file, device, pipe or socket.
    fn mknod(&self, context: &Context, new: &Create<'_>, rdev: u32) -> Answer<Entry> {
        Err(ENOSYS)
    }

    /// Makes a directory.
    fn mkdir(&self, context: &Context, new: &Create<'_>) -> Answer<Entry> {
        Err(ENOSYS)
    }

    /// Removes a name that is no directory.
    fn unlink(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Removes a directory.
    fn rmdir(&self, context: &Context, parent: u64, name: &[u8]) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Moves a name.
    fn rename(&self, context: &Context, rename: &Rename<'_>) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Gives a node another name.
    fn link(&self, context: &Context, node: u64, parent: u64, name: &[u8]) -> Answer<Entry> {
        Err(ENOSYS)
    }

    /// Opens a file.
    fn open(&self, context: &Context, node: u64, flags: u32) -> Answer<Opened> {
        Err(ENOSYS)
    }

    /// Makes a file and opens it.
    fn create(&self, context: &Context, new: &Create<'_>, flags: u32) -> Answer<(Entry, Opened)> {
        Err(ENOSYS)
    }

    /// Makes a file without a name in `new.parent` and opens it.
    fn tmpfile(&self, context: &Context, new: &Create<'_>, flags: u32) -> Answer<(Entry, Opened)> {
        Err(ENOSYS)
    }

    /// Reads into `buffer` and returns how much; less means end of file.
    fn read(&self, context: &Context, io: &Io, buffer: &mut [u8]) -> Answer<usize> {
        Err(ENOSYS)
    }

    /// Writes and returns how much was written.
    fn write(&self, context: &Context, io: &Io, data: &[u8]) -> Answer<usize> {
        Err(ENOSYS)
    }

    /// One of the descriptors of an open file is closed.
    fn flush(&self, context: &Context, node: u64, fh: u64, lock_owner: u64) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Nobody has the file open any more. `flock_owner` had a lock by flock.
    fn release(&self, node: u64, opened: Opened, flock_owner: Option<u64>) -> Answer<()> {
        Ok(())
    }

    /// Makes a file durable, or only its data.
    fn fsync(&self, context: &Context, node: u64, fh: u64, data_only: bool) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Opens a directory.
    fn opendir(&self, context: &Context, node: u64, flags: u32) -> Answer<Opened> {
        Err(ENOSYS)
    }

    /// Lists names from `offset` on.
    fn readdir(
        &self,
        context: &Context,
        node: u64,
        fh: u64,
        offset: u64,
        sink: &mut dyn DirSink,
    ) -> Answer<()>;

    /// Lists names with their inodes from `offset` on.
    fn readdirplus(
        &self,
        context: &Context,
        node: u64,
        fh: u64,
        offset: u64,
        sink: &mut dyn DirSink,
    ) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Nobody has the directory open any more.
    fn releasedir(&self, node: u64, opened: Opened) -> Answer<()> {
        Ok(())
    }

    /// Makes a directory durable.
    fn fsyncdir(&self, context: &Context, node: u64, fh: u64, data_only: bool) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Returns the state of the whole file system.
    fn statfs(&self, context: &Context, node: u64) -> Answer<Statfs>;

    /// Makes the whole file system durable.
    fn syncfs(&self, context: &Context, node: u64) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Sets an extended attribute. `flags` are XATTR_*; `kill_sgid` is for
    /// access control lists.
    fn setxattr(
        &self,
        context: &Context,
        node: u64,
        name: &[u8],
        value: &[u8],
        flags: u32,
        kill_sgid: bool,
    ) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Returns an extended attribute, whole.
    fn getxattr(&self, context: &Context, node: u64, name: &[u8]) -> Answer<Vec<u8>> {
        Err(ENOSYS)
    }

    /// Returns the names of all extended attributes, each ended by a zero byte.
    fn listxattr(&self, context: &Context, node: u64) -> Answer<Vec<u8>> {
        Err(ENOSYS)
    }

    /// Removes an extended attribute.
    fn removexattr(&self, context: &Context, node: u64, name: &[u8]) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Returns a lock that stands in the way of `lock`, or `lock` itself with
    /// F_UNLCK.
    fn getlk(
        &self,
        context: &Context,
        node: u64,
        fh: u64,
        owner: u64,
        lock: &Lock,
    ) -> Answer<Lock> {
        Err(ENOSYS)
    }

    /// Takes or gives up a lock.
    fn setlk(
        &self,
        context: &Context,
        node: u64,
        fh: u64,
        call: LockCall,
        lock: &Lock,
    ) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Allocates, punches or zeroes (FALLOC_FL_*).
    fn fallocate(
        &self,
        context: &Context,
        node: u64,
        fh: u64,
        offset: u64,
        len: u64,
        mode: u32,
    ) -> Answer<()> {
        Err(ENOSYS)
    }

    /// Finds the next data or hole (SEEK_DATA, SEEK_HOLE).
    fn lseek(
        &self,
        context: &Context,
        node: u64,
        fh: u64,
        offset: u64,
        whence: u32,
    ) -> Answer<u64> {
        Err(ENOSYS)
    }

    /// Copies between files and returns how much.
    fn copy_file_range(
        &self,
        context: &Context,
        from: CopyEnd,
        to: CopyEnd,
        len: u64,
    ) -> Answer<u64> {
        Err(ENOSYS)
    }
}
