//! The host's side: a directory through the host's own system calls.

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Read},
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};
use virtio_fs_manifest::{Fs, Kind, Stat, Time};

/// A directory of the host's.
#[derive(Debug, Clone)]
pub struct HostFs {
    root: PathBuf,
}

impl HostFs {
    /// The tree below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(Path::new(OsStr::from_bytes(path)))
    }
}

impl Fs for HostFs {
    type Error = io::Error;

    fn stat(&mut self, path: &[u8]) -> io::Result<Stat> {
        let meta = fs::symlink_metadata(self.at(path))?;
        let kind = match meta.file_type() {
            kind if kind.is_dir() => Kind::Dir,
            kind if kind.is_file() => Kind::File,
            kind if kind.is_symlink() => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Stat {
            kind,
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            links: meta.nlink(),
            size: meta.size(),
            mtime: Time {
                seconds: meta.mtime(),
                nanos: meta.mtime_nsec() as u32,
            },
        })
    }

    fn list(&mut self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        fs::read_dir(self.at(path))?
            .map(|entry| Ok(entry?.file_name().into_vec()))
            .collect()
    }

    fn read_link(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        Ok(fs::read_link(self.at(path))?.into_os_string().into_vec())
    }

    fn read(&mut self, path: &[u8], sink: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let mut file = File::open(self.at(path))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(()),
                read => sink(&buffer[..read]),
            }
        }
    }

    fn create(&mut self, path: &[u8], mode: u32) -> io::Result<()> {
        let file = File::create_new(self.at(path))?;
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.at(path))?
            .write_all_at(data, offset)
    }

    fn truncate(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        OpenOptions::new()
            .write(true)
            .open(self.at(path))?
            .set_len(size)
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn link(&mut self, from: &[u8], to: &[u8]) -> io::Result<()> {
        fs::hard_link(self.at(from), self.at(to))
    }

    fn symlink(&mut self, target: &[u8], path: &[u8]) -> io::Result<()> {
        symlink(OsStr::from_bytes(target), self.at(path))
    }

    fn unlink(&mut self, path: &[u8]) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn mkdir(&mut self, path: &[u8], mode: u32) -> io::Result<()> {
        fs::create_dir(self.at(path))?;
        self.chmod(path, mode)
    }

    fn rmdir(&mut self, path: &[u8]) -> io::Result<()> {
        fs::remove_dir(self.at(path))
    }

    fn chmod(&mut self, path: &[u8], mode: u32) -> io::Result<()> {
        fs::set_permissions(self.at(path), Permissions::from_mode(mode))
    }

    fn set_mtime(&mut self, path: &[u8], mtime: Time) -> io::Result<()> {
        let time = Timespec {
            tv_sec: mtime.seconds,
            tv_nsec: mtime.nanos.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        Ok(utimensat(
            CWD,
            self.at(path),
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_fs_manifest::{Churn, DROP, Op, apply, walk};

    /// An empty directory, removed when dropped.
    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir()
                .join(format!("virtio-fs-manifest-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn manifest(&self) -> Vec<String> {
            let mut lines = Vec::new();
            let mut sink = |line: &str| lines.push(line.to_string());
            walk(&mut HostFs::new(&self.0), b"", &mut sink).unwrap();
            lines
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn seed() -> u64 {
        let seed = std::env::var("SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed =
            seed.unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64);
        println!("SEED={seed}");
        seed
    }

    #[test]
    fn two_directories_under_one_churn_have_one_manifest() {
        let (one, two) = (Dir::new("one"), Dir::new("two"));
        let seed = seed();
        let mut both = (Churn::new(seed), Churn::new(seed));
        for round in 0..4 {
            for (dir, churn) in [(&one, &mut both.0), (&two, &mut both.1)] {
                let mut fs = HostFs::new(&dir.0);
                for op in churn.round(200) {
                    apply(&mut fs, &op)
                        .unwrap_or_else(|error| panic!("round {round}: {op:?}: {error}"));
                }
                // Times of the root above the churn are nobody's business here.
                fs.set_mtime(b"", Time::default()).unwrap();
                // The model and the directory agree.
                assert_eq!(dir.manifest().len(), churn.len() + 1);
            }
            for (one, two) in one.manifest().iter().zip(two.manifest()) {
                assert_eq!(*one, two, "round {round}");
            }
        }
        assert!(one.manifest().len() > 50, "the churn made hardly anything");
    }

    #[test]
    fn every_kind_of_change_comes_up() {
        let ops = Churn::new(1).round(2000);
        let kinds: std::collections::BTreeSet<String> = ops
            .iter()
            .map(|op| format!("{op:?}").split(' ').next().unwrap().to_string())
            .collect();
        assert_eq!(kinds.len(), 11, "{kinds:?}");
        assert!(
            ops.iter()
                .any(|op| matches!(op, Op::SetMtime { mtime, .. } if mtime.seconds < 0))
        );
    }

    #[test]
    fn every_difference_shows_in_the_manifest() {
        let dir = Dir::new("differ");
        let mut fs = HostFs::new(&dir.0);
        fs.create(b"a", 0o644).unwrap();
        fs.write(b"a", 0, b"content").unwrap();
        fs.symlink(b"a", b"l").unwrap();
        fs.mkdir(DROP, 0o755).unwrap();
        let set = |fs: &mut HostFs| {
            for path in [&b"a"[..], b"l", b""] {
                fs.set_mtime(path, Time::default()).unwrap();
            }
        };
        set(&mut fs);
        let before = dir.manifest();
        assert_eq!(before.len(), 3);
        let mut differs = |change: &dyn Fn(&mut HostFs) -> io::Result<()>,
                           back: &dyn Fn(&mut HostFs) -> io::Result<()>| {
            change(&mut fs).unwrap();
            assert_ne!(dir.manifest(), before);
            back(&mut fs).unwrap();
            set(&mut fs);
            assert_eq!(dir.manifest(), before);
        };
        differs(&|fs| fs.chmod(b"a", 0o600), &|fs| fs.chmod(b"a", 0o644));
        differs(&|fs| fs.write(b"a", 3, b"T"), &|fs| fs.write(b"a", 3, b"t"));
        differs(&|fs| fs.truncate(b"a", 8), &|fs| fs.truncate(b"a", 7));
        differs(
            &|fs| {
                fs.set_mtime(
                    b"a",
                    Time {
                        seconds: 0,
                        nanos: 1,
                    },
                )
            },
            &|_| Ok(()),
        );
        differs(&|fs| fs.link(b"a", b"b"), &|fs| fs.unlink(b"b"));
        differs(&|fs| fs.rename(b"a", b"c"), &|fs| fs.rename(b"c", b"a"));
        differs(
            &|fs| fs.unlink(b"l").and_then(|()| fs.symlink(b"b", b"l")),
            &|fs| fs.unlink(b"l").and_then(|()| fs.symlink(b"a", b"l")),
        );
        differs(&|fs| fs.mkdir(b"d", 0o755), &|fs| fs.rmdir(b"d"));
        // What is skipped does not.
        fs.create(b".manifest/x", 0o644).unwrap();
        assert_eq!(dir.manifest(), before);
    }
}
