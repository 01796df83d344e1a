//! Flag words that travel as Linux defines them.
//!
//! Servers hand most of them to their host's system calls, so the numbers are
//! those of the host's architecture, which under virtualization is the guest's.
//! Words that come from the server keep bits unknown here.

use bitflags::bitflags;

/// Open flags whose numbers differ between architectures.
#[cfg(any(target_arch = "arm", target_arch = "aarch64"))]
mod o {
    pub(super) const DIRECTORY: u32 = 0o40_000;
    pub(super) const NOFOLLOW: u32 = 0o100_000;
    pub(super) const DIRECT: u32 = 0o200_000;
    pub(super) const LARGEFILE: u32 = 0o400_000;
}

/// Open flags whose numbers differ between architectures.
#[cfg(not(any(target_arch = "arm", target_arch = "aarch64")))]
mod o {
    pub(super) const DIRECT: u32 = 0o40_000;
    pub(super) const LARGEFILE: u32 = 0o100_000;
    pub(super) const DIRECTORY: u32 = 0o200_000;
    pub(super) const NOFOLLOW: u32 = 0o400_000;
}

bitflags! {
    /// Flags of open(2), `O_*`: what a caller asks for. The server's answer is
    /// [`FopenFlags`].
    ///
    /// O_RDONLY is 0, so it is no flag: ask [`readable`](Self::readable) and
    /// [`writable`](Self::writable).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenFlags: u32 {
        /// Write only.
        const WRONLY = 0o1;
        /// Read and write.
        const RDWR = 0o2;
        /// Make the file if it is not there.
        const CREAT = 0o100;
        /// With CREAT: fail if it is there.
        const EXCL = 0o200;
        /// A terminal does not become the controlling one.
        const NOCTTY = 0o400;
        /// Cut to length 0.
        const TRUNC = 0o1000;
        /// Each write goes to the end.
        const APPEND = 0o2000;
        /// Do not wait.
        const NONBLOCK = 0o4000;
        /// Writes return when data are on disk.
        const DSYNC = 0o10_000;
        /// No caching.
        const DIRECT = o::DIRECT;
        /// Sizes beyond 31 bits.
        const LARGEFILE = o::LARGEFILE;
        /// Fail if it is not a directory.
        const DIRECTORY = o::DIRECTORY;
        /// Fail if it is a symbolic link.
        const NOFOLLOW = o::NOFOLLOW;
        /// Reading does not change atime.
        const NOATIME = 0o1_000_000;
        /// Closed by exec(2).
        const CLOEXEC = 0o2_000_000;
        /// Writes return when data and attributes are on disk; contains DSYNC.
        const SYNC = 0o4_010_000;
        /// Names a place only.
        const PATH = 0o10_000_000;
        /// Makes a file without a name; contains DIRECTORY.
        const TMPFILE = 0o20_000_000 | o::DIRECTORY;
        const _ = !0;
    }

    /// How the server wants an open file to be treated, `FOPEN_*`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FopenFlags: u32 {
        /// No cache for this handle.
        const DIRECT_IO = 1 << 0;
        /// Cached data stay valid.
        const KEEP_CACHE = 1 << 1;
        /// The file has no positions.
        const NONSEEKABLE = 1 << 2;
        /// The directory's contents may be cached.
        const CACHE_DIR = 1 << 3;
        /// The file is a stream.
        const STREAM = 1 << 4;
        /// No FLUSH on close.
        const NOFLUSH = 1 << 5;
        /// Direct writes may run in parallel.
        const PARALLEL_DIRECT_WRITES = 1 << 6;
        /// For /dev/fuse only.
        const PASSTHROUGH = 1 << 7;
        const _ = !0;
    }

    /// Flags of OPEN and CREATE beside the caller's (`open_flags`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct OpenInFlags: u32 {
        /// Clear set-id bits when truncating.
        const KILL_SUIDGID = 1 << 0;
    }

    /// Flags of RELEASE.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReleaseFlags: u32 {
        /// Do what FLUSH does first.
        const FLUSH = 1 << 0;
        /// Drop the flock(2) lock of the owner.
        const FLOCK_UNLOCK = 1 << 1;
    }

    /// Flags of READ.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct ReadFlags: u32 {
        /// The lock owner counts.
        const LOCKOWNER = 1 << 1;
    }

    /// Flags of WRITE.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct WriteFlags: u32 {
        /// Written back from a cache: by nobody in particular.
        const CACHE = 1 << 0;
        /// The lock owner counts.
        const LOCKOWNER = 1 << 1;
        /// Clear set-id bits.
        const KILL_SUIDGID = 1 << 2;
    }

    /// Flags of FSYNC and FSYNCDIR.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FsyncFlags: u32 {
        /// Data only, as fdatasync(2).
        const FDATASYNC = 1 << 0;
    }

    /// Flags of renameat2(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RenameFlags: u32 {
        /// Fail if the new name exists.
        const NOREPLACE = 1 << 0;
        /// Swap the two.
        const EXCHANGE = 1 << 1;
        /// Leave a whiteout in place of the old name.
        const WHITEOUT = 1 << 2;
    }

    /// Mode of fallocate(2). None of them: allocate, and extend the file.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FallocateMode: u32 {
        /// The size does not grow.
        const KEEP_SIZE = 1 << 0;
        /// Free the range; needs KEEP_SIZE.
        const PUNCH_HOLE = 1 << 1;
        /// Cut the range out of the file.
        const COLLAPSE_RANGE = 1 << 3;
        /// Make the range read as zeros.
        const ZERO_RANGE = 1 << 4;
        /// Push what follows away.
        const INSERT_RANGE = 1 << 5;
        /// Make shared blocks private.
        const UNSHARE_RANGE = 1 << 6;
    }

    /// Flags of setxattr(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct XattrFlags: u32 {
        /// Fail if it exists.
        const CREATE = 1 << 0;
        /// Fail if it does not.
        const REPLACE = 1 << 1;
    }

    /// Flags of SETXATTR beside the caller's, with SETXATTR_EXT.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetxattrFlags: u32 {
        /// Setting this ACL clears the set-group-id bit.
        const ACL_KILL_SGID = 1 << 0;
    }

    /// What access(2) asks for. None of them: whether the file is there.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AccessMask: u32 {
        /// Execute or search.
        const EXEC = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Read.
        const READ = 1 << 2;
    }

    /// Events of poll(2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollEvents: u32 {
        /// Something to read.
        const IN = 0x1;
        /// Something urgent to read.
        const PRI = 0x2;
        /// Room to write.
        const OUT = 0x4;
        /// An error.
        const ERR = 0x8;
        /// The other side hung up.
        const HUP = 0x10;
        /// Not open.
        const NVAL = 0x20;
        /// As IN.
        const RDNORM = 0x40;
        /// Priority data to read.
        const RDBAND = 0x80;
        /// As OUT.
        const WRNORM = 0x100;
        /// Room for priority data.
        const WRBAND = 0x200;
        /// The other side stopped sending.
        const RDHUP = 0x2000;
        const _ = !0;
    }

    /// Flags of POLL.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct PollFlags: u32 {
        /// Send a notification when one of the events comes.
        const SCHEDULE_NOTIFY = 1 << 0;
    }

    /// Flags of IOCTL and of its reply.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct IoctlFlags: u32 {
        /// A 32-bit program on a 64-bit kernel.
        const COMPAT = 1 << 0;
        /// Sizes are not taken from the command; retries are allowed.
        const UNRESTRICTED = 1 << 1;
        /// The server wants other buffers.
        const RETRY = 1 << 2;
        /// A 32-bit program.
        const IS_32BIT = 1 << 3;
        /// On a directory.
        const DIR = 1 << 4;
        /// An x32 program.
        const COMPAT_X32 = 1 << 5;
        const _ = !0;
    }
}

