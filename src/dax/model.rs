//! A naive model of the window, and the window behind the same calls.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::geometry::{Chunk, Geometry, InodeKey, RangeId, Rights};
use super::range::{MapToken, Pin, Pinning, Refusal, RemapError, RepairToken, UnmapToken};
use super::window::Window;

pub(super) const RANGE: u32 = 2 << 20;
pub(super) const PAGE: u32 = 4096;

/// A call. Tokens and pins are named by their place in the list of those held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
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
pub(super) enum Answer {
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
pub(super) enum Naive {
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
pub(super) struct Model {
    pub(super) ranges: Vec<Naive>,
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
    pub(super) fn new(count: usize) -> Self {
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

    pub(super) fn find(&self, chunk: u64) -> Option<usize> {
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
    pub(super) fn apply(&mut self, op: Op, taken: Option<usize>) -> Answer {
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
pub(super) struct Real {
    pub(super) window: Window,
    maps: Vec<MapToken>,
    unmaps: Vec<UnmapToken>,
    repairs: Vec<RepairToken>,
    pins: Vec<Pin>,
}

pub(super) fn key(chunk: u64) -> (InodeKey, Chunk) {
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
    pub(super) fn new(count: usize) -> Self {
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

    pub(super) fn apply(&mut self, op: Op) -> Answer {
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
