//! Workloads on names and attributes, and on small files.

use alloc::vec::Vec;

use virtio_fs::{
    fs::{At, Symlinks},
    wire::{OpenFlags, RenameFlags},
};

use super::{
    Bench, Of, Refused, Workload,
    content::{BLOCK, MIB},
    paths,
};

/// Bytes that a listing takes at once, in records of getdents64.
const LISTING: usize = 32 << 10;
const NEW: OpenFlags = OpenFlags::WRONLY
    .union(OpenFlags::CREAT)
    .union(OpenFlags::EXCL);

/// Those of the set `posix`, second half.
pub(super) const POSIX: &[Workload] = &[
    Workload {
        name: "stat_cold",
        run: |b, n| {
            let files = paths(2000, "small/f");
            b.drop_caches();
            b.stat_all(n, &files);
        },
    },
    Workload {
        name: "stat_hot",
        run: |b, n| b.stat_all(n, &paths(2000, "small/f")),
    },
    Workload {
        name: "stat_deep",
        run: Bench::stat_deep,
    },
    Workload {
        name: "open_read_close",
        run: Bench::open_read_close,
    },
    Workload {
        name: "create_close",
        run: Bench::create_close,
    },
    Workload {
        name: "unlink",
        run: Bench::unlink_all,
    },
    Workload {
        name: "write_small",
        run: Bench::write_small,
    },
    Workload {
        name: "mkdir",
        run: Bench::mkdir_all,
    },
    Workload {
        name: "rmdir",
        run: Bench::rmdir_all,
    },
    Workload {
        name: "rename",
        run: Bench::rename_all,
    },
    Workload {
        name: "readdir_2k",
        run: |b, n| b.list(n, false),
    },
    Workload {
        name: "readdir_plus_stat",
        run: |b, n| b.list(n, true),
    },
];

impl Bench {
    fn stat(&self, at: At, path: &[u8], symlinks: Symlinks) -> Result<(), Refused> {
        self.process.stat(at, path, symlinks).of("stat").map(|_| ())
    }

    fn make(&self, path: &[u8]) -> Result<(), Refused> {
        let fd = self.process.open(At::Cwd, path, NEW, 0o644).of("open")?;
        self.close(fd)
    }

    fn stat_all(&mut self, name: &str, files: &[Vec<u8>]) {
        self.region(name, |b| {
            for path in files {
                b.stat(At::Cwd, path, Symlinks::Follow)?;
            }
            Ok((files.len(), 0))
        });
    }

    fn stat_deep(&mut self, name: &str) {
        self.drop_caches();
        self.region(name, |b| {
            for _ in 0..5000 {
                b.stat(At::Cwd, b"/deep/1/2/3/4/5/6/7/file", Symlinks::Follow)?;
            }
            Ok((5000, 0))
        });
    }

    fn open_read_close(&mut self, name: &str) {
        let files = paths(2000, "small/f");
        self.drop_caches();
        self.region(name, |b| {
            for (n, path) in files.iter().enumerate() {
                let opened = b.process.open(At::Cwd, path, OpenFlags::RDONLY, 0);
                let fd = opened.of("open")?;
                b.read(fd, BLOCK, n * BLOCK)?;
                b.close(fd)?;
            }
            Ok((files.len(), files.len() * BLOCK))
        });
    }

    fn create_close(&mut self, name: &str) {
        let files = paths(1000, "scratch/c");
        self.remove(&files);
        self.drop_caches();
        self.region(name, |b| {
            files.iter().try_for_each(|path| b.make(path))?;
            Ok((files.len(), 0))
        });
    }

    /// Removes what [`create_close`](Self::create_close) left.
    fn unlink_all(&mut self, name: &str) {
        let files = paths(1000, "scratch/c");
        for path in &files {
            if self.stat(At::Cwd, path, Symlinks::NoFollow).is_err() {
                // What cannot be made is reported by the region.
                let _ = self.make(path);
            }
        }
        self.drop_caches();
        self.region(name, |b| {
            for path in &files {
                b.process.unlink(At::Cwd, path).of("unlink")?;
            }
            Ok((files.len(), 0))
        });
    }

