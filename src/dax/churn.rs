//! The pool and its policy under random use, with every way a request can end.
//! The policy must list exactly the ranges that are mapped, and nothing may be
//! lost.

extern crate std;

use std::println;
use std::vec::Vec;

use super::geometry::{Chunk, Geometry, InodeKey, RangeId, Rights};
use super::policy::{Access, Costs, Kind};
use super::pool::{Pool, Step};
use super::range::{MapToken, Pin, RangeState, RemapError, UnmapToken};
use super::reclaim::Reclaim;
use super::testing::Random;
use super::window::Window;

const RANGE: u32 = 2 << 20;

/// Requests under way and pins held, as the glue would have them.
struct Glue {
    pool: Pool<Reclaim>,
    random: Random,
    maps: Vec<(MapToken, Access)>,
    evictions: Vec<(UnmapToken, Access)>,
    remaps: Vec<(UnmapToken, Access)>,
    pins: Vec<Pin>,
}

impl Glue {
    fn new(ranges: usize, seed: u64) -> Self {
        println!("seed {seed:#x}, {ranges} ranges");
        let window_len = ranges as u64 * u64::from(RANGE);
        let geometry = Geometry::new(window_len, 0).expect("some ranges");
        Self {
            pool: Pool::new(Window::new(geometry), Reclaim::new(ranges, Costs::MEASURED)),
            random: Random(seed),
            maps: Vec::new(),
            evictions: Vec::new(),
            remaps: Vec::new(),
            pins: Vec::new(),
        }
    }

    fn pick<T>(random: &mut Random, list: &mut Vec<T>) -> Option<T> {
        let at = random.below(list.len().max(1) as u64) as usize;
        (at < list.len()).then(|| list.swap_remove(at))
    }

    fn access(&mut self, ranges: u64) -> Access {
        let pages = u64::from(RANGE / 4096);
        // Files grow: some chunks are short at times.
        let chunk_len = [RANGE, RANGE, RANGE, 8192][self.random.below(4) as usize];
        let kinds = [Kind::Copy, Kind::Copy, Kind::Fault];
        Access {
            inode: InodeKey(self.random.below(2)),
            chunk: Chunk(self.random.below(ranges)),
            at: (self.random.below(pages) as u32 * 4096).min(chunk_len - 4096),
            len: 4096,
            chunk_len,
            kind: kinds[self.random.below(3) as usize],
            run: [0, 0, 4096, u64::from(RANGE)][self.random.below(4) as usize],
        }
    }

    fn follow(&mut self, step: Step, access: Access) {
        match step {
            Step::Use(pin) => self.pins.push(pin),
            Step::Map(token) => self.maps.push((token, access)),
            Step::Evict(token) => self.evictions.push((token, access)),
            Step::Remap(token) => self.remaps.push((token, access)),
            Step::Request => assert_eq!(access.kind, Kind::Copy),
            Step::Wait => assert_eq!(access.kind, Kind::Fault),
        }
    }

    fn end_map(&mut self) {
        let Some((token, access)) = Self::pick(&mut self.random, &mut self.maps) else {
            return;
        };
        match self.random.below(8) {
            0 => drop(self.pool.window_mut().abort_map(token)),
            1 => drop(self.pool.window_mut().lose_map(token)),
            2 => drop(self.pool.commit_ahead(token)),
            _ => self.pins.extend(self.pool.commit_map(token, &access)),
        }
    }

    fn end_unmap(&mut self) {
        if let Some((token, access)) = Self::pick(&mut self.random, &mut self.evictions) {
            match self.random.below(6) {
                0 => drop(self.pool.window_mut().lose_unmap(token)),
                1 => drop(self.pool.cancel_unmap(token)),
                _ => {
                    // Stale after a reset; the claim then finds free ranges.
                    let _ = self.pool.window_mut().commit_unmap(token);
                    let step = self.pool.claim(&access, Rights::Writable);
                    self.follow(step, access);
                }
            }
        }
        if let Some((token, access)) = Self::pick(&mut self.random, &mut self.remaps) {
            match self.pool.remap(token, access.chunk_len, Rights::Writable) {
                Ok(token) => self.maps.push((token, access)),
                Err(RemapError::Length(_)) => panic!("chunk lengths are possible"),
                Err(RemapError::Stale) => {}
            }
        }
    }

