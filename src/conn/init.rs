//! INIT: what we offer, what we refuse and why, and what comes of it.

use core::time::Duration;

use super::config::{DataCache, DaxMode, Offer};
use super::limits::Limits;
use super::open::OpenError;
use super::pool::Class;
use super::{Connection, State};
use crate::device::Data;
use crate::platform::{PAGE_SIZE, Platform};
use crate::wire::{
    Dialect, Init, InitFlags as F, InitReply, MAJOR, MINOR, NAME_MAX, NAME_MAX_LONG,
};

/// What the driver does with a feature of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// Offered always.
    Always,
    /// Offered where data of files are cached, here or above the driver.
    WithDataCache,
    /// Offered where written data are kept back.
    WithWriteBack,
    /// Offered where remote locks are wanted.
    WithRemoteLocks,
    /// Offered where ACLs are wanted.
    WithAcl,
    /// Offered where the platform labels new files.
    WithLabels,
    /// Offered where submounts are wanted.
    WithSubmounts,
    /// Offered where there is a DAX window to be used.
    WithWindow,
    /// Offered where there is a DAX window and the server says for which files.
    WithInodeDax,
    /// Never offered.
    Refused,
}

/// Every feature of the protocol through 7.45: what we do with it, and why.
pub const FEATURES: &[(F, Stance, &str)] = &[
    (
        F::ASYNC_READ,
        Stance::Always,
        "several READs of one file are in flight",
    ),
    (
        F::POSIX_LOCKS,
        Stance::WithRemoteLocks,
        "GETLK, SETLK and SETLKW go to the server; without it locks are local",
    ),
    (F::FILE_OPS, Stance::Refused, "historic, without effect"),
    (
        F::ATOMIC_O_TRUNC,
        Stance::Always,
        "OPEN truncates; saves a SETATTR",
    ),
    (
        F::EXPORT_SUPPORT,
        Stance::Refused,
        "nothing here finds an inode by a handle from outside",
    ),
    (
        F::BIG_WRITES,
        Stance::Always,
        "WRITE carries up to max_write",
    ),
    (
        F::DONT_MASK,
        Stance::WithAcl,
        "default ACLs replace the umask, which only the server can do atomically",
    ),
    (F::SPLICE_WRITE, Stance::Refused, "of /dev/fuse"),
    (F::SPLICE_MOVE, Stance::Refused, "of /dev/fuse"),
    (F::SPLICE_READ, Stance::Refused, "of /dev/fuse"),
    (
        F::FLOCK_LOCKS,
        Stance::WithRemoteLocks,
        "as POSIX_LOCKS, for whole files",
    ),
    (F::HAS_IOCTL_DIR, Stance::Always, "IOCTL on directories"),
    (
        F::AUTO_INVAL_DATA,
        Stance::WithDataCache,
        "cached data go when size or mtime change",
    ),
    (
        F::DO_READDIRPLUS,
        Stance::Always,
        "names and attributes in one reply",
    ),
    (
        F::READDIRPLUS_AUTO,
        Stance::Always,
        "plus only where lookups follow",
    ),
    (
        F::ASYNC_DIO,
        Stance::Always,
        "several direct requests of one file are in flight",
    ),
    (
        F::WRITEBACK_CACHE,
        Stance::WithWriteBack,
        "dirty pages are kept, and sizes are ours meanwhile; times stay the server's",
    ),
    (
        F::NO_OPEN_SUPPORT,
        Stance::Always,
        "ENOSYS to OPEN ends opening for the session",
    ),
    (
        F::PARALLEL_DIROPS,
        Stance::Always,
        "no lock is held over LOOKUP and READDIR",
    ),
    (
        F::HANDLE_KILLPRIV,
        Stance::Always,
        "the server clears set-id bits; set aside where V2 is active",
    ),
    (
        F::POSIX_ACL,
        Stance::WithAcl,
        "ACLs are fetched and checked here",
    ),
    (F::ABORT_ERROR, Stance::Refused, "of /dev/fuse"),
    (
        F::MAX_PAGES,
        Stance::Always,
        "more than 32 pages in a request",
    ),
    (
        F::CACHE_SYMLINKS,
        Stance::Always,
        "targets are kept with the inode",
    ),
    (
        F::NO_OPENDIR_SUPPORT,
        Stance::Always,
        "ENOSYS to OPENDIR ends opening directories",
    ),
    (
        F::EXPLICIT_INVAL_DATA,
        Stance::WithDataCache,
        "cached data go only when the server says so",
    ),
    (
        F::MAP_ALIGNMENT,
        Stance::WithWindow,
        "ranges are as long as the server needs them",
    ),
    (
        F::SUBMOUNTS,
        Stance::WithSubmounts,
        "a directory on another host file system gets its own st_dev",
    ),
    (
        F::HANDLE_KILLPRIV_V2,
        Stance::Always,
        "requests say when set-id bits must go",
    ),
    (
        F::SETXATTR_EXT,
        Stance::Always,
        "SETXATTR carries flags, for ACLs",
    ),
    (F::INIT_EXT, Stance::Always, "64 feature bits"),
    (F::INIT_RESERVED, Stance::Refused, "must stay 0"),
    (
        F::SECURITY_CTX,
        Stance::WithLabels,
        "new files are made with the label that the platform names",
    ),
    (
        F::HAS_INODE_DAX,
        Stance::WithInodeDax,
        "the server marks the files that are worth the window",
    ),
    (
        F::CREATE_SUPP_GROUP,
        Stance::Always,
        "the parent's group travels with a creation",
    ),
    (
        F::HAS_EXPIRE_ONLY,
        Stance::Always,
        "INVAL_ENTRY may expire an entry instead of dropping it",
    ),
    (
        F::DIRECT_IO_ALLOW_MMAP,
        Stance::Always,
        "without it File::may_map refuses shared mappings of direct files",
    ),
    (F::PASSTHROUGH, Stance::Refused, "of /dev/fuse"),
    (F::NO_EXPORT_SUPPORT, Stance::Refused, "as EXPORT_SUPPORT"),
    (
        F::HAS_RESEND,
        Stance::Refused,
        "what a lost session had is sent again without being asked",
    ),
    (
        F::ALLOW_IDMAP,
        Stance::Refused,
        "ids are not mapped, and requests would lose theirs",
    ),
    (F::OVER_IO_URING, Stance::Refused, "of /dev/fuse"),
    (
        F::REQUEST_TIMEOUT,
        Stance::Always,
        "the server's wish bounds our deadlines",
    ),
];

