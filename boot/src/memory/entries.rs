//! Page table entries of mapped files: 4 KiB and 2 MiB pages in
//! [`MAPPINGS`](super::MAPPINGS), entered by page faults and removed by reclaim.
//!
//! Whoever maps a file owns whole blocks of 2 MiB of the address space, so that a
//! block's table of 4 KiB pages is its alone and goes with the last of its pages.
//! The tables above stay for good.
//!
//! A page is either part of a file, shared with the device, or an *own* one: a
//! frame of the kernel's with a private copy, marked by a bit that the processor
//! leaves to the system. Entries change by single atomic words, because
//! processors walk the tables and set bits in them at any time. The callers keep
//! two of themselves from changing one block at once, and make all CPUs forget
//! what was removed ([`paging::shoot_down`]).
//!
//! Intel SDM, volume 3, 4.5 (tables), 4.8 (accessed and dirty), 4.10 (caching).

use core::{
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    PAGE, frames, linear,
    paging::{self, MapError},
};

/// What one entry of the upper table spans.
pub const LARGE: u64 = 2 << 20;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
/// In an upper entry: a page of 2 MiB, not a table.
const IS_LARGE: u64 = 1 << 7;
/// A frame of the kernel's own. Ignored by the processor.
const OWN: u64 = 1 << 9;
const NO_EXECUTE: u64 = 1 << 63;
const ADDR: u64 = 0x000f_ffff_ffff_f000;

/// What a page allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allow {
    /// Loads.
    Load,
    /// Loads and stores.
    Store,
}

/// What was found in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// What the page allows.
    pub allow: Allow,
    /// Its length.
    pub len: u64,
    /// Whether it is a frame of the kernel's own.
    pub own: bool,
}

/// What was removed, or was dirty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pages of either size.
    pub pages: u64,
    /// Those among them that were written through this entry.
    pub dirty: u64,
}

/// A table of 4 KiB pages that was taken out of a block; empty. To be freed when
/// no CPU can walk it any more.
#[must_use = "the table's frame is lost"]
#[derive(Debug)]
pub struct Retired(u64);

impl Retired {
    /// Frees it.
    ///
    /// # Safety
    ///
    /// [`paging::shoot_down`] was called and has returned since.
    pub unsafe fn free(self) {
        // SAFETY: the table's only frame, from the frame allocator; the caller
        // says that no processor uses it.
        unsafe { frames::free(self.0, 1) };
    }
}

/// The upper entry for the block around `virt`, made if need be.
fn block(virt: u64) -> Result<&'static AtomicU64, MapError> {
    let directory = paging::directory(virt)?;
    let index = (virt / LARGE % 512) as usize;
    // SAFETY: a table has 512 entries, this one stays for good, and nobody has a
    // reference to it of another kind.
    Ok(unsafe { directory.add(index).as_ref() })
}

/// An entry of the table at physical address `table`.
fn small(table: u64, index: u64) -> &'static AtomicU64 {
    debug_assert!(index < 512);
    let at = linear(table).cast::<AtomicU64>();
    // SAFETY: a table in the linear map with 512 entries, which is freed only
    // after it was taken out of its block, by the only one who works on that.
    unsafe { &*at.add(index as usize) }
}

fn index(virt: u64) -> u64 {
    virt / PAGE % 512
}

/// The table of a block, made if there is none; a large page is split into one.
fn table(block: &AtomicU64) -> Result<u64, MapError> {
    let entry = block.load(Ordering::Acquire);
    if entry & PRESENT != 0 && entry & IS_LARGE == 0 {
        return Ok(entry & ADDR);
    }
    let table = frames::allocate_zeroed(1).ok_or(MapError::NoMemory)?;
    if entry & PRESENT != 0 {
        let (addr, flags) = (entry & ADDR, entry & !(ADDR | IS_LARGE));
        for n in 0..512 {
            small(table, n).store((addr + n * PAGE) | flags, Ordering::Relaxed);
        }
    }
    block.store(table | PRESENT | WRITABLE, Ordering::Release);
    Ok(table)
}

fn word(phys: u64, allow: Allow, more: u64) -> u64 {
    let writable = match allow {
        Allow::Load => 0,
        Allow::Store => WRITABLE,
    };
    // Accessed from the start: nobody asks, and the processor need not set it.
    phys | PRESENT | ACCESSED | NO_EXECUTE | writable | more
}

