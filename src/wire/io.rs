//! Contents of files: READ, WRITE, LSEEK, FALLOCATE, COPY_FILE_RANGE.

use core::fmt;

use super::{
    Dialect, FallocateMode, FileHandle, LockOwner, Malformed, NodeId, Opcode, OpenFlags, Payload,
    ReadFlags, ReplyShape, Request, SIZE_MAX, SeekWhence, SetIds, WriteFlags, Writer, abi,
};

/// Reads from a file. The reply is the number of bytes, at most
/// [`size`](Self::size); the bytes are in the caller's segments.
///
/// Fewer bytes mean the end of the file. The segments must hold exactly `size`:
/// one server answers short when there is less room, another fails when there
/// is more.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Where to begin.
    pub offset: u64,
    /// How many bytes.
    pub size: u32,
    /// Who reads, for mandatory locks.
    pub lock_owner: Option<LockOwner>,
    /// The flags that the file was opened with: one server sets its own
    /// descriptor to them.
    pub flags: OpenFlags,
}

impl Request for Read {
    const OPCODE: Opcode = Opcode::Read;
    const REPLY: ReplyShape = ReplyShape::Data;
    type Reply = usize;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let flags = match self.lock_owner {
            Some(_) => ReadFlags::LOCKOWNER,
            None => ReadFlags::empty(),
        };
        w.put(&abi::ReadIn {
            fh: self.fh.0,
            offset: self.offset,
            size: self.size,
            read_flags: flags.bits(),
            lock_owner: self.lock_owner.unwrap_or_default().0,
            flags: self.flags.bits(),
            padding: 0,
        });
    }

    fn data_in(&self) -> usize {
        self.size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<usize, Malformed> {
        Ok(payload.data)
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            offset,
            size,
            ..
        } = self;
        write!(f, "READ node={node} fh={fh} offset={offset} size={size}")
    }
}

/// How many bytes the server says it has dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the server may have done less than asked for, or claim more"]
pub struct Count(u64);

impl Count {
    /// Returns the number after checking it against what was asked for.
    ///
    /// # Errors
    ///
    /// [`Malformed::Count`] if it is more.
    pub const fn of(self, asked: u64) -> Result<u64, Malformed> {
        if self.0 <= asked {
            Ok(self.0)
        } else {
            Err(Malformed::Count(self.0))
        }
    }

    /// Returns the number after checking it as the answer to a request for
    /// `asked` bytes that must make progress: WRITE.
    ///
    /// # Errors
    ///
    /// [`Malformed::Count`] if it is more, or 0 while more was asked for.
    pub const fn progress_of(self, asked: u64) -> Result<u64, Malformed> {
        if self.0 == 0 && asked != 0 {
            return Err(Malformed::Count(0));
        }
        self.of(asked)
    }
}

/// Writes to a file. The bytes are in the caller's segments and must be exactly
/// [`size`](Self::size): one server writes what there is beyond.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Where to begin. With O_APPEND in `flags` the server writes at the end.
    pub offset: u64,
    /// How many bytes.
    pub size: u32,
    /// Who writes, for mandatory locks.
    pub lock_owner: Option<LockOwner>,
    /// Whether this comes from a cache.
    pub origin: WriteOrigin,
    /// What becomes of the set-id bits.
    pub set_ids: SetIds,
    /// The flags that the file was opened with.
    pub flags: OpenFlags,
}

/// Where written data come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteOrigin {
    /// A caller of write(2).
    #[default]
    Caller,
    /// A cache that is written back: nobody's in particular, and at its offset
    /// even if the file is open for appending.
    Cache,
}

/// Length of the arguments before 7.9.
const WRITE_IN_SHORT: usize = 24;

impl Request for Write {
    const OPCODE: Opcode = Opcode::Write;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::WriteOut>());
    type Reply = Count;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let mut flags = WriteFlags::empty();
        flags.set(WriteFlags::CACHE, self.origin == WriteOrigin::Cache);
        flags.set(WriteFlags::LOCKOWNER, self.lock_owner.is_some());
        flags.set(WriteFlags::KILL_SUIDGID, self.set_ids == SetIds::Clear);
        let args = abi::WriteIn {
            fh: self.fh.0,
            offset: self.offset,
            size: self.size,
            write_flags: flags.bits(),
            lock_owner: self.lock_owner.unwrap_or_default().0,
            flags: self.flags.bits(),
            padding: 0,
        };
        if w.dialect().minor < 9 {
            w.put_prefix(&args, WRITE_IN_SHORT);
        } else {
            w.put(&args);
        }
    }

    fn data_out(&self) -> usize {
        self.size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<Count, Malformed> {
        let out: abi::WriteOut = payload.read()?;
        Ok(Count(out.size.into()))
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            offset,
            size,
            ..
        } = self;
        write!(f, "WRITE node={node} fh={fh} offset={offset} size={size}")
    }
}

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
