//! The in-flight table: all slots, and the queue of those who want one.
//!
//! The number of slots is the bound on active requests (S0-15). Who finds none
//! waits in line; nobody overtakes (S0-25), but whoever waits for the limit of
//! his class, and but for requests that must not fail and must not wait behind
//! others (RELEASE, FLUSH, DESTROY: S4-M34, M40 to
//! M44), for which the last slots are kept.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;

use super::slot::{Slot, SlotState};
use crate::device::dma::OutOfDma;
use crate::platform::Platform;
use crate::sync::atomic::AtomicU64;
use crate::sync::atomic::Ordering::{AcqRel, Relaxed};
use crate::sync::{HandoffLock, Rank};

/// Slots that only forced requests may take.
pub(crate) const RESERVED: u16 = 2;

/// Names a slot; also its token in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(pub(crate) u16);

/// How a request gets its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Waits in line.
    Normal,
    /// Somebody's read-ahead or write-back: waits in line, and only so many of
    /// them are active at once (`max_background` of INIT).
    Background,
    /// A wait for a lock, which may take for ever: waits in line, and at most half
    /// of the slots are taken by them, so that whoever has the lock can drop it.
    Lock,
    /// RELEASE, FLUSH and their like: may take the reserved slots, overtakes, and
    /// carries no credentials.
    Forced,
    /// INIT and DESTROY: as `Forced`, and sent when nothing else may be.
    Session,
}

impl Class {
    /// Returns whether the request must neither fail nor wait behind others.
    pub(crate) const fn is_forced(self) -> bool {
        matches!(self, Self::Forced | Self::Session)
    }
}

/// All slots of a connection.
pub(crate) struct Pool<P: Platform> {
    slots: Box<[Slot<P>]>,
    /// A bit for each slot that came back without anybody waiting for it.
    returned: Box<[AtomicU64]>,
    line: HandoffLock<Line<P>>,
}

/// Who gets the next slot.
struct Line<P: Platform> {
    /// Last in, first out: the hottest memory is used again first (S3-02).
    free: Vec<u16>,
    /// Came back with something to clean up, which needs thread context.
    to_clean: Vec<u16>,
    next_ticket: u64,
    waiting: VecDeque<Waiting<P::Thread>>,
    /// What each slot was granted for.
    granted: Box<[Class]>,
    background: u16,
    max_background: u16,
    locks: u16,
    max_locks: u16,
    /// Who waits for what a request with pages brings. Woken when it is back, to
    /// clean up, and again when that is done.
    watching: Vec<(u16, u64, P::Thread)>,
}

/// Somebody in the line.
struct Waiting<T> {
    ticket: u64,
    class: Class,
    thread: T,
}

/// A place in the line.
pub(crate) struct Ticket(u64);

