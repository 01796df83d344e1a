//! The pool joined with a server: who sends what the pool's tokens stand for.
//!
//! One short spin lock around each call of the pool; requests go out with it
//! released. Ranges are taken in the order of S4-M10: a free one, then an idle
//! one that the policy gives up, and for a copy nothing is waited for: READ and
//! WRITE do as well. A mapping that fails is therefore never an error of the
//! caller's.
//!
//! # Locks
//!
//! The lock on an owner's layout is taken before anything here, and held
//! across requests: shared by accesses, alone by truncation. The pool's lock is a
//! spin lock inside it. Pins last as long as a copy. To take a range from another
//! file its layout is not needed: an idle range that has begun to be unmapped
//! cannot be pinned any more, and who finds it so goes by READ or WRITE.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use super::geometry::{Geometry, InodeKey, RangeId, Rights};
use super::hold::Hold;
use super::map::Next;
use super::owner::Owner;
use super::policy::{Access, Costs, Kind};
use super::pool::{Pool, Step};
use super::range::{Pin, UnmapToken};
use super::reclaim::Reclaim;
use super::totals::Totals;
use super::window::Window;
use crate::conn::{Connection, Counters, DaxMode};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::sync::{Rank, SpinLock, WaitEnd, WaitQueue};
use crate::wire::NodeId;

/// Names for files, unique among all mounts: kernels see them too.
static NEXT_KEY: AtomicU64 = AtomicU64::new(1);

/// The window of a mount: what is mapped, and how to change it.
pub struct Dax<P: Platform> {
    pub(super) state: SpinLock<State>,
    pub(super) geometry: Geometry,
    /// For who waits until a range is no longer pinned or busy.
    pub(super) changed: WaitQueue<P>,
    /// Nothing is mapped any more: the server cannot, or the mount is ending.
    pub(super) off: AtomicBool,
    /// Owners whose inodes are gone and that have ranges yet.
    pub(super) orphans: SpinLock<Option<Box<Owner<P>>>>,
}

/// What the spin lock guards.
pub(super) struct State {
    pub(super) pool: Pool<Reclaim>,
    /// Threads that wait for a range. Looked at with the change that they may be
    /// waiting for, under the same lock.
    pub(super) waiting: usize,
    /// Node ids of the files that the ranges show.
    pub(super) nodes: Vec<NodeId>,
    /// Ranges of which pages may be in page tables.
    pub(super) faulted: Vec<bool>,
    /// Ranges of unknown state in which the server said that something is: of
    /// which length nobody knows.
    pub(super) foreign: Vec<bool>,
    /// A range of unknown state that could not be unmapped: next comes an attempt
    /// to map over it.
    pub(super) over: Option<RangeId>,
    /// Where to look for the next range to repair, when, and how long to wait
    /// after that.
    pub(super) mend_from: usize,
    pub(super) mend_at: Duration,
    pub(super) mend_pause: Duration,
}

impl State {
    /// Has a range of newly unknown state repaired soon, whatever became of others.
    pub(super) fn hurry(&mut self, range: RangeId) {
        self.mend_from = range.index();
        self.mend_at = Duration::ZERO;
        self.mend_pause = super::mend::FIRST_PAUSE;
    }
}

/// What an access wants of a file: some bytes of one chunk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// First byte in the file.
    pub(crate) offset: u64,
    /// Length; the bytes lie in one chunk and are mappable.
    pub(crate) len: u32,
    /// The file's size.
    pub(crate) size: u64,
    /// What is needed now.
    pub(crate) need: Rights,
    /// What a mapping made for it should allow.
    pub(crate) want: Rights,
    /// What for.
    pub(crate) kind: Kind,
    /// Bytes moved in sequence before.
    pub(crate) run: u64,
}

impl Wish {
    /// Counts a copy. The caller holds the spin lock.
    fn count(&self, counters: &Counters) {
        counters.dax_copies.add_alone(1);
        let bytes = match self.need {
            Rights::ReadOnly => &counters.dax_bytes_read,
            Rights::Writable => &counters.dax_bytes_written,
        };
        bytes.add_alone(self.len.into());
    }
}

/// Steps towards one mapping; each sends a request.
const MAX_STEPS: usize = 4;
/// How long a fault waits for room before it looks again.
const WAIT: Duration = Duration::from_millis(50);

