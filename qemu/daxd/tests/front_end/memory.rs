//! Guest memory: a memfd that both sides map.

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Guest-physical address of its first byte; nothing like a pointer, so that one
/// taken for the other shows.
pub(crate) const GUEST_BASE: u64 = 0x1_0000_0000;

pub(crate) struct Memory {
    file: File,
    base: NonNull<c_void>,
    len: u64,
}

// SAFETY: the mapping belongs to this value, and is only reached through methods
// that copy; what the daemon does to it at the same time is the subject of the test.
unsafe impl Send for Memory {}

impl Memory {
    pub(crate) fn new(len: u64) -> Self {
        // SAFETY: the name is a C string; the result is checked below.
        let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "a memfd");
        // SAFETY: the descriptor is new and nobody else's.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len).expect("memory");
        let base = map(&file, len);
        Self { file, base, len }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    fn at(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len),
            "outside guest memory"
        );
        self.base
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(offset as usize)
    }

    /// Address in this process.
    pub(crate) fn address(&self, offset: u64) -> u64 {
        self.at(offset, 1) as u64
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let at = self.at(offset, bytes.len() as u64);
        // SAFETY: `at` has checked that so many bytes are in the mapping.
        unsafe { at.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    pub(crate) fn fill(&self, offset: u64, len: u64, byte: u8) {
        let at = self.at(offset, len);
        // SAFETY: as in `write`.
        unsafe { at.write_bytes(byte, len as usize) }
    }

    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let at = self.at(offset, len as u64);
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`.
        unsafe { bytes.as_mut_ptr().copy_from_nonoverlapping(at, len) }
        bytes
    }

    fn index(&self, offset: u64) -> &AtomicU16 {
        let at = self.at(offset, 2).cast();
        // SAFETY: inside the mapping, which lives as long as `self`; ring indices are
        // two bytes aligned.
        unsafe { AtomicU16::from_ptr(at) }
    }

    pub(crate) fn store_u16(&self, offset: u64, value: u16) {
        self.index(offset).store(value, Ordering::SeqCst);
    }

    pub(crate) fn load_u16(&self, offset: u64) -> u16 {
        self.index(offset).load(Ordering::SeqCst)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length; no pointer into it is left.
        unsafe { libc::munmap(self.base.as_ptr(), self.len as usize) };
    }
}

/// Maps the first `len` bytes of a file, shared.
pub(crate) fn map(file: &File, len: u64) -> NonNull<c_void> {
    // SAFETY: a new mapping at an address that the kernel chooses.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            len as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    };
    assert_ne!(base, libc::MAP_FAILED, "a mapping");
    NonNull::new(base).expect("not at nought")
}