impl<P: Platform> Pool<P> {
    /// Allocates `count` slots for callers and the reserved ones.
    pub(crate) fn new(count: u16, max_segments: u16) -> Result<Self, OutOfDma> {
        let normal = count.max(1);
        let count = normal + RESERVED;
        let slots: Box<[_]> = (0..count)
            .map(|_| Slot::new(max_segments))
            .collect::<Result<_, _>>()?;
        let line = Line {
            free: (0..count).rev().collect(),
            to_clean: Vec::with_capacity(count.into()),
            next_ticket: 0,
            waiting: VecDeque::with_capacity(count.into()),
            granted: vec![Class::Normal; count.into()].into_boxed_slice(),
            background: 0,
            max_background: u16::MAX,
            locks: 0,
            max_locks: (normal / 2).max(1),
            watching: Vec::with_capacity(count.into()),
        };
        Ok(Self {
            slots,
            returned: (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            line: HandoffLock::new(Rank::Line, line),
        })
    }

    pub(crate) fn slot(&self, id: SlotId) -> &Slot<P> {
        &self.slots[usize::from(id.0)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot<P>)> {
        self.slots
            .iter()
            .enumerate()
            .map(|(i, slot)| (SlotId(i as u16), slot))
    }

    /// Returns how many slots are not free, and how many callers wait for one.
    pub(crate) fn load(&self, platform: &P) -> (usize, usize) {
        self.with(platform, |line| {
            (self.slots.len() - line.free.len(), line.waiting.len())
        })
    }

    /// Keeps all memory that the device may have from being used again.
    pub(crate) fn leak(&mut self) {
        core::mem::forget(core::mem::take(&mut self.slots));
    }

    /// Sets how many background requests may be active at once.
    pub(crate) fn set_max_background(&self, platform: &P, max: u16) {
        self.with(platform, |line| {
            line.max_background = max.max(1);
            line.wake_first(platform);
        });
    }

    /// Takes a slot, or a place in the line if it is somebody else's turn.
    pub(crate) fn take(&self, platform: &P, class: Class) -> Result<SlotId, Ticket> {
        let now = |line: &mut Line<P>| {
            let first = class.is_forced() || line.first().is_none();
            let id = first.then(|| line.grant(class)).flatten()?;
            self.slot(id).set_state(SlotState::Owned);
            Some(id)
        };
        if let Some(id) = self.with(platform, now) {
            return Ok(id);
        }
        let thread = platform.current_thread();
        self.with(platform, |line| {
            if let Some(id) = now(line) {
                return Ok(id);
            }
            let ticket = line.next_ticket;
            line.next_ticket += 1;
            let waiting = Waiting {
                ticket,
                class,
                thread,
            };
            let forced = |w: &&Waiting<P::Thread>| w.class.is_forced();
            let at = match class.is_forced() {
                true => line.waiting.iter().take_while(forced).count(),
                false => line.waiting.len(),
            };
            line.waiting.insert(at, waiting);
            Err(Ticket(ticket))
        })
    }

    /// Takes a slot if one is free, nobody waits for it, and fewer than `most`
    /// background requests are active.
    pub(crate) fn try_take(&self, platform: &P, class: Class, most: u16) -> Option<SlotId> {
        self.with(platform, |line| {
            let may = line.first().is_none() && line.background < most;
            let id = may.then(|| line.grant(class)).flatten()?;
            self.slot(id).set_state(SlotState::Owned);
            Some(id)
        })
    }

    /// Has the calling thread woken when the slot's request is back and when it
    /// was cleaned up after, until [`unwatch`](Self::unwatch).
    pub(crate) fn watch(&self, platform: &P, id: SlotId) -> Ticket {
        let thread = platform.current_thread();
        self.with(platform, |line| {
            let ticket = line.next_ticket;
            line.next_ticket += 1;
            line.watching.push((id.0, ticket, thread));
            Ticket(ticket)
        })
    }

    /// Ends a [`watch`](Self::watch).
    pub(crate) fn unwatch(&self, platform: &P, ticket: Ticket) {
        self.with(platform, |line| {
            line.watching.retain(|(_, t, _)| *t != ticket.0);
        });
    }

    /// Wakes those who watch the slot.
    pub(crate) fn wake_watchers(&self, platform: &P, id: SlotId) {
        self.with(platform, |line| line.wake_watchers(id.0, platform));
    }

    /// Takes a slot if it is the ticket's turn.
    pub(crate) fn redeem(&self, platform: &P, ticket: &Ticket, class: Class) -> Option<SlotId> {
        self.with(platform, |line| {
            let at = line.first()?;
            if line.waiting[at].ticket != ticket.0 {
                return None;
            }
            let id = line.grant(class)?;
            line.waiting.remove(at);
            line.wake_first(platform);
            self.slot(id).set_state(SlotState::Owned);
            Some(id)
        })
    }

    /// Leaves the line.
    pub(crate) fn leave(&self, platform: &P, ticket: Ticket) {
        self.with(platform, |line| {
            line.waiting.retain(|w| w.ticket != ticket.0);
            line.wake_first(platform);
        });
    }

    /// Gives a slot back.
    pub(crate) fn put(&self, platform: &P, id: SlotId) {
        self.with(platform, |line| {
            line.free(id, self.slot(id));
            line.wake_first(platform);
        });
    }

    /// Returns whether every slot that is not free was given up by its caller,
    /// so that nobody but the device can end the shortage.
    pub(crate) fn all_given_up(&self) -> bool {
        self.iter()
            .all(|(_, slot)| matches!(slot.state(), SlotState::Free | SlotState::Orphan))
    }

    /// Takes back a slot that nobody waits for. Any context.
    pub(crate) fn give_back(&self, platform: &P, id: SlotId) {
        self.returned[usize::from(id.0 / 64)].fetch_or(1 << (id.0 % 64), AcqRel);
        self.line.request(|line| self.collect(line, platform));
    }

    /// Returns the next slot whose reply must be cleaned up after.
    pub(crate) fn next_to_clean(&self, platform: &P) -> Option<SlotId> {
        self.with(platform, |line| line.to_clean.pop().map(SlotId))
    }

    /// Wakes everybody in the line, to look at the connection's state again.
    pub(crate) fn wake_all(&self, platform: &P) {
        self.with(platform, |line| {
            for waiting in &line.waiting {
                platform.unpark(&waiting.thread);
            }
        });
    }

    fn with<R>(&self, platform: &P, section: impl FnOnce(&mut Line<P>) -> R) -> R {
        self.line.with(section, |line| self.collect(line, platform))
    }

    /// Sorts what came back. Allocates nothing: both lists hold all slots.
    fn collect(&self, line: &mut Line<P>, platform: &P) {
        for (word, bits) in self.returned.iter().enumerate() {
            if bits.load(Relaxed) == 0 {
                continue;
            }
            let mut bits = bits.swap(0, AcqRel);
            while bits != 0 {
                let id = (word * 64) as u16 + bits.trailing_zeros() as u16;
                bits &= bits - 1;
                let slot = self.slot(SlotId(id));
                if slot.cleanup() == super::slot::Cleanup::None {
                    line.free(SlotId(id), slot);
                } else {
                    line.to_clean.push(id);
                    line.wake_watchers(id, platform);
                }
            }
        }
        line.wake_first(platform);
    }
}

impl<P: Platform> Line<P> {
    /// Returns whether a request of this class could have a slot now.
    fn may(&self, class: Class) -> bool {
        let keep = match class.is_forced() {
            true => 0,
            false => usize::from(RESERVED),
        };
        self.free.len() > keep
            && match class {
                Class::Background => self.background < self.max_background,
                Class::Lock => self.locks < self.max_locks,
                Class::Normal | Class::Forced | Class::Session => true,
            }
    }

    /// Returns whose turn it is: the first who could have a slot. Who is kept back
    /// by the limit of a class keeps back nobody else.
    fn first(&self) -> Option<usize> {
        self.waiting.iter().position(|w| self.may(w.class))
    }

    fn grant(&mut self, class: Class) -> Option<SlotId> {
        if !self.may(class) {
            return None;
        }
        let id = self.free.pop()?;
        self.granted[usize::from(id)] = class;
        match class {
            Class::Background => self.background += 1,
            Class::Lock => self.locks += 1,
            Class::Normal | Class::Forced | Class::Session => {}
        }
        Some(SlotId(id))
    }

    fn free(&mut self, id: SlotId, slot: &Slot<P>) {
        slot.set_state(SlotState::Free);
        match self.granted[usize::from(id.0)] {
            Class::Background => self.background -= 1,
            Class::Lock => self.locks -= 1,
            Class::Normal | Class::Forced | Class::Session => {}
        }
        self.free.push(id.0);
    }

    fn wake_watchers(&self, id: u16, platform: &P) {
        for (_, _, thread) in self.watching.iter().filter(|(slot, ..)| *slot == id) {
            platform.unpark(thread);
        }
    }

    fn wake_first(&self, platform: &P) {
        if let Some(at) = self.first() {
            platform.unpark(&self.waiting[at].thread);
        }
    }
}
