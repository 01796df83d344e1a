//! Names of existing inodes: LINK, UNLINK, RMDIR, RENAME, RENAME2; and READLINK.

use core::fmt;

use super::{
    Dialect, Entry, Malformed, Name, NodeId, Opcode, Payload, RenameFlags, ReplyShape, Request,
    TARGET_MAX, Writer, abi, lookup::Found,
};

/// Gives an inode one more name.
#[derive(Clone, Copy, Debug)]
pub struct Link<'a> {
    /// The inode.
    pub node: NodeId,
    /// The directory of the new name. It is what the header names.
    pub new_parent: NodeId,
    /// The new name.
    pub new_name: &'a Name,
}

impl Request for Link<'_> {
    const OPCODE: Opcode = Opcode::Link;
    const REPLY: ReplyShape = Found::SHAPE;
    type Reply = Entry;

    fn node(&self) -> Option<NodeId> {
        Some(self.new_parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::LinkIn {
            oldnodeid: self.node.get(),
        });
        w.terminated(self.new_name);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Entry, Malformed> {
        Entry::decode(payload, dialect)
    }
}

impl fmt::Display for Link<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "LINK node={} {} to={}",
            self.new_parent, self.new_name, self.node
        )
    }
}

/// Takes a name off a file.
#[derive(Clone, Copy, Debug)]
pub struct Unlink<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name.
    pub name: &'a Name,
}

impl Request for Unlink<'_> {
    const OPCODE: Opcode = Opcode::Unlink;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.terminated(self.name);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Unlink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UNLINK node={} {}", self.parent, self.name)
    }
}

/// Removes an empty directory.
#[derive(Clone, Copy, Debug)]
pub struct Rmdir<'a> {
    /// The directory that it is in.
    pub parent: NodeId,
    /// Its name.
    pub name: &'a Name,
}

impl Request for Rmdir<'_> {
    const OPCODE: Opcode = Opcode::Rmdir;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.terminated(self.name);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Rmdir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RMDIR node={} {}", self.parent, self.name)
    }
}

/// Moves a name, replacing the new one if it exists.
#[derive(Clone, Copy, Debug)]
pub struct Rename<'a> {
    /// The old directory.
    pub parent: NodeId,
    /// The old name.
    pub name: &'a Name,
    /// The new directory.
    pub new_parent: NodeId,
    /// The new name.
    pub new_name: &'a Name,
}

impl Request for Rename<'_> {
    const OPCODE: Opcode = Opcode::Rename;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::RenameIn {
            newdir: self.new_parent.get(),
        });
        w.terminated(self.name);
        w.terminated(self.new_name);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Rename<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent,
            name,
            new_parent,
            new_name,
        } = self;
        write!(f, "RENAME node={parent} {name} to={new_parent} {new_name}")
    }
}

/// Moves a name with flags (7.23). Without flags use [`Rename`].
///
/// Servers drop flags that they do not know and rename all the same, so unknown
/// ones must be refused before.
#[derive(Clone, Copy, Debug)]
pub struct Rename2<'a> {
    /// The old directory.
    pub parent: NodeId,
    /// The old name.
    pub name: &'a Name,
    /// The new directory.
    pub new_parent: NodeId,
    /// The new name.
    pub new_name: &'a Name,
    /// What to do with the new name, and with the place of the old one.
    pub flags: RenameFlags,
}

impl Request for Rename2<'_> {
    const OPCODE: Opcode = Opcode::Rename2;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::Rename2In {
            newdir: self.new_parent.get(),
            flags: self.flags.bits(),
            padding: 0,
        });
        w.terminated(self.name);
        w.terminated(self.new_name);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Rename2<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent,
            name,
            new_parent,
            new_name,
            flags,
        } = self;
        write!(
            f,
            "RENAME2 node={parent} {name} to={new_parent} {new_name} flags={flags:#x}"
        )
    }
}

/// Reads what a symbolic link points to. The reply is its length; the bytes are
/// in the caller's segments, to be checked with [`link_target`].
#[derive(Clone, Copy, Debug)]
pub struct Readlink {
    /// The link.
    pub node: NodeId,
}

/// The room for a target: one more than the longest, to tell one that fits from
/// one that was cut. A server exits when there is less.
pub const READLINK_ROOM: usize = TARGET_MAX + 1;

impl Request for Readlink {
    const OPCODE: Opcode = Opcode::Readlink;
    const REPLY: ReplyShape = ReplyShape::Data;
    type Reply = usize;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, _: &mut Writer<'_>) {}

    fn data_in(&self) -> usize {
        READLINK_ROOM
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<usize, Malformed> {
        match payload.data {
            1..=TARGET_MAX => Ok(payload.data),
            n => Err(Malformed::PayloadLen(n)),
        }
    }
}

/// Checks the bytes that [`Readlink`] brought: they end before the first NUL.
///
/// # Errors
///
/// [`Malformed::PayloadLen`] if none remain or there are too many.
pub fn link_target(bytes: &[u8]) -> Result<&super::Target, Malformed> {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    let bytes = bytes.get(..end).unwrap_or_default();
    super::Target::new(bytes).map_err(|_| Malformed::PayloadLen(bytes.len()))
}

impl fmt::Display for Readlink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "READLINK node={}", self.node)
    }
}
