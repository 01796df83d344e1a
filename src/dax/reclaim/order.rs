//! In which order ranges go: who is kept, who is passing, who is left alone.

use super::super::geometry::RangeId;
use super::super::policy::Access;
use super::ghost::History;
use super::score::Score;
use super::{Place, Reclaim};

impl Reclaim {
    /// How many ranges may be passing.
    pub(super) fn room(&self) -> usize {
        self.room.max(self.account.streams).min(self.window())
    }

    /// Brings the keys of the lowest kept ranges up to date: scores rise with each
    /// burst, and most of them long before anybody asks.
    pub(super) fn refresh(&mut self) {
        for _ in 0..Self::LOOK_AT {
            let Some((key, slot)) = self.kept.least() else {
                return;
            };
            let score = self.entries[slot as usize].history.score;
            if key == score {
                return;
            }
            self.kept.set(slot, score);
        }
    }

    /// Finds the range that should go next, among those that no run is about to
    /// need.
    pub(super) fn candidate(&self, allowed: &mut dyn FnMut(u32) -> bool) -> Option<u32> {
        let mut fits = |slot: u32| !self.is_due(slot) && allowed(slot);
        if self.passing.len() >= self.room()
            && let Some(slot) = self
                .passing
                .iter()
                .take(Self::LOOK_AT)
                .find(|&slot| fits(slot))
        {
            return Some(slot);
        }
        let least = self.kept.least().map(|(_, slot)| slot);
        least
            .filter(|&slot| fits(slot))
            // The lowest is pinned or due, which is rare: the least of the low ones.
            .or_else(|| {
                let low = self.kept.iter().take(Self::LOOK_AT);
                let fit = low.filter(|&(_, slot)| fits(slot));
                fit.min().map(|(_, slot)| slot)
            })
            .or_else(|| {
                self.passing
                    .iter()
                    .take(Self::LOOK_AT)
                    .find(|&slot| fits(slot))
            })
    }

    /// Lists a range that is nowhere.
    pub(super) fn place(&mut self, slot: u32) {
        self.refresh();
        let history = self.entries[slot as usize].history;
        let (kept, room, window) = (self.kept.len(), self.room(), self.window());
        let may_grow = kept + room < window;
        let unused = kept + self.passing.len() + room < window;
        let least = self.kept.least();
        let beats = least.is_some_and(|(least, _)| {
            history.promising
                || history.prior > least
                || self.value(&history)
                    > self.account.decay.value(least, self.account.tick) + self.account.map_cost()
        });
        if unused || beats || (may_grow && history.prior > Score::default()) {
            if !may_grow && let Some((_, demoted)) = least {
                self.kept.remove(demoted);
                self.entries[demoted as usize].place = Place::Passing;
                self.passing.push_first(demoted);
            }
            self.entries[slot as usize].place = Place::Kept;
            self.kept.set(slot, history.score);
        } else {
            self.entries[slot as usize].place = Place::Passing;
            self.passing.push_last(slot);
        }
    }

    pub(super) fn unlist(&mut self, slot: u32) {
        match self.entries[slot as usize].place {
            Place::Nowhere => {}
            Place::Kept => self.kept.remove(slot),
            Place::Passing => self.passing.remove(slot),
        }
        self.entries[slot as usize].place = Place::Nowhere;
    }

    pub(super) fn enter(&mut self, range: RangeId, access: &Access, history: History) {
        let slot = range.index() as u32;
        self.unlist(slot);
        let clock = self.account.clock;
        let entry = &mut self.entries[slot as usize];
        entry.touched = clock;
        entry.key = (access.inode, access.chunk);
        entry.history = history;
        entry.history.tried = true;
        entry.due = 0;
        entry.ahead = false;
        self.place(slot);
    }

    pub(super) fn widen(&mut self) {
        let step = (self.window() / 16).max(1);
        self.room = (self.room + step).min(self.window().saturating_sub(1).max(1));
    }

    pub(super) fn notice_streams(&mut self, passing: usize) {
        self.account.streams = passing.min((self.window() / 2).max(1));
    }

    /// Says whether a run is expected to need the range soon.
    pub(super) fn is_due(&self, slot: u32) -> bool {
        self.entries[slot as usize].due >= self.account.clock
    }
}
