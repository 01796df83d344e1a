//! A virtio-fs guest driver that any kernel can link.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod device;
pub mod errno;
pub mod platform;
pub mod wire;
