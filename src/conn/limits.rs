//! What INIT settled: one set of limits, asked by everyone, derived by no one.

use core::time::Duration;

use crate::wire::{Dialect, InitFlags};

/// The result of INIT. Does not change during a session.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Minor protocol version in effect: the smaller of both sides'.
    pub minor: u32,
    /// Features in effect: offered by us and taken by the server.
    pub flags: InitFlags,
    /// How messages look in this session.
    pub dialect: Dialect,
    /// Bytes that one WRITE may carry.
    pub max_write: u32,
    /// Bytes that one READ may ask for.
    pub max_read: u32,
    /// Pages that one request may carry.
    pub max_pages: u16,
    /// Bytes to read ahead at most.
    pub max_readahead: u32,
    /// Background requests at once.
    pub max_background: u16,
    /// Background requests from which on read-ahead holds back.
    pub congestion: u16,
    /// Granularity of the server's times in nanoseconds.
    pub time_gran: u32,
    /// Alignment that DAX mappings need, in bytes, a power of two.
    pub map_alignment: u64,
    /// The server's own wish for the longest time a request may take.
    pub request_timeout: Option<Duration>,
    /// The longest name in a directory.
    pub name_max: usize,
}

impl Limits {
    /// Returns whether all of `flags` are in effect.
    pub const fn has(&self, flags: InitFlags) -> bool {
        self.flags.contains(flags)
    }
}
