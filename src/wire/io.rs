//! Contents of files: READ and WRITE.

use core::fmt;

use super::{
    Count, Dialect, FileHandle, LockOwner, Malformed, NodeId, Opcode, OpenFlags, Payload,
    ReadFlags, ReplyShape, Request, SetIds, WriteFlags, Writer, abi,
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
