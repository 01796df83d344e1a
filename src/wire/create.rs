//! Everything that makes an inode: CREATE, TMPFILE, MKNOD, MKDIR, SYMLINK.

use core::fmt;

use zerocopy::FromBytes;

use super::{
    Dialect, Entry, Extensions, FileHandle, FopenFlags, Malformed, Mode, Name, NodeId, Opcode,
    OpenFlags, OpenReply, Payload, Rdev, ReplyShape, Request, SetIds, Target, Writer, abi,
    lookup::Found, open::open_in_flags,
};

/// Makes a regular file and opens it.
///
/// If it exists and O_EXCL is not asked for, it is opened: by one server as the
/// daemon's user, so the caller's permissions must have been checked.
#[derive(Clone, Copy, Debug)]
pub struct Create<'a> {
    /// The directory.
    pub parent: NodeId,
    /// Name of the new file.
    pub name: &'a Name,
    /// How to open it; see [`OpenFlags::for_create`].
    pub flags: OpenFlags,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Bits that the server clears if DONT_MASK was negotiated.
    pub umask: u32,
    /// What becomes of the set-id bits if the file is cut to length 0.
    pub set_ids: SetIds,
    /// What else the server is to know.
    pub extensions: Extensions<'a>,
}

/// The reply to [`Create`] and [`Tmpfile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The inode.
    pub entry: Entry,
    /// The open file.
    pub open: OpenReply,
}

impl Created {
    const OPEN: usize = size_of::<abi::OpenOut>();
    const SHAPE: ReplyShape = ReplyShape::Versioned(size_of::<abi::EntryOut>() + Self::OPEN);

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Self, Malformed> {
        let (fixed, open) = abi::OpenOut::read_from_suffix(payload.fixed)
            .map_err(|_| Malformed::PayloadLen(payload.fixed.len()))?;
        Ok(Self {
            entry: Entry::decode(Payload { fixed, ..payload }, dialect)?,
            open: OpenReply {
                fh: FileHandle(open.fh),
                flags: FopenFlags::from_bits_retain(open.open_flags),
            },
        })
    }
}

/// How short the arguments of CREATE and MKNOD are before 7.12.
const SHORT: usize = 8;

/// Writes arguments of which a peer before 7.12 knows only the first 8 bytes.
fn put_since_12<T: zerocopy::IntoBytes + zerocopy::Immutable>(w: &mut Writer<'_>, args: &T) {
    let len = if w.dialect().minor < 12 {
        SHORT
    } else {
        size_of::<T>()
    };
    w.put_prefix(args, len);
}

impl Request for Create<'_> {
    const OPCODE: Opcode = Opcode::Create;
    const REPLY: ReplyShape = Created::SHAPE;
    type Reply = Created;

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        put_since_12(
            w,
            &abi::CreateIn {
                flags: self.flags.bits(),
                mode: self.mode,
                umask: self.umask,
                open_flags: open_in_flags(self.set_ids),
            },
        );
        w.terminated(self.name);
        self.extensions.encode(w);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Created, Malformed> {
        Created::decode(payload, dialect)
    }
}

impl fmt::Display for Create<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent,
            name,
            mode,
            flags,
            ..
        } = self;
        write!(
            f,
            "CREATE node={parent} {name} mode={mode:o} flags={flags:#o}"
        )
    }
}

/// Makes a regular file without a name and opens it (7.37).
#[derive(Clone, Copy, Debug)]
pub struct Tmpfile<'a> {
    /// A directory of the file system that shall hold it.
    pub parent: NodeId,
    /// A name for logs; Linux sends "/", others may use any.
    pub name: &'a Name,
    /// How to open it.
    pub flags: OpenFlags,
    /// Type and permissions, as `st_mode`.
    pub mode: u32,
    /// Bits that the server clears if DONT_MASK was negotiated.
    pub umask: u32,
    /// What else the server is to know.
    pub extensions: Extensions<'a>,
}

