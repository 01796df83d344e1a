//! The page frames of the machine: one [`Buddy`] behind a lock.

use core::mem::size_of;

use super::{
    buddy::{Buddy, Frame},
    linear,
    start_info::{MemoryMap, PAGE},
};
use crate::sync::IrqMutex;

/// Every frame below this is left alone: firmware data, and the page that
/// application processors start in.
const LOWEST: u64 = 1 << 20;
/// The boot page tables reach no further, so the bookkeeping lies below.
const BOOT_MAPPED: u64 = 4 << 30;

static FRAMES: IrqMutex<Option<Buddy<'static>>> = IrqMutex::new(None);

/// Takes over all usable memory of `map` but `image`, the kernel's own range.
///
/// # Panics
///
/// If there is not even room for the bookkeeping.
pub(super) fn init(map: &MemoryMap, image: core::ops::Range<u64>) {
    let frames = (map.usable_end() / PAGE) as usize;
    let bytes = ((frames * size_of::<Frame>()) as u64).next_multiple_of(PAGE);
    let usable = || {
        map.usable().flat_map(|range| {
            // A range minus the image leaves a part before and a part after.
            let start = range.start.max(LOWEST);
            let before = start..range.end.min(image.start);
            let after = start.max(image.end)..range.end;
            [before, after]
                .into_iter()
                .filter(|part| part.start < part.end)
        })
    };
    let home = usable()
        .find(|range| range.end.min(BOOT_MAPPED).saturating_sub(range.start) >= bytes)
        .expect("memory for the frame allocator's own tables")
        .start;
    // SAFETY: usable memory that is nobody's yet, mapped by the boot tables,
    // page aligned; each element is written before it is first read.
    let table = unsafe {
        let table = linear(home).cast::<Frame>();
        for i in 0..frames {
            table.add(i).write(Frame::USED);
        }
        core::slice::from_raw_parts_mut(table, frames)
    };
    let mut buddy = Buddy::new(table);
    for range in usable() {
        let start = if range.start == home {
            home + bytes
        } else {
            range.start
        };
        let first = (start / PAGE) as usize;
        buddy.insert(first, (range.end / PAGE) as usize - first);
    }
    *FRAMES.lock() = Some(buddy);
}

/// Takes `count` page frames in a row, contents unspecified, and returns their
/// physical address. Aligned to the next power of two of the length.
pub fn allocate(count: usize) -> Option<u64> {
    let first = FRAMES.lock().as_mut()?.allocate(count)?;
    Some(first as u64 * PAGE)
}

/// As [`allocate`], with every byte zero.
pub fn allocate_zeroed(count: usize) -> Option<u64> {
    let addr = allocate(count)?;
    // SAFETY: the frames were just taken, nobody else knows them, and the
    // linear map covers all usable memory.
    unsafe { linear(addr).write_bytes(0, count * PAGE as usize) };
    Some(addr)
}

/// Gives frames from [`allocate`] back.
///
/// # Safety
///
/// They came from [`allocate`], and nobody, no device either, uses them any more.
pub unsafe fn free(addr: u64, count: usize) {
    if let Some(buddy) = FRAMES.lock().as_mut() {
        buddy.insert((addr / PAGE) as usize, count);
    }
}

/// Returns the number of free page frames.
pub fn available() -> usize {
    FRAMES.lock().as_ref().map_or(0, Buddy::free_frames)
}
