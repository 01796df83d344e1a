//! Open files and directories: OPEN, OPENDIR, RELEASE, RELEASEDIR.

use core::fmt;

use super::{
    Dialect, FileHandle, FopenFlags, LockOwner, Malformed, NodeId, Opcode, OpenFlags, OpenInFlags,
    Payload, ReleaseFlags, ReplyShape, Request, SetIds, Writer, abi,
};

/// What OPEN, OPENDIR and CREATE return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReply {
    /// The server's name for the open file. 0 is one like any other.
    pub fh: FileHandle,
    /// How to treat it.
    pub flags: FopenFlags,
}

impl OpenReply {
    /// 16 bytes: longer replies are for peers of 7.47, and this client is none.
    const SHAPE: ReplyShape = ReplyShape::Fixed(size_of::<abi::OpenOut>());

    fn decode(payload: Payload<'_>) -> Result<Self, Malformed> {
        let out: abi::OpenOut = payload.read()?;
        Ok(Self {
            fh: FileHandle(out.fh),
            flags: FopenFlags::from_bits_retain(out.open_flags),
        })
    }
}

/// Returns the `open_flags` of OPEN and CREATE.
pub(super) fn open_in_flags(set_ids: SetIds) -> u32 {
    match set_ids {
        SetIds::Keep => OpenInFlags::empty(),
        SetIds::Clear => OpenInFlags::KILL_SUIDGID,
    }
    .bits()
}

/// Opens a file.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// The file.
    pub node: NodeId,
    /// How; see [`OpenFlags::for_open`]. O_TRUNC only with ATOMIC_O_TRUNC.
    pub flags: OpenFlags,
    /// What becomes of the set-id bits with O_TRUNC.
    pub set_ids: SetIds,
}

impl Request for Open {
    const OPCODE: Opcode = Opcode::Open;
    const REPLY: ReplyShape = OpenReply::SHAPE;
    type Reply = OpenReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::OpenIn {
            flags: self.flags.bits(),
            open_flags: open_in_flags(self.set_ids),
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<OpenReply, Malformed> {
        OpenReply::decode(payload)
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OPEN node={} flags={:#o}", self.node, self.flags)
    }
}

/// Opens a directory.
#[derive(Clone, Copy, Debug)]
pub struct Opendir {
    /// The directory.
    pub node: NodeId,
    /// How; see [`OpenFlags::for_open`].
    pub flags: OpenFlags,
}

impl Request for Opendir {
    const OPCODE: Opcode = Opcode::Opendir;
    const REPLY: ReplyShape = OpenReply::SHAPE;
    type Reply = OpenReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::OpenIn {
            flags: self.flags.bits(),
            open_flags: 0,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<OpenReply, Malformed> {
        OpenReply::decode(payload)
    }
}

impl fmt::Display for Opendir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OPENDIR node={} flags={:#o}", self.node, self.flags)
    }
}

/// Closes a file. Once for each handle, after all other requests on it. The
/// error, if any, means nothing.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// The file.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// The flags that it was opened with.
    pub flags: OpenFlags,
    /// What else to do.
    pub release: ReleaseFlags,
    /// Whose flock(2) lock to drop.
    pub lock_owner: LockOwner,
}

/// The arguments of RELEASE and RELEASEDIR.
fn release_in(
    fh: FileHandle,
    flags: OpenFlags,
    release: ReleaseFlags,
    owner: LockOwner,
) -> abi::ReleaseIn {
    abi::ReleaseIn {
        fh: fh.0,
        flags: flags.bits(),
        release_flags: release.bits(),
        lock_owner: owner.0,
    }
}

impl Request for Release {
    const OPCODE: Opcode = Opcode::Release;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&release_in(
            self.fh,
            self.flags,
            self.release,
            self.lock_owner,
        ));
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RELEASE node={} fh={}", self.node, self.fh)
    }
}

/// Closes a directory.
#[derive(Clone, Copy, Debug)]
pub struct Releasedir {
    /// The directory.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// The flags that it was opened with.
    pub flags: OpenFlags,
}

impl Request for Releasedir {
    const OPCODE: Opcode = Opcode::Releasedir;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&release_in(
            self.fh,
            self.flags,
            ReleaseFlags::empty(),
            LockOwner(0),
        ));
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Releasedir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RELEASEDIR node={} fh={}", self.node, self.fh)
    }
}
