//! The shared-memory window: a range of addresses into which the daemon has
//! files mapped (vhost-user SHMEM_MAP and SHMEM_UNMAP; virtio 1.3, 5.11.6.4).
//!
//! The range is reserved without access, so touching a part that nothing is
//! mapped to ends the process, as it ends a virtual machine. [`Rules::Qemu`]
//! refuses what QEMU 11.1 refuses, so that the driver meets it here first.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use virtio_fs::platform::{PAGE_SIZE, PhysAddr};

/// "Physical" address of the first window; unlike any pointer and far above
/// the arena.
const FIRST_BASE: PhysAddr = 0x100_0000_0000;
/// Windows start at multiples of this.
const SPACING: u64 = 1 << 30;

static NEXT_BASE: AtomicU64 = AtomicU64::new(FIRST_BASE);
/// Every window of the process: address, length, where it is mapped.
static WINDOWS: RwLock<Vec<(PhysAddr, u64, usize)>> = RwLock::new(Vec::new());

/// Returns the pointer to `len` bytes at `addr` if they lie in one window.
pub fn virt(addr: PhysAddr, len: usize) -> Option<NonNull<u8>> {
    let windows = WINDOWS.read().unwrap_or_else(PoisonError::into_inner);
    windows.iter().find_map(|&(base, size, start)| {
        let offset = addr.checked_sub(base)?;
        (offset.checked_add(len as u64)? <= size)
            .then(|| NonNull::new((start + offset as usize) as *mut u8))?
    })
}

/// Which mapping requests are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// As QEMU 11.1: no overlap with a live mapping, no unmapping of anything
    /// but exactly one mapping, nothing past the end of the file, everything
    /// mapped for reading and writing, at most this many mappings.
    Qemu {
        /// Mappings that may live at once.
        mappings: usize,
    },
    /// As virtio 1.3 has it: a mapping replaces what it covers, partial covers
    /// split, any range can be unmapped, access as the daemon asks.
    Spec,
}

impl Rules {
    /// QEMU's rules with its own ceiling on mappings.
    pub const QEMU: Self = Self::Qemu { mappings: 250 };
}

/// Permission of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// What the window has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Mappings made.
    pub maps: u64,
    /// Mappings removed on the daemon's request.
    pub unmaps: u64,
    /// Requests refused.
    pub refused: u64,
}

/// One reserved range and what is mapped into it.
pub struct Window {
    base: PhysAddr,
    start: NonNull<u8>,
    len: u64,
    rules: Rules,
    /// Live mappings, offset to length; they do not overlap.
    live: BTreeMap<u64, u64>,
    counters: Counters,
}

// SAFETY: `start` is a reservation that this value owns; it is never turned
// into a reference.
unsafe impl Send for Window {}

impl Window {
    /// Reserves `len` bytes of addresses.
    ///
    /// # Errors
    ///
    /// If `len` is 0 or no whole number of pages, or the system has no room.
    pub fn reserve(len: u64, rules: Rules) -> io::Result<Self> {
        let size = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let start = map(std::ptr::null_mut(), size, Source::Nothing)?;
        let base = NEXT_BASE.fetch_add(len.next_multiple_of(SPACING), Ordering::Relaxed);
        WINDOWS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push((base, len, start.as_ptr() as usize));
        Ok(Self {
            base,
            start,
            len,
            rules,
            live: BTreeMap::new(),
            counters: Counters::default(),
        })
    }

