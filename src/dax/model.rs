//! The window against a naive model: every short call sequence, then long
//! random ones. After each call both must give the same answer, the ledger must
//! pass its own check, and a refused call must have changed nothing.

extern crate std;

use std::vec::Vec;
use std::{println, vec};

use super::geometry::{Chunk, Geometry, InodeKey, RangeId, Rights};
use super::range::{MapToken, Mapping, Pin, Pinning, RangeState, Refusal, RepairToken, UnmapToken};
use super::testing::Random;
use super::window::{RemapError, Window};

const RANGE: u32 = 2 << 20;
const PAGE: u32 = 4096;

/// A call. Tokens and pins are named by their place in the list of those held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Map(u64, u32, Rights),
    MapOver(u32, u64, u32),
    CommitMap(usize),
    AbortMap(usize),
    LoseMap(usize),
    Pin(u64, u32, Rights),
    Unpin(usize),
    Unmap(u32),
    CommitUnmap(usize),
    LoseUnmap(usize),
    CancelUnmap(usize),
    Remap(usize, u32, Rights),
    Repair(u32),
    CommitRepair(usize),
    FailRepair(usize),
    Limit(usize),
    Reset,
}

/// What a call came to, in words that both sides can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Done,
    Range(u32),
    Refused(Refusal),
    Stale,
    Absent,
    Busy,
    TooShort,
    ReadOnly,
    Left(u32),
    NoToken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naive {
    Free,
    Mapping(u64, u32, Rights, Option<u32>, u64),
    Mapped(u64, u32, Rights, u32),
    Unmapping(u64, u32, Rights, u64),
    Unknown(u32),
    Repairing(u32, u64),
    Orphaned(u32),
}

/// The model: no index, no free list (it is told which free range was taken),
/// searching everything each time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    ranges: Vec<Naive>,
    limit: usize,
    steps: u64,
    maps: Vec<(usize, u64)>,
    unmaps: Vec<(usize, u64)>,
    repairs: Vec<(usize, u64)>,
    pins: Vec<usize>,
}

fn take<T>(list: &mut Vec<T>, at: usize) -> Option<T> {
    (at < list.len()).then(|| list.remove(at))
}

impl Model {
    fn new(count: usize) -> Self {
        Self {
            ranges: vec![Naive::Free; count],
            limit: count,
            steps: 0,
            maps: vec![],
            unmaps: vec![],
            repairs: vec![],
            pins: vec![],
        }
    }

    fn find(&self, chunk: u64) -> Option<usize> {
        self.ranges.iter().position(|range| {
            matches!(*range, Naive::Mapping(c, ..) | Naive::Mapped(c, ..) | Naive::Unmapping(c, ..)
                if c == chunk)
        })
    }

    fn vet(&self, chunk: u64, len: u32) -> Option<Answer> {
        if len == 0 || len > RANGE || !len.is_multiple_of(PAGE) {
            return Some(Answer::Refused(Refusal::Length));
        }
        let range = self.find(chunk)?;
        Some(Answer::Refused(Refusal::Present(RangeId::from_index(
            range as u32,
        ))))
    }

