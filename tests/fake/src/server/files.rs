//! Opening, closing, reading and writing (protocol.md 4.7, 4.8).

use super::message::{Args, Body, Grant, Stop, malformed};
use super::nodes::OpenHandle;
use super::{Handled, Request, Server};
use crate::abi::{Errno, Op, fail, init};
use crate::memfs::Ino;

const KILL_SUIDGID: u32 = 1;
const RELEASE_FLOCK_UNLOCK: u32 = 2;
const READ_LOCKOWNER: u32 = 2;
const WRITE_CACHE: u32 = 1;
const WRITE_LOCKOWNER: u32 = 2;
const WRITE_KILL_SUIDGID: u32 = 4;

impl Server {
    pub(super) fn check_open_flags(&self, open_flags: u32) -> Result<(), Stop> {
        if open_flags & !KILL_SUIDGID != 0 || open_flags != 0 && !self.has(init::HANDLE_KILLPRIV_V2)
        {
            return malformed(format!("open_flags {open_flags:#x}"));
        }
        Ok(())
    }

    /// Opens a handle and appends `fuse_open_out`.
    pub(super) fn open_out(&mut self, body: Body, handle: OpenHandle) -> Body {
        self.fs.pin(handle.ino);
        let fh = self.handles.add(handle);
        let flags = if handle.is_dir {
            self.config.opendir_flags
        } else {
            self.config.open_flags
        };
        body.u64(fh).u32(flags).u32(0).grant(Grant::Open(fh))
    }

    pub(super) fn op_open(&mut self, request: &Request, mut args: Args) -> Handled {
        let (flags, open_flags) = (args.u32()?, args.u32()?);
        args.end()?;
        self.check_open_flags(open_flags)?;
        let nodeid = request.nodeid;
        if request.op == Op::OPENDIR {
            let ino = self.is_dir(nodeid)?;
            return Ok(self.open_out(
                Body::default(),
                OpenHandle {
                    nodeid,
                    ino,
                    flags,
                    is_dir: true,
                },
            ));
        }
        let set = |flag: i32| flags & flag as u32 != 0;
        if set(libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY) {
            return malformed(format!("OPEN with flags {flags:#o}"));
        }
        let ino = self.ino(nodeid)?;
        self.fs.content(ino)?;
        if flags as i32 & libc::O_ACCMODE != libc::O_RDONLY || set(libc::O_TRUNC) {
            self.copy_up(ino)?;
        }
        if set(libc::O_TRUNC) {
            if !self.has(init::ATOMIC_O_TRUNC) {
                return malformed("O_TRUNC without ATOMIC_O_TRUNC");
            }
            self.resize(ino, 0)?;
            if open_flags & KILL_SUIDGID != 0 || self.has(init::HANDLE_KILLPRIV) {
                self.kill_privileges(ino)?;
            }
        }
        Ok(self.open_out(
            Body::default(),
            OpenHandle {
                nodeid,
                ino,
                flags,
                is_dir: false,
            },
        ))
    }

    /// What is open for reading shows from now on what the file holds now.
    pub(super) fn copy_up(&mut self, ino: Ino) -> Result<(), Errno> {
        if !self.config.copy_up || !self.upper.insert(ino) {
            return Ok(());
        }
        let file = self.fs.content(ino)?;
        let data = file.read(&self.fs.disk, 0, file.size())?;
        let readers = self.handles.open.iter().filter(|(_, h)| h.ino == ino);
        self.lower
            .extend(readers.map(|(&fh, _)| (fh, data.clone())));
        Ok(())
    }

