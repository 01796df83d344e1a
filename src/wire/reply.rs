//! The shape of replies, and the check that a completed one passes.

use super::abi;
use super::{Malformed, OutHeader, Unique};
use crate::errno::Errno;

/// Bytes of the header that opens each reply.
pub const REPLY_HEADER: usize = size_of::<abi::OutHeader>();

/// What follows the header of a successful reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyShape {
    /// There is no reply: the request has no writable area at all.
    None,
    /// Nothing.
    Empty,
    /// A struct of this many bytes, always all of them.
    Fixed(usize),
    /// A struct of at most this many bytes, fewer from old servers. Decoding
    /// checks the length against the dialect.
    Versioned(usize),
    /// 0 to [`data_in`](super::Request::data_in) bytes of data.
    Data,
    /// A struct of this many bytes, then 0 to
    /// [`data_in`](super::Request::data_in) bytes of data.
    FixedThenData(usize),
}

impl ReplyShape {
    /// Returns the bytes of the writable area before the data: header and
    /// struct. 0 if there is no reply.
    pub const fn fixed_area(self) -> usize {
        match self {
            Self::None => 0,
            Self::Empty | Self::Data => REPLY_HEADER,
            Self::Fixed(n) | Self::Versioned(n) | Self::FixedThenData(n) => REPLY_HEADER + n,
        }
    }
}

/// How to take a device that says it wrote nothing (protocol facts: some servers
/// report used length 0 for everything, others leave DESTROY unanswered).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// As malformed, like Linux since 7.1.
    Refuse,
    /// Look at the header, which was zeroed before submission: if there is one,
    /// take it; if not, the reply is malformed.
    TrustHeader,
    /// As [`TrustHeader`](Self::TrustHeader), but nothing at all counts as
    /// success with an empty payload. For DESTROY.
    Accept,
}

/// What a completed request is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Id of the request.
    pub unique: Unique,
    /// Shape of its reply.
    pub shape: ReplyShape,
    /// Bytes of its writable area, header included.
    pub capacity: usize,
    /// What to make of a used length of 0.
    pub silence: Silence,
}

/// Why there is no payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// The server refused the request.
    Server(Errno),
    /// The reply is nonsense.
    Malformed(Malformed),
}

impl ReplyError {
    /// Returns the error number for the caller.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Server(errno) => errno,
            Self::Malformed(malformed) => malformed.errno(),
        }
    }
}

impl From<Malformed> for ReplyError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Checks a completed reply and returns the length of its payload: what follows
/// the header, struct and data together.
///
/// `used` is the number of bytes that the device says it wrote. On success the
/// payload lies inside the writable area and has a length that the shape allows.
///
/// # Errors
///
/// The server's error, or what is wrong with the reply.
pub fn check_reply(
    header: &[u8; REPLY_HEADER],
    used: u32,
    expected: &Expected,
) -> Result<usize, ReplyError> {
    let reply_len = match (expected.shape, used) {
        (ReplyShape::None, 0) => return Ok(0),
        (ReplyShape::None, _) => return Err(Malformed::UsedLen(used).into()),
        _ => used as usize,
    };
    let header = OutHeader::parse(header);
    if used == 0 {
        match expected.silence {
            Silence::Accept if header == OutHeader::ZERO => return Ok(0),
            Silence::TrustHeader | Silence::Accept if header != OutHeader::ZERO => {}
            _ => return Err(Malformed::Nothing.into()),
        }
    } else if reply_len < REPLY_HEADER || reply_len > expected.capacity {
        return Err(Malformed::UsedLen(used).into());
    } else if header.len != used {
        return Err(Malformed::HeaderLen(header.len).into());
    }

    let reply_len = header.len as usize;
    if reply_len > expected.capacity {
        return Err(Malformed::HeaderLen(header.len).into());
    }
    let Some(payload) = reply_len.checked_sub(REPLY_HEADER) else {
        return Err(Malformed::HeaderLen(header.len).into());
    };
    if header.unique != expected.unique.get() {
        return Err(Malformed::Unique(header.unique).into());
    }
    match Errno::from_wire(header.error) {
        Ok(()) => {}
        Err(None) => return Err(Malformed::Error(header.error).into()),
        Err(Some(_)) if payload != 0 => return Err(Malformed::ErrorLen(header.len).into()),
        Err(Some(errno)) => return Err(ReplyError::Server(errno)),
    }
    let fits = match expected.shape {
        ReplyShape::None | ReplyShape::Empty => payload == 0,
        ReplyShape::Fixed(n) => payload == n,
        ReplyShape::Versioned(n) => payload <= n,
        ReplyShape::Data => true,
        ReplyShape::FixedThenData(n) => payload >= n,
    };
    if fits {
        Ok(payload)
    } else {
        Err(Malformed::PayloadLen(payload).into())
    }
}

/// The payload of a checked reply: its struct, and how many bytes of data the
/// caller's own segments hold.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The bytes between the header and the data.
    pub fixed: &'a [u8],
    /// How many bytes of data there are. The data themselves are elsewhere.
    pub data: usize,
}

impl<'a> Payload<'a> {
    /// Splits `len` bytes of payload, as [`check_reply`] returned it, for a
    /// request of this shape. `area` is the writable area behind the header.
    ///
    /// # Errors
    ///
    /// [`Malformed::PayloadLen`] if the area is shorter than the struct.
    pub fn split(shape: ReplyShape, area: &'a [u8], len: usize) -> Result<Self, Malformed> {
        let fixed = match shape {
            ReplyShape::None | ReplyShape::Empty | ReplyShape::Data => 0,
            ReplyShape::Fixed(_) | ReplyShape::Versioned(_) => len,
            ReplyShape::FixedThenData(n) => n,
        };
        match (area.get(..fixed), len.checked_sub(fixed)) {
            (Some(fixed), Some(data)) => Ok(Self { fixed, data }),
            _ => Err(Malformed::PayloadLen(len)),
        }
    }

    /// Reads the struct, which must have exactly its length.
    pub(super) fn read<T: zerocopy::FromBytes>(&self) -> Result<T, Malformed> {
        T::read_from_bytes(self.fixed).map_err(|_| Malformed::PayloadLen(self.fixed.len()))
    }

    /// Checks that nothing follows the header.
    pub(super) fn none(&self) -> Result<(), Malformed> {
        match self.fixed.len().saturating_add(self.data) {
            0 => Ok(()),
            n => Err(Malformed::PayloadLen(n)),
        }
    }
}
