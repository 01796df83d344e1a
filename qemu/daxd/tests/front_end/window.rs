//! The window: SHMEM messages map into this process. As strict as QEMU 11.1: no
//! mapping over a live one or past the end of the file, unmaps exact.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::message::VhostUserMMap;
use vhost::vhost_user::{Frontend, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandler};

/// Guest-physical address of the window.
pub(crate) const WINDOW_BASE: u64 = 0x10_0000_0000;

pub(crate) struct Window {
    base: NonNull<c_void>,
    size: u64,
    frontend: Mutex<Frontend>,
    live: Mutex<BTreeMap<u64, (u64, File)>>,
    pub(crate) asked_maps: AtomicU32,
    pub(crate) asked_unmaps: AtomicU32,
    pub(crate) refuse: AtomicBool,
    /// Announce each mapping as a memory region before it is acknowledged, which is
    /// when the daemon still serves the request that asked for it.
    pub(crate) announce: AtomicBool,
    /// Wait so long before answering.
    pub(crate) delay: Mutex<Duration>,
}

// SAFETY: the mapping belongs to this value and is only reached by copying methods.
unsafe impl Send for Window {}
// SAFETY: as above.
unsafe impl Sync for Window {}

fn refused(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

impl Window {
    pub(crate) fn new(size: u64, frontend: Frontend) -> Self {
        Self {
            base: reserve(None, size.max(4096)),
            size,
            frontend: Mutex::new(frontend),
            live: Mutex::default(),
            asked_maps: AtomicU32::new(0),
            asked_unmaps: AtomicU32::new(0),
            refuse: AtomicBool::new(false),
            announce: AtomicBool::new(false),
            delay: Mutex::default(),
        }
    }

    pub(crate) fn live(&self) -> Vec<(u64, u64)> {
        self.live
            .lock()
            .expect("unpoisoned")
            .iter()
            .map(|(&at, &(len, _))| (at, len))
            .collect()
    }

    fn check(&self, offset: u64, len: u64) {
        let live = self.live.lock().expect("unpoisoned");
        let (at, there) = live
            .range(..=offset)
            .next_back()
            .expect("something is mapped there");
        assert!(offset + len <= at + there.0, "not all of it is mapped");
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.check(offset, len as u64);
        let mut bytes = vec![0; len];
        let at = self
            .base
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(offset as usize);
        // SAFETY: `check` has seen a live mapping of these bytes, and the tests do not
        // shorten files under it.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(at, len) }
        bytes
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        self.check(offset, bytes.len() as u64);
        let at = self
            .base
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(offset as usize);
        // SAFETY: as in `read`; mappings are writable.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    fn region(
        &self,
        offset: u64,
        len: u64,
        file_offset: u64,
        file: &File,
    ) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: WINDOW_BASE + offset,
            memory_size: len,
            userspace_addr: self.base.as_ptr() as u64 + offset,
            mmap_offset: file_offset,
            mmap_handle: file.as_raw_fd(),
        }
    }

    fn obey(&self) -> io::Result<()> {
        std::thread::sleep(*self.delay.lock().expect("unpoisoned"));
        if self.refuse.load(Ordering::Relaxed) {
            Err(refused("told to refuse"))
        } else {
            Ok(())
        }
    }
}

impl VhostUserFrontendReqHandler for Window {
    fn shmem_map(&self, req: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        self.asked_maps.fetch_add(1, Ordering::Relaxed);
        self.obey()?;
        let (offset, len, file_offset) = (req.shm_offset, req.len, req.fd_offset);
        // SAFETY: the caller keeps the descriptor open during this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
        let file = File::from(fd.try_clone_to_owned()?);
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= self.size && len > 0);
        let end = end.ok_or_else(|| refused("outside the window"))?;
        if file.metadata()?.len() < file_offset + len {
            return Err(refused("backing store is too small"));
        }
        let mut live = self.live.lock().expect("unpoisoned");
        if live
            .range(..end)
            .next_back()
            .is_some_and(|(at, there)| at + there.0 > offset)
        {
            return Err(refused("mapping overlap"));
        }
        let at = self
            .base
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(offset as usize);
        // QEMU maps read-write whatever the flags say.
        // SAFETY: replaces a part of our own reservation that nothing refers to.
        let r = unsafe {
            libc::mmap(
                at.cast(),
                len as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_FIXED,
                file.as_raw_fd(),
                file_offset as libc::off_t,
            )
        };
        if r == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if self.announce.load(Ordering::Relaxed) {
            let region = self.region(offset, len, file_offset, &file);
            let mut frontend = self.frontend.lock().expect("unpoisoned");
            frontend
                .add_mem_region(&region)
                .map_err(|e| refused(&e.to_string()))?;
        }
        live.insert(offset, (len, file));
        Ok(0)
    }

    fn shmem_unmap(&self, req: &VhostUserMMap) -> HandlerResult<u64> {
        self.asked_unmaps.fetch_add(1, Ordering::Relaxed);
        self.obey()?;
        let (offset, len) = (req.shm_offset, req.len);
        let mut live = self.live.lock().expect("unpoisoned");
        if live.get(&offset).is_none_or(|there| there.0 != len) {
            return Err(refused("no such mapping"));
        }
        let (_, file) = live.remove(&offset).expect("it is there");
        let at = self
            .base
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(offset as usize);
        reserve(NonNull::new(at.cast()), len);
        if self.announce.load(Ordering::Relaxed) {
            let region = self.region(offset, len, 0, &file);
            let mut frontend = self.frontend.lock().expect("unpoisoned");
            frontend
                .remove_mem_region(&region)
                .map_err(|e| refused(&e.to_string()))?;
        }
        Ok(0)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: made by `reserve` with this length; no pointer into it is left.
        unsafe { libc::munmap(self.base.as_ptr(), self.size.max(4096) as usize) };
    }
}

/// Address space that nothing is in, at a given place of our own or a new one.
fn reserve(at: Option<NonNull<c_void>>, len: u64) -> NonNull<c_void> {
    let fixed = if at.is_some() { libc::MAP_FIXED } else { 0 };
    let address = at.map_or(std::ptr::null_mut(), NonNull::as_ptr);
    // SAFETY: new, or in place of a mapping of the window that nothing refers to.
    let base = unsafe {
        libc::mmap(
            address,
            len as usize,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | fixed,
            -1,
            0,
        )
    };
    assert_ne!(base, libc::MAP_FAILED, "address space");
    NonNull::new(base).expect("not at nought")
}
