//! Requests about attributes.

use core::time::Duration;

use super::message::{Args, Body, malformed};
use super::{Handled, Request, Server};
use crate::abi::{Errno, fail, fattr, init};
use crate::memfs::Ino;

/// `getattr_flags`: the handle is valid.
const GETATTR_FH: u32 = 1;

impl Server {
    fn getattr_target(&mut self, request: &Request, args: &mut Args) -> Result<Ino, super::Stop> {
        let flags = args.u32()?;
        args.reserved(4)?;
        let fh = args.u64()?;
        if flags & !GETATTR_FH != 0 {
            return malformed(format!("getattr_flags {flags:#x}"));
        }
        if flags & GETATTR_FH != 0 {
            return Ok(self.handle_of(request.nodeid, fh)?.ino);
        }
        Ok(self.ino(request.nodeid)?)
    }

    pub(super) fn op_getattr(&mut self, request: &Request, mut args: Args) -> Handled {
        let ino = self.getattr_target(request, &mut args)?;
        args.end()?;
        self.attr_out(ino)
    }

    fn attr_out(&mut self, ino: Ino) -> Handled {
        let stat = self.fs.getattr(ino)?;
        let flags = self.attr_flags(&stat);
        Ok(Body::default().attr_out(&stat, flags, self.config.attr_valid))
    }

    pub(super) fn op_statx(&mut self, request: &Request, mut args: Args) -> Handled {
        let ino = self.getattr_target(request, &mut args)?;
        args.bytes(8)?;
        args.end()?;
        let stat = self.fs.getattr(ino)?;
        let valid = self.config.attr_valid;
        let body = Body::default()
            .u64(valid.as_secs())
            .u32(valid.subsec_nanos())
            .u32(0)
            .zeros(16);
        Ok(body.statx(&stat))
    }

    pub(super) fn op_setattr(&mut self, request: &Request, mut args: Args) -> Handled {
        let valid = args.u32()?;
        args.reserved(4)?;
        let (fh, size, _lock_owner) = (args.u64()?, args.u64()?, args.u64()?);
        let seconds = [args.u64()?, args.u64()?, args.u64()?];
        let nanos = [args.u32()?, args.u32()?, args.u32()?];
        let mode = args.u32()?;
        args.reserved(4)?;
        let (uid, gid) = (args.u32()?, args.u32()?);
        args.reserved(4)?;
        args.end()?;
        let has = |bit| valid & bit != 0;
        if has(!0xFFF)
            || has(fattr::ATIME_NOW) && !has(fattr::ATIME)
            || has(fattr::MTIME_NOW) && !has(fattr::MTIME)
            || has(fattr::KILL_SUIDGID) && !self.has(init::HANDLE_KILLPRIV_V2)
            || nanos.iter().any(|&n| n >= 1_000_000_000)
        {
            return malformed(format!("SETATTR valid {valid:#x}, nanoseconds {nanos:?}"));
        }
        let ino = self.ino(request.nodeid)?;
        if has(fattr::FH) {
            let handle = self.handle_of(request.nodeid, fh)?;
            if has(fattr::SIZE) && handle.flags & libc::O_ACCMODE as u32 == libc::O_RDONLY as u32 {
                return Err(Errno(libc::EINVAL).into());
            }
        }
        // The order of virtiofsd: mode, owner, size, times.
        if has(fattr::MODE) {
            let stat = &mut self.fs.inode_mut(ino)?.stat;
            stat.mode = stat.mode & libc::S_IFMT | mode & 0o7777;
        }
        if has(fattr::UID | fattr::GID) {
            let stat = &mut self.fs.inode_mut(ino)?.stat;
            stat.uid = if has(fattr::UID) { uid } else { stat.uid };
            stat.gid = if has(fattr::GID) { gid } else { stat.gid };
            if self.has(init::HANDLE_KILLPRIV | init::HANDLE_KILLPRIV_V2) {
                self.kill_privileges(ino)?;
            }
        }
        if has(fattr::SIZE) {
            self.copy_up(ino)?;
            self.resize(ino, size)?;
            if has(fattr::KILL_SUIDGID) || self.has(init::HANDLE_KILLPRIV) {
                self.kill_privileges(ino)?;
            }
        }
        self.fs.changed(ino);
        let now = self.fs.now();
        let writeback = self.has(init::WRITEBACK_CACHE);
        let stat = &mut self.fs.inode_mut(ino)?.stat;
        let time = |i: usize| Duration::new(seconds[i], nanos[i]);
        if has(fattr::ATIME) {
            stat.atime = if has(fattr::ATIME_NOW) { now } else { time(0) };
        }
        if has(fattr::MTIME) {
            stat.mtime = if has(fattr::MTIME_NOW) { now } else { time(1) };
        }
        if has(fattr::CTIME) && writeback {
            stat.ctime = time(2);
        }
        self.attr_out(ino)
    }

    pub(super) fn op_statfs(&mut self, request: &Request, args: Args) -> Handled {
        args.end()?;
        self.ino(request.nodeid)?;
        let files = self.fs.count();
        let body = Body::default()
            .u64(1 << 28)
            .u64(1 << 27)
            .u64(1 << 27)
            .u64(1 << 20);
        let body = body.u64((1_u64 << 20).saturating_sub(files));
        Ok(body
            .u32(4096)
            .u32(crate::memfs::NAME_MAX as u32)
            .u32(4096)
            .zeros(28))
    }

    pub(super) fn op_access(&mut self, request: &Request, mut args: Args) -> Handled {
        let mask = args.u32()?;
        args.reserved(4)?;
        args.end()?;
        if mask > 7 {
            return malformed(format!("ACCESS mask {mask:#o}"));
        }
        let ino = self.ino(request.nodeid)?;
        let stat = self.fs.getattr(ino)?;
        let shift = match () {
            () if request.uid == stat.uid => 6,
            () if request.gid == stat.gid => 3,
            () => 0,
        };
        let root = request.uid == 0 && (mask & 1 == 0 || stat.mode & 0o111 != 0);
        if !root && mask & !(stat.mode >> shift) != 0 {
            return Ok(fail(libc::EACCES)?);
        }
        Ok(Body::default())
    }
}
