//! Devices and other odd files: IOCTL, POLL, BMAP.

use core::fmt;

use super::{
    Dialect, FileHandle, IoctlFlags, Malformed, NodeId, Opcode, Payload, PollEvents, PollFlags,
    PollHandle, ReplyShape, Request, Writer, abi,
};

/// Device control. Data of both directions are in the caller's segments.
#[derive(Clone, Copy, Debug)]
pub struct Ioctl {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// On what, by whom.
    pub flags: IoctlFlags,
    /// The command.
    pub cmd: u32,
    /// The argument: a number, or an address that means nothing here.
    pub arg: u64,
    /// Bytes of data for the server.
    pub in_size: u32,
    /// Room for data of the server's.
    pub out_size: u32,
}

/// The reply to [`Ioctl`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlReply {
    /// What ioctl(2) returns; an error if negative.
    pub result: i32,
    /// With [`IoctlFlags::RETRY`] the server wants other buffers, which it lists
    /// in the data. Only file systems that are trusted may: refuse it.
    pub flags: IoctlFlags,
    /// With RETRY: areas of memory that the server wants to get, and to fill, as
    /// many as the data list.
    pub areas: [u32; 2],
    /// How many bytes of data there are.
    pub data: usize,
}

impl Request for Ioctl {
    const OPCODE: Opcode = Opcode::Ioctl;
    const REPLY: ReplyShape = ReplyShape::FixedThenData(size_of::<abi::IoctlOut>());
    type Reply = IoctlReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::IoctlIn {
            fh: self.fh.0,
            flags: self.flags.bits(),
            cmd: self.cmd,
            arg: self.arg,
            in_size: self.in_size,
            out_size: self.out_size,
        });
    }

    fn data_out(&self) -> usize {
        self.in_size as usize
    }

    fn data_in(&self) -> usize {
        self.out_size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<IoctlReply, Malformed> {
        let out: abi::IoctlOut = payload.read()?;
        Ok(IoctlReply {
            result: out.result,
            flags: IoctlFlags::from_bits_retain(out.flags),
            areas: [out.in_iovs, out.out_iovs],
            data: payload.data,
        })
    }
}

impl fmt::Display for Ioctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            cmd,
            in_size,
            out_size,
            ..
        } = self;
        write!(
            f,
            "IOCTL node={node} fh={fh} cmd={cmd:#x} in={in_size} out={out_size}"
        )
    }
}

/// Asks which events a file is ready for. The reply is those.
#[derive(Clone, Copy, Debug)]
pub struct Poll {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// The client's name for this file in a later notification.
    pub kh: PollHandle,
    /// Whether to send one.
    pub flags: PollFlags,
    /// The events of interest.
    pub events: PollEvents,
}

impl Request for Poll {
    const OPCODE: Opcode = Opcode::Poll;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::PollOut>());
    type Reply = PollEvents;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::PollIn {
            fh: self.fh.0,
            kh: self.kh.0,
            flags: self.flags.bits(),
            events: self.events.bits(),
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<PollEvents, Malformed> {
        let out: abi::PollOut = payload.read()?;
        Ok(PollEvents::from_bits_retain(out.revents))
    }
}

impl fmt::Display for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "POLL node={} fh={} events={:#x}",
            self.node, self.fh, self.events
        )
    }
}

/// Asks where a block of a file lies on its block device. The reply is the
/// number of the block there, 0 for a hole.
#[derive(Clone, Copy, Debug)]
pub struct Bmap {
    /// The file.
    pub node: NodeId,
    /// Number of the block in the file.
    pub block: u64,
    /// Size of a block in bytes.
    pub block_size: u32,
}

impl Request for Bmap {
    const OPCODE: Opcode = Opcode::Bmap;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::BmapOut>());
    type Reply = u64;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::BmapIn {
            block: self.block,
            blocksize: self.block_size,
            padding: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<u64, Malformed> {
        Ok(payload.read::<abi::BmapOut>()?.block)
    }
}

impl fmt::Display for Bmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BMAP node={} block={}", self.node, self.block)
    }
}
