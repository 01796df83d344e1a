//! Where node ids and file handles stand in messages.
//!
//! A session that is made anew has other ids for the same files. Whoever keeps
//! ids over the end of a session replaces them here, in the encoded request and
//! in the reply before it is parsed, so that nobody above needs to know.
//! Offsets are those of `include/uapi/linux/fuse.h`; see [`abi`].

use core::mem::offset_of;

use super::{FileHandle, NodeId, Opcode, REQUEST_HEADER, abi};

/// An id in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Id {
    /// A node.
    Node(NodeId),
    /// An open file or directory of this node.
    Handle(NodeId, FileHandle),
}

/// `FUSE_GETATTR_FH`: the handle in GETATTR and STATX counts.
const GETATTR_FH: u32 = 1 << 0;
/// `FATTR_FH`: the handle in SETATTR counts.
const FATTR_FH: u32 = 1 << 6;

/// Replaces every id in an encoded request by what `replace` makes of it.
///
/// Forgets are left alone: they carry counts, which go with the ids.
///
/// # Errors
///
/// The first id for which `replace` has nothing. The request is half done then,
/// and must be encoded again.
pub fn replace_in_request(
    opcode: Opcode,
    request: &mut [u8],
    mut replace: impl FnMut(Id) -> Option<u64>,
) -> Result<(), Id> {
    use Opcode as O;
    let Some((header, body)) = request.split_at_mut_checked(REQUEST_HEADER) else {
        return Ok(());
    };
    let node_at = offset_of!(abi::InHeader, nodeid);
    let node = get(header, node_at).and_then(NodeId::new);
    let handle_at = match opcode {
        O::Read | O::Readdir | O::Readdirplus | O::Write | O::Release | O::Releasedir => Some(0),
        O::Flush | O::Fsync | O::Fsyncdir | O::Getlk | O::Setlk | O::Setlkw => Some(0),
        O::Fallocate | O::Lseek | O::Ioctl | O::Poll => Some(0),
        O::CopyFileRange | O::CopyFileRange64 => Some(0),
        O::Setupmapping => Some(0).filter(|_| get(body, 0) != Some(FileHandle::NONE.0)),
        O::Getattr => Some(offset_of!(abi::GetattrIn, fh)).filter(|_| has(body, GETATTR_FH)),
        O::Statx => Some(offset_of!(abi::StatxIn, fh)).filter(|_| has(body, GETATTR_FH)),
        O::Setattr => Some(offset_of!(abi::SetattrIn, fh)).filter(|_| has(body, FATTR_FH)),
        _ => None,
    };
    let mut handle_of = |body: &mut [u8], at: usize, node: Option<NodeId>| {
        if let (Some(fh), Some(node)) = (get(body, at), node) {
            let id = Id::Handle(node, FileHandle(fh));
            put(body, at, replace(id).ok_or(id)?);
        }
        Ok(())
    };
    if let Some(at) = handle_at {
        handle_of(body, at, node)?;
    }
    let second = match opcode {
        O::CopyFileRange | O::CopyFileRange64 => {
            let at = offset_of!(abi::CopyFileRangeIn, nodeid_out);
            let out = get(body, at).and_then(NodeId::new);
            handle_of(body, offset_of!(abi::CopyFileRangeIn, fh_out), out)?;
            Some(at)
        }
        O::Link => Some(offset_of!(abi::LinkIn, oldnodeid)),
        O::Rename | O::Rename2 => Some(offset_of!(abi::RenameIn, newdir)),
        _ => None,
    };
    let mut node_of = |bytes: &mut [u8], at: usize| {
        if let Some(node) = get(bytes, at).and_then(NodeId::new) {
            let id = Id::Node(node);
            put(bytes, at, replace(id).ok_or(id)?);
        }
        Ok(())
    };
    if let Some(at) = second {
        node_of(body, at)?;
    }
    match opcode {
        O::Init | O::Destroy | O::Forget | O::BatchForget | O::Interrupt => Ok(()),
        _ => node_of(header, node_at),
    }
}

/// Ids that a reply hands out, by the offset in its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandedOut {
    /// Where a node id stands.
    pub node: Option<usize>,
    /// Where a file handle stands: of the node that the reply names, or else of
    /// the one that the request was about.
    pub handle: Option<usize>,
}

impl HandedOut {
    /// Says what the reply to `opcode` hands out, data aside (READDIRPLUS).
    pub const fn by(opcode: Opcode) -> Self {
        use Opcode as O;
        const NODE: usize = offset_of!(abi::EntryOut, nodeid);
        const FH: usize = offset_of!(abi::OpenOut, fh);
        match opcode {
            O::Lookup | O::Mknod | O::Mkdir | O::Symlink | O::Link => Self {
                node: Some(NODE),
                handle: None,
            },
            O::Create | O::Tmpfile => Self {
                node: Some(NODE),
                handle: Some(size_of::<abi::EntryOut>() + FH),
            },
            O::Open | O::Opendir => Self {
                node: None,
                handle: Some(FH),
            },
            _ => Self {
                node: None,
                handle: None,
            },
        }
    }

    /// Returns whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.node.is_none() && self.handle.is_none()
    }
}

/// Reads the 64-bit number at byte `at`, if there is one.
pub(crate) fn get(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

/// Writes a 64-bit number at byte `at`, if there is room.
pub(crate) fn put(bytes: &mut [u8], at: usize, value: u64) {
    if let Some(place) = bytes
        .get_mut(at..)
        .and_then(|bytes| bytes.first_chunk_mut())
    {
        *place = value.to_le_bytes();
    }
}

fn has(body: &[u8], flag: u32) -> bool {
    body.first_chunk()
        .is_some_and(|flags| u32::from_le_bytes(*flags) & flag != 0)
}

#[cfg(test)]
#[path = "tests/ids.rs"]
mod tests;
