//! Base address registers: where the device's regions lie (PCI 3.0, 6.2.5.1).

use virtio_drivers::PhysAddr;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess};

use super::function::Function;
use super::{PciError, Structure};

/// How many there are.
pub(super) const BARS: usize = 6;
/// Offset of the first in configuration space.
const BAR0: u8 = 0x10;

/// A memory BAR: a power of two of bytes at an address that is a multiple of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    address: PhysAddr,
    size: u64,
}

/// All BARs of a function; `None` for those that are absent, in I/O space,
/// without address, or contradict themselves.
pub(super) type Bars = [Option<Bar>; BARS];

/// Where a capability says that a structure lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) bar: u8,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A range of addresses that lies inside a BAR. Not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Region {
    address: PhysAddr,
    len: u64,
}

impl Region {
    pub(super) fn address(self) -> PhysAddr {
        self.address
    }

    pub(super) fn len(self) -> u64 {
        self.len
    }

    /// Returns the first bytes of the region, `max` at most.
    pub(super) fn at_most(self, max: u64) -> Self {
        Self {
            len: self.len.min(max),
            ..self
        }
    }
}

impl Place {
    /// Finds the structure: at least `min` bytes at a multiple of `align` inside
    /// its BAR.
    pub(super) fn resolve(
        self,
        bars: &Bars,
        what: Structure,
        min: u64,
        align: u64,
    ) -> Result<Region, PciError> {
        let bar = bars.get(usize::from(self.bar)).copied().flatten();
        let bar = bar.ok_or(PciError::NoBar(what, self.bar))?;
        if self.len < min.max(1) {
            return Err(PciError::TooShort(what, self.len));
        }
        if !self.offset.is_multiple_of(align) {
            return Err(PciError::Unaligned(what, self.offset));
        }
        match self.offset.checked_add(self.len) {
            // The end of the BAR does not overflow, so nothing inside it does.
            Some(end) if end <= bar.size => Ok(Region {
                address: bar.address + self.offset,
                len: self.len,
            }),
            _ => Err(PciError::OutsideBar(what, self.bar)),
        }
    }
}

/// Reads all BARs. Their sizes show when all ones are written to them, so the
/// device must not decode addresses meanwhile; everything is restored.
pub(super) fn read_bars<C: ConfigurationAccess>(function: &mut Function<'_, C>) -> Bars {
    let command = function.command();
    function.set_command(command - Command::IO_SPACE - Command::MEMORY_SPACE);
    let mut bars = [None; BARS];
    let mut index = 0;
    while index < BARS {
        let at = BAR0 + 4 * index as u8;
        let low = probe(function, at);
        let wide = low.value & 0b111 == 0b100 && index + 1 < BARS;
        let high = wide.then(|| probe(function, at + 4));
        if let Some(bar) = bars.get_mut(index) {
            *bar = Bar::new(low, high);
        }
        index += if wide { 2 } else { 1 };
    }
    function.set_command(command);
    bars
}

/// A register: what stands in it, and what remains of all ones.
#[derive(Clone, Copy)]
struct Probe {
    value: u32,
    mask: u32,
}

fn probe<C: ConfigurationAccess>(function: &mut Function<'_, C>, at: u8) -> Probe {
    let value = function.word(at);
    function.set_word(at, u32::MAX);
    let mask = function.word(at);
    function.set_word(at, value);
    Probe { value, mask }
}

impl Bar {
    /// Judges what was read. Bit 0 means I/O space; bits 1 and 2 the width,
    /// where 0 is 32 and 2 is 64 bits; bit 3 that reading has no side effects.
    fn new(low: Probe, high: Option<Probe>) -> Option<Self> {
        const FLAGS: u64 = 0xf;
        let (value, mask) = match (low.value & 0b111, high) {
            (0b000, _) => (u64::from(low.value), u64::from(low.mask) | (u64::MAX << 32)),
            (0b100, Some(high)) => (
                u64::from(low.value) | u64::from(high.value) << 32,
                u64::from(low.mask) | u64::from(high.mask) << 32,
            ),
            _ => return None,
        };
        let (address, size) = (value & !FLAGS, (!(mask & !FLAGS)).wrapping_add(1));
        let sound = size.is_power_of_two()
            && address != 0
            && address.is_multiple_of(size)
            && address.checked_add(size).is_some();
        // A 32-bit BAR of which nothing remains is absent, not 4 GiB long.
        let present = low.mask & !(FLAGS as u32) != 0 || high.is_some();
        (sound && present).then_some(Self { address, size })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn low(value: u32, mask: u32) -> Probe {
        Probe { value, mask }
    }

    #[test]
    fn size_is_what_cannot_be_written() {
        let bar = |address, size| Some(Bar { address, size });
        assert_eq!(
            Bar::new(low(0xfe00_0000, 0xffff_f000), None),
            bar(0xfe00_0000, 0x1000)
        );
        assert_eq!(
            Bar::new(low(0xfe00_0008, 0xffff_f008), None),
            bar(0xfe00_0000, 0x1000)
        );
        let high = Some(low(0x80, 0xffff_ff80));
        assert_eq!(
            Bar::new(low(0xc, 0xc), high),
            bar(0x80_0000_0000, 0x80_0000_0000)
        );
    }

    #[test]
    fn registers_that_lie_are_no_bar() {
        for (what, low, high) in [
            ("absent", low(0, 0), None),
            ("not writable", low(0xfe00_0000, 0), None),
            ("no address", low(0, 0xffff_f000), None),
            (
                "address inside the size",
                low(0xfe00_0800, 0xffff_f000),
                None,
            ),
            ("mask with a gap", low(0xfe00_0000, 0xffef_f000), None),
            ("I/O space", low(0xc001, 0xfffd), None),
            ("below 1 MiB", low(0x8_0002, 0xffff_f002), None),
            (
                "64 bits without the upper half",
                low(0xfe00_0004, 0xffff_f004),
                None,
            ),
            ("64 bits, nothing writable", low(4, 4), Some(low(1, 0))),
            (
                "end overflows",
                low(0xffff_f004, 0xffff_f004),
                Some(low(u32::MAX, u32::MAX)),
            ),
        ] {
            assert_eq!(Bar::new(low, high), None, "{what}");
        }
    }
}
