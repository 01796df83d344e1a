//! Ranges of files: LSEEK, FALLOCATE, COPY_FILE_RANGE.

use core::fmt;

use super::{
    Count, Dialect, FallocateMode, FileHandle, Malformed, NodeId, Opcode, Payload, ReplyShape,
    Request, SIZE_MAX, SeekWhence, Writer, abi,
};

/// Finds data or a hole, or the end. The reply is a position (7.24).
#[derive(Clone, Copy, Debug)]
pub struct Lseek {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Where to begin.
    pub offset: u64,
    /// What to find.
    pub whence: SeekWhence,
}

impl Request for Lseek {
    const OPCODE: Opcode = Opcode::Lseek;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::LseekOut>());
    type Reply = u64;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::LseekIn {
            fh: self.fh.0,
            offset: self.offset,
            whence: self.whence as u32,
            padding: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<u64, Malformed> {
        match payload.read::<abi::LseekOut>()?.offset {
            offset if offset <= SIZE_MAX => Ok(offset),
            offset => Err(Malformed::Offset(offset)),
        }
    }
}

impl fmt::Display for Lseek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            offset,
            whence,
        } = self;
        write!(
            f,
            "LSEEK node={node} fh={fh} offset={offset} whence={whence:?}"
        )
    }
}

/// Allocates or frees space (7.19).
#[derive(Clone, Copy, Debug)]
pub struct Fallocate {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Where the range begins.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What to do with it.
    pub mode: FallocateMode,
}

impl Request for Fallocate {
    const OPCODE: Opcode = Opcode::Fallocate;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::FallocateIn {
            fh: self.fh.0,
            offset: self.offset,
            length: self.len,
            mode: self.mode.bits(),
            padding: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Fallocate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            offset,
            len,
            mode,
        } = self;
        write!(
            f,
            "FALLOCATE node={node} fh={fh} offset={offset} len={len} mode={mode:#x}"
        )
    }
}

/// A range of one file and the place in another that it is copied to.
#[derive(Clone, Copy, Debug)]
pub struct CopyRange {
    /// The source.
    pub node_in: NodeId,
    /// Its handle.
    pub fh_in: FileHandle,
    /// Where to read.
    pub offset_in: u64,
    /// The destination.
    pub node_out: NodeId,
    /// Its handle.
    pub fh_out: FileHandle,
    /// Where to write.
    pub offset_out: u64,
    /// How many bytes.
    pub len: u64,
    /// None are defined.
    pub flags: u64,
}

impl CopyRange {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::CopyFileRangeIn {
            fh_in: self.fh_in.0,
            off_in: self.offset_in,
            nodeid_out: self.node_out.get(),
            fh_out: self.fh_out.0,
            off_out: self.offset_out,
            len: self.len,
            flags: self.flags,
        });
    }
}

impl fmt::Display for CopyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node_in,
            fh_in,
            offset_in,
            node_out,
            fh_out,
            offset_out,
            len,
            ..
        } = self;
        write!(f, "node={node_in} fh={fh_in} offset={offset_in} ")?;
        write!(f, "to={node_out} fh={fh_out} offset={offset_out} len={len}")
    }
}

/// Copies between files within the server (7.28). The reply has 32 bits, so the
/// length must fit them; Linux clamps it to whole pages below.
#[derive(Clone, Copy, Debug)]
pub struct CopyFileRange(pub CopyRange);

impl Request for CopyFileRange {
    const OPCODE: Opcode = Opcode::CopyFileRange;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::WriteOut>());
    type Reply = Count;

    fn node(&self) -> Option<NodeId> {
        Some(self.0.node_in)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<Count, Malformed> {
        let out: abi::WriteOut = payload.read()?;
        Ok(Count(out.size.into()))
    }
}

impl fmt::Display for CopyFileRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "COPY_FILE_RANGE {}", self.0)
    }
}

/// Copies between files within the server, with a 64-bit reply (7.45).
#[derive(Clone, Copy, Debug)]
pub struct CopyFileRange64(pub CopyRange);

impl Request for CopyFileRange64 {
    const OPCODE: Opcode = Opcode::CopyFileRange64;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::CopyFileRangeOut>());
    type Reply = Count;

    fn node(&self) -> Option<NodeId> {
        Some(self.0.node_in)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<Count, Malformed> {
        Ok(Count(payload.read::<abi::CopyFileRangeOut>()?.bytes_copied))
    }
}

impl fmt::Display for CopyFileRange64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "COPY_FILE_RANGE_64 {}", self.0)
    }
}
