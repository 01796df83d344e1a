//! Directory entries and positions as the kernel wants them.

use virtio_fs::fs::DirEntry as DriverEntry;
use virtio_fs::wire::DirCookie;

use crate::value::DirEntry;

/// The driver's own cookies have bit 63 set, which in an `off_t` is a sign.
/// Positions from here on stand for them; host file systems number their entries
/// from below, and the one that hashes (ext4) leaves these out.
const OWN_COOKIES: u64 = i64::MAX as u64 - 0xff;
const OWN: u64 = 1 << 63;

pub(crate) fn cookie(offset: u64) -> DirCookie {
    match offset.checked_sub(OWN_COOKIES) {
        Some(own) if own < 0xff => DirCookie(OWN | own),
        _ => DirCookie(offset),
    }
}

fn offset(cookie: DirCookie) -> u64 {
    match cookie.0 & OWN {
        0 => cookie.0,
        _ => OWN_COOKIES + (cookie.0 & 0xff),
    }
}

pub(crate) fn record<'a>(entry: &DriverEntry<'a>) -> DirEntry<'a> {
    DirEntry {
        ino: entry.ino,
        next: offset(entry.next),
        kind: entry.file_type.map_or(0, |kind| kind.to_dirent()),
        name: entry.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cookie_is_a_position_and_back() {
        for own in [1, 2] {
            let position = offset(DirCookie(OWN | own));
            assert!(i64::try_from(position).is_ok());
            assert_eq!(cookie(position), DirCookie(OWN | own));
        }
        // The server's are what they are, the end marks of host file systems too.
        for theirs in [0, 1, 2, 1 << 62, i64::MAX as u64] {
            assert_eq!(offset(DirCookie(theirs)), theirs);
            assert_eq!(cookie(theirs), DirCookie(theirs));
        }
    }
}
