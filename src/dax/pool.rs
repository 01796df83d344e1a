//! A window and its policy behind one lock: what the glue calls.
//!
//! The glue holds a spin lock around each call. [`Pool::access`] says what to
//! do; requests go out with the lock released, between the call that gave the
//! token and the one that takes it back. A hit is one call, allocates nothing
//! and takes O(log n).
//!
//! | step | the glue then |
//! |---|---|
//! | `Use(pin)` | copies through the window, `unpin` |
//! | `Map(token)` | SETUPMAPPING, then `commit_map`, `abort_map` or `lose_map` |
//! | `Evict(token)` | takes the pages out of page tables, REMOVEMAPPING, `commit_unmap` or `lose_unmap`, then `claim` |
//! | `Remap(token)` | as `Evict`, but ends with `remap`, which gives a `Map` token |
//! | `Request` | READ or WRITE |
//! | `Wait` | sleeps until an unpin or a commit, then `access` again |

use super::geometry::{Chunk, InodeKey, RangeId, Rights};
use super::policy::{Access, Admission, Kind, Policy};
use super::range::{MapToken, Pin, Pinning, RangeState, RemapError, Stale, UnmapToken};
use super::window::Window;

/// What to do about an access.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "tokens and pins must be handed back"]
pub enum Step {
    /// The chunk is mapped and pinned.
    Use(Pin),
    /// Map it.
    Map(MapToken),
    /// Unmap this one first.
    Evict(UnmapToken),
    /// Unmap the chunk's own range and map it again: it is too short or
    /// read-only.
    Remap(UnmapToken),
    /// Go by READ or WRITE.
    Request,
    /// A page is needed and nothing can be unmapped now, or somebody else is
    /// about to map the chunk.
    Wait,
}

/// Counts of what happened, since the pool was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accesses that found their chunk mapped.
    pub hits: u64,
    /// Mappings made because of an access.
    pub maps: u64,
    /// Mappings made ahead of one.
    pub maps_ahead: u64,
    /// Unmappings that a caller had to wait for.
    pub evictions: u64,
    /// Unmappings by the worker.
    pub shed: u64,
    /// Mappings made again, for length or rights.
    pub remaps: u64,
    /// Accesses that were left to READ and WRITE.
    pub requests: u64,
    /// Times that nothing could be done but wait.
    pub waits: u64,
}

/// The window and its policy.
#[derive(Debug)]
pub struct Pool<P> {
    window: Window,
    policy: P,
    counters: Counters,
}

impl<P: Policy> Pool<P> {
    /// Joins the two; the policy must have been made for as many ranges.
    pub const fn new(window: Window, policy: P) -> Self {
        Self {
            window,
            policy,
            counters: Counters {
                hits: 0,
                maps: 0,
                maps_ahead: 0,
                evictions: 0,
                shed: 0,
                remaps: 0,
                requests: 0,
                waits: 0,
            },
        }
    }

    /// Returns the ledger, to look at.
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// Returns the ledger, for what concerns no policy: unpinning, repair, the
    /// limit on live ranges, and tokens that end in nothing mapped.
    pub const fn window_mut(&mut self) -> &mut Window {
        &mut self.window
    }

    /// Returns the policy, to update its costs.
    pub const fn policy_mut(&mut self) -> &mut P {
        &mut self.policy
    }

    /// Returns the counters.
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Pins the chunk of an access that wants `rights`, if it is mapped. If not,
    /// nothing has happened, and [`access`](Self::access) decides.
    pub fn hit(&mut self, access: &Access, rights: Rights) -> Option<Pin> {
        let end = access.at.saturating_add(access.len);
        if end > access.chunk_len {
            return None;
        }
        match self.window.pin(access.inode, access.chunk, end, rights) {
            Pinning::Pinned(pin) => {
                self.policy.hit(pin.range(), access);
                self.counters.hits += 1;
                Some(pin)
            }
            _ => None,
        }
    }

    /// Decides about an access that wants `rights`. Called once per access; after
    /// an eviction goes on with [`claim`](Self::claim).
    pub fn access(&mut self, access: &Access, rights: Rights) -> Step {
        let end = access.at.saturating_add(access.len);
        if end > access.chunk_len {
            return self.without(Kind::Copy);
        }
        match self.window.pin(access.inode, access.chunk, end, rights) {
            Pinning::Pinned(pin) => {
                self.policy.hit(pin.range(), access);
                self.counters.hits += 1;
                Step::Use(pin)
            }
            Pinning::Busy(_) => self.without(access.kind),
            Pinning::TooShort(range) | Pinning::ReadOnly(range) => {
                match self.window.begin_unmap(range) {
                    Ok(token) => {
                        self.policy.unmapped(range);
                        self.counters.remaps += 1;
                        Step::Remap(token)
                    }
                    Err(_) => self.without(access.kind),
                }
            }
            Pinning::Absent => {
                let verdict = self.policy.admit(access, self.window.available());
                match (verdict, access.kind) {
                    (Admission::Request, Kind::Copy) => self.without(Kind::Copy),
                    _ => self.claim(access, rights),
                }
            }
        }
    }

    /// Takes a range for an access that was admitted: a free one, or else one to
    /// evict.
    pub fn claim(&mut self, access: &Access, rights: Rights) -> Step {
        match self.acquire(access, rights) {
            Some(step) => step,
            None => self.without(access.kind),
        }
    }

