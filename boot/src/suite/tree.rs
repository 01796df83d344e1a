//! The kernel's half of the manifest suite: walking the share and changing it.

use alloc::{format, string::String, vec, vec::Vec};

use virtio_fs::{
    Error,
    fs::{At, Changes, Process, Symlinks},
    wire::{FileType, OpenFlags, RenameFlags, Time},
};
use virtio_fs_manifest as manifest;

use super::mount;
use crate::{Kernel, console, println, virtiofs::Host};

pub(super) fn take_part(kernel: &'static Kernel) -> Result<(), String> {
    let number = |key| kernel.arguments.get(key).and_then(|word| word.parse().ok());
    let seed: u64 = number(super::SEED.name).unwrap_or(0);
    let rounds = number(super::ROUNDS.name).unwrap_or(0) as u32;
    let mounted = mount(kernel)?;
    let mut side = Side {
        process: mounted.process(),
        buffer: vec![0; 1 << 20],
    };
    manifest::take_part(
        &mut side,
        seed,
        rounds,
        &mut |line| println!("{line}"),
        &mut || while console::read() != b'\n' {},
    )
    .map_err(|(what, error)| format!("seed {seed}: {what}: {error}"))?;
    drop(side);
    mounted.unmount();
    Ok(())
}

/// The share, as the manifest suite wants it.
struct Side {
    process: Process<Host>,
    buffer: Vec<u8>,
}

impl Side {
    fn with_file<T>(
        &mut self,
        path: &[u8],
        flags: OpenFlags,
        mode: u32,
        work: impl FnOnce(&mut Self, virtio_fs::fs::Fd) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let fd = self.process.open(At::Cwd, path, flags, mode)?;
        let result = work(self, fd);
        let closed = self.process.close(fd);
        result.and_then(|value| closed.map(|()| value))
    }

    fn set(&self, path: &[u8], changes: &Changes) -> Result<(), Error> {
        self.process.set(At::Cwd, path, Symlinks::NoFollow, changes)
    }
}

/// The empty path is the root.
fn place(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}

impl manifest::Fs for Side {
    type Error = Error;

    fn stat(&mut self, path: &[u8]) -> Result<manifest::Stat, Error> {
        let attr = self
            .process
            .stat(At::Cwd, place(path), Symlinks::NoFollow)?
            .attr;
        Ok(manifest::Stat {
            kind: match attr.mode.file_type() {
                FileType::Directory => manifest::Kind::Dir,
                FileType::Regular => manifest::Kind::File,
                FileType::Symlink => manifest::Kind::Link,
                _ => manifest::Kind::Other,
            },
            mode: attr.mode.permissions(),
            uid: attr.uid,
            gid: attr.gid,
            links: attr.nlink.into(),
            size: attr.size,
            mtime: manifest::Time {
                seconds: attr.mtime.sec,
                nanos: attr.mtime.nsec,
            },
        })
    }

    fn list(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        self.with_file(place(path), OpenFlags::DIRECTORY, 0, |side, fd| {
            let mut names = Vec::new();
            side.process.read_dir(fd, |entry| {
                if entry.name != b"." && entry.name != b".." {
                    names.push(entry.name.to_vec());
                }
                true
            })?;
            Ok(names)
        })
    }

    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.process.readlink(At::Cwd, path)?.to_vec())
    }

    fn read(&mut self, path: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        self.with_file(path, OpenFlags::RDONLY, 0, |side, fd| {
            loop {
                match side.process.read(fd, &mut side.buffer)? {
                    0 => return Ok(()),
                    n => sink(&side.buffer[..n]),
                }
            }
        })
    }

    fn create(&mut self, path: &[u8], mode: u32) -> Result<(), Error> {
        let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
        self.with_file(path, flags, mode, |_, _| Ok(()))?;
        self.chmod(path, mode)
    }

    fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Result<(), Error> {
        self.with_file(path, OpenFlags::WRONLY, 0, |side, fd| {
            let mut done = 0;
            while done < data.len() {
                done += side
                    .process
                    .pwrite(fd, &data[done..], offset + done as u64)?;
            }
            Ok(())
        })
    }

    fn truncate(&mut self, path: &[u8], size: u64) -> Result<(), Error> {
        self.set(
            path,
            &Changes {
                size: Some(size),
                ..Changes::default()
            },
        )
    }

    fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        self.process
            .rename(At::Cwd, from, At::Cwd, to, RenameFlags::empty())
    }

    fn link(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        self.process
            .link(At::Cwd, from, Symlinks::NoFollow, At::Cwd, to)
    }

    fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<(), Error> {
        self.process.symlink(target, At::Cwd, path)
    }

    fn unlink(&mut self, path: &[u8]) -> Result<(), Error> {
        self.process.unlink(At::Cwd, path)
    }

    fn mkdir(&mut self, path: &[u8], mode: u32) -> Result<(), Error> {
        self.process.mkdir(At::Cwd, path, mode)?;
        self.chmod(path, mode)
    }

    fn rmdir(&mut self, path: &[u8]) -> Result<(), Error> {
        self.process.rmdir(At::Cwd, path)
    }

    fn chmod(&mut self, path: &[u8], mode: u32) -> Result<(), Error> {
        self.set(
            path,
            &Changes {
                permissions: Some(mode),
                ..Changes::default()
            },
        )
    }

    fn set_mtime(&mut self, path: &[u8], mtime: manifest::Time) -> Result<(), Error> {
        let time = Time::new(mtime.seconds, mtime.nanos);
        self.set(
            path,
            &Changes {
                mtime: time.into(),
                atime: time.into(),
                ..Changes::default()
            },
        )
    }
}