/// Defaults of the protocol where the server states nothing.
const DEFAULT_BACKGROUND: u16 = 12;
const DEFAULT_MAX_PAGES: u16 = 32;
/// Pages that we let a server ask for in one request.
const MAX_MAX_PAGES: u16 = 256;
/// Lowest minor version we get along with: before it READ and WRITE carry
/// neither flags nor a lock owner.
const MIN_MINOR: u32 = 9;

/// Returns the features to offer; `dax` is `Never` where there is no window.
pub(super) fn offered(offer: &Offer, cache: DataCache, dax: DaxMode) -> F {
    let mut flags = F::empty();
    for (flag, stance, _) in FEATURES {
        let yes = match stance {
            Stance::Always => true,
            Stance::WithDataCache => offer.data_cache || cache != DataCache::None,
            Stance::WithWriteBack => cache == DataCache::WriteBack,
            Stance::WithRemoteLocks => offer.remote_locks,
            Stance::WithAcl => offer.posix_acl,
            Stance::WithLabels => offer.security_labels,
            Stance::WithSubmounts => offer.submounts,
            Stance::WithWindow => dax != DaxMode::Never,
            Stance::WithInodeDax => dax == DaxMode::Inode,
            Stance::Refused => false,
        };
        if yes {
            flags |= *flag;
        }
    }
    flags
}

/// Returns the features that a connection offers.
fn offers<P: Platform>(conn: &Connection<P>) -> F {
    offered(&conn.config.offer, conn.config.data_cache, conn.dax_mode())
}

