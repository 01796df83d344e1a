//! The three ACPI tables that a small kernel needs: the root table, MCFG (where
//! PCI configuration space is mapped) and MADT (processors and interrupt
//! controllers). ACPI 6.5, chapter 5.2; MCFG: PCI Firmware 3.3, 4.1.2.
//!
//! Tables are bytes that others wrote: lengths and checksums are checked, every
//! access is bounded, and a table that is wrong is reported, not believed.

use alloc::{vec, vec::Vec};
use core::fmt;

/// Tables longer than this are taken for garbage.
const MAX_TABLE: usize = 1 << 20;
const HEADER: usize = 36;

/// What the tables say about the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Windows of PCI configuration space.
    pub ecam: Vec<Ecam>,
    /// Local APIC ids of the processors that may be used.
    pub cpus: Vec<u32>,
    /// Physical address of the local APIC's registers.
    pub local_apic: u64,
    /// I/O interrupt controllers.
    pub io_apics: Vec<IoApic>,
    /// ISA interrupts that are not wired one to one.
    pub overrides: Vec<Override>,
}

/// A window of PCI configuration space: 1 MiB for each bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecam {
    /// Physical address of bus 0's space, also if the window begins at a later bus.
    pub base: u64,
    /// PCI segment.
    pub segment: u16,
    /// First bus.
    pub first_bus: u8,
    /// Last bus, not below the first.
    pub last_bus: u8,
}

/// An I/O APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Physical address of its registers.
    pub addr: u32,
    /// The first global interrupt that it serves.
    pub first: u32,
}

/// Where an ISA interrupt really goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA interrupt number.
    pub irq: u8,
    /// Global interrupt number.
    pub global: u32,
    /// Polarity in bits 0 and 1, trigger mode in bits 2 and 3, as in the table.
    pub flags: u16,
}

