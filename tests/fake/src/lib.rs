//! A virtio-fs device with a FUSE server over an in-memory file system, in the
//! process of the test.
//!
//! The driver under test gets a [`FakeTransport`] and a [`FakePlatform`]; the
//! test keeps the [`Handle`], with which it looks inside and makes things
//! happen. Nothing is random, and time is virtual unless threads are asked for,
//! so a test repeats exactly.
//!
//! ```
//! use virtio_fs::device::Transport;
//! use virtio_fs_fake::{Fake, Fault, MemFs, Op, Rule};
//!
//! let mut fs = MemFs::new();
//! fs.mkdir("/etc")?;
//! fs.file("/etc/hostname", "fake\n")?;
//!
//! let (transport, fake) = Fake::new()
//!     .tag("myfs")
//!     .queues(2)
//!     .fs(fs)
//!     .fault(Rule::on(Op::READ, Fault::Short(20)).nth(3))
//!     .build();
//! let platform = fake.platform();
//! # let _ = platform;
//! // Here the driver mounts `transport` on `platform` and does its work.
//!
//! let mut tag = [0; 4];
//! transport.read_config(0, &mut tag)?;
//! assert_eq!(&tag, b"myfs");
//! assert_eq!(fake.count(Op::INIT), 0);
//! assert_eq!(fake.fs(|fs| fs.read("/etc/hostname"))?, b"fake\n");
//! // What the driver still knows, and what the server thinks it knows.
//! fake.assert_lookups([]);
//! // Rules that the driver broke, in memory, rings or messages, panic here.
//! fake.assert_clean();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Parts
//!
//! | | |
//! |---|---|
//! | [`Memory`], [`FakeHal`] | guest memory, with every access of the device checked |
//! | queues, registers | the device side of virtio 1.3, with what the driver publishes checked |
//! | [`ServerConfig`], server | the FUSE server, with every request checked |
//! | [`MemFs`] | the tree it serves |
//! | [`WindowRules`], window | the DAX window, real mappings of the tree's contents |
//! | [`Rule`], [`Fault`] | misbehaviour on purpose |
//! | [`FakePlatform`] | time, waiting, callers |
//!
//! # Who works
//!
//! See [`Drive`]: the device serves requests inside `notify`, when the test
//! says so, or on a thread for each queue.
//!
//! # What it does not do
//!
//! Packed rings; permission checks (a virtio-fs client makes them); space
//! limits (a [`Fault::Error`] says ENOSPC just as well); byte order other than
//! little endian; reply layouts of minors before 7.9.

mod abi;
mod clock;
mod content;
mod device;
mod dir;
mod disk;
mod fake;
mod faults;
mod hal;
mod handle;
mod memfs;
mod memory;
mod platform;
mod queue;
mod requests;
mod server;
mod shared;
mod transport;
mod window;

pub use abi::{ATTR_DAX, ATTR_SUBMOUNT, Errno, Op, ROOT_ID, fattr, feature, fopen, init};
pub use device::{Cause, DeviceStats, Interrupt};
pub use fake::Fake;
pub use faults::{AttrField, DirFault, Edit, EntryField, Fault, Rule};
pub use hal::FakeHal;
pub use handle::{Control, Handle};
pub use memfs::{Ino, MemFs, NAME_MAX, ROOT, Stat};
pub use memory::{Memory, Placement, Sharing, Usage};
pub use platform::{FakePlatform, FakeThread};
pub use server::{
    DestroyReply, IOCTL_REVERSE, Interrupts, Lock, NodeIds, Notification, OpenHandle, Record,
    ServerConfig,
};
pub use shared::Drive;
pub use transport::FakeTransport;
pub use window::{Mapping, WindowRules};
