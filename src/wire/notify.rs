//! Notifications: what a server says unasked, and NOTIFY_REPLY.
//!
//! They come in buffers of the notification queue (virtio 1.3, 5.11.2): a header
//! with id 0 and the code in place of the error, then the payload.

use core::fmt;

use zerocopy::FromBytes;

use super::{
    Dialect, Malformed, NAME_MAX_LONG, Name, NodeId, Opcode, OutHeader, Payload, PollHandle,
    ReplyShape, Request, Unique, Writer, abi,
};

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification<'a> {
    /// A polled file is ready.
    Poll(PollHandle),
    /// Attributes of an inode are stale, and its data where a range is given.
    InvalInode {
        /// The inode.
        node: NodeId,
        /// The stale data; `None` if it is the attributes alone.
        range: Option<InvalRange>,
    },
    /// A name is stale.
    InvalEntry {
        /// The directory.
        parent: NodeId,
        /// The name.
        name: &'a Name,
        /// Whether to drop or to recheck it.
        kind: InvalKind,
    },
    /// Data for the page cache.
    Store {
        /// The file.
        node: NodeId,
        /// Where they belong.
        offset: u64,
        /// The bytes.
        data: &'a [u8],
    },
    /// The server wants data of the page cache, by [`NotifyReply`].
    Retrieve {
        /// Id of the reply.
        unique: Unique,
        /// The file.
        node: NodeId,
        /// Where they lie.
        offset: u64,
        /// How many bytes at most.
        size: u32,
    },
    /// A name is gone.
    Delete {
        /// The directory.
        parent: NodeId,
        /// The inode that it stood for.
        child: NodeId,
        /// The name.
        name: &'a Name,
    },
    /// The server was restarted: requests without a reply are to be sent again.
    Resend,
    /// All names are stale.
    IncEpoch,
    /// The server would like these nodes to be forgotten.
    Prune(PruneList<'a>),
}

/// Stale data of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalRange {
    /// The first byte.
    pub offset: u64,
    /// How many bytes; `None` for all to the end.
    pub len: Option<u64>,
}

/// What to do with a stale name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalKind {
    /// Drop it.
    Drop,
    /// Look it up again before the next use.
    Expire,
}

/// Bit 0 of the flags of INVAL_ENTRY.
const EXPIRE_ONLY: u32 = 1 << 0;

/// Nodes in a PRUNE notification. Iterates over them; 0 is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneList<'a>(&'a [u8]);

impl Iterator for PruneList<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        loop {
            let (node, rest) = u64::read_from_prefix(self.0).ok()?;
            self.0 = rest;
            if let Some(node) = NodeId::new(node) {
                return Some(node);
            }
        }
    }
}

impl<'a> Notification<'a> {
    /// Parses what the server wrote, header and all. `bytes` end where it
    /// stopped writing.
    ///
    /// # Errors
    ///
    /// What is wrong with it; a notification of an unknown code is
    /// [`Malformed::NotifyCode`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) = OutHeader::parse_prefix(bytes).ok_or(Malformed::Truncated)?;
        if header.len as usize != bytes.len() {
            return Err(Malformed::HeaderLen(header.len));
        }
        if header.unique != 0 {
            return Err(Malformed::Unique(header.unique));
        }
        match header.error {
            1 => Ok(Self::Poll(PollHandle(
                exact::<abi::NotifyPollWakeupOut>(body)?.kh,
            ))),
            2 => inval_inode(&exact(body)?),
            3 => inval_entry(body),
            4 => store(body),
            5 => retrieve(&exact(body)?),
            6 => delete(body),
            7 => exact::<[u8; 0]>(body).map(|_| Self::Resend),
            8 => exact::<[u8; 0]>(body).map(|_| Self::IncEpoch),
            9 => prune(body),
            code => Err(Malformed::NotifyCode(code)),
        }
    }
}

/// Reads a payload that is one struct.
fn exact<T: FromBytes>(body: &[u8]) -> Result<T, Malformed> {
    T::read_from_bytes(body).map_err(|_| Malformed::PayloadLen(body.len()))
}

/// Reads the struct at the beginning of a payload.
fn prefix<T: FromBytes>(body: &[u8]) -> Result<(T, &[u8]), Malformed> {
    T::read_from_prefix(body).map_err(|_| Malformed::PayloadLen(body.len()))
}

