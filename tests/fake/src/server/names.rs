//! Requests about names: look up, make, remove, move (protocol.md 4.1, 4.2).

use core::time::Duration;

use super::message::{Args, Body, Grant, Stop, malformed};
use super::nodes::OpenHandle;
use super::{Handled, Request, Server};
use crate::abi::{ATTR_DAX, ATTR_SUBMOUNT, Errno, Op, fail, init};
use crate::memfs::{Body as FileBody, Ino, New, Stat};

impl Server {
    /// The `attr.flags` that the client understands.
    pub(super) fn attr_flags(&self, stat: &Stat) -> u32 {
        if self.has(init::HAS_INODE_DAX) {
            stat.flags & ATTR_DAX
        } else {
            0
        }
    }

    /// `fuse_entry_out` of an inode, with one lookup counted.
    pub(super) fn entry(&mut self, body: Body, ino: Ino) -> Handled {
        let stat = self.fs.getattr(ino)?;
        let mut flags = self.attr_flags(&stat);
        if stat.submount && self.has(init::SUBMOUNTS) {
            flags |= ATTR_SUBMOUNT;
        }
        let ids = self.config.node_ids;
        let (nodeid, generation) = self.nodes.get(&mut self.fs, ino, ids);
        let (entry, attr) = (self.config.entry_valid, self.config.attr_valid);
        Ok(entry_head(body, nodeid, generation, entry, attr)
            .attr(&stat, flags)
            .grant(Grant::Lookup(nodeid)))
    }

    pub(super) fn op_lookup(&mut self, request: &Request, mut args: Args) -> Handled {
        let name = args.string()?;
        args.end()?;
        if name.is_empty() || name.contains(&b'/') {
            return malformed(format!("{:?} is no name", String::from_utf8_lossy(name)));
        }
        if (name == b"." || name == b"..") && !self.has(init::EXPORT_SUPPORT) {
            return malformed("LOOKUP of . or .. without EXPORT_SUPPORT");
        }
        let parent = self.ino(request.nodeid)?;
        match (self.fs.lookup(parent, name), self.config.negative_valid) {
            (Ok(ino), _) => self.entry(Body::default(), ino),
            (Err(Errno(libc::ENOENT)), Some(valid)) => {
                Ok(entry_head(Body::default(), 0, 0, valid, Duration::ZERO).zeros(88))
            }
            (Err(errno), _) => Err(errno.into()),
        }
    }

    pub(super) fn op_forget(&mut self, request: &Request, mut args: Args) -> Handled {
        let n = args.u64()?;
        args.end()?;
        self.forget(request.nodeid, n);
        Err(Stop::Silent)
    }

    pub(super) fn op_batch_forget(&mut self, mut args: Args) -> Handled {
        let count = args.u32()?;
        args.reserved(4)?;
        for _ in 0..count {
            let (nodeid, n) = (args.u64()?, args.u64()?);
            self.forget(nodeid, n);
        }
        args.end()?;
        Err(Stop::Silent)
    }

    pub(super) fn op_readlink(&mut self, request: &Request, args: Args) -> Handled {
        args.end()?;
        let ino = self.ino(request.nodeid)?;
        if request.room < 4096 {
            return malformed("READLINK wants room for 4096 bytes");
        }
        match &self.fs.inode(ino)?.body {
            FileBody::Symlink(target) => Ok(Body::default().raw(target)),
            _ => Err(Errno(libc::EINVAL).into()),
        }
    }

    fn umasked(&self, mode: u32, umask: u32) -> u32 {
        if self.has(init::DONT_MASK) {
            mode & !(umask & 0o777)
        } else {
            mode
        }
    }

    pub(super) fn op_make(&mut self, request: &Request, mut args: Args) -> Handled {
        let (mut mode, mut rdev, mut target) = (libc::S_IFLNK | 0o777, 0, &b""[..]);
        let name = match request.op {
            Op::SYMLINK => {
                let name = args.name()?;
                target = args.string()?;
                if target.is_empty() || target.len() >= libc::PATH_MAX as usize {
                    return malformed(format!("link target of {} bytes", target.len()));
                }
                name
            }
            Op::MKDIR => {
                let bits = args.u32()?;
                mode = libc::S_IFDIR | self.umasked(bits & 0o7777, args.u32()?);
                args.name()?
            }
            _ => {
                let bits = args.u32()?;
                rdev = args.u32()?;
                mode = self.umasked(bits, args.u32()?);
                args.reserved(4)?;
                if matches!(mode & libc::S_IFMT, libc::S_IFDIR | libc::S_IFLNK | 0) {
                    return malformed(format!("MKNOD of mode {mode:o}"));
                }
                args.name()?
            }
        };
        args.end()?;
        let parent = self.ino(request.nodeid)?;
        let new = New {
            mode,
            uid: request.uid,
            gid: request.gid,
            rdev,
            target,
        };
        let ino = self.fs.create(parent, name, &new)?;
        self.set_label(request, ino)?;
        self.entry(Body::default(), ino)
    }

    /// Gives a new file the label that came with the request.
    fn set_label(&mut self, request: &Request, ino: Ino) -> Result<(), Errno> {
        if let Some((name, value)) = request.label.clone() {
            self.fs.inode_mut(ino)?.xattrs.insert(name, value);
        }
        Ok(())
    }

