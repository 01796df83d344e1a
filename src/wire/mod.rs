//! FUSE messages: plain bytes in, plain values out.
//!
//! One struct for each operation ([`Lookup`], [`Read`], …) knows its opcode, its
//! arguments and the shape of its reply, and parses that reply: see [`Request`].
//! Bulk data (what READ returns, what WRITE sends) is never copied here; it
//! travels in segments of its own, and the request says how many bytes those
//! hold. Nothing here knows a device, a clock or a kernel, so all of it runs,
//! and is attacked, on the host.
//!
//! ```text
//! readable   InHeader │ args, names, extensions │ data_out
//!            └────────── encode() ────────────┘   caller's own segments
//! writable   OutHeader │ fixed part of the reply │ data_in
//!            └── check_reply(), then decode() ─┘   caller's own segments
//! ```
//!
//! # What can no longer fail
//!
//! - After [`check_reply`] the payload lies inside the writable area, has the
//!   length that its [`ReplyShape`] asks for, and answers this very request.
//! - After [`Request::decode`] times have less than 10⁹ nanoseconds, sizes fit
//!   an `i64`, modes have one of the seven types, node ids are not 0, block
//!   sizes are powers of two.
//! - A [`Name`] is not empty, not `.` or `..`, holds no `/` and no NUL, and is
//!   not too long; the names that [`Dirents`] yields are checked likewise.
//!
//! Layouts are those of protocol 7.45 ([`MINOR`]); what a peer of an older minor
//! expects is decided by the [`Dialect`] that INIT negotiated. Numbers follow
//! Linux's `include/uapi/linux/fuse.h`, virtio 1.3 section 5.11.

#![forbid(unsafe_code)]

pub mod abi;

mod attr;
mod count;
mod create;
mod dax;
mod dialect;
mod dir;
mod ext;
mod flags;
mod flush;
mod fs;
mod header;
mod id;
pub(crate) mod ids;
mod init;
mod init_flags;
mod io;
mod ioctl;
mod link;
mod lock;
mod lookup;
mod malformed;
mod mode;
mod name;
mod notify;
mod opcode;
mod open;
mod range;
mod reply;
mod request;
mod setattr;
mod statx;
mod time;
mod writer;
mod xattr;

pub use attr::*;
pub use count::*;
pub use create::*;
pub use dax::*;
pub use dialect::*;
pub use dir::*;
pub use ext::*;
pub use flags::*;
pub use flush::*;
pub use fs::*;
pub use header::*;
pub use id::*;
pub use ids::{HandedOut, Id, replace_in_request};
pub use init::*;
pub use init_flags::*;
pub use io::*;
pub use ioctl::*;
pub use link::*;
pub use lock::*;
pub use lookup::*;
pub use malformed::*;
pub use mode::*;
pub use name::*;
pub use notify::*;
pub use opcode::*;
pub use open::*;
pub use range::*;
pub use reply::*;
pub use request::*;
pub use setattr::*;
pub use statx::*;
pub use time::*;
pub use writer::*;
pub use xattr::*;

#[cfg(test)]
mod tests;
