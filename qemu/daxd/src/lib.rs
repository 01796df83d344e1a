//! A virtio-fs host daemon with a DAX window, for stock QEMU.
//!
//! From the command line inwards:
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | the command line, checked |
//! | [`daemon`] | the socket, one connection after the other |
//! | [`device`] | the vhost-user device: features, config space, rings |
//! | [`channel`] | asks the front end to map |
//! | [`ring`] | a ring that can be stopped while its requests are in service |
//! | [`pool`] | threads that serve requests |
//! | [`session`] | one FUSE session: checks each request, answers what the passthrough lacks |
//! | [`wire`] | what a well-formed request looks like |
//! | [`limits`] | what INIT agrees on |
//! | [`share`] | the shared directory |
//! | [`window`] | the DAX window: which piece of which file is mapped where |
//! | [`faults`] | failures on purpose |
//! | [`stats`] | counters, the requests log and the control socket |
//! | [`logger`] | messages on standard error |
//!
//! The front end announces new memory, and stops rings, while a request waits for
//! it. So nothing that these two need is held by a request meanwhile: the table of
//! the window and the rings are locked for moments only, and the one lock that is
//! held while the front end is asked, [`channel`]'s turn, is taken by nobody else.

pub mod channel;
pub mod daemon;
pub mod device;
pub mod faults;
pub mod limits;
pub mod logger;
pub mod options;
pub mod pool;
pub mod ring;
pub mod session;
pub mod share;
pub mod stats;
pub mod window;
pub mod wire;
