//! Runs a trace through the driver's own ledger with some policy.
//!
//! Requests succeed at once. The worker runs after each access, as long as the
//! policy sees a surplus, one batch at a time. Faults never wait here: there is
//! one thread and nothing stays pinned.

use std::collections::BTreeMap;

use virtio_fs::dax::{Access, Counters, Kind, Policy, Pool, Rights, Step, Window};

use crate::cost::Model;
use crate::trace::Prepared;

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Accesses, cut at range borders.
    pub accesses: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// SETUPMAPPING requests.
    pub maps: u64,
    /// Of these, ahead of use.
    pub ahead: u64,
    /// REMOVEMAPPING requests.
    pub remove_requests: u64,
    /// Entries in them.
    pub removed: u64,
    /// READ and WRITE requests.
    pub reads: u64,
    /// Modelled cost in nanoseconds.
    pub cost: u64,
}

impl Outcome {
    /// Requests of every kind.
    pub const fn requests(&self) -> u64 {
        self.maps + self.remove_requests + self.reads
    }
}

/// How the accesses of one file were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Through the window.
    pub by_window: u64,
    /// By READ or WRITE.
    pub by_request: u64,
}

/// What a replay came to, in full.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The sums.
    pub outcome: Outcome,
    /// What the pool counted.
    pub counters: Counters,
    /// File by file.
    pub files: BTreeMap<u64, Served>,
}

/// How a policy is run.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Entries per REMOVEMAPPING of the worker, at most.
    pub batch: usize,
}

struct Run<'a, P> {
    pool: Pool<P>,
    model: &'a Model,
    outcome: Outcome,
}

impl<P: Policy> Run<'_, P> {
    /// Follows a step to its end. Says whether the bytes went through the window.
    fn follow(&mut self, mut step: Step, access: &Access, next_len: u32) -> bool {
        loop {
            step = match step {
                Step::Use(pin) => {
                    self.ahead(access, next_len);
                    self.pool.window_mut().unpin(pin);
                    return true;
                }
                Step::Map(token) => {
                    self.outcome.maps += 1;
                    Step::Use(self.pool.commit_map(token, access).expect("session lives"))
                }
                Step::Evict(token) => {
                    self.removed(1);
                    let window = self.pool.window_mut();
                    window.commit_unmap(token).expect("session lives");
                    self.pool.claim(access, Rights::Writable)
                }
                Step::Request => return false,
                Step::Remap(_) | Step::Wait => panic!("one thread, files of fixed size: {step:?}"),
            }
        }
    }

    fn ahead(&mut self, access: &Access, chunk_len: u32) {
        let Some(mut step) = self.pool.ahead(access, chunk_len, Rights::Writable) else {
            return;
        };
        if let Step::Evict(token) = step {
            self.removed(1);
            let window = self.pool.window_mut();
            window.commit_unmap(token).expect("session lives");
            step = match self.pool.ahead(access, chunk_len, Rights::Writable) {
                Some(step) => step,
                None => return,
            };
        }
        if let Step::Map(token) = step {
            self.outcome.maps += 1;
            self.outcome.ahead += 1;
            self.pool.commit_ahead(token).expect("session lives");
        }
    }

    fn removed(&mut self, entries: u64) {
        self.outcome.removed += entries;
        self.outcome.remove_requests += 1;
    }

    fn worker(&mut self, batch: usize) {
        let mut surplus = self.pool.surplus();
        while surplus > 0 {
            let mut entries = 0;
            while entries < surplus.min(batch)
                && let Some(token) = self.pool.shed(&mut |_| true)
            {
                let window = self.pool.window_mut();
                window.commit_unmap(token).expect("session lives");
                entries += 1;
            }
            if entries == 0 {
                return;
            }
            self.removed(entries as u64);
            surplus -= entries;
        }
    }
}

/// Replays a trace with `policy`.
///
/// # Panics
/// A fault is not served, or a range or a pin is lost.
pub fn replay<P: Policy>(trace: &Prepared, policy: P, habits: Habits, model: &Model) -> Replay {
    let mut run = Run {
        pool: Pool::new(Window::new(trace.geometry), policy),
        model,
        outcome: Outcome::default(),
    };
    let mut files: BTreeMap<u64, Served> = BTreeMap::new();
    for (access, &next_len) in trace.accesses.iter().zip(&trace.next_lens) {
        run.outcome.accesses += 1;
        run.outcome.bytes += u64::from(access.len);
        let step = run.pool.access(access, Rights::Writable);
        let through_window = run.follow(step, access, next_len);
        assert!(
            through_window || access.kind == Kind::Copy,
            "a fault was not served"
        );
        let served = files.entry(access.inode.0).or_default();
        run.outcome.cost += if through_window {
            served.by_window += 1;
            run.model.costs.by_window(access.len)
        } else {
            served.by_request += 1;
            run.outcome.reads += 1;
            run.model.costs.by_request(access.len)
        };
        run.worker(habits.batch);
    }
    let Outcome {
        maps,
        removed,
        remove_requests,
        ..
    } = run.outcome;
    run.outcome.cost += maps * model.setup()
        + removed * model.remove_entry
        + remove_requests * model.remove_request;
    let totals = run.pool.window().totals();
    assert_eq!(totals.pins, 0, "a pin was lost");
    assert_eq!(
        totals.free + totals.mapped,
        trace.geometry.count(),
        "a range was lost"
    );
    Replay {
        outcome: run.outcome,
        counters: run.pool.counters(),
        files,
    }
}
