//! A virtio-fs guest driver that any kernel can link.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod conn;
pub mod dax;
pub mod device;
pub mod errno;
pub mod error;
pub mod fs;
pub mod platform;
pub mod sync;
pub mod wire;

pub use errno::Errno;
pub use error::{Error, Result};

#[cfg(test)]
mod testing;
