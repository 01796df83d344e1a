//! Page tables: the exact ones that replace the boot tables, device mappings,
//! and mapping single pages later.

use core::{
    arch::x86_64::__cpuid,
    cell::UnsafeCell,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use x86_64::{
    PhysAddr, VirtAddr,
    registers::control::{Cr3, Cr3Flags},
    structures::paging::{
        FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags,
        PhysFrame, Size1GiB, Size2MiB, Size4KiB, Translate,
        mapper::{MapToError, TranslateResult},
    },
};

use super::{CacheMode, LINEAR, MMIO, PAGE, frames, image, linear, start_info::MemoryMap};
use crate::{
    apic, cpu, interrupts,
    sync::{IrqMutex, without_interrupts},
};

/// What may be done with a mapping, besides reading.
pub type Flags = PageTableFlags;

const READ: Flags = Flags::PRESENT.union(Flags::NO_EXECUTE);
const WRITE: Flags = READ.union(Flags::WRITABLE);
const EXECUTE: Flags = Flags::PRESENT;
const UNCACHED: Flags = Flags::NO_CACHE.union(Flags::WRITE_THROUGH);

const LARGE: u64 = Size2MiB::SIZE;
const HUGE: u64 = Size1GiB::SIZE;

static TABLES: IrqMutex<Option<Space>> = IrqMutex::new(None);

struct Space {
    tables: OffsetPageTable<'static>,
    /// Whether the CPU has pages of 1 GiB.
    huge: bool,
    /// The next free address for device memory.
    next_mmio: u64,
}

/// The highest table.
struct Root(UnsafeCell<PageTable>);

// SAFETY: only `init` takes a reference, which then stands behind the lock.
unsafe impl Sync for Root {}

static ROOT: Root = Root(UnsafeCell::new(PageTable::new()));

/// Tables come from the frame allocator, zeroed.
struct Tables;

// SAFETY: each frame is fresh from the frame allocator and nobody else's.
unsafe impl FrameAllocator<Size4KiB> for Tables {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        frames::allocate_zeroed(1).map(|addr| PhysFrame::containing_address(PhysAddr::new(addr)))
    }
}

/// Why a range was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for page tables.
    NoMemory,
    /// Something is mapped there already.
    Occupied,
    /// The range is empty, not aligned, or wraps around.
    Range,
}

impl core::fmt::Display for MapError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NoMemory => "no memory for page tables",
            Self::Occupied => "address range is mapped already",
            Self::Range => "address range is empty, unaligned or too long",
        })
    }
}

impl core::error::Error for MapError {}

impl Space {
    /// Maps `len` bytes with the largest pages that alignment and CPU allow.
    fn map(&mut self, virt: u64, phys: u64, len: u64, flags: Flags) -> Result<(), MapError> {
        if len == 0 || !(virt | phys | len).is_multiple_of(PAGE) {
            return Err(MapError::Range);
        }
        let mut done = 0;
        while done < len {
            let (v, p, left) = (virt + done, phys + done, len - done);
            let fits = |size: u64| (v | p) % size == 0 && left >= size;
            done += if self.huge && fits(HUGE) {
                self.map_page::<Size1GiB>(v, p, flags)?
            } else if fits(LARGE) {
                self.map_page::<Size2MiB>(v, p, flags)?
            } else {
                self.map_page::<Size4KiB>(v, p, flags)?
            };
        }
        Ok(())
    }

    fn map_page<S: PageSize + core::fmt::Debug>(
        &mut self,
        virt: u64,
        phys: u64,
        flags: Flags,
    ) -> Result<u64, MapError>
    where
        OffsetPageTable<'static>: Mapper<S>,
    {
        let page = Page::<S>::containing_address(VirtAddr::new(virt));
        let frame = PhysFrame::<S>::containing_address(PhysAddr::new(phys));
        let flags = if S::SIZE == Size4KiB::SIZE {
            flags
        } else {
            flags | Flags::HUGE_PAGE
        };
        // SAFETY: the callers in this file say whose frame it is and why the
        // new mapping breaks no reference; a page in use is refused.
        match unsafe { self.tables.map_to(page, frame, flags, &mut Tables) } {
            // A page that was not present is in no TLB.
            Ok(flush) => flush.ignore(),
            Err(MapToError::FrameAllocationFailed) => return Err(MapError::NoMemory),
            Err(_) => return Err(MapError::Occupied),
        }
        Ok(S::SIZE)
    }
}

