//! The virtio device: finding it, talking to its registers, its rings.
//!
//! Nothing here knows FUSE. The device is a stranger: every number it supplies
//! is checked where it is read.

pub mod pci;
pub mod transport;

pub use transport::{QueueLayout, SharedMemory, Transport, TransportError};
