//! The driver's own reclaim policy.
//!
//! The policy in a few lines:
//! - Time is counted in *bursts*: an access to a chunk that was not among the
//!   last few touched begins one. Many small reads of one chunk are one burst.
//! - A chunk's *score* is the decaying sum of what a mapping saved it, or would
//!   have saved; one burst adds at most the cost of a mapping, since for that
//!   price the chunk can be mapped again. Chunks that are not mapped keep their
//!   score in a bounded table.
//! - Most ranges are *kept*, by score. A few are *passing*: what is mapped for
//!   the sake of its current burst goes there and leaves first. It is kept only
//!   if its score from before this burst beats the lowest of the kept, so
//!   neither a scan nor a loop larger than the window displaces anything.
//! - A chunk that is not mapped is mapped if its burst pays for that by itself
//!   (what it has read so far, or a sequential run lets expect), or if its
//!   score exceeds that of the range that would go by the cost of a mapping.
//!   Otherwise the bytes go by READ or WRITE.
//! - While ranges are free the first touch maps, unless that seldom paid of late.
//! - The number of passing ranges grows when something comes back soon after
//!   passing, and shrinks when something kept is hit after long.
//!
//! Related ideas: LIRS and CLOCK-Pro (compare the reuse distance of the newcomer
//! with the recency of the resident), LRFU (decaying frequency), TinyLFU
//! (history of absent entries decides admission), ski rental (read until the
//! reads have cost a mapping).

use alloc::vec::Vec;

use super::eager::{Eager, Trial};
use super::geometry::{Chunk, InodeKey, RangeId};
use super::ghost::{Ghosts, History};
use super::heap::Heap;
use super::keymap::FileChunk;
use super::list::List;
use super::policy::{Access, Admission, Costs, Kind, Policy};
use super::score::{Decay, Score};

/// Where a mapped range is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nowhere,
    Kept,
    Passing,
}

#[derive(Debug)]
struct Entry {
    key: FileChunk,
    history: History,
    /// Saved since it was mapped, in nanoseconds.
    earned: u64,
    /// Distinguishes the mappings that a range sees.
    serial: u32,
    place: Place,
    /// Mapped early and not judged yet.
    on_trial: bool,
    class: usize,
}

/// The policy's state for one window.
#[derive(Debug)]
pub struct Reclaim {
    costs: Costs,
    decay: Decay,
    entries: Vec<Entry>,
    kept: Heap<Score>,
    passing: List,
    ghosts: Ghosts,
    /// Bursts so far.
    tick: u64,
    /// How many ranges may be passing before one of them goes first.
    room: usize,
    eager: [Eager; Self::CLASSES],
    /// Tick at which a caller last had to wait for an unmapping.
    squeezed: Option<u64>,
}

impl Reclaim {
    /// Chunks are learnt about in two classes: up to this many bytes, and more.
    const SMALL: u32 = 64 << 10;
    const CLASSES: usize = 2;
    /// Ghosts per range, and the least number of them.
    const GHOSTS: usize = 4;
    const LEAST_GHOSTS: usize = 64;
    /// Windows of this many ranges and more keep some free once it gets tight.
    const RESERVE_FROM: usize = 64;

    /// Bytes of memory per range, without its ghosts.
    pub const BYTES_PER_RANGE: usize =
        size_of::<Entry>() + Heap::<Score>::SLOT_BYTES + List::SLOT_BYTES;
    /// Bytes of memory per ghost; there are four for each range.
    pub const BYTES_PER_GHOST: usize = Ghosts::ENTRY_BYTES;

    /// Makes a policy for a window of `ranges`. Allocates all it will ever need.
    pub fn new(ranges: usize, costs: Costs) -> Self {
        let entry = || Entry {
            key: (InodeKey(0), Chunk(0)),
            history: History::default(),
            earned: 0,
            serial: 0,
            place: Place::Nowhere,
            on_trial: false,
            class: 0,
        };
        Self {
            costs,
            decay: Decay::new(4 * ranges as u64),
            entries: (0..ranges).map(|_| entry()).collect(),
            kept: Heap::new(ranges),
            passing: List::new(ranges),
            ghosts: Ghosts::new((Self::GHOSTS * ranges).max(Self::LEAST_GHOSTS)),
            tick: 0,
            room: Self::least_room(ranges),
            eager: [Eager::new(ranges), Eager::new(ranges)],
            squeezed: None,
        }
    }

    /// Replaces the costs, as measured on this machine.
    pub fn set_costs(&mut self, costs: Costs) {
        self.costs = costs;
    }

    const fn least_room(ranges: usize) -> usize {
        if ranges < 32 { 1 } else { ranges / 32 }
    }

