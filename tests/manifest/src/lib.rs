//! What a tree holds, as lines, and seeded random operations on it.
//!
//! Host and guest look at one directory, each through its own file system. Both walk it with
//! [`walk()`], which writes one line for every entry, and the two texts must be equal, byte for byte.
//! Both know the same operations ([`Op`]), drawn from a seed by [`Churn`], so that one side changes
//! the tree and the other knows what must have come of it: [`Churn`] keeps a model of the tree.
//!
//! A side joins by implementing [`Fs`]; the guest then calls [`take_part`], the host is in `qemu/run`.
//!
//! [`torture`] is another such agreement: what threads do to a few large files, for the DAX window.
//!
//! `no_std` with `alloc`: the guest's half runs in a kernel. Nothing here is part of the driver.

#![no_std]

extern crate alloc;

pub mod cells;
mod churn;
mod fs;
mod line;
mod op;
pub mod torture;
mod turns;
mod walk;

pub use churn::Churn;
pub use fs::{Fs, Kind, Stat, Time};
pub use line::{Entry, escape, unescape};
pub use op::{Op, apply};
pub use turns::{CHANGES, DROP, Scope, Turn, scope, take_part, turn};
pub use walk::{Hash, walk};
