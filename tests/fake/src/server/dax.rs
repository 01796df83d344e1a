//! SETUPMAPPING and REMOVEMAPPING (protocol.md 5).

use super::message::{Args, Body, malformed};
use super::{Handled, Request, Server};
use crate::abi::fail;
use crate::window::Mapping;

const WRITE: u64 = 1;
const READ: u64 = 2;
/// Most entries of one REMOVEMAPPING.
const REMOVE_MAX: u32 = 256;

impl Server {
    pub(super) fn op_setupmapping(&mut self, request: &Request, mut args: Args) -> Handled {
        let (_fh, foffset, len) = (args.u64()?, args.u64()?, args.u64()?);
        let (flags, moffset) = (args.u64()?, args.u64()?);
        args.end()?;
        let align = 1_u64 << self.config.map_alignment;
        if flags & !(READ | WRITE) != 0
            || flags == 0
            || [foffset, len, moffset].iter().any(|n| n % align != 0)
        {
            return malformed(format!(
                "mapping of {len} bytes at {foffset} to {moffset}, flags {flags:#x}"
            ));
        }
        let ino = self.ino(request.nodeid)?;
        let Some(window) = &mut self.window else {
            return malformed("SETUPMAPPING without a window");
        };
        self.fs.content(ino)?;
        let new = Mapping {
            moffset,
            len,
            ino,
            foffset,
            writable: flags & WRITE != 0,
        };
        // Mapping changes no time stamp, whatever `edit` says.
        let stat = self.fs.inode(ino)?.stat;
        let mapped = self.fs.edit(ino, |file, disk| window.map(new, file, disk));
        self.fs.inode_mut(ino)?.stat = stat;
        self.pin_maps();
        mapped?;
        Ok(Body::default())
    }

    pub(super) fn op_removemapping(&mut self, mut args: Args) -> Handled {
        let count = args.u32()?;
        if count == 0 || count > REMOVE_MAX {
            return malformed(format!("REMOVEMAPPING of {count} ranges"));
        }
        let mut ranges = Vec::new();
        for _ in 0..count {
            ranges.push((args.u64()?, args.u64()?));
        }
        args.end()?;
        let Some(window) = &mut self.window else {
            return malformed("REMOVEMAPPING without a window");
        };
        // As the servers do: stops at the first that fails.
        let done = ranges
            .iter()
            .try_for_each(|&(moffset, len)| window.unmap(moffset, len));
        self.pin_maps();
        if done.is_err() {
            return Ok(fail(libc::EINVAL)?);
        }
        Ok(Body::default())
    }

    /// Keeps the inodes alive that are mapped, and only those.
    pub(super) fn pin_maps(&mut self) {
        let now: Vec<_> = self
            .window
            .iter()
            .flat_map(|w| w.mappings())
            .map(|m| m.ino)
            .collect();
        now.iter().for_each(|&ino| self.fs.pin(ino));
        let before = core::mem::replace(&mut self.pinned_maps, now);
        before.iter().for_each(|&ino| self.fs.unpin(ino));
    }

    pub(crate) fn mappings(&self) -> Vec<Mapping> {
        self.window
            .iter()
            .flat_map(|w| w.mappings())
            .copied()
            .collect()
    }

    /// Brings the window up to date after the tree changed behind the client.
    pub(crate) fn refresh_window(&mut self) {
        let Some(window) = &self.window else { return };
        let mut inos: Vec<_> = window.mappings().map(|m| m.ino).collect();
        inos.dedup();
        for ino in inos {
            let Ok(stat) = self.fs.inode(ino).map(|inode| inode.stat) else {
                continue;
            };
            // No room for the mapping on the host: the pages stay closed.
            let _ = self
                .fs
                .edit(ino, |file, disk| window.refresh(ino, file, disk));
            if let Ok(inode) = self.fs.inode_mut(ino) {
                inode.stat = stat;
            }
        }
    }

    pub(crate) fn vanish_window(&mut self) {
        if let Some(window) = &mut self.window {
            window.vanish();
        }
        self.pin_maps();
    }
}
