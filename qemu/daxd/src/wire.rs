//! What a well-formed FUSE request looks like, checked before anything is done
//! with it: protocol.md 2.1 and 2.2, Linux `fuse.h`.
//!
//! fuse-backend-rs leaves a request without a reply when its arguments do not
//! parse, and starts the work before it finds that the reply does not fit. After
//! the check here a request has all its fixed arguments, as many names as its
//! operation takes, and room for the reply.

use std::io;

/// Length of `fuse_in_header`.
pub const IN_HEADER: usize = 40;
/// Length of `fuse_out_header`.
pub const OUT_HEADER: usize = 16;

/// Operation codes that are named here; the rest goes by number.
pub mod opcode {
    #![expect(missing_docs, reason = "the names are those of fuse.h")]
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const SYNCFS: u32 = 50;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}

/// The `fuse_in_header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHeader {
    /// Length of the request with this header.
    pub len: u32,
    /// Operation.
    pub opcode: u32,
    /// Comes back in the reply.
    pub unique: u64,
    /// The node it is about.
    pub node: u64,
    /// User of the caller in the guest.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its process.
    pub pid: u32,
    /// Length of the extensions at the end, in units of 8 bytes.
    pub extensions: u16,
}

/// Little-endian integer at `at`, or 0 past the end; for bytes whose length was
/// checked.
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// As [`u32_at`].
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

impl InHeader {
    /// Reads the header.
    pub fn parse(bytes: &[u8; IN_HEADER]) -> Self {
        Self {
            len: u32_at(bytes, 0),
            opcode: u32_at(bytes, 4),
            unique: u64_at(bytes, 8),
            node: u64_at(bytes, 16),
            uid: u32_at(bytes, 24),
            gid: u32_at(bytes, 28),
            pid: u32_at(bytes, 32),
            extensions: u32_at(bytes, 36) as u16,
        }
    }

    /// Whether nobody waits for an answer: these have no room for one.
    pub fn is_unanswered(&self) -> bool {
        matches!(
            self.opcode,
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT
        )
    }
}

/// A `fuse_out_header` for a reply with `payload` bytes after it, or, where
/// `error` is an errno, for an error.
pub fn out_header(unique: u64, payload: usize, error: i32) -> [u8; OUT_HEADER] {
    let mut header = [0; OUT_HEADER];
    header[0..4].copy_from_slice(&((OUT_HEADER + payload) as u32).to_le_bytes());
    header[4..8].copy_from_slice(&(-error).to_le_bytes());
    header[8..16].copy_from_slice(&unique.to_le_bytes());
    header
}

/// What follows the fixed arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    /// Nothing.
    Empty,
    /// So many names, each ended by a NUL.
    Names(usize),
    /// A name, then as many bytes as the u32 at the begin of the arguments says.
    NameAndValue,
    /// As many bytes as the u32 at 16 of the arguments says.
    Data,
    /// As many records of 16 bytes as the u32 at the begin of the arguments says.
    Records,
}

/// What the reply holds after its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There is no reply.
    NoReply,
    /// So many bytes.
    Fixed(usize),
    /// As many bytes as the u32 at this place of the arguments says, or 8 if that
    /// is 0: a GETXATTR that asks for the size.
    Asked(usize),
}

struct Shape {
    args: usize,
    tail: Tail,
    room: Room,
}

const ENTRY: usize = 128;
const ATTR: usize = 104;
const OPENED: usize = 16;

