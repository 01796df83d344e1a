//! A PCI function for tests: configuration space with masks, BARs that are
//! memory, and a device behind the common registers.
//!
//! The state is the thread's, as tests run on threads of their own and
//! virtio-drivers' `Hal` has no instance.

#![expect(unsafe_code, reason = "a Hal hands out raw pointers")]

extern crate std;

use core::ptr::NonNull;
use std::boxed::Box;
use std::cell::RefCell;
use std::vec::Vec;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// Where the fake function is.
pub(super) const ADDRESS: DeviceFunction = DeviceFunction {
    bus: 0,
    device: 3,
    function: 0,
};

/// A mapped BAR. Never freed, as the driver's registers live for ever.
struct Memory {
    paddr: PhysAddr,
    len: usize,
    base: NonNull<u8>,
}

/// Sees each write that the driver made, by its address.
type Device = Box<dyn FnMut(PhysAddr)>;

std::thread_local! {
    static MEMORY: RefCell<Vec<Memory>> = const { RefCell::new(Vec::new()) };
    static DEVICE: RefCell<Option<Device>> = const { RefCell::new(None) };
}

/// Makes `len` bytes at `paddr` mappable.
pub(super) fn add_memory(paddr: PhysAddr, len: usize) {
    let words = std::vec![0u64; len.div_ceil(8)];
    let base = NonNull::from(Box::leak(words.into_boxed_slice())).cast();
    MEMORY.with_borrow_mut(|memory| memory.push(Memory { paddr, len, base }));
}

/// Sets who reacts to writes.
pub(super) fn set_device(device: impl FnMut(PhysAddr) + 'static) {
    DEVICE.set(Some(Box::new(device)));
}

/// Called by the registers after each write.
pub(super) fn written(pointer: usize) {
    let paddr = MEMORY.with_borrow(|memory| {
        memory.iter().find_map(|m| {
            let offset = pointer.checked_sub(m.base.as_ptr() as usize)?;
            (offset < m.len).then_some(m.paddr + offset as u64)
        })
    });
    DEVICE.with_borrow_mut(|device| {
        if let (Some(device), Some(paddr)) = (device, paddr) {
            device(paddr);
        }
    });
}

/// Finds `len` bytes of memory; a range that is none was not checked by the
/// driver.
fn find(paddr: PhysAddr, len: usize) -> NonNull<u8> {
    MEMORY.with_borrow(|memory| {
        let inside = |m: &&Memory| {
            let offset = paddr.checked_sub(m.paddr)?;
            (offset.checked_add(len as u64)? <= m.len as u64).then_some(())
        };
        let m = memory
            .iter()
            .find(|m| inside(m).is_some())
            .unwrap_or_else(|| panic!("{paddr:#x}+{len:#x} is in no BAR"));
        // SAFETY: `inside` found the offset within the memory.
        unsafe { m.base.add((paddr - m.paddr) as usize) }
    })
}

pub(super) fn peek<const N: usize>(paddr: PhysAddr) -> [u8; N] {
    // SAFETY: `find` checked the range, and the memory is never freed.
    core::array::from_fn(|n| unsafe { find(paddr, N).add(n).read_volatile() })
}

pub(super) fn poke(paddr: PhysAddr, bytes: &[u8]) {
    let base = find(paddr, bytes.len());
    for (n, &byte) in bytes.iter().enumerate() {
        // SAFETY: `find` checked the range, and the memory is never freed.
        unsafe { base.add(n).write_volatile(byte) };
    }
}

/// Maps the BARs of the thread; has no memory for DMA.
pub(super) struct FakeHal;

// SAFETY: `mmio_phys_to_virt` returns memory that was leaked for this purpose;
// the other methods are not used by a transport.
unsafe impl Hal for FakeHal {
    fn dma_alloc(_: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        (0, NonNull::dangling())
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        -1
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        find(paddr, size)
    }

    unsafe fn share(_: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        unreachable!("a transport shares no buffers")
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {
        unreachable!("a transport shares no buffers")
    }
}

/// Configuration space: bits that a mask leaves out cannot be written.
#[derive(Clone)]
pub(super) struct FakeConfig {
    pub(super) words: [u32; 64],
    pub(super) masks: [u32; 64],
    /// Whether BARs may be written while the function decodes addresses.
    pub(super) decode_checked: bool,
}

impl FakeConfig {
    /// A virtio-fs function without BARs and capabilities.
    pub(super) fn new() -> Self {
        let (mut words, mut masks) = ([0; 64], [0; 64]);
        words[0] = 0x105a_1af4;
        words[1] = 0x0010_0000;
        masks[1] = 0x0407;
        Self {
            words,
            masks,
            decode_checked: true,
        }
    }

    /// Gives the function a memory BAR, with memory behind it.
    pub(super) fn bar64(&mut self, index: usize, address: u64, size: u64) {
        self.words[4 + index] = address as u32 | 0b1100;
        self.words[5 + index] = (address >> 32) as u32;
        let mask = !(size - 1);
        self.masks[4 + index] = mask as u32;
        self.masks[5 + index] = (mask >> 32) as u32;
    }

    pub(super) fn bar32(&mut self, index: usize, address: u32, size: u32) {
        self.words[4 + index] = address;
        self.masks[4 + index] = !(size - 1);
    }

    /// Puts words at an offset.
    pub(super) fn put(&mut self, at: u8, words: &[u32]) {
        let first = usize::from(at / 4);
        self.words[first..first + words.len()].copy_from_slice(words);
    }

    pub(super) fn word(&self, at: u8) -> u32 {
        self.words[usize::from(at / 4)]
    }
}

impl ConfigurationAccess for FakeConfig {
    fn read_word(&self, function: DeviceFunction, at: u8) -> u32 {
        assert!(at.is_multiple_of(4));
        if function == ADDRESS {
            self.word(at)
        } else {
            u32::MAX
        }
    }

    fn write_word(&mut self, function: DeviceFunction, at: u8, value: u32) {
        assert_eq!((function, at % 4), (ADDRESS, 0));
        let index = usize::from(at / 4);
        if self.decode_checked && (4..10).contains(&index) {
            assert_eq!(
                self.words[1] & 0b11,
                0,
                "BAR written while addresses are decoded"
            );
        }
        let mask = self.masks[index];
        self.words[index] = self.words[index] & !mask | value & mask;
    }

    unsafe fn unsafe_clone(&self) -> Self {
        self.clone()
    }
}

/// Several functions on several buses.
pub(super) struct Buses(pub(super) Vec<(DeviceFunction, [u32; 4])>);

impl ConfigurationAccess for Buses {
    fn read_word(&self, function: DeviceFunction, at: u8) -> u32 {
        let found = self.0.iter().find(|(other, _)| *other == function);
        found.map_or(u32::MAX, |(_, words)| words[usize::from(at / 4)])
    }

    fn write_word(&mut self, _: DeviceFunction, _: u8, _: u32) {
        panic!("searching writes nothing");
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self(self.0.clone())
    }
}
