//! SETUPMAPPING: asking for a mapping, and what its answer means.
//!
//! # What becomes of failures
//!
//! | answer to SETUPMAPPING | then |
//! |---|---|
//! | ENOSYS | no DAX for the rest of the session |
//! | no room (ENOMEM, ENOSPC, …) | no more ranges than live now; one is evicted instead |
//! | another error | READ and WRITE; after four in a row for good with this file |
//! | EEXIST, none, or nonsense | the range is retired until repaired |
//!
//! A failed REMOVEMAPPING retires all its ranges. See `mend` for the way back.

use core::sync::atomic::Ordering::Relaxed;

use super::geometry::Rights;
use super::manager::{Dax, Wish};
use super::owner::Owner;
use super::policy::Access;
use super::pool::Step;
use super::range::{MapToken, RangeState, RemapError, UnmapToken};
use crate::conn::{Class, Connection};
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::wire::{FileHandle, MappingFlags, Setupmapping};

/// What became of a request about mappings.
#[derive(Debug)]
pub(super) enum Fate {
    /// It was done.
    Done,
    /// It was not: the server said so, or it was never sent.
    Refused(Error),
    /// Nobody knows.
    Unknown,
}

impl Fate {
    pub(super) fn of(result: Result<()>) -> Self {
        let Err(error) = result else {
            return Self::Done;
        };
        match error.origin() {
            // An answer to our INTERRUPT: it may have come late.
            _ if error.errno() == Errno::EINTR => Self::Unknown,
            Origin::Server | Origin::Connection | Origin::Caller => Self::Refused(error),
            Origin::Platform if error.errno() == Errno::ENOMEM => Self::Refused(error),
            Origin::Platform | Origin::Protocol | Origin::Device => Self::Unknown,
        }
    }
}

/// Errors that say that there is no room for one more mapping.
const NO_ROOM: [Errno; 5] = [
    Errno::ENOMEM,
    Errno::ENOSPC,
    Errno::EMFILE,
    Errno::ENFILE,
    Errno::EAGAIN,
];
/// What to do after a mapping that was not made.
pub(super) enum Next {
    /// Try with another range.
    Again,
    /// Go by READ or WRITE.
    Without,
}

impl<P: Platform> Dax<P> {
    /// Sends SETUPMAPPING. Gives the token back if it was done; otherwise it is
    /// settled.
    pub(super) fn map(
        &self,
        conn: &Connection<P>,
        owner: &Owner<P>,
        token: MapToken,
    ) -> Result<MapToken, Next> {
        let token = self.start_map(token, owner).ok_or(Next::Without)?;
        let ask = token.request();
        let mut flags = MappingFlags::READ;
        flags.set(MappingFlags::WRITE, ask.rights == Rights::Writable);
        let request = Setupmapping {
            node: owner.node,
            fh: FileHandle::NONE,
            file_offset: ask.file_offset,
            len: ask.len.into(),
            flags,
            window_offset: ask.window_offset,
        };
        if let Some(window) = conn.window() {
            window.mark_used();
        }
        let fate = match Fate::of(conn.call(&request, Data::None, Class::Forced)) {
            // Something is there that the books know nothing of.
            Fate::Refused(error) if error.errno() == Errno::EEXIST => Fate::Unknown,
            fate => fate,
        };
        match fate {
            Fate::Done => {
                // QEMU acknowledges a mapping before it has committed the change
                // of its memory; a register that it emulates makes it do so first.
                conn.touch_device();
                conn.counters().dax_maps.add(1);
                self.proved(conn, &token);
                owner.mapped();
                Ok(token)
            }
            Fate::Refused(error) => Err(self.refused(conn, owner, token, error)),
            Fate::Unknown => {
                log::warn!("virtio-fs: {request}: outcome unknown");
                conn.counters().dax_lost.add(1);
                let _ = self.state.lock().pool.window_mut().lose_map(token);
                self.changed.wake_all(conn.platform());
                Err(Next::Without)
            }
        }
    }

    /// Notes the owner, and uses the mapping to prove the state of a range that
    /// could not be unmapped, if it is as long as that.
    fn start_map(&self, token: MapToken, owner: &Owner<P>) -> Option<MapToken> {
        let state = &mut *self.state.lock();
        let token = match state.over {
            Some(over) => super::mend::map_over(state, over, token)?,
            None => token,
        };
        state.nodes[token.range().index()] = owner.node;
        state.faulted[token.range().index()] = false;
        Some(token)
    }

    /// Notes a mapping that was made, which may have proved the state of its range.
    fn proved(&self, conn: &Connection<P>, token: &MapToken) {
        let state = &mut *self.state.lock();
        if state.over == Some(token.range()) {
            state.over = None;
            conn.counters().dax_repairs.add(1);
        }
    }

    fn refused(
        &self,
        conn: &Connection<P>,
        owner: &Owner<P>,
        token: MapToken,
        error: Error,
    ) -> Next {
        conn.counters().dax_refusals.add(1);
        let next = {
            let state = &mut *self.state.lock();
            let range = token.range();
            let was_over = matches!(
                state.pool.window().state(range),
                Some(RangeState::Mapping { over: Some(_), .. })
            );
            let _ = state.pool.window_mut().abort_map(token);
            let window = state.pool.window_mut();
            let live = window.geometry().count() - window.totals().free;
            if was_over {
                state.over = None;
                Next::Again
            } else if error.is_nosys() {
                log::info!("virtio-fs: server maps no files: no DAX");
                self.off.store(true, Relaxed);
                Next::Without
            } else if NO_ROOM.contains(&error.errno()) && live > 0 {
                if live < window.live_limit() {
                    log::info!("virtio-fs: no more than {live} ranges can be mapped at once");
                    window.limit_live(live);
                }
                Next::Again
            } else {
                log::debug!("virtio-fs: node {} is not mapped: {error}", owner.node);
                owner.refused();
                Next::Without
            }
        };
        self.changed.wake_all(conn.platform());
        next
    }

    /// Unmaps a range that is too short or read-only, and begins to map it again.
    pub(super) fn remap(
        &self,
        conn: &Connection<P>,
        token: UnmapToken,
        access: &Access,
        wish: &Wish,
    ) -> Option<Step> {
        let mapping = token.mapping();
        let fate = self.remove(conn, core::slice::from_ref(&token));
        let step = {
            let pool = &mut self.state.lock().pool;
            match fate {
                Fate::Done => {
                    let rights = wish.want.max(wish.need).max(mapping.rights);
                    match pool.remap(token, access.chunk_len, rights) {
                        Ok(token) => Some(Step::Map(token)),
                        Err(RemapError::Length(token)) => {
                            let _ = pool.window_mut().commit_unmap(token);
                            None
                        }
                        Err(RemapError::Stale) => None,
                    }
                }
                Fate::Refused(_) | Fate::Unknown => {
                    conn.counters().dax_lost.add(1);
                    let _ = pool.window_mut().lose_unmap(token);
                    None
                }
            }
        };
        self.changed.wake_all(conn.platform());
        step
    }
}
