//! Errors of writes that nobody waited for, told once to each open file (Linux:
//! `lib/errseq.c`).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::errno::Errno;
use crate::error::{Error, Origin, Result};

/// The last error of a file: its number in the lower half, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct ErrSeq(AtomicU64);

const COUNT: u64 = 1 << 32;

impl ErrSeq {
    /// Notes an error.
    pub(crate) fn record(&self, error: Error) {
        let errno = error.errno().get();
        let step = |old: u64| Some(((old / COUNT + 1) % COUNT * COUNT) | u64::from(errno));
        let _ = self.0.fetch_update(AcqRel, Acquire, step);
    }

    /// Returns what an open file has seen that begins now.
    pub(crate) fn sample(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Returns the last error if there was one since `seen`, and notes that it was
    /// seen.
    pub(crate) fn check(&self, seen: &AtomicU64) -> Result<()> {
        let now = self.sample();
        if seen.swap(now, AcqRel) == now {
            return Ok(());
        }
        let errno = Errno::new((now % COUNT) as u16).unwrap_or(Errno::EIO);
        Err(Error::new(errno, Origin::Server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_open_file_is_told_once() {
        let errors = ErrSeq::default();
        let (a, b) = (
            AtomicU64::new(errors.sample()),
            AtomicU64::new(errors.sample()),
        );
        assert_eq!(errors.check(&a), Ok(()));
        errors.record(Error::caller(Errno::ENOSPC));
        let late = AtomicU64::new(errors.sample());
        for seen in [&a, &b] {
            assert_eq!(errors.check(seen).unwrap_err().errno(), Errno::ENOSPC);
            assert_eq!(errors.check(seen), Ok(()));
        }
        assert_eq!(errors.check(&late), Ok(()));
        errors.record(Error::caller(Errno::ENOSPC));
        assert!(
            errors.check(&a).is_err(),
            "the same one again is another one"
        );
    }
}
