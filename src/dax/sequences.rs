//! Call sequences on the window and its model: every short one, then long random
//! ones. After each call both must give the same answer, the ledger must pass
//! its own check, and a refused call must have changed nothing.

extern crate std;

use std::vec::Vec;
use std::{println, vec};

use super::geometry::{Chunk, InodeKey, RangeId, Rights};
use super::model::{Answer, Model, Naive, Op, PAGE, RANGE, Real, key};
use super::range::{Mapping, RangeState};
use super::testing::Random;

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
    let shown = model.ranges.iter().map(|range| match *range {
        Naive::Mapped(_, len, ..) | Naive::Unmapping(_, len, ..) => u64::from(len),
        _ => 0,
    });
    let mapped_bytes = real.window.totals().mapped_bytes;
    assert_eq!(mapped_bytes, shown.sum::<u64>(), "mapped bytes");
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
    let tried = exhaust(&alphabet, 5, 1, 2);
    println!("{tried} sequences");
    assert!(tried > 100_000);
}

#[test]
fn every_way_into_and_out_of_an_unknown_fate_agrees_with_the_model() {
    let alphabet = [
        Op::Map(0, PAGE, Rights::Writable),
        Op::MapOver(0, 1, PAGE),
        Op::CommitMap(0),
        Op::AbortMap(0),
        Op::LoseMap(0),
        Op::Unpin(0),
        Op::Unmap(0),
        Op::LoseUnmap(0),
        Op::Repair(0),
        Op::CommitRepair(0),
        Op::FailRepair(0),
        Op::Reset,
    ];
    let tried = exhaust(&alphabet, 7, 1, 2);
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
