//! Random numbers that a seed repeats.

/// splitmix64: small, and good enough to choose with.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts from the variable `ATTACK_SEED`, or from `default`, and says which.
    ///
    /// # Panics
    ///
    /// If the variable holds no number.
    pub fn from_env(default: u64) -> Self {
        let seed = std::env::var("ATTACK_SEED").map_or(default, |seed| {
            seed.parse().expect("ATTACK_SEED is a number")
        });
        println!("seed {seed} (set ATTACK_SEED to change it)");
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.number() % n
    }

    /// One of `choices`.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len() as u64) as usize]
    }
}
