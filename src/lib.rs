//! A virtio-fs guest driver that any kernel can link.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod dax;
pub mod device;
pub mod platform;
