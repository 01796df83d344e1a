//! What INIT agrees on: protocol.md 3.1 and 3.2, Linux `process_init_reply`.
//!
//! fuse-backend-rs answers INIT as well, but with no word on map alignment, with
//! the minor version that it was written for, and without requiring a minor whose
//! structures it really speaks. So INIT is answered here, and the file system
//! only told what was agreed.

use std::io;

use crate::options::{Cache, Dax, Submounts};
use crate::window::PAGE;

/// Length of `fuse_init_in` with its second flag word.
pub const INIT_IN: usize = 64;
/// Length of `fuse_init_in` before that.
pub const INIT_IN_SHORT: usize = 16;
/// Length of `fuse_init_out`.
pub const INIT_OUT: usize = 64;

const MAJOR: u32 = 7;
/// The version whose structures and opcodes are served.
const MINOR: u32 = 38;
/// Structures had other sizes before.
const LEAST_MINOR: u32 = 27;

/// Pages in the data of one request, and so 1 MiB.
const MAX_PAGES: u16 = 256;
/// Linux and the protocol allow so many without MAX_PAGES.
const PAGES_WITHOUT_FLAG: u32 = 32;
/// Largest WRITE.
pub const MAX_WRITE: u32 = MAX_PAGES as u32 * PAGE as u32;
/// Largest request: the data, headers and arguments.
pub const MAX_REQUEST: usize = MAX_WRITE as usize + 4096;

const MAX_BACKGROUND: u16 = u16::MAX;
const CONGESTION_THRESHOLD: u16 = MAX_BACKGROUND / 4 * 3;

/// Flags of INIT, by their names in `fuse.h`.
pub mod flag {
    /// Several READs of one file at once.
    pub const ASYNC_READ: u64 = 1 << 0;
    /// OPEN truncates.
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    /// WRITE of more than a page.
    pub const BIG_WRITES: u64 = 1 << 5;
    /// The client drops data when times or size change.
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    /// READDIRPLUS is served.
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    /// The client chooses between it and READDIR.
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    /// Several direct requests in flight.
    pub const ASYNC_DIO: u64 = 1 << 15;
    /// Requests in one directory in parallel.
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    /// `max_pages` holds.
    pub const MAX_PAGES: u64 = 1 << 22;
    /// `map_alignment` holds.
    pub const MAP_ALIGNMENT: u64 = 1 << 26;
    /// The SUBMOUNT attribute is understood.
    pub const SUBMOUNTS: u64 = 1 << 27;
    /// The second flag word holds.
    pub const INIT_EXT: u64 = 1 << 30;
    /// The DAX attribute is understood.
    pub const HAS_INODE_DAX: u64 = 1 << 33;
}

/// What this daemon can do, from its options.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// `never` also means no READDIRPLUS: its attributes could not be kept.
    pub cache: Cache,
    /// Whether SUBMOUNT is told.
    pub submounts: Submounts,
    /// Size of the window; 0 for none.
    pub window: u64,
    /// `never` also means that nothing is said of the DAX attribute.
    pub dax: Dax,
}

/// How INIT is answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The session begins; `flags` are those that both sides have.
    Begin {
        /// Agreed flags.
        flags: u64,
        /// The `fuse_init_out`.
        reply: [u8; INIT_OUT],
    },
    /// The client speaks a later major version and is to ask again with ours.
    AskAgain {
        /// The `fuse_init_out`.
        reply: [u8; INIT_OUT],
    },
}

impl Abilities {
    fn flags(self) -> u64 {
        let mut flags = flag::ASYNC_READ
            | flag::ATOMIC_O_TRUNC
            | flag::BIG_WRITES
            | flag::AUTO_INVAL_DATA
            | flag::ASYNC_DIO
            | flag::PARALLEL_DIROPS
            | flag::MAX_PAGES
            | flag::INIT_EXT;
        if self.cache != Cache::Never {
            flags |= flag::DO_READDIRPLUS | flag::READDIRPLUS_AUTO;
        }
        if self.submounts == Submounts::Announced {
            flags |= flag::SUBMOUNTS;
        }
        if self.window != 0 {
            flags |= flag::MAP_ALIGNMENT;
            if self.dax != Dax::Never {
                flags |= flag::HAS_INODE_DAX;
            }
        }
        flags
    }

    /// Answers a `fuse_init_in`, the bytes after the header.
    ///
    /// # Errors
    /// `EPROTO` for a version that is too old, `EINVAL` for a request that is too
    /// short for what its flags say.
    pub fn answer(self, args: &[u8]) -> io::Result<Answer> {
        let word = |at: usize| {
            args.get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_le_bytes)
        };
        let short = || io::Error::from_raw_os_error(libc::EINVAL);
        let (major, minor) = (word(0).ok_or_else(short)?, word(4).ok_or_else(short)?);
        let mut reply = Reply([0; INIT_OUT]);
        reply.put(0, &MAJOR.to_le_bytes());
        reply.put(4, &MINOR.to_le_bytes());
        if major > MAJOR {
            return Ok(Answer::AskAgain { reply: reply.0 });
        }
        if major < MAJOR || minor < LEAST_MINOR {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        }
        let max_readahead = word(8).ok_or_else(short)?;
        let mut asked = u64::from(word(12).ok_or_else(short)?);
        if asked & flag::INIT_EXT != 0 {
            if args.len() < INIT_IN {
                return Err(short());
            }
            asked |= u64::from(word(16).ok_or_else(short)?) << 32;
        }
        let mut flags = asked & self.flags();
        if flags & flag::INIT_EXT == 0 {
            flags &= u64::from(u32::MAX);
        }
        let max_write = if flags & flag::MAX_PAGES != 0 {
            MAX_WRITE
        } else {
            PAGES_WITHOUT_FLAG * PAGE as u32
        };
        let max_pages = if flags & flag::MAX_PAGES != 0 {
            MAX_PAGES
        } else {
            0
        };
        let map_alignment = if flags & flag::MAP_ALIGNMENT != 0 {
            PAGE.ilog2() as u16
        } else {
            0
        };
        reply.put(8, &max_readahead.to_le_bytes());
        reply.put(12, &(flags as u32).to_le_bytes());
        reply.put(16, &MAX_BACKGROUND.to_le_bytes());
        reply.put(18, &CONGESTION_THRESHOLD.to_le_bytes());
        reply.put(20, &max_write.to_le_bytes());
        reply.put(24, &1u32.to_le_bytes()); // time_gran: nanoseconds
        reply.put(28, &max_pages.to_le_bytes());
        reply.put(30, &map_alignment.to_le_bytes());
        reply.put(32, &((flags >> 32) as u32).to_le_bytes());
        Ok(Answer::Begin {
            flags,
            reply: reply.0,
        })
    }
}