    fn window(&self) -> usize {
        self.entries.len()
    }

    /// How many bursts ago an access still belongs to the current burst.
    fn near(&self) -> u64 {
        (self.window() as u64 / 16).clamp(1, 64)
    }

    fn map_cost(&self) -> u64 {
        self.costs.map.into()
    }

    /// Adds an access to a history. Says whether it began a burst.
    fn note(&mut self, history: &mut History, access: &Access) -> bool {
        let begins = !history.known
            || self.tick - history.last > self.near()
            || self.tick - history.began > self.window() as u64;
        if begins {
            self.tick += 1;
            history.began = self.tick;
            history.burst = 0;
            history.prior = history.score;
        }
        let left = self.map_cost().saturating_sub(history.burst.into());
        let gain = self.costs.saving(access).min(left);
        if gain > 0 {
            history.score = self.decay.add(history.score, gain, self.tick);
            history.burst += gain as u32;
        }
        history.last = self.tick;
        history.known = true;
        begins
    }

    /// What the current sequential run lets expect of the rest of the chunk: as
    /// much again as it has moved.
    fn expected(&self, access: &Access) -> u64 {
        let rest = u64::from(access.chunk_len.saturating_sub(access.at + access.len));
        let pieces = rest.min(access.run) / u64::from(access.len.max(1));
        pieces * self.costs.saving(access)
    }

    fn value(&self, history: &History) -> u64 {
        self.decay.value(history.score, self.tick)
    }

    /// What would be lost with the range that would go next.
    fn least_value(&self) -> u64 {
        let passing = self.passing.first();
        if let Some(slot) = passing.filter(|_| self.passing.len() >= self.room) {
            // It is there for its burst, which is over; count what was before.
            let history = &self.entries[slot as usize].history;
            return self.value(history).saturating_sub(history.burst.into());
        }
        let least = self.kept.least();
        least.map_or(0, |(score, _)| self.decay.value(score, self.tick))
    }

    /// Lists a range that is nowhere: kept if there is room or it deserves it.
    fn place(&mut self, slot: u32) {
        let history = self.entries[slot as usize].history;
        let full = self.kept.len() + self.room >= self.window();
        let deserves = match self.kept.least() {
            Some((least, _)) if full => {
                let least_value = self.decay.value(least, self.tick);
                history.prior > least || self.value(&history) > least_value + self.map_cost()
            }
            _ => !full,
        };
        if !deserves {
            self.entries[slot as usize].place = Place::Passing;
            self.passing.push_last(slot);
            return;
        }
        if full && let Some((_, demoted)) = self.kept.least() {
            self.kept.remove(demoted);
            self.entries[demoted as usize].place = Place::Passing;
            self.passing.push_first(demoted);
        }
        self.entries[slot as usize].place = Place::Kept;
        self.kept.set(slot, history.score);
    }

    fn unlist(&mut self, slot: u32) {
        match self.entries[slot as usize].place {
            Place::Nowhere => {}
            Place::Kept => self.kept.remove(slot),
            Place::Passing => self.passing.remove(slot),
        }
        self.entries[slot as usize].place = Place::Nowhere;
    }

    fn enter(&mut self, range: RangeId, access: &Access, history: History) {
        let slot = range.index() as u32;
        self.unlist(slot);
        let entry = &mut self.entries[slot as usize];
        entry.key = (access.inode, access.chunk);
        entry.history = history;
        entry.earned = 0;
        entry.serial = entry.serial.wrapping_add(1);
        entry.on_trial = false;
        entry.class = usize::from(access.chunk_len > Self::SMALL);
        self.place(slot);
    }

    fn judge(&mut self, range: RangeId) {
        let map_cost = self.map_cost().max(1);
        let entry = &mut self.entries[range.index()];
        if core::mem::take(&mut entry.on_trial) {
            let paid = (entry.earned * 256 / map_cost).min(256);
            self.eager[entry.class].judge(paid as u32);
        }
    }

    /// Puts an early mapping on trial and judges the one whose time is up.
    fn watch(&mut self, range: RangeId) {
        let entry = &mut self.entries[range.index()];
        entry.on_trial = true;
        let trial = Trial {
            range,
            serial: entry.serial,
        };
        let class = entry.class;
        if let Some(due) = self.eager[class].watch(trial)
            && self.entries[due.range.index()].serial == due.serial
        {
            self.judge(due.range);
        }
    }

    fn reserve(&self) -> usize {
        let ranges = self.window();
        let recent = self
            .squeezed
            .is_some_and(|then| self.tick - then <= ranges as u64);
        if recent && ranges >= Self::RESERVE_FROM {
            ranges / Self::RESERVE_FROM
        } else {
            0
        }
    }
}

