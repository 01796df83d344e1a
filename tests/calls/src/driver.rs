//! The driver's side.

use alloc::{format, string::String, vec, vec::Vec};
use core::fmt;

use virtio_fs::Errno;
use virtio_fs::fs::{At, Changes, Durable, Fd, LockWait, Metadata, Process, Symlinks};
use virtio_fs::platform::{Caller, Capabilities, Platform};
use virtio_fs::wire::{
    FallocateMode, FileType, Lock, Mode, OpenFlags, Rdev, RenameFlags, SeekWhence, SetTime, Time,
    XattrFlags,
};

use crate::call::{Call, Moment, Outcome, groups, stat_bytes};

/// Runs calls on the driver, as one process.
pub struct Driver<'a, P: Platform, B> {
    process: &'a Process<P>,
    become_caller: B,
    files: Vec<Fd>,
}

impl<P: Platform, B> fmt::Debug for Driver<'_, P, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl<'a, P: Platform, B: FnMut(Caller, &[u32])> Driver<'a, P, B> {
    /// Begins without open files. `become_caller` tells the platform on whose behalf calls come from
    /// then on, and which groups that user is in besides.
    pub fn new(process: &'a Process<P>, become_caller: B) -> Self {
        Self {
            process,
            become_caller,
            files: Vec::new(),
        }
    }

    /// How many files are open.
    pub fn open(&self) -> usize {
        self.files.len()
    }

    fn fd(&self, at: usize) -> Fd {
        self.files.get(at).copied().unwrap_or(Fd(999))
    }

    /// Runs a call.
    pub fn run(&mut self, call: &Call) -> Outcome {
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
            Call::OpenAt(dir, path, flags, mode) => {
                let dir = At::Fd(self.fd(*dir));
                let fd = p.open(dir, path.as_bytes(), *flags, *mode)?;
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
            Call::Sync(at, data) => {
                let durable = if *data { Durable::Data } else { Durable::All };
                p.fsync(self.fd(*at), durable).map(done)
            }
            Call::Fchmod(at, mode) => p.fset(self.fd(*at), &permitted(*mode)).map(done),
            Call::Fchown(at, uid, gid) => p.fset(self.fd(*at), &owned(*uid, *gid)).map(done),
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
            Call::StatAt(dir, path, symlinks) => {
                let dir = At::Fd(self.fd(*dir));
                p.stat(dir, path.as_bytes(), *symlinks).map(stat)
            }
            Call::Utimens(path, symlinks, atime, mtime) => {
                let changes = Changes {
                    atime: set_time(*atime),
                    mtime: set_time(*mtime),
                    ..Changes::default()
                };
                p.set(cwd, path.as_bytes(), *symlinks, &changes)?;
                let now = p.stat(cwd, path.as_bytes(), *symlinks)?;
                Ok((0, times(&now, *atime, *mtime).into_bytes()))
            }
            Call::Chmod(path, mode) => p
                .set(cwd, path.as_bytes(), Symlinks::Follow, &permitted(*mode))
                .map(done),
            Call::Chown(path, symlinks, uid, gid) => p
                .set(cwd, path.as_bytes(), *symlinks, &owned(*uid, *gid))
                .map(done),
            Call::Truncate(path, size) => p
                .set(cwd, path.as_bytes(), Symlinks::Follow, &sized(*size))
                .map(done),
            Call::Access(path, wanted) => {
                let wanted = virtio_fs::fs::Access::from_bits_retain(*wanted);
                p.access(cwd, path.as_bytes(), wanted).map(done)
            }
            Call::Readlink(path) => Ok((0, p.readlink(cwd, path.as_bytes())?.to_vec())),
            Call::Mkdir(path, mode) => p.mkdir(cwd, path.as_bytes(), *mode).map(done),
            Call::Mknod(path, kind, mode) => {
                let kind = match *kind {
                    0o140_000 => FileType::Socket,
                    0o020_000 => FileType::CharDevice,
                    _ => FileType::Fifo,
                };
                p.mknod(cwd, path.as_bytes(), Mode::new(kind, *mode), Rdev(0x0103))
                    .map(done)
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
            Call::Fsetxattr(at, name, value, flags) => {
                let flags = XattrFlags::from_bits_retain(*flags);
                p.fsetxattr(self.fd(*at), name.as_bytes(), &value.0, flags)
                    .map(done)
            }
            Call::Listxattr(path, symlinks, len) => {
                let mut list = vec![0; *len];
                let n = p.listxattr(cwd, path.as_bytes(), *symlinks, &mut list)?;
                list.truncate(n);
                let mut names: Vec<_> = list.split(|byte| *byte == 0).collect();
                names.sort_unstable();
                Ok((n as i64, names.join(&b'/')))
            }
            Call::Getxattr(path, symlinks, name, len) => {
                let mut value = vec![0; *len];
                let (path, name) = (path.as_bytes(), name.as_bytes());
                let n = p.getxattr(cwd, path, *symlinks, name, &mut value)?;
                value.truncate(n);
                Ok((n as i64, value))
            }
            Call::Become(uid, umask) => {
                let caller = match *uid {
                    0 => Caller::ROOT,
                    uid => Caller {
                        uid,
                        gid: uid,
                        capabilities: Capabilities::empty(),
                        ..Caller::ROOT
                    },
                };
                let caller = Caller {
                    umask: *umask,
                    ..caller
                };
                (self.become_caller)(caller, &groups(*uid));
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

fn permitted(mode: u32) -> Changes {
    Changes {
        permissions: Some(mode),
        ..Changes::default()
    }
}

fn owned(uid: u32, gid: u32) -> Changes {
    let id = |id: u32| (id != u32::MAX).then_some(id);
    Changes {
        uid: id(uid),
        gid: id(gid),
        ..Changes::default()
    }
}

fn set_time(moment: Moment) -> SetTime {
    match moment {
        Moment::Omit => SetTime::Keep,
        Moment::Now => SetTime::Now,
        Moment::At(sec, nsec) => SetTime::To(Time::new(sec, nsec)),
    }
}

/// The times that were set to a known value.
fn times(now: &Metadata, atime: Moment, mtime: Moment) -> String {
    let shown = |wanted, time: Time| match wanted {
        Moment::At(..) => format!("{}.{:09}", time.sec, time.nsec),
        _ => String::new(),
    };
    format!(
        "{} {}",
        shown(atime, now.attr.atime),
        shown(mtime, now.attr.mtime)
    )
}
