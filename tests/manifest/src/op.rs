//! One change of a tree, as a plain value.

use crate::{Fs, Time};
use alloc::{vec, vec::Vec};

/// A change. Paths are relative to the root of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant says what its fields are")]
pub enum Op {
    /// A new empty file.
    Create { path: Vec<u8>, mode: u32 },
    /// `length` bytes of the stream `seed` at `offset`: over, at or past the end of the file.
    Write {
        path: Vec<u8>,
        offset: u64,
        length: usize,
        seed: u64,
    },
    /// A new size.
    Truncate { path: Vec<u8>, size: u64 },
    /// A new place; a file there is replaced.
    Rename { from: Vec<u8>, to: Vec<u8> },
    /// One more name.
    Link { from: Vec<u8>, to: Vec<u8> },
    /// A symbolic link, dangling or not.
    Symlink { target: Vec<u8>, path: Vec<u8> },
    /// One name less.
    Unlink { path: Vec<u8> },
    /// A new directory.
    Mkdir { path: Vec<u8>, mode: u32 },
    /// An empty directory less.
    Rmdir { path: Vec<u8> },
    /// New permission bits.
    Chmod { path: Vec<u8>, mode: u32 },
    /// A new time of the last change.
    SetMtime { path: Vec<u8>, mtime: Time },
}

/// Does it.
///
/// # Errors
/// The file system's.
pub fn apply<F: Fs>(fs: &mut F, op: &Op) -> Result<(), F::Error> {
    match op {
        Op::Create { path, mode } => fs.create(path, *mode),
        Op::Write {
            path,
            offset,
            length,
            seed,
        } => {
            let mut data = vec![0; *length];
            let mut random = Random::new(*seed);
            for chunk in data.chunks_mut(8) {
                chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
            }
            fs.write(path, *offset, &data)
        }
        Op::Truncate { path, size } => fs.truncate(path, *size),
        Op::Rename { from, to } => fs.rename(from, to),
        Op::Link { from, to } => fs.link(from, to),
        Op::Symlink { target, path } => fs.symlink(target, path),
        Op::Unlink { path } => fs.unlink(path),
        Op::Mkdir { path, mode } => fs.mkdir(path, *mode),
        Op::Rmdir { path } => fs.rmdir(path),
        Op::Chmod { path, mode } => fs.chmod(path, *mode),
        Op::SetMtime { path, mtime } => fs.set_mtime(path, *mtime),
    }
}

/// SplitMix64: good enough to choose with, the same everywhere, and any seed will do.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
