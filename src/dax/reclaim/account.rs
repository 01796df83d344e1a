//! What accesses add to a chunk's history, and what a mapping is worth.

use super::super::policy::{Access, Costs, Kind};
use super::ghost::{History, Start};
use super::learn::{Bursts, Newcomers};
use super::score::{Decay, Score};
use super::{Place, Reclaim};

/// What is counted of accesses, and what they cost.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) costs: Costs,
    pub(super) decay: Decay,
    /// Ranges of the window.
    pub(super) ranges: u64,
    /// Bursts so far.
    pub(super) tick: u64,
    /// Accesses so far.
    pub(super) clock: u64,
    /// How many must be passing at once, because of late some went in the middle
    /// of their bursts or before their use.
    pub(super) streams: usize,
    pub(super) newcomers: Newcomers,
    bursts: [Bursts; 2],
}

impl Account {
    pub(super) fn new(ranges: usize, costs: Costs) -> Self {
        Self {
            costs,
            decay: Decay::new(Reclaim::HALF_LIFE * ranges as u64),
            ranges: ranges as u64,
            tick: 0,
            clock: 0,
            streams: 0,
            newcomers: Newcomers::new(ranges),
            bursts: [Bursts::default(); 2],
        }
    }

    /// How many bursts ago an access still belongs to the current burst.
    pub(super) fn near(&self) -> u64 {
        (self.ranges / 8).min(8)
    }

    pub(super) fn map_cost(&self) -> u64 {
        self.costs.map.into()
    }

    pub(super) fn bursts_of(&mut self, start: Start) -> &mut Bursts {
        &mut self.bursts[usize::from(start == Start::InSequence)]
    }

    pub(super) fn class(access: &Access) -> usize {
        usize::from(access.chunk_len > Reclaim::SMALL)
    }

    /// Adds an access to a history. `absent` if the chunk is not mapped. Says
    /// whether a burst began.
    pub(super) fn note(&mut self, history: &mut History, access: &Access, absent: bool) -> bool {
        self.clock += 1;
        // A sequential run is one burst however many others go on beside it.
        let runs_on = access.run > 0 && access.at > 0;
        let elapsed =
            self.tick - history.last > self.near() || self.tick - history.began > self.ranges;
        let begins = !history.known || (elapsed && !runs_on);
        if begins {
            self.tick += 1;
            if self.tick.is_multiple_of(self.ranges) {
                self.streams = self.streams.saturating_sub(1);
            }
            history.began = self.tick;
            history.began_at = self.clock;
            history.regret = 0;
            history.cuts = 0;
            history.burst = 0;
            history.prior = history.score;
            history.absent = (absent && access.kind == Kind::Copy).then_some(if access.run > 0 {
                Start::InSequence
            } else {
                Start::Anew
            });
            if let Some(start) = history.absent {
                self.bursts_of(start).begin();
            }
        }
        if !history.known && access.kind == Kind::Copy {
            history.newcomer = self.newcomers.arrive(Self::class(access));
        }
        history.last = self.tick;
        history.known = true;

        let (cost, saving) = (self.costs.map, self.costs.saving(access));
        let gain = saving.min(cost.saturating_sub(history.burst).into());
        if gain > 0 {
            history.score = self.decay.add(history.score, gain, self.tick);
            history.burst += gain as u32;
            if history.burst >= cost
                && let Some(start) = history.absent
            {
                self.bursts_of(start).pay();
            }
        }
        let more = saving.min(cost.saturating_sub(history.later).into());
        if more > 0 && history.prior > Score::default() {
            history.later += more as u32;
            if history.later >= cost && access.kind == Kind::Copy {
                self.newcomers.pay(history.newcomer);
            }
        }
        begins
    }
}

impl Reclaim {
    /// Says whether the current burst of an absent chunk pays for a mapping by
    /// itself, if it takes the place of `replaced`.
    pub(super) fn burst_pays(
        &mut self,
        history: &History,
        access: &Access,
        free: usize,
        replaced: Option<u32>,
    ) -> bool {
        let mut price = self.account.map_cost() << history.cuts.min(5);
        if free == 0 {
            let Some(slot) = replaced else {
                // Every range is in the middle of a run: do not cut that short.
                return false;
            };
            if self.goes_on(slot, history) {
                price += self.value(&self.entries[slot as usize].history);
            }
        }
        if history.cuts > 0 {
            return u64::from(history.regret) >= price;
        }
        let usual = history
            .absent
            .is_some_and(|start| self.account.bursts_of(start).mostly_pay());
        usual || u64::from(history.regret) + self.expected(access) >= price
    }

    /// What the current sequential run lets expect of the rest of the chunk: as
    /// much again as it has moved.
    pub(super) fn expected(&self, access: &Access) -> u64 {
        let rest = u64::from(access.chunk_len.saturating_sub(access.at + access.len));
        let pieces = rest.min(access.run) / u64::from(access.len.max(1));
        pieces * self.account.costs.saving(access)
    }

    pub(super) fn value(&self, history: &History) -> u64 {
        self.account.decay.value(history.score, self.account.tick)
    }

    /// Says whether the burst that brought a range in goes on beside the one of
    /// `history`: it was accessed since that one began.
    pub(super) fn goes_on(&self, slot: u32, history: &History) -> bool {
        self.entries[slot as usize].touched > history.began_at
    }

    /// What would be lost with a range, from the point of view of a chunk that is
    /// to replace it.
    pub(super) fn loss(&self, slot: u32, history: &History) -> u64 {
        let entry = &self.entries[slot as usize];
        let value = self.value(&entry.history);
        if entry.place == Place::Passing && !self.goes_on(slot, history) {
            // It is there for its burst, which is over; count what was before.
            return value.saturating_sub(entry.history.burst.into());
        }
        value
    }
}
