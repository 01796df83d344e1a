//! INIT and DESTROY: the first and the last request of a session.

use core::fmt;

use zerocopy::{FromZeros, IntoBytes};

use super::{
    Dialect, InitFlags, Malformed, NodeId, Opcode, Payload, ReplyShape, Request, Writer, abi,
};

/// Opens a session, or ends one and opens the next. It bears no node.
#[derive(Clone, Copy, Debug)]
pub struct Init {
    /// Major version to offer: [`MAJOR`](super::MAJOR).
    pub major: u32,
    /// Minor version to offer.
    pub minor: u32,
    /// How far the client would read ahead, in bytes.
    pub max_readahead: u32,
    /// What the client can do. [`INIT_EXT`](InitFlags::INIT_EXT) is needed for
    /// the flags from bit 32 on to count.
    pub flags: InitFlags,
}

/// What the server answered to [`Init`]; no value is clamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitReply {
    /// Major version of the server. If it is not the one offered, the rest means
    /// nothing; a server with a larger one waits for another INIT.
    pub major: u32,
    /// Minor version of the server.
    pub minor: u32,
    /// How far to read ahead, in bytes.
    pub max_readahead: u32,
    /// What the server returned, also bits that were not sent. See
    /// [`active`](Self::active).
    pub flags: InitFlags,
    /// How many background requests may be in flight.
    pub max_background: u16,
    /// How many background requests make the server busy.
    pub congestion_threshold: u16,
    /// Largest WRITE in bytes.
    pub max_write: u32,
    /// Granularity of times in nanoseconds.
    pub time_gran: u32,
    /// Pages of 4096 bytes in one request, with [`MAX_PAGES`](InitFlags::MAX_PAGES).
    pub max_pages: u16,
    /// Binary logarithm of the alignment of mappings, with
    /// [`MAP_ALIGNMENT`](InitFlags::MAP_ALIGNMENT).
    pub map_alignment: u16,
    /// How deep file systems may be stacked.
    pub max_stack_depth: u32,
    /// Seconds after which a request counts as lost, with
    /// [`REQUEST_TIMEOUT`](InitFlags::REQUEST_TIMEOUT).
    pub request_timeout: u16,
}

impl InitReply {
    /// Returns the flags that hold from now on: sent and returned.
    ///
    /// Without INIT_EXT the flags from bit 32 on do not count, but for
    /// HAS_INODE_DAX: there is a server that returns it alone.
    pub fn active(&self, sent: InitFlags) -> InitFlags {
        let both = sent & self.flags;
        if both.contains(InitFlags::INIT_EXT) {
            return both;
        }
        let low = InitFlags::from_bits_retain(u32::MAX.into());
        both & (low | InitFlags::HAS_INODE_DAX)
    }
}

/// Lengths of the reply: before 7.5, before 7.23, and since.
const INIT_OUT: [usize; 3] = [8, 24, size_of::<abi::InitOut>()];

impl Request for Init {
    const OPCODE: Opcode = Opcode::Init;
    const REPLY: ReplyShape = ReplyShape::Versioned(INIT_OUT[2]);
    type Reply = InitReply;

    fn node(&self) -> Option<NodeId> {
        None
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let (flags, flags2) = self.flags.to_wire();
        w.put(&abi::InitIn {
            major: self.major,
            minor: self.minor,
            max_readahead: self.max_readahead,
            flags,
            flags2,
            unused: [0; 11],
        });
    }

    /// Takes each of the three lengths whatever the minor version: a server
    /// that asks for another major version sends the short one.
    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<InitReply, Malformed> {
        let len = payload.fixed.len();
        let mut out = abi::InitOut::new_zeroed();
        match out.as_mut_bytes().get_mut(..len) {
            Some(bytes) if INIT_OUT.contains(&len) => bytes.copy_from_slice(payload.fixed),
            _ => return Err(Malformed::PayloadLen(len)),
        }
        Ok(InitReply {
            major: out.major,
            minor: out.minor,
            max_readahead: out.max_readahead,
            flags: InitFlags::from_wire(out.flags, out.flags2),
            max_background: out.max_background,
            congestion_threshold: out.congestion_threshold,
            max_write: out.max_write,
            time_gran: out.time_gran,
            max_pages: out.max_pages,
            map_alignment: out.map_alignment,
            max_stack_depth: out.max_stack_depth,
            request_timeout: out.request_timeout,
        })
    }
}

impl fmt::Display for Init {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            major,
            minor,
            max_readahead,
            flags,
        } = self;
        write!(
            f,
            "INIT {major}.{minor} readahead={max_readahead} flags={flags}"
        )
    }
}

/// Ends the session. Servers complete it without writing a reply, so it goes
/// with [`Silence::Accept`](super::Silence::Accept). It bears no node.
#[derive(Clone, Copy, Debug)]
pub struct Destroy;

impl Request for Destroy {
    const OPCODE: Opcode = Opcode::Destroy;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        None
    }

    fn encode(&self, _: &mut Writer<'_>) {}

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Destroy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DESTROY")
    }
}
