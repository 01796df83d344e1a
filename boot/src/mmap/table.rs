//! All areas, by address; the way from an address, and from a file, to them.

use alloc::{sync::Arc, vec::Vec};

use virtio_fs::{fs::PageUse, platform::FilePages};

use super::area::{self, Area};
use crate::{
    memory::{MAPPINGS, entries::LARGE},
    sync::IrqMutex,
    trap,
};

/// Sorted by address.
static AREAS: IrqMutex<Vec<Arc<Area>>> = IrqMutex::new(Vec::new());

/// Finds addresses for `len` bytes from `offset` on, as far into a block of 2 MiB
/// as that is, and enters what `make` makes of them. `None` if there are none.
pub(super) fn insert(offset: u64, len: u64, make: impl FnOnce(u64) -> Area) -> Option<Arc<Area>> {
    let within = offset % LARGE;
    let need = (within + len).checked_next_multiple_of(LARGE)?;
    if need > MAPPINGS.end - MAPPINGS.start {
        return None;
    }
    let mut areas = AREAS.lock();
    if areas.is_empty() {
        // From the first one on. A test may have put in another meanwhile.
        trap::replace_page_fault_handler(Some(serve));
    }
    // The first hole, with a block left free on both sides.
    let mut base = MAPPINGS.start;
    let mut at = areas.len();
    for (n, area) in areas.iter().enumerate() {
        if need + LARGE <= area.blocks().start - base {
            at = n;
            break;
        }
        base = area.blocks().end + LARGE;
    }
    if need > MAPPINGS.end.saturating_sub(base) {
        return None;
    }
    let area = Arc::new(make(base + within));
    areas.insert(at, area.clone());
    Some(area)
}

pub(super) fn remove(area: &Arc<Area>) {
    AREAS.lock().retain(|other| !Arc::ptr_eq(other, area));
}

fn find(addr: u64) -> Option<Arc<Area>> {
    let areas = AREAS.lock();
    let at = areas.partition_point(|area| area.end() <= addr);
    areas.get(at).filter(|area| area.start <= addr).cloned()
}

/// Serves a page fault, in the thread that ran into it.
fn serve(addr: u64, error: u64) -> bool {
    const STORE: u64 = 1 << 1;
    const FETCH: u64 = 1 << 4;
    let want = if error & STORE != 0 {
        PageUse::Store
    } else {
        PageUse::Load
    };
    let Some(area) = find(addr).filter(|_| error & FETCH == 0) else {
        return false;
    };
    area.resolve(addr, want)
        .inspect_err(|why| log::debug!("page fault at {addr:#x}: {why}"))
        .is_ok()
}

/// Takes pages of a file out of all page tables: what the driver calls.
pub(crate) fn take_back(pages: &FilePages) {
    let mut stale = false;
    let mut from = 0;
    // One after the other, so that nothing is held or allocated meanwhile. An
    // area that is new by then has none of these pages.
    loop {
        let next = {
            let areas = AREAS.lock();
            let at = areas.partition_point(|area| area.start < from);
            areas[at..]
                .iter()
                .find(|area| area.mapping == Some(pages.mapping))
                .cloned()
        };
        let Some(area) = next else { break };
        stale |= area.take_back(pages.offset, pages.len);
        from = area.end();
    }
    if stale {
        area::shoot_down();
    }
}
