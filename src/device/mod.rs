//! The virtio device: finding it, talking to its registers, its rings.
//!
//! Nothing here knows FUSE. The device is a stranger: every number it supplies
//! is checked where it is read.

pub mod config;
pub mod dma;
pub mod pci;
pub mod ring;
mod share;
pub mod table;
pub mod transport;
pub mod window;

pub use share::Data;
pub(crate) use share::{Lent, TableBuilder, TableFull, lend, reclaim};
pub use transport::{QueueLayout, SharedMemory, Transport, TransportError};
