//! virtio-fs-boot
#![no_std]

#[cfg(panic = "abort")]
pub mod entry;
