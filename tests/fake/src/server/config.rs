//! What kind of server it is: everything that a conforming server may choose.

use core::time::Duration;
use std::collections::BTreeSet;

use crate::abi::{Op, init};

/// How node ids are given out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeIds {
    /// Counted up from 2, never used again, generation 0: virtiofsd.
    #[default]
    Counter,
    /// The same inode gets the same id whenever it is looked up, generation 0:
    /// fuse-backend-rs.
    Stable,
    /// The lowest free id, with the generation counted up at each new use.
    Recycled,
}

/// How DESTROY is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DestroyReply {
    /// Used length 0, nothing written: virtiofsd.
    #[default]
    Nothing,
    /// A header: fuse-backend-rs.
    Header,
}

/// What INTERRUPT does to a request that waits or is held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interrupts {
    /// The request ends with EINTR.
    #[default]
    Honoured,
    /// Nothing, as with virtiofsd and fuse-backend-rs.
    Ignored,
}

/// The choices of the server. The defaults are those of a generous, modern one:
/// all that it can do is on, and timeouts are a second.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Highest minor version it speaks; the major one is 7.
    pub minor: u32,
    /// Lowest minor version of a client that it takes.
    pub min_minor: u32,
    /// INIT flags it acknowledges if the client sends them.
    pub flags: u64,
    /// INIT flags it returns whether the client sent them or not.
    pub unasked_flags: u64,
    /// `init_out.max_readahead`, at most.
    pub max_readahead: u32,
    /// `init_out.max_write`.
    pub max_write: u32,
    /// `init_out.max_pages`, if `MAX_PAGES` is negotiated.
    pub max_pages: u16,
    /// `init_out.max_background`.
    pub max_background: u16,
    /// `init_out.congestion_threshold`.
    pub congestion_threshold: u16,
    /// `init_out.time_gran`.
    pub time_gran: u32,
    /// `init_out.map_alignment`, a power of two's exponent.
    pub map_alignment: u16,
    /// `init_out.max_stack_depth`.
    pub max_stack_depth: u32,
    /// `init_out.request_timeout`, seconds.
    pub request_timeout: u16,
    /// How long a name holds.
    pub entry_valid: Duration,
    /// How long attributes hold.
    pub attr_valid: Duration,
    /// If set, a missing name is a reply with node id 0 that holds this long,
    /// and not an error.
    pub negative_valid: Option<Duration>,
    /// `open_flags` in the replies to OPEN, CREATE and TMPFILE.
    pub open_flags: u32,
    /// `open_flags` in the replies to OPENDIR.
    pub opendir_flags: u32,
    /// First file handle given out.
    pub first_fh: u64,
    /// Opcodes that are answered with ENOSYS.
    pub missing: BTreeSet<Op>,
    /// How node ids are given out.
    pub node_ids: NodeIds,
    /// A file's first open for writing copies it up, as on an overlay file system:
    /// who has it open for reading keeps the old one.
    pub copy_up: bool,
    /// How DESTROY is answered.
    pub destroy: DestroyReply,
    /// What INTERRUPT does.
    pub interrupts: Interrupts,
    /// How many requests the log keeps; counters are kept for all.
    pub log_limit: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            minor: 45,
            min_minor: 27,
            flags: init::ASYNC_READ
                | init::POSIX_LOCKS
                | init::FLOCK_LOCKS
                | init::ATOMIC_O_TRUNC
                | init::EXPORT_SUPPORT
                | init::BIG_WRITES
                | init::HAS_IOCTL_DIR
                | init::AUTO_INVAL_DATA
                | init::DO_READDIRPLUS
                | init::READDIRPLUS_AUTO
                | init::ASYNC_DIO
                | init::PARALLEL_DIROPS
                | init::MAX_PAGES
                | init::CACHE_SYMLINKS
                | init::MAP_ALIGNMENT
                | init::SUBMOUNTS
                | init::HANDLE_KILLPRIV_V2
                | init::SETXATTR_EXT
                | init::INIT_EXT
                | init::HAS_INODE_DAX
                | init::CREATE_SUPP_GROUP
                | init::HAS_EXPIRE_ONLY
                | init::DIRECT_IO_ALLOW_MMAP,
            unasked_flags: 0,
            max_readahead: u32::MAX,
            max_write: 1 << 20,
            max_pages: 256,
            max_background: 65535,
            congestion_threshold: 49149,
            time_gran: 1,
            map_alignment: 12,
            max_stack_depth: 0,
            request_timeout: 0,
            entry_valid: Duration::from_secs(1),
            attr_valid: Duration::from_secs(1),
            negative_valid: None,
            open_flags: 0,
            opendir_flags: 0,
            first_fh: 0,
            missing: BTreeSet::new(),
            node_ids: NodeIds::default(),
            copy_up: false,
            destroy: DestroyReply::default(),
            interrupts: Interrupts::default(),
            log_limit: 1 << 16,
        }
    }
}

impl ServerConfig {
    /// The choices of virtiofsd 1.14 without options (protocol.md 3.3).
    pub fn virtiofsd() -> Self {
        Self {
            minor: 38,
            flags: 0x104_4844_f829,
            map_alignment: 0,
            missing: [
                Op::IOCTL,
                Op::POLL,
                Op::BMAP,
                Op::GETLK,
                Op::SETLK,
                Op::SETLKW,
                Op::TMPFILE,
                Op::STATX,
                Op::COPY_FILE_RANGE_64,
                Op::SETUPMAPPING,
                Op::REMOVEMAPPING,
                Op::NOTIFY_REPLY,
            ]
            .into(),
            interrupts: Interrupts::Ignored,
            ..Self::default()
        }
    }

    /// The choices of fuse-backend-rs 0.14 as the DAX daemon uses it
    /// (protocol.md 3.4).
    pub fn fuse_backend_rs() -> Self {
        Self {
            minor: 33,
            min_minor: 0,
            flags: init::DO_READDIRPLUS | init::READDIRPLUS_AUTO | init::HAS_INODE_DAX,
            max_write: 4096,
            max_pages: 0,
            map_alignment: 0,
            first_fh: 1,
            missing: [
                Op::SYNCFS,
                Op::COPY_FILE_RANGE,
                Op::COPY_FILE_RANGE_64,
                Op::TMPFILE,
                Op::STATX,
                Op::POLL,
                Op::BMAP,
                Op::GETLK,
                Op::SETLK,
                Op::SETLKW,
                Op::SETXATTR,
                Op::GETXATTR,
                Op::LISTXATTR,
                Op::REMOVEXATTR,
            ]
            .into(),
            node_ids: NodeIds::Stable,
            destroy: DestroyReply::Header,
            interrupts: Interrupts::Ignored,
            ..Self::default()
        }
    }
}