impl Policy for Reclaim {
    fn hit(&mut self, range: RangeId, access: &Access) {
        let slot = range.index() as u32;
        let saving = self.costs.saving(access);
        let entry = &mut self.entries[slot as usize];
        entry.earned = entry.earned.saturating_add(saving);
        let place = entry.place;
        let mut history = entry.history;
        let before = history;
        let begins = self.note(&mut history, access);
        self.entries[slot as usize].history = history;
        match place {
            Place::Nowhere => {}
            Place::Kept => {
                if begins && self.tick - before.last > self.window() as u64 {
                    self.room = (self.room - 1).max(Self::least_room(self.window()));
                }
                if history.score != before.score {
                    self.kept.set(slot, history.score);
                }
            }
            Place::Passing if begins && before.known => {
                self.unlist(slot);
                self.place(slot);
            }
            Place::Passing => {
                let drained = access.run > 0 && access.at + access.len >= access.chunk_len;
                if drained && history.prior == Score::default() {
                    self.passing.remove(slot);
                    self.passing.push_first(slot);
                } else {
                    self.passing.touch(slot);
                }
            }
        }
    }

    fn admit(&mut self, access: &Access, free: usize) -> Admission {
        let key = (access.inode, access.chunk);
        let before = self.ghosts.get(key).copied().unwrap_or_default();
        let mut history = before;
        self.note(&mut history, access);
        let pays = u64::from(history.burst) + self.expected(access) >= self.map_cost();
        let dense = pays || access.kind == Kind::Fault;
        if dense && before.passed && self.tick - before.last <= self.window() as u64 {
            self.room = (self.room + 1).min(self.window().saturating_sub(1).max(1));
        }
        history.passed = false;
        let class = usize::from(access.chunk_len > Self::SMALL);
        let map = dense
            || (free > self.reserve() && self.eager[class].advises())
            || self.value(&history) > self.least_value() + self.map_cost();
        let one = self.costs.request.into();
        let (decay, now) = (self.decay, self.tick);
        self.ghosts
            .put(key, history, |old| decay.value(old.score, now) < one);
        if map {
            Admission::Map
        } else {
            Admission::Request
        }
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        let history = self.ghosts.take((access.inode, access.chunk));
        let history = history.unwrap_or_default();
        self.enter(range, access, history);
        self.entries[range.index()].earned = history.burst.into();
        self.watch(range);
    }

    fn mapped_ahead(&mut self, range: RangeId, access: &Access) {
        let history = self.ghosts.take((access.inode, access.chunk));
        self.enter(range, access, history.unwrap_or_default());
    }

    fn unmapped(&mut self, range: RangeId) {
        self.judge(range);
        let slot = range.index() as u32;
        let entry = &self.entries[slot as usize];
        if entry.place == Place::Nowhere {
            return;
        }
        let (key, mut history) = (entry.key, entry.history);
        history.passed = entry.place == Place::Passing;
        self.unlist(slot);
        if history.known {
            let one = self.costs.request.into();
            let (decay, now) = (self.decay, self.tick);
            self.ghosts
                .put(key, history, |old| decay.value(old.score, now) < one);
        }
    }

    fn victim(
        &mut self,
        wanted: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        if wanted.is_some() {
            self.squeezed = Some(self.tick);
        }
        let mut allowed = |slot: &u32| may(RangeId::from_index(*slot));
        if self.passing.len() >= self.room
            && let Some(slot) = self.passing.iter().find(&mut allowed)
        {
            return Some(RangeId::from_index(slot));
        }
        let least = self.kept.least().map(|(_, slot)| slot);
        let slot = least
            .filter(&mut allowed)
            // The lowest is pinned, which is rare: look at all of them.
            .or_else(|| {
                let idle = self.kept.iter().filter(|(_, slot)| allowed(slot));
                idle.min().map(|(_, slot)| slot)
            })
            .or_else(|| self.passing.iter().find(&mut allowed))?;
        Some(RangeId::from_index(slot))
    }

    fn surplus(&self, free: usize) -> usize {
        self.reserve().saturating_sub(free).min(self.passing.len())
    }

    fn ahead(&self, access: &Access) -> bool {
        let half = access.chunk_len / 2;
        let pieces = u64::from(access.chunk_len / access.len.max(1));
        access.run >= u64::from(half)
            && access.at + access.len >= half
            && pieces * self.costs.saving(access) >= self.map_cost()
    }

    fn reset(&mut self) {
        for slot in 0..self.entries.len() {
            self.entries[slot].place = Place::Nowhere;
            self.entries[slot].on_trial = false;
        }
        self.kept.clear();
        self.passing.clear();
        self.ghosts.clear();
    }
}
