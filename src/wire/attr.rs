//! Attributes of inodes, and GETATTR.
//!
//! All attributes, whichever reply brings them, pass one validator:
//! [`Attr::from_wire`]; STATX has its own layout and then the same checks.

use core::fmt;
use core::time::Duration;

use bitflags::bitflags;
use zerocopy::FromBytes;

use super::time::validity;
use super::{
    Dialect, FileHandle, Malformed, Mode, NodeId, Opcode, Payload, ReplyShape, Request, Time,
    Writer, abi,
};

bitflags! {
    /// What the server says about an inode beside its mode.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct AttrFlags: u8 {
        /// The root of another file system.
        const SUBMOUNT = 1 << 0;
        /// The file should be used through the DAX window.
        const DAX = 1 << 1;
    }
}

/// The attributes of an inode, as the server stated them. Every value was
/// checked when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number, for `st_ino`. Not the node id.
    pub ino: u64,
    /// Size in bytes, at most `i64::MAX`.
    pub size: u64,
    /// Space in use, in units of 512 bytes.
    pub blocks: u64,
    /// Time of last access.
    pub atime: Time,
    /// Time of last change of data.
    pub mtime: Time,
    /// Time of last change of attributes.
    pub ctime: Time,
    /// Number of links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Number of a device node, in Linux's 32-bit form (see [`Rdev`]).
    pub rdev: Rdev,
    /// Type and permissions.
    pub mode: Mode,
    /// Binary logarithm of the block size, see [`blksize`](Self::blksize).
    pub blksize_log2: u8,
    /// What else the server says.
    pub flags: AttrFlags,
}

// One of these lives in each cached inode.
const _: () = assert!(size_of::<Attr>() <= 96);

/// The block size where the server states none that makes sense.
const BLKSIZE_LOG2: u8 = 12;
/// The largest size of a file.
pub const SIZE_MAX: u64 = i64::MAX as u64;

impl Attr {
    /// Checks attributes as GETATTR, LOOKUP and their like return them.
    ///
    /// Nanoseconds are clamped, block sizes that are no power of two become
    /// 4096, flags that are unknown are dropped.
    ///
    /// # Errors
    ///
    /// [`Malformed::Mode`] without a file type, [`Malformed::Offset`] with a
    /// size beyond `i64::MAX`.
    pub fn from_wire(attr: &abi::Attr) -> Result<Self, Malformed> {
        Ok(Self {
            ino: attr.ino,
            size: file_size(attr.size)?,
            blocks: attr.blocks,
            atime: Time::from_wire(attr.atime, attr.atimensec),
            mtime: Time::from_wire(attr.mtime, attr.mtimensec),
            ctime: Time::from_wire(attr.ctime, attr.ctimensec),
            nlink: attr.nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: Rdev(attr.rdev),
            mode: Mode::from_wire(attr.mode)?,
            blksize_log2: blksize_log2(attr.blksize),
            flags: AttrFlags::from_bits_truncate(attr.flags as u8),
        })
    }

    /// Returns the preferred size of an I/O, a power of two.
    pub const fn blksize(&self) -> u32 {
        // INVARIANT: blksize_log2() returns at most 31; a value that a caller
        // put there is cut likewise.
        1 << (self.blksize_log2 & 31)
    }
}

/// Refuses sizes that are negative for a caller.
pub(super) fn file_size(size: u64) -> Result<u64, Malformed> {
    if size <= SIZE_MAX {
        Ok(size)
    } else {
        Err(Malformed::Offset(size))
    }
}

/// Replaces a block size that makes no sense.
pub(super) fn blksize_log2(blksize: u32) -> u8 {
    if blksize.is_power_of_two() {
        blksize.trailing_zeros() as u8
    } else {
        BLKSIZE_LOG2
    }
}

/// The number of a device node as FUSE carries it: 12 bits of major and 20 bits
/// of minor number, the low 8 bits of the minor lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rdev(pub u32);

impl Rdev {
    /// Joins a major and a minor number; bits that have no room are dropped.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self(minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12)
    }

    /// Returns the major number.
    pub const fn major(self) -> u32 {
        self.0 >> 8 & 0xfff
    }

    /// Returns the minor number.
    pub const fn minor(self) -> u32 {
        self.0 & 0xff | self.0 >> 12 & 0xf_ff00
    }
}

/// The reply to GETATTR and SETATTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttrReply {
    /// How long the attributes stay valid.
    pub valid: Duration,
    /// The attributes.
    pub attr: Attr,
}

impl AttrReply {
    /// The shape of this reply.
    pub(super) const SHAPE: ReplyShape = ReplyShape::Versioned(size_of::<abi::AttrOut>());

    pub(super) fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Self, Malformed> {
        let out: abi::AttrOut = read_versioned(payload, dialect, ATTR_TAIL)?;
        Ok(Self {
            valid: validity(out.attr_valid, out.attr_valid_nsec),
            attr: Attr::from_wire(&out.attr)?,
        })
    }
}

/// How much shorter attributes are before 7.9: they end before `blksize`.
pub(super) const ATTR_TAIL: usize = 8;

/// Reads a struct that ends with attributes, from servers before 7.9 without the
/// last `tail` bytes, which then are 0.
pub(super) fn read_versioned<T: FromBytes + zerocopy::IntoBytes>(
    payload: Payload<'_>,
    dialect: &Dialect,
    tail: usize,
) -> Result<T, Malformed> {
    if dialect.minor >= 9 {
        return payload.read();
    }
    let mut out = T::new_zeroed();
    let short = size_of::<T>().saturating_sub(tail);
    match out.as_mut_bytes().get_mut(..short) {
        Some(bytes) if payload.fixed.len() == short => bytes.copy_from_slice(payload.fixed),
        _ => return Err(Malformed::PayloadLen(payload.fixed.len())),
    }
    Ok(out)
}

/// Asks for the attributes of a node.
#[derive(Clone, Copy, Debug)]
pub struct Getattr {
    /// The node.
    pub node: NodeId,
    /// An open file of this node to take them from.
    pub fh: Option<FileHandle>,
}

/// Bit 0 of `getattr_flags`: the handle counts.
pub(super) const GETATTR_FH: u32 = 1 << 0;

impl Request for Getattr {
    const OPCODE: Opcode = Opcode::Getattr;
    const REPLY: ReplyShape = AttrReply::SHAPE;
    type Reply = AttrReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::GetattrIn {
            getattr_flags: if self.fh.is_some() { GETATTR_FH } else { 0 },
            dummy: 0,
            fh: self.fh.unwrap_or_default().0,
        });
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<AttrReply, Malformed> {
        AttrReply::decode(payload, dialect)
    }
}

impl fmt::Display for Getattr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GETATTR node={}", self.node)?;
        fmt_fh(f, self.fh)
    }
}

/// Prints an optional handle.
pub(super) fn fmt_fh(f: &mut fmt::Formatter<'_>, fh: Option<FileHandle>) -> fmt::Result {
    match fh {
        Some(fh) => write!(f, " fh={fh}"),
        None => Ok(()),
    }
}
