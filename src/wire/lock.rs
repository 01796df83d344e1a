//! Advisory locks: GETLK, SETLK, SETLKW.

use core::fmt;

use super::{
    Dialect, FileHandle, LockOwner, Malformed, NodeId, Opcode, Payload, ReplyShape, Request,
    SIZE_MAX, Writer, abi,
};

/// Kind of lock, with the number that Linux has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LockKind {
    /// Shared, for reading.
    Read = 0,
    /// Exclusive, for writing.
    Write = 1,
    /// None: unlock, or nothing in the way.
    Unlock = 2,
}

impl LockKind {
    /// Finds the kind with this number.
    ///
    /// # Errors
    ///
    /// [`Malformed::LockKind`] if there is none.
    pub const fn from_wire(kind: u32) -> Result<Self, Malformed> {
        match kind {
            0 => Ok(Self::Read),
            1 => Ok(Self::Write),
            2 => Ok(Self::Unlock),
            kind => Err(Malformed::LockKind(kind)),
        }
    }
}

/// Which of Linux's two families a lock belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockFamily {
    /// fcntl(2): ranges of a file, owned by a process.
    Posix,
    /// flock(2): a whole file, owned by an open file.
    Flock,
}

/// A lock on a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// First byte.
    pub start: u64,
    /// Last byte; `i64::MAX` for "to the end".
    pub end: u64,
    /// What kind.
    pub kind: LockKind,
    /// The process that holds it.
    pub pid: u32,
}

impl Lock {
    /// The last byte of a range that has no end.
    pub const END: u64 = SIZE_MAX;

    fn to_wire(self) -> abi::FileLock {
        abi::FileLock {
            start: self.start,
            end: self.end,
            kind: self.kind as u32,
            pid: self.pid,
        }
    }

    fn from_wire(lock: &abi::FileLock) -> Result<Self, Malformed> {
        let kind = LockKind::from_wire(lock.kind)?;
        let (start, end) = match kind {
            LockKind::Unlock => (0, Self::END),
            LockKind::Read | LockKind::Write => (lock.start, lock.end),
        };
        if end > SIZE_MAX {
            return Err(Malformed::Offset(end));
        }
        if start > end {
            return Err(Malformed::Offset(start));
        }
        Ok(Self {
            start,
            end,
            kind,
            pid: lock.pid,
        })
    }
}

/// What the three requests carry.
#[derive(Clone, Copy, Debug)]
pub struct LockArgs {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Whose lock.
    pub owner: LockOwner,
    /// The lock.
    pub lock: Lock,
    /// Its family. GETLK knows only [`LockFamily::Posix`].
    pub family: LockFamily,
}

/// Bit 0 of `lk_flags`.
const LK_FLOCK: u32 = 1 << 0;

impl LockArgs {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::LkIn {
            fh: self.fh.0,
            owner: self.owner.0,
            lk: self.lock.to_wire(),
            lk_flags: match self.family {
                LockFamily::Posix => 0,
                LockFamily::Flock => LK_FLOCK,
            },
            padding: 0,
        });
    }
}

impl fmt::Display for LockArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            owner,
            lock,
            family,
        } = self;
        let Lock {
            start, end, kind, ..
        } = lock;
        write!(
            f,
            "node={node} fh={fh} owner={owner:#x} {family:?} {kind:?} {start}..={end}"
        )
    }
}

/// Asks for a lock that is in the way of this one. The reply is that lock, or
/// one of kind [`LockKind::Unlock`].
#[derive(Clone, Copy, Debug)]
pub struct Getlk(pub LockArgs);

impl Request for Getlk {
    const OPCODE: Opcode = Opcode::Getlk;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::LkOut>());
    type Reply = Lock;

    fn node(&self) -> Option<NodeId> {
        Some(self.0.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<Lock, Malformed> {
        Lock::from_wire(&payload.read::<abi::LkOut>()?.lk)
    }
}

impl fmt::Display for Getlk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GETLK {}", self.0)
    }
}

/// Takes or drops a lock; EAGAIN if another is in the way.
#[derive(Clone, Copy, Debug)]
pub struct Setlk(pub LockArgs);

impl Request for Setlk {
    const OPCODE: Opcode = Opcode::Setlk;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.0.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Setlk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SETLK {}", self.0)
    }
}

/// Takes a lock and waits for it, with a thread of the server's, for as long as
/// it takes.
#[derive(Clone, Copy, Debug)]
pub struct Setlkw(pub LockArgs);

impl Request for Setlkw {
    const OPCODE: Opcode = Opcode::Setlkw;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.0.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.0.encode(w);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Setlkw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SETLKW {}", self.0)
    }
}