    fn acquire(&mut self, access: &Access, rights: Rights) -> Option<Step> {
        let Access {
            inode,
            chunk,
            chunk_len,
            ..
        } = *access;
        if self.window.find(inode, chunk).is_some() {
            return None;
        }
        if self.window.available() > 0 {
            let token = self.window.begin_map(inode, chunk, chunk_len, rights);
            return token.ok().map(Step::Map);
        }
        let window = &self.window;
        let mut may = |range| window.is_idle(range);
        let range = self.policy.victim(Some(inode), &mut may)?;
        let token = self.begin_unmap(range)?;
        self.counters.evictions += 1;
        Some(Step::Evict(token))
    }

    /// Ends a mapping that succeeded; the range comes pinned.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn commit_map(&mut self, token: MapToken, access: &Access) -> Result<Pin, Stale> {
        let pin = self.window.commit_map(token)?;
        let access = self.shown(pin.range(), access);
        self.policy.mapped(pin.range(), &access);
        self.counters.maps += 1;
        Ok(pin)
    }

    /// Says how to map the next chunk ahead: `Map`, or `Evict` and then again. `None`
    /// if `access` does not go in sequence, the chunk is there already, nothing
    /// of it can be mapped (`chunk_len` is what can), or no range is to be had.
    /// Called while `access` still holds its pin.
    pub fn ahead(&mut self, access: &Access, chunk_len: u32, rights: Rights) -> Option<Step> {
        let next = ahead_of(access, chunk_len);
        if chunk_len == 0
            || !self.policy.ahead(access, self.window.available())
            || self.window.find(next.inode, next.chunk).is_some()
        {
            return None;
        }
        self.acquire(&next, rights)
    }

    /// Ends a mapping ahead that succeeded. Nobody holds it.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn commit_ahead(&mut self, token: MapToken) -> Result<(), Stale> {
        let pin = self.window.commit_map(token)?;
        let access = self.shown(pin.range(), &NO_ACCESS);
        self.policy.mapped_ahead(pin.range(), &access);
        self.counters.maps_ahead += 1;
        self.window.unpin(pin);
        Ok(())
    }

    /// Says how many ranges the worker should unmap now.
    pub fn surplus(&self) -> usize {
        self.policy.surplus(self.window.available())
    }

    /// Begins to unmap one range for the worker, among the idle ones that `may`
    /// allows. The worker collects tokens into one REMOVEMAPPING.
    pub fn shed(&mut self, may: &mut dyn FnMut(RangeId) -> bool) -> Option<UnmapToken> {
        let window = &self.window;
        let mut idle = |range| window.is_idle(range) && may(range);
        let range = self.policy.victim(None, &mut idle)?;
        let token = self.begin_unmap(range)?;
        self.counters.shed += 1;
        Some(token)
    }

    /// Begins to unmap a range that the caller chose: truncation, eviction of an
    /// inode. `None` if it is not idle.
    pub fn begin_unmap(&mut self, range: RangeId) -> Option<UnmapToken> {
        let token = self.window.begin_unmap(range).ok()?;
        self.policy.unmapped(range);
        Some(token)
    }

    /// Takes back an unmapping that was never sent.
    ///
    /// # Errors
    /// The session was reset meanwhile.
    pub fn cancel_unmap(&mut self, token: UnmapToken) -> Result<(), Stale> {
        let range = token.range();
        self.window.cancel_unmap(token)?;
        let access = self.shown(range, &NO_ACCESS);
        self.policy.mapped(range, &access);
        Ok(())
    }

    /// Ends the unmapping half of a `Remap` and begins the mapping half.
    ///
    /// # Errors
    /// As [`Window::remap`].
    pub fn remap(
        &mut self,
        token: UnmapToken,
        len: u32,
        rights: Rights,
    ) -> Result<MapToken, RemapError> {
        self.window.remap(token, len, rights)
    }

    /// Forgets everything: the device was reset.
    pub fn reset(&mut self) {
        self.window.reset();
        self.policy.reset();
    }

    /// Returns `access` with the chunk that `range` really shows, whatever the
    /// caller said.
    fn shown(&self, range: RangeId, access: &Access) -> Access {
        match self.window.state(range) {
            Some(RangeState::Mapped(mapping)) => Access {
                inode: mapping.inode,
                chunk: mapping.chunk,
                chunk_len: mapping.len,
                ..*access
            },
            _ => *access,
        }
    }

    fn without(&mut self, kind: Kind) -> Step {
        match kind {
            Kind::Copy => {
                self.counters.requests += 1;
                Step::Request
            }
            Kind::Fault => {
                self.counters.waits += 1;
                Step::Wait
            }
        }
    }
}

const NO_ACCESS: Access = Access {
    inode: InodeKey(0),
    chunk: Chunk(0),
    at: 0,
    len: 0,
    chunk_len: 0,
    kind: Kind::Copy,
    run: 0,
};

/// The next chunk as an access that has not happened.
fn ahead_of(access: &Access, chunk_len: u32) -> Access {
    Access {
        inode: access.inode,
        chunk: Chunk(access.chunk.0.saturating_add(1)),
        chunk_len,
        ..NO_ACCESS
    }
}
