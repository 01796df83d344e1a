//! The DAX window: shared memory region 0, backed by real mappings.
//!
//! A part that is not mapped, or lies past the end of its file, has no access
//! rights: touching it ends the process with SIGSEGV, as it would end or hang a
//! guest. What is mapped is the very memory of the file.

use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::io;

use crate::abi::{Errno, fail};
use crate::content::Content;
use crate::disk::{CHUNK, Disk, PAGE};
use crate::memfs::Ino;

/// Which rules SETUPMAPPING and REMOVEMAPPING follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowRules {
    /// Virtio 1.3: a mapping replaces or splits what it overlaps, and may
    /// reach past the end of the file.
    Spec,
    /// QEMU 11.1 (protocol.md 5.6): no overlap, only exact unmapping, nothing
    /// past the last whole page of the file, at most `slots` mappings, and
    /// every mapping is writable.
    Qemu {
        /// Number of mappings that may exist at once.
        slots: usize,
    },
}

/// A live mapping, as [`Control::mappings`](crate::Control::mappings) lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Offset in the window.
    pub moffset: u64,
    /// Length in bytes.
    pub len: u64,
    /// The file.
    pub ino: Ino,
    /// Offset in the file.
    pub foffset: u64,
    /// Stores are allowed.
    pub writable: bool,
}

#[derive(Debug)]
pub(crate) struct Window {
    base: NonNull<u8>,
    len: u64,
    rules: WindowRules,
    maps: BTreeMap<u64, Mapping>,
}

// SAFETY: the pointer is the address of a mapping that this value owns; the
// methods that change the mapping take `&mut self`.
unsafe impl Send for Window {}

impl Window {
    pub(crate) fn new(len: u64, rules: WindowRules) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len as usize,
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        match NonNull::new(base.cast::<u8>()) {
            Some(base) if base.as_ptr().cast() != libc::MAP_FAILED => Ok(Self {
                base,
                len,
                rules,
                maps: BTreeMap::new(),
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.maps.values()
    }

    /// Replaces a part of the window.
    fn place(
        &self,
        at: u64,
        len: u64,
        prot: i32,
        flags: i32,
        fd: i32,
        offset: u64,
    ) -> io::Result<()> {
        assert!(
            at.checked_add(len).is_some_and(|end| end <= self.len),
            "outside the window"
        );
        // SAFETY: the range lies inside the mapping that `self` owns, so no
        // memory of anybody else is replaced.
        let got = unsafe {
            libc::mmap(
                self.base.as_ptr().add(at as usize).cast(),
                len as usize,
                prot,
                flags | libc::MAP_FIXED,
                fd,
                offset as libc::off_t,
            )
        };
        if got == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    fn close(&self, at: u64, len: u64) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.place(at, len, libc::PROT_NONE, flags, -1, 0)
    }

    /// Maps a range of a file.
    pub(crate) fn map(
        &mut self,
        mut new: Mapping,
        content: &mut Content,
        disk: &mut Disk,
    ) -> Result<(), Errno> {
        let aligned = [new.moffset, new.len, new.foffset]
            .iter()
            .all(|n| n % PAGE == 0);
        let end = new.moffset.checked_add(new.len);
        let fits = end.is_some_and(|end| end <= self.len);
        if !aligned || !fits || new.len == 0 || new.foffset.checked_add(new.len).is_none() {
            return fail(libc::EINVAL);
        }
        match self.rules {
            WindowRules::Spec => self.cut(new.moffset, new.len)?,
            WindowRules::Qemu { slots } => {
                new.writable = true;
                let overlaps = self.overlapping(new.moffset, new.len).next().is_some();
                if overlaps || new.foffset + new.len > content.size() {
                    return fail(libc::EINVAL);
                }
                if self.maps.len() >= slots {
                    return fail(libc::ENOSPC);
                }
            }
        }
        self.maps.insert(new.moffset, new);
        self.show(&new, content, disk)
    }

    /// Unmaps a range.
    pub(crate) fn unmap(&mut self, moffset: u64, len: u64) -> Result<(), Errno> {
        let end = moffset.checked_add(len);
        if end.is_none_or(|end| end > self.len)
            || !moffset.is_multiple_of(PAGE)
            || !len.is_multiple_of(PAGE)
        {
            return fail(libc::EINVAL);
        }
        if let WindowRules::Qemu { .. } = self.rules
            && self.maps.get(&moffset).is_none_or(|m| m.len != len)
        {
            return fail(libc::EINVAL);
        }
        self.cut(moffset, len)
    }

    fn overlapping(&self, at: u64, len: u64) -> impl Iterator<Item = &Mapping> {
        self.maps
            .values()
            .filter(move |m| m.moffset < at + len && m.moffset + m.len > at)
    }

    /// Clears a range; mappings that reach out of it keep the rest.
    fn cut(&mut self, at: u64, len: u64) -> Result<(), Errno> {
        let hit: Vec<_> = self.overlapping(at, len).copied().collect();
        for old in hit {
            self.maps.remove(&old.moffset);
            let (old_end, end) = (old.moffset + old.len, at + len);
            if old.moffset < at {
                self.maps.insert(
                    old.moffset,
                    Mapping {
                        len: at - old.moffset,
                        ..old
                    },
                );
            }
            if old_end > end {
                let foffset = old.foffset + (end - old.moffset);
                let rest = Mapping {
                    moffset: end,
                    len: old_end - end,
                    foffset,
                    ..old
                };
                self.maps.insert(end, rest);
            }
        }
        if len > 0 {
            self.close(at, len)?;
        }
        Ok(())
    }

    /// Maps what the file has of a mapping, and closes the rest.
    fn show(&self, m: &Mapping, content: &mut Content, disk: &mut Disk) -> Result<(), Errno> {
        self.close(m.moffset, m.len)?;
        let prot = libc::PROT_READ | if m.writable { libc::PROT_WRITE } else { 0 };
        let end = (m.foffset + m.len).min(content.size().next_multiple_of(PAGE));
        let mut at = m.foffset;
        while at < end {
            let chunk = content.chunk(disk, at / CHUNK)?;
            let n = (CHUNK - at % CHUNK).min(end - at);
            let moffset = m.moffset + (at - m.foffset);
            self.place(
                moffset,
                n,
                prot,
                libc::MAP_SHARED,
                disk.fd(),
                chunk.at(at % CHUNK),
            )?;
            at += n;
        }
        Ok(())
    }

    /// Brings the mappings of a file up to date after its size changed.
    pub(crate) fn refresh(
        &self,
        ino: Ino,
        content: &mut Content,
        disk: &mut Disk,
    ) -> Result<(), Errno> {
        let mut maps = self.maps.values().filter(|m| m.ino == ino);
        maps.try_for_each(|m| self.show(m, content, disk))
    }

    /// Drops all mappings, as a device reset does.
    pub(crate) fn clear(&mut self) {
        self.maps.clear();
        // The kernel refuses this only when it is out of memory for its own
        // tables; the pages then stay reachable and a test notices less.
        let _ = self.close(0, self.len);
    }

    /// Lets the region answer like a bus without a device: all ones, stores go
    /// nowhere.
    pub(crate) fn vanish(&mut self) {
        self.maps.clear();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        if self.place(0, self.len, prot, flags, -1, 0).is_ok() {
            // SAFETY: the whole region was just mapped for reading and writing.
            unsafe { self.base.write_bytes(0xFF, self.len as usize) };
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: base and length are those of the mapping that `new` made and
        // nobody else unmaps.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len as usize) };
    }
}