impl<P: Platform> Dax<P> {
    /// Makes the books for the window of `conn`. `None` where there is none to be
    /// used, or none that holds a range of the server's alignment.
    pub(crate) fn new(conn: &Connection<P>, costs: Costs) -> Option<Self> {
        if conn.dax_mode() == DaxMode::Never {
            return None;
        }
        let (len, alignment) = (conn.window()?.len(), conn.limits().map_alignment);
        let geometry = Geometry::new(len, alignment.trailing_zeros() as u16)
            .inspect_err(|error| log::warn!("virtio-fs: no DAX in {len} bytes: {error:?}"))
            .ok()?;
        let count = geometry.count();
        log::info!(
            "virtio-fs: {}: DAX window of {count} ranges of {} KiB",
            conn.device().tag,
            geometry.range_size() / 1024
        );
        let pool = Pool::new(Window::new(geometry), Reclaim::new(count, costs));
        Some(Self {
            state: SpinLock::new(
                Rank::Window,
                State {
                    pool,
                    waiting: 0,
                    nodes: alloc::vec![NodeId::ROOT; count],
                    faulted: alloc::vec![false; count],
                    foreign: alloc::vec![false; count],
                    over: None,
                    mend_from: 0,
                    mend_at: Duration::ZERO,
                    mend_pause: super::mend::FIRST_PAUSE,
                },
            ),
            geometry,
            changed: WaitQueue::new(),
            off: AtomicBool::new(false),
            orphans: SpinLock::new(Rank::Leaf, None),
        })
    }

    /// Registers a file.
    pub(crate) fn owner(&self, node: NodeId) -> Owner<P> {
        Owner::new(InodeKey(NEXT_KEY.fetch_add(1, Relaxed)), node)
    }

    /// Returns the cut of the window.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Returns how many ranges are in which state.
    pub fn totals(&self) -> Totals {
        self.state.lock().pool.window().totals()
    }

    /// Returns whether anything is mapped for an access.
    pub(crate) fn is_on(&self) -> bool {
        !self.off.load(Relaxed)
    }

