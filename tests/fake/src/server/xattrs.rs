//! Extended attributes.

use super::message::{Args, Body, malformed};
use super::{Handled, Request, Server};
use crate::abi::{Errno, fail, init};

/// Longest attribute name and value of Linux.
const NAME_MAX: usize = 255;
const VALUE_MAX: usize = 65536;

impl Server {
    pub(super) fn op_setxattr(&mut self, request: &Request, mut args: Args) -> Handled {
        let (size, flags) = (args.u32()? as usize, args.u32()? as i32);
        let mut kill_sgid = false;
        if self.has(init::SETXATTR_EXT) {
            kill_sgid = args.u32()? & 1 != 0;
            args.reserved(4)?;
        }
        let name = args.string()?;
        let value = args.rest();
        if value.len() != size {
            return malformed(format!("SETXATTR of {size} bytes has {}", value.len()));
        }
        if name.is_empty() || name.len() > NAME_MAX || size > VALUE_MAX {
            return Ok(fail(libc::ERANGE)?);
        }
        let ino = self.ino(request.nodeid)?;
        let inode = self.fs.inode_mut(ino)?;
        match inode.xattrs.contains_key(name) {
            true if flags & libc::XATTR_CREATE != 0 => return Ok(fail(libc::EEXIST)?),
            false if flags & libc::XATTR_REPLACE != 0 => return Ok(fail(libc::ENODATA)?),
            _ => inode.xattrs.insert(name.to_vec(), value.to_vec()),
        };
        if kill_sgid {
            inode.stat.mode &= !libc::S_ISGID;
        }
        self.fs.changed(ino);
        Ok(Body::default())
    }

    /// The size protocol of GETXATTR and LISTXATTR.
    fn sized(&self, request: &Request, size: u32, value: &[u8]) -> Handled {
        if size == 0 {
            return Ok(Body::default().u32(value.len() as u32).u32(0));
        }
        if request.room < size as usize {
            return malformed(format!("room for {} of {size} bytes", request.room));
        }
        if value.len() > size as usize {
            return Ok(fail(libc::ERANGE)?);
        }
        Ok(Body::default().raw(value))
    }

    pub(super) fn op_getxattr(&mut self, request: &Request, mut args: Args) -> Handled {
        let size = args.u32()?;
        args.reserved(4)?;
        let name = args.string()?;
        args.end()?;
        let ino = self.ino(request.nodeid)?;
        let value = self
            .fs
            .inode(ino)?
            .xattrs
            .get(name)
            .ok_or(Errno(libc::ENODATA))?;
        self.sized(request, size, value)
    }

    pub(super) fn op_listxattr(&mut self, request: &Request, mut args: Args) -> Handled {
        let size = args.u32()?;
        args.reserved(4)?;
        args.end()?;
        let ino = self.ino(request.nodeid)?;
        let mut list = Vec::new();
        for name in self.fs.inode(ino)?.xattrs.keys() {
            list.extend_from_slice(name);
            list.push(0);
        }
        self.sized(request, size, &list)
    }

    pub(super) fn op_removexattr(&mut self, request: &Request, mut args: Args) -> Handled {
        let name = args.string()?;
        args.end()?;
        let ino = self.ino(request.nodeid)?;
        if self.fs.inode_mut(ino)?.xattrs.remove(name).is_none() {
            return Ok(fail(libc::ENODATA)?);
        }
        self.fs.changed(ino);
        Ok(Body::default())
    }
}
