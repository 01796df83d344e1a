//! Moments on the platform's clock, small enough to be kept with whatever
//! expires.

use core::time::Duration;

/// Nanoseconds on the clock of [`Platform::now`](crate::platform::Platform::now).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(u64);

impl Moment {
    /// Before everything: what holds until then does not hold.
    pub(super) const PAST: Self = Self(0);
    /// 292 years after the clock began. The highest bit is never used.
    const LAST: u64 = u64::MAX >> 1;

    /// Returns the moment at which the clock shows `now`.
    pub(super) fn new(now: Duration) -> Self {
        let nanos = now
            .as_secs()
            .saturating_mul(1_000_000_000)
            .saturating_add(u64::from(now.subsec_nanos()));
        Self(nanos.min(Self::LAST))
    }

    pub(super) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(Self::new(wait).0).min(Self::LAST))
    }

    /// Returns how long it is from here to `later`, nothing if that has passed.
    pub(super) fn until(self, later: Self) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }

    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// Takes back what [`to_bits`](Self::to_bits) gave.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_waits_end_before_the_highest_bit() {
        let end = Moment::new(Duration::MAX).after(Duration::MAX);
        assert_eq!(end.to_bits() >> 63, 0);
        let now = Moment::new(Duration::from_millis(5));
        assert_eq!(now.after(Duration::from_nanos(7)).to_bits(), 5_000_007);
        assert_eq!(now.until(now.after(Duration::from_secs(3))).as_secs(), 3);
        assert_eq!(now.until(Moment::PAST), Duration::ZERO);
    }
}
