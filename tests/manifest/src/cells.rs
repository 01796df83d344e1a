//! A file as a row of cells whose content follows from little: which file, which
//! cell, and how often it was written.
//!
//! So a model of a file of 1 GiB is 8 MiB, and whoever knows the numbers can say
//! what each byte must be.

use alloc::vec::Vec;

/// Bytes of a cell. Several share a page, so that neighbours meet in one.
pub const CELL: u64 = 512;

/// The content of a cell in generation `generation`; 0 is a hole.
pub fn fill(file: u64, cell: u64, generation: u32, out: &mut [u8]) {
    if generation == 0 {
        return out.fill(0);
    }
    let mut state = mix(file ^ mix(cell ^ mix(generation.into()))) | 1;
    for word in out.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
}

/// Spreads the bits of a number (the finalizer of splitmix64).
pub(crate) fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

/// What a file must hold.
#[derive(Clone, Debug)]
pub struct Cells {
    file: u64,
    generations: Vec<u32>,
}

impl Cells {
    /// A file of so many cells, all holes.
    pub fn new(file: u64, cells: u64) -> Self {
        Self {
            file,
            generations: alloc::vec![0; cells as usize],
        }
    }

    /// Returns its length in cells.
    pub fn cells(&self) -> u64 {
        self.generations.len() as u64
    }

    /// Returns its length in bytes.
    pub fn size(&self) -> u64 {
        self.cells() * CELL
    }

    /// Cuts it, or extends it by a hole.
    pub fn resize(&mut self, cells: u64) {
        self.generations.resize(cells as usize, 0);
    }

    /// Enters `generation` in the cells from `at` on, every `step`-th.
    pub fn set(&mut self, at: u64, count: u64, step: u64, generation: u32) {
        let end = at + (count - 1) * step + 1;
        if end > self.cells() {
            self.resize(end);
        }
        for n in 0..count {
            self.generations[(at + n * step) as usize] = generation;
        }
    }

    /// Writes what a cell must hold.
    pub fn expect(&self, cell: u64, out: &mut [u8]) {
        let generation = self.generations.get(cell as usize).copied().unwrap_or(0);
        fill(self.file, cell, generation, out);
    }

    /// Compares whole cells from `at` on with what they must hold.
    ///
    /// # Errors
    ///
    /// The first byte of the file that differs.
    pub fn check(&self, at: u64, bytes: &[u8]) -> Result<(), u64> {
        let mut want = [0; CELL as usize];
        for (n, found) in bytes.chunks(CELL as usize).enumerate() {
            let cell = at + n as u64;
            self.expect(cell, &mut want);
            if let Some(byte) = found.iter().zip(&want).position(|(a, b)| a != b) {
                return Err(cell * CELL + byte as u64);
            }
        }
        Ok(())
    }
}

/// Compares whole cells from `at` on of a file that is cut and written by many:
/// each byte is what generation 1 has there, or part of a hole.
///
/// # Errors
///
/// The first byte of the file that is neither.
pub fn check_loosely(file: u64, at: u64, bytes: &[u8]) -> Result<(), u64> {
    let mut want = [0; CELL as usize];
    for (n, found) in bytes.chunks(CELL as usize).enumerate() {
        if found.iter().all(|&byte| byte == 0) {
            continue;
        }
        let cell = at + n as u64;
        fill(file, cell, 1, &mut want);
        let neither = |(a, b): (&u8, &u8)| *a != 0 && a != b;
        if let Some(byte) = found.iter().zip(&want).position(neither) {
            return Err(cell * CELL + byte as u64);
        }
    }
    Ok(())
}