fn found(entry: u64, len: u64) -> Option<Found> {
    (entry & PRESENT != 0).then_some(Found {
        allow: if entry & WRITABLE != 0 {
            Allow::Store
        } else {
            Allow::Load
        },
        len,
        own: len == PAGE && entry & OWN != 0,
    })
}

/// Returns the page at `virt`, if there is one.
pub fn find(virt: u64) -> Option<Found> {
    let entry = block(virt).ok()?.load(Ordering::Acquire);
    match entry & (PRESENT | IS_LARGE) {
        PRESENT => found(
            small(entry & ADDR, index(virt)).load(Ordering::Acquire),
            PAGE,
        ),
        _ => found(entry, LARGE),
    }
}

/// Enters 2 MiB at physical address `phys` for the block at `virt`. `None` if
/// pages of 4 KiB are in the way; otherwise the table, now empty, that was.
///
/// # Errors
///
/// As [`MapError`] says.
///
/// # Safety
///
/// Both addresses are multiples of 2 MiB, `phys` is memory that may be used
/// so until it is removed, and nobody else changes this block.
pub unsafe fn enter_large(
    virt: u64,
    phys: u64,
    allow: Allow,
) -> Result<Option<Option<Retired>>, MapError> {
    let block = block(virt)?;
    let entry = block.load(Ordering::Acquire);
    let mut retired = None;
    if entry & PRESENT != 0 && entry & IS_LARGE == 0 {
        let table = entry & ADDR;
        if (0..512).any(|n| small(table, n).load(Ordering::Relaxed) != 0) {
            return Ok(None);
        }
        retired = Some(Retired(table));
    }
    block.store(word(phys, allow, IS_LARGE), Ordering::Release);
    Ok(Some(retired))
}

/// Enters the pages of `virts` for physical memory from `phys` on: the one at
/// `wanted` in any case, the others where nothing is, or a page of the file that
/// allows less. Returns how many.
///
/// # Errors
///
/// As [`MapError`] says.
///
/// # Safety
///
/// `virts` lies in one block and its ends and `phys` are multiples of [`PAGE`],
/// `phys` is memory that may be used so until it is removed, the page at `wanted`
/// is not an own one, and nobody else changes this block.
pub unsafe fn enter(
    virts: Range<u64>,
    phys: u64,
    allow: Allow,
    wanted: u64,
) -> Result<u64, MapError> {
    let table = table(block(wanted)?)?;
    let mut entered = 0;
    for virt in virts.clone().step_by(PAGE as usize) {
        let entry = small(table, index(virt));
        let before = entry.load(Ordering::Relaxed);
        let lacks = allow == Allow::Store && before & (OWN | WRITABLE) == 0;
        if virt == wanted || before == 0 || lacks {
            entry.store(
                word(phys + (virt - virts.start), allow, 0),
                Ordering::Release,
            );
            entered += 1;
        }
    }
    Ok(entered)
}

/// Puts an own frame in the place of whatever is at `virt`. True if other CPUs
/// may still see that.
///
/// # Errors
///
/// As [`MapError`] says; [`MapError::Occupied`] by an own frame.
///
/// # Safety
///
/// Both addresses are multiples of [`PAGE`], `phys` is a frame that nobody else
/// uses, and nobody else changes this block.
pub unsafe fn enter_own(virt: u64, phys: u64, allow: Allow) -> Result<bool, MapError> {
    let entry = small(table(block(virt)?)?, index(virt));
    let before = entry.load(Ordering::Acquire);
    if before & OWN != 0 {
        return Err(MapError::Occupied);
    }
    entry.store(word(phys, allow, OWN), Ordering::Release);
    Ok(before & PRESENT != 0)
}

/// Calls `each` with every block of `range` whose upper table is there.
fn blocks(range: &Range<u64>, mut each: impl FnMut(u64, &AtomicU64)) {
    const SPAN: u64 = 512 * LARGE;
    let mut virt = range.start / LARGE * LARGE;
    let mut directory: Option<NonNull<AtomicU64>> = None;
    while virt < range.end {
        if directory.is_none() || virt.is_multiple_of(SPAN) {
            directory = paging::directory(virt).ok();
        }
        let Some(upper) = directory else { return };
        // SAFETY: as in `block`.
        each(virt, unsafe {
            upper.add((virt / LARGE % 512) as usize).as_ref()
        });
        virt += LARGE;
    }
}

