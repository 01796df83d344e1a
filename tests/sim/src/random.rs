//! Random numbers that are the same on every machine (xorshift64*).

/// The generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// Returns a number from 0 up to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns the numbers below `count` in random order.
    pub fn shuffled(&mut self, count: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..count).collect();
        for at in (1..numbers.len()).rev() {
            let other = self.below(at as u64 + 1) as usize;
            numbers.swap(at, other);
        }
        numbers
    }
}

/// Numbers below a bound, the k-th most frequent with weight 1/k^s, in an order
/// that has nothing to do with frequency.
#[derive(Clone, Debug)]
pub struct Zipf {
    sums: Vec<f64>,
    names: Vec<u64>,
}

impl Zipf {
    /// Prepares `count` numbers with exponent `s`.
    pub fn new(count: u64, s: f64, random: &mut Random) -> Self {
        let mut sum = 0.0;
        let weigh = |rank: u64| {
            sum += (rank as f64 + 1.0).powf(-s);
            sum
        };
        Self {
            sums: (0..count).map(weigh).collect(),
            names: random.shuffled(count),
        }
    }

    /// Draws a number.
    pub fn draw(&self, random: &mut Random) -> u64 {
        let total = self.sums.last().copied().unwrap_or(0.0);
        let point = random.unit() * total;
        let rank = self.sums.partition_point(|&sum| sum < point);
        self.names[rank.min(self.names.len() - 1)]
    }
}
