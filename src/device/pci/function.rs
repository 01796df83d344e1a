//! Configuration space of one PCI function, and the search for virtio-fs devices
//! (PCI 3.0, 6.1; virtio 1.3, 4.1.2).

use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction};

use super::PciError;

/// Vendor id of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// Device id of virtio-fs: 0x1040 and the device type, 26.
const DEVICE: u16 = 0x1040 + 26;
/// What reads where nothing answers.
const ABSENT: u32 = u32::MAX;

/// Offsets in configuration space.
const ID: u8 = 0x00;
const COMMAND_STATUS: u8 = 0x04;
const HEADER_TYPE: u8 = 0x0c;
const INTERRUPT: u8 = 0x3c;

/// Bit of the word at [`HEADER_TYPE`]: there are functions beside function 0.
const MULTI_FUNCTION: u32 = 1 << 23;
/// Bit of the word at [`COMMAND_STATUS`]: there is a list of capabilities.
const CAPABILITIES: u32 = 1 << 20;

/// Finds the virtio-fs devices on these buses, in order.
///
/// A bus behind a bridge has a number once firmware or the kernel gave it one;
/// asking for all of 0 to 255 finds all devices of a segment.
pub fn find<C: ConfigurationAccess>(
    config: &C,
    buses: impl IntoIterator<Item = u8>,
) -> impl Iterator<Item = DeviceFunction> {
    buses
        .into_iter()
        .flat_map(|bus| {
            (0..32).map(move |device| DeviceFunction {
                bus,
                device,
                function: 0,
            })
        })
        .filter(|&first| config.read_word(first, ID) != ABSENT)
        .flat_map(|first| {
            let multi = config.read_word(first, HEADER_TYPE) & MULTI_FUNCTION != 0;
            let last = if multi { 7 } else { 0 };
            (0..=last).map(move |function| DeviceFunction { function, ..first })
        })
        .filter(|&function| config.read_word(function, ID) == virtio_fs_id())
}

/// The word at [`ID`] of a virtio-fs device.
const fn virtio_fs_id() -> u32 {
    (DEVICE as u32) << 16 | VENDOR as u32
}

/// One function and the way to its configuration space.
pub(super) struct Function<'a, C> {
    config: &'a mut C,
    address: DeviceFunction,
}

impl<'a, C: ConfigurationAccess> Function<'a, C> {
    /// Takes a function whose id was not looked at.
    pub(super) fn new(config: &'a mut C, address: DeviceFunction) -> Self {
        Self { config, address }
    }

    /// Checks that there is a virtio-fs device.
    pub(super) fn check_id(&self) -> Result<(), PciError> {
        if !self.address.valid() {
            return Err(PciError::Gone);
        }
        match self.word(ID) {
            ABSENT => Err(PciError::Gone),
            id if id == virtio_fs_id() => Ok(()),
            id => Err(PciError::OtherDevice {
                vendor: id as u16,
                device: (id >> 16) as u16,
            }),
        }
    }

    /// Reads the aligned word that holds the byte at this offset.
    pub(super) fn word(&self, at: u8) -> u32 {
        self.config.read_word(self.address, at & !3)
    }

    /// Writes an aligned word.
    pub(super) fn set_word(&mut self, at: u8, value: u32) {
        self.config.write_word(self.address, at & !3, value);
    }

    /// Says whether there is a list of capabilities.
    pub(super) fn has_capabilities(&self) -> bool {
        self.word(COMMAND_STATUS) & CAPABILITIES != 0
    }

    pub(super) fn command(&self) -> Command {
        Command::from_bits_retain(self.word(COMMAND_STATUS) as u16)
    }

    /// Writes the command register. The status bits beside it are cleared by
    /// writing ones, so zeros leave them alone.
    pub(super) fn set_command(&mut self, command: Command) {
        self.set_word(COMMAND_STATUS, command.bits().into());
    }

    /// Returns the interrupt pin, 0 for none, and the line that firmware wired
    /// it to.
    pub(super) fn interrupt(&self) -> (u8, u8) {
        let word = self.word(INTERRUPT);
        ((word >> 8) as u8, word as u8)
    }
}
