//! The host's side.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use virtio_fs::fs::Symlinks;
use virtio_fs::wire::LockKind;

use virtio_fs_calls::{Call, Moment, Outcome, groups, stat_bytes};

/// The host's side: a process that was chrooted into the other directory, since
/// `..` and `/` must end there too.
pub(crate) struct Host {
    files: Vec<RawFd>,
}

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn answer<T: Into<i64>>(result: T) -> Outcome {
    match result.into() {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap()),
        n => Ok((n, Vec::new())),
    }
}

fn timespec(moment: Moment) -> libc::timespec {
    let (tv_sec, tv_nsec) = match moment {
        Moment::Omit => (0, libc::UTIME_OMIT),
        Moment::Now => (0, libc::UTIME_NOW),
        Moment::At(sec, nsec) => (sec, nsec.into()),
    };
    libc::timespec { tv_sec, tv_nsec }
}

fn filled(outcome: Outcome, buf: &[u8]) -> Outcome {
    outcome.map(|(n, _)| (n, buf[..(n as usize).min(buf.len())].to_vec()))
}

impl Host {
    fn fd(&self, at: usize) -> RawFd {
        self.files.get(at).copied().unwrap_or(-1)
    }

    fn push(&mut self, outcome: Outcome) -> Outcome {
        let (fd, _) = outcome?;
        self.files.push(fd as RawFd);
        Ok((0, Vec::new()))
    }

    fn stat(result: i32, stat: &libc::stat) -> Outcome {
        answer(result)?;
        let size = stat.st_size as u64;
        let bytes = stat_bytes(stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, size);
        Ok((0, bytes))
    }

    /// Makes the calling thread see `dir` as all there is.
    pub(crate) fn enter(dir: &Path) -> Self {
        let dir = CString::new(dir.as_os_str().as_bytes()).unwrap();
        // SAFETY: system calls that change this thread's root and directory
        // alone, since it shares them with no other any more.
        let done = unsafe {
            libc::unshare(libc::CLONE_FS) == 0
                && libc::chroot(dir.as_ptr()) == 0
                && libc::chdir(c"/".as_ptr()) == 0
        };
        assert!(done, "chroot: {}", std::io::Error::last_os_error());
        // SAFETY: as above.
        unsafe { libc::umask(0o022) };
        Self { files: Vec::new() }
    }

    /// Changes the calling thread's user, and that thread's only: the C library
    /// would change all of them.
    fn become_user(uid: u32) -> Outcome {
        let groups = groups(uid);
        // SAFETY: the calls change numbers of this thread; the list has the length
        // that is passed.
        unsafe {
            answer(libc::syscall(libc::SYS_setresuid, -1, 0, -1))?;
            answer(libc::syscall(
                libc::SYS_setgroups,
                groups.len(),
                groups.as_ptr(),
            ))?;
            answer(libc::syscall(libc::SYS_setresgid, -1, uid, -1))?;
            answer(libc::syscall(libc::SYS_setresuid, -1, uid, -1))
        }
    }

