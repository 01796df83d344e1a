//! The unchanged driver as an ordinary Linux process, without a virtual machine.
//!
//! A real virtio-fs daemon (`virtiofsd`, or the project's own with a DAX
//! window) serves a vhost-user socket; this crate plays the virtual machine
//! monitor on the other end. Debuggers, profilers, sanitizers and fuzzers then
//! work on the driver as on any program, at native speed.
//!
//! | module | is |
//! |---|---|
//! | [`arena`] | guest memory: one memfd for the whole process, a page allocator, [`arena::Buffer`] |
//! | [`hal`] | [`HostHal`], the driver's view of that memory; bounces what lies elsewhere, and counts it |
//! | [`transport`] | [`VhostUserTransport`], the device's registers |
//! | [`session`] | one connection to one daemon: the messages behind the registers |
//! | [`interrupt`] | the thread that turns call eventfds into interrupts |
//! | [`window`] | the shared-memory window (DAX): mappings that the daemon asks for |
//! | [`daemon`] | starts, kills, stops and restarts a daemon, keeps its log |
//! | [`platform`] | [`HostPlatform`]: time, sleeping, callers and signals |
//!
//! What it does not show: PCI, MSI-X, interrupt context, memory that is not
//! contiguous, a kernel's allocator. The test kernel under QEMU does.

#[cfg(not(target_os = "linux"))]
compile_error!("vhost-user with memfd, eventfd and epoll is a matter of Linux");

pub mod arena;
mod channel;
pub mod daemon;
pub mod hal;
pub mod interrupt;
mod keeper;
mod pages;
pub mod platform;
pub mod session;
pub mod transport;
mod watchdog;
pub mod window;

pub use arena::Buffer;
pub use daemon::Daemon;
pub use hal::HostHal;
pub use platform::HostPlatform;
pub use transport::{Options, VhostUserTransport};
