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
//! - A chunk that is not mapped is mapped if its burst pays for that by itself:
//!   by what requests have cost it so far, by what a sequential run lets expect,
//!   or because bursts of its kind mostly do. Or if its score exceeds that of the
//!   range that would go by the cost of a mapping. Or if it is new, and new
//!   chunks have mostly proved worth it. Otherwise the bytes go by READ or WRITE.
//! - A range that a run is about to need is not taken for a copy. What displaces
//!   a range in use must be worth both, and a burst cut short must pay twice as
//!   much each time before it is mapped again: a window too small for those who
//!   use it ends in requests, not in thrashing.
//! - While ranges are free the first touch maps, unless that seldom paid of late.
//! - The number of passing ranges grows when something comes back soon after
//!   passing, and shrinks when something kept is hit after long.
//! - Sequential runs get the next chunk mapped when half of one is read, if
//!   something at rest can make way.
//! - When callers had to wait for unmappings of late, the worker refills a reserve
//!   of free ranges from what has passed, from a low to a high watermark.
//!
//! A hit costs O(1), or O(log n) for the few accesses of a burst that raise the
//! score; an absent chunk costs O(log n). Finding a range to go is O(1) unless
//! the lowest are pinned or due; for a fault it may then look at all.
//!
//! Related ideas: LIRS and CLOCK-Pro (compare the reuse distance of the newcomer
//! with the recency of the resident), LRFU (decaying frequency), TinyLFU
//! (history of absent entries decides admission), ski rental (read until the
//! reads have cost a mapping).

mod account;
mod ghost;
mod heap;
mod learn;
mod list;
mod order;
mod score;

use alloc::vec::Vec;

use self::account::Account;
use self::ghost::{Ghosts, History};
use self::heap::Heap;
use self::list::List;
use self::score::Score;
use super::geometry::{Chunk, InodeKey, RangeId};
use super::keymap::FileChunk;
use super::policy::{Access, Admission, Costs, Kind, Policy};

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
    place: Place,
    /// Mapped ahead of a run and not reached yet.
    ahead: bool,
    /// Number of the access by which a sequential run should have come again; 0
    /// if none is expected.
    due: u64,
    /// Number of the last access.
    touched: u64,
}

/// The policy's state for one window.
#[derive(Debug)]
pub struct Reclaim {
    account: Account,
    entries: Vec<Entry>,
    kept: Heap<Score>,
    passing: List,
    ghosts: Ghosts,
    /// Accesses between the last two of the range last accessed.
    gap: u64,
    /// Number of the access by which the range to be mapped ahead should be used.
    ahead_due: u64,
    /// How many ranges may be passing before one of them goes first.
    room: usize,
    /// Tick at which a caller last had to wait for an unmapping.
    squeezed: Option<u64>,
}

impl Reclaim {
    /// Newcomers are learnt about in two classes: chunks of up to this many
    /// bytes, and longer ones.
    const SMALL: u32 = 64 << 10;
    /// Ghosts per range, and the least number of them.
    const GHOSTS: usize = 2;
    const LEAST_GHOSTS: usize = 64;
    /// Once it gets tight, one range in this many is kept free for callers, if
    /// that makes two at least: the high watermark.
    const RESERVE: usize = 32;
    /// The worker starts when this part of the reserve is left: the low watermark.
    const LOW: usize = 4;
    /// A chunk not accessed for this many bursts per range is a newcomer again.
    const FORGET: u64 = 16;
    /// After how many times the usual interval a run is given up.
    const PATIENCE: u64 = 4;
    /// How many of the lowest kept ranges are looked at for one to go.
    const LOOK_AT: usize = 32;
    /// Scores halve in this many bursts per range of the window.
    const HALF_LIFE: u64 = 4;

    /// Bytes of memory per range, without its ghosts.
    pub const BYTES_PER_RANGE: usize =
        size_of::<Entry>() + Heap::<Score>::SLOT_BYTES + List::SLOT_BYTES;
    /// Bytes of memory per ghost; there are two for each range.
    pub const BYTES_PER_GHOST: usize = Ghosts::ENTRY_BYTES;

