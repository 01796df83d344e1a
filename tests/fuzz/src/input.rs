//! An input, read as choices.

use virtio_fs_calls::Source;

/// Bytes that choose. Behind their end every choice is the first one.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Begins at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether there is nothing left to choose by.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes up to `len` bytes as they are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number of any size; most are small, or at an edge.
    pub fn number(&mut self) -> u64 {
        const EDGES: [u64; 16] = [
            0,
            1,
            0x7f,
            0x80,
            0xfff,
            0x1000,
            0x1001,
            0x7fff,
            0xffff,
            0x1_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            i64::MAX as u64,
            1 << 63,
            u64::MAX,
        ];
        match self.below(4) {
            0 => EDGES[self.below(EDGES.len())],
            1 => self.below(256) as u64,
            2 => self.below(1 << 16) as u64,
            _ => self.fixed::<8>().map_or(0, u64::from_le_bytes),
        }
    }

    /// So many bytes, if there are as many.
    pub fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

impl Source for Input<'_> {
    fn below(&mut self, n: usize) -> usize {
        let width = match n {
            0..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 4,
        };
        let bytes = self.take(width);
        let number = bytes.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
        number % n
    }
}