    /// `taken` is the free range that the window chose, if it chose one.
    fn apply(&mut self, op: Op, taken: Option<usize>) -> Answer {
        self.steps += 1;
        let step = self.steps;
        match op {
            Op::Map(chunk, len, rights) => {
                if let Some(refused) = self.vet(chunk, len) {
                    return refused;
                }
                let free = self.ranges.iter().filter(|&&r| r == Naive::Free).count();
                if free == 0 || self.ranges.len() - free >= self.limit {
                    return Answer::Refused(Refusal::NoFreeRange);
                }
                let at = taken.expect("a range is free, so one is taken");
                assert_eq!(self.ranges[at], Naive::Free, "took a range in use");
                self.ranges[at] = Naive::Mapping(chunk, len, rights, None, step);
                self.maps.push((at, step));
                Answer::Range(at as u32)
            }
            Op::MapOver(range, chunk, len) => {
                if let Some(refused) = self.vet(chunk, len) {
                    return refused;
                }
                match self.ranges.get(range as usize) {
                    None => Answer::Refused(Refusal::NoSuchRange),
                    Some(&Naive::Unknown(old)) if old == len => {
                        self.ranges[range as usize] =
                            Naive::Mapping(chunk, len, Rights::Writable, Some(old), step);
                        self.maps.push((range as usize, step));
                        Answer::Range(range)
                    }
                    Some(Naive::Unknown(_)) => Answer::Refused(Refusal::Length),
                    Some(_) => Answer::Refused(Refusal::State),
                }
            }
            Op::CommitMap(at) | Op::AbortMap(at) | Op::LoseMap(at) => {
                let Some((at, serial)) = take(&mut self.maps, at) else {
                    return Answer::NoToken;
                };
                let Naive::Mapping(chunk, len, rights, over, now) = self.ranges[at] else {
                    return Answer::Stale;
                };
                if now != serial {
                    return Answer::Stale;
                }
                self.ranges[at] = match op {
                    Op::CommitMap(_) => {
                        self.pins.push(at);
                        Naive::Mapped(chunk, len, rights, 1)
                    }
                    Op::AbortMap(_) => over.map_or(Naive::Free, Naive::Unknown),
                    _ => Naive::Unknown(len),
                };
                Answer::Done
            }
            Op::Pin(chunk, len, rights) => {
                let Some(at) = self.find(chunk) else {
                    return Answer::Absent;
                };
                match &mut self.ranges[at] {
                    Naive::Mapped(_, have, ..) if *have < len => Answer::TooShort,
                    Naive::Mapped(_, _, have, _) if *have < rights => Answer::ReadOnly,
                    Naive::Mapped(_, _, _, pins) => {
                        *pins += 1;
                        self.pins.push(at);
                        Answer::Range(at as u32)
                    }
                    _ => Answer::Busy,
                }
            }
            Op::Unpin(at) => {
                let Some(at) = take(&mut self.pins, at) else {
                    return Answer::NoToken;
                };
                let (Naive::Mapped(_, _, _, pins) | Naive::Orphaned(pins)) = &mut self.ranges[at]
                else {
                    panic!("the model lost a pinned range");
                };
                *pins -= 1;
                let left = *pins;
                if self.ranges[at] == Naive::Orphaned(0) {
                    self.ranges[at] = Naive::Free;
                }
                Answer::Left(left)
            }
            Op::Unmap(range) => match self.ranges.get(range as usize) {
                None => Answer::Refused(Refusal::NoSuchRange),
                Some(&Naive::Mapped(chunk, len, rights, 0)) => {
                    self.ranges[range as usize] = Naive::Unmapping(chunk, len, rights, step);
                    self.unmaps.push((range as usize, step));
                    Answer::Range(range)
                }
                Some(Naive::Mapped(..)) => Answer::Refused(Refusal::Pinned),
                Some(_) => Answer::Refused(Refusal::State),
            },
            Op::CommitUnmap(at) | Op::LoseUnmap(at) | Op::CancelUnmap(at) | Op::Remap(at, ..) => {
                let Some(&(range, serial)) = self.unmaps.get(at) else {
                    return Answer::NoToken;
                };
                if let Op::Remap(_, len, _) = op
                    && (len == 0 || len > RANGE || !len.is_multiple_of(PAGE))
                {
                    return Answer::Refused(Refusal::Length);
                }
                self.unmaps.remove(at);
                let Naive::Unmapping(chunk, len, rights, now) = self.ranges[range] else {
                    return Answer::Stale;
                };
                if now != serial {
                    return Answer::Stale;
                }
                self.ranges[range] = match op {
                    Op::CommitUnmap(_) => Naive::Free,
                    Op::LoseUnmap(_) => Naive::Unknown(len),
                    Op::Remap(_, len, rights) => {
                        self.maps.push((range, step));
                        Naive::Mapping(chunk, len, rights, None, step)
                    }
                    _ => Naive::Mapped(chunk, len, rights, 0),
                };
                Answer::Done
            }
            Op::Repair(range) => match self.ranges.get(range as usize) {
                None => Answer::Refused(Refusal::NoSuchRange),
                Some(&Naive::Unknown(len)) => {
                    self.ranges[range as usize] = Naive::Repairing(len, step);
                    self.repairs.push((range as usize, step));
                    Answer::Range(range)
                }
                Some(_) => Answer::Refused(Refusal::State),
            },
            Op::CommitRepair(at) | Op::FailRepair(at) => {
                let Some((range, serial)) = take(&mut self.repairs, at) else {
                    return Answer::NoToken;
                };
                match self.ranges[range] {
                    Naive::Repairing(len, now) if now == serial => {
                        self.ranges[range] = match op {
                            Op::CommitRepair(_) => Naive::Free,
                            _ => Naive::Unknown(len),
                        };
                        Answer::Done
                    }
                    _ => Answer::Stale,
                }
            }
            Op::Limit(limit) => {
                self.limit = limit.clamp(1, self.ranges.len());
                Answer::Done
            }
            Op::Reset => {
                self.limit = self.ranges.len();
                for range in &mut self.ranges {
                    *range = match *range {
                        Naive::Mapped(_, _, _, pins @ 1..) | Naive::Orphaned(pins) => {
                            Naive::Orphaned(pins)
                        }
                        _ => Naive::Free,
                    };
                }
                Answer::Done
            }
        }
    }
}

