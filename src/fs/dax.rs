//! File data through the DAX window.
//!
//! Every read and write of a file that uses the window shares the lock on the
//! file's layout for its whole length, those that go by READ and WRITE too: the
//! size is looked at under it, so that nothing is touched behind the end, and
//! what a WRITE has added is known before anybody may cut it off. Whatever takes
//! bytes away has the lock alone and unmaps what it takes first (S4-M11).
//!
//! A file that the host itself cuts short, behind the server's back, cannot be
//! guarded: its size is as old as the server allows (see
//! [`CachePolicy`](super::CachePolicy)).

use super::attr::Stale;
use super::{File, FileSystem, Inode};
use crate::conn::DaxMode;
use crate::dax::policy::Kind;
use crate::dax::{Dax, Hold, Rights, Wish};
use crate::error::Result;
use crate::platform::{FilePages, Platform};
use crate::sync::{ExclusiveGuard, SharedGuard};
use crate::wire::{Attr, AttrFlags, FileType, InitFlags, Mode, OpenFlags, WriteOrigin};

/// What becomes of the next bytes of an access.
enum Way {
    /// They were copied.
    Copied(usize),
    /// So many of them go by READ or WRITE.
    Request(usize),
}

impl<P: Platform> FileSystem<P> {
    /// Returns the window's state, where the mount has one.
    pub fn dax(&self) -> Option<&Dax<P>> {
        self.dax.as_ref()
    }

    /// Returns whether a new inode with these attributes uses the window.
    pub(super) fn uses_window(&self, attr: &Attr) -> bool {
        let wanted = match self.conn.dax_mode() {
            DaxMode::Never => false,
            DaxMode::Always => true,
            DaxMode::Inode => {
                self.conn.limits().has(InitFlags::HAS_INODE_DAX)
                    && attr.flags.contains(AttrFlags::DAX)
            }
        };
        wanted && self.dax.is_some() && attr.mode.file_type() == FileType::Regular
    }

    /// Does what inodes that are gone have left to do. Blocks if there is any.
    pub(super) fn settle_window(&self) {
        if let Some(dax) = &self.dax
            && dax.has_orphans()
        {
            dax.settle_orphans(&self.conn);
        }
    }
}

impl<P: Platform> Inode<P> {
    /// Keeps the file from being cut, for an access. `None` without DAX. Blocks
    /// while somebody cuts it.
    pub(super) fn share_layout(&self) -> Result<Option<SharedGuard<'_, P>>> {
        let owner = self.owner.as_deref();
        owner
            .map(|owner| owner.layout().share(self.fs.platform()))
            .transpose()
    }

    /// Keeps everybody else away from the file's data and unmaps what lies behind
    /// byte `end`, for a request that takes it away. `None` without DAX. Blocks.
    pub(super) fn break_layout(&self, end: u64) -> Result<Option<ExclusiveGuard<'_, P>>> {
        let (Some(owner), Some(dax)) = (&self.owner, &self.fs.dax) else {
            return Ok(None);
        };
        let guard = owner.layout().take(self.fs.platform())?;
        // All pages of the file, as one that stays may be written meanwhile.
        if owner.is_faulted() {
            self.fs.platform().unmap_file_pages(&FilePages {
                mapping: owner.mapping(),
                offset: 0,
                len: u64::MAX,
            });
            owner.set_faulted(false);
            if owner.is_stored() {
                self.set_unsynced();
                owner.set_stored(false);
            }
        }
        dax.clear(&self.fs.conn, owner, end)?;
        Ok(Some(guard))
    }
}

impl<P: Platform> File<P> {
    /// Reads `room` bytes into `bufs` from a file of `size` bytes that uses the
    /// window; they lie before its end. The layout has been shared since the size
    /// was looked at.
    pub(super) fn read_window(
        &self,
        offset: u64,
        bufs: &mut [&mut [u8]],
        room: usize,
        size: u64,
    ) -> Result<usize> {
        let mut done = 0;
        for buf in bufs {
            let len = buf.len().min(room - done);
            let mut at = 0;
            while at < len {
                let begin = offset + (done + at) as u64;
                let rest = &mut buf[at..len];
                let want = if self.flags.writable() {
                    Rights::Writable
                } else {
                    Rights::ReadOnly
                };
                let way = self.way(
                    begin,
                    rest.len(),
                    size,
                    (Rights::ReadOnly, want),
                    |hold, n| hold.0.read(hold.1, &mut rest[..n]).is_ok(),
                );
                let (asked, got) = match way {
                    Way::Copied(n) => {
                        self.inode().fs.counters().dax_bytes_read.add(n as u64);
                        (n, Ok(n))
                    }
                    Way::Request(n) => (n, self.read_by_request(begin, &mut [&mut rest[..n]], n)),
                };
                match got {
                    Ok(n) => {
                        at += n;
                        if n < asked {
                            return Ok(done + at);
                        }
                    }
                    Err(error) if done + at == 0 => return Err(error),
                    Err(_) => return Ok(done + at),
                }
            }
            done += len;
            if done == room {
                break;
            }
        }
        Ok(done)
    }