    fn repair(&mut self) {
        let window = self.pool.window_mut();
        let Some(range) = window.next_unknown(0) else {
            return;
        };
        let token = window.begin_repair(range).expect("it is unknown");
        if self.random.below(2) == 0 {
            window.commit_repair(token).expect("same session");
        } else {
            window.fail_repair(token).expect("same session");
        }
    }

    fn step(&mut self, ranges: u64) {
        match self.random.below(100) {
            0..50 => {
                let access = self.access(ranges);
                let rights = [Rights::ReadOnly, Rights::Writable];
                let rights = rights[self.random.below(2) as usize];
                let step = self.pool.access(&access, rights);
                if matches!(step, Step::Use(_))
                    && let Some(step) = self.pool.ahead(&access, RANGE, rights)
                {
                    let mut next = access;
                    next.chunk = Chunk(access.chunk.0 + 1);
                    next.kind = Kind::Copy;
                    next.chunk_len = RANGE;
                    self.follow(step, next);
                }
                self.follow(step, access);
            }
            50..65 => self.end_map(),
            65..75 => self.end_unmap(),
            75..92 => {
                if let Some(pin) = Self::pick(&mut self.random, &mut self.pins) {
                    self.pool.window_mut().unpin(pin);
                }
            }
            92..96 => self.repair(),
            96..99 => {
                let odd = self.random.below(2) as usize;
                if let Some(token) = self.pool.shed(&mut |range| range.index() % 2 == odd) {
                    self.pool
                        .window_mut()
                        .commit_unmap(token)
                        .expect("session lives");
                }
            }
            _ if self.random.below(20) == 0 => self.pool.reset(),
            _ => {}
        }
        self.check();
    }

    fn check(&mut self) {
        self.pool.window().check();
        let mapped: Vec<bool> = {
            let window = self.pool.window();
            let is_mapped = |range| matches!(window.state(range), Some(RangeState::Mapped(_)));
            window.geometry().ranges().map(is_mapped).collect()
        };
        self.pool.policy_mut().check(&mapped);
    }
}

#[test]
fn nothing_is_lost_whatever_requests_come_to() {
    for (ranges, seed) in [(1, 0x5eed_0401), (3, 0x5eed_0402), (40, 0x5eed_0403)] {
        let mut glue = Glue::new(ranges, seed);
        for _ in 0..20_000 {
            glue.step(2 * ranges as u64);
        }
        let counters = glue.pool.counters();
        assert!(counters.hits > 0 && counters.maps > 0 && counters.evictions > 0);
        glue.pool.reset();
        for pin in core::mem::take(&mut glue.pins) {
            glue.pool.window_mut().unpin(pin);
        }
        assert_eq!(glue.pool.window().totals().free, ranges, "a range was lost");
        glue.check();
    }
}

/// Finishes a step at once, successfully. Says whether it went by the window.
fn finish(pool: &mut Pool<Reclaim>, access: &Access) -> bool {
    let mut step = pool.access(access, Rights::Writable);
    loop {
        step = match step {
            Step::Use(pin) => {
                pool.window_mut().unpin(pin);
                return true;
            }
            Step::Map(token) => Step::Use(pool.commit_map(token, access).expect("session lives")),
            Step::Evict(token) => {
                pool.window_mut()
                    .commit_unmap(token)
                    .expect("session lives");
                pool.claim(access, Rights::Writable)
            }
            Step::Remap(token) => {
                let len = access.chunk_len;
                Step::Map(
                    pool.remap(token, len, Rights::Writable)
                        .expect("session lives"),
                )
            }
            Step::Request | Step::Wait => return false,
        };
    }
}

fn page(chunk: u64, kind: Kind) -> Access {
    Access {
        inode: InodeKey(1),
        chunk: Chunk(chunk),
        at: 0,
        len: 4096,
        chunk_len: RANGE,
        kind,
        run: 0,
    }
}