/// Removes the pages of files in `range`; own ones stay. A large page goes whole.
///
/// The caller shoots down if there were any.
pub fn remove(range: Range<u64>) -> Tally {
    let mut tally = Tally::default();
    let mut note = |entry: u64| {
        tally.pages += 1;
        tally.dirty += u64::from(entry & DIRTY != 0);
    };
    blocks(&range, |virt, block| {
        let entry = block.load(Ordering::Acquire);
        match entry & (PRESENT | IS_LARGE) {
            PRESENT => {
                let from = virt.max(range.start);
                let to = (virt + LARGE).min(range.end);
                for page in (from..to).step_by(PAGE as usize) {
                    let entry = small(entry & ADDR, index(page));
                    let before = entry.load(Ordering::Relaxed);
                    if before & PRESENT != 0 && before & OWN == 0 {
                        note(entry.swap(0, Ordering::AcqRel));
                    }
                }
            }
            0 => {}
            _ => note(block.swap(0, Ordering::AcqRel)),
        }
    });
    tally
}

/// Marks the pages of files in `range` as clean, and returns how many were not.
///
/// The caller shoots down if there were any: until then CPUs may write without
/// marking them again.
pub fn clean(range: Range<u64>) -> Tally {
    let mut tally = Tally::default();
    let mut clean = |entry: &AtomicU64, own: u64| {
        let before = entry.load(Ordering::Relaxed);
        if before & PRESENT != 0 && before & own == 0 {
            tally.pages += 1;
            if before & DIRTY != 0 {
                entry.fetch_and(!DIRTY, Ordering::AcqRel);
                tally.dirty += 1;
            }
        }
    };
    blocks(&range, |virt, block| {
        let entry = block.load(Ordering::Acquire);
        match entry & (PRESENT | IS_LARGE) {
            PRESENT => {
                let from = virt.max(range.start);
                let to = (virt + LARGE).min(range.end);
                for page in (from..to).step_by(PAGE as usize) {
                    clean(small(entry & ADDR, index(page)), OWN);
                }
            }
            0 => {}
            _ => clean(block, 0),
        }
    });
    tally
}

/// Takes away whole blocks, `range`, own pages too: the first half. They cannot
/// be reached any more once the caller has shot down; then comes [`free`].
pub fn cut(range: Range<u64>) -> Tally {
    let mut tally = Tally::default();
    blocks(&range, |_, block| {
        let before = block.fetch_and(!PRESENT, Ordering::AcqRel);
        if before & (PRESENT | IS_LARGE) == PRESENT | IS_LARGE {
            tally.pages += 1;
            tally.dirty += u64::from(before & DIRTY != 0);
        } else if before & PRESENT != 0 {
            for n in 0..512 {
                let entry = small(before & ADDR, n).load(Ordering::Relaxed);
                if entry & PRESENT != 0 && entry & OWN == 0 {
                    tally.pages += 1;
                    tally.dirty += u64::from(entry & DIRTY != 0);
                }
            }
        }
    });
    tally
}

/// Frees what [`cut`] took away: tables and own frames. Returns how many of the
/// latter there were.
///
/// # Safety
///
/// `range` was cut, [`paging::shoot_down`] has returned since, and nobody enters
/// anything there before this returns.
pub unsafe fn free(range: Range<u64>) -> u64 {
    let mut own = 0;
    blocks(&range, |_, block| {
        let before = block.swap(0, Ordering::AcqRel);
        if before == 0 || before & IS_LARGE != 0 {
            return;
        }
        let table = before & ADDR;
        for n in 0..512 {
            let entry = small(table, n).load(Ordering::Relaxed);
            if entry & OWN != 0 {
                own += 1;
                // SAFETY: the frame was given to this entry alone, which no
                // processor can reach.
                unsafe { frames::free(entry & ADDR, 1) };
            }
        }
        // SAFETY: as above.
        unsafe { frames::free(table, 1) };
    });
    own
}
