//! Calls, and random ones.

use alloc::{borrow::ToOwned, format, string::String, vec::Vec};
use core::fmt;

use virtio_fs::fs::Symlinks;
use virtio_fs::wire::{LockKind, OpenFlags};

use crate::Source;

/// Files that a sequence of calls has open at once, at most: with so many, the next call is a close.
pub const OPEN_MAX: usize = 12;

/// What a call returned: a number of its own and bytes, or an error number.
pub type Outcome = Result<(i64, Vec<u8>), i32>;

/// Bytes to write.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// One call, with everything that it is given. Files are counted in the order in which they were
/// opened; one more than there are is a descriptor that is not open.
#[derive(Clone, Debug)]
pub enum Call {
    /// open(2) with flags and permissions.
    Open(String, OpenFlags, u32),
    /// openat(2) below an open directory.
    OpenAt(usize, String, OpenFlags, u32),
    /// close(2).
    Close(usize),
    /// dup(2).
    Dup(usize),
    /// read(2) of so many bytes.
    Read(usize, usize),
    /// write(2).
    Write(usize, Bytes),
    /// pread(2) of so many bytes at an offset.
    Pread(usize, usize, u64),
    /// pwrite(2) at an offset.
    Pwrite(usize, Bytes, u64),
    /// lseek(2): SEEK_SET, SEEK_CUR or SEEK_END.
    Seek(usize, i64, i32),
    /// fsync(2) or, if true, fdatasync(2).
    Sync(usize, bool),
    /// ftruncate(2).
    Ftruncate(usize, u64),
    /// fstat(2).
    Fstat(usize),
    /// fchmod(2).
    Fchmod(usize, u32),
    /// fchown(2).
    Fchown(usize, u32, u32),
    /// fallocate(2) with mode, offset and length.
    Fallocate(usize, u32, u64, u64),
    /// copy_file_range(2) with offsets, or from where the files stand.
    Copy(usize, Option<u64>, usize, Option<u64>, u64),
    /// fcntl(2), F_SETLK: start and length.
    Lock(usize, LockKind, u64, u64),
    /// flock(2) without waiting.
    Flock(usize, LockKind),
    /// stat(2), lstat(2).
    Stat(String, Symlinks),
    /// fstatat(2) below an open directory.
    StatAt(usize, String, Symlinks),
    /// utimensat(2) of access and change, then what they are.
    Utimens(String, Symlinks, Moment, Moment),
    /// chmod(2).
    Chmod(String, u32),
    /// chown(2), lchown(2).
    Chown(String, Symlinks, u32, u32),
    /// truncate(2).
    Truncate(String, u64),
    /// access(2) with the effective ids.
    Access(String, u32),
    /// readlink(2).
    Readlink(String),
    /// mkdir(2).
    Mkdir(String, u32),
    /// mknod(2) of a FIFO, a socket or a device by S_IFMT.
    Mknod(String, u32, u32),
    /// symlink(2).
    Symlink(String, String),
    /// link(2).
    Link(String, Symlinks, String),
    /// unlink(2).
    Unlink(String),
    /// rmdir(2).
    Rmdir(String),
    /// renameat2(2) with flags.
    Rename(String, String, u32),
    /// All names in a directory, sorted.
    List(String),
    /// chdir(2).
    Chdir(String),
    /// getcwd(2).
    Getcwd,
    /// setxattr(2), lsetxattr(2).
    Setxattr(String, Symlinks, String, Bytes, u32),
    /// fsetxattr(2).
    Fsetxattr(usize, String, Bytes, u32),
    /// getxattr(2), lgetxattr(2) into so many bytes.
    Getxattr(String, Symlinks, String, usize),
    /// listxattr(2), sorted, into so many bytes.
    Listxattr(String, Symlinks, usize),
    /// removexattr(2), lremovexattr(2).
    Removexattr(String, Symlinks, String),
    /// Goes on as this user, 0 with all privileges, and with this umask.
    Become(u32, u32),
}

/// A time for utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// UTIME_OMIT.
    Omit,
    /// UTIME_NOW.
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

/// The supplementary groups of a user.
pub fn groups(uid: u32) -> Vec<u32> {
    match uid {
        1001 => [1000].into(),
        _ => Vec::new(),
    }
}

impl Call {
    /// Chooses a call, with `open` files open.
    pub fn choose(source: &mut impl Source, open: usize) -> Self {
        if open >= OPEN_MAX {
            return Self::Close(source.below(open));
        }
        Choice(source).call(open)
    }
}

