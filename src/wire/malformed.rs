//! What can be wrong with a message from the other side.

use core::fmt;

use crate::errno::Errno;

/// A reply that no honest server sends, or no honest device returns.
///
/// The caller gets EIO; the reason is for one line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Malformed {
    /// Nothing was written.
    Nothing,
    /// The device claims to have written this many bytes, more than there is
    /// room for or less than a header.
    UsedLen(u32),
    /// The header says this length: not what was written, less than a header,
    /// or more than there is room for.
    HeaderLen(u32),
    /// The reply bears this id of another request.
    Unique(u64),
    /// This is no error number.
    Error(i32),
    /// A reply with an error has this length and not that of a header.
    ErrorLen(u32),
    /// The payload has this many bytes, which is not what belongs to the
    /// operation.
    PayloadLen(usize),
    /// This node id cannot be the answer.
    Node(u64),
    /// This mode has none of the seven file types.
    Mode(u32),
    /// This size of a file, offset in it, or end of a range does not fit an
    /// `i64`.
    Offset(u64),
    /// More bytes are said to be done than were asked for.
    Count(u64),
    /// A name in the reply has this length, which is out of bounds.
    NameLen(u32),
    /// A name in the reply has a `/` or a NUL in it.
    NameByte,
    /// A record or a list ends in its middle.
    Truncated,
    /// This is no type of lock.
    LockKind(u32),
    /// This is no code of a notification.
    NotifyCode(i32),
}

impl Malformed {
    /// Returns the error number for the caller: EIO.
    pub const fn errno(self) -> Errno {
        Errno::EIO
    }
}

impl From<Malformed> for Errno {
    fn from(malformed: Malformed) -> Self {
        malformed.errno()
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => write!(f, "nothing written"),
            Self::UsedLen(n) => write!(f, "impossible used length {n}"),
            Self::HeaderLen(n) => write!(f, "impossible length {n} in header"),
            Self::Unique(n) => write!(f, "id {n} of another request"),
            Self::Error(n) => write!(f, "{n} is no error number"),
            Self::ErrorLen(n) => write!(f, "error with length {n}"),
            Self::PayloadLen(n) => write!(f, "payload of {n} bytes"),
            Self::Node(n) => write!(f, "impossible node id {n}"),
            Self::Mode(n) => write!(f, "mode {n:#o} without file type"),
            Self::Offset(n) => write!(f, "size or offset {n:#x} out of range"),
            Self::Count(n) => write!(f, "{n} bytes done, more than asked for"),
            Self::NameLen(n) => write!(f, "name of {n} bytes"),
            Self::NameByte => write!(f, "name with a slash or NUL in it"),
            Self::Truncated => write!(f, "record or list ends in its middle"),
            Self::LockKind(n) => write!(f, "{n} is no type of lock"),
            Self::NotifyCode(n) => write!(f, "{n} is no notification"),
        }
    }
}

impl core::error::Error for Malformed {}
