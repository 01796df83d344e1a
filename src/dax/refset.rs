//! Reference counts over byte ranges, with exact accounting.
//!
//! Used for the pages of window ranges that page tables or long pins hold:
//! counts are finer than a range, and a count of zero is a gap. Semantics as in
//! requirements S2-19 to S2-23.
//!
//! # Invariants
//! - Segments are not empty, do not overlap, and count at least one.
//! - Neighbours that touch have different counts.
//! - `covered` is the sum of the segments' lengths.

use alloc::collections::BTreeMap;
use core::ops::Range;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    end: u64,
    count: u32,
}

/// Why a change was refused. A refused change changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefError {
    /// Some byte of the range has no reference to give up.
    NotReferenced,
    /// Some byte of the range has as many references as can be counted.
    Overflow,
}

/// A count for each byte of a `u64` space, kept as segments of equal count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefSet {
    segments: BTreeMap<u64, Segment>,
    covered: u64,
}

impl RefSet {
    /// Makes a set in which nothing is referenced. Allocates nothing yet.
    pub const fn new() -> Self {
        Self {
            segments: BTreeMap::new(),
            covered: 0,
        }
    }

    /// Returns the number of bytes with at least one reference.
    pub const fn covered(&self) -> u64 {
        self.covered
    }

    /// Says whether nothing is referenced.
    pub const fn is_empty(&self) -> bool {
        self.covered == 0
    }

