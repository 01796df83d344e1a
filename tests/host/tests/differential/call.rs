//! Calls, and random ones.

use virtio_fs::fs::Symlinks;
use virtio_fs::wire::{LockKind, OpenFlags};

/// What a call returned: a number of its own and bytes, or an error number.
pub(crate) type Outcome = Result<(i64, Vec<u8>), i32>;

/// Bytes to write.
#[derive(Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

/// One call, with everything that it is given.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Open(String, OpenFlags, u32),
    Close(usize),
    Dup(usize),
    Read(usize, usize),
    Write(usize, Bytes),
    Pread(usize, usize, u64),
    Pwrite(usize, Bytes, u64),
    Seek(usize, i64, i32),
    Ftruncate(usize, u64),
    Fstat(usize),
    Fallocate(usize, u32, u64, u64),
    Copy(usize, Option<u64>, usize, Option<u64>, u64),
    Lock(usize, LockKind, u64, u64),
    Flock(usize, LockKind),
    Stat(String, Symlinks),
    Chmod(String, u32),
    Chown(String, Symlinks, u32, u32),
    Truncate(String, u64),
    Access(String, u32),
    Readlink(String),
    Mkdir(String, u32),
    Mkfifo(String, u32),
    Symlink(String, String),
    Link(String, Symlinks, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, u32),
    List(String),
    Chdir(String),
    Getcwd,
    Setxattr(String, Symlinks, String, Bytes, u32),
    Getxattr(String, Symlinks, String, usize),
    Removexattr(String, Symlinks, String),
    /// Goes on as this user; 0 has all privileges.
    Become(u32),
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    /// A path of one to three parts, with all that makes paths odd.
    fn path(&mut self) -> String {
        const NAMES: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let mut path = String::new();
        for part in 0..1 + self.below(3) {
            if part > 0 {
                path += if self.chance(12) { "//" } else { "/" };
            }
            path += match self.below(24) {
                0 => ".",
                1 => "..",
                _ => self.of(&NAMES),
            };
        }
        match self.below(40) {
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
        self.of(&[Symlinks::Follow, Symlinks::NoFollow])
    }

    fn data(&mut self) -> Bytes {
        let len = match self.below(8) {
            0 => 0,
            1 => 10_000 + self.below(300_000),
            _ => 1 + self.below(5000),
        };
        let first = self.below(256);
        Bytes((0..len).map(|i| (first + i * 7) as u8).collect())
    }

    fn offset(&mut self) -> u64 {
        match self.below(10) {
            0 => i64::MAX as u64 - self.below(5000) as u64,
            1 => 100_000 + self.below(1 << 20) as u64,
            _ => self.below(10_000) as u64,
        }
    }

    fn open_flags(&mut self) -> OpenFlags {
        let mut flags = self.of(&[OpenFlags::RDONLY, OpenFlags::WRONLY, OpenFlags::RDWR]);
        for (flag, one_in) in [
            (OpenFlags::CREAT, 2),
            (OpenFlags::EXCL, 6),
            (OpenFlags::TRUNC, 6),
            (OpenFlags::APPEND, 5),
            (OpenFlags::DIRECTORY, 8),
            (OpenFlags::NOFOLLOW, 8),
            (OpenFlags::PATH, 20),
        ] {
            if self.chance(one_in) {
                flags |= flag;
            }
        }
        // Opening a pipe would wait for its other end.
        flags | OpenFlags::NONBLOCK
    }

    fn mode(&mut self) -> u32 {
        self.of(&[0o644, 0o755, 0o600, 0o777, 0o4755, 0o2755, 0o1777, 0o000])
    }

    pub(crate) fn call(&mut self, open: usize) -> Call {
        let fd = self.below(open + 1);
        let kind = self.of(&[LockKind::Read, LockKind::Write, LockKind::Unlock]);
        match self.below(61) {
            0..10 => Call::Open(self.path(), self.open_flags(), self.mode()),
            10..14 => Call::Close(fd),
            14 => Call::Dup(fd),
            15 | 16 => Call::Read(fd, self.below(20_000)),
            17..20 => Call::Write(fd, self.data()),
            20 => Call::Pread(fd, self.below(20_000), self.offset()),
            21 => Call::Pwrite(fd, self.data(), self.offset().min(1 << 22)),
            22 => {
                let offset = self.below(20_000) as i64 - 5000;
                // Where holes are is the file system's own business.
                Call::Seek(fd, offset, self.below(3) as i32)
            }
            23 => Call::Ftruncate(fd, self.below(20_000) as u64),
            24 => Call::Fstat(fd),
            25 => {
                let mode = self.of(&[0, 1, 3, 2, 16, 17, 9, 64, 1 << 20]);
                let (offset, len) = (self.below(20_000) as u64, self.below(9000) as u64);
                Call::Fallocate(fd, mode, offset, len)
            }
            26 => {
                let to = self.below(open + 1);
                let mut at = || self.chance(2).then(|| self.below(9000) as u64);
                let (from_at, to_at) = (at(), at());
                Call::Copy(fd, from_at, to, to_at, self.below(50_000) as u64)
            }
            27 => Call::Lock(fd, kind, self.below(100) as u64, self.below(100) as u64),
            28 => Call::Flock(fd, kind),
            29..32 => Call::Stat(self.path(), self.symlinks()),
            32 => Call::Chmod(self.path(), self.mode()),
            33 => {
                let ids = [0, 1, 1000, u32::MAX];
                Call::Chown(self.path(), self.symlinks(), self.of(&ids), self.of(&ids))
            }
            34 => Call::Truncate(self.path(), self.below(20_000) as u64),
            35 => Call::Access(self.path(), self.below(8) as u32),
            36 => Call::Readlink(self.path()),
            37..41 => Call::Mkdir(self.path(), self.mode()),
            41 => Call::Mkfifo(self.path(), self.mode()),
            42 | 43 => {
                let target = self.path();
                // An absolute one leads elsewhere on the host.
                Call::Symlink(target.trim_start_matches('/').to_owned(), self.path())
            }
            44 | 45 => Call::Link(self.path(), self.symlinks(), self.path()),
            46..48 => Call::Unlink(self.path()),
            48..50 => Call::Rmdir(self.path()),
            50..54 => {
                let flags = if self.chance(3) {
                    self.of(&[1, 2, 3, 8])
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
                let value = self.data();
                let flags = self.below(5) as u32;
                Call::Setxattr(
                    path,
                    symlinks,
                    name,
                    Bytes(value.0[..value.0.len().min(100)].into()),
                    flags,
                )
            }
            58 => Call::Getxattr(self.path(), self.symlinks(), self.xattr(), self.below(120)),
            59 => Call::Become(self.of(&[0, 0, 1000, 1001])),
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
        self.of(&names).to_owned()
    }
}

/// What stat(2) says, but for times and what the file system chooses.
pub(crate) fn stat_bytes(mode: u32, nlink: u64, uid: u32, gid: u32, size: u64) -> Vec<u8> {
    // The size of a directory is the file system's own business, and so is its
    // link count on some.
    let dir = mode & libc::S_IFMT == libc::S_IFDIR;
    let (nlink, size) = if dir { (0, 0) } else { (nlink, size) };
    format!("{mode:o} {nlink} {uid} {gid} {size}").into_bytes()
}
