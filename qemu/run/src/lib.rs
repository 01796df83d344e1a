//! Starts a guest in QEMU with the host daemons of its virtio-fs devices, and says how it ended.
//!
//! The same code serves `make run`, `make test`, and tests that start machines themselves:
//!
//! ```no_run
//! use std::time::Duration;
//! use virtio_fs_run::{CommandLine, Machine, Share};
//!
//! let mut machine = Machine::new();
//! machine.shares.push(Share::new("/usr/share", "data"));
//! machine.cmdline = CommandLine::default().value("tag", "data").value("cmd", "ls -l /");
//! machine.timeout = Some(Duration::from_secs(60));
//! let outcome = machine.run();
//! assert_eq!(outcome.status.expect("the guest ends with a status"), 0);
//! print!("{}", outcome.serial);
//! ```
//!
//! Whatever happens to this process, the children end with it, and nothing is left in the file
//! system: sockets are in the abstract namespace. Every way to end has its own [`Error`] and its
//! own exit status.
//!
//! Not here: machines other than x86-64 `q35`, and migration.

mod accel;
mod cmdline;
mod console;
mod daemon;
mod demo;
mod error;
mod host_fs;
mod image;
mod machine;
mod options;
mod process;
mod relay;
mod report;
mod running;
mod share;
mod suite;
mod tap;
mod tools;

pub use accel::Accel;
pub use cmdline::CommandLine;
pub use demo::demo;
pub use error::{Error, Phase};
pub use host_fs::HostFs;
pub use machine::{Chatter, Console, Machine};
pub use options::{HELP, Options, Task, Tests};
pub use report::{Case, Report};
pub use running::{Outcome, Running, Stopper};
pub use share::{DaemonKind, Device, OnLoss, Share};
pub use suite::{Extent, Suite, Table, Torture};
pub use tools::{Named, Tools};
