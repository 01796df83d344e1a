//! virtio-fs-boot
