//! virtio over PCI (virtio 1.3, section 4.1): finding the device, its registers,
//! its interrupts, its shared memory.
//!
//! The kernel supplies access to configuration space (virtio-drivers'
//! [`ConfigurationAccess`]) and the mapping of registers
//! ([`Hal::mmio_phys_to_virt`](crate::platform::Hal::mmio_phys_to_virt)):
//!
//! ```text
//! for function in pci::find(&config, 0..=255) {
//!     let device = PciDevice::open::<H, _>(&mut config, function)?;
//!     if let Some(msix) = &mut device.msix {
//!         msix.set_message(0, message)?;  // one for each vector in use
//!         msix.enable(&mut config);
//!     }
//!     // device.transport goes to the driver
//! }
//! ```
//!
//! virtio-drivers has a PCI transport too, which is not used: it refuses device
//! 26, sets up no MSI-X, knows no shared memory, walks a circular capability
//! list for ever, and needs two registers and `&mut self` to ring a queue.
//!
//! # Whom this trusts
//!
//! Configuration space and registers are the device's. Every structure is
//! checked to lie inside its BAR, every list is bounded, and what cannot be is
//! a [`PciError`]. The *address* of a BAR is taken from configuration space,
//! where firmware or the kernel put it. A kernel that distrusts its host as far
//! as that must refuse addresses that are memory of its own, in
//! `mmio_phys_to_virt` and when it maps the shared memory.

mod bar;
mod capability;
mod common;
mod error;
mod function;
mod msix;
mod registers;
mod transport;

pub use error::{PciError, Structure};
pub use function::find;
pub use msix::{MsiMessage, Msix, MsixError};
pub use transport::{Intx, PciDevice, PciTransport};
pub use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction};

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
