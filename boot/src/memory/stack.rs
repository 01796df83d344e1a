//! Stacks above holes: running over the end of one is a page fault in the hole
//! below it, never a write into somebody else's memory. Rust touches every page
//! of a large frame in order, so no frame can jump over a hole.

use alloc::vec::Vec;

use super::{PAGE, STACKS, frames, paging};
use crate::sync::IrqMutex;

/// The usable size of a stack, and of the hole below it.
pub const SIZE: u64 = 128 << 10;

struct Slots {
    made: u64,
    idle: Vec<u64>,
}

static SLOTS: IrqMutex<Slots> = IrqMutex::new(Slots {
    made: 0,
    idle: Vec::new(),
});

/// A stack, returned for reuse when dropped. Its memory is one physical run, so
/// a buffer on it can be given to a device.
#[derive(Debug)]
pub struct Stack {
    slot: u64,
}

impl Stack {
    /// Takes a stack that is idle or makes one; `None` if memory ran out.
    pub fn new() -> Option<Self> {
        let mut slots = SLOTS.lock();
        if let Some(slot) = slots.idle.pop() {
            return Some(Self { slot });
        }
        let slot = slots.made;
        let pages = (SIZE / PAGE) as usize;
        let addr = frames::allocate(pages)?;
        if paging::map_data(top(slot) - SIZE, addr, SIZE).is_err() {
            // The slot is not used again: a part of it may be mapped by now, and
            // the frames with it.
            slots.made += 1;
            return None;
        }
        slots.made += 1;
        // So that dropping a stack, perhaps in an interrupt, never allocates.
        let room = slots.made as usize - slots.idle.len();
        slots.idle.reserve(room);
        // Not before: dropping it on the way out would take the lock again.
        Some(Self { slot })
    }

    /// Returns the address just above the stack, 16-byte aligned.
    pub fn top(&self) -> u64 {
        top(self.slot)
    }
}

fn top(slot: u64) -> u64 {
    STACKS + (slot + 1) * 2 * SIZE
}

impl Drop for Stack {
    fn drop(&mut self) {
        SLOTS.lock().idle.push(self.slot);
    }
}

/// Says whether `addr` lies in the hole below a stack.
pub fn in_guard(addr: u64) -> bool {
    let boot = super::image::boot_stack_guard();
    (boot..boot + PAGE).contains(&addr)
        || addr
            .checked_sub(STACKS)
            .is_some_and(|at| at % (2 * SIZE) < SIZE && at < 1 << 40)
}
