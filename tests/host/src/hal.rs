//! [`HostHal`]: the driver's view of guest memory (virtio-drivers' `Hal`).
//!
//! A buffer inside the arena is shared by arithmetic. One outside (stack, heap)
//! is copied through a slot of the arena, as a kernel without an IOMMU would
//! copy it, and counted: the driver is to have no such buffers on its steady
//! paths, and tests say so by [`bounces`].

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use virtio_fs::platform::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::arena::arena;
use crate::window;

/// Smallest bounce slot in bytes; the classes are its multiples by powers of two.
const SMALLEST: usize = 256;
/// Number of classes that keep their slots: 256 bytes to 1 MiB. A longer buffer
/// gets pages of its own and gives them back.
const CLASSES: usize = 13;

/// Free slots by class.
static SLOTS: Mutex<[Vec<PhysAddr>; CLASSES]> = Mutex::new([const { Vec::new() }; CLASSES]);
static BOUNCES: AtomicU64 = AtomicU64::new(0);
static LIVE_BOUNCES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static BOUNCES_HERE: Cell<u64> = const { Cell::new(0) };
}

/// Counts the buffers that had to be copied, over the whole process.
pub fn bounces() -> u64 {
    BOUNCES.load(Ordering::Relaxed)
}

/// Counts the buffers that this thread shared and that had to be copied. Tests
/// that run beside others assert on this one.
pub fn bounces_of_this_thread() -> u64 {
    BOUNCES_HERE.get()
}

/// Counts the bounced buffers that are shared at this moment.
pub fn live_bounces() -> u64 {
    LIVE_BOUNCES.load(Ordering::Relaxed)
}

/// Guest memory for the driver in this process.
pub struct HostHal;

// SAFETY: `dma_alloc` returns zeroed pages of the arena that nobody else owns,
// page-aligned, valid until `dma_dealloc`; `mmio_phys_to_virt` returns pointers
// into windows, which nothing in this process holds references to.
unsafe impl Hal for HostHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Address 0 means failure to the callers of this trait.
        arena().allocate(pages).unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        arena().release(paddr, pages);
        0
    }

    /// Translates addresses of shared-memory windows, the only registers or
    /// memory of a device that this process maps.
    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        window::virt(paddr, size)
            .unwrap_or_else(|| panic!("no window holds {size:#x} bytes at {paddr:#x}"))
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        let (ptr, len) = (buffer.cast::<u8>(), buffer.len());
        if let Some(addr) = arena().phys(ptr.as_ptr(), len) {
            return addr;
        }
        let (addr, slot) = take_slot(len);
        // Also for a buffer that the device only writes: a device may write
        // less than all of it, and the rest has to be as before afterwards.
        // SAFETY: the caller promises `len` readable bytes; the slot has at
        // least as many, is ours alone, and lies elsewhere.
        unsafe { slot.copy_from_nonoverlapping(ptr, len) };
        BOUNCES.fetch_add(1, Ordering::Relaxed);
        LIVE_BOUNCES.fetch_add(1, Ordering::Relaxed);
        BOUNCES_HERE.set(BOUNCES_HERE.get() + 1);
        addr
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let (ptr, len) = (buffer.cast::<u8>(), buffer.len());
        if arena().phys(ptr.as_ptr(), len).is_some() {
            return;
        }
        if direction != BufferDirection::DriverToDevice {
            let slot = arena()
                .virt(paddr, len)
                .unwrap_or_else(|| panic!("unshare of {paddr:#x}, which was never shared"));
            // SAFETY: `slot` is the copy that `share` made for this buffer (the
            // caller promises the pair), and the caller's buffer is writable.
            unsafe { ptr.copy_from_nonoverlapping(slot, len) };
        }
        LIVE_BOUNCES.fetch_sub(1, Ordering::Relaxed);
        give_slot(paddr, len);
    }
}

