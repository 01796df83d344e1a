//! What the benchmark's files hold, the random blocks it picks, and its buffers.

use alloc::{vec, vec::Vec};

/// Bytes of a page, and of the smaller accesses.
pub(super) const BLOCK: usize = 4096;
/// Bytes of the larger accesses; the content stream repeats after so many.
pub(super) const MIB: usize = 1 << 20;

/// Returns the byte at offset `at` of the content stream.
pub(super) fn content(at: usize) -> u8 {
    (at.wrapping_mul(131).wrapping_add(7) ^ at >> 12) as u8
}

/// Random blocks: xorshift64, begun anew for every workload.
pub(super) struct Blocks(u64);

impl Blocks {
    pub(super) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// Returns the offset of a block in a file of `size` bytes.
    pub(super) fn next(&mut self, size: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (size / BLOCK) as u64) as usize * BLOCK
    }
}

/// Memory at a page boundary, all of it touched.
pub(super) struct Buffer {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    /// Makes one of `len` bytes, the byte at `i` being `byte(i)`.
    pub(super) fn new(len: usize, byte: impl Fn(usize) -> u8) -> Self {
        let mut memory = vec![0; len + BLOCK];
        let from = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        for (at, to) in memory[from..from + len].iter_mut().enumerate() {
            *to = byte(at);
        }
        Self { memory, from, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_repeats_every_mebibyte_and_blocks_differ() {
        assert_eq!(
            [0, 1, 4096, 4097].map(content),
            [7, 138, 6, 139],
            "the definition's first bytes of the first two blocks"
        );
        for at in (0..4 * MIB).step_by(4093) {
            assert_eq!(content(at), content(at + MIB));
        }
    }

    #[test]
    fn random_blocks_lie_in_the_file_and_come_again() {
        let run = || {
            let mut blocks = Blocks::new();
            (0..1000)
                .map(|_| blocks.next(128 * MIB))
                .collect::<Vec<_>>()
        };
        let first = run();
        assert_eq!(first, run());
        assert!(first.iter().all(|at| at % BLOCK == 0 && *at < 128 * MIB));
    }

    #[test]
    fn buffers_begin_at_a_page() {
        let buffer = Buffer::new(MIB, content);
        assert_eq!(buffer.bytes().as_ptr().addr() % BLOCK, 0);
        assert_eq!(buffer.bytes()[MIB - 1], content(MIB - 1));
    }
}
