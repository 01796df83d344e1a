//! Message-signalled interrupts (PCI 3.0, 6.8.2).

use core::fmt;

use virtio_drivers::Hal;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction};

use super::bar::Bars;
use super::capability::{MSIX_ENTRY, MsixCapability};
use super::function::Function;
use super::registers::Registers;
use super::{PciError, Structure};

/// Bits of the word that holds the message control register.
const ENABLE: u32 = 1 << 31;
const MASK_ALL: u32 = 1 << 30;

/// Offsets in an entry of the table.
const ADDRESS_LOW: usize = 0;
const ADDRESS_HIGH: usize = 4;
const DATA: usize = 8;
const CONTROL: usize = 12;
/// Bit of the entry's control word: the vector is silent.
const MASKED: u32 = 1 << 0;

/// The write to memory that stands for an interrupt. On x86 the address names
/// the CPU and the data the vector there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiMessage {
    /// Where the device writes.
    pub address: u64,
    /// What it writes.
    pub data: u32,
}

/// The device has no such vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixError {
    /// The vector that was asked for.
    pub vector: u16,
    /// How many the device has.
    pub vectors: u16,
}

impl fmt::Display for MsixError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no MSI-X vector {}: the device has {}",
            self.vector, self.vectors
        )
    }
}

impl core::error::Error for MsixError {}

/// The message-signalled interrupts of a device.
///
/// Give each vector that is used a message, enable them, then hand the vectors'
/// numbers to the driver. Dropping this leaves all as it is.
pub struct Msix {
    table: Registers,
    vectors: u16,
    function: DeviceFunction,
    control: u8,
}

impl Msix {
    /// Finds the table, which must lie inside its BAR, as must the pending bits.
    /// Every vector is masked: firmware may have left messages behind.
    pub(super) fn new<H: Hal>(
        capability: &MsixCapability,
        bars: &Bars,
        function: DeviceFunction,
    ) -> Result<Self, PciError> {
        let MsixCapability {
            control,
            vectors,
            table,
            pending,
        } = *capability;
        let what = Structure::MsixTable;
        let table = table.resolve(bars, what, MSIX_ENTRY.into(), 8)?;
        pending.resolve(bars, Structure::MsixPending, 8, 8)?;
        let table = Registers::map::<H>(table).ok_or(PciError::TooShort(what, 0))?;
        for vector in 0..usize::from(vectors) {
            table.write32(vector * usize::from(MSIX_ENTRY) + CONTROL, MASKED);
        }
        Ok(Self {
            table,
            vectors,
            function,
            control,
        })
    }

    /// Returns how many vectors there are, 1 to 2048.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Gives a vector its message and lets it through. It is silent while the
    /// message changes; an interrupt meanwhile comes afterwards.
    ///
    /// # Errors
    ///
    /// [`MsixError`] if there is no such vector.
    pub fn set_message(&mut self, vector: u16, message: MsiMessage) -> Result<(), MsixError> {
        let entry = self.entry(vector)?;
        self.set_mask(entry, MASKED);
        self.table
            .write32(entry + ADDRESS_LOW, message.address as u32);
        self.table
            .write32(entry + ADDRESS_HIGH, (message.address >> 32) as u32);
        self.table.write32(entry + DATA, message.data);
        self.set_mask(entry, 0);
        Ok(())
    }

    /// Silences a vector. An interrupt meanwhile comes when it is unmasked.
    ///
    /// # Errors
    ///
    /// [`MsixError`] if there is no such vector.
    pub fn mask(&mut self, vector: u16) -> Result<(), MsixError> {
        let entry = self.entry(vector)?;
        self.set_mask(entry, MASKED);
        Ok(())
    }

    /// Lets a vector through. It must have a message.
    ///
    /// # Errors
    ///
    /// [`MsixError`] if there is no such vector.
    pub fn unmask(&mut self, vector: u16) -> Result<(), MsixError> {
        let entry = self.entry(vector)?;
        self.set_mask(entry, 0);
        Ok(())
    }

    /// Makes the device send messages and not use its interrupt line.
    pub fn enable<C: ConfigurationAccess>(&mut self, config: &mut C) {
        let mut function = Function::new(config, self.function);
        let command = function.command();
        function.set_command(command | Command::INTERRUPT_DISABLE);
        let word = function.word(self.control);
        function.set_word(self.control, word & !MASK_ALL | ENABLE);
    }

    /// Makes the device send no messages and use its interrupt line again.
    pub fn disable<C: ConfigurationAccess>(&mut self, config: &mut C) {
        let mut function = Function::new(config, self.function);
        let word = function.word(self.control);
        function.set_word(self.control, word & !ENABLE);
        let command = function.command();
        function.set_command(command - Command::INTERRUPT_DISABLE);
    }

    /// Returns the offset of a vector's entry in the table.
    fn entry(&self, vector: u16) -> Result<usize, MsixError> {
        if vector < self.vectors {
            Ok(usize::from(vector) * usize::from(MSIX_ENTRY))
        } else {
            Err(MsixError {
                vector,
                vectors: self.vectors,
            })
        }
    }

    /// Writes the mask bit and reads it back, so that it holds on return. The
    /// other bits of the word are kept, as they are reserved.
    fn set_mask(&mut self, entry: usize, mask: u32) {
        let control = self.table.read32(entry + CONTROL) & !MASKED;
        self.table.write32(entry + CONTROL, control | mask);
        self.table.read32(entry + CONTROL);
    }
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix")
            .field("function", &self.function)
            .field("vectors", &self.vectors)
            .finish_non_exhaustive()
    }
}