/// Shape of a request, None for an operation that is not served.
fn shape(code: u32) -> Option<Shape> {
    use opcode::*;
    let (args, tail, room) = match code {
        LOOKUP => (0, Tail::Names(1), Room::Fixed(ENTRY)),
        FORGET | INTERRUPT => (8, Tail::Empty, Room::NoReply),
        GETATTR => (16, Tail::Empty, Room::Fixed(ATTR)),
        SETATTR => (88, Tail::Empty, Room::Fixed(ATTR)),
        READLINK => (0, Tail::Empty, Room::Fixed(1)),
        SYMLINK => (0, Tail::Names(2), Room::Fixed(ENTRY)),
        MKNOD => (16, Tail::Names(1), Room::Fixed(ENTRY)),
        MKDIR | LINK => (8, Tail::Names(1), Room::Fixed(ENTRY)),
        UNLINK | RMDIR | REMOVEXATTR => (0, Tail::Names(1), Room::Fixed(0)),
        RENAME => (8, Tail::Names(2), Room::Fixed(0)),
        RENAME2 => (16, Tail::Names(2), Room::Fixed(0)),
        OPEN | OPENDIR => (8, Tail::Empty, Room::Fixed(OPENED)),
        READ | READDIR | READDIRPLUS => (40, Tail::Empty, Room::Asked(16)),
        WRITE => (40, Tail::Data, Room::Fixed(8)),
        STATFS => (0, Tail::Empty, Room::Fixed(80)),
        RELEASE | RELEASEDIR | FLUSH => (24, Tail::Empty, Room::Fixed(0)),
        FSYNC | FSYNCDIR => (16, Tail::Empty, Room::Fixed(0)),
        SETXATTR => (8, Tail::NameAndValue, Room::Fixed(0)),
        GETXATTR => (8, Tail::Names(1), Room::Asked(0)),
        LISTXATTR => (8, Tail::Empty, Room::Asked(0)),
        ACCESS | SYNCFS => (8, Tail::Empty, Room::Fixed(0)),
        CREATE => (16, Tail::Names(1), Room::Fixed(ENTRY + OPENED)),
        BATCH_FORGET => (8, Tail::Records, Room::NoReply),
        FALLOCATE => (32, Tail::Empty, Room::Fixed(0)),
        LSEEK => (24, Tail::Empty, Room::Fixed(8)),
        COPY_FILE_RANGE | COPY_FILE_RANGE_64 => (56, Tail::Empty, Room::Fixed(8)),
        SETUPMAPPING => (40, Tail::Empty, Room::Fixed(0)),
        REMOVEMAPPING => (4, Tail::Records, Room::Fixed(0)),
        // How long their arguments are depends on the version and on the peer.
        INIT => {
            return Some(Shape {
                args: 0,
                tail: Tail::Data,
                room: Room::Fixed(0),
            });
        }
        DESTROY => (0, Tail::Empty, Room::NoReply),
        _ => return None,
    };
    Some(Shape { args, tail, room })
}

/// How many of the bytes after the header [`check`] has to see; the rest is data.
pub fn checked_bytes(header: &InHeader) -> usize {
    match shape(header.opcode) {
        None => 0,
        Some(Shape { args, tail, .. }) => match tail {
            Tail::Names(_) | Tail::NameAndValue => usize::MAX,
            _ => args,
        },
    }
}

/// Checks a request. `body` holds its first [`checked_bytes`] after the header,
/// `body_len` says how many there are in all, `room` how many bytes may be written
/// after the reply's header.
///
/// # Errors
/// - `ENOSYS`: the operation is not served;
/// - `EINVAL`: arguments, names or data are not what the operation takes, or the
///   reply would not fit.
pub fn check(header: &InHeader, body: &[u8], body_len: usize, room: usize) -> io::Result<()> {
    let Some(shape) = shape(header.opcode) else {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    };
    if header.opcode == opcode::INIT {
        return Ok(());
    }
    // No extension was agreed on.
    let tail_len = body_len.checked_sub(shape.args);
    let tail_fits = header.extensions == 0
        && tail_len.is_some_and(|tail_len| match shape.tail {
            // Some clients send an argument that an operation has no use for.
            Tail::Empty => true,
            Tail::Names(count) => are_names(&body[shape.args..], count),
            Tail::NameAndValue => is_name_and_value(&body[shape.args..], u32_at(body, 0)),
            Tail::Data => tail_len == u32_at(body, 16) as usize,
            Tail::Records => u64::from(u32_at(body, 0)) * 16 == tail_len as u64,
        });
    let needed = match shape.room {
        Room::NoReply => 0,
        Room::Fixed(n) => n,
        Room::Asked(at) => match u32_at(body, at) as usize {
            0 => 8,
            n => n,
        },
    };
    let empty_read = shape.room == Room::Asked(16) && u32_at(body, 16) == 0;
    if tail_fits && (room >= needed || empty_read) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
}

fn are_names(bytes: &[u8], count: usize) -> bool {
    bytes.last() == Some(&0) && bytes.iter().filter(|&&b| b == 0).count() == count && bytes[0] != 0
}

