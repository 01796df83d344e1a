//! The attributes of an inode as last heard: until when they may be used, and
//! which of them a change made here has outdated.
//!
//! One of these lives in each inode in memory, so they are packed; and every step
//! of a path walk reads some of them, so they are read without a lock.

use bitflags::bitflags;

use super::filesystem::Asked;
use super::moment::Moment;
use crate::sync::SeqWords;
use crate::wire::{Attr, AttrFlags, FileType, Mode, Rdev, Time};

bitflags! {
    /// Attributes that a change made here has outdated.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Stale: u8 {
        const SIZE = 1 << 0;
        const BLOCKS = 1 << 1;
        const TIMES = 1 << 2;
        const NLINK = 1 << 3;
        const MODE = 1 << 4;
        const ATIME = 1 << 5;

        /// After a name in the directory changed.
        const DIRECTORY = Self::SIZE.bits() | Self::BLOCKS.bits() | Self::TIMES.bits() | Self::NLINK.bits();
        /// After data changed; the size is known.
        const WRITTEN = Self::BLOCKS.bits() | Self::TIMES.bits();
        /// After a link to it was made or removed.
        const LINKED = Self::NLINK.bits() | Self::TIMES.bits();
        /// What reading changes. Nobody but stat asks for it.
        const READ = Self::ATIME.bits();
    }
}

/// Whether the access control list is known. What is known holds as long as the
/// attributes do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AclState {
    Unknown,
    /// There is none.
    None,
    /// It is among the inode's rarely used parts.
    Kept,
}

/// What is known, all of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttrCache {
    pub(super) attr: Attr,
    pub(super) until: Moment,
    /// Number of the last change made here.
    pub(super) version: u64,
    /// When the question was asked whose answer the attributes are.
    pub(super) asked: u64,
    pub(super) stale: Stale,
    pub(super) acl: AclState,
}

/// What permission checks go by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    pub(super) mode: Mode,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) acl: AclState,
}

/// What an access through the DAX window goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) size: u64,
    pub(super) mode: Mode,
    pub(super) stale: Stale,
}

impl AttrCache {
    pub(super) fn new(attr: Attr, until: Moment, asked: Asked) -> Self {
        Self {
            attr,
            until,
            version: asked.0,
            asked: asked.0,
            stale: Stale::empty(),
            acl: AclState::Unknown,
        }
    }

    pub(super) fn valid(&self, now: Moment, need: Stale) -> bool {
        now < self.until && !self.stale.intersects(need)
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            until: self.until,
            version: self.version,
        }
    }
}

/// Tells whether attributes were replaced or changed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    until: Moment,
    version: u64,
}

/// An [`AttrCache`] that is shared.
pub(super) struct AttrCell {
    words: SeqWords<WORDS>,
}

const WORDS: usize = 13;
/// Those that permission checks need come first: [`SMALL`], [`OWNER`], [`UNTIL`];
/// then what reads and writes need as well.
const RIGHTS: usize = 3;
const KNOWN: usize = 4;
/// Nanoseconds of the time of access, and what is smaller than a word.
const SMALL: usize = 0;
const OWNER: usize = 1;
const UNTIL: usize = 2;
const SIZE: usize = 3;
const VERSION: usize = 4;
const ASKED: usize = 5;
const BLOCKS: usize = 6;
const INO: usize = 7;
const ATIME: usize = 8;
const MTIME: usize = 9;
const CTIME: usize = 10;
const NSEC: usize = 11;
const LINKS: usize = 12;

// Bits in SMALL, above the nanoseconds.
const MODE_AT: u32 = 32;
const BLKSIZE_AT: u32 = 48;
const FLAGS_AT: u32 = 53;
const STALE_AT: u32 = 55;
const ACL_AT: u32 = 61;
const _: () = {
    assert!(AttrFlags::all().bits() < 1 << (STALE_AT - FLAGS_AT));
    assert!(Stale::all().bits() < 1 << (ACL_AT - STALE_AT));
};

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Takes `bits` bits from `at` on.
fn bits(word: u64, at: u32, bits: u32) -> u64 {
    word >> at & ((1 << bits) - 1)
}

