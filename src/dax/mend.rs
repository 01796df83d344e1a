//! Work that nobody waits for: repair of ranges of unknown state, reserve, and
//! what inodes left behind that are gone.
//!
//! A range whose mapping or unmapping got lost is proved by an exact unmapping
//! that succeeds, or that is refused because there is no such mapping: there was
//! that one or none. The latter proves nothing where the server has said that
//! something else is there. Where the unmapping is refused otherwise, a mapping in
//! its place that succeeds is a proof. None is tried while a request that was given
//! up is still with the device: it could be carried out after the proof.
//!
//! Attempts go round the ranges, with longer and longer pauses as long as they
//! fail. A fault waits for them if all the window is of unknown state, but not for
//! ever: see [`Dax::is_beyond_repair`].

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::geometry::{RangeId, Rights};
use super::manager::{Dax, State};
use super::map::{Fate, says_nothing_there};
use super::owner::Owner;
use super::policy::Access;
use super::range::{MapToken, RangeState};
use crate::conn::{Class, Connection};
use crate::device::Data;
use crate::platform::Platform;
use crate::wire::{Mapping, Removemapping};

/// How long to wait after the first repair that failed; then twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Pause from which on nobody waits for repairs: some eight in a row have failed,
/// in more than a second.
const HOPELESS: Duration = Duration::from_secs(1);
/// Repairs in a row.
const AT_ONCE: usize = 8;
/// Ranges that the worker unmaps at once.
const SHED: usize = 16;

impl<P: Platform> Dax<P> {
    /// Takes care of an owner whose inode is gone. Gives it back if it has no
    /// ranges, so that nothing is left to be done. Does not block or allocate.
    pub(crate) fn orphan(&self, mut owner: Box<Owner<P>>, lookups: u64) -> Option<Box<Owner<P>>> {
        let none = {
            let state = self.state.lock();
            let window = state.pool.window();
            window.of_inode(owner.key, super::Chunk(0)).next().is_none()
        };
        if none {
            return Some(owner);
        }
        owner.lookups = lookups;
        let mut orphans = self.orphans.lock();
        owner.next = orphans.take();
        *orphans = Some(owner);
        None
    }

    /// Calls `each` with node id and lookups of what is yet to be forgotten.
    pub(crate) fn each_orphan(&self, mut each: impl FnMut(crate::wire::NodeId, u64)) {
        let orphans = self.orphans.lock();
        let mut next = orphans.as_deref();
        while let Some(owner) = next {
            each(owner.node, owner.lookups);
            next = owner.next.as_deref();
        }
    }

    /// Returns whether [`work`](Self::work) has something to do now.
    pub(crate) fn has_orphans(&self) -> bool {
        self.orphans.lock().is_some()
    }

    /// Unmaps what inodes left behind that are gone, then forgets them. Blocks.
    pub(crate) fn settle_orphans(&self, conn: &Connection<P>) {
        loop {
            let mut list = self.orphans.lock();
            let Some(mut owner) = list.take() else { return };
            *list = owner.next.take();
            drop(list);
            // Nobody is left to be told of a failure; it shows in the ledger.
            let _ = self.clear(conn, &owner, 0);
            conn.forget(owner.node, owner.lookups);
        }
    }

    /// Does what is due. Blocks for the requests that it takes. Returns when it
    /// wants to be called again, if at any certain time.
    pub(crate) fn work(&self, conn: &Connection<P>) -> Option<Duration> {
        self.settle_orphans(conn);
        self.shed(conn);
        self.mend(conn)
    }

    /// Unmaps what the policy wants to have free before it is needed.
    fn shed(&self, conn: &Connection<P>) {
        let mut tokens = Vec::new();
        {
            let state = &mut *self.state.lock();
            let nodes = &state.nodes;
            let mut first = None;
            for _ in 0..state.pool.surplus().min(SHED) {
                // All of one file go into one request.
                let mut may = |range: RangeId| {
                    let node = nodes[range.index()];
                    first.is_none_or(|first| first == node)
                };
                let Some(token) = state.pool.shed(&mut may) else {
                    break;
                };
                first = Some(nodes[token.range().index()]);
                tokens.push(token);
            }
        }
        if !tokens.is_empty() {
            self.unmap(conn, &mut tokens);
        }
    }

