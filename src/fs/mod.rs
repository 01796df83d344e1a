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
//! # Examples
//!
//! The device is one that the tests make up. On a real one only the connection is
//! made in another way: see the README.
//!
//! Paths and descriptors:
//!
//! ```
//! # use std::sync::Arc;
//! # use virtio_fs_fake::{Fake, MemFs};
//! use virtio_fs::conn::{Config, Connection};
//! use virtio_fs::fs::{At, Mount, MountOptions, Process, Symlinks};
//! use virtio_fs::wire::OpenFlags;
//!
//! # let mut tree = MemFs::new();
//! # tree.mkdir("/etc")?;
//! # tree.file("/etc/motd", "hello")?;
//! # let (transport, fake) = Fake::new().fs(tree).build();
//! # let platform = fake.platform();
//! let connection = Connection::open(Arc::new(platform), Arc::new(transport), Config::default())?;
//! let mount = Mount::new(connection, MountOptions::default())?;
//! let process = Process::new(&mount);
//! process.chdir(At::Cwd, b"/etc")?;
//! assert_eq!(process.stat(At::Cwd, b"motd", Symlinks::Follow)?.size(), 5);
//!
//! let fd = process.open(At::Cwd, b"motd", OpenFlags::RDWR, 0)?;
//! let mut text = [0; 16];
//! let len = process.read(fd, &mut text)?;
//! assert_eq!(&text[..len], b"hello");
//! process.write_all(fd, b", world")?;
//! process.close(fd)?;
//!
//! let etc = process.open(At::Cwd, b".", OpenFlags::DIRECTORY, 0)?;
//! let mut names = Vec::new();
//! process.read_dir(etc, |entry| {
//!     names.push(entry.name.to_vec());
//!     true
//! })?;
//! assert_eq!(names, [&b"."[..], b"..", b"motd"]);
//! drop(process);
//! mount.unmount();
//! # assert_eq!(fake.fs(|fs| fs.read("/etc/motd"))?, b"hello, world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Inodes, for a kernel that walks paths and keeps descriptors by itself:
//!
//! ```
//! # use std::sync::Arc;
//! # use virtio_fs::conn::{Config, Connection};
//! # use virtio_fs::fs::{Mount, MountOptions};
//! # use virtio_fs_fake::{Fake, MemFs};
//! use virtio_fs::Errno;
//! use virtio_fs::fs::{Access, Changes, Durable};
//! use virtio_fs::wire::{LockOwner, OpenFlags, RenameFlags};
//!
//! # let mut tree = MemFs::new();
//! # tree.mkdir("/etc")?;
//! # let (transport, fake) = Fake::new().fs(tree).build();
//! # let platform = fake.platform();
//! # let connection = Connection::open(Arc::new(platform), Arc::new(transport), Config::default())?;
//! let mount = Mount::new(connection, MountOptions::default())?;
//! let etc = mount.root().lookup(b"etc")?;
//! etc.permission(Access::WRITE | Access::EXEC)?;
//!
//! // One `File` for each open(2). Each close(2) flushes it; when the last
//! // reference goes, the server's handle does.
//! let file = etc.create(b"new", OpenFlags::RDWR, 0o644)?;
//! assert_eq!(file.write_at(0, b"text")?, 4);
//! file.sync(Durable::Data)?;
//! file.flush(LockOwner(1))?;
//! drop(file);
//!
//! let (inode, attributes) = etc.lookup_with_metadata(b"new")?;
//! assert_eq!((attributes.size(), inode.is_dir()), (4, false));
//! inode.set_metadata(&Changes {
//!     permissions: Some(0o600),
//!     ..Changes::default()
//! })?;
//! etc.rename(b"new", &etc, b"old", RenameFlags::NOREPLACE)?;
//! let mut entries = 0;
//! etc.open_dir()?.read(|_| {
//!     entries += 1;
//!     true
//! })?;
//! assert_eq!(entries, 3, "., .. and old");
//! etc.unlink(b"old")?;
//! assert_eq!(etc.lookup(b"old").unwrap_err().errno(), Errno::ENOENT);
//! drop((inode, etc));
//! mount.unmount();
//! # fake.assert_clean();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
mod writeback;
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