    /// Makes a policy for a window of `ranges`. Allocates all it will ever need.
    pub fn new(ranges: usize, costs: Costs) -> Self {
        let entry = || Entry {
            key: (InodeKey(0), Chunk(0)),
            history: History::default(),
            place: Place::Nowhere,
            ahead: false,
            due: 0,
            touched: 0,
        };
        Self {
            account: Account::new(ranges, costs),
            entries: (0..ranges).map(|_| entry()).collect(),
            kept: Heap::new(ranges),
            passing: List::new(ranges),
            ghosts: Ghosts::new((Self::GHOSTS * ranges).max(Self::LEAST_GHOSTS)),
            gap: 1,
            ahead_due: 0,
            room: Self::least_room(ranges),
            squeezed: None,
        }
    }

    /// Replaces the costs, as measured on this machine.
    pub fn set_costs(&mut self, costs: Costs) {
        self.account.costs = costs;
    }

    const fn least_room(ranges: usize) -> usize {
        if ranges < 32 { 1 } else { ranges / 32 }
    }

    fn window(&self) -> usize {
        self.entries.len()
    }

    fn remember(&mut self, key: FileChunk, history: History) {
        let one = self.account.costs.request.into();
        let (decay, now) = (self.account.decay, self.account.tick);
        self.ghosts
            .put(key, history, |old| decay.value(old.score, now) < one);
    }

    fn reserve(&self) -> usize {
        let ranges = self.window();
        let recent = self
            .squeezed
            .is_some_and(|then| self.account.tick - then <= ranges as u64);
        let reserve = ranges / Self::RESERVE;
        if recent && reserve >= 2 { reserve } else { 0 }
    }
}

impl Policy for Reclaim {
    fn hit(&mut self, range: RangeId, access: &Access) {
        let slot = range.index() as u32;
        let entry = &mut self.entries[slot as usize];
        let (last, known) = (entry.history.last, entry.history.known);
        let begins = self.account.note(&mut entry.history, access, false);
        let drained = access.run > 0 && access.at + access.len >= access.chunk_len;
        let clock = self.account.clock;
        if !entry.ahead {
            self.gap = clock - entry.touched;
        }
        entry.ahead = false;
        entry.touched = clock;
        entry.due = match access.run {
            0 => 0,
            _ if drained => 0,
            _ => clock + Self::PATIENCE * self.gap.max(1),
        };
        let fresh = entry.history.prior == Score::default();
        match entry.place {
            Place::Nowhere => {}
            Place::Kept => {
                if begins && self.account.tick - last > 2 * self.window() as u64 {
                    self.room = (self.room - 1).max(Self::least_room(self.window()));
                }
                // The heap learns of a higher score when it is asked for the lowest.
            }
            Place::Passing if begins && known => {
                self.unlist(slot);
                self.place(slot);
            }
            Place::Passing if drained && fresh => {
                self.passing.remove(slot);
                self.passing.push_first(slot);
            }
            Place::Passing => self.passing.touch(slot),
        }
    }

    fn admit(&mut self, access: &Access, free: usize) -> Admission {
        let key = (access.inode, access.chunk);
        let old = Self::FORGET * self.window() as u64;
        let before = self.ghosts.get(key).copied();
        let before = before.filter(|ghost| self.account.tick - ghost.last <= old);
        let before = before.unwrap_or_default();
        let mut history = before;
        let begins = self.account.note(&mut history, access, true);
        if history.unmapped && !begins {
            history.cuts += 1;
            history.regret = 0;
            if before.passed {
                self.notice_streams(self.room() + 1);
            }
        }
        history.unmapped = false;
        history.passed = false;
        let saving = self.account.costs.saving(access).min(1 << 30) as u32;
        history.regret = history.regret.saturating_add(saving);

        let class = Account::class(access);
        let free_to_use = free > self.reserve();
        self.refresh();
        let replaced = self.candidate(&mut |_| true);
        let loss = replaced.map(|slot| self.loss(slot, &history));
        let pays = access.kind == Kind::Fault || self.burst_pays(&history, access, free, replaced);
        if pays && before.passed && self.account.tick - before.last <= self.window() as u64 {
            self.widen();
        }
        history.promising = !history.tried
            && self.account.newcomers.is_new(history.newcomer)
            && self.account.newcomers.deserve_eviction(class);
        let map = pays
            || (history.promising && (free > 0 || loss.is_some()))
            || (free_to_use && self.account.newcomers.deserve_free(class))
            || loss.is_some_and(|loss| self.value(&history) > loss + self.account.map_cost());
        self.remember(key, history);
        if map {
            Admission::Map
        } else {
            Admission::Request
        }
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        let history = self.ghosts.take((access.inode, access.chunk));
        self.enter(range, access, history.unwrap_or_default());
        if access.run > 0 && access.at + access.len < access.chunk_len {
            self.entries[range.index()].due = self.account.clock + Self::PATIENCE * self.gap.max(1);
        }
    }