    /// Returns the segments that touch `range`, cut to it, in order, with their counts.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (Range<u64>, u32)> + '_ {
        let first = self
            .segments
            .range(..=range.start)
            .next_back()
            .filter(|(_, segment)| segment.end > range.start)
            .map_or(range.start, |(&start, _)| start);
        let last = range.end.max(first);
        self.segments
            .range(first..last)
            .map(move |(&start, segment)| {
                let cut = start.max(range.start)..segment.end.min(range.end);
                (cut, segment.count)
            })
    }

    /// Says whether any byte of `range` is referenced.
    pub fn touches(&self, range: Range<u64>) -> bool {
        self.overlapping(range).next().is_some()
    }

    /// Adds a reference to each byte of `range`. Returns how many bytes had none
    /// before.
    ///
    /// # Errors
    /// `Overflow`.
    pub fn inc(&mut self, range: Range<u64>) -> Result<u64, RefError> {
        if range.is_empty() {
            return Ok(0);
        }
        if self
            .overlapping(range.clone())
            .any(|(_, count)| count == u32::MAX)
        {
            return Err(RefError::Overflow);
        }
        self.isolate(&range);
        let mut added = 0;
        let mut at = range.start;
        while at < range.end {
            if let Some(segment) = self.segments.get_mut(&at) {
                segment.count += 1;
                at = segment.end;
                continue;
            }
            let next = self.segments.range(at..range.end).next();
            let end = next.map_or(range.end, |(&start, _)| start);
            self.segments.insert(at, Segment { end, count: 1 });
            added += end - at;
            at = end;
        }
        self.covered += added;
        self.merge(&range);
        Ok(added)
    }

    /// Takes a reference from each byte of `range`. Returns how many bytes have
    /// none any more.
    ///
    /// # Errors
    /// `NotReferenced`.
    pub fn dec(&mut self, range: Range<u64>) -> Result<u64, RefError> {
        if range.is_empty() {
            return Ok(0);
        }
        let referenced: u64 = self
            .overlapping(range.clone())
            .map(|(cut, _)| cut.end - cut.start)
            .sum();
        if referenced != range.end - range.start {
            return Err(RefError::NotReferenced);
        }
        self.isolate(&range);
        let mut removed = 0;
        let mut at = range.start;
        while let Some(segment) = self.segments.get_mut(&at).filter(|_| at < range.end) {
            let end = segment.end;
            segment.count -= 1;
            if segment.count == 0 {
                self.segments.remove(&at);
                removed += end - at;
            }
            at = end;
        }
        self.covered -= removed;
        self.merge(&range);
        Ok(removed)
    }

    /// Drops every reference to bytes of `range`. Returns how many bytes had one.
    pub fn clear(&mut self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        self.isolate(&range);
        let mut removed = 0;
        while let Some((&start, segment)) = self.segments.range(range.clone()).next() {
            removed += segment.end - start;
            self.segments.remove(&start);
        }
        self.covered -= removed;
        removed
    }

    /// Splits the segments that reach across the ends of `range`. Both halves
    /// keep the count.
    fn isolate(&mut self, range: &Range<u64>) {
        for at in [range.start, range.end] {
            let Some((_, segment)) = self.segments.range_mut(..at).next_back() else {
                continue;
            };
            if segment.end > at {
                let tail = *segment;
                segment.end = at;
                self.segments.insert(at, tail);
            }
        }
    }

    /// Joins touching segments of equal count in `range` and at its ends.
    fn merge(&mut self, range: &Range<u64>) {
        let before = self.segments.range(..range.start).next_back();
        let mut at = before.map_or(range.start, |(&start, _)| start);
        while at <= range.end {
            let Some((&start, &segment)) = self.segments.range(at..=range.end).next() else {
                return;
            };
            at = segment.end;
            let next = self.segments.get(&segment.end).copied();
            if let Some(next) = next.filter(|next| next.count == segment.count) {
                self.segments.remove(&segment.end);
                self.segments.insert(start, next);
                at = start;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    impl RefSet {
        fn check(&self) {
            let mut covered = 0;
            let mut last: Option<Segment> = None;
            for (&start, &segment) in &self.segments {
                assert!(start < segment.end && segment.count > 0);
                if let Some(last) = last {
                    assert!(last.end <= start, "overlap");
                    assert!(last.end < start || last.count != segment.count, "unmerged");
                }
                covered += segment.end - start;
                last = Some(segment);
            }
            assert_eq!(covered, self.covered);
        }
    }

    const SPACE: usize = 5;

    /// One counter per byte.
    fn apply(model: &mut [u32; SPACE], op: u8, range: Range<u64>) -> Result<u64, RefError> {
        let bytes = &mut model[range.start as usize..range.end as usize];
        let before = bytes.iter().filter(|&&count| count > 0).count();
        match op {
            0 => bytes.iter_mut().for_each(|count| *count += 1),
            1 if before < bytes.len() => return Err(RefError::NotReferenced),
            1 => bytes.iter_mut().for_each(|count| *count -= 1),
            _ => bytes.fill(0),
        }
        let after = bytes.iter().filter(|&&count| count > 0).count();
        Ok(before.abs_diff(after) as u64)
    }

    fn step(set: &mut RefSet, model: &mut [u32; SPACE], op: u8, range: Range<u64>) {
        let expected = apply(model, op, range.clone());
        let was = set.clone();
        let got = match op {
            0 => set.inc(range),
            1 => set.dec(range),
            _ => Ok(set.clear(range)),
        };
        assert_eq!(got, expected);
        if got.is_err() {
            assert_eq!(*set, was, "a refused change changed something");
        }
        set.check();
        let counts: Vec<u32> = (0..SPACE as u64)
            .map(|at| {
                set.overlapping(at..at + 1)
                    .next()
                    .map_or(0, |(_, count)| count)
            })
            .collect();
        assert_eq!(counts, model.as_slice());
        assert_eq!(set.touches(0..SPACE as u64), model.iter().any(|&c| c > 0));
    }

    #[test]
    fn all_short_sequences_agree_with_one_counter_per_byte() {
        let ranges: Vec<Range<u64>> = (0..SPACE as u64)
            .flat_map(|start| (start..=SPACE as u64).map(move |end| start..end))
            .collect();
        fn deeper(set: &RefSet, model: [u32; SPACE], ranges: &[Range<u64>], depth: usize) {
            for op in 0..3 {
                for range in ranges {
                    let (mut set, mut model) = (set.clone(), model);
                    step(&mut set, &mut model, op, range.clone());
                    if depth > 1 {
                        deeper(&set, model, ranges, depth - 1);
                    }
                }
            }
        }
        deeper(&RefSet::new(), [0; SPACE], &ranges, 3);
    }

    #[test]
    fn long_random_sequences_agree_with_one_counter_per_byte() {
        let seed = 0x5eed_0001_u64;
        std::println!("seed {seed:#x}");
        let mut random = crate::dax::testing::Random(seed);
        let (mut set, mut model) = (RefSet::new(), [0; SPACE]);
        for _ in 0..100_000 {
            let (a, b) = (random.below(6), random.below(6));
            let op = [0, 0, 0, 0, 1, 1, 1, 1, 1, 2][random.below(10) as usize];
            step(&mut set, &mut model, op, a.min(b)..a.max(b));
        }
    }

    #[test]
    fn count_does_not_wrap() {
        let mut set = RefSet::new();
        let full = Segment {
            end: 8,
            count: u32::MAX,
        };
        set.segments.insert(4, full);
        set.covered = 4;
        let was = set.clone();
        assert_eq!(set.inc(0..5), Err(RefError::Overflow));
        assert_eq!(set, was);
    }

    #[test]
    fn ends_of_the_space_are_reachable() {
        let mut set = RefSet::new();
        assert_eq!(set.inc(0..u64::MAX), Ok(u64::MAX));
        assert_eq!(set.dec(1..2), Ok(1));
        assert_eq!(set.overlapping(0..u64::MAX).count(), 2);
        assert_eq!(set.clear(0..u64::MAX), u64::MAX - 1);
        assert!(set.is_empty());
    }
}
