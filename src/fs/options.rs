//! What the kernel decides about a mount.

use core::time::Duration;

use crate::dax::Costs;

/// Longer than anything stays up.
pub(super) const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Settings of a mount, fixed when it is made.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// What may be answered from memory, and for how long.
    pub cache: CachePolicy,
    /// Permissions are checked here, before a request is sent. virtio-fs servers
    /// rely on it: most of what they do they do as their own user.
    pub default_permissions: bool,
    /// Nothing may be changed.
    pub read_only: bool,
    /// Names kept at most. With each goes an inode, and with that a descriptor
    /// of the server's.
    pub max_dentries: usize,
    /// When FLUSH is sent.
    pub flush: FlushPolicy,
    /// Bytes of memory for cached data of files, at most; where a policy caches
    /// data, and [`Config::data_cache`](crate::conn::Config::data_cache) says so.
    pub page_cache: usize,
    /// The host may copy a file up when it is first opened for writing, as overlay
    /// file systems do: what is open for reading then is opened anew, so that it
    /// shows what is written. Takes one OPEN for each such handle.
    pub copy_up: bool,
    /// What mapping a part of a file and asking for its bytes cost: what decides
    /// which way data go where there is a DAX window.
    pub dax_costs: Costs,
    /// Device number of the root, for `st_dev`. Submounts get the next ones.
    pub device: u64,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            cache: CachePolicy::Auto,
            default_permissions: true,
            read_only: false,
            max_dentries: 16_384,
            flush: FlushPolicy::WhenUseful,
            page_cache: 64 << 20,
            copy_up: true,
            dax_costs: Costs::MEASURED,
            device: 1,
        }
    }
}

/// What may be answered from memory.
///
/// | policy | names, attributes | directory contents, symlinks | open handles | data |
/// |---|---|---|---|---|
/// | `None` | ask each time | ask each time | one for each open | not cached |
/// | `Auto` | as long as the server says | as the server says | shared | close-to-open |
/// | `Always` | until told or changed here | kept | shared | until told or changed here |
/// | `Metadata` | as `Always` | kept | one for each open | not cached |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CachePolicy {
    /// Nothing: another guest's change shows at once.
    None,
    /// What the server allows.
    Auto,
    /// Everything, for ever: nobody else changes the files.
    Always,
    /// Names and attributes for ever, data never.
    Metadata,
}

impl CachePolicy {
    /// Returns how long a name or attributes hold that the server gave `ttl`.
    pub(super) fn ttl(self, ttl: Duration) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Auto => ttl.min(FOREVER),
            Self::Always | Self::Metadata => FOREVER,
        }
    }

    /// Returns how long a name stays known as absent. A server's ENOENT promises
    /// nothing.
    pub(super) fn negative_ttl(self) -> Duration {
        match self {
            Self::None | Self::Auto => Duration::ZERO,
            Self::Always | Self::Metadata => FOREVER,
        }
    }

    /// Returns whether opens of one file may share a handle (S1-06, S1-07).
    pub(super) fn shares_handles(self) -> bool {
        matches!(self, Self::Auto | Self::Always)
    }

    /// Returns whether data of files are kept.
    pub(super) fn keeps_data(self) -> bool {
        matches!(self, Self::Auto | Self::Always)
    }

    /// Returns whether what the server did not forbid to keep is kept.
    pub(super) fn keeps_all(self) -> bool {
        matches!(self, Self::Always | Self::Metadata)
    }
}

/// When FLUSH is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushPolicy {
    /// At each close of a descriptor that wrote something or holds locks: where
    /// there is nothing to report and nothing to drop, a FLUSH tells the server
    /// nothing.
    WhenUseful,
    /// At each close, as Linux does.
    Always,
}