/// Why the tables were not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// Memory at this physical address could not be read.
    Unreadable(u64),
    /// A structure has the wrong signature.
    Signature(&'static str),
    /// A structure has the wrong checksum.
    Checksum(&'static str),
    /// A structure is shorter or longer than can be.
    Length(&'static str),
    /// This table is missing.
    Missing(&'static str),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(addr) => write!(f, "ACPI table at {addr:#x} cannot be read"),
            Self::Signature(name) => write!(f, "ACPI {name} has a wrong signature"),
            Self::Checksum(name) => write!(f, "ACPI {name} has a wrong checksum"),
            Self::Length(name) => write!(f, "ACPI {name} has an impossible length"),
            Self::Missing(name) => write!(f, "ACPI table {name} is missing"),
        }
    }
}

impl core::error::Error for AcpiError {}

/// Reads all of `buffer.len()` bytes of physical memory, or says no.
pub trait Memory {
    /// Copies physical memory at `addr` to `buffer`. False if it is not there.
    fn read(&self, addr: u64, buffer: &mut [u8]) -> bool;
}

/// Reads the machine's tables, from the root pointer at `rsdp`.
///
/// # Errors
///
/// The first thing that is wrong with the root pointer, root table, MCFG or
/// MADT, or which of them is missing. Damage to other tables is skipped.
pub fn read(rsdp: u64, memory: &impl Memory) -> Result<Machine, AcpiError> {
    let mut machine = Machine::default();
    let (mut mcfg, mut madt) = (false, false);
    for addr in root(rsdp, memory)? {
        let mut signature = [0; 4];
        if !memory.read(addr, &mut signature) {
            continue;
        }
        match &signature {
            b"MCFG" => {
                read_mcfg(&table(addr, "MCFG", memory)?, &mut machine);
                mcfg = true;
            }
            b"APIC" => {
                read_madt(&table(addr, "MADT", memory)?, &mut machine)?;
                madt = true;
            }
            _ => {}
        }
    }
    match (mcfg, madt) {
        (false, _) => Err(AcpiError::Missing("MCFG")),
        (_, false) => Err(AcpiError::Missing("MADT")),
        _ => Ok(machine),
    }
}

/// Returns the addresses of all tables, from the XSDT or, in old firmware, the RSDT.
fn root(rsdp: u64, memory: &impl Memory) -> Result<Vec<u64>, AcpiError> {
    const NAME: &str = "root pointer";
    let mut pointer = [0; 36];
    if !memory.read(rsdp, &mut pointer[..20]) {
        return Err(AcpiError::Unreadable(rsdp));
    }
    if &pointer[..8] != b"RSD PTR " {
        return Err(AcpiError::Signature(NAME));
    }
    if sum(&pointer[..20]) != 0 {
        return Err(AcpiError::Checksum(NAME));
    }
    if pointer[15] >= 2 && memory.read(rsdp, &mut pointer) {
        if sum(&pointer) != 0 {
            return Err(AcpiError::Checksum(NAME));
        }
        let xsdt = u64_at(&pointer, 24).unwrap_or(0);
        if xsdt != 0 {
            let table = table(xsdt, "XSDT", memory)?;
            return Ok((HEADER..)
                .step_by(8)
                .map_while(|at| u64_at(&table, at))
                .collect());
        }
    }
    let rsdt = u32_at(&pointer, 16).unwrap_or(0);
    let table = table(rsdt.into(), "RSDT", memory)?;
    Ok((HEADER..)
        .step_by(4)
        .map_while(|at| u32_at(&table, at))
        .map(u64::from)
        .collect())
}

/// Reads a whole table and checks length and checksum.
fn table(addr: u64, name: &'static str, memory: &impl Memory) -> Result<Vec<u8>, AcpiError> {
    let mut header = [0; HEADER];
    if !memory.read(addr, &mut header) {
        return Err(AcpiError::Unreadable(addr));
    }
    let len = u32_at(&header, 4).unwrap_or(0) as usize;
    if !(HEADER..=MAX_TABLE).contains(&len) {
        return Err(AcpiError::Length(name));
    }
    let mut bytes = vec![0; len];
    if !memory.read(addr, &mut bytes) {
        return Err(AcpiError::Unreadable(addr));
    }
    match sum(&bytes) {
        0 => Ok(bytes),
        _ => Err(AcpiError::Checksum(name)),
    }
}

fn read_mcfg(table: &[u8], machine: &mut Machine) {
    let entries = table.get(HEADER + 8..).unwrap_or(&[]);
    machine
        .ecam
        .extend(entries.chunks_exact(16).filter_map(|entry| {
            let ecam = Ecam {
                base: u64_at(entry, 0)?,
                segment: u16_at(entry, 8)?,
                first_bus: entry[10],
                last_bus: entry[11],
            };
            // An address that leaves no room for all buses is nonsense.
            let room = ecam.base <= (1 << 52) - (256 << 20);
            (ecam.first_bus <= ecam.last_bus && ecam.base.is_multiple_of(1 << 20) && room)
                .then_some(ecam)
        }));
}

fn read_madt(table: &[u8], machine: &mut Machine) -> Result<(), AcpiError> {
    const ENABLED: u32 = 1;
    machine.local_apic = u32_at(table, HEADER)
        .ok_or(AcpiError::Length("MADT"))?
        .into();
    let mut rest = table.get(HEADER + 8..).unwrap_or(&[]);
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        if len < 2 || len > rest.len() {
            return Err(AcpiError::Length("MADT"));
        }
        let (entry, after) = rest.split_at(len);
        rest = after;
        // Entries too short for their kind are skipped by the `?` below.
        let _ = (|| -> Option<()> {
            match kind {
                0 if u32_at(entry, 4)? & ENABLED != 0 => machine.cpus.push(entry[3].into()),
                1 => machine.io_apics.push(IoApic {
                    addr: u32_at(entry, 4)?,
                    first: u32_at(entry, 8)?,
                }),
                2 => machine.overrides.push(Override {
                    irq: *entry.get(3)?,
                    global: u32_at(entry, 4)?,
                    flags: u16_at(entry, 8)?,
                }),
                5 => machine.local_apic = u64_at(entry, 4)?,
                9 if u32_at(entry, 8)? & ENABLED != 0 => machine.cpus.push(u32_at(entry, 4)?),
                _ => {}
            }
            Some(())
        })();
    }
    Ok(())
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, &byte| sum.wrapping_add(byte))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Vec<u8>);

    impl Memory for Fake {
        fn read(&self, addr: u64, buffer: &mut [u8]) -> bool {
            let Some(from) = self.0.get(addr as usize..) else {
                return false;
            };
            let Some(from) = from.get(..buffer.len()) else {
                return false;
            };
            buffer.copy_from_slice(from);
            true
        }
    }

    impl Fake {
        fn put(&mut self, at: usize, bytes: &[u8]) {
            self.0[at..at + bytes.len()].copy_from_slice(bytes);
        }

        fn put_table(&mut self, at: usize, signature: &[u8; 4], body: &[u8]) {
            let mut table = vec![0; HEADER];
            table[..4].copy_from_slice(signature);
            table.extend_from_slice(body);
            let len = table.len() as u32;
            table[4..8].copy_from_slice(&len.to_le_bytes());
            table[9] = 0u8.wrapping_sub(sum(&table));
            self.put(at, &table);
        }
    }

    const RSDP: u64 = 0x10;

    /// A machine of two CPUs and one disabled one, tables by XSDT or RSDT.
    fn machine(revision: u8) -> Fake {
        let mut fake = Fake(vec![0; 0x1000]);
        let mut pointer = [0; 36];
        pointer[..8].copy_from_slice(b"RSD PTR ");
        pointer[15] = revision;
        pointer[16..20].copy_from_slice(&0x100u32.to_le_bytes());
        pointer[24..32].copy_from_slice(&0x200u64.to_le_bytes());
        pointer[8] = 0u8.wrapping_sub(sum(&pointer[..20]));
        pointer[32] = 0u8.wrapping_sub(sum(&pointer));
        fake.put(RSDP as usize, &pointer);
        let addresses = [0x900u32, 0x300, 0x400];
        fake.put_table(0x100, b"RSDT", &addresses.map(u32::to_le_bytes).concat());
        let wide = addresses.map(|addr| u64::from(addr).to_le_bytes()).concat();
        fake.put_table(0x200, b"XSDT", &wide);
        let mut mcfg = vec![0; 8];
        mcfg.extend(0xb000_0000u64.to_le_bytes());
        mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
        fake.put_table(0x300, b"MCFG", &mcfg);
        let mut madt = 0xfee0_0000u32.to_le_bytes().to_vec();
        madt.extend([0; 4]);
        madt.extend([0, 8, 0, 0, 1, 0, 0, 0]);
        madt.extend([0, 8, 1, 5, 1, 0, 0, 0]);
        madt.extend([0, 8, 2, 6, 0, 0, 0, 0]);
        madt.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        madt.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
        fake.put_table(0x400, b"APIC", &madt);
        fake.put_table(0x900, b"HPET", &[1, 2, 3]);
        fake
    }

    #[test]
    fn both_generations_of_root_table_lead_to_the_same_machine() {
        let new = read(RSDP, &machine(2)).unwrap();
        assert_eq!(new, read(RSDP, &machine(0)).unwrap());
        assert_eq!(new.cpus, [0, 5]);
        assert_eq!(new.local_apic, 0xfee0_0000);
        assert_eq!(
            new.io_apics,
            [IoApic {
                addr: 0xfec0_0000,
                first: 0
            }]
        );
        assert_eq!(
            new.overrides,
            [Override {
                irq: 0,
                global: 2,
                flags: 0
            }]
        );
        let window = Ecam {
            base: 0xb000_0000,
            segment: 0,
            first_bus: 0,
            last_bus: 255,
        };
        assert_eq!(new.ecam, [window]);
    }

    #[test]
    fn every_flipped_byte_is_survived_and_most_are_noticed() {
        let good = machine(2);
        let mut refused = 0;
        for at in 0..good.0.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bad = Fake(good.0.clone());
                bad.0[at] ^= flip;
                refused += usize::from(read(RSDP, &bad).is_err());
            }
        }
        assert!(
            refused > 3 * 200,
            "only {refused} of the changes were noticed"
        );
    }

    #[test]
    fn lengths_that_lie_are_survived_with_a_right_checksum() {
        let good = machine(2);
        for at in 0x400 + HEADER..0x400 + HEADER + 54 {
            for value in [0, 1, 2, 3, 7, 0x7f, 0xff] {
                let mut bad = Fake(good.0.clone());
                bad.0[0x409] = bad.0[0x409].wrapping_add(bad.0[at]).wrapping_sub(value);
                bad.0[at] = value;
                // Whatever comes out, it comes out.
                let _ = read(RSDP, &bad);
            }
        }
        let mut bad = machine(2);
        bad.0[0x400 + HEADER + 8 + 1] = 0;
        bad.0[0x409] = bad.0[0x409].wrapping_add(8);
        assert_eq!(read(RSDP, &bad), Err(AcpiError::Length("MADT")));
    }

    #[test]
    fn missing_tables_are_named() {
        let mut fake = machine(2);
        fake.put(0x300, b"XXXX");
        assert_eq!(read(RSDP, &fake), Err(AcpiError::Missing("MCFG")));
        assert_eq!(read(0x2000, &fake), Err(AcpiError::Unreadable(0x2000)));
    }
}
