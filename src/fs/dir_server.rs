//! Asking the server for entries: OPENDIR, READDIR and READDIRPLUS by the adaptive
//! rule (Linux: `fuse_use_readdirplus`), FSYNCDIR.

use alloc::sync::Arc;
use alloc::vec;

use super::filesystem::Asked;
use super::handle::{Handle, Opened};
use super::{Dir, Inode};
use crate::conn::{Class, Life};
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Platform, Signal};
use crate::wire::{
    DirCookie, DirentPlus, DirentsPlus, EntryName, FileHandle, FopenFlags, FsyncFlags, Fsyncdir,
    InitFlags, Malformed, Opcode, OpenFlags, Opendir, Readdir, Readdirplus,
};

/// Bytes asked for first where the directory looks small.
const SMALL: usize = 64 << 10;
/// The size up to which it does: one block of most file systems.
const SMALL_DIR: u64 = 4096;
/// Bytes asked for first of others. Much larger than a page: a thousand names take
/// one request, and not ten.
const LARGE: usize = 256 << 10;
/// Each reading asks for twice as much as the one before, up to this.
const LARGEST: usize = 1 << 20;

impl<P: Platform> Inode<P> {
    fn open_dir_handle(self: &Arc<Self>) -> Result<Arc<Handle<P>>> {
        let fs = &self.fs;
        let flags = OpenFlags::DIRECTORY;
        let request = Opendir {
            node: self.node,
            flags,
        };
        let opened = if fs.conn.limits().has(InitFlags::NO_OPENDIR_SUPPORT) {
            fs.lacking.unless(Opcode::Opendir, || fs.conn.ask(&request))
        } else {
            Some(fs.conn.ask(&request))
        };
        match opened {
            None => {
                let kept = FopenFlags::KEEP_CACHE | FopenFlags::CACHE_DIR;
                Ok(Handle::new(
                    self.clone(),
                    FileHandle(0),
                    flags,
                    kept,
                    Opened::Nothing,
                ))
            }
            Some(Ok(reply)) => Ok(Handle::new(
                self.clone(),
                reply.fh,
                flags,
                reply.flags,
                Opened::Directory,
            )),
            Some(Err(error)) => {
                self.note_stale(error);
                Err(error)
            }
        }
    }
}

impl<P: Platform> Dir<P> {
    /// Gets the next records from the server. Returns false at the end.
    pub(super) fn fill(&mut self) -> Result<bool> {
        let handle = self.server_handle()?;
        let conn = self.inode.fs.conn.clone();
        let limits = conn.limits();
        let size = self
            .next_size()
            .min(limits.max_read as usize)
            .min(conn.fitting());
        if self.buffer.len() != size {
            self.buffer = vec![0; size];
        }
        let cookie = self.server_cookie();
        if self.filled_from == Some(cookie) {
            // The last record led back to where this began: a server's mistake
            // must not keep a caller here for ever.
            return Err(malformed(&self.inode, Malformed::Offset(cookie.0)));
        }
        if self.inode.fs.platform().signal() == Signal::Kill {
            return Err(Error::new(Errno::EINTR, Origin::Platform));
        }
        self.plus = self.wants_plus(cookie);
        let (node, fh, flags) = (self.inode.node, handle.fh(), handle.flags);
        let size = size as u32;
        let asked = self.inode.fs.ask_now();
        let version = self.inode.names_version();
        let buffer = Data::Sink(&mut [&mut self.buffer[..]]);
        let result = if self.plus {
            let request = Readdirplus {
                node,
                fh,
                cookie,
                size,
                flags,
            };
            let answer = self.inode.fs.lacking.unless(Opcode::Readdirplus, || {
                conn.call_with_life(&request, buffer, Class::Normal)
            });
            match answer {
                Some(answer) => answer,
                None => return self.fill(),
            }
        } else {
            conn.call_with_life(
                &Readdir {
                    node,
                    fh,
                    cookie,
                    size,
                    flags,
                },
                buffer,
                Class::Normal,
            )
        };
        self.at = 0;
        self.filled = 0;
        let (filled, life) = result.inspect_err(|error| self.inode.note_stale(*error))?;
        self.inode.read_happened();
        self.filled = filled;
        self.filled_from = (filled > 0).then_some(cookie);
        if self.plus {
            self.take_lookups(asked, version, life);
        }
        Ok(filled > 0)
    }

    fn next_size(&self) -> usize {
        match self.buffer.len() {
            0 if self.inode.last_attr().size <= SMALL_DIR => SMALL,
            0 => LARGE,
            len if self.server_cookie() == DirCookie::START => len,
            len => (2 * len).min(LARGEST),
        }
    }

    /// READDIRPLUS costs the server a stat and us an inode for each entry, so it
    /// is for directories whose names are looked up: at the first read there is
    /// hope, later there must have been a lookup since (as Linux does).
    fn wants_plus(&self, cookie: DirCookie) -> bool {
        let fs = &self.inode.fs;
        let limits = fs.conn.limits();
        if !limits.has(InitFlags::DO_READDIRPLUS) || fs.lacking.has(Opcode::Readdirplus) {
            return false;
        }
        if !limits.has(InitFlags::READDIRPLUS_AUTO) {
            return true;
        }
        let advised = self.inode.take_plus_advice();
        cookie == DirCookie::START || advised
    }

    /// Takes over, or gives back, each lookup that the server counted in the
    /// buffer, whether its entry is wanted or not.
    fn take_lookups(&mut self, asked: Asked, version: u32, life: Life) {
        let fs = &self.inode.fs;
        let limit = fs.conn.limits().name_max;
        for record in DirentsPlus::new(&self.buffer[..self.filled], limit) {
            // A malformed record is reported when its turn comes.
            let Ok(DirentPlus { dirent, entry }) = record else {
                break;
            };
            let (EntryName::Name(name), Some(mut entry)) = (dirent.name, entry) else {
                continue;
            };
            match fs.conn.adopt_node(life, entry.node) {
                Some(node) => entry.node = node,
                None => continue,
            }
            let place = self.inode.place_of(name);
            let Ok(inode) = fs.accept(&entry, asked, self.inode.device(), Some(&place)) else {
                continue;
            };
            let ttl = fs.options.cache.ttl(entry.entry_valid);
            fs.remember(place, Some(inode), ttl, version);
        }
    }

    /// Returns the server's handle, opening one if there is none yet.
    pub(super) fn server_handle(&mut self) -> Result<Arc<Handle<P>>> {
        if let Some(handle) = &self.handle {
            return Ok(handle.clone());
        }
        let handle = self.inode.open_dir_handle()?;
        Ok(self.handle.insert(handle).clone())
    }

    /// Makes the names in the directory durable. Blocks.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn sync(&mut self) -> Result<()> {
        if self.handle.is_none() && self.inode.check_alive().is_err() {
            // It was removed, and servers do not open it any more: no name is left.
            return Ok(());
        }
        let handle = self.server_handle()?;
        let request = Fsyncdir {
            node: self.inode.node,
            fh: handle.fh(),
            flags: FsyncFlags::empty(),
        };
        let fs = &self.inode.fs;
        fs.lacking
            .unless(Opcode::Fsyncdir, || fs.conn.ask(&request))
            .unwrap_or(Ok(()))
    }
}

/// Reports a record that makes no sense.
pub(super) fn malformed<P: Platform>(inode: &Inode<P>, why: Malformed) -> Error {
    inode.fs.counters().malformed_replies.add(1);
    log::error!(
        "virtio-fs: malformed entry in directory {}: {why}",
        inode.node
    );
    Error::new(Errno::EIO, Origin::Protocol)
}
