//! Numbers of the FUSE protocol as the server side needs them (protocol.md 2).
//!
//! They are written down here a second time on purpose and not taken from the
//! driver's `wire` module: an opcode or an offset that is wrong there must not
//! be wrong here in the same way.

use core::fmt;

/// A FUSE opcode. Prints as its name.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(pub u32);

macro_rules! ops {
    ($($name:ident = $value:literal),* $(,)?) => {
        impl Op {
            $(
                #[doc = concat!("FUSE_", stringify!($name), ".")]
                pub const $name: Self = Self($value);
            )*

            /// Every opcode that the server implements.
            pub const ALL: &'static [Self] = &[$(Self($value)),*];
        }

        impl fmt::Debug for Op {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0 {
                    $($value => f.write_str(stringify!($name)),)*
                    other => write!(f, "opcode {other}"),
                }
            }
        }
    };
}

ops! {
    LOOKUP = 1, FORGET = 2, GETATTR = 3, SETATTR = 4, READLINK = 5, SYMLINK = 6, MKNOD = 8,
    MKDIR = 9, UNLINK = 10, RMDIR = 11, RENAME = 12, LINK = 13, OPEN = 14, READ = 15, WRITE = 16,
    STATFS = 17, RELEASE = 18, FSYNC = 20, SETXATTR = 21, GETXATTR = 22, LISTXATTR = 23,
    REMOVEXATTR = 24, FLUSH = 25, INIT = 26, OPENDIR = 27, READDIR = 28, RELEASEDIR = 29,
    FSYNCDIR = 30, GETLK = 31, SETLK = 32, SETLKW = 33, ACCESS = 34, CREATE = 35, INTERRUPT = 36,
    BMAP = 37, DESTROY = 38, IOCTL = 39, POLL = 40, NOTIFY_REPLY = 41, BATCH_FORGET = 42,
    FALLOCATE = 43, READDIRPLUS = 44, RENAME2 = 45, LSEEK = 46, COPY_FILE_RANGE = 47,
    SETUPMAPPING = 48, REMOVEMAPPING = 49, SYNCFS = 50, TMPFILE = 51, STATX = 52,
    COPY_FILE_RANGE_64 = 53,
}

impl Op {
    /// Returns the first minor version that knows this opcode, 0 if it is older
    /// than all that matter here.
    pub(crate) fn since(self) -> u32 {
        match self {
            Self::RENAME2 => 23,
            Self::LSEEK => 24,
            Self::COPY_FILE_RANGE => 28,
            Self::SETUPMAPPING | Self::REMOVEMAPPING => 31,
            Self::SYNCFS => 34,
            Self::TMPFILE => 37,
            Self::STATX => 39,
            Self::COPY_FILE_RANGE_64 => 45,
            _ => 0,
        }
    }

    /// Says whether requests of this kind belong on the high priority queue.
    pub(crate) fn is_hiprio(self) -> bool {
        matches!(self, Self::FORGET | Self::BATCH_FORGET | Self::INTERRUPT)
    }
}

macro_rules! flags {
    ($(#[$doc:meta])* $module:ident: $type:ty { $($name:ident = $value:expr),* $(,)? }) => {
        $(#[$doc])*
        pub mod $module {
            $(
                #[doc = concat!("`", stringify!($name), "` of ", stringify!($module), ".")]
                pub const $name: $type = $value;
            )*
        }
    };
}

flags! {
    /// INIT flags, `flags2` in the upper half (protocol.md 3.2).
    init: u64 {
        ASYNC_READ = 1 << 0, POSIX_LOCKS = 1 << 1, FILE_OPS = 1 << 2, ATOMIC_O_TRUNC = 1 << 3,
        EXPORT_SUPPORT = 1 << 4, BIG_WRITES = 1 << 5, DONT_MASK = 1 << 6, FLOCK_LOCKS = 1 << 10,
        HAS_IOCTL_DIR = 1 << 11, AUTO_INVAL_DATA = 1 << 12, DO_READDIRPLUS = 1 << 13,
        READDIRPLUS_AUTO = 1 << 14, ASYNC_DIO = 1 << 15, WRITEBACK_CACHE = 1 << 16,
        NO_OPEN_SUPPORT = 1 << 17, PARALLEL_DIROPS = 1 << 18, HANDLE_KILLPRIV = 1 << 19,
        POSIX_ACL = 1 << 20, ABORT_ERROR = 1 << 21, MAX_PAGES = 1 << 22, CACHE_SYMLINKS = 1 << 23,
        NO_OPENDIR_SUPPORT = 1 << 24, EXPLICIT_INVAL_DATA = 1 << 25, MAP_ALIGNMENT = 1 << 26,
        SUBMOUNTS = 1 << 27, HANDLE_KILLPRIV_V2 = 1 << 28, SETXATTR_EXT = 1 << 29,
        INIT_EXT = 1 << 30, SECURITY_CTX = 1 << 32, HAS_INODE_DAX = 1 << 33,
        CREATE_SUPP_GROUP = 1 << 34, HAS_EXPIRE_ONLY = 1 << 35, DIRECT_IO_ALLOW_MMAP = 1 << 36,
        NO_EXPORT_SUPPORT = 1 << 38, HAS_RESEND = 1 << 39, ALLOW_IDMAP = 1 << 40,
        REQUEST_TIMEOUT = 1 << 42,
    }
}

flags! {
    /// `open_out.open_flags`.
    fopen: u32 {
        DIRECT_IO = 1 << 0, KEEP_CACHE = 1 << 1, NONSEEKABLE = 1 << 2, CACHE_DIR = 1 << 3,
        STREAM = 1 << 4, NOFLUSH = 1 << 5, PARALLEL_DIRECT_WRITES = 1 << 6,
    }
}

flags! {
    /// `setattr_in.valid`.
    fattr: u32 {
        MODE = 1 << 0, UID = 1 << 1, GID = 1 << 2, SIZE = 1 << 3, ATIME = 1 << 4, MTIME = 1 << 5,
        FH = 1 << 6, ATIME_NOW = 1 << 7, MTIME_NOW = 1 << 8, LOCKOWNER = 1 << 9, CTIME = 1 << 10,
        KILL_SUIDGID = 1 << 11,
    }
}

flags! {
    /// Virtio feature bits.
    feature: u64 {
        NOTIFICATION = 1 << 0, INDIRECT_DESC = 1 << 28, EVENT_IDX = 1 << 29, VERSION_1 = 1 << 32,
        RING_PACKED = 1 << 34, RING_RESET = 1 << 40,
    }
}

/// Node id of the root directory.
pub const ROOT_ID: u64 = 1;
/// Bytes of `fuse_in_header`.
pub(crate) const IN_HEADER: usize = 40;
/// Bytes of `fuse_out_header`.
pub(crate) const OUT_HEADER: usize = 16;
/// Bytes of `fuse_entry_out`.
pub(crate) const ENTRY_OUT: usize = 128;
/// `attr.flags`: root of another file system.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;
/// `attr.flags`: use the DAX window.
pub const ATTR_DAX: u32 = 1 << 1;

/// A Linux error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

/// Returns `code` as an error, so that a check reads as one line.
pub(crate) fn fail<T>(code: i32) -> Result<T, Errno> {
    Err(Errno(code))
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::io::Error::from_raw_os_error(self.0).fmt(f)
    }
}

impl std::error::Error for Errno {}