fn mode_of(small: u64) -> Mode {
    // INVARIANT: they were a mode's bits, and so are one's again.
    Mode::from_wire(bits(small, MODE_AT, 16) as u32).unwrap_or(Mode::new(FileType::Regular, 0))
}

fn stale_of(small: u64) -> Stale {
    Stale::from_bits_truncate(bits(small, STALE_AT, 6) as u8)
}

fn acl_of(small: u64) -> AclState {
    match bits(small, ACL_AT, 2) {
        0 => AclState::Unknown,
        1 => AclState::None,
        _ => AclState::Kept,
    }
}

fn pack(cache: &AttrCache) -> [u64; WORDS] {
    let attr = &cache.attr;
    let acl = match cache.acl {
        AclState::Unknown => 0,
        AclState::None => 1,
        AclState::Kept => 2u64,
    };
    let mut words = [0; WORDS];
    words[SMALL] = u64::from(attr.atime.nsec)
        | u64::from(attr.mode.bits()) << MODE_AT
        | u64::from(attr.blksize_log2 & 31) << BLKSIZE_AT
        | u64::from(attr.flags.bits()) << FLAGS_AT
        | u64::from(cache.stale.bits()) << STALE_AT
        | acl << ACL_AT;
    words[OWNER] = join(attr.uid, attr.gid);
    words[UNTIL] = cache.until.to_bits();
    words[VERSION] = cache.version;
    words[ASKED] = cache.asked;
    words[SIZE] = attr.size;
    words[BLOCKS] = attr.blocks;
    words[INO] = attr.ino;
    words[ATIME] = attr.atime.sec.cast_unsigned();
    words[MTIME] = attr.mtime.sec.cast_unsigned();
    words[CTIME] = attr.ctime.sec.cast_unsigned();
    words[NSEC] = join(attr.mtime.nsec, attr.ctime.nsec);
    words[LINKS] = join(attr.nlink, attr.rdev.0);
    words
}

fn unpack(words: &[u64; WORDS]) -> AttrCache {
    let small = words[SMALL];
    // INVARIANT: they were a time's nanoseconds.
    let time = |at: usize, nsec| Time {
        sec: words[at].cast_signed(),
        nsec,
    };
    AttrCache {
        attr: Attr {
            ino: words[INO],
            size: words[SIZE],
            blocks: words[BLOCKS],
            atime: time(ATIME, low(small)),
            mtime: time(MTIME, low(words[NSEC])),
            ctime: time(CTIME, high(words[NSEC])),
            nlink: low(words[LINKS]),
            uid: low(words[OWNER]),
            gid: high(words[OWNER]),
            rdev: Rdev(high(words[LINKS])),
            mode: mode_of(small),
            blksize_log2: bits(small, BLKSIZE_AT, 5) as u8,
            flags: AttrFlags::from_bits_truncate(bits(small, FLAGS_AT, 2) as u8),
        },
        until: Moment::from_bits(words[UNTIL]),
        version: words[VERSION],
        asked: words[ASKED],
        stale: stale_of(small),
        acl: acl_of(small),
    }
}

impl AttrCell {
    pub(super) fn new(cache: &AttrCache) -> Self {
        Self {
            words: SeqWords::new(pack(cache)),
        }
    }

    /// Returns what is known. Takes no lock.
    #[inline]
    pub(super) fn read(&self) -> AttrCache {
        unpack(&self.words.read())
    }

    /// Returns what permission checks go by, if it is valid. Takes no lock.
    #[inline]
    pub(super) fn rights(&self, now: Moment) -> Option<Rights> {
        let words = self.words.read_first::<RIGHTS>();
        let small = words[SMALL];
        let valid = now < Moment::from_bits(words[UNTIL]) && !stale_of(small).contains(Stale::MODE);
        valid.then(|| Rights {
            mode: mode_of(small),
            uid: low(words[OWNER]),
            gid: high(words[OWNER]),
            acl: acl_of(small),
        })
    }

