//! The error that every call returns: an error number, and whose fault it was.

use core::fmt;

use crate::errno::Errno;

/// Why a call failed.
///
/// The number is what a POSIX caller expects. A server's own number passes
/// through untouched; what makes no sense becomes EIO, with one line in the log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Error {
    errno: Errno,
    origin: Origin,
}

/// Where an error comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The caller asked for something that cannot be.
    Caller,
    /// The server refused.
    Server,
    /// The server answered nonsense.
    Protocol,
    /// The device broke its rules or went away.
    Device,
    /// The connection does not take requests: not yet, or no longer.
    Connection,
    /// The kernel ran out of something, or ended the wait.
    Platform,
}

impl Error {
    /// Makes an error.
    pub const fn new(errno: Errno, origin: Origin) -> Self {
        Self { errno, origin }
    }

    /// Makes an error that is the caller's doing.
    pub const fn caller(errno: Errno) -> Self {
        Self::new(errno, Origin::Caller)
    }

    /// Makes an EIO for an answer that makes no sense.
    pub const fn protocol() -> Self {
        Self::new(Errno::EIO, Origin::Protocol)
    }

    /// Returns the error number.
    pub const fn errno(self) -> Errno {
        self.errno
    }

    /// Returns whose fault it was.
    pub const fn origin(self) -> Origin {
        self.origin
    }

    /// Returns whether the server said that it does not know the operation.
    pub(crate) fn is_nosys(self) -> bool {
        self.errno == Errno::ENOSYS && self.origin == Origin::Server
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self::caller(errno)
    }
}

impl From<crate::wire::NameError> for Error {
    fn from(error: crate::wire::NameError) -> Self {
        Self::caller(error.errno())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.errno, f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.errno, self.origin)
    }
}

impl core::error::Error for Error {}

/// What a call returns.
pub type Result<T, E = Error> = core::result::Result<T, E>;
