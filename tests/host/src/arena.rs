//! Guest memory: one memfd, mapped once, for the whole process.
//!
//! virtio-drivers' `Hal` has no instance, so all devices of a process share
//! this memory, as all devices of a machine do. Guest-physical addresses start
//! at [`BASE`], which is unlike any pointer: a driver that gives the device a
//! pointer by mistake meets a daemon that has never heard of that address.

use std::fmt;
use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::{Mutex, OnceLock, PoisonError};

use virtio_fs::platform::{PAGE_SIZE, PhysAddr};

use crate::pages::FreePages;

/// Guest-physical address of the first byte of the arena.
pub const BASE: PhysAddr = 0x10_0000_0000;

/// Size of the arena in MiB, unless the environment variable
/// `VIRTIO_FS_ARENA_MIB` says otherwise. Sparse: untouched pages cost nothing.
const DEFAULT_MIB: usize = 512;

/// The memory that driver and daemons share.
pub struct Arena {
    start: NonNull<u8>,
    len: usize,
    memfd: OwnedFd,
    free: Mutex<FreePages>,
}

// SAFETY: `start` is a mapping that lives as long as the process; who may touch
// which page is decided by `free`, which is behind a lock.
unsafe impl Send for Arena {}
// SAFETY: as for Send; no method hands out a reference into the mapping.
unsafe impl Sync for Arena {}

/// Returns the arena of this process, made at the first call.
///
/// # Panics
///
/// If the system refuses the memory: no test can go on.
pub fn arena() -> &'static Arena {
    static ARENA: OnceLock<Arena> = OnceLock::new();
    ARENA.get_or_init(|| {
        let mib = std::env::var("VIRTIO_FS_ARENA_MIB")
            .map(|text| {
                text.parse()
                    .expect("VIRTIO_FS_ARENA_MIB is a number of MiB")
            })
            .unwrap_or(DEFAULT_MIB);
        Arena::new(mib << 20).expect("memfd for the arena")
    })
}