    fn write_small(&mut self, name: &str) {
        let files = paths(500, "scratch/w");
        self.remove(&files);
        self.drop_caches();
        self.region(name, |b| {
            for (n, path) in files.iter().enumerate() {
                let fd = b.process.open(At::Cwd, path, NEW, 0o644).of("open")?;
                b.write(fd, &b.stream.bytes()[n * BLOCK % MIB..][..BLOCK])?;
                b.close(fd)?;
            }
            Ok((files.len(), files.len() * BLOCK))
        });
        self.remove(&files);
    }

    fn mkdir_all(&mut self, name: &str) {
        let dirs = paths(500, "scratch/d");
        for path in &dirs {
            // Mostly not there.
            let _ = self.process.rmdir(At::Cwd, path);
        }
        self.drop_caches();
        self.region(name, |b| {
            for path in &dirs {
                b.process.mkdir(At::Cwd, path, 0o755).of("mkdir")?;
            }
            Ok((dirs.len(), 0))
        });
    }

    /// Removes what [`mkdir_all`](Self::mkdir_all) left.
    fn rmdir_all(&mut self, name: &str) {
        let dirs = paths(500, "scratch/d");
        for path in &dirs {
            if self.stat(At::Cwd, path, Symlinks::NoFollow).is_err() {
                // What cannot be made is reported by the region.
                let _ = self.process.mkdir(At::Cwd, path, 0o755);
            }
        }
        self.drop_caches();
        self.region(name, |b| {
            for path in &dirs {
                b.process.rmdir(At::Cwd, path).of("rmdir")?;
            }
            Ok((dirs.len(), 0))
        });
    }

    fn rename_all(&mut self, name: &str) {
        let (from, to) = (paths(500, "scratch/a"), paths(500, "scratch/b"));
        self.remove(&to);
        for path in &from {
            // One that is there already will do.
            let _ = self.make(path);
        }
        self.drop_caches();
        self.region(name, |b| {
            for (from, to) in from.iter().zip(&to) {
                let none = RenameFlags::empty();
                let renamed = b.process.rename(At::Cwd, from, At::Cwd, to, none);
                renamed.of("rename")?;
            }
            Ok((from.len(), 0))
        });
        self.remove(&from);
        self.remove(&to);
    }

    /// Removes files, of which some may not be there.
    fn remove(&self, files: &[Vec<u8>]) {
        for path in files {
            let _ = self.process.unlink(At::Cwd, path);
        }
    }

    /// Lists a directory in portions of [`LISTING`] bytes, with a stat of each name
    /// before the next portion if so wished.
    fn list(&mut self, name: &str, with_stat: bool) {
        // Names of a portion one behind the other, each with its end.
        let mut text = Vec::with_capacity(LISTING);
        let mut ends = Vec::with_capacity(LISTING / 24);
        self.drop_caches();
        self.region(name, |b| {
            let flags = OpenFlags::DIRECTORY;
            let fd = b.process.open(At::Cwd, b"/small", flags, 0).of("open")?;
            let mut count = 0;
            loop {
                text.clear();
                ends.clear();
                let mut room = LISTING;
                let listed = b.process.read_dir(fd, |entry| {
                    // The length of a record: 19 bytes, the name, its end, rounded up.
                    let len = (19 + entry.name.len() + 1).next_multiple_of(8);
                    if len > room {
                        return false;
                    }
                    room -= len;
                    if entry.name != b"." && entry.name != b".." {
                        text.extend_from_slice(entry.name);
                        ends.push(text.len());
                    }
                    true
                });
                let end = listed.of("getdents64")?;
                count += ends.len();
                let mut from = 0;
                for &to in ends.iter().take_while(|_| with_stat) {
                    b.stat(At::Fd(fd), &text[from..to], Symlinks::NoFollow)?;
                    from = to;
                }
                if end && room == LISTING {
                    break;
                }
            }
            b.close(fd)?;
            Ok((count, 0))
        });
    }
}
