//! Times of files and lifetimes of cached values.

use core::time::Duration;

/// The largest number of nanoseconds beside a number of seconds.
const NSEC_MAX: u32 = 999_999_999;

/// A point in time: seconds and nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds, negative before 1970. On the wire a `u64` in two's complement.
    pub sec: i64,
    /// Nanoseconds that are added to them, below 10⁹.
    pub nsec: u32,
}

impl Time {
    /// Makes a time; nanoseconds of 10⁹ and more become 999 999 999.
    pub const fn new(sec: i64, nsec: u32) -> Self {
        let nsec = if nsec > NSEC_MAX { NSEC_MAX } else { nsec };
        Self { sec, nsec }
    }

    /// Reads a time as the server sends it.
    pub const fn from_wire(sec: u64, nsec: u32) -> Self {
        Self::new(sec.cast_signed(), nsec)
    }

    /// Returns the time a duration after 1970-01-01 UTC. Saturates.
    pub fn since_epoch(duration: Duration) -> Self {
        let sec = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Self::new(sec, duration.subsec_nanos())
    }
}

/// Reads how long something stays valid. Nanoseconds are clamped; adding the
/// result to a clock may overflow and is to be done saturating.
pub(super) const fn validity(sec: u64, nsec: u32) -> Duration {
    let nsec = if nsec > NSEC_MAX { NSEC_MAX } else { nsec };
    Duration::new(sec, nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_are_clamped_and_seconds_may_be_negative() {
        assert_eq!(
            Time::from_wire(u64::MAX, u32::MAX),
            Time {
                sec: -1,
                nsec: 999_999_999
            }
        );
        assert_eq!(Time::new(5, 1_000_000_000).nsec, 999_999_999);
        assert_eq!(Time::new(5, 999_999_998).nsec, 999_999_998);
    }

    #[test]
    fn the_longest_validity_does_not_overflow() {
        assert_eq!(
            validity(u64::MAX, u32::MAX),
            Duration::new(u64::MAX, 999_999_999)
        );
    }

    #[test]
    fn a_duration_beyond_i64_saturates() {
        assert_eq!(Time::since_epoch(Duration::MAX).sec, i64::MAX);
    }
}
