//! The header of requests and of replies.

use zerocopy::{FromBytes, IntoBytes};

use super::abi;
use super::{Dialect, REPLY_HEADER, Request, TooLong, Unique, Writer};

/// Bytes of the header that opens each request.
pub const REQUEST_HEADER: usize = size_of::<abi::InHeader>();

/// On whose behalf a request is made. Servers give new files this owner, and
/// answer ACCESS by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id; servers log it at most.
    pub pid: u32,
}

impl Credentials {
    /// For requests that the driver makes on its own: forgetting, releasing,
    /// writing back.
    pub const DRIVER: Self = Self {
        uid: 0,
        gid: 0,
        pid: 0,
    };
}

/// How long an encoded request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes in the buffer: header, arguments, extensions. The segments of
    /// outgoing data follow them.
    pub args: usize,
    /// Bytes of outgoing data.
    pub data: usize,
}

/// Writes header and arguments of `request` to the beginning of `buf`.
///
/// The length in the header is exactly what follows, outgoing data included:
/// servers exit when it is one byte off.
///
/// # Errors
///
/// [`TooLong`] if `buf` is too small (it says what is needed; what `buf` then
/// holds means nothing), or if a length does not fit its field.
pub fn encode<R: Request>(
    request: &R,
    unique: Unique,
    credentials: Credentials,
    dialect: Dialect,
    buf: &mut [u8],
) -> Result<Encoded, TooLong> {
    let data = request.data_out();
    let (header, body) = buf.split_at_mut_checked(REQUEST_HEADER).unwrap_or_default();
    let fits = !header.is_empty();
    let mut writer = Writer::new(body, dialect);
    request.encode(&mut writer);
    let args = REQUEST_HEADER.saturating_add(writer.len());
    let too_long = TooLong { needed: args };
    let written = writer.finish().map_err(|_| too_long)?;
    if !fits {
        return Err(too_long);
    }
    let len = args
        .checked_add(data)
        .and_then(|len| u32::try_from(len).ok());
    let in_header = abi::InHeader {
        len: len.ok_or(too_long)?,
        opcode: R::OPCODE.to_wire(),
        unique: unique.get(),
        nodeid: request.node().map_or(0, super::NodeId::get),
        uid: credentials.uid,
        gid: credentials.gid,
        pid: credentials.pid,
        total_extlen: u16::try_from(written.extensions / 8).map_err(|_| too_long)?,
        padding: 0,
    };
    header.copy_from_slice(in_header.as_bytes());
    Ok(Encoded { args, data })
}

/// Counts the bytes that [`encode`] needs for this request.
pub fn encoded_len<R: Request>(request: &R, dialect: Dialect) -> usize {
    let mut writer = Writer::new(&mut [], dialect);
    request.encode(&mut writer);
    REQUEST_HEADER.saturating_add(writer.len())
}

/// The header of a reply, as the server wrote it. Nothing in it is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutHeader {
    /// Length of the reply, header included.
    pub len: u32,
    /// 0, or a negative error number, or the code of a notification.
    pub error: i32,
    /// Id of the request, 0 in a notification.
    pub unique: u64,
}

impl OutHeader {
    /// What the header is before the server writes to it.
    pub const ZERO: Self = Self {
        len: 0,
        error: 0,
        unique: 0,
    };

    /// Reads a header.
    pub fn parse(bytes: &[u8; REPLY_HEADER]) -> Self {
        let abi::OutHeader { len, error, unique } = zerocopy::transmute!(*bytes);
        Self { len, error, unique }
    }

    /// Reads a header from the beginning of `bytes`; `None` if they are too
    /// few.
    pub fn parse_prefix(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = abi::OutHeader::read_from_prefix(bytes).ok()?;
        let abi::OutHeader { len, error, unique } = header;
        Some((Self { len, error, unique }, rest))
    }
}
