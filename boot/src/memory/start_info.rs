//! What a PVH loader tells the kernel: command line, memory map, ACPI root.
//!
//! Layout: `struct hvm_start_info` and `struct hvm_memmap_table_entry` of Xen's
//! public header `arch-x86/hvm/start_info.h`. The loader is trusted as far as
//! any boot loader is, but values are checked where a wrong one would be hard
//! to understand later.

use core::ops::Range;

/// The size of a page, and of a page frame.
pub const PAGE: u64 = 4096;

const MAGIC: u32 = 0x336e_c578;
/// The most ranges that are kept; machines have about ten.
const MAX_RANGES: usize = 64;
/// The longest command line that is kept, as long as Linux's.
const MAX_COMMAND_LINE: usize = 2048;

#[repr(C)]
#[derive(Clone, Copy)]
struct Raw {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    modules_addr: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    _reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct RawRange {
    addr: u64,
    size: u64,
    kind: u32,
    _reserved: u32,
}

/// A private copy of the loader's information.
#[derive(Debug)]
pub struct StartInfo {
    /// Physical address of the ACPI root pointer, 0 if the loader gave none.
    pub rsdp: u64,
    /// The memory of the machine.
    pub memory: MemoryMap,
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_len: usize,
}

impl StartInfo {
    /// Copies the information at physical address `addr`.
    ///
    /// # Panics
    ///
    /// If the magic number is wrong or there is no memory map: then no loader of
    /// this protocol started the kernel.
    ///
    /// # Safety
    ///
    /// `addr` is what the loader passed, and all that it points to is mapped at
    /// its physical address.
    pub unsafe fn read(addr: u64) -> Self {
        // SAFETY: the caller's promise.
        let raw = unsafe { (addr as *const Raw).read_unaligned() };
        assert_eq!(raw.magic, MAGIC, "not started by a PVH loader");
        assert!(
            raw.version >= 1 && raw.memory_map_entries > 0,
            "the loader gave no memory map"
        );
        let mut info = Self {
            rsdp: raw.rsdp,
            memory: MemoryMap::new(),
            command_line: [0; MAX_COMMAND_LINE],
            command_line_len: 0,
        };
        for i in 0..raw.memory_map_entries as usize {
            // SAFETY: the caller's promise; the entries follow one another.
            let range = unsafe { (raw.memory_map as *const RawRange).add(i).read_unaligned() };
            if range.kind == 1 {
                info.memory.add(range.addr, range.size);
            }
        }
        if raw.command_line != 0 {
            for slot in &mut info.command_line {
                // SAFETY: the caller's promise; nothing behind the NUL is read.
                let byte = unsafe {
                    (raw.command_line as *const u8)
                        .add(info.command_line_len)
                        .read()
                };
                if byte == 0 {
                    break;
                }
                *slot = byte;
                info.command_line_len += 1;
            }
        }
        info
    }

    /// Returns the command line; `None` if it is not UTF-8.
    pub fn command_line(&self) -> Option<&str> {
        core::str::from_utf8(&self.command_line[..self.command_line_len]).ok()
    }
}

/// The usable memory of the machine: page-aligned ranges that do not overlap.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    ranges: [Range<u64>; MAX_RANGES],
    len: usize,
}

impl MemoryMap {
    /// A map of no memory.
    pub const fn new() -> Self {
        Self {
            ranges: [const { 0..0 }; MAX_RANGES],
            len: 0,
        }
    }

    /// Adds the whole pages of `size` bytes at `addr`, less what is there
    /// already. Ranges beyond the first 64 are dropped: memory that is not used.
    pub fn add(&mut self, addr: u64, size: u64) {
        let mut start = addr.div_ceil(PAGE).saturating_mul(PAGE);
        let mut end = addr.saturating_add(size) / PAGE * PAGE;
        for range in self.usable() {
            if range.start < end && start < range.end {
                if start < range.start {
                    end = range.start;
                } else {
                    start = range.end;
                }
            }
        }
        if start < end && self.len < MAX_RANGES {
            self.ranges[self.len] = start..end;
            self.len += 1;
        }
    }

    /// Returns the usable ranges, as physical addresses.
    pub fn usable(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges[..self.len].iter().cloned()
    }

    /// Returns the end of the highest usable range.
    pub fn usable_end(&self) -> u64 {
        self.usable().map(|range| range.end).max().unwrap_or(0)
    }

    /// Returns the number of usable bytes.
    pub fn usable_bytes(&self) -> u64 {
        self.usable().map(|range| range.end - range.start).sum()
    }
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn ranges_are_cut_to_whole_pages_and_kept_apart() {
        let mut map = MemoryMap::new();
        map.add(0x1234, 0x3000);
        map.add(0x1000, 0x8000);
        map.add(u64::MAX - 10, 100);
        let ranges: Vec<_> = map.usable().collect();
        assert_eq!(ranges[0], 0x2000..0x4000);
        assert!(
            ranges[1..]
                .iter()
                .all(|r| r.end <= 0x2000 || r.start >= 0x4000)
        );
        assert_eq!(map.usable_bytes() % PAGE, 0);
    }

    #[test]
    fn the_loaders_structure_is_copied() {
        let line = b"log=debug x\0";
        let ranges = [
            RawRange {
                addr: 0,
                size: 0x9fc00,
                kind: 1,
                _reserved: 0,
            },
            RawRange {
                addr: 0xf0000,
                size: 0x10000,
                kind: 2,
                _reserved: 0,
            },
            RawRange {
                addr: 0x10_0000,
                size: 0x700_0000,
                kind: 1,
                _reserved: 0,
            },
        ];
        let raw = Raw {
            magic: MAGIC,
            version: 1,
            flags: 0,
            modules: 0,
            modules_addr: 0,
            command_line: line.as_ptr() as u64,
            rsdp: 77,
            memory_map: ranges.as_ptr() as u64,
            memory_map_entries: 3,
            _reserved: 0,
        };
        // SAFETY: all of it lies in this process, at its own addresses.
        let info = unsafe { StartInfo::read(&raw as *const Raw as u64) };
        assert_eq!(info.command_line(), Some("log=debug x"));
        assert_eq!(info.rsdp, 77);
        assert_eq!(info.memory.usable_end(), 0x710_0000);
        assert_eq!(info.memory.usable_bytes(), 0x9f000 + 0x700_0000);
    }
}
