//! Every policy on every trace.

use virtio_fs::dax::{Costs, Reclaim};

use crate::cost::Model;
use crate::optimum;
use crate::replay::{Habits, Outcome, Replay, replay};
use crate::rivals::{Arc, Clock, Fifo, Frugal, Lifo, Lirs, Lru, S3Fifo, TinyLfu, TwoQueues};
use crate::trace::Prepared;

/// The contestants, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contestant {
    /// The driver's policy.
    Ours,
    /// The driver's policy if requests were too dear to be used.
    OursMapping,
    /// Linux.
    Fifo,
    /// OSv.
    Lifo,
    /// DragonOS.
    Clock,
    /// Least recently used.
    Lru,
    /// Least recently used, with reads until they have cost a mapping.
    FrugalLru,
    /// 2Q.
    TwoQueues,
    /// ARC.
    Arc,
    /// LIRS.
    Lirs,
    /// S3-FIFO.
    S3Fifo,
    /// W-TinyLFU.
    TinyLfu,
}

impl Contestant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Ours,
        Self::OursMapping,
        Self::Fifo,
        Self::Lifo,
        Self::Clock,
        Self::Lru,
        Self::FrugalLru,
        Self::TwoQueues,
        Self::Arc,
        Self::Lirs,
        Self::S3Fifo,
        Self::TinyLfu,
    ];

    /// Returns the name in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::OursMapping => "ours, map all",
            Self::Fifo => "FIFO (Linux)",
            Self::Lifo => "LIFO (OSv)",
            Self::Clock => "CLOCK (DragonOS)",
            Self::Lru => "LRU",
            Self::FrugalLru => "LRU + reads",
            Self::TwoQueues => "2Q",
            Self::Arc => "ARC",
            Self::Lirs => "LIRS",
            Self::S3Fifo => "S3-FIFO",
            Self::TinyLfu => "W-TinyLFU",
        }
    }

    /// Replays `trace` and returns the sums.
    pub fn run(self, trace: &Prepared, model: &Model) -> Outcome {
        self.replay(trace, model).outcome
    }

    /// Replays `trace`.
    pub fn replay(self, trace: &Prepared, model: &Model) -> Replay {
        let ranges = trace.geometry.count();
        let single = Habits { batch: 1 };
        let batched = Habits { batch: 256 };
        let dear = Costs {
            request: 1_000_000_000,
            ..model.costs
        };
        let lru = || Frugal::new(Lru::default(), model.costs);
        match self {
            Self::Ours => replay(trace, Reclaim::new(ranges, model.costs), batched, model),
            Self::OursMapping => replay(trace, Reclaim::new(ranges, dear), batched, model),
            Self::Fifo => replay(trace, Fifo::new(ranges), single, model),
            Self::Lifo => replay(trace, Lifo::default(), single, model),
            Self::Clock => replay(trace, Clock::new(ranges), single, model),
            Self::Lru => replay(trace, Lru::default(), single, model),
            Self::FrugalLru => replay(trace, lru(), single, model),
            Self::TwoQueues => replay(trace, TwoQueues::new(ranges), single, model),
            Self::Arc => replay(trace, Arc::new(ranges), single, model),
            Self::Lirs => replay(trace, Lirs::new(ranges), single, model),
            Self::S3Fifo => replay(trace, S3Fifo::new(ranges), single, model),
            Self::TinyLfu => replay(trace, TinyLfu::new(ranges), single, model),
        }
    }
}

/// The clairvoyant limits of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Mappings by Belady's rule, everything mapped.
    pub maps: u64,
    /// Mappings of one who knows all frequencies but not the future, everything
    /// mapped.
    pub informed: u64,
    /// Least cost in nanoseconds, reads allowed.
    pub cost: u64,
}

impl Limits {
    /// Computes both.
    pub fn of(trace: &Prepared, model: &Model) -> Self {
        let ranges = trace.geometry.count();
        Self {
            maps: optimum::fewest_maps(&trace.accesses, model, ranges),
            informed: optimum::informed_maps(&trace.accesses, model, ranges),
            cost: optimum::least_cost(&trace.accesses, model, ranges),
        }
    }
}
