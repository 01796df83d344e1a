//! What requests and answers are made of.

use std::time::Duration;

use bitflags::bitflags;

/// A Linux error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// An answer or the reason for none.
pub type Answer<T> = Result<T, Errno>;

/// A time stamp: seconds since 1970, which may be negative, and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds on top.
    pub nanos: u32,
}

/// The attributes of an inode (`fuse_attr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// Inode number that programs see; need not be the node id.
    pub ino: u64,
    /// Length in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last modification.
    pub mtime: Time,
    /// Last status change.
    pub ctime: Time,
    /// Type and permissions.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Preferred block size.
    pub blksize: u32,
    /// FUSE_ATTR_* flags.
    pub flags: u32,
}

/// A name that was found or made (`fuse_entry_out`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Node id by which the kernel will call it; 0 for a name that is known not
    /// to exist.
    pub node: u64,
    /// Distinguishes inodes that had the same node id at different times.
    pub generation: u64,
    /// How long the kernel may believe the name.
    pub name_valid: Duration,
    /// How long the kernel may believe the attributes.
    pub attr_valid: Duration,
    /// The attributes.
    pub attr: Attr,
}

/// Attributes for a while (`fuse_attr_out`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// How long the kernel may believe them.
    pub valid: Duration,
    /// The attributes.
    pub attr: Attr,
}

/// An open file or directory (`fuse_open_out`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The handle; any number.
    pub fh: u64,
    /// FOPEN_* flags.
    pub flags: u32,
}

/// The state of the whole file system (`fuse_kstatfs`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statfs {
    /// Blocks in all, in units of `frsize`.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for ordinary users.
    pub bavail: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Preferred block size.
    pub bsize: u32,
    /// Longest name.
    pub namelen: u32,
    /// Size of a block.
    pub frsize: u32,
}

/// A byte-range lock (`fuse_file_lock`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// First byte.
    pub start: u64,
    /// Last byte, included; `i64::MAX` for the end of the file.
    pub end: u64,
    /// F_RDLCK, F_WRLCK or F_UNLCK.
    pub kind: u32,
    /// Process that holds it.
    pub pid: u32,
}

/// Which kind of lock is meant, and whether to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockCall {
    /// Who asks: locks of one owner do not conflict.
    pub owner: u64,
    /// A lock of the whole open file (flock), not a byte range (fcntl).
    pub flock: bool,
    /// Wait until it is free.
    pub wait: bool,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The server's clock at that moment.
    Now,
    /// This one.
    To(Time),
}

/// Attributes to change; `None` leaves one alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last modification.
    pub mtime: Option<SetTime>,
    /// Last status change, from a kernel that keeps it itself.
    pub ctime: Option<Time>,
    /// Handle of the open file through which it is done.
    pub fh: Option<u64>,
    /// Lock owner, where a mandatory lock would matter.
    pub lock_owner: Option<u64>,
    /// Set-user-id, set-group-id and capabilities are to go.
    pub kill_privileges: bool,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number that programs see.
    pub ino: u64,
    /// Where to go on after this name; opaque.
    pub next: u64,
    /// DT_* type.
    pub kind: u32,
    /// The name.
    pub name: &'a [u8],
}

/// Which node of a rename wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rename<'a> {
    /// Directory of the old name.
    pub from: u64,
    /// The old name.
    pub name: &'a [u8],
    /// Directory of the new name.
    pub to: u64,
    /// The new name.
    pub new_name: &'a [u8],
    /// RENAME_* flags.
    pub flags: u32,
}

/// One end of a copy between files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyEnd {
    /// The file.
    pub node: u64,
    /// Its handle.
    pub fh: u64,
    /// First byte.
    pub offset: u64,
}

bitflags! {
    /// Features of the session that a file system may want (FUSE_* in INIT).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Reads of one file at the same time.
        const ASYNC_READ = 1 << 0;
        /// fcntl locks come to the file system.
        const POSIX_LOCKS = 1 << 1;
        /// OPEN carries O_TRUNC.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// `.` and `..` can be looked up.
        const EXPORT_SUPPORT = 1 << 4;
        /// Writes of more than a page.
        const BIG_WRITES = 1 << 5;
        /// The file system applies the umask.
        const DONT_MASK = 1 << 6;
        /// flock locks come to the file system.
        const FLOCK_LOCKS = 1 << 10;
        /// Cached data go when attributes show a change.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS exists.
        const DO_READDIRPLUS = 1 << 13;
        /// READDIRPLUS only where it pays.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O at the same time.
        const ASYNC_DIO = 1 << 15;
        /// Look-ups in one directory at the same time.
        const PARALLEL_DIROPS = 1 << 18;
        /// The file system drops set-id bits on writes.
        const HANDLE_KILLPRIV = 1 << 19;
        /// Access control lists are kept as extended attributes.
        const POSIX_ACL = 1 << 20;
        /// INIT's reply says how many pages a request may have.
        const MAX_PAGES = 1 << 22;
        /// Targets of symbolic links may be cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// The file system drops set-id bits, and is told when.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has flags of its own.
        const SETXATTR_EXT = 1 << 29;
        /// Features from bit 32 on exist.
        const INIT_EXT = 1 << 30;
        /// Creating requests name a supplementary group.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// Direct I/O files can be mapped.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
    }
}

/// What a file system makes of INIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Features that it wants, of those offered.
    pub features: Features,
    /// Largest WRITE in bytes; at most 1 MiB.
    pub max_write: u32,
    /// Granularity of time stamps in nanoseconds.
    pub time_granularity: u32,
}
