//! virtio-fs-fake
