//! The file system: mounts, inodes, names, open files.
//!
//! Two faces of one layer. A kernel with a VFS of its own calls [`Inode`] and
//! [`File`]; a kernel without one opens a [`Process`], which walks
//! paths and keeps descriptors and a working directory.
//!
//! Everything here blocks where it says so, and only there: on a request to the
//! server, for as long as [`Config`](crate::conn::Config) allows. What is known
//! and still valid is answered without a request, and no call on such a path
//! allocates.
//!
//! # Who keeps whom
//!
//! ```text
//! Mount ──► FileSystem ──► dentry cache ──► Inode ──► Place (parent Inode, name)
//!                     └╌╌► inode table (weak)
//! File, Dir ──► Handle ──► Inode
//! ```
//!
//! An inode lives as long as a dentry, an open file, a child or a caller holds
//! it; then its lookups are handed back to the server. The dentry cache is
//! bounded, and so is with it what the server must keep open for us.
//!
//! # Locks
//!
//! First the layout of a file that uses the DAX window, which is held across
//! requests: see [`SleepRwLock`](crate::sync::SleepRwLock). All others are spin
//! locks, held for short sections without a request. In this order:
//! a shard of the dentry cache; a shard of the inode table; an inode's
//! rarely used parts; an inode's attributes, which are read without a lock; then
//! those of the [connection](crate::conn). References are dropped outside of them, because
//! dropping an inode takes locks of its own.

mod acl;
mod attr;
mod attr_cache;
mod cached;
mod calls;
mod copy_up;
mod create;
mod dax;
mod dentry;
mod description;
mod dir;
mod dir_cache;
mod dir_server;
mod ends;
mod fault;
mod file;
mod filesystem;
mod handle;
mod inode;
mod io;
mod ioctl;
mod link;
mod lock;
mod lock_table;
mod lookup;
mod mapping;
mod moment;
mod mount;
mod nosys;
mod notified;
mod options;
mod paths;
mod perm;
mod poll;
mod process;
mod remove;
mod restore;
mod setattr;
mod space;
mod statx;
mod table;
mod walk;
mod xattr;

pub use attr::Metadata;
pub use dir::{Dir, DirEntry};
pub use fault::{Fault, PageUse, PinnedPage, Run};
pub use file::{Durable, File};
pub use filesystem::FileSystem;
pub use inode::Inode;
pub use ioctl::{IoctlMemory, IoctlResult};
pub use lock::LockWait;
pub use mapping::Sharing;
pub use mount::Mount;
pub use options::{CachePolicy, FlushPolicy, MountOptions};
pub use perm::Access;
pub use process::{At, Fd, Process, Symlinks};
pub use restore::{Report, RestartHook};
pub use setattr::{Changes, SetTime};
pub use statx::Statx;
pub use walk::{LINK_MAX, PATH_MAX};
