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

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u64 = 6;

    fn header(len: u32, error: i32, unique: u64) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&len.to_le_bytes());
        bytes[4..8].copy_from_slice(&error.to_le_bytes());
        bytes[8..].copy_from_slice(&unique.to_le_bytes());
        bytes
    }

    fn check(
        header: [u8; 16],
        used: u32,
        shape: ReplyShape,
        silence: Silence,
    ) -> Result<usize, ReplyError> {
        let data = if matches!(shape, ReplyShape::Data | ReplyShape::FixedThenData(_)) {
            100
        } else {
            0
        };
        let capacity = shape.fixed_area() + data;
        let unique = Unique::new(ID).unwrap();
        check_reply(
            &header,
            used,
            &Expected {
                unique,
                shape,
                capacity,
                silence,
            },
        )
    }

    fn refused(why: Malformed) -> Result<usize, ReplyError> {
        Err(ReplyError::Malformed(why))
    }

    use ReplyShape::{Data, Empty, Fixed, FixedThenData, None, Versioned};
    use Silence::{Accept, Refuse, TrustHeader};

    #[test]
    fn payload_has_the_length_of_its_shape() {
        for (shape, len, fits) in [
            (Empty, 16, true),
            (Fixed(8), 24, true),
            (Fixed(8), 23, false),
            (Fixed(8), 16, false),
            (Versioned(8), 24, true),
            (Versioned(8), 16, true),
            (Data, 16, true),
            (Data, 116, true),
            (FixedThenData(8), 24, true),
            (FixedThenData(8), 124, true),
            (FixedThenData(8), 23, false),
        ] {
            let result = check(header(len, 0, ID), len, shape, Refuse);
            let payload = len as usize - 16;
            let expected = if fits {
                Ok(payload)
            } else {
                refused(Malformed::PayloadLen(payload))
            };
            assert_eq!(result, expected, "{shape:?} {len}");
        }
    }

    #[test]
    fn lengths_of_device_and_server_agree_and_fit_the_area() {
        assert_eq!(
            check(header(24, 0, ID), 25, Fixed(8), Refuse),
            refused(Malformed::UsedLen(25))
        );
        assert_eq!(
            check(header(24, 0, ID), 15, Fixed(8), Refuse),
            refused(Malformed::UsedLen(15))
        );
        assert_eq!(
            check(header(24, 0, ID), u32::MAX, Data, TrustHeader),
            refused(Malformed::UsedLen(u32::MAX))
        );
        assert_eq!(
            check(header(17, 0, ID), 24, Data, Refuse),
            refused(Malformed::HeaderLen(17))
        );
        assert_eq!(
            check(header(24, 0, ID), 17, Data, Refuse),
            refused(Malformed::HeaderLen(24))
        );
        for len in [0, 15, 117, u32::MAX] {
            let result = check(header(len, 0, ID), 0, Data, TrustHeader);
            assert_eq!(result, refused(Malformed::HeaderLen(len)), "{len}");
        }
    }

    #[test]
    fn errors_are_bare_headers_with_a_believable_number() {
        let error = |number, len| check(header(len, number, ID), len, Data, Refuse);
        assert_eq!(error(-2, 16), Err(ReplyError::Server(Errno::ENOENT)));
        assert_eq!(error(-2, 17), refused(Malformed::ErrorLen(17)));
        assert_eq!(error(2, 16), refused(Malformed::Error(2)));
        assert_eq!(error(-512, 16), refused(Malformed::Error(-512)));
        assert_eq!(error(i32::MIN, 16), refused(Malformed::Error(i32::MIN)));
    }

    #[test]
    fn an_answer_to_another_request_is_none() {
        for id in [0, ID + 1, u64::MAX] {
            let result = check(header(16, 0, id), 16, Empty, Refuse);
            assert_eq!(result, refused(Malformed::Unique(id)));
        }
    }

    #[test]
    fn silence_is_taken_as_agreed() {
        let (written, nothing) = (header(24, 0, ID), [0; 16]);
        assert_eq!(
            check(written, 0, Fixed(8), Refuse),
            refused(Malformed::Nothing)
        );
        assert_eq!(check(written, 0, Fixed(8), TrustHeader), Ok(8));
        assert_eq!(
            check(nothing, 0, Fixed(8), TrustHeader),
            refused(Malformed::Nothing)
        );
        assert_eq!(check(nothing, 0, Empty, Accept), Ok(0));
        assert_eq!(check(header(16, 0, ID), 0, Empty, Accept), Ok(0));
        let error = check(header(16, -5, ID), 0, Empty, Accept);
        assert_eq!(error, Err(ReplyError::Server(Errno::EIO)));
    }

    #[test]
    fn requests_without_reply_complete_with_nothing_written() {
        assert_eq!(None.fixed_area(), 0);
        assert_eq!(check([0; 16], 0, None, Refuse), Ok(0));
        assert_eq!(
            check([0; 16], 16, None, Accept),
            refused(Malformed::UsedLen(16))
        );
    }

    #[test]
    fn payloads_are_split_into_struct_and_data() {
        let area = [1, 2, 3, 4];
        let split = |shape, len| {
            Payload::split(shape, &area, len).map(|payload| (payload.fixed.len(), payload.data))
        };
        assert_eq!(split(Data, 100), Ok((0, 100)));
        assert_eq!(split(Fixed(4), 4), Ok((4, 0)));
        assert_eq!(split(Versioned(4), 3), Ok((3, 0)));
        assert_eq!(split(FixedThenData(4), 10), Ok((4, 6)));
        assert_eq!(split(FixedThenData(5), 10), Err(Malformed::PayloadLen(10)));
        assert_eq!(split(FixedThenData(4), 3), Err(Malformed::PayloadLen(3)));
        assert_eq!(split(Fixed(5), 5), Err(Malformed::PayloadLen(5)));
    }
}
