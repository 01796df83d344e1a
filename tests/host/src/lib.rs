//! virtio-fs-host