    fn mapped_ahead(&mut self, range: RangeId, access: &Access) {
        let history = self.ghosts.take((access.inode, access.chunk));
        let mut history = history.unwrap_or_default();
        // What there was is what there was before the burst to come.
        history.prior = history.score;
        self.enter(range, access, history);
        let entry = &mut self.entries[range.index()];
        entry.ahead = true;
        entry.due = self.ahead_due;
    }

    fn unmapped(&mut self, range: RangeId) {
        let slot = range.index() as u32;
        let entry = &self.entries[slot as usize];
        if entry.place == Place::Nowhere {
            return;
        }
        let (key, mut history, unused) = (entry.key, entry.history, entry.ahead);
        history.passed = entry.place == Place::Passing;
        history.promising = false;
        history.unmapped = true;
        self.unlist(slot);
        if unused {
            self.notice_streams(self.room() + 1);
        }
        if history.known {
            self.remember(key, history);
        }
    }

    fn victim(
        &mut self,
        wanted: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        self.refresh();
        let mut allowed = |slot: u32| may(RangeId::from_index(slot));
        let slot = if wanted.is_none() {
            // The worker takes only what has passed.
            let over = |&slot: &u32| {
                let idle = self.account.tick - self.entries[slot as usize].history.last
                    > self.account.near();
                idle && !self.is_due(slot) && allowed(slot)
            };
            self.passing.iter().find(over)
        } else {
            self.squeezed = Some(self.account.tick);
            let candidate = self.candidate(&mut allowed);
            if candidate.is_none() {
                self.notice_streams(self.passing.len() + 1);
            }
            candidate
                .or_else(|| {
                    let idle = self.kept.iter().filter(|&(_, slot)| allowed(slot));
                    idle.min().map(|(_, slot)| slot)
                })
                .or_else(|| self.passing.iter().find(|&slot| allowed(slot)))
        };
        slot.map(RangeId::from_index)
    }

    fn surplus(&self, free: usize) -> usize {
        let reserve = self.reserve();
        if free > reserve / Self::LOW {
            return 0;
        }
        (reserve - free.min(reserve)).min(self.passing.len())
    }

    fn ahead(&mut self, access: &Access, free: usize) -> bool {
        self.refresh();
        let half = access.chunk_len / 2;
        let pieces = u64::from(access.chunk_len / access.len.max(1));
        // What is accessed as often as the run goes on would be wanted back first.
        let since = self
            .account
            .clock
            .saturating_sub(Self::PATIENCE * self.gap.max(1));
        let at_rest = |slot: u32| self.entries[slot as usize].touched < since;
        self.ahead_due = self.account.clock + pieces.saturating_mul(self.gap.max(1));
        access.run >= u64::from(half)
            && access.at + access.len >= half
            && pieces * self.account.costs.saving(access) >= self.account.map_cost()
            && (free > 0 || self.candidate(&mut |_| true).is_some_and(at_rest))
    }

    fn reset(&mut self) {
        for entry in &mut self.entries {
            entry.place = Place::Nowhere;
        }
        self.kept.clear();
        self.passing.clear();
        self.ghosts.clear();
    }
}

#[cfg(test)]
impl Reclaim {
    /// Compares the lists with the ranges that are mapped.
    pub(in crate::dax) fn check(&self, mapped: &[bool]) {
        for (slot, (entry, &mapped)) in self.entries.iter().zip(mapped).enumerate() {
            let slot = slot as u32;
            let kept = self.kept.iter().filter(|&(_, other)| other == slot).count();
            let passing = self.passing.iter().filter(|&other| other == slot).count();
            assert_eq!(kept, usize::from(entry.place == Place::Kept));
            assert_eq!(passing, usize::from(entry.place == Place::Passing));
            assert_eq!(kept + passing, usize::from(mapped), "range {slot}");
            let score = self.kept.iter().find(|&(_, other)| other == slot);
            assert!(score.is_none_or(|(score, _)| score <= entry.history.score));
            let ghost = self.ghosts.get(entry.key);
            assert!(!mapped || ghost.is_none(), "range {slot} has a ghost");
        }
    }
}
