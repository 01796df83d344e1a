//! What can be wrong with a PCI function.

use core::fmt;

/// A part of the device that a capability says the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Registers that all virtio devices have.
    Common,
    /// Registers to ring queues.
    Notify,
    /// The register behind an interrupt line.
    Isr,
    /// The configuration space of the device type.
    Device,
    /// A region of shared memory with this id.
    SharedMemory(u8),
    /// Addresses and data of message-signalled interrupts.
    MsixTable,
    /// Which of those are pending.
    MsixPending,
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Common => f.write_str("common configuration"),
            Self::Notify => f.write_str("notification area"),
            Self::Isr => f.write_str("ISR status"),
            Self::Device => f.write_str("device configuration"),
            Self::SharedMemory(id) => write!(f, "shared memory region {id}"),
            Self::MsixTable => f.write_str("MSI-X table"),
            Self::MsixPending => f.write_str("MSI-X pending bits"),
        }
    }
}

/// Why a function cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// Nothing answers.
    Gone,
    /// It is this vendor's device and not a virtio-fs one.
    OtherDevice {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// The list of capabilities goes in a circle, or leaves its place, at this
    /// offset in configuration space.
    CapabilityList(u8),
    /// A capability of this kind is too short, at this offset.
    CapabilityLen(Structure, u8),
    /// There is no capability for this.
    Missing(Structure),
    /// This lies in a BAR that is absent, has no address, or makes no sense.
    NoBar(Structure, u8),
    /// This does not lie inside its BAR.
    OutsideBar(Structure, u8),
    /// This has too few bytes.
    TooShort(Structure, u64),
    /// This begins at an offset that is not aligned.
    Unaligned(Structure, u64),
    /// The distance between notification registers is odd.
    NotifyMultiplier(u32),
}

impl fmt::Display for PciError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("no device answers"),
            Self::OtherDevice { vendor, device } => {
                write!(f, "device {vendor:04x}:{device:04x} is not virtio-fs")
            }
            Self::CapabilityList(at) => write!(f, "broken list of capabilities at {at:#x}"),
            Self::CapabilityLen(what, at) => {
                write!(f, "capability of the {what} at {at:#x} is too short")
            }
            Self::Missing(what) => write!(f, "no capability of the {what}"),
            Self::NoBar(what, bar) => write!(f, "{what} lies in unusable BAR {bar}"),
            Self::OutsideBar(what, bar) => write!(f, "{what} lies outside of BAR {bar}"),
            Self::TooShort(what, len) => write!(f, "{what} has only {len} bytes"),
            Self::Unaligned(what, at) => write!(f, "{what} begins at unaligned offset {at:#x}"),
            Self::NotifyMultiplier(n) => write!(f, "odd notification multiplier {n}"),
        }
    }
}

impl core::error::Error for PciError {}