fn is_name_and_value(bytes: &[u8], value: u32) -> bool {
    bytes
        .iter()
        .position(|&b| b == 0)
        .is_some_and(|nul| nul > 0 && bytes.len() - nul - 1 == value as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(opcode: u32) -> InHeader {
        InHeader {
            len: 0,
            opcode,
            unique: 1,
            node: 1,
            uid: 0,
            gid: 0,
            pid: 0,
            extensions: 0,
        }
    }

    fn verdict(code: u32, body: &[u8], room: usize) -> i32 {
        match check(&header(code), body, body.len(), room) {
            Ok(()) => 0,
            Err(e) => e.raw_os_error().unwrap_or(-1),
        }
    }

    #[test]
    fn headers_have_the_layout_of_fuse_h() {
        let bytes: [u8; IN_HEADER] = std::array::from_fn(|n| n as u8 + 1);
        let h = InHeader::parse(&bytes);
        assert_eq!((h.len, h.opcode), (0x0403_0201, 0x0807_0605));
        assert_eq!(
            (h.unique, h.node),
            (0x100f_0e0d_0c0b_0a09, 0x1817_1615_1413_1211)
        );
        assert_eq!(
            (h.uid, h.gid, h.pid),
            (0x1c1b_1a19, 0x201f_1e1d, 0x2423_2221)
        );
        assert_eq!(h.extensions, 0x2625);
        assert_eq!(
            out_header(0x0102_0304_0506_0708, 8, 0),
            [24, 0, 0, 0, 0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]
        );
        assert_eq!(out_header(1, 0, libc::EINVAL)[4..8], (-22i32).to_le_bytes());
    }

    #[test]
    fn names_are_whole_and_as_many_as_the_operation_takes() {
        use opcode::*;
        assert_eq!(verdict(LOOKUP, b"a\0", 128), 0);
        for bad in [&b""[..], b"a", b"\0", b"a\0b", b"a\0b\0", b"a\0\0"] {
            assert_eq!(verdict(LOOKUP, bad, 128), libc::EINVAL, "{bad:?}");
        }
        assert_eq!(verdict(RENAME, b"12345678a\0b\0", 0), 0);
        assert_eq!(verdict(RENAME, b"12345678a\0", 0), libc::EINVAL);
        assert_eq!(verdict(SETXATTR, b"\x02\0\0\0\0\0\0\0user.a\0xy", 0), 0);
        assert_eq!(
            verdict(SETXATTR, b"\x03\0\0\0\0\0\0\0user.a\0xy", 0),
            libc::EINVAL
        );
    }

    #[test]
    fn the_reply_has_to_fit() {
        use opcode::*;
        assert_eq!(verdict(LOOKUP, b"a\0", 127), libc::EINVAL);
        let mut read = [0u8; 40];
        read[16..20].copy_from_slice(&4096u32.to_le_bytes());
        assert_eq!(verdict(READ, &read, 4096), 0);
        assert_eq!(verdict(READ, &read, 4095), libc::EINVAL);
        assert_eq!(verdict(READ, &[0; 40], 0), 0, "a read of nothing");
        assert_eq!(verdict(GETXATTR, b"\0\0\0\0\0\0\0\0user.a\0", 8), 0);
        assert_eq!(
            verdict(GETXATTR, b"\0\0\0\0\0\0\0\0user.a\0", 7),
            libc::EINVAL
        );
    }

    #[test]
    fn counts_agree_with_what_follows() {
        use opcode::*;
        let mut write = [0u8; 50];
        write[16..20].copy_from_slice(&10u32.to_le_bytes());
        assert_eq!(verdict(WRITE, &write, 8), 0);
        assert_eq!(verdict(WRITE, &write[..49], 8), libc::EINVAL);
        let mut remove = vec![0u8; 4 + 32];
        remove[0] = 2;
        assert_eq!(verdict(REMOVEMAPPING, &remove, 0), 0);
        remove[0] = 3;
        assert_eq!(verdict(REMOVEMAPPING, &remove, 0), libc::EINVAL);
        remove[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(verdict(REMOVEMAPPING, &remove, 0), libc::EINVAL);
    }

    #[test]
    fn every_truncation_of_fixed_arguments_is_refused() {
        for code in 1..64 {
            let Some(shape) = shape(code) else { continue };
            for n in 0..shape.args {
                assert_eq!(
                    verdict(code, &vec![0; n], 1 << 20),
                    libc::EINVAL,
                    "operation {code}, {n} bytes"
                );
            }
        }
    }

    #[test]
    fn what_is_not_served_is_enosys() {
        for code in [0, 7, 19, 31, 39, 40, 51, 52, 54, 4096, u32::MAX] {
            assert_eq!(verdict(code, &[], 0), libc::ENOSYS, "operation {code}");
        }
    }

    #[test]
    fn extensions_that_were_not_agreed_on_are_refused() {
        let h = InHeader {
            extensions: 2,
            ..header(opcode::MKDIR)
        };
        let e = check(&h, b"12345678a\0", 10, 128).expect_err("nobody asked for it");
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
    }
}
