//! The capabilities of a function (PCI 3.0, 6.7; virtio 1.3, 4.1.4; MSI-X: PCI
//! 3.0, 6.8.2).

use alloc::vec::Vec;

use virtio_drivers::transport::pci::bus::{ConfigurationAccess, PCI_CAP_ID_VNDR};

use super::bar::{BARS, Place};
use super::function::Function;
use super::{PciError, Structure};

/// Offset of the pointer to the first capability.
const POINTER: u8 = 0x34;
/// Capabilities begin behind the header.
const FIRST: u8 = 0x40;
/// Capability id of MSI-X.
const MSIX: u8 = 0x11;

/// What the capabilities say. Nothing is held against the BARs yet.
#[derive(Debug, Default)]
pub(super) struct Capabilities {
    pub(super) common: Option<Place>,
    pub(super) notify: Option<(Place, Multiplier)>,
    pub(super) isr: Option<Place>,
    pub(super) device: Option<Place>,
    pub(super) shared: Vec<(u8, Place)>,
    pub(super) msix: Option<MsixCapability>,
}

/// Distance between the notification registers of queues, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Multiplier(pub(super) u32);

/// What the MSI-X capability says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MsixCapability {
    /// Offset of the word with the message control register.
    pub(super) control: u8,
    /// Number of vectors, 1 to 2048.
    pub(super) vectors: u16,
    pub(super) table: Place,
    pub(super) pending: Place,
}

impl Capabilities {
    /// Walks the list. It may contain each word of configuration space once at
    /// most, so the walk ends.
    ///
    /// Of several capabilities of one type the first counts that names a usable
    /// BAR: "the first that the driver can support". Those that name a BAR above
    /// 5, and types that are unknown, are skipped.
    pub(super) fn read<C: ConfigurationAccess>(
        function: &Function<'_, C>,
        usable: impl Fn(u8) -> bool,
    ) -> Result<Self, PciError> {
        let mut found = Self::default();
        if !function.has_capabilities() {
            return Ok(found);
        }
        let mut seen = 0u64;
        let mut at = function.word(POINTER) as u8 & !3;
        while at != 0 {
            let bit = 1 << (at / 4);
            if at < FIRST || seen & bit != 0 {
                return Err(PciError::CapabilityList(at));
            }
            seen |= bit;
            let header = function.word(at);
            match header as u8 {
                PCI_CAP_ID_VNDR => found.virtio(function, at, header, &usable)?,
                MSIX if found.msix.is_none() => found.msix = Some(msix(function, at, header)?),
                _ => {}
            }
            at = (header >> 8) as u8 & !3;
        }
        Ok(found)
    }

    /// Takes a vendor-specific capability, which is a `virtio_pci_cap`.
    fn virtio<C: ConfigurationAccess>(
        &mut self,
        function: &Function<'_, C>,
        at: u8,
        header: u32,
        usable: impl Fn(u8) -> bool,
    ) -> Result<(), PciError> {
        let len = (header >> 16) as u8;
        let id = (Word(1).read(function, at).unwrap_or_default() >> 8) as u8;
        let (what, needed) = match header >> 24 {
            1 => (Structure::Common, 16),
            2 => (Structure::Notify, 20),
            3 => (Structure::Isr, 16),
            4 => (Structure::Device, 16),
            8 => (Structure::SharedMemory(id), 24),
            _ => return Ok(()),
        };
        let too_short = PciError::CapabilityLen(what, at);
        if len < needed {
            return Err(too_short);
        }
        let word = |n| Word(n).read(function, at).ok_or(too_short);
        let bar = word(1)? as u8;
        if usize::from(bar) >= BARS {
            return Ok(());
        }
        let mut place = Place {
            bar,
            offset: word(2)?.into(),
            len: word(3)?.into(),
        };
        let better = |old: Option<Place>| match old {
            None => true,
            Some(old) => !usable(old.bar) && usable(bar),
        };
        match what {
            Structure::Common if better(self.common) => self.common = Some(place),
            Structure::Isr if better(self.isr) => self.isr = Some(place),
            Structure::Device if better(self.device) => self.device = Some(place),
            Structure::Notify if better(self.notify.map(|(old, _)| old)) => {
                self.notify = Some((place, Multiplier(word(4)?)));
            }
            Structure::SharedMemory(id) if self.shared.iter().all(|&(other, _)| other != id) => {
                place.offset |= u64::from(word(4)?) << 32;
                place.len |= u64::from(word(5)?) << 32;
                self.shared.push((id, place));
            }
            _ => {}
        }
        Ok(())
    }
}

/// A word of a capability, counted from its beginning.
struct Word(u8);

impl Word {
    /// Reads it; `None` behind the end of configuration space.
    fn read<C: ConfigurationAccess>(self, function: &Function<'_, C>, at: u8) -> Option<u32> {
        Some(function.word(at.checked_add(4 * self.0)?))
    }
}

/// Bits of a place in MSI-X that name the BAR.
const BAR_BITS: u32 = 0b111;
/// Bytes of a vector in the table.
pub(super) const MSIX_ENTRY: u16 = 16;

fn msix<C: ConfigurationAccess>(
    function: &Function<'_, C>,
    at: u8,
    header: u32,
) -> Result<MsixCapability, PciError> {
    let word = |n, what| {
        Word(n)
            .read(function, at)
            .ok_or(PciError::CapabilityLen(what, at))
    };
    let vectors = ((header >> 16) as u16 & 0x7ff) + 1;
    let table = word(1, Structure::MsixTable)?;
    let pending = word(2, Structure::MsixPending)?;
    let place = |word: u32, len: u16| Place {
        bar: (word & BAR_BITS) as u8,
        offset: (word & !BAR_BITS).into(),
        len: len.into(),
    };
    Ok(MsixCapability {
        control: at,
        vectors,
        table: place(table, vectors * MSIX_ENTRY),
        pending: place(pending, vectors.div_ceil(64) * 8),
    })
}
