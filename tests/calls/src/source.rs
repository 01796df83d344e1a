//! Who chooses.

/// Chooses numbers.
pub trait Source {
    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize;

    /// One of `all`.
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    /// Whether this is the one case of so many.
    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == one_in - 1
    }
}

/// SplitMix64: repeated by its seed.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Source for Random {
    fn below(&mut self, n: usize) -> usize {
        (self.number() % n as u64) as usize
    }
}
