//! PCI through the memory-mapped configuration space that ACPI's MCFG names.

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{
    Cam, ConfigurationAccess, DeviceFunction, DeviceFunctionInfo, HeaderType, MmioCam, PciRoot,
};

use crate::{
    acpi::Ecam,
    memory::{CacheMode, map_mmio},
    sync::IrqMutex,
};

/// The configuration space, usable from every CPU.
static BUS: IrqMutex<Option<Window>> = IrqMutex::new(None);

/// The mapped window. Only buses inside it are touched.
struct Window {
    cam: MmioCam<'static>,
    first_bus: u8,
    last_bus: u8,
}

// SAFETY: the registers may be used from any CPU; the lock serialises them.
unsafe impl Send for Window {}

/// Access to configuration space: any number of these, each access under the
/// lock. Functions outside the window read as all ones, as absent ones do.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConfigSpace;

impl ConfigurationAccess for ConfigSpace {
    fn read_word(&self, function: DeviceFunction, register: u8) -> u32 {
        match &*BUS.lock() {
            Some(window) if window.covers(function) => window.cam.read_word(function, register),
            _ => u32::MAX,
        }
    }

    fn write_word(&mut self, function: DeviceFunction, register: u8, data: u32) {
        if let Some(window) = &mut *BUS.lock()
            && window.covers(function)
        {
            window.cam.write_word(function, register, data);
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

impl Window {
    fn covers(&self, function: DeviceFunction) -> bool {
        (self.first_bus..=self.last_bus).contains(&function.bus)
    }
}

/// Maps the window of segment 0. Says whether there is one.
pub fn init(windows: &[Ecam]) -> bool {
    let Some(ecam) = windows.iter().find(|ecam| ecam.segment == 0) else {
        return false;
    };
    // The buses before the first have no registers, but they have an address.
    let len = (u64::from(ecam.last_bus) + 1) << 20;
    match map_mmio(ecam.base, len, CacheMode::Uncached) {
        Ok(base) => {
            *BUS.lock() = Some(Window {
                // SAFETY: mapped for good, and `covers` keeps every access to
                // the buses that are.
                cam: unsafe { MmioCam::new(base, Cam::Ecam) },
                first_bus: ecam.first_bus,
                last_bus: ecam.last_bus,
            });
            true
        }
        Err(error) => {
            log::error!("PCI configuration space cannot be mapped: {error}");
            false
        }
    }
}

/// Returns virtio-drivers' view of the PCI buses.
pub fn root() -> PciRoot<ConfigSpace> {
    PciRoot::new(ConfigSpace)
}

/// Finds every function on bus 0 and behind the bridges from there.
pub fn functions() -> Vec<(DeviceFunction, DeviceFunctionInfo)> {
    const BUS_NUMBERS: u8 = 0x18;
    let root = root();
    let mut found = Vec::new();
    let mut seen = [false; 256];
    let mut buses = alloc::vec![0u8];
    while let Some(bus) = buses.pop() {
        // A bridge that leads back up would make this a circle.
        if core::mem::replace(&mut seen[usize::from(bus)], true) {
            continue;
        }
        for (function, info) in root.enumerate_bus(bus) {
            if info.header_type == HeaderType::PciPciBridge {
                buses.push((ConfigSpace.read_word(function, BUS_NUMBERS) >> 8) as u8);
            }
            found.push((function, info));
        }
    }
    found
}
