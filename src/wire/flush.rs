//! Making changes last: FLUSH, FSYNC, FSYNCDIR.

use core::fmt;

use super::{
    Dialect, FileHandle, FsyncFlags, LockOwner, Malformed, NodeId, Opcode, Payload, ReplyShape,
    Request, Writer, abi,
};

/// Goes with each close(2) of a file, after its dirty data were written. Its
/// error is that of the close. It also drops the owner's fcntl(2) locks.
#[derive(Clone, Copy, Debug)]
pub struct Flush {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Who closes.
    pub lock_owner: LockOwner,
}

impl Request for Flush {
    const OPCODE: Opcode = Opcode::Flush;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::FlushIn {
            fh: self.fh.0,
            unused: 0,
            padding: 0,
            lock_owner: self.lock_owner.0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Flush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FLUSH node={} fh={}", self.node, self.fh)
    }
}

/// Puts a file's data, and its attributes unless told otherwise, on stable
/// storage.
#[derive(Clone, Copy, Debug)]
pub struct Fsync {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// How much.
    pub flags: FsyncFlags,
}

impl Request for Fsync {
    const OPCODE: Opcode = Opcode::Fsync;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::FsyncIn {
            fh: self.fh.0,
            fsync_flags: self.flags.bits(),
            padding: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FSYNC node={} fh={} flags={:#x}",
            self.node, self.fh, self.flags
        )
    }
}

/// Puts a directory's entries on stable storage.
#[derive(Clone, Copy, Debug)]
pub struct Fsyncdir {
    /// The directory.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// How much.
    pub flags: FsyncFlags,
}

impl Request for Fsyncdir {
    const OPCODE: Opcode = Opcode::Fsyncdir;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::FsyncIn {
            fh: self.fh.0,
            fsync_flags: self.flags.bits(),
            padding: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Fsyncdir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FSYNCDIR node={} fh={} flags={:#x}",
            self.node, self.fh, self.flags
        )
    }
}