/// The window with the tokens and pins it gave out.
struct Real {
    window: Window,
    maps: Vec<MapToken>,
    unmaps: Vec<UnmapToken>,
    repairs: Vec<RepairToken>,
    pins: Vec<Pin>,
}

fn key(chunk: u64) -> (InodeKey, Chunk) {
    (InodeKey(chunk / 2), Chunk(chunk % 2))
}

fn settle<T, E>(outcome: Option<Result<T, E>>, keep: impl FnOnce(T)) -> Answer {
    match outcome {
        None => Answer::NoToken,
        Some(Err(_)) => Answer::Stale,
        Some(Ok(value)) => {
            keep(value);
            Answer::Done
        }
    }
}

impl Real {
    fn new(count: usize) -> Self {
        let geometry = Geometry::new(count as u64 * u64::from(RANGE), 0).expect("some ranges");
        Self {
            window: Window::new(geometry),
            maps: vec![],
            unmaps: vec![],
            repairs: vec![],
            pins: vec![],
        }
    }

    fn mapped_by(&mut self, outcome: Result<MapToken, Refusal>) -> Answer {
        match outcome {
            Err(refusal) => Answer::Refused(refusal),
            Ok(token) => {
                let range = token.range.index() as u32;
                self.maps.push(token);
                Answer::Range(range)
            }
        }
    }

    fn apply(&mut self, op: Op) -> Answer {
        let w = &mut self.window;
        match op {
            Op::Map(chunk, len, rights) => {
                let outcome = w.begin_map(key(chunk).0, key(chunk).1, len, rights);
                self.mapped_by(outcome)
            }
            Op::MapOver(range, chunk, len) => {
                let (inode, chunk) = key(chunk);
                let range = RangeId::from_index(range);
                let outcome = w.begin_map_over(range, inode, chunk, len, Rights::Writable);
                self.mapped_by(outcome)
            }
            Op::CommitMap(at) => settle(take(&mut self.maps, at).map(|t| w.commit_map(t)), |pin| {
                self.pins.push(pin)
            }),
            Op::AbortMap(at) => settle(take(&mut self.maps, at).map(|t| w.abort_map(t)), drop),
            Op::LoseMap(at) => settle(take(&mut self.maps, at).map(|t| w.lose_map(t)), drop),
            Op::Pin(chunk, len, rights) => match w.pin(key(chunk).0, key(chunk).1, len, rights) {
                Pinning::Pinned(pin) => {
                    let range = pin.range.index() as u32;
                    self.pins.push(pin);
                    Answer::Range(range)
                }
                Pinning::Absent => Answer::Absent,
                Pinning::Busy(_) => Answer::Busy,
                Pinning::TooShort(_) => Answer::TooShort,
                Pinning::ReadOnly(_) => Answer::ReadOnly,
            },
            Op::Unpin(at) => {
                take(&mut self.pins, at).map_or(Answer::NoToken, |pin| Answer::Left(w.unpin(pin)))
            }
            Op::Unmap(range) => match w.begin_unmap(RangeId::from_index(range)) {
                Err(refusal) => Answer::Refused(refusal),
                Ok(token) => {
                    self.unmaps.push(token);
                    Answer::Range(range)
                }
            },
            Op::CommitUnmap(at) => {
                settle(take(&mut self.unmaps, at).map(|t| w.commit_unmap(t)), drop)
            }
            Op::LoseUnmap(at) => settle(take(&mut self.unmaps, at).map(|t| w.lose_unmap(t)), drop),
            Op::CancelUnmap(at) => {
                settle(take(&mut self.unmaps, at).map(|t| w.cancel_unmap(t)), drop)
            }
            Op::Remap(at, len, rights) => match take(&mut self.unmaps, at) {
                None => Answer::NoToken,
                Some(token) => match w.remap(token, len, rights) {
                    Ok(token) => {
                        self.maps.push(token);
                        Answer::Done
                    }
                    Err(RemapError::Stale) => Answer::Stale,
                    Err(RemapError::Length(token)) => {
                        self.unmaps.insert(at, token);
                        Answer::Refused(Refusal::Length)
                    }
                },
            },
            Op::Repair(range) => match w.begin_repair(RangeId::from_index(range)) {
                Err(refusal) => Answer::Refused(refusal),
                Ok(token) => {
                    self.repairs.push(token);
                    Answer::Range(range)
                }
            },
            Op::CommitRepair(at) => settle(
                take(&mut self.repairs, at).map(|t| w.commit_repair(t)),
                drop,
            ),
            Op::FailRepair(at) => {
                settle(take(&mut self.repairs, at).map(|t| w.fail_repair(t)), drop)
            }
            Op::Limit(limit) => {
                w.limit_live(limit);
                Answer::Done
            }
            Op::Reset => {
                w.reset();
                Answer::Done
            }
        }
    }
}

