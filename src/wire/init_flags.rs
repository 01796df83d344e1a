//! The flags of INIT: what a client can do and what a server does.

use core::fmt;

use bitflags::bitflags;

bitflags! {
    /// The `flags` word of INIT with `flags2` above it.
    ///
    /// A flag is active when the client sent it and the server returned it. The
    /// text says what the client promises or gets.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct InitFlags: u64 {
        /// Several READs of one file at once.
        const ASYNC_READ = 1 << 0;
        /// The server keeps fcntl(2) locks.
        const POSIX_LOCKS = 1 << 1;
        /// Historic, without effect.
        const FILE_OPS = 1 << 2;
        /// OPEN and CREATE carry O_TRUNC, no SETATTR follows.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// The server looks up `.` and `..` of old nodes.
        const EXPORT_SUPPORT = 1 << 4;
        /// WRITE of more than 4096 bytes.
        const BIG_WRITES = 1 << 5;
        /// The server applies the umask, the client does not.
        const DONT_MASK = 1 << 6;
        /// For /dev/fuse only.
        const SPLICE_WRITE = 1 << 7;
        /// For /dev/fuse only.
        const SPLICE_MOVE = 1 << 8;
        /// For /dev/fuse only.
        const SPLICE_READ = 1 << 9;
        /// The server keeps flock(2) locks.
        const FLOCK_LOCKS = 1 << 10;
        /// IOCTL on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// The client drops cached data when size or mtime change.
        const AUTO_INVAL_DATA = 1 << 12;
        /// The client understands READDIRPLUS and counts its lookups.
        const DO_READDIRPLUS = 1 << 13;
        /// The client chooses between READDIR and READDIRPLUS.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Several direct READs and WRITEs at once.
        const ASYNC_DIO = 1 << 15;
        /// The client owns size and times of regular files.
        const WRITEBACK_CACHE = 1 << 16;
        /// ENOSYS to OPEN means that no file needs opening.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// LOOKUP and READDIR of one directory in parallel.
        const PARALLEL_DIROPS = 1 << 18;
        /// The server clears set-id bits on write, chown and truncate.
        const HANDLE_KILLPRIV = 1 << 19;
        /// The client checks ACLs, which travel as extended attributes.
        const POSIX_ACL = 1 << 20;
        /// For /dev/fuse only.
        const ABORT_ERROR = 1 << 21;
        /// `max_pages` in the reply counts.
        const MAX_PAGES = 1 << 22;
        /// The client may cache targets of symbolic links.
        const CACHE_SYMLINKS = 1 << 23;
        /// ENOSYS to OPENDIR means that no directory needs opening.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// The client drops cached data only when told.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// `map_alignment` in the reply counts.
        const MAP_ALIGNMENT = 1 << 26;
        /// The client understands [`AttrFlags::SUBMOUNT`](super::AttrFlags::SUBMOUNT).
        const SUBMOUNTS = 1 << 27;
        /// The server clears set-id bits when a request tells it to.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has 16 bytes of arguments and not 8.
        const SETXATTR_EXT = 1 << 29;
        /// `flags2` counts.
        const INIT_EXT = 1 << 30;
        /// Must not be sent.
        const INIT_RESERVED = 1 << 31;
        /// A block of security contexts follows the requests that create.
        const SECURITY_CTX = 1 << 32;
        /// The client obeys [`AttrFlags::DAX`](super::AttrFlags::DAX).
        const HAS_INODE_DAX = 1 << 33;
        /// A supplementary group may follow the requests that create.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// INVAL_ENTRY may ask for expiry alone.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// Files with direct I/O may be mapped shared.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// For /dev/fuse only.
        const PASSTHROUGH = 1 << 37;
        /// The server does not want to be exported.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// The client can send requests again after a restart of the server.
        const HAS_RESEND = 1 << 39;
        /// The client maps ids; only requests that create carry them.
        const ALLOW_IDMAP = 1 << 40;
        /// For /dev/fuse only.
        const OVER_IO_URING = 1 << 41;
        /// `request_timeout` in the reply counts.
        const REQUEST_TIMEOUT = 1 << 42;
    }
}

impl fmt::Debug for InitFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}

impl fmt::Display for InitFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bitflags::parser::to_writer(self, f)
    }
}

impl InitFlags {
    /// Joins the two words of the wire.
    pub const fn from_wire(flags: u32, flags2: u32) -> Self {
        Self::from_bits_retain(flags as u64 | (flags2 as u64) << 32)
    }

    /// Returns the two words of the wire, `flags` and `flags2`.
    pub const fn to_wire(self) -> (u32, u32) {
        (self.bits() as u32, (self.bits() >> 32) as u32)
    }
}
