//! What a reader will want next.
//!
//! One for each open file. It is told of every access and says which pages to ask
//! for beyond it; it sends nothing and knows no page cache, so a plan may name pages
//! that are there already. In the order in which it looks:
//!
//! - *In sequence*: the access begins where the last one ended, or is the first
//!   one and at the start of the file. The window doubles each time that half of it
//!   was used, up to the bound, so that requests are under way while the reader
//!   works on what came before.
//! - *In strides*: two distances in a row were the same, forwards or backwards,
//!   with gaps or without. The number of strides ahead doubles like the window.
//! - Otherwise nothing: an access at random costs the bytes it asked for.

/// Pages to ask for: `times` runs of `count` pages, `step` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) step: i64,
    pub(crate) times: u64,
}

impl Plan {
    const fn run(first: u64, count: u64) -> Self {
        Self {
            first,
            count,
            step: 0,
            times: 1,
        }
    }

    /// Returns the runs, nearest first, joined where they touch.
    pub(crate) fn runs(self, end: u64) -> impl Iterator<Item = core::ops::Range<u64>> {
        let joined = self.step.unsigned_abs() == self.count;
        let (first, count, times) = if joined {
            let back = self.step.min(0).unsigned_abs() * (self.times - 1);
            (self.first.saturating_sub(back), self.count * self.times, 1)
        } else {
            (self.first, self.count, self.times)
        };
        (0..times).map_while(move |n| {
            let start = first.checked_add_signed(self.step.checked_mul(n as i64)?)?;
            (start < end).then(|| start..start.saturating_add(count).min(end))
        })
    }
}

/// The pattern of one reader's accesses, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadAhead {
    /// First page of the last access.
    last: u64,
    /// Page behind it.
    next: u64,
    started: bool,
    /// How far to be ahead; 0 while there is no sequence.
    window: u64,
    /// Page behind what was asked for.
    until: u64,
    /// Distance of the last two accesses, and how often it was the same.
    stride: i64,
    repeats: u32,
    /// Strides that were asked for and not reached.
    strides: u64,
}

/// Pages to be ahead at the start, at least.
const INITIAL: u64 = 4;
/// Strides to be ahead at most: each may be a request.
const STRIDES: u64 = 32;

impl ReadAhead {
    /// Notes an access to `count` pages from `first` on. Returns what to ask for
    /// as well, at most `max` pages; where that is several requests of `unit` pages,
    /// whole ones.
    pub(crate) fn note(&mut self, first: u64, count: u64, max: u64, unit: u64) -> Option<Plan> {
        let end = first + count;
        if self.started && first >= self.last && end == self.next {
            // More of the page where the last access ended.
            return None;
        }
        let touches = first == self.next || (first + 1 == self.next && self.started);
        let plan = if touches && (self.started || first == 0) {
            self.repeats = 0;
            self.in_sequence(end, count, max, unit)
        } else {
            self.jump(first, count, max)
        };
        if self.started {
            self.stride = first.wrapping_sub(self.last) as i64;
        }
        (self.last, self.next, self.started) = (first, end, true);
        plan
    }

    fn in_sequence(&mut self, end: u64, count: u64, max: u64, unit: u64) -> Option<Plan> {
        if self.window == 0 {
            self.window = (2 * count).next_power_of_two().max(INITIAL);
            self.until = end;
        }
        self.window = self.window.min(max);
        self.until = self.until.max(end);
        let left = self.until - end;
        if left > self.window / 2 || self.window == 0 {
            return None;
        }
        let mut until = end + self.window;
        if until - self.until >= unit {
            until -= until % unit;
        }
        let plan = Plan::run(self.until, until - self.until);
        self.until = until;
        self.window = (self.window * 2).min(max);
        (plan.count > 0).then_some(plan)
    }

    fn jump(&mut self, first: u64, count: u64, max: u64) -> Option<Plan> {
        self.window = 0;
        let stride = first.wrapping_sub(self.last) as i64;
        if !self.started || stride != self.stride || stride.unsigned_abs() < count {
            (self.repeats, self.strides) = (0, 0);
            return None;
        }
        self.repeats = (self.repeats + 1).min(16);
        self.strides = self.strides.saturating_sub(1);
        let most = max / count.max(1);
        // What touches goes in one request.
        let most = if stride.unsigned_abs() == count {
            most
        } else {
            most.min(STRIDES)
        };
        let wanted = (1 << self.repeats).min(most);
        if self.strides > wanted / 2 || wanted <= self.strides {
            return None;
        }
        let from = self.strides as i64 + 1;
        let times = wanted - self.strides;
        let start = first.checked_add_signed(stride.checked_mul(from)?)?;
        self.strides = wanted;
        Some(Plan {
            first: start,
            count,
            step: stride,
            times,
        })
    }