    pub(crate) fn run(&mut self, call: &Call) -> Outcome {
        let no_follow = |symlinks: &Symlinks, flag| match symlinks {
            Symlinks::Follow => 0,
            Symlinks::NoFollow => flag,
        };
        let follow = |symlinks: &Symlinks| *symlinks == Symlinks::Follow;
        let at = libc::AT_FDCWD;
        // SAFETY: plain system calls; every pointer is to memory of the length
        // that is passed with it and lives through the call.
        unsafe {
            match call {
                Call::Open(path, flags, mode) => self.push(answer(libc::open(
                    c(path).as_ptr(),
                    flags.bits() as i32,
                    *mode,
                ))),
                Call::OpenAt(dir, path, flags, mode) => self.push(answer(libc::openat(
                    self.fd(*dir),
                    c(path).as_ptr(),
                    flags.bits() as i32,
                    *mode,
                ))),
                Call::Close(n) => {
                    let outcome = answer(libc::close(self.fd(*n)));
                    if outcome.is_ok() {
                        self.files.remove(*n);
                    }
                    outcome
                }
                Call::Dup(n) => self.push(answer(libc::dup(self.fd(*n)))),
                Call::Read(n, len) => {
                    let mut buf = vec![0u8; *len];
                    let outcome =
                        answer(libc::read(self.fd(*n), buf.as_mut_ptr().cast(), *len) as i64);
                    filled(outcome, &buf)
                }
                Call::Write(n, data) => {
                    answer(libc::write(self.fd(*n), data.0.as_ptr().cast(), data.0.len()) as i64)
                }
                Call::Pread(n, len, offset) => {
                    let mut buf = vec![0u8; *len];
                    let p = buf.as_mut_ptr().cast();
                    let outcome = answer(libc::pread(self.fd(*n), p, *len, *offset as i64) as i64);
                    filled(outcome, &buf)
                }
                Call::Pwrite(n, data, offset) => {
                    let p = data.0.as_ptr().cast();
                    answer(libc::pwrite(self.fd(*n), p, data.0.len(), *offset as i64) as i64)
                }
                Call::Seek(n, offset, whence) => answer(libc::lseek(self.fd(*n), *offset, *whence)),
                Call::Sync(n, true) => answer(libc::fdatasync(self.fd(*n))),
                Call::Sync(n, false) => answer(libc::fsync(self.fd(*n))),
                Call::Fchmod(n, mode) => answer(libc::fchmod(self.fd(*n), *mode)),
                Call::Fchown(n, uid, gid) => answer(libc::fchown(self.fd(*n), *uid, *gid)),
                Call::Ftruncate(n, size) => answer(libc::ftruncate(self.fd(*n), *size as i64)),
                Call::Fstat(n) => {
                    let mut stat = std::mem::zeroed();
                    Self::stat(libc::fstat(self.fd(*n), &mut stat), &stat)
                }
                Call::Fallocate(n, mode, offset, len) => {
                    let (mode, offset, len) = (*mode as i32, *offset as i64, *len as i64);
                    answer(libc::fallocate(self.fd(*n), mode, offset, len))
                }
                Call::Copy(from, from_at, to, to_at, len) => {
                    let (mut from_at, mut to_at) =
                        (from_at.map(|n| n as i64), to_at.map(|n| n as i64));
                    let pointer = |at: &mut Option<i64>| {
                        at.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut)
                    };
                    let (p, q) = (pointer(&mut from_at), pointer(&mut to_at));
                    let (from, to) = (self.fd(*from), self.fd(*to));
                    answer(libc::copy_file_range(from, p, to, q, *len as usize, 0) as i64)
                }
                Call::Lock(n, kind, start, len) => {
                    let mut lock: libc::flock = std::mem::zeroed();
                    lock.l_type = match kind {
                        LockKind::Read => libc::F_RDLCK,
                        LockKind::Write => libc::F_WRLCK,
                        LockKind::Unlock => libc::F_UNLCK,
                    } as i16;
                    (lock.l_start, lock.l_len) = (*start as i64, *len as i64);
                    answer(libc::fcntl(self.fd(*n), libc::F_SETLK, &lock))
                }
                Call::Flock(n, kind) => {
                    let kind = match kind {
                        LockKind::Read => libc::LOCK_SH,
                        LockKind::Write => libc::LOCK_EX,
                        LockKind::Unlock => libc::LOCK_UN,
                    };
                    answer(libc::flock(self.fd(*n), kind | libc::LOCK_NB))
                }
                Call::Stat(path, symlinks) => {
                    let mut stat = std::mem::zeroed();
                    let flags = no_follow(symlinks, libc::AT_SYMLINK_NOFOLLOW);
                    Self::stat(libc::fstatat(at, c(path).as_ptr(), &mut stat, flags), &stat)
                }
                Call::StatAt(dir, path, symlinks) => {
                    let mut stat = std::mem::zeroed();
                    let flags = no_follow(symlinks, libc::AT_SYMLINK_NOFOLLOW);
                    let done = libc::fstatat(self.fd(*dir), c(path).as_ptr(), &mut stat, flags);
                    Self::stat(done, &stat)
                }
                Call::Utimens(path, symlinks, atime, mtime) => {
                    let (path, flags) = (c(path), no_follow(symlinks, libc::AT_SYMLINK_NOFOLLOW));
                    let wanted = [timespec(*atime), timespec(*mtime)];
                    answer(libc::utimensat(at, path.as_ptr(), wanted.as_ptr(), flags))?;
                    let mut stat: libc::stat = std::mem::zeroed();
                    answer(libc::fstatat(at, path.as_ptr(), &mut stat, flags))?;
                    let shown = |wanted, sec: i64, nsec: i64| match wanted {
                        Moment::At(..) => format!("{sec}.{nsec:09}"),
                        _ => String::new(),
                    };
                    let atime = shown(*atime, stat.st_atime, stat.st_atime_nsec);
                    let mtime = shown(*mtime, stat.st_mtime, stat.st_mtime_nsec);
                    Ok((0, format!("{atime} {mtime}").into_bytes()))
                }
                Call::Chmod(path, mode) => answer(libc::chmod(c(path).as_ptr(), *mode)),
                Call::Chown(path, symlinks, uid, gid) => {
                    let flags = no_follow(symlinks, libc::AT_SYMLINK_NOFOLLOW);
                    answer(libc::fchownat(at, c(path).as_ptr(), *uid, *gid, flags))
                }
                Call::Truncate(path, size) => {
                    answer(libc::truncate(c(path).as_ptr(), *size as i64))
                }
                Call::Access(path, wanted) => {
                    let flags = libc::AT_EACCESS;
                    answer(libc::faccessat(at, c(path).as_ptr(), *wanted as i32, flags))
                }
                Call::Readlink(path) => {
                    let mut buf = vec![0u8; 4096];
                    let p = buf.as_mut_ptr().cast();
                    let outcome = answer(libc::readlink(c(path).as_ptr(), p, buf.len()) as i64);
                    filled(outcome, &buf).map(|(_, bytes)| (0, bytes))
                }
                Call::Mkdir(path, mode) => answer(libc::mkdir(c(path).as_ptr(), *mode)),
                Call::Mknod(path, kind, mode) => answer(libc::mknod(
                    c(path).as_ptr(),
                    kind | mode,
                    libc::makedev(1, 3),
                )),
                Call::Symlink(target, path) => {
                    answer(libc::symlink(c(target).as_ptr(), c(path).as_ptr()))
                }
                Call::Link(old, symlinks, new) => {
                    let flags = if follow(symlinks) {
                        libc::AT_SYMLINK_FOLLOW
                    } else {
                        0
                    };
                    answer(libc::linkat(
                        at,
                        c(old).as_ptr(),
                        at,
                        c(new).as_ptr(),
                        flags,
                    ))
                }
                Call::Unlink(path) => answer(libc::unlink(c(path).as_ptr())),
                Call::Rmdir(path) => answer(libc::rmdir(c(path).as_ptr())),
                Call::Rename(old, new, flags) => answer(libc::renameat2(
                    at,
                    c(old).as_ptr(),
                    at,
                    c(new).as_ptr(),
                    *flags,
                )),
                Call::List(path) => {
                    let flags = libc::O_DIRECTORY;
                    let fd = libc::open(c(path).as_ptr(), flags);
                    answer(fd)?;
                    libc::close(fd);
                    let mut names = vec![b".".to_vec(), b"..".to_vec()];
                    for entry in std::fs::read_dir(path).unwrap() {
                        names.push(entry.unwrap().file_name().as_bytes().to_vec());
                    }
                    names.sort();
                    Ok((names.len() as i64, names.join(&b'/')))
                }
                Call::Chdir(path) => answer(libc::chdir(c(path).as_ptr())),
                Call::Getcwd => match std::env::current_dir() {
                    Ok(path) => Ok((0, path.as_os_str().as_bytes().to_vec())),
                    Err(error) => Err(error.raw_os_error().unwrap()),
                },
                Call::Setxattr(path, symlinks, name, value, flags) => {
                    let (path, name) = (c(path), c(name));
                    let set = if follow(symlinks) {
                        libc::setxattr
                    } else {
                        libc::lsetxattr
                    };
                    let p = value.0.as_ptr().cast();
                    answer(set(
                        path.as_ptr(),
                        name.as_ptr(),
                        p,
                        value.0.len(),
                        *flags as i32,
                    ))
                }
                Call::Fsetxattr(n, name, value, flags) => answer(libc::fsetxattr(
                    self.fd(*n),
                    c(name).as_ptr(),
                    value.0.as_ptr().cast(),
                    value.0.len(),
                    *flags as i32,
                )),
                Call::Listxattr(path, symlinks, len) => {
                    let path = c(path);
                    let mut list = vec![0u8; *len];
                    let get = if follow(symlinks) {
                        libc::listxattr
                    } else {
                        libc::llistxattr
                    };
                    let p = list.as_mut_ptr().cast();
                    let outcome = answer(get(path.as_ptr(), p, *len) as i64);
                    let (n, list) = filled(outcome, &list)?;
                    let mut names: Vec<_> = list.split(|byte| *byte == 0).collect();
                    names.sort_unstable();
                    Ok((n, names.join(&b'/')))
                }
                Call::Getxattr(path, symlinks, name, len) => {
                    let (path, name) = (c(path), c(name));
                    let mut value = vec![0u8; *len];
                    let get = if follow(symlinks) {
                        libc::getxattr
                    } else {
                        libc::lgetxattr
                    };
                    let p = value.as_mut_ptr().cast();
                    let outcome = answer(get(path.as_ptr(), name.as_ptr(), p, *len) as i64);
                    filled(outcome, &value)
                }
                Call::Become(uid, umask) => {
                    libc::umask(*umask);
                    Self::become_user(*uid)
                }
                Call::Removexattr(path, symlinks, name) => {
                    let (path, name) = (c(path), c(name));
                    let remove = if follow(symlinks) {
                        libc::removexattr
                    } else {
                        libc::lremovexattr
                    };
                    answer(remove(path.as_ptr(), name.as_ptr()))
                }
            }
        }
    }
}