#[test]
fn second_access_sends_nothing() {
    let mut pool = Glue::new(4, 1).pool;
    assert!(finish(&mut pool, &page(0, Kind::Copy)));
    assert!(finish(&mut pool, &page(0, Kind::Copy)));
    let counters = pool.counters();
    assert_eq!((counters.maps, counters.hits, counters.requests), (1, 1, 0));
}

#[test]
fn sparse_reads_of_more_than_the_window_go_by_request() {
    let mut pool = Glue::new(4, 2).pool;
    for round in 0..50 {
        for chunk in 0..16 {
            finish(&mut pool, &page((chunk * 5 + round) % 16, Kind::Copy));
        }
    }
    let counters = pool.counters();
    assert!(counters.maps <= 8, "{counters:?}");
    assert!(counters.hits > 100, "{counters:?}");
}

#[test]
fn fault_is_mapped_even_if_reads_would_be_cheaper() {
    let mut pool = Glue::new(2, 3).pool;
    for chunk in 0..40 {
        assert!(finish(&mut pool, &page(chunk, Kind::Fault)));
    }
}

#[test]
fn fault_waits_and_copy_does_not_when_all_is_pinned() {
    let mut pool = Glue::new(1, 4).pool;
    let Step::Map(token) = pool.access(&page(0, Kind::Fault), Rights::Writable) else {
        panic!("a range is free");
    };
    assert_eq!(
        pool.access(&page(0, Kind::Copy), Rights::Writable),
        Step::Request
    );
    assert_eq!(
        pool.access(&page(0, Kind::Fault), Rights::Writable),
        Step::Wait
    );
    let pin = pool
        .commit_map(token, &page(0, Kind::Fault))
        .expect("session lives");
    assert_eq!(
        pool.access(&page(1, Kind::Fault), Rights::Writable),
        Step::Wait
    );
    assert_eq!(
        pool.access(&page(1, Kind::Copy), Rights::Writable),
        Step::Request
    );
    pool.window_mut().unpin(pin);
    assert!(finish(&mut pool, &page(1, Kind::Fault)));
    assert_eq!(pool.counters().waits, 2);
}

#[test]
fn grown_file_is_mapped_anew_into_the_same_range() {
    let mut pool = Glue::new(2, 5).pool;
    let short = Access {
        chunk_len: 4096,
        ..page(0, Kind::Copy)
    };
    assert!(finish(&mut pool, &short));
    let grown = Access {
        at: 4096,
        ..page(0, Kind::Copy)
    };
    let Step::Remap(token) = pool.access(&grown, Rights::Writable) else {
        panic!("the mapping is too short");
    };
    assert_eq!(
        token.request().len,
        4096,
        "QEMU unmaps exactly what was mapped"
    );
    let range = token.range();
    let token = pool
        .remap(token, RANGE, Rights::Writable)
        .expect("session lives");
    assert_eq!((token.range(), token.request().len), (range, RANGE));
    let pin = pool.commit_map(token, &grown).expect("session lives");
    assert_eq!(pin.mapped_bytes(), RANGE);
    pool.window_mut().unpin(pin);
}

#[test]
fn tail_that_cannot_be_mapped_goes_by_request() {
    let mut pool = Glue::new(2, 6).pool;
    let tail = Access {
        at: 4096,
        len: 100,
        chunk_len: 4096,
        ..page(0, Kind::Copy)
    };
    assert_eq!(pool.access(&tail, Rights::ReadOnly), Step::Request);
}

#[test]
fn live_limit_makes_the_pool_reclaim_instead_of_mapping_more() {
    let mut pool = Glue::new(8, 7).pool;
    for chunk in 0..4 {
        assert!(finish(&mut pool, &page(chunk, Kind::Fault)));
    }
    let live = pool.window().totals().mapped;
    pool.window_mut().limit_live(live);
    for chunk in 4..20 {
        assert!(finish(&mut pool, &page(chunk, Kind::Fault)));
        assert_eq!(pool.window().totals().mapped, live);
    }
    assert_eq!(
        pool.window().state(RangeId::from_index(7)),
        Some(RangeState::Free)
    );
}