struct Reply([u8; INIT_OUT]);

impl Reply {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Abilities = Abilities {
        cache: Cache::Auto,
        submounts: Submounts::Announced,
        window: 64 << 20,
        dax: Dax::Always,
    };

    fn init(major: u32, minor: u32, flags: u64) -> Vec<u8> {
        let mut args = vec![0; INIT_IN];
        args[0..4].copy_from_slice(&major.to_le_bytes());
        args[4..8].copy_from_slice(&minor.to_le_bytes());
        args[8..12].copy_from_slice(&0x20000u32.to_le_bytes());
        args[12..16].copy_from_slice(&(flags as u32).to_le_bytes());
        args[16..20].copy_from_slice(&((flags >> 32) as u32).to_le_bytes());
        args
    }

    fn begun(abilities: Abilities, args: &[u8]) -> (u64, [u8; INIT_OUT]) {
        match abilities.answer(args) {
            Ok(Answer::Begin { flags, reply }) => (flags, reply),
            other => panic!("{other:?}"),
        }
    }

    fn u16_at(reply: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([reply[at], reply[at + 1]])
    }

    fn u32_at(reply: &[u8], at: usize) -> u32 {
        u32::from(u16_at(reply, at)) | u32::from(u16_at(reply, at + 2)) << 16
    }

    #[test]
    fn a_client_with_max_pages_gets_one_mebibyte() {
        let (flags, reply) = begun(ALL, &init(7, 38, !(1 << 31)));
        assert_eq!((u32_at(&reply, 20), u16_at(&reply, 28)), (1 << 20, 256));
        assert_eq!(u16_at(&reply, 30), 12, "alignment of mappings");
        assert_eq!(u32_at(&reply, 8), 0x20000, "read-ahead is echoed");
        assert_eq!(
            (u32_at(&reply, 12), u32_at(&reply, 32)),
            (flags as u32, (flags >> 32) as u32)
        );
        assert_eq!(flags, ALL.flags());
    }

    #[test]
    fn a_client_without_max_pages_gets_what_fits_in_32() {
        let (_, reply) = begun(ALL, &init(7, 38, flag::BIG_WRITES));
        assert_eq!((u32_at(&reply, 20), u16_at(&reply, 28)), (32 * 4096, 0));
    }

    #[test]
    fn flags_that_were_not_asked_for_are_not_answered() {
        assert_eq!(
            begun(ALL, &init(7, 38, flag::ASYNC_READ)).0,
            flag::ASYNC_READ
        );
        // Without INIT_EXT there is no second word.
        assert_eq!(begun(ALL, &init(7, 38, flag::HAS_INODE_DAX)).0, 0);
    }

    #[test]
    fn without_a_window_nothing_is_said_of_mappings() {
        let none = Abilities { window: 0, ..ALL };
        let (flags, reply) = begun(none, &init(7, 38, !(1 << 31)));
        assert_eq!(flags & (flag::MAP_ALIGNMENT | flag::HAS_INODE_DAX), 0);
        assert_eq!(u16_at(&reply, 30), 0);
    }

    #[test]
    fn versions_meet() {
        assert!(
            matches!(ALL.answer(&init(8, 0, 0)), Ok(Answer::AskAgain { reply }) if u32_at(&reply, 0) == 7)
        );
        for (major, minor) in [(6, 99), (7, 26)] {
            let e = ALL.answer(&init(major, minor, 0)).expect_err("too old");
            assert_eq!(e.raw_os_error(), Some(libc::EPROTO));
        }
        // A later minor is fine: ours is lower and counts.
        assert_eq!(u32_at(&begun(ALL, &init(7, 45, 0)).1, 4), MINOR);
    }

    #[test]
    fn the_short_form_is_enough_without_init_ext() {
        let args = init(7, 31, flag::ASYNC_READ);
        assert_eq!(begun(ALL, &args[..INIT_IN_SHORT]).0, flag::ASYNC_READ);
        let args = init(7, 38, flag::INIT_EXT);
        let e = ALL
            .answer(&args[..INIT_IN_SHORT])
            .expect_err("second word is missing");
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
        for n in 0..INIT_IN_SHORT {
            let e = ALL.answer(&args[..n]).expect_err("too short");
            assert_eq!(e.raw_os_error(), Some(libc::EINVAL), "{n} bytes");
        }
    }
}
