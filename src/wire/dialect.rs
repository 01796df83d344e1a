//! What INIT negotiated, as far as it changes the bytes of later messages.

use super::{InitFlags, InitReply};

/// The major version of the protocol.
pub const MAJOR: u32 = 7;
/// The newest minor version that this client knows.
///
/// Not more than 46: from 7.47 on the reply to OPEN is 24 bytes long between
/// peers that both know it.
pub const MINOR: u32 = 45;

/// What both sides understand. Constant for the length of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// The smaller of the two minor versions.
    pub minor: u32,
    /// The flags that the client sent and the server returned.
    pub flags: InitFlags,
}

impl Dialect {
    /// Holds before the reply to INIT: our minor version and no flag.
    pub const INITIAL: Self = Self {
        minor: MINOR,
        flags: InitFlags::empty(),
    };

    /// Derives what both sides understand from what was sent and answered.
    pub fn negotiated(sent: InitFlags, reply: &InitReply) -> Self {
        Self {
            minor: reply.minor.min(MINOR),
            flags: reply.active(sent),
        }
    }

    /// Says whether both sides understand `flags`, all of them.
    pub const fn has(&self, flags: InitFlags) -> bool {
        self.flags.contains(flags)
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::INITIAL
    }
}
