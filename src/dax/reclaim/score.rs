//! A decaying sum as one integer.
//!
//! A score stands for a sum that halves every so many ticks. It is kept as the
//! logarithm of the sum plus the time at which it was so large, so that it
//! need not be touched while it decays, and two scores compare the same at
//! every later time. Logarithms are piecewise linear in 1/256; the error is at
//! most 6 % and the same in both directions.

/// A decaying sum. Orders by size at any common time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Score(u64);

/// How fast scores decay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decay {
    half_life_shift: u32,
}

impl Decay {
    /// Halves every `half_life` ticks, or more: a power of two, since this is
    /// asked at each burst and a division takes its time.
    pub(super) fn new(half_life: u64) -> Self {
        Self {
            half_life_shift: half_life.max(1).next_power_of_two().trailing_zeros(),
        }
    }

    /// Returns the sum that `score` stands for at tick `now`.
    pub(super) fn value(&self, score: Score, now: u64) -> u64 {
        let Some(above) = score.0.checked_sub(now << 8) else {
            return 0;
        };
        let log = above >> self.half_life_shift;
        let mantissa = 256 + (log & 255);
        match log >> 8 {
            whole @ 0..=48 => (mantissa << whole) >> 8,
            _ => mantissa << 40,
        }
    }

    /// Returns the score of the sum `value` at tick `now`.
    pub(super) fn score(&self, value: u64, now: u64) -> Score {
        let value = value.min(1 << 47);
        let Some(whole) = value.checked_ilog2() else {
            return Score::default();
        };
        let log = (u64::from(whole) << 8) + (((value << 8) >> whole) & 255);
        Score((now << 8) + (log << self.half_life_shift))
    }

    /// Returns `score` with `amount` added at tick `now`.
    pub(super) fn add(&self, score: Score, amount: u64, now: u64) -> Score {
        self.score(self.value(score, now) + amount, now).max(score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_survives_a_round_trip_within_half_a_percent() {
        let decay = Decay::new(64);
        for value in [1, 2, 3, 7, 190_200, 1_350_000, 1 << 40] {
            let back = decay.value(decay.score(value, 1000), 1000);
            assert!(
                back <= value && value - back <= value / 200 + 1,
                "{value} {back}"
            );
        }
        assert_eq!(decay.value(decay.score(0, 1000), 1000), 0);
    }

    #[test]
    fn value_halves_every_half_life() {
        let decay = Decay::new(64);
        let score = decay.score(1 << 20, 10);
        assert_eq!(decay.value(score, 74), 1 << 19);
        assert_eq!(decay.value(score, 10 + 20 * 64), 1);
        assert_eq!(decay.value(score, 10 + 21 * 64), 0);
        let halfway = decay.value(score, 42);
        assert!(halfway > 1 << 19 && halfway < 1 << 20);
    }

    #[test]
    fn order_does_not_change_with_time() {
        let decay = Decay::new(16);
        let early = decay.score(1000, 5);
        let late = decay.score(100, 50);
        for now in 50..200 {
            let order = decay.value(early, now).cmp(&decay.value(late, now));
            assert!(order == early.cmp(&late) || order.is_eq());
        }
    }
}