/// Chooses the parts of calls.
struct Choice<'a, S>(&'a mut S);

impl<S: Source> Choice<'_, S> {
    /// A path of one to three parts, with all that makes paths odd.
    fn path(&mut self) -> String {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let mut path = String::new();
        for part in 0..1 + self.0.below(3) {
            if part > 0 {
                path += if self.0.chance(12) { "//" } else { "/" };
            }
            path += match self.0.below(24) {
                0 => ".",
                1 => "..",
                _ => self.0.of(&NAMES),
            };
        }
        match self.0.below(40) {
            0..3 => path += "/",
            3 => path += "/.",
            4 => path.clear(),
            5 => path += &"x".repeat(300),
            6 => path = "/".to_owned(),
            _ => {}
        }
        path
    }

    fn symlinks(&mut self) -> Symlinks {
        self.0.of(&[Symlinks::Follow, Symlinks::NoFollow])
    }

    fn data(&mut self) -> Bytes {
        let len = match self.0.below(8) {
            0 => 0,
            1 => 10_000 + self.0.below(300_000),
            _ => 1 + self.0.below(5000),
        };
        let first = self.0.below(256);
        Bytes((0..len).map(|i| (first + i * 7) as u8).collect())
    }

    fn offset(&mut self) -> u64 {
        match self.0.below(10) {
            0 => i64::MAX as u64 - self.0.below(5000) as u64,
            1 => 100_000 + self.0.below(1 << 20) as u64,
            _ => self.0.below(10_000) as u64,
        }
    }

    fn value(&mut self) -> Bytes {
        let mut value = self.data();
        value.0.truncate(100);
        value
    }

    fn id(&mut self) -> u32 {
        self.0.of(&[0, 1, 1000, u32::MAX])
    }

    fn moment(&mut self) -> Moment {
        match self.0.below(4) {
            0 => Moment::Omit,
            1 => Moment::Now,
            _ => Moment::At(
                self.0.below(2_000_000_000) as i64 - 100_000_000,
                self.0.below(1_000_000_000) as u32,
            ),
        }
    }

    fn open_flags(&mut self) -> OpenFlags {
        let mut flags = self
            .0
            .of(&[OpenFlags::RDONLY, OpenFlags::WRONLY, OpenFlags::RDWR]);
        for (flag, one_in) in [
            (OpenFlags::CREAT, 2),
            (OpenFlags::EXCL, 6),
            (OpenFlags::TRUNC, 6),
            (OpenFlags::APPEND, 5),
            (OpenFlags::DIRECTORY, 8),
            (OpenFlags::NOFOLLOW, 8),
            (OpenFlags::PATH, 20),
        ] {
            if self.0.chance(one_in) {
                flags |= flag;
            }
        }
        // Opening a pipe would wait for its other end.
        flags | OpenFlags::NONBLOCK
    }

    fn mode(&mut self) -> u32 {
        self.0
            .of(&[0o644, 0o755, 0o600, 0o777, 0o4755, 0o2755, 0o1777, 0o000])
    }

    fn call(&mut self, open: usize) -> Call {
        let fd = self.0.below(open + 1);
        let kind = self
            .0
            .of(&[LockKind::Read, LockKind::Write, LockKind::Unlock]);
        match self.0.below(74) {
            0..10 => Call::Open(self.path(), self.open_flags(), self.mode()),
            61 | 62 => Call::OpenAt(fd, self.path(), self.open_flags(), self.mode()),
            63 => Call::Sync(fd, self.0.chance(2)),
            64 => Call::Fchmod(fd, self.mode()),
            65 => Call::Fchown(fd, self.id(), self.id()),
            66 => Call::StatAt(fd, self.path(), self.symlinks()),
            67..70 => Call::Utimens(self.path(), self.symlinks(), self.moment(), self.moment()),
            70 => Call::Listxattr(self.path(), self.symlinks(), self.0.below(300)),
            71 => {
                // Whether the descriptor or the rest is wrong first has changed between versions
                // of Linux, so the rest is right.
                let name = self.0.of(&["user.a", "user.b", "user.c", "trusted.t"]);
                Call::Fsetxattr(fd, name.to_owned(), self.value(), self.0.below(3) as u32)
            }
            72 => Call::Mknod(self.path(), self.0.of(&[0o140_000, 0o020_000]), self.mode()),
            10..14 => Call::Close(fd),
            14 => Call::Dup(fd),
            15 | 16 => Call::Read(fd, self.0.below(20_000)),
            17..20 => Call::Write(fd, self.data()),
            20 => Call::Pread(fd, self.0.below(20_000), self.offset()),
            21 => Call::Pwrite(fd, self.data(), self.offset().min(1 << 22)),
            22 => {
                let offset = self.0.below(20_000) as i64 - 5000;
                // Where holes are is the file system's own business.
                Call::Seek(fd, offset, self.0.below(3) as i32)
            }
            23 => Call::Ftruncate(fd, self.0.below(20_000) as u64),
            24 => Call::Fstat(fd),
            25 => {
                let mode = self.0.of(&[0, 1, 3, 2, 16, 17, 9, 64, 1 << 20]);
                let (offset, len) = (self.0.below(20_000) as u64, self.0.below(9000) as u64);
                Call::Fallocate(fd, mode, offset, len)
            }
            26 => {
                let to = self.0.below(open + 1);
                let mut at = || self.0.chance(2).then(|| self.0.below(9000) as u64);
                let (from_at, to_at) = (at(), at());
                Call::Copy(fd, from_at, to, to_at, self.0.below(50_000) as u64)
            }
            27 => Call::Lock(fd, kind, self.0.below(100) as u64, self.0.below(100) as u64),
            28 => Call::Flock(fd, kind),
            29..32 => Call::Stat(self.path(), self.symlinks()),
            32 => Call::Chmod(self.path(), self.mode()),
            33 => {
                let (path, symlinks) = (self.path(), self.symlinks());
                Call::Chown(path, symlinks, self.id(), self.id())
            }
            34 => Call::Truncate(self.path(), self.0.below(20_000) as u64),
            35 => Call::Access(self.path(), self.0.below(8) as u32),
            36 => Call::Readlink(self.path()),
            37..41 => Call::Mkdir(self.path(), self.mode()),
            41 => Call::Mknod(self.path(), 0o010_000, self.mode()),
            42 | 43 => {
                let target = self.path();
                // An absolute one leads elsewhere on the host.
                Call::Symlink(target.trim_start_matches('/').to_owned(), self.path())
            }
            44 | 45 => Call::Link(self.path(), self.symlinks(), self.path()),
            46..48 => Call::Unlink(self.path()),
            48..50 => Call::Rmdir(self.path()),
            50..54 => {
                let flags = if self.0.chance(3) {
                    self.0.of(&[1, 2, 3, 8])
                } else {
                    0
                };
                Call::Rename(self.path(), self.path(), flags)
            }
            54 => Call::List(self.path()),
            55 => Call::Chdir(self.path()),
            56 => Call::Getcwd,
            57 => {
                let (path, symlinks, name) = (self.path(), self.symlinks(), self.xattr());
                Call::Setxattr(path, symlinks, name, self.value(), self.0.below(5) as u32)
            }
            58 => Call::Getxattr(
                self.path(),
                self.symlinks(),
                self.xattr(),
                self.0.below(120),
            ),
            59 => Call::Become(
                self.0.of(&[0, 0, 1000, 1001]),
                self.0.of(&[0o022, 0, 0o077]),
            ),
            _ => Call::Removexattr(self.path(), self.symlinks(), self.xattr()),
        }
    }

    fn xattr(&mut self) -> String {
        let long = "user.".to_owned() + &"x".repeat(251);
        let names = [
            "user.a",
            "user.b",
            "user.c",
            "trusted.t",
            "nothing",
            "",
            "user.",
            &long,
        ];
        self.0.of(&names).to_owned()
    }
}

/// What stat(2) says, but for times and what the file system chooses.
pub fn stat_bytes(mode: u32, nlink: u64, uid: u32, gid: u32, size: u64) -> Vec<u8> {
    // The size of a directory is the file system's own business, and so is its
    // link count on some.
    let dir = mode & 0o170_000 == 0o040_000;
    let (nlink, size) = if dir { (0, 0) } else { (nlink, size) };
    let mode = privileges(mode);
    format!("{mode:o} {nlink} {uid} {gid} {size}").into_bytes()
}

/// A mode without the set-group-id bit of a file that its group may not execute. It marks nothing
/// since Linux has no mandatory locks; whether a write clears it depends on the groups of who writes,
/// and that is the server, whose groups are its own.
pub fn privileges(mode: u32) -> u32 {
    let dir = mode & 0o170_000 == 0o040_000;
    if !dir && mode & 0o2010 == 0o2000 {
        mode & !0o2000
    } else {
        mode
    }
}
