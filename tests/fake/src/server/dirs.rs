//! READDIR and READDIRPLUS (protocol.md 2.3).

use super::message::{Args, Body, malformed};
use super::names::entry_head;
use super::{Handled, Request, Server};
use crate::abi::{ENTRY_OUT, Op, fail, init};
use core::time::Duration;

const DIRENT: usize = 24;

impl Server {
    pub(super) fn op_readdir(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, cookie, size) = (args.u64()?, args.u64()?, args.u32()? as usize);
        args.bytes(16)?;
        args.reserved(4)?;
        args.end()?;
        let plus = request.op == Op::READDIRPLUS;
        if plus && !self.has(init::DO_READDIRPLUS) {
            return malformed("READDIRPLUS was not negotiated");
        }
        if size < DIRENT || size as u64 > self.max_read().max(1 << 20) {
            return malformed(format!("directory read of {size} bytes"));
        }
        if request.room < size {
            self.violations.push(format!(
                "directory read of {size} bytes, room {}",
                request.room
            ));
            return Ok(fail(libc::ENOMEM)?);
        }
        let handle = self.handle_of(request.nodeid, fh)?;
        let dir = self.fs.dir(handle.ino)?;
        if self.fs.inode(handle.ino)?.stat.nlink == 0 {
            return Ok(Body::default());
        }
        let head = if plus { ENTRY_OUT } else { 0 } + DIRENT;
        let mut room = size;
        let mut records = Vec::new();
        for (cookie, name, ino) in dir.after(cookie) {
            let len = (head + name.len()).next_multiple_of(8);
            if len > room {
                break;
            }
            room -= len;
            records.push((cookie, name.to_vec(), ino));
        }
        let mut body = Body::default();
        for (cookie, name, ino) in records {
            let stat = self.fs.getattr(ino)?;
            if plus && (name == b"." || name == b"..") {
                body = entry_head(body, 0, 0, Duration::ZERO, Duration::ZERO).attr(&stat, 0);
            } else if plus {
                body = self.entry(body, ino)?;
            }
            body = body.u64(stat.ino).u64(cookie).u32(name.len() as u32);
            body = body.u32((stat.mode & libc::S_IFMT) >> 12).raw(&name);
            let pad = body.bytes.len().next_multiple_of(8) - body.bytes.len();
            body = body.zeros(pad);
        }
        debug_assert!(body.bytes.len() <= size);
        Ok(body)
    }
}