impl Request for Tmpfile<'_> {
    const OPCODE: Opcode = Opcode::Tmpfile;
    const REPLY: ReplyShape = Created::SHAPE;
    type Reply = Created;

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::CreateIn {
            flags: self.flags.bits(),
            mode: self.mode,
            umask: self.umask,
            open_flags: 0,
        });
        w.terminated(self.name);
        self.extensions.encode(w);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Created, Malformed> {
        Created::decode(payload, dialect)
    }
}

impl fmt::Display for Tmpfile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent,
            mode,
            flags,
            ..
        } = self;
        write!(f, "TMPFILE node={parent} mode={mode:o} flags={flags:#o}")
    }
}

/// Makes a file of any type but directory and symbolic link.
#[derive(Clone, Copy, Debug)]
pub struct Mknod<'a> {
    /// The directory.
    pub parent: NodeId,
    /// Name of the new file.
    pub name: &'a Name,
    /// Type and permissions.
    pub mode: Mode,
    /// Number of a device node.
    pub rdev: Rdev,
    /// Bits that the server clears if DONT_MASK was negotiated.
    pub umask: u32,
    /// What else the server is to know.
    pub extensions: Extensions<'a>,
}

impl Request for Mknod<'_> {
    const OPCODE: Opcode = Opcode::Mknod;
    const REPLY: ReplyShape = Found::SHAPE;
    type Reply = Entry;

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        put_since_12(
            w,
            &abi::MknodIn {
                mode: self.mode.bits(),
                rdev: self.rdev.0,
                umask: self.umask,
                padding: 0,
            },
        );
        w.terminated(self.name);
        self.extensions.encode(w);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Entry, Malformed> {
        Entry::decode(payload, dialect)
    }
}

impl fmt::Display for Mknod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent, name, mode, ..
        } = self;
        write!(f, "MKNOD node={parent} {name} mode={:o}", mode.bits())
    }
}

/// Makes a directory.
#[derive(Clone, Copy, Debug)]
pub struct Mkdir<'a> {
    /// The directory that it goes into.
    pub parent: NodeId,
    /// Its name.
    pub name: &'a Name,
    /// Its permissions.
    pub mode: u32,
    /// Bits that the server clears if DONT_MASK was negotiated.
    pub umask: u32,
    /// What else the server is to know.
    pub extensions: Extensions<'a>,
}

impl Request for Mkdir<'_> {
    const OPCODE: Opcode = Opcode::Mkdir;
    const REPLY: ReplyShape = Found::SHAPE;
    type Reply = Entry;

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::MkdirIn {
            mode: self.mode,
            umask: self.umask,
        });
        w.terminated(self.name);
        self.extensions.encode(w);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Entry, Malformed> {
        Entry::decode(payload, dialect)
    }
}

impl fmt::Display for Mkdir<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent, name, mode, ..
        } = self;
        write!(f, "MKDIR node={parent} {name} mode={mode:o}")
    }
}

/// Makes a symbolic link.
#[derive(Clone, Copy, Debug)]
pub struct Symlink<'a> {
    /// The directory.
    pub parent: NodeId,
    /// Name of the new link.
    pub name: &'a Name,
    /// What it points to.
    pub target: &'a Target,
    /// What else the server is to know.
    pub extensions: Extensions<'a>,
}

impl Request for Symlink<'_> {
    const OPCODE: Opcode = Opcode::Symlink;
    const REPLY: ReplyShape = Found::SHAPE;
    type Reply = Entry;

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.terminated(self.name);
        w.terminated(self.target);
        self.extensions.encode(w);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Entry, Malformed> {
        Entry::decode(payload, dialect)
    }
}

impl fmt::Display for Symlink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            parent,
            name,
            target,
            ..
        } = self;
        write!(f, "SYMLINK node={parent} {name} -> {target}")
    }
}
