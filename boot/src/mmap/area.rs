//! A range of the address space that shows a file.
//!
//! # Locks
//!
//! The area's state is a short lock around changes of its page tables, taken
//! while the driver pins the page that is entered. [`Area::take_back`] takes it
//! too, on behalf of the driver, which pins nothing then that it wants removed:
//! a page entered after that belongs to a later mapping. Nothing blocks with it
//! held, and shootdowns come after it.

use alloc::sync::Arc;
use core::ops::Range;

use virtio_fs::{
    Errno, Error,
    fs::{PageUse, Run},
};
use x86_64::{VirtAddr, instructions::tlb};

use super::{Access, AccessError, Sharing, backing::Backing, counters::COUNTERS};
use crate::{
    memory::{
        PAGE,
        entries::{self, Allow, LARGE, Retired},
        frames, linear,
        paging::{self, MapError},
    },
    sync::IrqMutex,
};

/// How much is entered at once where a large page does not fit: as much as
/// Linux maps around a fault.
const AROUND: u64 = 16 * PAGE;

pub(super) struct Area {
    /// Where it begins; as far into a block of 2 MiB as `offset` is.
    pub(super) start: u64,
    /// Its length in whole pages.
    pub(super) len: u64,
    /// Where it begins in the file, in whole pages.
    pub(super) offset: u64,
    pub(super) sharing: Sharing,
    pub(super) access: Access,
    pub(super) backing: Arc<dyn Backing>,
    /// See [`Backing::mapping`].
    pub(super) mapping: Option<u64>,
    pub(super) state: IrqMutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Nothing is entered any more.
    gone: bool,
    /// A page that allows stores was entered.
    stored: bool,
    /// Pages that were dirty when they were taken back.
    dirty: u64,
}

impl Area {
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The blocks of 2 MiB that it owns.
    pub(super) fn blocks(&self) -> Range<u64> {
        self.start / LARGE * LARGE..self.end().next_multiple_of(LARGE)
    }

    /// Sees to it that `addr`, an address in the area, can be used. Blocks.
    pub(super) fn resolve(&self, addr: u64, want: PageUse) -> Result<(), AccessError> {
        let page = addr / PAGE * PAGE;
        if want == PageUse::Store && self.access == Access::Read {
            return Err(AccessError::Protected);
        }
        if self.has(page, want) {
            // This CPU remembers what was there before.
            tlb::flush(VirtAddr::new(page));
            COUNTERS.faults_for_nothing.add(1);
            return Ok(());
        }
        COUNTERS.faults.add(1);
        let result = match (self.sharing, want) {
            (Sharing::Private, PageUse::Store) => self.copy(page),
            _ => match self.enter(page, want) {
                Err(AccessError::Unmappable) if self.sharing == Sharing::Private => self.copy(page),
                result => result,
            },
        };
        if result.is_err() {
            COUNTERS.faults_refused.add(1);
        }
        result
    }

    fn offset_of(&self, page: u64) -> u64 {
        self.offset + (page - self.start)
    }

    fn has(&self, page: u64, want: PageUse) -> bool {
        entries::find(page)
            .is_some_and(|found| want == PageUse::Load || found.allow == Allow::Store)
    }

    /// Asks the driver for the page and enters what it has around it.
    fn enter(&self, page: u64, want: PageUse) -> Result<(), AccessError> {
        let mut entered = Ok(None);
        let mut enter = |run| entered = self.enter_run(page, run, want);
        match self.backing.fault(self.offset_of(page), want, &mut enter) {
            Ok(true) => {}
            Ok(false) => return Err(AccessError::Unmappable),
            Err(error) if error == Error::caller(Errno::EFAULT) => {
                return Err(AccessError::BeyondEnd);
            }
            Err(error) => return Err(AccessError::Failed(error)),
        }
        if let Some(table) = entered? {
            shoot_down();
            // SAFETY: it was taken out of its block before.
            unsafe { table.free() };
        }
        Ok(())
    }