/// What holds until INIT is answered.
pub(super) fn before() -> Limits {
    Limits {
        minor: MINOR,
        flags: F::empty(),
        dialect: Dialect::INITIAL,
        max_write: PAGE_SIZE as u32,
        max_read: PAGE_SIZE as u32,
        max_pages: 1,
        max_readahead: 0,
        max_background: DEFAULT_BACKGROUND,
        congestion: DEFAULT_BACKGROUND * 3 / 4,
        time_gran: 1,
        map_alignment: PAGE_SIZE as u64,
        request_timeout: None,
        name_max: NAME_MAX,
    }
}

/// Features without which a session must not go on that began with them: who
/// may do what would be decided otherwise than before.
const KEPT: F = F::POSIX_ACL;

/// Sends INIT in a session that takes the place of one with these limits.
///
/// No more is offered than was in effect before, because what began without a
/// feature (local locks, one device number for all) goes on without it.
///
/// # Errors
///
/// [`OpenError::Lacks`] if the new server lacks what cannot be done without.
pub(super) fn renegotiate<P: Platform>(
    conn: &Connection<P>,
    before: &Limits,
) -> Result<Limits, OpenError> {
    let limits = send(conn, offers(conn) & (before.flags | F::INIT_EXT))?;
    let lacks = before.flags.difference(limits.flags) & KEPT;
    if lacks.is_empty() {
        Ok(limits)
    } else {
        Err(OpenError::Lacks(lacks))
    }
}

/// Sends the first INIT.
pub(super) fn negotiate<P: Platform>(conn: &Connection<P>) -> Result<Limits, OpenError> {
    send(conn, offers(conn))
}

/// Sends INIT, once more if the server asks for another version.
fn send<P: Platform>(conn: &Connection<P>, sent: F) -> Result<Limits, OpenError> {
    let mut init = Init {
        major: MAJOR,
        minor: MINOR,
        max_readahead: conn.config.max_readahead,
        flags: sent,
    };
    for _ in 0..2 {
        let reply = conn
            .call(&init, Data::None, Class::Session)
            .map_err(|error| {
                conn.state.change(State::Starting, State::Refused);
                OpenError::Init(error)
            })?;
        if reply.major == MAJOR && reply.minor >= MIN_MINOR {
            return Ok(settle(sent, &reply, conn.config.max_readahead));
        }
        let version = OpenError::Version {
            major: reply.major,
            minor: reply.minor,
        };
        if reply.major <= MAJOR {
            conn.state.change(State::Starting, State::Refused);
            return Err(version);
        }
        // A newer server names its version and waits for one that it can speak:
        // ours, again, which it now knows to be final.
        init.minor = MINOR;
        log::info!(
            "virtio-fs: server offers FUSE {}.{}, asking for 7.{MINOR}",
            reply.major,
            reply.minor
        );
    }
    conn.state.change(State::Starting, State::Refused);
    Err(OpenError::Version {
        major: MAJOR + 1,
        minor: 0,
    })
}