/// Builds the kernel's page tables and switches to them.
///
/// # Safety
///
/// Called once on the boot page tables, with the frame allocator ready.
pub(super) unsafe fn init(map: &MemoryMap) {
    // In the image, because CPUs that start can only load an address below 4 GiB.
    let root = ROOT.0.get() as u64;
    // SAFETY: the only reference to it, called once; an empty table is a valid one.
    let table = unsafe { &mut *ROOT.0.get() };
    let mut space = Space {
        // SAFETY: usable memory is mapped at LINEAR by the boot tables as far
        // as these tables lie, and by the new ones from then on.
        tables: unsafe { OffsetPageTable::new(table, VirtAddr::new(LINEAR)) },
        huge: has_huge_pages(),
        next_mmio: MMIO,
    };
    let mut map_range = |range: Range<u64>, offset: u64, flags| {
        if range.start < range.end {
            let len = range.end - range.start;
            space
                .map(range.start + offset, range.start, len, flags)
                .expect("memory for page tables");
        }
    };

    let guard = image::boot_stack_guard();
    map_range(image::text(), 0, EXECUTE);
    map_range(image::rodata(), 0, READ);
    map_range(image::data().start..guard, 0, WRITE);
    map_range(guard + PAGE..image::data().end, 0, WRITE);
    map_range(image::dwarf(), 0, READ);

    // The linear map, split around the image's constant parts.
    let constant = image::text().start..image::rodata().end;
    for range in map.usable() {
        let below = range.start..range.end.min(constant.start);
        let inside = range.start.max(constant.start)..range.end.min(constant.end);
        let above = range.start.max(constant.end)..range.end;
        map_range(below, LINEAR, WRITE);
        map_range(inside, LINEAR, READ);
        map_range(above, LINEAR, WRITE);
    }
    // SAFETY: the tables map the running code, its stack and data at the
    // addresses where they are.
    unsafe {
        Cr3::write(
            PhysFrame::containing_address(PhysAddr::new(root)),
            Cr3Flags::empty(),
        );
    }
    *TABLES.lock() = Some(space);
}

