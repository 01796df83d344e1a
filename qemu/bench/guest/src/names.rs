//! Workloads on names and attributes, and on small files.

use std::{ffi::CString, mem::MaybeUninit};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, mkdir, rename, rmdir, statat, unlink};

use crate::{
    Workload,
    content::{BLOCK, MIB},
    data::{NEW, close_file, open_file, write_all},
    machine::drop_caches,
    region::{Bench, Of, Refused},
};

/// Bytes that a listing takes at once.
const LISTING: usize = 32 << 10;

/// Those of the set `posix`, second half.
pub(crate) const POSIX: &[Workload] = &[
    Workload {
        name: "stat_cold",
        run: |b, n| {
            drop_caches();
            b.stat_all(n);
        },
    },
    Workload {
        name: "stat_hot",
        run: |b, n| b.stat_all(n),
    },
    Workload {
        name: "stat_deep",
        run: |b, n| b.stat_deep(n),
    },
    Workload {
        name: "open_read_close",
        run: |b, n| b.open_read_close(n),
    },
    Workload {
        name: "create_close",
        run: |b, n| b.create_close(n),
    },
    Workload {
        name: "unlink",
        run: |b, n| b.unlink_all(n),
    },
    Workload {
        name: "write_small",
        run: |b, n| b.write_small(n),
    },
    Workload {
        name: "mkdir",
        run: |b, n| b.mkdir_all(n),
    },
    Workload {
        name: "rmdir",
        run: |b, n| b.rmdir_all(n),
    },
    Workload {
        name: "rename",
        run: |b, n| b.rename_all(n),
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

fn make(path: &CString) -> Result<(), Refused> {
    close_file(open_file(path, NEW)?);
    Ok(())
}

/// Removes files, of which some may not be there.
fn remove(paths: &[CString]) {
    for path in paths {
        let _ = unlink(path);
    }
}

impl Bench {
    fn stat_all(&mut self, name: &str) {
        let files = self.paths(2000, "small/f");
        self.stat_each(name, &files);
    }

    fn stat_each(&mut self, name: &str, files: &[CString]) {
        self.region(name, |_| {
            for path in files {
                statat(CWD, path, AtFlags::empty()).of("stat")?;
            }
            Ok((files.len(), 0))
        });
    }

    fn stat_deep(&mut self, name: &str) {
        let path = self.path("deep/1/2/3/4/5/6/7/file");
        drop_caches();
        self.region(name, |_| {
            for _ in 0..5000 {
                statat(CWD, &path, AtFlags::empty()).of("stat")?;
            }
            Ok((5000, 0))
        });
    }

    fn open_read_close(&mut self, name: &str) {
        let files = self.paths(2000, "small/f");
        drop_caches();
        self.region(name, |b| {
            for (n, path) in files.iter().enumerate() {
                let fd = open_file(path, OFlags::RDONLY)?;
                b.read(&fd, BLOCK, n * BLOCK)?;
                close_file(fd);
            }
            Ok((files.len(), files.len() * BLOCK))
        });
    }

    fn create_close(&mut self, name: &str) {
        let files = self.paths(1000, "scratch/c");
        remove(&files);
        drop_caches();
        self.region(name, |_| {
            files.iter().try_for_each(make)?;
            Ok((files.len(), 0))
        });
    }

    /// Removes what [`create_close`](Self::create_close) left.
    fn unlink_all(&mut self, name: &str) {
        let files = self.paths(1000, "scratch/c");
        for path in &files {
            if statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                // What cannot be made is reported by the region.
                let _ = make(path);
            }
        }
        drop_caches();
        self.region(name, |_| {
            for path in &files {
                unlink(path).of("unlink")?;
            }
            Ok((files.len(), 0))
        });
    }

    fn write_small(&mut self, name: &str) {
        let files = self.paths(500, "scratch/w");
        remove(&files);
        drop_caches();
        self.region(name, |b| {
            for (n, path) in files.iter().enumerate() {
                let fd = open_file(path, NEW)?;
                write_all(&fd, &b.stream.bytes()[n * BLOCK % MIB..][..BLOCK])?;
                close_file(fd);
            }
            Ok((files.len(), files.len() * BLOCK))
        });
        remove(&files);
    }

    fn mkdir_all(&mut self, name: &str) {
        let dirs = self.paths(500, "scratch/d");
        for path in &dirs {
            // Mostly not there.
            let _ = rmdir(path);
        }
        drop_caches();
        self.region(name, |_| {
            for path in &dirs {
                mkdir(path, Mode::from_raw_mode(0o755)).of("mkdir")?;
            }
            Ok((dirs.len(), 0))
        });
    }

    /// Removes what [`mkdir_all`](Self::mkdir_all) left.
    fn rmdir_all(&mut self, name: &str) {
        let dirs = self.paths(500, "scratch/d");
        for path in &dirs {
            if statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_err() {
                // What cannot be made is reported by the region.
                let _ = mkdir(path, Mode::from_raw_mode(0o755));
            }
        }
        drop_caches();
        self.region(name, |_| {
            for path in &dirs {
                rmdir(path).of("rmdir")?;
            }
            Ok((dirs.len(), 0))
        });
    }

    fn rename_all(&mut self, name: &str) {
        let (from, to) = (self.paths(500, "scratch/a"), self.paths(500, "scratch/b"));
        remove(&to);
        for path in &from {
            // One that is there already will do.
            let _ = make(path);
        }
        drop_caches();
        self.region(name, |_| {
            for (from, to) in from.iter().zip(&to) {
                rename(from, to).of("rename")?;
            }
            Ok((from.len(), 0))
        });
        remove(&from);
        remove(&to);
    }

    /// Lists a directory in portions of [`LISTING`] bytes, with a stat of each name
    /// before the next portion if so wished.
    fn list(&mut self, name: &str, with_stat: bool) {
        let path = self.path("small");
        let mut space = vec![MaybeUninit::uninit(); LISTING];
        drop_caches();
        self.region(name, |_| {
            let dir = open_file(&path, OFlags::DIRECTORY)?;
            let mut count = 0;
            let mut entries = RawDir::new(&dir, &mut space);
            while let Some(entry) = entries.next() {
                let entry = entry.of("getdents64")?;
                if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                    continue;
                }
                count += 1;
                if with_stat {
                    let found = statat(&dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
                    found.of("stat")?;
                }
            }
            close_file(dir);
            Ok((count, 0))
        });
    }
}
