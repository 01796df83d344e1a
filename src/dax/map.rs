//! SETUPMAPPING: asking for a mapping, and what its answer means.
//!
//! # What becomes of failures
//!
//! | answer to SETUPMAPPING | then |
//! |---|---|
//! | ENOSYS | no DAX for the rest of the session |
//! | no room (ENOMEM, ENOSPC, …) | no more ranges than live now; one is evicted instead |
//! | another error | READ and WRITE; after four in a row for good with this file |
//! | EIO, EEXIST, none, or nonsense | the range is retired until repaired |
//!
//! EIO is what a server says that failed on its way to the one who maps, or on
//! the way back: it may have been done. EEXIST says that something is there, but
//! not how long it is. With either the file has been refused, too.
//!
//! A failed REMOVEMAPPING retires all its ranges, but for one: ENOENT or EINVAL
//! for a single range says that there is no such mapping, so that the range is
//! free. See `mend` for the way back.

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

/// Returns whether an error of a REMOVEMAPPING of one whole mapping says that
/// there is none. Even if that is not true no harm is done: a range is not touched
/// before a SETUPMAPPING of it has succeeded.
pub(super) fn says_nothing_there(error: &Error) -> bool {
    let form = [Errno::ENOENT, Errno::EINVAL].contains(&error.errno());
    form && matches!(error.origin(), Origin::Server)
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
        let Some(token) = self.start_map(token, owner) else {
            self.changed.wake_all(conn.platform());
            return Err(Next::Without);
        };
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
        let mut foreign = false;
        let fate = match Fate::of(conn.call(&request, Data::None, Class::Forced)) {
            Fate::Refused(error) if [Errno::EEXIST, Errno::EIO].contains(&error.errno()) => {
                // Something is there that the books know nothing of.
                foreign = error.errno() == Errno::EEXIST;
                owner.refused();
                Fate::Unknown
            }
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
                self.lose_map(token, foreign);
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

    /// Retires a range. `foreign` if something else is there.
    fn lose_map(&self, token: MapToken, foreign: bool) {
        let state = &mut *self.state.lock();
        let range = token.range();
        if state.over == Some(range) {
            // Not again before the next attempt to unmap it.
            state.over = None;
        } else {
            state.hurry(range);
        }
        // Stale only after a reset, when nothing is mapped.
        if state.pool.window_mut().lose_map(token).is_ok() {
            state.foreign[range.index()] |= foreign;
        }
    }

    /// Notes a mapping that was made, which may have proved the state of its range.
    fn proved(&self, conn: &Connection<P>, token: &MapToken) {
        let state = &mut *self.state.lock();
        state.foreign[token.range().index()] = false;
        if state.over == Some(token.range()) {
            state.over = None;
            state.mend_pause = super::mend::FIRST_PAUSE;
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
            let state = &mut *self.state.lock();
            match fate {
                Fate::Done => {
                    let pool = &mut state.pool;
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
                    state.hurry(token.range());
                    let _ = state.pool.window_mut().lose_unmap(token);
                    None
                }
            }
        };
        self.changed.wake_all(conn.platform());
        step
    }
}