fn same(real: RangeState, pins: u32, naive: Naive) -> bool {
    let shows = |mapping: Mapping, chunk, len, rights| {
        let (inode, chunk) = key(chunk);
        mapping
            == Mapping {
                inode,
                chunk,
                len,
                rights,
            }
    };
    match (real, naive) {
        (RangeState::Free, Naive::Free) => pins == 0,
        (RangeState::Mapping { mapping, over }, Naive::Mapping(c, l, r, o, _)) => {
            shows(mapping, c, l, r) && over == o && pins == 0
        }
        (RangeState::Mapped(mapping), Naive::Mapped(c, l, r, p)) => {
            shows(mapping, c, l, r) && pins == p
        }
        (RangeState::Unmapping(mapping), Naive::Unmapping(c, l, r, _)) => shows(mapping, c, l, r),
        (RangeState::Unknown(a), Naive::Unknown(b)) => a == b,
        (RangeState::Repairing(a), Naive::Repairing(b, _)) => a == b,
        (RangeState::Orphaned, Naive::Orphaned(p)) => pins == p,
        _ => false,
    }
}

/// Applies `op` to both and compares everything. Says whether it did something.
fn step(real: &mut Real, model: &mut Model, op: Op, chunks: u64) -> bool {
    let answer = real.apply(op);
    let taken = match answer {
        Answer::Range(range) => Some(range as usize),
        _ => None,
    };
    let before = model.ranges.clone();
    let expected = model.apply(op, taken);
    assert_eq!(answer, expected, "{op:?}");
    if matches!(answer, Answer::Refused(_) | Answer::Stale) {
        assert_eq!(before, model.ranges, "the model changed on a refusal");
    }
    real.window.check();
    for (at, &naive) in model.ranges.iter().enumerate() {
        let range = RangeId::from_index(at as u32);
        let state = real.window.state(range).expect("range exists");
        let pins = real.window.pins(range);
        assert!(
            same(state, pins, naive),
            "{op:?}: {state:?} {pins} vs {naive:?}"
        );
    }
    for inode in 0..chunks.div_ceil(2) {
        let listed: Vec<_> = real.window.of_inode(InodeKey(inode), Chunk(0)).collect();
        let searched: Vec<_> = (0..2)
            .filter_map(|c| {
                let at = model.find(inode * 2 + c)?;
                Some((Chunk(c), RangeId::from_index(at as u32)))
            })
            .collect();
        assert_eq!(listed, searched, "ordered map of an inode");
    }
    answer != Answer::NoToken
}

fn replay(ops: &[Op], count: usize, chunks: u64) -> bool {
    let (mut real, mut model) = (Real::new(count), Model::new(count));
    let (last, first) = ops.split_last().expect("at least one call");
    for &op in first {
        real.apply(op);
        // The prefix was compared when it was the whole; only follow it here.
        let taken = match op {
            Op::Map(chunk, ..) => real
                .window
                .find(key(chunk).0, key(chunk).1)
                .map(RangeId::index),
            _ => None,
        };
        model.apply(op, taken);
    }
    step(&mut real, &mut model, *last, chunks)
}