fn node(id: u64) -> Result<NodeId, Malformed> {
    NodeId::new(id).ok_or(Malformed::Node(id))
}

/// Reads a name of `len` bytes that ends the payload, its NUL behind it.
fn name(bytes: &[u8], len: u32) -> Result<&Name, Malformed> {
    match bytes.split_last() {
        Some((0, name)) if name.len() == len as usize => Name::with_limit(name, NAME_MAX_LONG)
            .map_err(|error| match error {
                super::NameError::Empty | super::NameError::TooLong => Malformed::NameLen(len),
                _ => Malformed::NameByte,
            }),
        _ => Err(Malformed::Truncated),
    }
}

fn inval_inode(out: &abi::NotifyInvalInodeOut) -> Result<Notification<'static>, Malformed> {
    let range = u64::try_from(out.off).ok().map(|offset| InvalRange {
        offset,
        len: u64::try_from(out.len).ok().filter(|&len| len != 0),
    });
    Ok(Notification::InvalInode {
        node: node(out.ino)?,
        range,
    })
}

fn inval_entry(body: &[u8]) -> Result<Notification<'_>, Malformed> {
    let (out, rest): (abi::NotifyInvalEntryOut, _) = prefix(body)?;
    Ok(Notification::InvalEntry {
        parent: node(out.parent)?,
        name: name(rest, out.namelen)?,
        kind: if out.flags & EXPIRE_ONLY == 0 {
            InvalKind::Drop
        } else {
            InvalKind::Expire
        },
    })
}

fn store(body: &[u8]) -> Result<Notification<'_>, Malformed> {
    let (out, data): (abi::NotifyStoreOut, _) = prefix(body)?;
    if data.len() != out.size as usize {
        return Err(Malformed::Truncated);
    }
    Ok(Notification::Store {
        node: node(out.nodeid)?,
        offset: range_start(out.offset, out.size)?,
        data,
    })
}

fn retrieve(out: &abi::NotifyRetrieveOut) -> Result<Notification<'static>, Malformed> {
    Ok(Notification::Retrieve {
        unique: Unique::new(out.notify_unique).ok_or(Malformed::Unique(0))?,
        node: node(out.nodeid)?,
        offset: range_start(out.offset, out.size)?,
        size: out.size,
    })
}

fn delete(body: &[u8]) -> Result<Notification<'_>, Malformed> {
    let (out, rest): (abi::NotifyDeleteOut, _) = prefix(body)?;
    Ok(Notification::Delete {
        parent: node(out.parent)?,
        child: node(out.child)?,
        name: name(rest, out.namelen)?,
    })
}

fn prune(body: &[u8]) -> Result<Notification<'_>, Malformed> {
    let (out, nodes): (abi::NotifyPruneOut, _) = prefix(body)?;
    if nodes.len() as u64 != u64::from(out.count) * 8 {
        return Err(Malformed::Truncated);
    }
    Ok(Notification::Prune(PruneList(nodes)))
}

/// Checks that a range of a file ends where files can.
fn range_start(offset: u64, size: u32) -> Result<u64, Malformed> {
    match offset.checked_add(size.into()) {
        Some(end) if end <= super::SIZE_MAX => Ok(offset),
        _ => Err(Malformed::Offset(offset)),
    }
}

/// Answers [`Notification::Retrieve`], under the id that it gave. The data are in
/// the caller's segments. There is no reply.
#[derive(Clone, Copy, Debug)]
pub struct NotifyReply {
    /// The id that the notification gave.
    pub unique: Unique,
    /// The file.
    pub node: NodeId,
    /// Where the data lie.
    pub offset: u64,
    /// How many bytes there are.
    pub size: u32,
}

impl Request for NotifyReply {
    const OPCODE: Opcode = Opcode::NotifyReply;
    const REPLY: ReplyShape = ReplyShape::None;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::NotifyRetrieveIn {
            offset: self.offset,
            size: self.size,
            ..abi::NotifyRetrieveIn::default()
        });
    }

    fn unique(&self) -> Option<Unique> {
        Some(self.unique)
    }

    fn data_out(&self) -> usize {
        self.size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for NotifyReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node, offset, size, ..
        } = self;
        write!(f, "NOTIFY_REPLY node={node} offset={offset} size={size}")
    }
}
