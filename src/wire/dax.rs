//! The DAX window: SETUPMAPPING and REMOVEMAPPING (7.31).

use core::fmt;

use bitflags::bitflags;
use zerocopy::{Immutable, IntoBytes};

use super::{
    Dialect, FileHandle, Malformed, NodeId, Opcode, Payload, ReplyShape, Request, Writer, abi,
};

bitflags! {
    /// What a mapping is for.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MappingFlags: u64 {
        /// Writing.
        const WRITE = 1 << 0;
        /// Reading.
        const READ = 1 << 1;
    }
}

/// Maps a range of a file into the window.
#[derive(Clone, Copy, Debug)]
pub struct Setupmapping {
    /// The file.
    pub node: NodeId,
    /// A handle, or [`FileHandle::NONE`].
    pub fh: FileHandle,
    /// Where the range begins in the file.
    pub file_offset: u64,
    /// Its length in bytes.
    pub len: u64,
    /// What for.
    pub flags: MappingFlags,
    /// Where it shall begin in the window, counted from the start of the shared
    /// memory region.
    pub window_offset: u64,
}

impl Request for Setupmapping {
    const OPCODE: Opcode = Opcode::Setupmapping;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::SetupmappingIn {
            fh: self.fh.0,
            foffset: self.file_offset,
            len: self.len,
            flags: self.flags.bits(),
            moffset: self.window_offset,
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Setupmapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            file_offset,
            len,
            flags,
            window_offset,
            ..
        } = self;
        write!(
            f,
            "SETUPMAPPING node={node} file={file_offset:#x} len={len:#x} "
        )?;
        write!(f, "window={window_offset:#x} flags={flags:#x}")
    }
}

/// A range of the window to unmap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub struct Mapping {
    /// Where it begins in the window.
    pub window_offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

const _: () = assert!(size_of::<Mapping>() == size_of::<abi::RemovemappingOne>());

/// Unmaps ranges of the window. At an error the server stops: earlier ranges are
/// unmapped, later ones are not.
#[derive(Clone, Copy, Debug)]
pub struct Removemapping<'a> {
    node: NodeId,
    mappings: &'a [Mapping],
}

impl<'a> Removemapping<'a> {
    /// How many ranges go into one request: a page of them.
    pub const MAX: usize = 4096 / size_of::<Mapping>();

    /// Unmaps the first ranges, as many as may go into one request, and returns
    /// the others. All belong to the file `node`.
    pub fn split(node: NodeId, mappings: &'a [Mapping]) -> (Self, &'a [Mapping]) {
        let (mappings, rest) = mappings.split_at(mappings.len().min(Self::MAX));
        (Self { node, mappings }, rest)
    }
}

impl Request for Removemapping<'_> {
    const OPCODE: Opcode = Opcode::Removemapping;
    const REPLY: ReplyShape = ReplyShape::Empty;
    type Reply = ();

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::RemovemappingIn {
            count: self.mappings.len() as u32,
        });
        w.put(self.mappings);
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<(), Malformed> {
        payload.none()
    }
}

impl fmt::Display for Removemapping<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "REMOVEMAPPING node={}", self.node)?;
        match self.mappings {
            [one] => write!(f, " window={:#x} len={:#x}", one.window_offset, one.len),
            many => write!(f, " ranges={}", many.len()),
        }
    }
}
