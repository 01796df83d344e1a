//! Symbolic links.

use alloc::sync::Arc;
use alloc::vec;

use super::Inode;
use crate::conn::Class;
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{FileType, InitFlags, READLINK_ROOM, Readlink, link_target};

impl<P: Platform> Inode<P> {
    /// Returns what the symbolic link points to. Blocks, unless the target is
    /// kept from before.
    ///
    /// # Errors
    ///
    /// EINVAL for what is no symbolic link, and the server's.
    pub fn read_link(self: &Arc<Self>) -> Result<Arc<[u8]>> {
        self.check()?;
        if self.file_type() != FileType::Symlink {
            return Err(Error::caller(Errno::EINVAL));
        }
        let fs = &self.fs;
        if let Some(target) = self
            .extra
            .read()
            .as_ref()
            .and_then(|extra| extra.target.clone())
        {
            fs.counters().link_hits.add(1);
            return Ok(target);
        }
        let mut buf = vec![0; READLINK_ROOM];
        let len = fs
            .conn
            .call(
                &Readlink { node: self.node },
                Data::Sink(&mut [&mut buf[..]]),
                Class::Normal,
            )
            .inspect_err(|error| self.note_stale(*error))?;
        let target = link_target(&buf[..len]).map_err(|why| {
            fs.counters().malformed_replies.add(1);
            log::error!("virtio-fs: malformed target of link {}: {why}", self.node);
            Error::protocol()
        })?;
        let target: Arc<[u8]> = Arc::from(target.as_bytes());
        // A link's target never changes under its inode, but only a server that
        // says so, or a policy, promises that the inode is not used anew.
        if fs.conn.limits().has(InitFlags::CACHE_SYMLINKS) || fs.options.cache.keeps_all() {
            self.with_extra(|extra| extra.target = Some(target.clone()));
        }
        Ok(target)
    }
}