    /// Returns the "physical" address that the driver is told.
    pub fn base(&self) -> PhysAddr {
        self.base
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Says whether the window has no bytes; it always has some.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Counts the mappings that live now.
    pub fn mappings(&self) -> usize {
        self.live.len()
    }

    /// Returns what was counted so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Maps `len` bytes of `file` from `file_offset` to `offset`.
    ///
    /// # Errors
    ///
    /// If the rules refuse it or the system does; nothing has changed then.
    pub fn map(
        &mut self,
        offset: u64,
        len: u64,
        file: RawFd,
        file_offset: u64,
        access: Access,
    ) -> io::Result<()> {
        let result = self.try_map(offset, len, file, file_offset, access);
        match result {
            Ok(()) => self.counters.maps += 1,
            Err(_) => self.counters.refused += 1,
        }
        result
    }

    fn try_map(
        &mut self,
        offset: u64,
        len: u64,
        file: RawFd,
        file_offset: u64,
        access: Access,
    ) -> io::Result<()> {
        self.check_range(offset, len)?;
        let access = match self.rules {
            Rules::Spec => access,
            Rules::Qemu { mappings } => {
                if self.overlapping(offset, len).next().is_some() {
                    return Err(io::Error::from_raw_os_error(libc::EEXIST));
                }
                if self.live.len() >= mappings {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                let end = file_offset.checked_add(len);
                if end.is_none_or(|end| end > file_size(file).unwrap_or(0)) {
                    return Err(io::Error::from_raw_os_error(libc::EINVAL));
                }
                Access::ReadWrite
            }
        };
        // SAFETY: `check_range` keeps the offset inside the reservation.
        let at = unsafe { self.start.add(offset as usize) };
        let source = Source::File(file, file_offset, access);
        map(at.as_ptr().cast(), len as usize, source)?;
        self.carve(offset, len);
        self.live.insert(offset, len);
        Ok(())
    }

    /// Removes what is mapped in `len` bytes at `offset`.
    ///
    /// # Errors
    ///
    /// If the rules refuse it; nothing has changed then.
    pub fn unmap(&mut self, offset: u64, len: u64) -> io::Result<()> {
        let result = self.try_unmap(offset, len);
        match result {
            Ok(()) => self.counters.unmaps += 1,
            Err(_) => self.counters.refused += 1,
        }
        result
    }

    fn try_unmap(&mut self, offset: u64, len: u64) -> io::Result<()> {
        self.check_range(offset, len)?;
        if self.rules != Rules::Spec && self.live.get(&offset) != Some(&len) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.hide(offset, len)?;
        self.carve(offset, len);
        Ok(())
    }

    /// Removes every mapping, as a device reset does.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn clear(&mut self) -> io::Result<()> {
        self.hide(0, self.len)?;
        self.live.clear();
        Ok(())
    }

    fn hide(&mut self, offset: u64, len: u64) -> io::Result<()> {
        // SAFETY: every caller has checked that the range is in the reservation.
        let at = unsafe { self.start.add(offset as usize) };
        map(at.as_ptr().cast(), len as usize, Source::Nothing).map(drop)
    }

    fn check_range(&self, offset: u64, len: u64) -> io::Result<()> {
        let page = PAGE_SIZE as u64;
        let end = offset.checked_add(len);
        if len == 0
            || !offset.is_multiple_of(page)
            || !len.is_multiple_of(page)
            || end.is_none_or(|end| end > self.len)
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(())
    }

    fn overlapping(&self, offset: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
        self.live
            .range(..offset + len)
            .map(|(&at, &size)| (at, size))
            .filter(move |&(at, size)| at + size > offset)
    }

    /// Takes a range out of `live`, splitting what it covers in part.
    fn carve(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let hit: Vec<_> = self.overlapping(offset, len).collect();
        for (at, size) in hit {
            self.live.remove(&at);
            if at < offset {
                self.live.insert(at, offset - at);
            }
            if at + size > end {
                self.live.insert(end, at + size - end);
            }
        }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        WINDOWS
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|&(base, ..)| base != self.base);
        // SAFETY: the reservation was made by `reserve` with this length, and
        // no address in it translates any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len as usize) };
    }
}

/// What an address range shall show.
enum Source {
    Nothing,
    File(RawFd, u64, Access),
}

