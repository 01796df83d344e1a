//! virtio-fs-daxd