    /// Enters a page that is pinned, as part of a large one if that fits.
    fn enter_run(
        &self,
        page: u64,
        run: Run,
        want: PageUse,
    ) -> Result<Option<Retired>, AccessError> {
        let allow = match (want, self.sharing) {
            (PageUse::Store, Sharing::Shared) => Allow::Store,
            _ => Allow::Load,
        };
        let mut state = self.state.lock();
        if state.gone {
            return Err(AccessError::Unmapped);
        }
        // Somebody else may have entered it, and stores may be under way.
        if self.has(page, want) {
            return Ok(None);
        }
        state.stored |= allow == Allow::Store;
        // The run as addresses, cut to the area.
        let virt = |offset: u64| (self.start + offset).saturating_sub(self.offset);
        let from = virt(run.offset).max(self.start);
        let to = virt(run.offset + run.len).min(self.end());
        let phys = |at: u64| run.addr + (self.offset_of(at) - run.offset);
        let block = page / LARGE * LARGE;
        if from <= block && block + LARGE <= to && phys(block).is_multiple_of(LARGE) {
            // SAFETY: aligned; pinned until this returns and taken back by
            // `take_back` before it goes; the state is locked.
            if let Some(retired) = unsafe { entries::enter_large(block, phys(block), allow) }? {
                COUNTERS.large_pages.add(1);
                return Ok(retired);
            }
        }
        let around = page / AROUND * AROUND;
        let pages = around.max(from)..(around + AROUND).min(to);
        // SAFETY: as above; AROUND divides a block, and a page that is wanted
        // from the file is no own one.
        let count = unsafe { entries::enter(pages.clone(), phys(pages.start), allow, page) }?;
        COUNTERS.small_pages.add(count);
        Ok(None)
    }

    /// Gives a private mapping its own copy of a page.
    fn copy(&self, page: u64) -> Result<(), AccessError> {
        let frame = frames::allocate_zeroed(1).ok_or(MapError::NoMemory)?;
        let result = self.fill(page, frame);
        let replaced = match result {
            Ok(replaced) => replaced,
            Err(error) => {
                // SAFETY: taken above, and entered nowhere.
                unsafe { frames::free(frame, 1) };
                return match error {
                    // Somebody else was faster.
                    AccessError::NoMemory(MapError::Occupied) => Ok(()),
                    error => Err(error),
                };
            }
        };
        COUNTERS.copied_pages.add(1);
        if replaced {
            // Other CPUs may still read the file's page.
            shoot_down();
        }
        Ok(())
    }

    fn fill(&self, page: u64, frame: u64) -> Result<bool, AccessError> {
        // SAFETY: a fresh frame, zeroed, that nobody else knows, in the linear map.
        let bytes = unsafe { core::slice::from_raw_parts_mut(linear(frame), PAGE as usize) };
        if self.backing.read(self.offset_of(page), bytes)? == 0 {
            return Err(AccessError::BeyondEnd);
        }
        let allow = match self.access {
            Access::Read => Allow::Load,
            Access::ReadWrite => Allow::Store,
        };
        let state = self.state.lock();
        if state.gone {
            return Err(AccessError::Unmapped);
        }
        // SAFETY: aligned; the frame is ours, and the state is locked.
        Ok(unsafe { entries::enter_own(page, frame, allow) }?)
    }

    /// Takes pages of the file out of the page tables: `len` bytes from byte
    /// `offset` of the file on. True if CPUs must forget some.
    pub(super) fn take_back(&self, offset: u64, len: u64) -> bool {
        let from = offset.max(self.offset);
        let to = offset.saturating_add(len).min(self.offset + self.len);
        if from >= to {
            return false;
        }
        let virt = |offset: u64| self.start + (offset - self.offset);
        let mut state = self.state.lock();
        let tally = entries::remove(virt(from)..virt(to));
        state.dirty += tally.dirty;
        COUNTERS.pages_taken_back.add(tally.pages);
        tally.pages > 0
    }

    /// Makes what was stored durable and returns how many pages, of both sizes,
    /// had been written. Blocks.
    pub(super) fn sync(&self) -> Result<u64, Error> {
        let (dirty, clean) = {
            let mut state = self.state.lock();
            if !state.stored {
                return Ok(0);
            }
            let tally = entries::clean(self.start..self.end());
            (core::mem::take(&mut state.dirty) + tally.dirty, tally.dirty)
        };
        if clean > 0 {
            shoot_down();
        }
        COUNTERS.dirty_pages.add(dirty);
        // Also if nothing is dirty: another thread may have found it first, and
        // still be at it.
        self.backing.sync().map(|()| dirty)
    }

    /// Takes everything out of the page tables, for good.
    pub(super) fn close(&self) {
        let tally = {
            let mut state = self.state.lock();
            state.gone = true;
            entries::cut(self.blocks())
        };
        // Where there was no page there may yet be a table.
        shoot_down();
        // SAFETY: just cut, and nothing is entered where `gone` is set.
        let own = unsafe { entries::free(self.blocks()) };
        COUNTERS.copies_freed.add(own);
        log::trace!("mapping at {:#x}: {tally:?} at its end", self.start);
    }
}

pub(super) fn shoot_down() {
    COUNTERS.shootdowns.add(1);
    paging::shoot_down();
}
