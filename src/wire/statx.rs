//! STATX (7.39): attributes with the time of creation.

use core::fmt;
use core::time::Duration;

use bitflags::bitflags;

use super::attr::{GETATTR_FH, blksize_log2, file_size, fmt_fh};
use super::time::validity;
use super::{
    Attr, AttrFlags, Dialect, FileHandle, Malformed, Mode, NodeId, Opcode, Payload, Rdev,
    ReplyShape, Request, Time, Writer, abi,
};

bitflags! {
    /// Which fields STATX asks for and has.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StatxMask: u32 {
        /// Type.
        const TYPE = 1 << 0;
        /// Permissions.
        const MODE = 1 << 1;
        /// Number of links.
        const NLINK = 1 << 2;
        /// Owner.
        const UID = 1 << 3;
        /// Group.
        const GID = 1 << 4;
        /// Time of last access.
        const ATIME = 1 << 5;
        /// Time of last change of data.
        const MTIME = 1 << 6;
        /// Time of last change of attributes.
        const CTIME = 1 << 7;
        /// Inode number.
        const INO = 1 << 8;
        /// Size.
        const SIZE = 1 << 9;
        /// Blocks in use.
        const BLOCKS = 1 << 10;
        /// Time of creation.
        const BTIME = 1 << 11;
        /// What stat(2) has.
        const BASIC_STATS = 0x7ff;
        const _ = !0;
    }

    /// How fresh STATX wants the attributes (`AT_STATX_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct StatxFlags: u32 {
        /// Ask the remote server behind the server.
        const FORCE_SYNC = 0x2000;
        /// Do not.
        const DONT_SYNC = 0x4000;
    }
}

/// Asks for attributes that GETATTR does not know.
#[derive(Clone, Copy, Debug)]
pub struct Statx {
    /// The node.
    pub node: NodeId,
    /// An open file of this node to take them from.
    pub fh: Option<FileHandle>,
    /// How fresh they shall be.
    pub flags: StatxFlags,
    /// Which ones are wanted.
    pub mask: StatxMask,
}

/// The reply to [`Statx`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatxReply {
    /// How long the attributes stay valid.
    pub valid: Duration,
    /// Which fields the server knows.
    pub mask: StatxMask,
    /// The attributes that GETATTR has too, without its flags. `None` if the
    /// server does not know all of them.
    pub attr: Option<Attr>,
    /// Time of creation, if the server knows it.
    pub btime: Option<Time>,
    /// Properties of the file (`STATX_ATTR_*`), those that the server supports.
    pub attributes: u64,
    /// Which properties the server supports.
    pub attributes_mask: u64,
}

impl Request for Statx {
    const OPCODE: Opcode = Opcode::Statx;
    const REPLY: ReplyShape = ReplyShape::Fixed(size_of::<abi::StatxOut>());
    type Reply = StatxReply;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&abi::StatxIn {
            getattr_flags: if self.fh.is_some() { GETATTR_FH } else { 0 },
            reserved: 0,
            fh: self.fh.unwrap_or_default().0,
            sx_flags: self.flags.bits(),
            sx_mask: self.mask.bits(),
        });
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<StatxReply, Malformed> {
        let out: abi::StatxOut = payload.read()?;
        let stat = &out.stat;
        let mask = StatxMask::from_bits_retain(stat.mask);
        let time = |t: &abi::SxTime| Time::new(t.tv_sec, t.tv_nsec);
        let attr = if mask.contains(StatxMask::BASIC_STATS) {
            Some(Attr {
                ino: stat.ino,
                size: file_size(stat.size)?,
                blocks: stat.blocks,
                atime: time(&stat.atime),
                mtime: time(&stat.mtime),
                ctime: time(&stat.ctime),
                nlink: stat.nlink,
                uid: stat.uid,
                gid: stat.gid,
                rdev: Rdev::new(stat.rdev_major, stat.rdev_minor),
                mode: Mode::from_wire(stat.mode.into())?,
                blksize_log2: blksize_log2(stat.blksize),
                flags: AttrFlags::empty(),
            })
        } else {
            None
        };
        Ok(StatxReply {
            valid: validity(out.attr_valid, out.attr_valid_nsec),
            mask,
            attr,
            btime: mask.contains(StatxMask::BTIME).then(|| time(&stat.btime)),
            attributes: stat.attributes & stat.attributes_mask,
            attributes_mask: stat.attributes_mask,
        })
    }
}

impl fmt::Display for Statx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "STATX node={}", self.node)?;
        fmt_fh(f, self.fh)?;
        write!(f, " mask={:#x}", self.mask)
    }
}