/// Maps `len` bytes, at `at` if that is not null. A failure leaves what was
/// there (mmap with MAP_FIXED checks the file before it removes anything).
fn map(at: *mut libc::c_void, len: usize, source: Source) -> io::Result<NonNull<u8>> {
    let (protection, flags, file, offset) = match source {
        Source::Nothing => {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            (libc::PROT_NONE, flags, -1, 0)
        }
        Source::File(file, offset, access) => {
            let protection = match access {
                Access::Read => libc::PROT_READ,
                Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            };
            let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            (protection, libc::MAP_SHARED, file, offset)
        }
    };
    let fixed = if at.is_null() { 0 } else { libc::MAP_FIXED };
    // SAFETY: without an address the mapping replaces nothing; with one it lies
    // in a window's reservation, into which this process keeps no references.
    let start = unsafe { libc::mmap(at, len, protection, flags | fixed, file, offset) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn file_size(file: RawFd) -> io::Result<u64> {
    // SAFETY: all-zero bytes are a valid `stat`, which fstat overwrites.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is valid for writing; a bad descriptor is an error.
    if unsafe { libc::fstat(file.as_raw_fd(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.st_size as u64)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn file_of_pages(pages: u8) -> std::fs::File {
        let mut file = tempfile::tempfile().unwrap();
        for page in 0..pages {
            file.write_all(&[page + 1; PAGE_SIZE]).unwrap();
        }
        file
    }

    fn byte_at(window: &Window, offset: u64) -> u8 {
        let ptr = virt(window.base() + offset, 1).unwrap();
        // SAFETY: the tests ask only for offsets that are mapped.
        unsafe { ptr.read_volatile() }
    }

    #[test]
    fn qemu_rules_refuse_overlap_partial_unmap_and_the_file_tail() {
        let file = file_of_pages(4);
        file.set_len(3 * PAGE + 100).unwrap();
        let fd = file.as_raw_fd();
        let mut window = Window::reserve(16 * PAGE, Rules::Qemu { mappings: 2 }).unwrap();
        window.map(0, 2 * PAGE, fd, PAGE, Access::Read).unwrap();
        assert_eq!((byte_at(&window, 0), byte_at(&window, PAGE)), (2, 3));

        let before = window.counters();
        for (offset, len, from) in [
            (0, 2 * PAGE, 0),        // exact cover
            (PAGE, 2 * PAGE, 0),     // partial cover
            (4 * PAGE, 4 * PAGE, 0), // past the end of the file
            (4 * PAGE, 0, 0),
            (15 * PAGE, 2 * PAGE, 0), // past the end of the window
            (4 * PAGE + 1, PAGE, 0),
            (u64::MAX - PAGE + 1, PAGE, 0),
        ] {
            assert!(window.map(offset, len, fd, from, Access::Read).is_err());
        }
        for (offset, len) in [(0, PAGE), (PAGE, PAGE), (0, 3 * PAGE), (8 * PAGE, PAGE)] {
            assert!(window.unmap(offset, len).is_err());
        }
        assert_eq!(window.counters().refused, before.refused + 11);
        assert_eq!((byte_at(&window, 0), window.mappings()), (2, 1));

        window.map(8 * PAGE, PAGE, fd, 0, Access::Read).unwrap();
        let third = window.map(9 * PAGE, PAGE, fd, 0, Access::Read);
        assert_eq!(third.unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        window.unmap(0, 2 * PAGE).unwrap();
        window.map(0, PAGE, fd, 0, Access::Read).unwrap();
        assert_eq!(byte_at(&window, 0), 1);
    }

    #[test]
    fn spec_rules_replace_and_split() {
        let file = file_of_pages(8);
        let fd = file.as_raw_fd();
        let mut window = Window::reserve(16 * PAGE, Rules::Spec).unwrap();
        window.map(0, 4 * PAGE, fd, 0, Access::Read).unwrap();
        window
            .map(PAGE, 2 * PAGE, fd, 5 * PAGE, Access::Read)
            .unwrap();
        let seen: Vec<_> = (0..4).map(|page| byte_at(&window, page * PAGE)).collect();
        assert_eq!(seen, [1, 6, 7, 4]);
        assert_eq!(window.mappings(), 3);
        window.unmap(0, 2 * PAGE).unwrap();
        assert_eq!((byte_at(&window, 2 * PAGE), window.mappings()), (7, 2));
        window.clear().unwrap();
        assert_eq!(window.mappings(), 0);
    }

    #[test]
    fn a_write_through_a_window_reaches_the_file_and_a_read_only_one_is_refused_by_qemu() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, [7; PAGE_SIZE]).unwrap();
        let mut window = Window::reserve(PAGE, Rules::QEMU).unwrap();
        let read_only = std::fs::File::open(&path).unwrap();
        let refused = window.map(0, PAGE, read_only.as_raw_fd(), 0, Access::Read);
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EACCES));
        let both = std::fs::File::options()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        window
            .map(0, PAGE, both.as_raw_fd(), 0, Access::Read)
            .unwrap();
        let ptr = virt(window.base() + 9, 1).unwrap();
        // SAFETY: the page was mapped for writing just now.
        unsafe { ptr.write_volatile(42) };
        assert_eq!(std::fs::read(&path).unwrap()[9], 42);
    }

    #[test]
    fn addresses_translate_only_while_the_window_exists() {
        let window = Window::reserve(4 * PAGE, Rules::Spec).unwrap();
        let (base, len) = (window.base(), window.len());
        assert!(virt(base, len as usize).is_some());
        assert!(virt(base + 1, len as usize).is_none());
        assert!(virt(base - 1, 1).is_none());
        drop(window);
        assert!(virt(base, 1).is_none());
    }
}
