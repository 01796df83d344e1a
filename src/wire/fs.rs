//! Whole file systems, and permission: STATFS, SYNCFS, ACCESS.

use core::fmt;

use zerocopy::{FromZeros, IntoBytes};

use super::{
    AccessMask, Dialect, Malformed, NodeId, Opcode, Payload, ReplyShape, Request, Writer, abi,
};

/// Asks for the state of the file system that holds a node.
#[derive(Clone, Copy, Debug)]
pub struct Statfs {
    /// The node.
    pub node: NodeId,
}

/// The state of a file system. No value is clamped but the unit of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatfsReply {
    /// Size in units of [`frsize`](Self::frsize).
    pub blocks: u64,
    /// Free units.
    pub bfree: u64,
    /// Free units for callers without privilege.
    pub bavail: u64,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Preferred size of an I/O in bytes.
    pub bsize: u32,
    /// Length of the longest name.
    pub namelen: u32,
    /// Unit of blocks in bytes; the preferred size where old servers state
    /// none.
    pub frsize: u32,
}

/// Length of the reply before 7.4.
const STATFS_OUT_SHORT: usize = 48;

impl Request for Statfs {
    const OPCODE: Opcode = Opcode::Statfs;
    const REPLY: ReplyShape = ReplyShape::Versioned(size_of::<abi::StatfsOut>());
    type Reply = StatfsReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, _: &mut Writer<'_>) {}

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<StatfsReply, Malformed> {
        let out = if dialect.minor < 4 {
            let mut out = abi::StatfsOut::new_zeroed();
            match out.as_mut_bytes().get_mut(..STATFS_OUT_SHORT) {
                Some(bytes) if payload.fixed.len() == bytes.len() => {
                    bytes.copy_from_slice(payload.fixed);
                }
                _ => return Err(Malformed::PayloadLen(payload.fixed.len())),
            }
            out
        } else {
            payload.read()?
        };
        Ok(StatfsReply {
            blocks: out.blocks,
            bfree: out.bfree,
            bavail: out.bavail,
            files: out.files,
            ffree: out.ffree,
            bsize: out.bsize,
            namelen: out.namelen,
            frsize: if out.frsize == 0 {
                out.bsize
            } else {
                out.frsize
            },
        })
    }
}

impl fmt::Display for Statfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "STATFS node={}", self.node)
    }
}

/// Puts the file system that holds a node on stable storage (7.34). Each submount
/// needs its own.
#[derive(Clone, Copy, Debug)]
pub struct Syncfs {
    /// The node.
    pub node: NodeId,
}

impl Request for Syncfs {
    const OPCODE: Opcode = Opcode::Syncfs;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::SyncfsIn { padding: 0 });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Syncfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SYNCFS node={}", self.node)
    }
}

/// Asks whether the caller in the header may do this.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The node.
    pub node: NodeId,
    /// What.
    pub mask: AccessMask,
}

impl Request for Access {
    const OPCODE: Opcode = Opcode::Access;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::AccessIn {
            mask: self.mask.bits(),
            padding: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ACCESS node={} mask={:#o}", self.node, self.mask)
    }
}