fn exhaust(alphabet: &[Op], depth: usize, count: usize, chunks: u64) -> usize {
    fn deeper(
        ops: &mut Vec<Op>,
        alphabet: &[Op],
        depth: usize,
        count: usize,
        chunks: u64,
    ) -> usize {
        let mut tried = 0;
        for &op in alphabet {
            ops.push(op);
            // A call without its token is a call that cannot be written.
            if replay(ops, count, chunks) {
                tried += 1;
                if ops.len() < depth {
                    tried += deeper(ops, alphabet, depth, count, chunks);
                }
            }
            ops.pop();
        }
        tried
    }
    deeper(&mut vec![], alphabet, depth, count, chunks)
}

#[test]
fn every_short_sequence_on_one_range_agrees_with_the_model() {
    let w = Rights::Writable;
    let alphabet = [
        Op::Map(0, PAGE, Rights::ReadOnly),
        Op::Map(1, RANGE, w),
        Op::MapOver(0, 1, PAGE),
        Op::CommitMap(0),
        Op::AbortMap(0),
        Op::LoseMap(0),
        Op::Pin(0, PAGE, Rights::ReadOnly),
        Op::Pin(0, PAGE, w),
        Op::Pin(0, PAGE + 1, Rights::ReadOnly),
        Op::Unpin(0),
        Op::Unmap(0),
        Op::Unmap(1),
        Op::CommitUnmap(0),
        Op::LoseUnmap(0),
        Op::CancelUnmap(0),
        Op::Remap(0, RANGE, w),
        Op::Remap(0, 0, w),
        Op::Repair(0),
        Op::CommitRepair(0),
        Op::FailRepair(0),
        Op::Reset,
    ];
    let tried = exhaust(&alphabet, 6, 1, 2);
    println!("{tried} sequences");
    assert!(tried > 100_000);
}

#[test]
fn every_short_sequence_on_two_ranges_agrees_with_the_model() {
    let w = Rights::Writable;
    let alphabet = [
        Op::Map(0, RANGE, w),
        Op::Map(1, RANGE, w),
        Op::Map(2, RANGE, w),
        Op::MapOver(1, 2, RANGE),
        Op::CommitMap(0),
        Op::CommitMap(1),
        Op::LoseMap(0),
        Op::Pin(1, 1, w),
        Op::Unpin(0),
        Op::Unmap(0),
        Op::Unmap(1),
        Op::CommitUnmap(0),
        Op::LoseUnmap(0),
        Op::Limit(1),
        Op::Reset,
    ];
    let tried = exhaust(&alphabet, 5, 2, 3);
    println!("{tried} sequences");
    assert!(tried > 100_000);
}

#[test]
fn long_random_sequences_agree_with_the_model() {
    for (seed, count) in [(0x5eed_0101, 1), (0x5eed_0102, 3), (0x5eed_0103, 8)] {
        println!("seed {seed:#x}, {count} ranges");
        let mut random = Random(seed);
        let (mut real, mut model) = (Real::new(count), Model::new(count));
        let chunks = 2 * count as u64 + 1;
        let lens = [PAGE, RANGE, RANGE, RANGE, 0, PAGE + 1, RANGE + PAGE];
        for _ in 0..60_000 {
            let chunk = random.below(chunks);
            let range = random.below(count as u64 + 1) as u32;
            let len = lens[random.below(7) as usize];
            let rights = [Rights::ReadOnly, Rights::Writable][random.below(2) as usize];
            let at = random.below(3) as usize;
            let op = match random.below(200) {
                0..60 => Op::Map(chunk, len, rights),
                60..65 => Op::MapOver(range, chunk, len),
                65..90 => Op::CommitMap(at),
                90..95 => Op::AbortMap(at),
                95..100 => Op::LoseMap(at),
                100..115 => Op::Pin(chunk, len, rights),
                115..145 => Op::Unpin(at),
                145..165 => Op::Unmap(range),
                165..173 => Op::CommitUnmap(at),
                173..177 => Op::LoseUnmap(at),
                177..181 => Op::CancelUnmap(at),
                181..187 => Op::Remap(at, len, rights),
                187..191 => Op::Repair(range),
                191..194 => Op::CommitRepair(at),
                194..197 => Op::FailRepair(at),
                197..199 => Op::Limit(random.below(count as u64 + 2) as usize),
                _ => Op::Reset,
            };
            step(&mut real, &mut model, op, chunks);
        }
        // Nothing is ever lost: a reset and the last unpin free every range.
        real.apply(Op::Reset);
        while real.apply(Op::Unpin(0)) != Answer::NoToken {}
        assert_eq!(real.window.totals().free, count, "a range was lost");
        real.window.check();
    }
}