impl Arena {
    fn new(len: usize) -> std::io::Result<Self> {
        // SAFETY: the name is a C string constant; no other pointer is passed.
        let fd = unsafe { libc::memfd_create(c"guest-memory".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: memfd_create just returned this descriptor to us alone.
        let memfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let file = File::from(memfd);
        file.set_len(len as u64)?;
        let memfd = OwnedFd::from(file);
        // SAFETY: a new mapping at an address of the kernel's choice replaces
        // nothing of ours.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                memfd.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or_else(std::io::Error::last_os_error)?;
        Ok(Self {
            start,
            len,
            memfd,
            free: Mutex::new(FreePages::new(len / PAGE_SIZE)),
        })
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether the arena has no bytes; it always has some.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the descriptor that the daemon maps. It stays the arena's.
    pub fn memfd(&self) -> RawFd {
        self.memfd.as_raw_fd()
    }

    /// Counts the pages that nobody has allocated.
    pub fn free_pages(&self) -> usize {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .available()
    }

    /// Returns the guest-physical address of `len` bytes at `ptr` if all of
    /// them lie in the arena.
    pub fn phys(&self, ptr: *const u8, len: usize) -> Option<PhysAddr> {
        let offset = (ptr as usize).checked_sub(self.start.as_ptr() as usize)?;
        (offset.checked_add(len)? <= self.len).then(|| BASE + offset as PhysAddr)
    }

    /// Returns the pointer to `len` bytes at guest-physical address `addr` if
    /// all of them lie in the arena.
    pub fn virt(&self, addr: PhysAddr, len: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(addr.checked_sub(BASE)?).ok()?;
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: `offset` is inside the mapping, as was just checked.
        Some(unsafe { self.start.add(offset) })
    }

    /// Allocates `pages` adjacent pages and fills them with zeros. `None` if
    /// there is no such range, or `pages` is 0.
    pub fn allocate(&self, pages: usize) -> Option<(PhysAddr, NonNull<u8>)> {
        let first = self
            .free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(pages)?;
        let addr = BASE + (first * PAGE_SIZE) as PhysAddr;
        let ptr = self.virt(addr, pages * PAGE_SIZE)?;
        // SAFETY: `virt` checked that the whole range is mapped, and `take`
        // that nobody else owns it.
        unsafe { ptr.write_bytes(0, pages * PAGE_SIZE) };
        Some((addr, ptr))
    }

    /// Gives back `pages` pages at `addr`, which [`allocate`](Self::allocate)
    /// returned.
    ///
    /// # Panics
    ///
    /// If they were not allocated.
    pub fn release(&self, addr: PhysAddr, pages: usize) {
        assert!(addr >= BASE && addr.is_multiple_of(PAGE_SIZE as PhysAddr));
        let first = ((addr - BASE) / PAGE_SIZE as PhysAddr) as usize;
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .give(first, pages);
    }
}

/// Bytes inside the arena, page-aligned, owned: the device reaches them without
/// a bounce.
///
/// While a request on it is in flight the device writes here; the owner must
/// not look at it until the request is done.
pub struct Buffer {
    ptr: NonNull<u8>,
    addr: PhysAddr,
    len: usize,
}

// SAFETY: the pages behind `ptr` belong to this value alone.
unsafe impl Send for Buffer {}
// SAFETY: `&Buffer` gives only `&[u8]`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates `len` zeroed bytes, rounded up to whole pages underneath.
    ///
    /// # Panics
    ///
    /// If the arena has no room: raise `VIRTIO_FS_ARENA_MIB`.
    pub fn new(len: usize) -> Self {
        let pages = len.div_ceil(PAGE_SIZE).max(1);
        let (addr, ptr) = arena()
            .allocate(pages)
            .unwrap_or_else(|| panic!("no {pages} adjacent free pages in the arena"));
        Self { ptr, addr, len }
    }

    /// Allocates a buffer that holds a copy of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut buffer = Self::new(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Returns the guest-physical address of the first byte.
    pub fn addr(&self) -> PhysAddr {
        self.addr
    }

    /// Returns the pointer to the first byte, for accesses that race with the
    /// device on purpose.
    pub fn as_non_null(&self) -> NonNull<u8> {
        self.ptr
    }
}

/// Address and length: the content may be the device's at the moment.
impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes at {:#x})", self.len, self.addr)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes from `ptr` are mapped, initialised by `allocate`,
        // and owned by this value.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        arena().release(self.addr, self.len.div_ceil(PAGE_SIZE).max(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_aligned_zeroed_and_has_an_address_unlike_its_pointer() {
        let mut first = Buffer::new(10_000);
        first.fill(0xa5);
        let (addr, ptr) = (first.addr(), first.as_ptr());
        assert_eq!(ptr as usize % PAGE_SIZE, 0);
        assert_eq!(arena().phys(ptr, first.len()), Some(addr));
        assert_eq!(arena().virt(addr, 1).unwrap().as_ptr().cast_const(), ptr);
        assert_ne!(addr, ptr as PhysAddr);
        drop(first);
        for _ in 0..4 {
            assert!(Buffer::new(10_000).iter().all(|&byte| byte == 0));
        }
    }

    #[test]
    fn addresses_outside_the_arena_do_not_translate() {
        let arena = arena();
        let local = 0_u8;
        assert_eq!(arena.phys(&local, 1), None);
        assert_eq!(arena.virt(0, 1), None);
        assert_eq!(arena.virt(BASE + arena.len() as PhysAddr - 1, 2), None);
        assert_eq!(arena.virt(PhysAddr::MAX, usize::MAX), None);
        let last = arena.virt(BASE + arena.len() as PhysAddr - 1, 1).unwrap();
        assert_eq!(arena.phys(last.as_ptr(), 2), None);
    }
}
