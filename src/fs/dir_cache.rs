//! Entries of directories that are kept with them (S1-03): what a complete reading
//! gathered, for as long as nothing changes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::attr::Stale;
use super::{CachePolicy, Dir, Inode};
use crate::platform::Platform;
use crate::wire::abi;
use crate::wire::{DirCookie, Dirent, Dirents, FileType, FopenFlags};

/// The largest directory whose entries are kept, in bytes.
const CACHE_MAX: usize = 1 << 20;
/// Bytes of a record before its name.
pub(super) const DIRENT_HEAD: usize = size_of::<abi::Dirent>();

/// All entries of a directory, as READDIR returns them.
pub(super) struct DirCache {
    /// Of the directory's names when it was read.
    version: u32,
    pub(super) records: Vec<u8>,
}

/// Records as they come, to be kept if all of them do.
pub(super) struct Gathered {
    version: u32,
    records: Vec<u8>,
}

impl DirCache {
    /// Finds where the record begins that follows the one before `next`.
    pub(super) fn find(&self, next: DirCookie) -> Option<usize> {
        let mut at = 0;
        Dirents::new(&self.records, usize::MAX)
            .flatten()
            .find_map(|record| {
                at += record_len(DIRENT_HEAD, &record);
                (record.next == next).then_some(at)
            })
    }
}

impl<P: Platform> Inode<P> {
    /// Returns the entries if they are kept and nothing changed since.
    pub(super) fn cached_dir(&self) -> Option<Arc<DirCache>> {
        let cache = self.extra.read().as_ref()?.dir.clone()?;
        let valid = cache.version == self.names_version()
            && self.cached_attr(Stale::TIMES | Stale::SIZE).is_some();
        valid.then_some(cache)
    }
}

impl<P: Platform> Dir<P> {
    /// Keeps the entries if they are complete and the server and the policy let
    /// us.
    pub(super) fn keep_gathered(&mut self) {
        let Some(gathered) = self.gathered.take() else {
            return;
        };
        let allowed = self.inode.fs.options.cache.keeps_all()
            || self
                .handle
                .as_ref()
                .is_some_and(|h| h.fopen.contains(FopenFlags::CACHE_DIR));
        let wanted = self.inode.fs.options.cache != CachePolicy::None;
        let current = gathered.version == self.inode.names_version();
        if allowed && wanted && current && gathered.records.len() <= CACHE_MAX {
            let mut records = gathered.records;
            records.shrink_to_fit();
            let cache = Arc::new(DirCache {
                version: gathered.version,
                records,
            });
            self.inode.with_extra(|extra| extra.dir = Some(cache));
        }
    }
}

impl Gathered {
    /// Begins with the names that the directory has at `version`.
    pub(super) fn new(version: u32) -> Self {
        Self {
            version,
            records: Vec::new(),
        }
    }

    /// Adds a record in the form that READDIR has, whatever form it came in.
    pub(super) fn add(&mut self, record: &Dirent<'_>, ino: u64) {
        let name = record.name.as_bytes();
        if self.records.len() > CACHE_MAX {
            return;
        }
        self.records.extend_from_slice(&ino.to_le_bytes());
        self.records.extend_from_slice(&record.next.0.to_le_bytes());
        self.records
            .extend_from_slice(&(name.len() as u32).to_le_bytes());
        let kind = record.file_type.map_or(0, FileType::to_dirent);
        self.records.extend_from_slice(&kind.to_le_bytes());
        self.records.extend_from_slice(name);
        self.records
            .resize(self.records.len().next_multiple_of(8), 0);
    }
}

/// Returns the length of a record whose head has `head` bytes: names are padded
/// to 8 bytes.
pub(super) fn record_len(head: usize, record: &Dirent<'_>) -> usize {
    head + record.name.as_bytes().len().next_multiple_of(8)
}
