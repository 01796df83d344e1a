//! Who writes to a file at the same time.
//!
//! The server does overlapping WRITEs in an order that nobody here knows, so a page
//! that two of them changed at once is dropped and not guessed. To tell costs two
//! atomic operations for each write; writers to different pages of one file lose
//! pages without need, and nothing else.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::AcqRel;

/// The number of WRITEs under way in the lower half, of those begun in the upper.
#[derive(Debug, Default)]
pub(crate) struct Writers(AtomicU64);

/// A WRITE that is under way.
#[derive(Debug)]
#[must_use = "a write that is begun has to end"]
pub(crate) struct Writer {
    /// How many had begun with it; `None` if it was not the only one.
    begun: Option<u64>,
}

const BEGUN: u64 = 1 << 32;

impl Writers {
    /// Notes that a WRITE begins.
    pub(crate) fn enter(&self) -> Writer {
        let old = self.0.fetch_add(BEGUN | 1, AcqRel);
        let alone = old.is_multiple_of(BEGUN);
        Writer {
            begun: alone.then_some((old / BEGUN).wrapping_add(1) % BEGUN),
        }
    }

    /// Notes that it has ended and what it wrote is in the pages. Returns whether
    /// it was the only one all the time.
    pub(crate) fn leave(&self, writer: Writer) -> bool {
        let old = self.0.fetch_sub(1, AcqRel);
        writer.begun == Some(old / BEGUN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_after_the_other_are_alone() {
        let writers = Writers::default();
        for _ in 0..3 {
            let writer = writers.enter();
            assert!(writers.leave(writer));
        }
    }

    #[test]
    fn whoever_met_another_is_not() {
        let writers = Writers::default();
        let (a, b) = (writers.enter(), writers.enter());
        assert!(!writers.leave(a));
        let c = writers.enter();
        assert!(!writers.leave(b));
        assert!(!writers.leave(c));
        let d = writers.enter();
        assert!(writers.leave(d));
    }
}
