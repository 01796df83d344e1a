//! The time of a fake: virtual, and then it moves only when somebody waits, or
//! the host's.

use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::time::Instant;

#[derive(Debug)]
pub(crate) enum Clock {
    /// Nanoseconds since the start.
    Virtual(AtomicU64),
    Real(Instant),
}

impl Clock {
    pub(crate) fn now(&self) -> Duration {
        match self {
            Self::Virtual(nanos) => Duration::from_nanos(nanos.load(Ordering::SeqCst)),
            Self::Real(start) => start.elapsed(),
        }
    }

    /// Goes on by `time`. The host's goes by itself.
    pub(crate) fn advance(&self, time: Duration) {
        self.advance_to(self.now().saturating_add(time));
    }

    /// Goes on to `to`, unless it is later already. The host's goes by itself.
    pub(crate) fn advance_to(&self, to: Duration) {
        if let Self::Virtual(nanos) = self {
            let to = u64::try_from(to.as_nanos()).unwrap_or(u64::MAX);
            nanos.fetch_max(to, Ordering::SeqCst);
        }
    }
}
