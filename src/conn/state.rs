//! The states of a connection, and what each answers.

use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::{AcqRel, Acquire};

use crate::errno::Errno;
use crate::error::{Error, Origin};

/// Where a connection stands.
///
/// ```text
/// Starting ──INIT──► Ready ──unmount──► Closed
///     │               │ ├──abort()─────► Aborted
///     └─► Refused     │ └─device fails─► Lost
///                     │                   ▲ attempts failed
///                     ├─device fails─► Restarting ──session made anew──► Ready
///                     └──freeze()────► Frozen ──thaw()──► Restarting
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// INIT has not been answered: only INIT is sent (S0-06).
    Starting = 0,
    /// Requests are served.
    Ready = 1,
    /// The server refused INIT, or speaks another protocol.
    Refused = 2,
    /// The administrator cut it off.
    Aborted = 3,
    /// The device broke its rules, stopped answering, or went away.
    Lost = 4,
    /// It was unmounted.
    Closed = 5,
    /// The session was lost and is being made anew: callers wait.
    Restarting = 6,
    /// The kernel has put it to rest: callers wait.
    Frozen = 7,
}

impl State {
    const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Starting,
            1 => Self::Ready,
            2 => Self::Refused,
            3 => Self::Aborted,
            4 => Self::Lost,
            6 => Self::Restarting,
            7 => Self::Frozen,
            _ => Self::Closed,
        }
    }

    /// Returns whether callers wait for it to end.
    pub const fn is_interlude(self) -> bool {
        matches!(self, Self::Restarting | Self::Frozen)
    }

    /// Returns what a request gets that was not sent, `None` if it may be sent
    /// (S0-24).
    pub(crate) const fn refusal(self) -> Option<Error> {
        let errno = match self {
            Self::Ready => return None,
            // Who is here did not wait, or not long enough.
            Self::Restarting | Self::Frozen => Errno::EAGAIN,
            Self::Starting | Self::Lost | Self::Closed => Errno::ENOTCONN,
            Self::Refused => Errno::ECONNREFUSED,
            Self::Aborted => Errno::ECONNABORTED,
        };
        Some(Error::new(errno, Origin::Connection))
    }
}

/// The state, changed in one place and logged there.
pub(crate) struct StateCell(AtomicU8);

impl StateCell {
    pub(crate) const fn new() -> Self {
        Self(AtomicU8::new(State::Starting as u8))
    }

    pub(crate) fn get(&self) -> State {
        State::from_u8(self.0.load(Acquire))
    }

    /// Goes from `from` to `to`. Returns false if it is not in `from`.
    pub(crate) fn change(&self, from: State, to: State) -> bool {
        let done = self
            .0
            .compare_exchange(from as u8, to as u8, AcqRel, Acquire)
            .is_ok();
        if done {
            log::debug!("virtio-fs: connection {from:?} -> {to:?}");
        }
        done
    }
}