    /// Finds the bytes of `wish` in the window, mapping them if that pays, or in
    /// any case for a fault. Blocks if it maps.
    ///
    /// The caller shares the owner's layout.
    pub(crate) fn find<'a>(
        &'a self,
        conn: &'a Connection<P>,
        owner: &Owner<P>,
        wish: &Wish,
    ) -> Result<Hold<'a, P>, Detour> {
        let window = conn.window().ok_or(Detour::Request)?;
        if !self.is_on() {
            return Err(Detour::Request);
        }
        let access = self.access(owner, wish);
        let pin = self.obtain(conn, owner, &access, wish)?;
        let Some(inside) = window.enter() else {
            self.give_up(conn, Step::Use(pin));
            return Err(Detour::Request);
        };
        let state = &mut *self.state.lock();
        match wish.kind {
            Kind::Fault => state.faulted[pin.range().index()] = true,
            Kind::Copy => wish.count(conn.counters()),
        }
        // From here on the hold gives it back.
        Ok(Hold::new(self, conn.platform(), pin, inside))
    }

    /// Finds the bytes of `wish` in the window if they are mapped. Does not block,
    /// and needs no lock on the layout: see `fs/dax.rs`.
    pub(crate) fn hit<'a>(
        &'a self,
        conn: &'a Connection<P>,
        owner: &Owner<P>,
        wish: &Wish,
    ) -> Option<Hold<'a, P>> {
        let inside = conn.window()?.enter()?;
        let access = self.access(owner, wish);
        let pin = {
            let pool = &mut self.state.lock().pool;
            let pin = pool.hit(&access, wish.need)?;
            conn.counters().dax_hits.add_alone(1);
            wish.count(conn.counters());
            pin
        };
        Some(Hold::new(self, conn.platform(), pin, inside))
    }

    fn access(&self, owner: &Owner<P>, wish: &Wish) -> Access {
        let (chunk, at) = self.geometry.locate(wish.offset);
        Access {
            inode: owner.key,
            chunk,
            at,
            len: wish.len,
            chunk_len: self.geometry.mappable(chunk, wish.size),
            kind: wish.kind,
            run: wish.run,
        }
    }

    fn obtain(
        &self,
        conn: &Connection<P>,
        owner: &Owner<P>,
        access: &Access,
        wish: &Wish,
    ) -> Result<Pin, Detour> {
        let mut rights = wish.need;
        let mut step = {
            let pool = &mut self.state.lock().pool;
            if pool.window().find(access.inode, access.chunk).is_none() {
                if !owner.is_mappable() {
                    return Err(Detour::Request);
                }
                rights = wish.want.max(wish.need);
            }
            let step = pool.access(access, rights);
            if let Step::Use(pin) = step {
                conn.counters().dax_hits.add_alone(1);
                return Ok(pin);
            }
            step
        };
        // Where no worker does it.
        self.mend(conn);
        for _ in 0..MAX_STEPS {
            step = match step {
                Step::Use(pin) => return Ok(pin),
                Step::Request => match self.map_over_lost(access, rights) {
                    Some(token) => Step::Map(token),
                    None => return Err(Detour::Request),
                },
                Step::Wait => match self.map_over_lost(access, rights) {
                    Some(token) => Step::Map(token),
                    None if self.is_beyond_repair() => return Err(Detour::Request),
                    None => return Err(Detour::Wait),
                },
                Step::Map(token) => match self.map(conn, owner, token) {
                    Ok(token) => {
                        let pin = self.state.lock().pool.commit_map(token, access);
                        self.changed.wake_all(conn.platform());
                        return pin.map_err(|_| Detour::Request);
                    }
                    Err(Next::Again) => self.state.lock().pool.claim(access, rights),
                    Err(Next::Without) => return Err(Detour::Request),
                },
                // Taking pages out of page tables may need what a fault holds.
                Step::Evict(token) | Step::Remap(token) if wish.kind == Kind::Fault => {
                    return Err(Detour::Unmap(token));
                }
                Step::Evict(token) => {
                    conn.counters().dax_reclaims.add(1);
                    self.unmap(conn, &mut alloc::vec![token]);
                    self.state.lock().pool.claim(access, rights)
                }
                Step::Remap(token) => self
                    .remap(conn, token, access, wish)
                    .ok_or(Detour::Request)?,
            };
        }
        self.give_up(conn, step);
        Err(Detour::Request)
    }

    /// Makes room for a fault that was told to, or waits until there may be some.
    /// Blocks. The caller holds nothing of the driver's.
    ///
    /// # Errors
    ///
    /// EINTR if the caller is killed meanwhile.
    pub(crate) fn make_room(&self, conn: &Connection<P>, detour: Detour) -> Result<()> {
        match detour {
            Detour::Request => {}
            Detour::Unmap(token) => {
                conn.counters().dax_reclaims.add(1);
                self.unmap(conn, &mut alloc::vec![token]);
            }
            Detour::Wait => {
                // Looked at again in any case after a while: somebody else may
                // need what was freed less than we do.
                let until = conn.platform().now() + WAIT;
                self.state.lock().waiting += 1;
                let ready = || {
                    let state = self.state.lock();
                    (state.pool.window().available() > 0).then_some(())
                };
                let end = self.changed.wait(conn.platform(), Some(until), ready);
                self.state.lock().waiting -= 1;
                if matches!(end, WaitEnd::Signalled(_)) {
                    return Err(Error::new(Errno::EINTR, Origin::Platform));
                }
            }
        }
        Ok(())
    }

    /// Takes back a step that is not gone any further.
    fn give_up(&self, conn: &Connection<P>, step: Step) {
        {
            let pool = &mut self.state.lock().pool;
            // A stale token changes nothing, and nothing is what is wanted.
            match step {
                Step::Use(pin) => {
                    pool.window_mut().unpin(pin);
                }
                Step::Map(token) => {
                    let _ = pool.window_mut().abort_map(token);
                }
                Step::Evict(token) | Step::Remap(token) => {
                    let _ = pool.cancel_unmap(token);
                }
                Step::Request | Step::Wait => return,
            }
        }
        self.changed.wake_all(conn.platform());
    }
}

/// Why the bytes of an access are not in the window.
#[derive(Debug)]
pub(crate) enum Detour {
    /// They go by READ or WRITE.
    Request,
    /// A fault has to let go of everything and unmap this first.
    Unmap(UnmapToken),
    /// A fault has to let go of everything and wait.
    Wait,
}
