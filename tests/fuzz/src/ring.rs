//! A queue whose device writes what it likes, between what the driver does.
//!
//! Beside the ring stands what it must know: which tokens are with the device, and how many
//! descriptors each took. A device that was honest all along must not break it.

#![expect(unsafe_code, reason = "plays the device, which sees plain memory")]

use core::alloc::Layout;
use core::ptr::NonNull;
use std::alloc::{alloc_zeroed, dealloc};

use virtio_fs::device::QueueLayout;
use virtio_fs::device::ring::{Ring, RingFeatures};
use virtio_fs::device::table::DescriptorTable;
use virtio_fs::platform::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use virtio_fs_calls::Source;

use crate::input::Input;

/// Memory at its own address.
struct Identity;

fn pages(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).expect("few pages")
}

// SAFETY: pages come zeroed and aligned from the global allocator, and nobody else has them.
unsafe impl Hal for Identity {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: rings and tables have at least one page.
        let page = NonNull::new(unsafe { alloc_zeroed(pages(count)) }).expect("memory");
        (page.as_ptr() as PhysAddr, page)
    }
    unsafe fn dma_dealloc(_: PhysAddr, page: NonNull<u8>, count: usize) -> i32 {
        // SAFETY: the caller promises that it came from `dma_alloc` with this count.
        unsafe { dealloc(page.as_ptr(), pages(count)) };
        0
    }
    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        NonNull::dangling()
    }
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as PhysAddr
    }
    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// The device's hands.
struct Device(QueueLayout);

impl Device {
    fn put16(&self, at: PhysAddr, value: u16) {
        // SAFETY: `at` lies in the ring's memory by the layout; one thread.
        unsafe { (at as *mut u16).write_volatile(value) }
    }

    fn put32(&self, at: PhysAddr, value: u32) {
        // SAFETY: as in `put16`.
        unsafe { (at as *mut u32).write_volatile(value) }
    }

    fn get16(&self, at: PhysAddr) -> u16 {
        // SAFETY: as in `put16`.
        unsafe { (at as *const u16).read_volatile() }
    }

    fn used_index(&self) -> PhysAddr {
        self.0.used + 2
    }

    /// Writes the used element for index `index`.
    fn element(&self, index: u16, id: u32, len: u32) {
        let slot = self.0.used + 4 + 8 * u64::from(index % self.0.size);
        self.put32(slot, id);
        self.put32(slot + 4, len);
    }

    /// What the driver made available at `index`.
    fn head(&self, index: u16) -> u16 {
        self.get16(self.0.available + 4 + 2 * u64::from(index % self.0.size))
    }
}

/// Runs one input.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let size = 1u16 << input.below(7);
    let features = RingFeatures {
        indirect: input.below(2) == 1,
        event_idx: input.below(2) == 1,
    };
    let lies = input.below(4) != 0;
    let mut ring = Ring::<Identity>::new(size, features).expect("memory");
    let table = DescriptorTable::<Identity>::new(64).expect("memory");
    let device = Device(ring.layout(None));

    // Of each token with the device: its descriptors, and whether it was published.
    let mut with_device: Vec<(u16, u16, bool)> = Vec::new();
    let (mut taken, mut used) = (0u16, 0u16);
    // What the device holds and has not used.
    let mut heads: Vec<u16> = Vec::new();
    let mut next_token = 0;
    while !input.is_empty() {
        match input.below(12) {
            0..=2 => {
                let segments = 1 + input.below(8) as u16;
                let cost = if features.indirect { 1 } else { segments };
                let free = size - with_device.iter().map(|(_, cost, _)| cost).sum::<u16>();
                let added = ring.add(next_token, &table, segments).is_ok();
                let expected = cost <= free && ring.broken().is_none();
                assert_eq!(added, expected, "{segments} segments, {free} free");
                if added {
                    with_device.push((next_token, cost, false));
                    next_token = (next_token + 1) % 0x7fff;
                }
            }
            3 => {
                let _ = ring.publish();
                with_device.iter_mut().for_each(|(.., seen)| *seen = true);
            }
            4 | 5 => {
                let broken = ring.broken();
                match ring.pop() {
                    Ok(Some(done)) => {
                        let at = with_device.iter().position(|(t, ..)| *t == done.token);
                        let at = at.unwrap_or_else(|| panic!("token {} came twice", done.token));
                        let (_, _, published) = with_device.remove(at);
                        // A device that guessed an id may use what it was not shown yet.
                        assert!(published || lies, "used before it was published");
                    }
                    Ok(None) => (),
                    Err(error) => {
                        assert!(lies, "an honest device broke the ring: {error}");
                        assert_eq!(ring.broken(), Some(error));
                        assert!(broken.is_none_or(|before| before == error));
                    }
                }
            }
            6 => {
                let _ = ring.enable_interrupts();
            }
            7 => ring.disable_interrupts(),
            // The device takes what is new, and uses one of what it has.
            8 | 9 => {
                let available = device.get16(device.0.available + 2);
                if available.wrapping_sub(taken) <= size {
                    while taken != available {
                        heads.push(device.head(taken));
                        taken = taken.wrapping_add(1);
                    }
                }
                if !heads.is_empty() {
                    let head = heads.swap_remove(input.below(heads.len()));
                    device.element(used, head.into(), input.number() as u32);
                    used = used.wrapping_add(1);
                    device.put16(device.used_index(), used);
                }
            }
            10 if lies => match input.below(5) {
                0 => device.put16(device.used_index(), input.number() as u16),
                1 => device.element(input.number() as u16, input.number() as u32, 0),
                2 => device.put16(device.0.used, input.number() as u16),
                3 => {
                    // avail_event, behind the used ring.
                    let at = device.0.used + 4 + 8 * u64::from(size);
                    device.put16(at, input.number() as u16);
                }
                _ => {
                    // The driver's own areas, which it does not read back.
                    let at = 2 * (input.below(usize::from(size)) as u64);
                    device.put16(device.0.available + 4 + at, input.number() as u16);
                    device.put16(device.0.descriptors + 8 * at, input.number() as u16);
                }
            },
            11 if input.chance(8) => {
                ring.reset();
                with_device.clear();
                heads.clear();
                (taken, used) = (0, 0);
            }
            _ => (),
        }
        assert_eq!(usize::from(ring.in_flight()), with_device.len());
    }
}