    pub(super) fn op_release(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, flags, release_flags) = (args.u64()?, args.u32()?, args.u32()?);
        let owner = args.u64()?;
        args.end()?;
        let handle = self.handle_of(request.nodeid, fh)?;
        if handle.is_dir != (request.op == Op::RELEASEDIR) {
            return malformed("RELEASE and RELEASEDIR confused");
        }
        let kept = !(libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY) as u32;
        if self.handles.open.contains_key(&fh) && flags & kept != handle.flags & kept {
            self.violations.push(format!(
                "RELEASE of handle {fh} with flags {flags:#o}, opened with {:#o}",
                handle.flags
            ));
        }
        if release_flags & !3 != 0 {
            return malformed(format!("release_flags {release_flags:#x}"));
        }
        if release_flags & RELEASE_FLOCK_UNLOCK != 0 {
            self.drop_flocks(handle.ino, owner);
        }
        self.close(fh);
        Ok(Body::default())
    }

    pub(super) fn op_flush(&mut self, request: &Request, mut args: Args) -> Handled {
        let fh = args.u64()?;
        args.reserved(8)?;
        let owner = args.u64()?;
        args.end()?;
        let handle = self.handle_of(request.nodeid, fh)?;
        self.drop_posix_locks(handle.ino, owner);
        Ok(Body::default())
    }

    pub(super) fn op_fsync(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, flags) = (args.u64()?, args.u32()?);
        args.reserved(4)?;
        args.end()?;
        let handle = self.handle_of(request.nodeid, fh)?;
        if flags > 1 || handle.is_dir != (request.op == Op::FSYNCDIR) {
            return malformed(format!(
                "fsync_flags {flags:#x}, directory: {}",
                handle.is_dir
            ));
        }
        Ok(Body::default())
    }

    pub(super) fn op_syncfs(&mut self, request: &Request, mut args: Args) -> Handled {
        args.reserved(8)?;
        args.end()?;
        self.ino(request.nodeid)?;
        Ok(Body::default())
    }

    /// Bytes that one READ or READDIR may ask for.
    pub(super) fn max_read(&self) -> u64 {
        let pages = if self.has(init::MAX_PAGES) {
            u64::from(self.config.max_pages).max(1)
        } else {
            32
        };
        pages * 4096
    }

    pub(super) fn op_read(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, offset, size) = (args.u64()?, args.u64()?, args.u32()?);
        let (read_flags, _owner, _flags) = (args.u32()?, args.u64()?, args.u32()?);
        args.reserved(4)?;
        args.end()?;
        let size = u64::from(size);
        if read_flags & !READ_LOCKOWNER != 0
            || offset
                .checked_add(size)
                .is_none_or(|end| end > i64::MAX as u64)
            || size > self.max_read()
        {
            return malformed(format!(
                "READ of {size} bytes at {offset}, flags {read_flags:#x}"
            ));
        }
        if request.room as u64 != size {
            return malformed(format!(
                "READ of {size} bytes with room for {}",
                request.room
            ));
        }
        let handle = self.handle_of(request.nodeid, fh)?;
        let mode = handle.flags as i32 & libc::O_ACCMODE;
        if mode == libc::O_WRONLY && !self.has(init::WRITEBACK_CACHE) {
            return Ok(fail(libc::EBADF)?);
        }
        let data = match self.lower.get(&fh) {
            Some(lower) => lower
                .iter()
                .skip(offset as usize)
                .take(size as usize)
                .copied()
                .collect(),
            None => self
                .fs
                .content(handle.ino)?
                .read(&self.fs.disk, offset, size)?,
        };
        Ok(Body {
            bytes: data,
            grants: Vec::new(),
        })
    }

    pub(super) fn op_write(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, mut offset, size) = (args.u64()?, args.u64()?, args.u32()?);
        let (write_flags, _owner, flags) = (args.u32()?, args.u64()?, args.u32()?);
        args.reserved(4)?;
        let data = args.rest();
        let known = WRITE_CACHE | WRITE_LOCKOWNER | WRITE_KILL_SUIDGID;
        let max = if self.has(init::BIG_WRITES) {
            self.config.max_write.max(4096)
        } else {
            4096
        };
        if data.len() != size as usize || size > max || write_flags & !known != 0 {
            return malformed(format!(
                "WRITE of {size} bytes (at most {max}) has {}, flags {write_flags:#x}",
                data.len()
            ));
        }
        let handle = self.handle_of(request.nodeid, fh)?;
        if handle.flags as i32 & libc::O_ACCMODE == libc::O_RDONLY {
            return Ok(fail(libc::EBADF)?);
        }
        if flags & libc::O_APPEND as u32 != 0 && write_flags & WRITE_CACHE == 0 {
            offset = self.fs.content(handle.ino)?.size();
        }
        self.edit(handle.ino, |file, disk| file.write(disk, offset, data))?;
        if write_flags & WRITE_KILL_SUIDGID != 0 || self.has(init::HANDLE_KILLPRIV) {
            self.kill_privileges(handle.ino)?;
        }
        Ok(Body::default().u32(size).u32(0))
    }

    pub(super) fn op_ioctl(&mut self, request: &Request, mut args: Args) -> Handled {
        const GETFLAGS: u32 = 0x8008_6601;
        const SETFLAGS: u32 = 0x4008_6602;
        let (fh, flags, cmd, arg) = (args.u64()?, args.u32()?, args.u32()?, args.u64()?);
        let (in_size, out_size) = (args.u32()? as usize, args.u32()? as usize);
        let input = args.rest();
        if input.len() != in_size || request.room < 16 + out_size {
            return malformed(format!(
                "IOCTL of {in_size} bytes has {}, of {out_size} has room for {}",
                input.len(),
                request.room
            ));
        }
        let handle = self.handle_of(request.nodeid, fh)?;
        if handle.is_dir && !self.has(init::HAS_IOCTL_DIR) {
            return malformed("IOCTL on a directory without HAS_IOCTL_DIR");
        }
        let out = |result: u32, data: &[u8]| {
            Body::default()
                .u32(result)
                .u32(0)
                .u32(0)
                .u32(0)
                .raw(&data[..data.len().min(out_size)])
        };
        match cmd {
            GETFLAGS => {
                let value = self.fs.inode(handle.ino)?.ioctl_flags;
                Ok(out(0, &u64::from(value).to_le_bytes()))
            }
            SETFLAGS => {
                let value = Args::new(input).u32()?;
                self.fs.inode_mut(handle.ino)?.ioctl_flags = value;
                self.fs.changed(handle.ino);
                Ok(out(0, &[]))
            }
            IOCTL_REVERSE => {
                const UNRESTRICTED: u32 = 2;
                const RETRY: u32 = 4;
                if input.is_empty() && flags & UNRESTRICTED != 0 {
                    // One area to read and one to write, 8 bytes at `arg` each.
                    let body = Body::default().u32(0).u32(RETRY).u32(1).u32(1);
                    return Ok(body.u64(arg).u64(8).u64(arg).u64(8));
                }
                let reversed: Vec<u8> = input.iter().rev().copied().collect();
                Ok(out(reversed.len() as u32, &reversed))
            }
            _ => Ok(fail(libc::ENOTTY)?),
        }
    }

    pub(super) fn op_poll(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, kh, flags, events) = (args.u64()?, args.u64()?, args.u32()?, args.u32()?);
        args.end()?;
        let handle = self.handle_of(request.nodeid, fh)?;
        let always = (libc::POLLIN | libc::POLLOUT | libc::POLLRDNORM | libc::POLLWRNORM) as u32;
        let ready = self.poll_ready.get(&handle.ino).copied().unwrap_or(always) & events;
        if ready == 0 && flags & 1 != 0 {
            self.poll_waiters.push((handle.ino, kh));
        }
        Ok(Body::default().u32(ready).u32(0))
    }

    /// Sets what POLL says about a file and wakes who waits for it.
    pub(crate) fn set_poll(&mut self, ino: crate::memfs::Ino, events: u32) {
        self.poll_ready.insert(ino, events);
        if events == 0 {
            return;
        }
        let waiters = core::mem::take(&mut self.poll_waiters);
        for (waiting, kh) in waiters {
            if waiting == ino {
                self.notify(&super::Notification::Poll { kh });
            } else {
                self.poll_waiters.push((waiting, kh));
            }
        }
    }

    pub(super) fn op_bmap(&mut self, request: &Request, mut args: Args) -> Handled {
        let (block, size) = (args.u64()?, args.u32()?);
        args.reserved(4)?;
        args.end()?;
        if size == 0 {
            return malformed("BMAP with blocks of no bytes");
        }
        let ino = self.ino(request.nodeid)?;
        self.fs.content(ino)?;
        // A made-up device on which each file takes 2^20 blocks.
        Ok(Body::default().u64((ino.0 << 20) + block))
    }
}

/// An ioctl for tests of the retry protocol: returns its input backwards. An
/// unrestricted call without input is told to come again with the 8 bytes at
/// its argument.
pub const IOCTL_REVERSE: u32 = 0xC008_F001;

impl Server {
    pub(super) fn writable(&mut self, nodeid: u64, fh: u64) -> Result<OpenHandle, Errno> {
        let handle = self.handle_of(nodeid, fh)?;
        if handle.flags as i32 & libc::O_ACCMODE == libc::O_RDONLY {
            return fail(libc::EBADF);
        }
        Ok(handle)
    }
}
