//! Physical and virtual memory.
//!
//! The address space, one for all CPUs and threads:
//!
//! | from | what | mapped as |
//! |---|---|---|
//! | 1 MiB | the kernel's image, where it was loaded | code RX, constants R, data RW |
//! | `0xffff_8000_0000_0000` | all usable memory, physical address added ([`LINEAR`]) | RW, largest pages; the image's code and constants R |
//! | `0xffff_c000_0000_0000` | device registers and windows ([`map_mmio`]) | RW, uncached or write-back |
//! | `0xffff_d000_0000_0000` | stacks, each above a hole of its own size ([`stack`]) | RW |
//! | `0xffff_e000_0000_0000` | mapped files ([`MAPPINGS`], [`mmap`](crate::mmap)) | by page fault |
//!
//! Nothing is both writable and executable; page 0 and everything else is a hole.

pub mod buddy;
pub mod entries;
pub mod frames;
pub mod heap;
pub mod image;
pub mod paging;
pub mod stack;
pub mod start_info;
pub mod strings;

pub use start_info::PAGE;

pub use paging::{map_mmio, translate};

/// Where physical address 0 appears in the linear map.
pub const LINEAR: u64 = 0xffff_8000_0000_0000;
/// Where device memory is mapped.
pub const MMIO: u64 = 0xffff_c000_0000_0000;
/// Where stacks are mapped.
pub const STACKS: u64 = 0xffff_d000_0000_0000;
/// Where mappings of files may live, 16 TiB.
pub const MAPPINGS: core::ops::Range<u64> = 0xffff_e000_0000_0000..0xffff_f000_0000_0000;

/// How the processor caches a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMode {
    /// Every access reaches the device, in order: registers.
    Uncached,
    /// Cached like memory: a DAX window.
    WriteBack,
}

/// Returns where usable memory at physical address `addr` is mapped.
pub fn linear(addr: u64) -> *mut u8 {
    (LINEAR + addr) as *mut u8
}

/// Sets memory up: page frames, page tables, heap.
///
/// # Safety
///
/// Called once, before anything else allocates, on the boot page tables.
pub unsafe fn init(map: &start_info::MemoryMap) {
    frames::init(map, image::whole());
    // SAFETY: the caller's promise.
    unsafe { paging::init(map) };
    heap::init();
}
