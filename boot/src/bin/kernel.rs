//! The test kernel.
#![cfg_attr(panic = "abort", no_std, no_main)]
#[cfg(panic = "abort")]
use virtio_fs_boot as _;

#[cfg(not(panic = "abort"))]
fn main() {
    eprintln!("this is a kernel: build it with `cargo kernel`, run it with `make run`");
}
