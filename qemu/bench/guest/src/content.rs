//! What the files hold, the random blocks that are picked, and buffers. The same
//! as `boot/src/bench/content.rs`.

/// Bytes of a page, and of the smaller accesses.
pub(crate) const BLOCK: usize = 4096;
/// Bytes of the larger accesses; the content stream repeats after so many.
pub(crate) const MIB: usize = 1 << 20;

/// Returns the byte at offset `at` of the content stream.
pub(crate) fn content(at: usize) -> u8 {
    (at.wrapping_mul(131).wrapping_add(7) ^ at >> 12) as u8
}

/// Random blocks: xorshift64, begun anew for every workload.
pub(crate) struct Blocks(u64);

impl Blocks {
    pub(crate) fn new() -> Self {
        Self(0x9E37_79B9_7F4A_7C15)
    }

    /// Returns the offset of a block in a file of `size` bytes.
    pub(crate) fn next(&mut self, size: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % (size / BLOCK) as u64) as usize * BLOCK
    }
}

/// Memory at a page boundary, all of it touched.
pub(crate) struct Buffer {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Buffer {
    /// Makes one of `len` bytes, the byte at `i` being `byte(i)`.
    pub(crate) fn new(len: usize, byte: impl Fn(usize) -> u8) -> Self {
        let mut memory = vec![0; len + BLOCK];
        let from = memory.as_ptr().align_offset(BLOCK).min(BLOCK);
        for (at, to) in memory[from..from + len].iter_mut().enumerate() {
            *to = byte(at);
        }
        Self { memory, from, len }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.from..self.from + self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}
