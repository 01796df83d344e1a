//! Extended attributes: SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR.
//!
//! Getting and listing come in two forms each: one asks for the size alone, the
//! other brings the bytes into the caller's segments.

use core::fmt;
use core::iter::FusedIterator;

use super::{
    Dialect, InitFlags, Malformed, NodeId, Opcode, Payload, ReplyShape, Request, SetxattrFlags,
    Writer, XattrFlags, XattrName, abi,
};

/// Sets an extended attribute. The value is in the caller's segments.
#[derive(Clone, Copy, Debug)]
pub struct Setxattr<'a> {
    /// The inode.
    pub node: NodeId,
    /// Name of the attribute.
    pub name: &'a XattrName,
    /// Length of the value in bytes.
    pub size: u32,
    /// Whether it must or must not exist.
    pub flags: XattrFlags,
    /// Sent only with SETXATTR_EXT.
    pub ext_flags: SetxattrFlags,
}

/// Length of the arguments without SETXATTR_EXT.
const SETXATTR_IN_SHORT: usize = 8;

impl Request for Setxattr<'_> {
    const OPCODE: Opcode = Opcode::Setxattr;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let args = abi::SetxattrIn {
            size: self.size,
            flags: self.flags.bits(),
            setxattr_flags: self.ext_flags.bits(),
            padding: 0,
        };
        if w.dialect().has(InitFlags::SETXATTR_EXT) {
            w.put(&args);
        } else {
            w.put_prefix(&args, SETXATTR_IN_SHORT);
        }
        w.terminated(self.name);
    }

    fn data_out(&self) -> usize {
        self.size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Setxattr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SETXATTR node={} {} size={}",
            self.node, self.name, self.size
        )
    }
}

fn getxattr_in(size: u32) -> abi::GetxattrIn {
    abi::GetxattrIn { size, padding: 0 }
}

/// Reads the size that GETXATTR and LISTXATTR of size 0 return.
fn decode_size(payload: Payload<'_>) -> Result<u32, Malformed> {
    Ok(payload.read::<abi::GetxattrOut>()?.size)
}

/// Gets the value of an extended attribute. The reply is its length; the bytes
/// are in the caller's segments. If they have not enough room the server says
/// ERANGE.
#[derive(Clone, Copy, Debug)]
pub struct Getxattr<'a> {
    /// The inode.
    pub node: NodeId,
    /// Name of the attribute.
    pub name: &'a XattrName,
    /// Room for the value, not 0.
    pub size: core::num::NonZeroU32,
}

impl Request for Getxattr<'_> {
    const OPCODE: Opcode = Opcode::Getxattr;
    const REPLY: ReplyShape = ReplyShape::Data;
    type Reply = usize;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&getxattr_in(self.size.get()));
        w.terminated(self.name);
    }

    fn data_in(&self) -> usize {
        self.size.get() as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<usize, Malformed> {
        Ok(payload.data)
    }
}

impl fmt::Display for Getxattr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "GETXATTR node={} {} size={}",
            self.node, self.name, self.size
        )
    }
}

/// Asks how long the value of an extended attribute is.
#[derive(Clone, Copy, Debug)]
pub struct GetxattrSize<'a> {
    /// The inode.
    pub node: NodeId,
    /// Name of the attribute.
    pub name: &'a XattrName,
}

impl Request for GetxattrSize<'_> {
    const OPCODE: Opcode = Opcode::Getxattr;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::GetxattrOut>());
    type Reply = u32;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&getxattr_in(0));
        w.terminated(self.name);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<u32, Malformed> {
        decode_size(payload)
    }
}

impl fmt::Display for GetxattrSize<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GETXATTR node={} {} size=0", self.node, self.name)
    }
}

/// Lists the names of extended attributes. The reply is the length of the list;
/// the bytes are in the caller's segments, for [`XattrList`]. If they have not
/// enough room the server says ERANGE.
#[derive(Clone, Copy, Debug)]
pub struct Listxattr {
    /// The inode.
    pub node: NodeId,
    /// Room for the list, not 0.
    pub size: core::num::NonZeroU32,
}

impl Request for Listxattr {
    const OPCODE: Opcode = Opcode::Listxattr;
    const REPLY: ReplyShape = ReplyShape::Data;
    type Reply = usize;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&getxattr_in(self.size.get()));
    }

    fn data_in(&self) -> usize {
        self.size.get() as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<usize, Malformed> {
        Ok(payload.data)
    }
}

impl fmt::Display for Listxattr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LISTXATTR node={} size={}", self.node, self.size)
    }
}

/// Asks how long the list of names of extended attributes is.
#[derive(Clone, Copy, Debug)]
pub struct ListxattrSize {
    /// The inode.
    pub node: NodeId,
}

impl Request for ListxattrSize {
    const OPCODE: Opcode = Opcode::Listxattr;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::GetxattrOut>());
    type Reply = u32;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&getxattr_in(0));
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<u32, Malformed> {
        decode_size(payload)
    }
}

impl fmt::Display for ListxattrSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LISTXATTR node={} size=0", self.node)
    }
}

/// Removes an extended attribute.
#[derive(Clone, Copy, Debug)]
pub struct Removexattr<'a> {
    /// The inode.
    pub node: NodeId,
    /// Name of the attribute.
    pub name: &'a XattrName,
}

impl Request for Removexattr<'_> {
    const OPCODE: Opcode = Opcode::Removexattr;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.terminated(self.name);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Removexattr<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "REMOVEXATTR node={} {}", self.node, self.name)
    }
}

/// The names in a reply to [`Listxattr`]. Ends at the first that is malformed,
/// after having said so.
#[derive(Clone, Debug)]
pub struct XattrList<'a> {
    rest: &'a [u8],
}

impl<'a> XattrList<'a> {
    /// Reads the bytes that were returned, and no more than those.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }
}

impl<'a> Iterator for XattrList<'a> {
    type Item = Result<&'a XattrName, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let bytes = core::mem::take(&mut self.rest);
        let Some(end) = bytes.iter().position(|&b| b == 0) else {
            return Some(Err(Malformed::Truncated));
        };
        let (name, rest) = bytes.split_at(end);
        let name = XattrName::new(name).map_err(|_| Malformed::NameLen(end as u32));
        if name.is_ok() {
            self.rest = rest.get(1..).unwrap_or_default();
        }
        Some(name)
    }
}

impl FusedIterator for XattrList<'_> {}
