//! File data through the DAX window.
//!
//! Every read and write of a file that uses the window shares the lock on the
//! file's layout for its whole length, those that go by READ and WRITE too: the
//! size is looked at under it, so that nothing is touched behind the end, and
//! what a WRITE has added is known before anybody may cut it off. Whatever takes
//! bytes away has the lock alone and unmaps what it takes first (S4-M11).
//!
//! An access to what is mapped already goes without the lock: its pin does as
//! well. A mapping never reaches behind the end of the file, who takes bytes away
//! waits for the pins on what he unmaps, and what is not mapped is not touched.
//! Such accesses make way for who wants the layout alone.
//!
//! A file that the host itself cuts short, behind the server's back, cannot be
//! guarded: its size is as old as the server allows (see
//! [`CachePolicy`](super::CachePolicy)).

use core::sync::atomic::Ordering::Relaxed;

use super::attr::Stale;
use super::{File, FileSystem, Inode};
use crate::conn::DaxMode;
use crate::dax::policy::Kind;
use crate::dax::{Dax, Hold, Owner, Rights, Wish};
use crate::error::Result;
use crate::platform::{FilePages, Platform};
use crate::sync::{ExclusiveGuard, SharedGuard};
use crate::wire::{Attr, AttrFlags, FileType, InitFlags, Mode, OpenFlags, WriteOrigin};

/// What is left of one of a caller's buffers, and which way its bytes go.
enum Piece<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
}

impl<'a> Piece<'a> {
    fn len(&self) -> usize {
        match self {
            Self::Read(buf) => buf.len(),
            Self::Write(data) => data.len(),
        }
    }