fn has_huge_pages() -> bool {
    __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// Maps `len` bytes of device memory at physical address `phys`, for good, and
/// returns where. Neither needs alignment. Mapping the same range again gives
/// another address; the cache modes of one range should agree.
///
/// # Errors
///
/// [`MapError::NoMemory`], or [`MapError::Range`] if the range is empty or wraps.
pub fn map_mmio(phys: u64, len: u64, mode: CacheMode) -> Result<*mut u8, MapError> {
    let start = phys / PAGE * PAGE;
    let end = phys
        .checked_add(len)
        .and_then(|end| end.checked_next_multiple_of(PAGE))
        .filter(|&end| len > 0 && end <= 1 << 52)
        .ok_or(MapError::Range)?;
    let mut guard = TABLES.lock();
    let space = guard.as_mut().ok_or(MapError::NoMemory)?;
    // Same offset within a page of the size that the range can use.
    let align = if end - start >= HUGE { HUGE } else { LARGE };
    let virt = space.next_mmio.next_multiple_of(align) + start % align;
    let next = virt + (end - start);
    if next > super::STACKS {
        return Err(MapError::Range);
    }
    space.next_mmio = next;
    let flags = match mode {
        CacheMode::Uncached => WRITE | UNCACHED,
        CacheMode::WriteBack => WRITE,
    };
    space.map(virt, start, end - start, flags)?;
    Ok((virt + (phys - start)) as *mut u8)
}

/// Maps the page at physical address `addr` where it is, for execution.
pub(crate) fn map_code(addr: u64) -> Result<(), MapError> {
    let mut guard = TABLES.lock();
    guard
        .as_mut()
        .ok_or(MapError::NoMemory)?
        .map(addr, addr, PAGE, EXECUTE)
}

/// Maps memory of the kernel's own at `virt`, read and write.
pub(super) fn map_data(virt: u64, phys: u64, len: u64) -> Result<(), MapError> {
    let mut guard = TABLES.lock();
    guard
        .as_mut()
        .ok_or(MapError::NoMemory)?
        .map(virt, phys, len, WRITE)
}

/// Maps `len` bytes at `phys` to `virt` with `flags`: pages for a fault handler.
///
/// # Errors
///
/// As [`MapError`] says; nothing was mapped twice, but a range may be mapped in part.
///
/// # Safety
///
/// `virt` lies in [`MAPPINGS`](super::MAPPINGS), and whoever accesses it knows
/// what `phys` is.
pub unsafe fn map(virt: u64, phys: u64, len: u64, flags: Flags) -> Result<(), MapError> {
    let mut guard = TABLES.lock();
    guard
        .as_mut()
        .ok_or(MapError::NoMemory)?
        .map(virt, phys, len, flags)
}

/// Returns the table whose entries span 2 MiB each, for the GiB around `virt`, and
/// makes it if there is none. It stays for good.
///
/// # Errors
///
/// [`MapError::NoMemory`]; [`MapError::Range`] outside of
/// [`MAPPINGS`](super::MAPPINGS).
pub(super) fn directory(virt: u64) -> Result<NonNull<AtomicU64>, MapError> {
    if !super::MAPPINGS.contains(&virt) {
        return Err(MapError::Range);
    }
    let mut guard = TABLES.lock();
    let space = guard.as_mut().ok_or(MapError::NoMemory)?;
    let addr = VirtAddr::new_truncate(virt);
    let mut entry = &mut space.tables.level_4_table_mut()[addr.p4_index()];
    for index in [Some(addr.p3_index()), None] {
        if entry.is_unused() {
            let frame = Tables.allocate_frame().ok_or(MapError::NoMemory)?;
            entry.set_frame(frame, Flags::PRESENT | Flags::WRITABLE);
        } else if !entry.flags().contains(Flags::WRITABLE) {
            // Made by `map` for a page that is only read: no store would ever end.
            entry.set_flags(entry.flags() | Flags::WRITABLE);
        }
        let table = linear(entry.addr().as_u64());
        match index {
            // SAFETY: a table that this one refers to, in the linear map, behind
            // the lock; no page of 1 GiB is ever entered into MAPPINGS.
            Some(index) => entry = unsafe { &mut (&mut *table.cast::<PageTable>())[index] },
            None => return NonNull::new(table.cast()).ok_or(MapError::NoMemory),
        }
    }
    Err(MapError::Range)
}

/// Removes the page at `virt`, of whatever size it has, and returns that size;
/// `None` if nothing was mapped there. Other CPUs may still use it until
/// [`shoot_down`] returns: several pages can be removed before.
///
/// # Safety
///
/// Nobody holds a reference into the page.
pub unsafe fn unmap(virt: u64) -> Option<u64> {
    let mut guard = TABLES.lock();
    let tables = &mut guard.as_mut()?.tables;
    let addr = VirtAddr::try_new(virt).ok()?;
    let TranslateResult::Mapped { frame, .. } = tables.translate(addr) else {
        return None;
    };
    let size = frame.size();
    match size {
        Size4KiB::SIZE => tables
            .unmap(Page::<Size4KiB>::containing_address(addr))
            .ok()?
            .1
            .flush(),
        Size2MiB::SIZE => tables
            .unmap(Page::<Size2MiB>::containing_address(addr))
            .ok()?
            .1
            .flush(),
        _ => tables
            .unmap(Page::<Size1GiB>::containing_address(addr))
            .ok()?
            .1
            .flush(),
    }
    Some(size)
}

/// The number of times that all CPUs were asked to forget cached translations.
static REQUESTED: AtomicU64 = AtomicU64::new(0);
/// The last of these that each CPU has done.
static DONE: [AtomicU64; cpu::MAX] = [const { AtomicU64::new(0) }; cpu::MAX];

/// Makes every CPU forget cached translations, and waits until all have. After
/// that no CPU can reach a page that [`unmap`] removed before.
///
/// Call it with interrupts on and no spin lock held: the other CPUs answer an
/// interrupt, and may be asking the same of this one.
pub fn shoot_down() {
    debug_assert!(x86_64::instructions::interrupts::are_enabled());
    let mine = REQUESTED.fetch_add(1, Ordering::SeqCst) + 1;
    // A CPU that comes online later has nothing cached.
    let mut asked = 0u32;
    without_interrupts(|| {
        serve_shootdown();
        let me = cpu::current().id();
        for cpu in cpu::online().filter(|cpu| cpu.id() != me) {
            asked |= 1 << cpu.id();
            apic::send(cpu.apic_id(), interrupts::SHOOTDOWN);
        }
    });
    for (id, done) in DONE
        .iter()
        .enumerate()
        .filter(|(id, _)| asked & 1 << id != 0)
    {
        let mut rounds = 0u32;
        while done.load(Ordering::Acquire) < mine {
            core::hint::spin_loop();
            rounds += 1;
            if rounds == u32::MAX {
                log::warn!("CPU {id} does not answer");
            }
        }
    }
}

/// Forgets this CPU's cached translations.
pub(crate) fn serve_shootdown() {
    let now = REQUESTED.load(Ordering::SeqCst);
    x86_64::instructions::tlb::flush_all();
    DONE[cpu::current().id()].store(now, Ordering::Release);
}

/// Returns the physical address behind `virt`, `None` if nothing is mapped there.
///
/// Walks the tables without the lock, so that it also serves exception reports.
pub fn translate(virt: u64) -> Option<u64> {
    walk(virt).map(|(addr, _)| addr)
}

/// Returns what may be done with the page at `virt`, `None` if there is none.
pub fn flags(virt: u64) -> Option<Flags> {
    walk(virt).map(|(_, flags)| flags)
}

fn walk(virt: u64) -> Option<(u64, Flags)> {
    const ADDR: u64 = 0x000f_ffff_ffff_f000;
    if !matches!(virt >> 47, 0 | 0x1_ffff) {
        return None;
    }
    let mut table = Cr3::read().0.start_address().as_u64();
    for shift in [39, 30, 21, 12] {
        let index = (virt >> shift) & 511;
        // SAFETY: page tables stand in usable memory, which is mapped linearly,
        // those of mapped files too after they were freed; an entry is one
        // aligned word.
        let entry = unsafe {
            linear(table)
                .cast::<u64>()
                .add(index as usize)
                .read_volatile()
        };
        let flags = Flags::from_bits_truncate(entry);
        if !flags.contains(Flags::PRESENT) {
            return None;
        }
        if shift == 12 || flags.contains(Flags::HUGE_PAGE) {
            let mask = (1 << shift) - 1;
            return Some(((entry & ADDR & !mask) | (virt & mask), flags));
        }
        table = entry & ADDR;
    }
    None
}
