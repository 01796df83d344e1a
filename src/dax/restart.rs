//! The window over the end of a session: a reset of the device takes all mappings
//! away, so nothing of them may be in a page table before, and the books begin
//! anew after.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::manager::Dax;
use super::range::RangeState;
use crate::conn::Connection;
use crate::platform::{FilePages, Platform};

impl<P: Platform> Dax<P> {
    /// Takes all pages of the window out of page tables. Allocates.
    pub(crate) fn withdraw(&self, platform: &P) {
        let pages: Vec<FilePages> = {
            let state = &mut *self.state.lock();
            let window = state.pool.window();
            let taken = self.geometry.ranges().filter_map(|range| {
                if !core::mem::take(&mut state.faulted[range.index()]) {
                    return None;
                }
                let mapping = match window.state(range)? {
                    RangeState::Mapped(mapping) | RangeState::Unmapping(mapping) => mapping,
                    RangeState::Mapping { mapping, .. } => mapping,
                    _ => return None,
                };
                Some(FilePages {
                    mapping: mapping.inode.0,
                    offset: self.geometry.file_offset(mapping.chunk)?,
                    len: self.geometry.range_size(),
                })
            });
            taken.collect()
        };
        for pages in &pages {
            platform.unmap_file_pages(pages);
        }
    }

    /// Forgets every range: the device was reset. Tokens of requests that were
    /// under way are stale from here on.
    pub(crate) fn session_lost(&self, platform: &P) {
        {
            let state = &mut *self.state.lock();
            state.pool.reset();
            state.faulted.fill(false);
            state.foreign.fill(false);
            state.mend_at = Duration::ZERO;
            state.over = None;
            state.mend_pause = super::mend::FIRST_PAUSE;
        }
        self.changed.wake_all(platform);
    }

    /// Uses the window of the new session, if it is the one there was.
    pub(crate) fn session_began(&self, conn: &Connection<P>) {
        let alignment = conn.limits().map_alignment;
        let fits = alignment <= self.geometry.granule() && conn.has_same_window();
        if !fits {
            log::warn!("virtio-fs: {}: no DAX in this session", conn.device().tag);
        }
        self.off.store(!fits, Relaxed);
    }
}