impl OpenFlags {
    /// Read only, which is no bit.
    pub const RDONLY: Self = Self::empty();
    /// The bits that say whether to read, write, or both.
    pub const ACCESS_MODE: Self = Self::from_bits_retain(0o3);

    /// Says whether a file opened so may be read.
    pub const fn readable(self) -> bool {
        matches!(self.bits() & Self::ACCESS_MODE.bits(), 0o0 | 0o2)
    }

    /// Says whether a file opened so may be written.
    pub const fn writable(self) -> bool {
        matches!(self.bits() & Self::ACCESS_MODE.bits(), 0o1 | 0o2)
    }

    /// Returns what OPEN may carry: Linux keeps CREAT, EXCL and NOCTTY to
    /// itself.
    pub const fn for_open(self) -> Self {
        self.difference(Self::CREAT.union(Self::EXCL).union(Self::NOCTTY))
    }

    /// Returns what CREATE may carry: all but NOCTTY.
    pub const fn for_create(self) -> Self {
        self.difference(Self::NOCTTY)
    }
}

/// What becomes of set-user-id and set-group-id bits when a file changes, with
/// HANDLE_KILLPRIV_V2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SetIds {
    /// They stay: the caller is privileged.
    #[default]
    Keep,
    /// The server clears them.
    Clear,
}

/// What a position in LSEEK is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum SeekWhence {
    /// The beginning.
    Set = 0,
    /// The current position. Of no use in a request: the server knows none.
    Current = 1,
    /// The end.
    End = 2,
    /// The next data.
    Data = 3,
    /// The next hole.
    Hole = 4,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_mode_is_a_number_and_not_two_bits() {
        let modes = [
            (0, true, false),
            (1, false, true),
            (2, true, true),
            (3, false, false),
        ];
        for (bits, readable, writable) in modes {
            let flags = OpenFlags::from_bits_retain(bits) | OpenFlags::APPEND;
            assert_eq!(
                (flags.readable(), flags.writable()),
                (readable, writable),
                "{bits}"
            );
        }
    }

    #[test]
    fn requests_carry_the_open_flags_that_linux_sends() {
        let all = OpenFlags::RDWR
            | OpenFlags::CREAT
            | OpenFlags::EXCL
            | OpenFlags::NOCTTY
            | OpenFlags::TRUNC;
        assert_eq!(all.for_open(), OpenFlags::RDWR | OpenFlags::TRUNC);
        assert_eq!(all.for_create(), all - OpenFlags::NOCTTY);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn open_flags_have_the_numbers_of_x86_64() {
        assert_eq!(OpenFlags::DIRECT.bits(), 0x4000);
        assert_eq!(OpenFlags::LARGEFILE.bits(), 0x8000);
        assert_eq!(OpenFlags::DIRECTORY.bits(), 0x1_0000);
        assert_eq!(OpenFlags::NOFOLLOW.bits(), 0x2_0000);
        assert_eq!(OpenFlags::TMPFILE.bits(), 0x41_0000);
        assert_eq!(OpenFlags::SYNC.bits(), 0x10_1000);
    }
}
