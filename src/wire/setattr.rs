//! SETATTR.

use core::fmt;

use bitflags::bitflags;

use super::attr::fmt_fh;
use super::{
    AttrReply, Dialect, FileHandle, LockOwner, Malformed, NodeId, Opcode, Payload, ReplyShape,
    Request, SetIds, Time, Writer, abi,
};

bitflags! {
    /// Which attributes SETATTR changes, and how.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct SetattrValid: u32 {
        /// Permissions.
        const MODE = 1 << 0;
        /// Owner.
        const UID = 1 << 1;
        /// Group.
        const GID = 1 << 2;
        /// Size.
        const SIZE = 1 << 3;
        /// Time of last access.
        const ATIME = 1 << 4;
        /// Time of last change of data.
        const MTIME = 1 << 5;
        /// The handle counts.
        const FH = 1 << 6;
        /// The access time is the server's now; goes with ATIME.
        const ATIME_NOW = 1 << 7;
        /// The change time is the server's now; goes with MTIME.
        const MTIME_NOW = 1 << 8;
        /// The lock owner counts.
        const LOCKOWNER = 1 << 9;
        /// Time of last change of attributes.
        const CTIME = 1 << 10;
        /// Clear set-id bits.
        const KILL_SUIDGID = 1 << 11;
    }
}

/// What to do with a time of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SetTime {
    /// Leave it.
    #[default]
    Keep,
    /// Set it to the server's now.
    Now,
    /// Set it to this.
    To(Time),
}

/// Changes attributes of a node; those that are `None` stay.
#[derive(Clone, Copy, Debug)]
pub struct Setattr {
    /// The node.
    pub node: NodeId,
    /// An open file of this node, for a truncation.
    pub fh: Option<FileHandle>,
    /// Whose locks may be ignored.
    pub lock_owner: Option<LockOwner>,
    /// New permissions, with or without the type.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size.
    pub size: Option<u64>,
    /// New access time.
    pub atime: SetTime,
    /// New time of change.
    pub mtime: SetTime,
    /// New time of change of attributes, with write-back caching only.
    pub ctime: Option<Time>,
    /// What becomes of the set-id bits when the size changes.
    pub set_ids: SetIds,
}

impl Setattr {
    /// Changes nothing yet.
    pub const fn new(node: NodeId) -> Self {
        Self {
            node,
            fh: None,
            lock_owner: None,
            mode: None,
            uid: None,
            gid: None,
            size: None,
            atime: SetTime::Keep,
            mtime: SetTime::Keep,
            ctime: None,
            set_ids: SetIds::Keep,
        }
    }

    /// Returns the word that says which fields count.
    pub fn valid(&self) -> SetattrValid {
        let mut valid = SetattrValid::empty();
        valid.set(SetattrValid::KILL_SUIDGID, self.set_ids == SetIds::Clear);
        valid.set(SetattrValid::FH, self.fh.is_some());
        valid.set(SetattrValid::LOCKOWNER, self.lock_owner.is_some());
        valid.set(SetattrValid::MODE, self.mode.is_some());
        valid.set(SetattrValid::UID, self.uid.is_some());
        valid.set(SetattrValid::GID, self.gid.is_some());
        valid.set(SetattrValid::SIZE, self.size.is_some());
        valid.set(SetattrValid::ATIME, self.atime != SetTime::Keep);
        valid.set(SetattrValid::ATIME_NOW, self.atime == SetTime::Now);
        valid.set(SetattrValid::MTIME, self.mtime != SetTime::Keep);
        valid.set(SetattrValid::MTIME_NOW, self.mtime == SetTime::Now);
        valid.set(SetattrValid::CTIME, self.ctime.is_some());
        valid
    }
}

impl Request for Setattr {
    const OPCODE: Opcode = Opcode::Setattr;
    const REPLY: ReplyShape = AttrReply::SHAPE;
    type Reply = AttrReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let explicit = |time| match time {
            SetTime::To(time) => time,
            SetTime::Keep | SetTime::Now => Time::default(),
        };
        let (atime, mtime) = (explicit(self.atime), explicit(self.mtime));
        let ctime = self.ctime.unwrap_or_default();
        w.put(&abi::SetattrIn {
            valid: self.valid().bits(),
            padding: 0,
            fh: self.fh.unwrap_or_default().0,
            size: self.size.unwrap_or_default(),
            lock_owner: self.lock_owner.unwrap_or_default().0,
            atime: atime.sec.cast_unsigned(),
            mtime: mtime.sec.cast_unsigned(),
            ctime: ctime.sec.cast_unsigned(),
            atimensec: atime.nsec,
            mtimensec: mtime.nsec,
            ctimensec: ctime.nsec,
            mode: self.mode.unwrap_or_default(),
            unused4: 0,
            uid: self.uid.unwrap_or_default(),
            gid: self.gid.unwrap_or_default(),
            unused5: 0,
        });
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<AttrReply, Malformed> {
        AttrReply::decode(payload, dialect)
    }
}

impl fmt::Display for Setattr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SETATTR node={}", self.node)?;
        fmt_fh(f, self.fh)?;
        if let Some(mode) = self.mode {
            write!(f, " mode={mode:o}")?;
        }
        for (name, id) in [("uid", self.uid), ("gid", self.gid)] {
            if let Some(id) = id {
                write!(f, " {name}={id}")?;
            }
        }
        if let Some(size) = self.size {
            write!(f, " size={size}")?;
        }
        write!(f, " valid={:#x}", self.valid())
    }
}
