//! What the policy learns about a workload, to map at the first touch where
//! that pays: reading until the reads have cost a mapping is safe, but wastes
//! that much on every chunk.
//!
//! Both learners count chunks whether they were mapped or not, so that what is
//! learnt does not depend on what was decided.

use alloc::vec::Vec;

/// A share in 1/256 over about the last eight events.
#[derive(Clone, Copy, Debug)]
struct Share(u32);

impl Share {
    fn note(&mut self, yes: bool) {
        self.0 = (self.0 * 7 + if yes { 256 } else { 0 }) / 8;
    }
}

/// Which of the recent bursts on chunks that were not mapped turned out to be
/// worth a mapping.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bursts {
    begun: u32,
    paid: u32,
}

impl Bursts {
    const MEMORY: u32 = 64;
    const LEAST: u32 = 8;

    pub(super) fn begin(&mut self) {
        self.begun += 1;
        if self.begun >= Self::MEMORY {
            self.begun /= 2;
            self.paid /= 2;
        }
    }

    pub(super) fn pay(&mut self) {
        self.paid = (self.paid + 1).min(self.begun);
    }

    /// Says whether most of them were.
    pub(super) const fn mostly_pay(&self) -> bool {
        self.begun >= Self::LEAST && self.paid * 4 >= self.begun * 3
    }
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    serial: u32,
    class: usize,
    paid: bool,
}

/// Which of the chunks seen for the first time were worth a mapping by the time
/// that a number of others had been seen for the first time. That is how long
/// a mapping made at the first touch would have lasted, first in, first out.
#[derive(Debug)]
pub(super) struct Newcomers {
    trials: Vec<Option<Trial>>,
    serial: u32,
    shares: [Share; 2],
    judged: u32,
    refused: u32,
}

impl Newcomers {
    /// How many others are waited for, at most.
    const TRIALS: usize = 1024;
    /// Every so often a range that is free is used although few have paid.
    const PROBE: u32 = 32;
    /// Verdicts before they justify an eviction.
    const LEAST: u32 = 2;

    /// Starts hopeful: an empty window is there to be filled.
    pub(super) fn new(window: usize) -> Self {
        Self {
            trials: (0..window.min(Self::TRIALS)).map(|_| None).collect(),
            serial: 0,
            shares: [Share(256); 2],
            judged: 0,
            refused: 0,
        }
    }

    fn place(&self, serial: u32) -> usize {
        serial as usize % self.trials.len()
    }

    /// Notes a newcomer of `class` and judges the one whose time is up. Returns
    /// the number to [`pay`](Self::pay) with.
    pub(super) fn arrive(&mut self, class: usize) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        let place = self.place(self.serial);
        let trial = Trial {
            serial: self.serial,
            class,
            paid: false,
        };
        if let Some(due) = self.trials[place].replace(trial) {
            self.shares[due.class].note(due.paid);
            self.judged = self.judged.saturating_add(1);
        }
        self.serial
    }

    /// Notes that the newcomer of that number has been worth a mapping.
    pub(super) fn pay(&mut self, serial: u32) {
        let place = self.place(serial);
        if let Some(trial) = self.trials[place].as_mut().filter(|t| t.serial == serial) {
            trial.paid = true;
        }
    }

    /// Says whether to give one a range that is free.
    pub(super) fn deserve_free(&mut self, class: usize) -> bool {
        if self.shares[class].0 >= 128 {
            return true;
        }
        self.refused = (self.refused + 1) % Self::PROBE;
        self.refused == 0
    }

    /// Says whether the newcomer of that number is still under watch.
    pub(super) fn is_new(&self, serial: u32) -> bool {
        let trial = self.trials[self.place(serial)];
        trial.is_some_and(|trial| trial.serial == serial)
    }

    /// Says whether to evict something for one.
    pub(super) const fn deserve_eviction(&self, class: usize) -> bool {
        self.judged >= Self::LEAST && self.shares[class].0 >= 192
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_must_mostly_pay() {
        let mut bursts = Bursts::default();
        for _ in 0..7 {
            bursts.begin();
            bursts.pay();
        }
        assert!(!bursts.mostly_pay(), "too few");
        for _ in 0..100 {
            bursts.begin();
            bursts.pay();
        }
        assert!(bursts.mostly_pay());
        for _ in 0..40 {
            bursts.begin();
        }
        assert!(!bursts.mostly_pay());
    }

    #[test]
    fn newcomers_are_judged_when_others_have_come() {
        let mut newcomers = Newcomers::new(4);
        for _ in 0..4 {
            newcomers.arrive(1);
        }
        assert!(newcomers.deserve_free(1) && !newcomers.deserve_eviction(1));
        for _ in 0..12 {
            newcomers.arrive(1);
        }
        assert!(!newcomers.deserve_free(1), "none has paid");
        assert!(
            newcomers.deserve_free(0),
            "nothing is known of the other class"
        );
        for _ in 0..30 {
            let serial = newcomers.arrive(1);
            newcomers.pay(serial);
        }
        assert!(newcomers.deserve_free(1) && newcomers.deserve_eviction(1));
    }
}
