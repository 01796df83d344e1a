//! virtio-fs-sim