    /// Cuts off up to `n` bytes from the front.
    fn split(&mut self, n: usize) -> Piece<'a> {
        let n = n.min(self.len());
        match self {
            Self::Read(buf) => {
                let (front, rest) = core::mem::take(buf).split_at_mut(n);
                *buf = rest;
                Piece::Read(front)
            }
            Self::Write(data) => {
                let (front, rest) = data.split_at(n);
                *data = rest;
                Piece::Write(front)
            }
        }
    }

    /// Moves its bytes between the caller's memory and the window, from byte `at`
    /// of the chunk on. Returns whether they are mapped.
    fn copy<P: Platform>(&mut self, hold: &Hold<'_, P>, at: u32) -> bool {
        match self {
            Self::Read(buf) => hold.read(at, buf).is_ok(),
            Self::Write(data) => hold.write(at, data).is_ok(),
        }
    }
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
    /// Reads into `bufs` if that is one buffer of which all is mapped and before
    /// the end of the file. Returns how many bytes. Does not block.
    pub(super) fn read_mapped(&self, offset: u64, bufs: &mut [&mut [u8]]) -> Option<usize> {
        let [buf] = bufs else { return None };
        let inode = self.inode();
        let owner = inode.owner.as_ref()?;
        let known = inode.known()?;
        let end = offset.checked_add(buf.len() as u64)?;
        if end > known.size {
            return None;
        }
        self.copy_mapped(owner, offset, Piece::Read(buf), known.size)?;
        if !known.stale.contains(Stale::READ) {
            inode.read_happened();
        }
        Some((end - offset) as usize)
    }

    /// Writes `bufs` if that is one buffer, [can be written](Self::window_size)
    /// through the window, and all is mapped. Returns how many bytes. Does not
    /// block.
    pub(super) fn write_mapped(&self, offset: u64, bufs: &[&[u8]]) -> Option<usize> {
        let [data] = bufs else { return None };
        let inode = self.inode();
        let owner = inode.owner.as_ref()?;
        let known = inode.known()?;
        let end = offset.checked_add(data.len() as u64)?;
        if end > known.size || !self.copies_will_do(owner, known.mode) {
            return None;
        }
        self.unflushed.store(true, Relaxed);
        inode.set_unsynced();
        self.copy_mapped(owner, offset, Piece::Write(data), known.size)?;
        inode.attr_changed(Stale::WRITTEN);
        Some(data.len())
    }

    fn copy_mapped(
        &self,
        owner: &Owner<P>,
        offset: u64,
        mut piece: Piece<'_>,
        size: u64,
    ) -> Option<()> {
        let inode = self.inode();
        let dax = inode.fs.dax.as_ref()?;
        let (_, at) = dax.geometry().locate(offset);
        let len = piece.len();
        // Not across a border, and not while somebody waits to cut the file.
        let fits = u64::from(at) + len as u64 <= dax.geometry().range_size();
        if len == 0 || !fits || owner.layout().is_wanted() {
            return None;
        }
        let wish = self.wish(offset, &piece, len, size);
        let hold = dax.hit(&inode.fs.conn, owner, &wish)?;
        self.stream.note(offset, len as u64, wish.run);
        piece.copy(&hold, at).then_some(())
    }

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
        let pieces = bufs.iter_mut().map(|buf| Piece::Read(buf));
        self.through_window(offset, pieces, room, size)
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
        if !self.copies_will_do(owner, inode.last_attr().mode) {
            return Ok(None);
        }
        let size = inode.fresh_attr(Stale::SIZE, self.fh())?.size;
        Ok((end <= size).then_some(size))
    }

    /// Says whether data written to the file, which has this mode, may be copied
    /// without the server's knowledge.
    fn copies_will_do(&self, owner: &Owner<P>, mode: Mode) -> bool {
        // Durable with each write, which a copy into memory is not.
        let durable = self.flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC);
        // The server clears set-id bits and capabilities when data change, but it
        // sees WRITE only: one comes first, and again after they may have been set.
        let set_id = mode.permissions() & (Mode::SET_UID | Mode::SET_GID) != 0;
        let append = self.handle.flags.contains(OpenFlags::APPEND);
        !durable && !append && !set_id && owner.is_bare()
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
        let pieces = bufs.iter().map(|data| Piece::Write(data));
        self.through_window(offset, pieces, room, size)
    }

    /// Moves up to `room` bytes of `pieces`, in turn, until one comes back short.
    fn through_window<'a>(
        &self,
        offset: u64,
        pieces: impl Iterator<Item = Piece<'a>>,
        room: usize,
        size: u64,
    ) -> Result<usize> {
        let mut done = 0;
        for mut piece in pieces {
            let mut piece = piece.split(room - done);
            while piece.len() > 0 {
                match self.next_step(offset + done as u64, &mut piece, size) {
                    Ok((n, asked)) => {
                        done += n;
                        if n < asked {
                            return Ok(done);
                        }
                    }
                    Err(error) if done == 0 => return Err(error),
                    Err(_) => return Ok(done),
                }
            }
            if done == room {
                break;
            }
        }
        Ok(done)
    }

    /// Moves what of `piece` lies in the chunk at `offset`: through the window if it
    /// is there or worth it, by request otherwise. Returns how many bytes, and how
    /// many were asked for.
    fn next_step(&self, offset: u64, piece: &mut Piece<'_>, size: u64) -> Result<(usize, usize)> {
        let inode = self.inode();
        let (Some(owner), Some(dax)) = (&inode.owner, &inode.fs.dax) else {
            let all = piece.split(usize::MAX);
            let len = all.len();
            return Ok((self.move_by_request(offset, all)?, len));
        };
        let conn = &*inode.fs.conn;
        let geometry = dax.geometry();
        let (chunk, at) = geometry.locate(offset);
        let rest = geometry.range_size() - u64::from(at);
        let mut here = piece.split(usize::try_from(rest).unwrap_or(usize::MAX));
        let len = here.len();
        let wish = self.wish(offset, &here, len, size);
        self.stream.note(offset, len as u64, wish.run);
        // What ends in the part of the file that cannot be mapped needs a request in
        // any case, which may as well carry all of it.
        if u64::from(at) + len as u64 <= geometry.mappable(chunk, size).into()
            && let Ok(hold) = dax.find(conn, owner, &wish)
            && here.copy(&hold, at)
        {
            return Ok((len, len));
        }
        conn.counters().dax_fallbacks.add(1);
        Ok((self.move_by_request(offset, here)?, len))
    }

    fn move_by_request(&self, offset: u64, piece: Piece<'_>) -> Result<usize> {
        let len = piece.len();
        match piece {
            Piece::Read(buf) => self.read_by_request(offset, &mut [buf], len),
            Piece::Write(data) => self.write_by_request(offset, &[data], len, WriteOrigin::Caller),
        }
    }

    /// What moving `len` bytes of `piece` asks of the window.
    fn wish(&self, offset: u64, piece: &Piece<'_>, len: usize, size: u64) -> Wish {
        let rights = |writable| match writable {
            true => Rights::Writable,
            false => Rights::ReadOnly,
        };
        let writes = matches!(piece, Piece::Write(_));
        Wish {
            offset,
            len: len as u32,
            size,
            need: rights(writes),
            want: rights(self.flags.writable()),
            kind: Kind::Copy,
            run: self.stream.run_at(offset),
        }
    }
}
