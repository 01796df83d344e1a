//! Any Linux program on a file system that lives in this process.
//!
//! The kernel sends FUSE requests to `/dev/fuse`; they are decoded here into
//! calls of [`Operations`] and the answers encoded. With the virtio-fs driver
//! behind that trait, suites written by others run on it:
//! program → Linux → `/dev/fuse` → driver → vhost-user → daemon → directory.
//!
//! Linux's own client in front walks paths, caches, checks permissions
//! (`default_permissions`) and keeps directory locks, so none of that is shown
//! of the file system behind it.
//!
//! | module | is |
//! |---|---|
//! | [`operations`] | what a file system answers, one method for each request |
//! | [`value`] | what the answers are made of |
//! | [`mount`] | `/dev/fuse`, mount(2), umount(2) |
//! | [`mod@serve`] | the threads that serve a mount |
//! | [`export`] | the driver as such a file system |
//!
//! The layouts are those of `include/uapi/linux/fuse.h` (7.38 and later). They
//! are written down here a second time on purpose, apart from the driver's own,
//! so that a mistake in one does not hide behind the same mistake in the other.

mod caller;
mod convert;
mod dispatch;
pub mod export;
mod handles;
mod listing;
mod message;
pub mod mount;
mod nodes;
mod opcode;
pub mod operations;
pub mod serve;
pub mod value;

pub use export::Export;
pub use mount::Mount;
pub use operations::{Context, Operations};
pub use serve::serve;
pub use value::Errno;