/// Returns the class of a buffer of `len` bytes and the size of its slots.
fn class(len: usize) -> (usize, usize) {
    let size = len.next_power_of_two().max(SMALLEST);
    ((size / SMALLEST).trailing_zeros() as usize, size)
}

fn take_slot(len: usize) -> (PhysAddr, NonNull<u8>) {
    let (class, size) = class(len);
    let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
    let addr = match slots.get_mut(class) {
        Some(free) => free.pop().or_else(|| {
            let (first, _) = arena().allocate(size.div_ceil(PAGE_SIZE))?;
            free.extend((1..PAGE_SIZE / size).map(|i| first + (i * size) as PhysAddr));
            Some(first)
        }),
        None => arena()
            .allocate(len.div_ceil(PAGE_SIZE))
            .map(|(addr, _)| addr),
    };
    drop(slots);
    addr.and_then(|addr| Some((addr, arena().virt(addr, len)?)))
        .unwrap_or_else(|| panic!("no room in the arena to bounce {len} bytes"))
}

fn give_slot(addr: PhysAddr, len: usize) {
    let (class, _) = class(len);
    match SLOTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_mut(class)
    {
        Some(free) => free.push(addr),
        None => arena().release(addr, len.div_ceil(PAGE_SIZE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Buffer;

    fn round_trip(bytes: &mut [u8], device: impl FnOnce(&mut [u8])) {
        let buffer = NonNull::from(&mut *bytes);
        // SAFETY: `buffer` is valid and exclusive; it is unshared below.
        let addr = unsafe { HostHal::share(buffer, BufferDirection::Both) };
        let shared = arena().virt(addr, buffer.len()).unwrap();
        // SAFETY: the slot (or the buffer itself) is valid for its length and
        // nobody else looks at it now.
        device(unsafe { std::slice::from_raw_parts_mut(shared.as_ptr(), buffer.len()) });
        // SAFETY: the same buffer and the address that `share` returned.
        unsafe { HostHal::unshare(addr, buffer, BufferDirection::Both) };
    }

    #[test]
    fn a_heap_buffer_bounces_and_is_counted_and_one_in_the_arena_is_not() {
        for len in [1, 255, 256, 257, 4096, 5000, 1 << 20, (1 << 20) + 1] {
            let before = bounces_of_this_thread();
            let mut heap = vec![0x11; len];
            round_trip(&mut heap, |slot| {
                assert!(slot.iter().all(|&byte| byte == 0x11));
                slot[len - 1] = 0x22;
            });
            assert!(heap[..len - 1].iter().all(|&byte| byte == 0x11));
            assert_eq!(heap[len - 1], 0x22);
            assert_eq!(bounces_of_this_thread(), before + 1);

            let mut inside = Buffer::new(len);
            round_trip(&mut inside, |bytes| bytes.fill(0x33));
            assert!(inside.iter().all(|&byte| byte == 0x33));
            assert_eq!(bounces_of_this_thread(), before + 1);
        }
    }

    #[test]
    fn slots_of_one_class_do_not_overlap() {
        let mut buffers: Vec<_> = (0..40_u8).map(|i| vec![i; 300]).collect();
        let shared: Vec<_> = buffers
            .iter_mut()
            .map(|bytes| {
                let buffer = NonNull::from(bytes.as_mut_slice());
                // SAFETY: each vector outlives the loop below and nobody else
                // touches it.
                (buffer, unsafe {
                    HostHal::share(buffer, BufferDirection::Both)
                })
            })
            .collect();
        for (i, (buffer, addr)) in shared.into_iter().enumerate() {
            let slot = arena().virt(addr, 300).unwrap();
            // SAFETY: the slot holds 300 bytes that only this thread touches.
            assert!((0..300).all(|at| unsafe { slot.add(at).read() } == i as u8));
            // SAFETY: the buffer and the address belong together.
            unsafe { HostHal::unshare(addr, buffer, BufferDirection::Both) };
        }
    }
}
