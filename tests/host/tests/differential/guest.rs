//! The driver's side.

use virtio_fs::Errno;
use virtio_fs::fs::{At, Changes, Fd, LockWait, Process, Symlinks};
use virtio_fs::platform::{Caller, Capabilities};
use virtio_fs::wire::{
    FallocateMode, FileType, Lock, Mode, OpenFlags, Rdev, RenameFlags, SeekWhence, XattrFlags,
};
use virtio_fs_host::HostPlatform;
use virtio_fs_host::platform::set_caller;

use crate::call::{Call, Outcome, stat_bytes};
use crate::groups;

/// The driver's side.
pub(crate) struct Guest<'a> {
    pub(crate) process: &'a Process<HostPlatform>,
    pub(crate) files: Vec<Fd>,
}

impl Guest<'_> {
    fn fd(&self, at: usize) -> Fd {
        self.files.get(at).copied().unwrap_or(Fd(999))
    }

    pub(crate) fn run(&mut self, call: &Call) -> Outcome {
        self.call(call).map_err(|error| error.errno().get().into())
    }

    fn call(&mut self, call: &Call) -> virtio_fs::Result<(i64, Vec<u8>)> {
        let p = self.process;
        let cwd = At::Cwd;
        let number = |n: usize| Ok((n as i64, Vec::new()));
        let done = |(): ()| (0, Vec::new());
        let stat = |m: virtio_fs::fs::Metadata| {
            let a = m.attr;
            (
                0,
                stat_bytes(m.mode().bits(), a.nlink.into(), a.uid, a.gid, a.size),
            )
        };
        match call {
            Call::Open(path, flags, mode) => {
                let fd = p.open(cwd, path.as_bytes(), *flags, *mode)?;
                self.files.push(fd);
                number(0)
            }
            Call::Close(at) => {
                p.close(self.fd(*at))?;
                self.files.remove(*at);
                number(0)
            }
            Call::Dup(at) => {
                let fd = p.dup(self.fd(*at))?;
                self.files.push(fd);
                number(0)
            }
            Call::Read(at, len) => {
                let mut buf = vec![0; *len];
                let n = p.read(self.fd(*at), &mut buf)?;
                Ok((n as i64, buf[..n].to_vec()))
            }
            Call::Write(at, data) => number(p.write(self.fd(*at), &data.0)?),
            Call::Pread(at, len, offset) => {
                let mut buf = vec![0; *len];
                let n = p.pread(self.fd(*at), &mut buf, *offset)?;
                Ok((n as i64, buf[..n].to_vec()))
            }
            Call::Pwrite(at, data, offset) => number(p.pwrite(self.fd(*at), &data.0, *offset)?),
            Call::Seek(at, offset, whence) => {
                let whence =
                    [SeekWhence::Set, SeekWhence::Current, SeekWhence::End][*whence as usize];
                Ok((p.lseek(self.fd(*at), *offset, whence)? as i64, Vec::new()))
            }
            Call::Ftruncate(at, size) => p.fset(self.fd(*at), &sized(*size)).map(done),
            Call::Fstat(at) => p.fstat(self.fd(*at)).map(stat),
            Call::Fallocate(at, mode, offset, len) => {
                let mode = FallocateMode::from_bits_retain(*mode);
                p.fallocate(self.fd(*at), mode, *offset, *len).map(done)
            }
            Call::Copy(from, from_at, to, to_at, len) => {
                let (from, to) = (self.fd(*from), self.fd(*to));
                number(p.copy_file_range(from, *from_at, to, *to_at, *len)? as usize)
            }
            Call::Lock(at, kind, start, len) => {
                let lock = Lock {
                    start: *start,
                    end: if *len == 0 {
                        Lock::END
                    } else {
                        start + len - 1
                    },
                    kind: *kind,
                    pid: 0,
                };
                p.lock(self.fd(*at), lock, LockWait::Fail).map(done)
            }
            Call::Flock(at, kind) => p.flock(self.fd(*at), *kind, LockWait::Fail).map(done),
            Call::Stat(path, symlinks) => p.stat(cwd, path.as_bytes(), *symlinks).map(stat),
            Call::Chmod(path, mode) => {
                let changes = Changes {
                    permissions: Some(*mode),
                    ..Changes::default()
                };
                p.set(cwd, path.as_bytes(), Symlinks::Follow, &changes)
                    .map(done)
            }
            Call::Chown(path, symlinks, uid, gid) => {
                let id = |id: u32| (id != u32::MAX).then_some(id);
                let changes = Changes {
                    uid: id(*uid),
                    gid: id(*gid),
                    ..Changes::default()
                };
                p.set(cwd, path.as_bytes(), *symlinks, &changes).map(done)
            }
            Call::Truncate(path, size) => p
                .set(cwd, path.as_bytes(), Symlinks::Follow, &sized(*size))
                .map(done),
            Call::Access(path, wanted) => {
                let wanted = virtio_fs::fs::Access::from_bits_retain(*wanted);
                p.access(cwd, path.as_bytes(), wanted).map(done)
            }
            Call::Readlink(path) => Ok((0, p.readlink(cwd, path.as_bytes())?.to_vec())),
            Call::Mkdir(path, mode) => p.mkdir(cwd, path.as_bytes(), *mode).map(done),
            Call::Mkfifo(path, mode) => {
                let mode = Mode::new(FileType::Fifo, *mode);
                p.mknod(cwd, path.as_bytes(), mode, Rdev(0)).map(done)
            }
            Call::Symlink(target, path) => {
                p.symlink(target.as_bytes(), cwd, path.as_bytes()).map(done)
            }
            Call::Link(old, symlinks, new) => p
                .link(cwd, old.as_bytes(), *symlinks, cwd, new.as_bytes())
                .map(done),
            Call::Unlink(path) => p.unlink(cwd, path.as_bytes()).map(done),
            Call::Rmdir(path) => p.rmdir(cwd, path.as_bytes()).map(done),
            Call::Rename(old, new, flags) => {
                let flags = RenameFlags::from_bits_retain(*flags);
                p.rename(cwd, old.as_bytes(), cwd, new.as_bytes(), flags)
                    .map(done)
            }
            Call::List(path) => {
                let flags = OpenFlags::DIRECTORY;
                let fd = p.open(cwd, path.as_bytes(), flags, 0)?;
                let mut names = Vec::new();
                let end = p.read_dir(fd, |entry| {
                    names.push(entry.name.to_vec());
                    true
                });
                p.close(fd)?;
                match end {
                    Ok(end) => assert!(end),
                    // The C library ends the list of a directory that was removed.
                    Err(error) if error.errno() == Errno::ENOENT => {
                        names = vec![b".".to_vec(), b"..".to_vec()];
                    }
                    Err(error) => return Err(error),
                }
                names.sort();
                Ok((names.len() as i64, names.join(&b'/')))
            }
            Call::Chdir(path) => p.chdir(cwd, path.as_bytes()).map(done),
            Call::Getcwd => Ok((0, p.getcwd()?)),
            Call::Setxattr(path, symlinks, name, value, flags) => {
                let flags = XattrFlags::from_bits_retain(*flags);
                let (path, name) = (path.as_bytes(), name.as_bytes());
                p.setxattr(cwd, path, *symlinks, name, &value.0, flags)
                    .map(done)
            }
            Call::Getxattr(path, symlinks, name, len) => {
                let mut value = vec![0; *len];
                let (path, name) = (path.as_bytes(), name.as_bytes());
                let n = p.getxattr(cwd, path, *symlinks, name, &mut value)?;
                value.truncate(n);
                Ok((n as i64, value))
            }
            Call::Become(uid) => {
                let caller = match *uid {
                    0 => Caller::ROOT,
                    uid => Caller {
                        uid,
                        gid: uid,
                        capabilities: Capabilities::empty(),
                        ..Caller::ROOT
                    },
                };
                set_caller(caller, &groups(*uid));
                number(0)
            }
            Call::Removexattr(path, symlinks, name) => {
                let (path, name) = (path.as_bytes(), name.as_bytes());
                p.removexattr(cwd, path, *symlinks, name).map(done)
            }
        }
    }
}

fn sized(size: u64) -> Changes {
    Changes {
        size: Some(size),
        ..Changes::default()
    }
}