    pub(super) fn op_create(&mut self, request: &Request, mut args: Args) -> Handled {
        let (flags, mode, umask) = (args.u32()?, args.u32()?, args.u32()?);
        self.check_open_flags(args.u32()?)?;
        let tmpfile = request.op == Op::TMPFILE;
        // The name of a TMPFILE means nothing.
        let name = if tmpfile {
            args.string()?
        } else {
            args.name()?
        };
        args.end()?;
        let parent = self.ino(request.nodeid)?;
        let mode = libc::S_IFREG | self.umasked(mode & 0o7777, umask);
        let new = New {
            mode,
            uid: request.uid,
            gid: request.gid,
            rdev: 0,
            target: &[],
        };
        let ino = if tmpfile {
            let ino = self.fs.create_nameless(parent, &new)?;
            self.set_label(request, ino)?;
            ino
        } else {
            match self.fs.lookup(parent, name) {
                Ok(ino) if flags & libc::O_EXCL as u32 == 0 => {
                    self.fs.content(ino)?;
                    if flags & libc::O_TRUNC as u32 != 0 {
                        self.resize(ino, 0)?;
                    }
                    ino
                }
                Ok(_) => return Err(Errno(libc::EEXIST).into()),
                Err(Errno(libc::ENOENT)) => {
                    let ino = self.fs.create(parent, name, &new)?;
                    self.set_label(request, ino)?;
                    ino
                }
                Err(errno) => return Err(errno.into()),
            }
        };
        let body = self.entry(Body::default(), ino)?;
        let nodeid = self.node_of(ino).unwrap_or_default();
        Ok(self.open_out(
            body,
            OpenHandle {
                nodeid,
                ino,
                flags,
                is_dir: false,
            },
        ))
    }

    pub(super) fn op_remove(&mut self, request: &Request, mut args: Args) -> Handled {
        let name = args.name()?;
        args.end()?;
        let parent = self.ino(request.nodeid)?;
        if request.op == Op::RMDIR {
            self.fs.rmdir(parent, name)?;
        } else {
            self.fs.unlink(parent, name)?;
        }
        Ok(Body::default())
    }

    pub(super) fn op_rename(&mut self, request: &Request, mut args: Args) -> Handled {
        let to = args.u64()?;
        let mut flags = 0;
        if request.op == Op::RENAME2 {
            flags = args.u32()?;
            args.reserved(4)?;
        }
        let (old, new) = (args.name()?, args.name()?);
        args.end()?;
        let (from, to) = (self.ino(request.nodeid)?, self.ino(to)?);
        self.fs.rename((from, old), (to, new), flags)?;
        Ok(Body::default())
    }

    pub(super) fn op_link(&mut self, request: &Request, mut args: Args) -> Handled {
        let old = args.u64()?;
        let name = args.name()?;
        args.end()?;
        let (ino, parent) = (self.ino(old)?, self.ino(request.nodeid)?);
        self.fs.link(ino, parent, name)?;
        self.entry(Body::default(), ino)
    }

    /// Removes set-id bits as a write by somebody unprivileged does.
    pub(super) fn kill_privileges(&mut self, ino: Ino) -> Result<(), Errno> {
        let stat = &mut self.fs.inode_mut(ino)?.stat;
        if stat.mode & libc::S_IFMT != libc::S_IFREG {
            return Ok(());
        }
        stat.mode &= !libc::S_ISUID;
        if stat.mode & libc::S_IXGRP != 0 {
            stat.mode &= !libc::S_ISGID;
        }
        self.fs
            .inode_mut(ino)?
            .xattrs
            .remove(&b"security.capability"[..]);
        Ok(())
    }

    /// Changes a file's size and what the window shows of it.
    pub(super) fn resize(&mut self, ino: Ino, size: u64) -> Result<(), Errno> {
        self.edit(ino, |file, disk| file.resize(disk, size))
    }

    pub(super) fn edit<T>(
        &mut self,
        ino: Ino,
        edit: impl FnOnce(&mut crate::content::Content, &mut crate::disk::Disk) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let window = &self.window;
        self.fs.edit(ino, |file, disk| {
            let before = file.size();
            let value = edit(file, disk)?;
            match window {
                Some(window) if file.size() != before => window.refresh(ino, file, disk)?,
                _ => (),
            }
            Ok(value)
        })
    }

    pub(super) fn is_dir(&mut self, nodeid: u64) -> Result<Ino, Errno> {
        let ino = self.ino(nodeid)?;
        if self.fs.dir(ino).is_err() {
            return fail(libc::ENOTDIR);
        }
        Ok(ino)
    }
}

/// `fuse_entry_out` up to the attributes.
pub(super) fn entry_head(
    body: Body,
    nodeid: u64,
    generation: u64,
    entry_valid: Duration,
    attr_valid: Duration,
) -> Body {
    body.u64(nodeid)
        .u64(generation)
        .u64(entry_valid.as_secs())
        .u64(attr_valid.as_secs())
        .u32(entry_valid.subsec_nanos())
        .u32(attr_valid.subsec_nanos())
}
