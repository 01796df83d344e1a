//! virtio-fs-run