    /// Notes that of a plan nothing was asked for from `page` on, and `runs` runs
    /// not wholly.
    pub(crate) fn stopped_at(&mut self, page: u64, runs: u64) {
        if self.window > 0 {
            self.until = page.max(self.next).min(self.until);
        } else {
            self.strides = self.strides.saturating_sub(runs);
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const END: u64 = 1 << 28;

    fn runs(plan: Option<Plan>) -> Vec<core::ops::Range<u64>> {
        plan.map_or_else(Vec::new, |plan| plan.runs(END).collect())
    }

    #[test]
    fn a_sequence_doubles_its_window_and_asks_for_each_page_once() {
        let mut ahead = ReadAhead::default();
        let mut asked = BTreeSet::new();
        let mut longest = 0;
        for page in 0..4000 {
            for run in runs(ahead.note(page, 1, 256, 32)) {
                longest = longest.max(run.end - run.start);
                for page in run {
                    assert!(asked.insert(page), "page {page} twice");
                }
            }
            asked.insert(page);
            let beyond = asked.last().unwrap() - page;
            assert!(beyond <= 256, "{beyond} pages ahead of page {page}");
            assert!(page < 8 || beyond > 0, "nothing under way at page {page}");
        }
        assert!(longest >= 128, "{longest}");
    }

    #[test]
    fn reads_of_less_than_a_page_are_a_sequence_too() {
        let mut ahead = ReadAhead::default();
        let mut asked = 0;
        for at in (0..400_000u64).step_by(1000) {
            let (first, last) = (at / 4096, (at + 999) / 4096);
            for run in runs(ahead.note(first, last - first + 1, 32, 256)) {
                asked = run.end;
            }
            assert!(at < 5000 || asked > last, "nothing under way at byte {at}");
        }
    }

    #[test]
    fn random_accesses_ask_for_nothing() {
        let mut seed = 88_172_645_463_325_252_u64;
        let mut ahead = ReadAhead::default();
        for _ in 0..100_000 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let page = 1 + seed % (1 << 26);
            assert_eq!(ahead.note(page, 1, 256, 256), None, "at page {page}");
        }
    }

    #[test]
    fn strides_are_recognised_in_both_directions() {
        for stride in [10i64, -10, 3, -3] {
            let mut ahead = ReadAhead::default();
            let mut asked = BTreeSet::new();
            let mut missed = 0;
            for n in 0..500 {
                let at = (1_000_000 + stride * n) as u64;
                if !asked.contains(&at) {
                    missed += 1;
                }
                for run in runs(ahead.note(at, 2, 64, 256)) {
                    assert_eq!(run.end - run.start, 2);
                    asked.extend(run);
                }
            }
            assert!(missed <= 4, "stride {stride}: {missed} not foreseen");
            assert!(asked.len() <= 2 * 540, "stride {stride}: {}", asked.len());
        }
    }

    #[test]
    fn reading_backwards_asks_for_whole_runs() {
        let mut ahead = ReadAhead::default();
        let (mut requests, mut lowest) = (0, u64::MAX);
        for n in 0..1000u64 {
            let at = 100_000 - n;
            for run in runs(ahead.note(at, 1, 64, 256)) {
                requests += 1;
                assert!(run.end <= lowest || lowest == u64::MAX);
                lowest = run.start;
            }
            assert!(n < 4 || lowest < at, "nothing under way at page {at}");
        }
        assert!(requests < 60, "{requests}");
    }

    #[test]
    fn the_start_of_the_file_bounds_a_stride() {
        let mut ahead = ReadAhead::default();
        for at in [40, 30, 20, 10, 0] {
            for run in runs(ahead.note(at, 1, 64, 256)) {
                assert!(run.start < 40, "{run:?}");
            }
        }
    }

    #[test]
    fn what_was_not_sent_is_asked_for_again() {
        let mut ahead = ReadAhead::default();
        let plan = ahead.note(0, 4, 64, 256).expect("a plan");
        assert_eq!(runs(Some(plan)).first(), Some(&(4..12)));
        ahead.stopped_at(6, 1);
        assert_eq!(runs(ahead.note(4, 2, 64, 256)).first(), Some(&(6..22)));
    }
}
