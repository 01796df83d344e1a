//! LOOKUP and its undoing: FORGET and BATCH_FORGET; and INTERRUPT, which travels
//! with those two on the high priority queue.
//!
//! Each entry that a server returns adds one to its lookup count of that node;
//! only FORGET takes it off again. So an [`Entry`] is returned even when its
//! attributes are bad.

use core::fmt;
use core::time::Duration;

use zerocopy::{Immutable, IntoBytes};

use super::attr::{ATTR_TAIL, read_versioned};
use super::time::validity;
use super::{
    Attr, Dialect, Generation, Malformed, Name, NodeId, Opcode, Payload, ReplyShape, Request,
    Unique, Writer, abi,
};

/// A name's inode, as the server answers LOOKUP and everything that makes a
/// name.
///
/// Holding one means that the server counts one more lookup of
/// [`node`](Self::node): keep it or FORGET it.
#[must_use = "the server counted a lookup, which must be kept or forgotten"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub node: NodeId,
    /// Which of the files that had this node id one after the other.
    pub generation: Generation,
    /// How long the name stands for the inode.
    pub entry_valid: Duration,
    /// How long the attributes stay valid.
    pub attr_valid: Duration,
    /// The attributes, or what is wrong with them.
    pub attr: Result<Attr, Malformed>,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// The name stands for this inode.
    Entry(Entry),
    /// There is no such name, and that stays so for this long.
    Negative(Duration),
}

impl Found {
    pub(super) const SHAPE: ReplyShape = ReplyShape::Versioned(size_of::<abi::EntryOut>());

    pub(super) fn from_wire(out: &abi::EntryOut) -> Self {
        let entry_valid = validity(out.entry_valid, out.entry_valid_nsec);
        let Some(node) = NodeId::new(out.nodeid) else {
            return Self::Negative(entry_valid);
        };
        Self::Entry(Entry {
            node,
            generation: Generation(out.generation),
            entry_valid,
            attr_valid: validity(out.attr_valid, out.attr_valid_nsec),
            attr: Attr::from_wire(&out.attr),
        })
    }

    /// Reads the answer. A name never stands for the root.
    pub(super) fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Self, Malformed> {
        let found = Self::from_wire(&read_versioned(payload, dialect, ATTR_TAIL)?);
        match found {
            Self::Entry(entry) if entry.node == NodeId::ROOT => {
                Err(Malformed::Node(NodeId::ROOT.get()))
            }
            found => Ok(found),
        }
    }
}

impl Entry {
    /// Reads the reply of an operation that made a name: there must be one.
    pub(super) fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Self, Malformed> {
        match Found::decode(payload, dialect)? {
            Found::Entry(entry) => Ok(entry),
            Found::Negative(_) => Err(Malformed::Node(0)),
        }
    }
}

/// Looks a name up in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'a> {
    /// The directory.
    pub parent: NodeId,
    /// The name.
    pub name: &'a Name,
}

impl Request for Lookup<'_> {
    const OPCODE: Opcode = Opcode::Lookup;
    const REPLY: ReplyShape = Found::SHAPE;
    type Reply = Found;

    fn node(&self) -> Option<NodeId> {
        Some(self.parent)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.terminated(self.name);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Found, Malformed> {
        Found::decode(payload, dialect)
    }
}

impl fmt::Display for Lookup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LOOKUP node={} {}", self.parent, self.name)
    }
}

/// Takes lookups of one node off the server's count. High priority queue, no
/// reply.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// The node, not the root.
    pub node: NodeId,
    /// How many lookups.
    pub lookups: u64,
}

impl Request for Forget {
    const OPCODE: Opcode = Opcode::Forget;
    const REPLY: ReplyShape = ReplyShape::None;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::ForgetIn {
            nlookup: self.lookups,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Forget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FORGET node={} lookups={}", self.node, self.lookups)
    }
}

/// One node of a [`BatchForget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct ForgetOne {
    node: u64,
    lookups: u64,
}

const _: () = assert!(size_of::<ForgetOne>() == size_of::<abi::ForgetOne>());

impl ForgetOne {
    /// Takes this many lookups off the count of `node`, which is not the root.
    pub const fn new(node: NodeId, lookups: u64) -> Self {
        Self {
            node: node.get(),
            lookups,
        }
    }
}

/// Takes lookups of many nodes off the server's counts. High priority queue, no
/// reply.
#[derive(Clone, Copy, Debug)]
pub struct BatchForget<'a> {
    nodes: &'a [ForgetOne],
}

impl<'a> BatchForget<'a> {
    /// Servers exit when there are more nodes in a batch.
    pub const MAX: usize = 65536;

    /// Makes a batch of the first nodes, as many as may go into one, and
    /// returns the others.
    pub fn split(nodes: &'a [ForgetOne]) -> (Self, &'a [ForgetOne]) {
        let (nodes, rest) = nodes.split_at(nodes.len().min(Self::MAX));
        (Self { nodes }, rest)
    }
}

impl Request for BatchForget<'_> {
    const OPCODE: Opcode = Opcode::BatchForget;
    const REPLY: ReplyShape = ReplyShape::None;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        None
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let count = self.nodes.len() as u32;
        w.put(&abi::BatchForgetIn { count, dummy: 0 });
        w.put(self.nodes);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for BatchForget<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BATCH_FORGET nodes={}", self.nodes.len())
    }
}

/// Asks the server to give up a request. High priority queue, no reply; the
/// request itself is answered, with EINTR or as if nothing had happened.
#[derive(Clone, Copy, Debug)]
pub struct Interrupt {
    /// The request. INTERRUPT itself goes under [`Unique::interrupt`] of it.
    pub target: Unique,
    /// The node of the request.
    pub node: Option<NodeId>,
}

impl Request for Interrupt {
    const OPCODE: Opcode = Opcode::Interrupt;
    const REPLY: ReplyShape = ReplyShape::None;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        self.node
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::InterruptIn {
            unique: self.target.get(),
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INTERRUPT request={}", self.target)
    }
}