    /// Returns the file's size if bytes up to `end` can be written through the
    /// window: the file is not extended (S4-M12), and nothing about it must change
    /// that only the server can change. The layout is shared. Blocks if the size
    /// must be asked for.
    pub(super) fn window_size(&self, end: u64) -> Result<Option<u64>> {
        let inode = self.inode();
        let Some(owner) = &inode.owner else {
            return Ok(None);
        };
        // Durable with each write, which a copy into memory is not.
        let durable = self.flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC);
        if durable || self.handle.flags.contains(OpenFlags::APPEND) {
            return Ok(None);
        }
        // The server clears set-id bits and capabilities when data change, but it
        // sees WRITE only: one comes first, and again after they may have been set.
        let mode = inode.last_attr().mode.permissions();
        if mode & (Mode::SET_UID | Mode::SET_GID) != 0 || !owner.is_bare() {
            return Ok(None);
        }
        let size = inode.fresh_attr(Stale::SIZE, self.fh())?.size;
        Ok((end <= size).then_some(size))
    }

    /// Writes `bufs`, of which `room` bytes count, to a file of `size` bytes that
    /// [can be written](Self::window_size) through the window. The layout has been
    /// shared since.
    pub(super) fn write_window(
        &self,
        offset: u64,
        bufs: &[&[u8]],
        room: usize,
        size: u64,
    ) -> Result<usize> {
        let mut done = 0;
        for buf in bufs {
            let len = buf.len().min(room - done);
            let mut at = 0;
            while at < len {
                let begin = offset + (done + at) as u64;
                let rest = &buf[at..len];
                let rights = (Rights::Writable, Rights::Writable);
                let way = self.way(begin, rest.len(), size, rights, |hold, n| {
                    hold.0.write(hold.1, &rest[..n]).is_ok()
                });
                let (asked, got) = match way {
                    Way::Copied(n) => {
                        self.inode().fs.counters().dax_bytes_written.add(n as u64);
                        (n, Ok(n))
                    }
                    Way::Request(n) => {
                        let origin = WriteOrigin::Caller;
                        (n, self.write_by_request(begin, &[&rest[..n]], n, origin))
                    }
                };
                match got {
                    Ok(n) => {
                        at += n;
                        if n < asked {
                            return Ok(done + at);
                        }
                    }
                    Err(error) if done + at == 0 => return Err(error),
                    Err(_) => return Ok(done + at),
                }
            }
            done += len;
            if done == room {
                break;
            }
        }
        Ok(done)
    }

    /// Moves up to `len` bytes at `offset` with `copy`, if they are in the window
    /// or worth it. `rights` are what is needed and what a mapping should allow.
    fn way(
        &self,
        offset: u64,
        len: usize,
        size: u64,
        rights: (Rights, Rights),
        copy: impl FnOnce((&Hold<'_, P>, u32), usize) -> bool,
    ) -> Way {
        let inode = self.inode();
        let (Some(owner), Some(dax)) = (&inode.owner, &inode.fs.dax) else {
            return Way::Request(len);
        };
        let conn = &*inode.fs.conn;
        let geometry = dax.geometry();
        let (chunk, at) = geometry.locate(offset);
        let here = len.min((geometry.range_size() - u64::from(at)) as usize);
        let run = self.stream.lock().note(offset, here as u64);
        // What ends in the part of the file that cannot be mapped needs a request
        // in any case, which may as well carry all of it.
        if u64::from(at) + here as u64 <= geometry.mappable(chunk, size).into() {
            let wish = Wish {
                offset,
                len: here as u32,
                size,
                need: rights.0,
                want: rights.1,
                kind: Kind::Copy,
                run,
            };
            if let Ok(hold) = dax.find(conn, owner, &wish)
                && copy((&hold, at), here)
            {
                conn.counters().dax_copies.add(1);
                return Way::Copied(here);
            }
        }
        conn.counters().dax_fallbacks.add(1);
        Way::Request(here)
    }
}