/// Derives the limits of the session.
fn settle(sent: F, reply: &InitReply, our_readahead: u32) -> Limits {
    let mut dialect = Dialect::negotiated(sent, reply);
    if dialect.flags.contains(F::HANDLE_KILLPRIV_V2) {
        // The two have different rules; V2 is the one that is exact (S4-M02).
        dialect.flags.remove(F::HANDLE_KILLPRIV);
    }
    let flags = dialect.flags;
    let max_pages = if flags.contains(F::MAX_PAGES) {
        reply.max_pages.clamp(1, MAX_MAX_PAGES)
    } else {
        DEFAULT_MAX_PAGES
    };
    let by_pages = u32::from(max_pages) * PAGE_SIZE as u32;
    let max_write = if flags.contains(F::BIG_WRITES) {
        reply.max_write
    } else {
        PAGE_SIZE as u32
    };
    let nonzero = |n: u16, default: u16| if n == 0 { default } else { n };
    let max_background = nonzero(reply.max_background, DEFAULT_BACKGROUND);
    Limits {
        minor: dialect.minor,
        flags,
        dialect,
        max_write: max_write.max(PAGE_SIZE as u32).min(by_pages),
        max_read: by_pages,
        max_pages,
        max_readahead: reply.max_readahead.min(our_readahead),
        max_background,
        congestion: nonzero(reply.congestion_threshold, max_background / 4 * 3).min(max_background),
        time_gran: if (1..=1_000_000_000).contains(&reply.time_gran) {
            reply.time_gran
        } else {
            1
        },
        map_alignment: match reply.map_alignment {
            0..12 => PAGE_SIZE as u64,
            n => 1 << n.min(63),
        },
        request_timeout: match reply.request_timeout {
            n if n > 0 && flags.contains(F::REQUEST_TIMEOUT) => Some(Duration::from_secs(n.into())),
            _ => None,
        },
        name_max: if max_pages > 1 {
            NAME_MAX_LONG
        } else {
            NAME_MAX
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(flags: F) -> InitReply {
        InitReply {
            major: 7,
            minor: 38,
            max_readahead: u32::MAX,
            flags,
            max_background: 0,
            congestion_threshold: 0,
            max_write: 1 << 20,
            time_gran: 0,
            max_pages: 256,
            map_alignment: 0,
            max_stack_depth: 0,
            request_timeout: 0,
        }
    }

    #[test]
    fn every_feature_of_the_protocol_has_a_stance() {
        let mut all = F::empty();
        for (flag, _, why) in FEATURES {
            assert!(!all.intersects(*flag), "{flag} stands twice");
            assert!(!why.is_empty());
            all |= *flag;
        }
        assert_eq!(all, F::all());
    }

    #[test]
    fn the_two_killpriv_features_are_never_active_together() {
        let both = F::HANDLE_KILLPRIV | F::HANDLE_KILLPRIV_V2;
        let limits = settle(both, &reply(both), 0);
        assert_eq!(limits.flags, F::HANDLE_KILLPRIV_V2);
        assert_eq!(
            settle(both, &reply(F::HANDLE_KILLPRIV), 0).flags,
            F::HANDLE_KILLPRIV
        );
    }

    #[test]
    fn without_max_pages_a_request_has_32_pages() {
        let limits = settle(F::BIG_WRITES, &reply(F::BIG_WRITES), 4096);
        assert_eq!(
            (limits.max_pages, limits.max_write, limits.max_read),
            (32, 131_072, 131_072)
        );
        assert_eq!(limits.max_readahead, 4096);
    }

    #[test]
    fn absurd_limits_are_brought_into_range() {
        let flags = F::MAX_PAGES | F::BIG_WRITES;
        let mut r = reply(flags);
        (r.max_write, r.max_pages) = (0, 0);
        let limits = settle(flags, &r, 0);
        assert_eq!((limits.max_write, limits.max_pages), (4096, 1));
        (r.max_write, r.max_pages) = (u32::MAX, u16::MAX);
        let limits = settle(flags, &r, 0);
        assert_eq!((limits.max_write, limits.max_pages), (1 << 20, 256));
        assert_eq!(
            (limits.max_background, limits.congestion, limits.time_gran),
            (12, 9, 1)
        );
    }

    #[test]
    fn what_concerns_the_window_is_offered_only_with_one() {
        let both = F::MAP_ALIGNMENT | F::HAS_INODE_DAX;
        let sent = |dax| offered(&Offer::default(), DataCache::None, dax) & both;
        assert_eq!(sent(DaxMode::Never), F::empty());
        assert_eq!(sent(DaxMode::Always), F::MAP_ALIGNMENT);
        assert_eq!(sent(DaxMode::Inode), both);
    }

    #[test]
    fn flags_that_were_not_sent_are_ignored() {
        let limits = settle(F::MAX_PAGES, &reply(F::all()), 0);
        assert_eq!(limits.flags, F::MAX_PAGES);
    }
}