    /// Returns what reads and writes go by, if the size is valid. Takes no lock.
    pub(super) fn known(&self, now: Moment) -> Option<Known> {
        let words = self.words.read_first::<KNOWN>();
        let stale = stale_of(words[SMALL]);
        let valid = now < Moment::from_bits(words[UNTIL]) && !stale.contains(Stale::SIZE);
        valid.then(|| Known {
            size: words[SIZE],
            mode: mode_of(words[SMALL]),
            stale,
        })
    }

    /// Notes that a change has outdated `stale`, and the number that `version` gives
    /// it.
    pub(super) fn outdate(&self, stale: Stale, version: impl FnOnce() -> u64) {
        self.words.update(|words| {
            words[VERSION] = version();
            words[SMALL] |= u64::from(stale.bits()) << STALE_AT;
        });
    }

    /// Changes what is known. `change` takes no lock.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut AttrCache) -> R) -> R {
        self.words.update(|words| {
            let mut cache = unpack(words);
            let result = change(&mut cache);
            *words = pack(&cache);
            result
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use core::time::Duration;

    #[test]
    fn what_is_packed_comes_out_again() {
        let full = Attr {
            ino: u64::MAX,
            size: u64::MAX >> 1,
            blocks: u64::MAX - 1,
            atime: Time::new(-1, 999_999_999),
            mtime: Time::new(i64::MAX, 1),
            ctime: Time::new(i64::MIN, 999_999_998),
            nlink: u32::MAX,
            uid: u32::MAX,
            gid: 1,
            rdev: Rdev(u32::MAX),
            mode: Mode::new(FileType::Socket, 0o7777),
            blksize_log2: 31,
            flags: AttrFlags::all(),
        };
        let empty = Attr {
            ino: 0,
            size: 0,
            blocks: 0,
            atime: Time::default(),
            mtime: Time::default(),
            ctime: Time::default(),
            nlink: 0,
            uid: 0,
            gid: u32::MAX,
            rdev: Rdev(0),
            mode: Mode::new(FileType::Fifo, 0),
            blksize_log2: 0,
            flags: AttrFlags::empty(),
        };
        let later = Moment::new(Duration::from_secs(9));
        for attr in [full, empty] {
            for stale in [Stale::empty(), Stale::all(), Stale::MODE, Stale::ATIME] {
                for acl in [AclState::Unknown, AclState::None, AclState::Kept] {
                    let cell = AttrCell::new(&AttrCache::new(empty, later, Asked(7)));
                    cell.update(|cache| {
                        assert_eq!((cache.attr, cache.asked), (empty, 7));
                        cache.attr = attr;
                        cache.stale = stale;
                        cache.acl = acl;
                    });
                    let seen = cell.read();
                    assert_eq!((seen.attr, seen.stale, seen.acl), (attr, stale, acl));
                    assert_eq!((seen.until, seen.version), (later, 7));
                    let known = cell.known(Moment::PAST);
                    assert_eq!(known.is_none(), stale.contains(Stale::SIZE));
                    if let Some(known) = known {
                        let size_and_mode = (attr.size, attr.mode, stale);
                        assert_eq!((known.size, known.mode, known.stale), size_and_mode);
                    }
                    assert!(cell.known(later).is_none(), "it has expired");
                    let rights = cell.rights(Moment::PAST);
                    assert_eq!(rights.is_none(), stale.contains(Stale::MODE));
                    assert!(cell.rights(later).is_none(), "it has expired");
                    if let Some(rights) = rights {
                        assert_eq!(rights.mode, attr.mode);
                        assert_eq!((rights.uid, rights.gid), (attr.uid, attr.gid));
                        assert_eq!(rights.acl, acl);
                    }
                    cell.outdate(Stale::WRITTEN, || 8);
                    let seen = cell.read();
                    assert_eq!((seen.attr, seen.version, seen.acl), (attr, 8, acl));
                    assert_eq!(seen.stale, stale | Stale::WRITTEN);
                }
            }
        }
    }
}