    /// Tries to repair ranges of unknown state. Returns when to try again.
    pub(crate) fn mend(&self, conn: &Connection<P>) -> Option<Duration> {
        let now = conn.platform().now();
        for _ in 0..AT_ONCE {
            let (token, node) = {
                let state = &mut *self.state.lock();
                if state.pool.window().totals().unknown == 0 {
                    return None;
                }
                if now < state.mend_at {
                    return Some(state.mend_at);
                }
                if conn.has_stray_mapping() {
                    return Some(state.mend_later(now));
                }
                let window = state.pool.window_mut();
                let range = window
                    .next_unknown(state.mend_from)
                    .or_else(|| window.next_unknown(0))?;
                state.mend_from = range.index() + 1;
                let token = window.begin_repair(range).ok()?;
                (token, state.nodes[range.index()])
            };
            let (range, ask) = (token.range(), token.request());
            let entry = [Mapping {
                window_offset: ask.window_offset,
                len: ask.len.into(),
            }];
            let (request, _) = Removemapping::split(node, &entry);
            let fate = Fate::of(conn.call(&request, Data::None, Class::Forced));
            {
                let state = &mut *self.state.lock();
                let foreign = &mut state.foreign[range.index()];
                let proved = match &fate {
                    Fate::Done => true,
                    Fate::Refused(error) => !*foreign && says_nothing_there(error),
                    Fate::Unknown => false,
                };
                let window = state.pool.window_mut();
                // Stale only after a reset, when there is nothing to repair.
                if proved {
                    let _ = window.commit_repair(token);
                    *foreign = false;
                    conn.counters().dax_repairs.add(1);
                    state.mend_pause = FIRST_PAUSE;
                } else {
                    let _ = window.fail_repair(token);
                    log::debug!("virtio-fs: repair: {request}: {fate:?}");
                    match fate {
                        Fate::Refused(_) => state.over = Some(range),
                        _ if state.over == Some(range) => state.over = None,
                        _ => {}
                    }
                    return Some(state.mend_later(conn.platform().now()));
                }
            }
            self.changed.wake_all(conn.platform());
        }
        Some(now)
    }

    /// Begins to map the chunk of `access` over a range of unknown state that
    /// could not be unmapped, if no other is to be had and both have the same length.
    pub(super) fn map_over_lost(&self, access: &Access, rights: Rights) -> Option<MapToken> {
        let state = &mut *self.state.lock();
        let over = state.over?;
        let window = state.pool.window_mut();
        if window.available() > 0 {
            return None;
        }
        let (inode, chunk, len) = (access.inode, access.chunk, access.chunk_len);
        window.begin_map_over(over, inode, chunk, len, rights).ok()
    }

    /// Returns whether there is no room, only repairs can make some, and many have
    /// failed in a row or could not be tried. They are tried on all the same.
    pub(super) fn is_beyond_repair(&self) -> bool {
        let state = self.state.lock();
        let window = state.pool.window();
        let totals = window.totals();
        window.available() == 0
            && totals.free + totals.unknown == window.geometry().count()
            && state.mend_pause > HOPELESS
    }
}

impl State {
    /// Puts the next attempt off, for longer than the last time. Returns until when.
    fn mend_later(&mut self, now: Duration) -> Duration {
        self.mend_at = now + self.mend_pause;
        self.mend_pause = (self.mend_pause * 2).min(LONGEST_PAUSE);
        self.mend_at
    }
}

/// Turns a mapping that is about to be asked for into one over the range `over`
/// of unknown state, if both have the same length. `None` if the token is stale.
pub(super) fn map_over(state: &mut State, over: RangeId, token: MapToken) -> Option<MapToken> {
    if token.range() == over {
        return Some(token);
    }
    let window = state.pool.window_mut();
    let Some(RangeState::Unknown(len)) = window.state(over) else {
        state.over = None;
        return Some(token);
    };
    let Some(RangeState::Mapping { mapping, .. }) = window.state(token.range()) else {
        return Some(token);
    };
    if mapping.len != len {
        return Some(token);
    }
    window.abort_map(token).ok()?;
    let (inode, chunk, rights) = (mapping.inode, mapping.chunk, mapping.rights);
    window
        .begin_map_over(over, inode, chunk, len, rights)
        .or_else(|_| window.begin_map(inode, chunk, len, rights))
        .ok()
}
