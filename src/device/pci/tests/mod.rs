//! The transport against a fake function, well-behaved and not.

extern crate std;

use std::vec::Vec;

use virtio_drivers::transport::pci::bus::DeviceFunction;

use super::fake::{ADDRESS, Buses, FakeConfig, FakeHal, add_memory, peek, poke, set_device};
use super::*;
use crate::device::transport::{
    DeviceStatus, InterruptStatus, QueueLayout, SharedMemory, Transport, TransportError,
};

mod interrupts;
mod random;
mod registers;
mod structures;

/// BAR 4: common at 0, ISR at 0x1000, device at 0x2000, notify at 0x3000.
const BAR4: u64 = 0x80_0000_0000;
/// BAR 1: the MSI-X table at 0, the pending bits at 0x800.
const BAR1: u32 = 0xfe00_0000;
/// BAR 2: shared memory, which is not mapped.
const BAR2: u64 = 0x100_0000_0000;
const NOTIFY: u64 = BAR4 + 0x3000;

// Offsets of the capabilities.
const COMMON: u8 = 0x40;
const NOTIFY_CAP: u8 = 0x50;
const ISR: u8 = 0x64;
const DEVICE: u8 = 0x74;
const SHARED: u8 = 0x84;
const MSIX: u8 = 0x9c;

/// The four structures that there must be.
const REQUIRED: [(u8, Structure); 4] = [
    (COMMON, Structure::Common),
    (NOTIFY_CAP, Structure::Notify),
    (ISR, Structure::Isr),
    (DEVICE, Structure::Device),
];

/// The words of a `virtio_pci_cap`.
fn cap(next: u8, len: u8, kind: u8, bar: u8, offset: u32, size: u32) -> [u32; 4] {
    let header = 0x09 | u32::from(next) << 8 | u32::from(len) << 16 | u32::from(kind) << 24;
    [header, bar.into(), offset, size]
}

/// A function as QEMU lays it out, with a window of 1 GiB.
fn good() -> FakeConfig {
    let mut config = FakeConfig::new();
    config.words[1] |= 0b11;
    config.bar32(1, BAR1, 0x1000);
    config.bar64(2, BAR2, 1 << 40);
    config.bar64(4, BAR4, 0x4000);
    config.put(0x34, &[COMMON.into()]);
    config.put(0x3c, &[0x010b]);
    config.put(COMMON, &cap(NOTIFY_CAP, 16, 1, 4, 0, 0x1000));
    config.put(NOTIFY_CAP, &cap(ISR, 20, 2, 4, 0x3000, 0x1000));
    config.put(NOTIFY_CAP + 16, &[4]);
    config.put(ISR, &cap(DEVICE, 16, 3, 4, 0x1000, 0x1000));
    config.put(DEVICE, &cap(SHARED, 16, 4, 4, 0x2000, 0x1000));
    config.put(SHARED, &cap(MSIX, 24, 8, 2, 0, 1 << 30));
    config.put(MSIX, &[0x0003_0011, 1, 0x801]);
    config.masks[usize::from(MSIX / 4)] = 0xc000_0000;
    config
}

/// Gives the BARs memory and says that there are three queues.
fn power_on() {
    add_memory(BAR4, 0x4000);
    add_memory(BAR1.into(), 0x1000);
    poke(BAR4 + 18, &3u16.to_le_bytes());
}

fn open(config: &mut FakeConfig) -> Result<PciDevice, PciError> {
    PciDevice::open::<FakeHal, _>(config, ADDRESS)
}

/// Opens a function that is changed before.
fn open_with(change: impl FnOnce(&mut FakeConfig)) -> Result<PciDevice, PciError> {
    power_on();
    let mut config = good();
    change(&mut config);
    open(&mut config)
}

fn transport() -> PciTransport {
    open_with(|_| {}).unwrap().transport
}

/// Links a capability behind the last one.
fn link_last(config: &mut FakeConfig, at: u8) {
    let header = config.word(MSIX);
    config.put(MSIX, &[header | u32::from(at) << 8]);
}

fn layout() -> QueueLayout {
    QueueLayout {
        size: 64,
        descriptors: 0x1111_0000_2222_0000,
        available: 0x3333_0000_4444_0000,
        used: 0x5555_0000_6666_0000,
        vector: None,
    }
}

/// How the device behind the common registers takes what is written there.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Obedient,
    NoVectors,
    NoEnable,
}

/// Puts a device behind the common registers: queue n has room for 128 >> n
/// entries and rings at notification offset n; the features differ by half.
fn run_device(manner: Manner) {
    set_device(move |paddr| match paddr.wrapping_sub(BAR4) {
        0 => {
            let half = u32::from_le_bytes(peek(BAR4));
            poke(BAR4 + 4, &(0xf000_0000 | half).to_le_bytes());
        }
        22 => {
            let queue = u16::from_le_bytes(peek(BAR4 + 22));
            let size = if queue < 3 { 128 >> queue } else { 0u16 };
            poke(BAR4 + 24, &size.to_le_bytes());
            poke(BAR4 + 28, &[0; 2]);
            poke(BAR4 + 30, &queue.to_le_bytes());
        }
        16 | 26 if manner == Manner::NoVectors => poke(paddr, &[0xff; 2]),
        28 if manner == Manner::NoEnable => poke(paddr, &[0; 2]),
        _ => {}
    });
}
