//! Links the binary for a bare machine: the arguments come from the test kernel's own build script.

use std::{env, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR").expect("set by cargo");
    // Under any other profile this is an ordinary program, which says how to build it.
    let profile = Path::new(&out).ancestors().nth(3).and_then(Path::file_name);
    if profile.is_some_and(|profile| profile == "kernel") {
        let args = env::var("DEP_VIRTIO_FS_BOOT_LINK_ARGS").expect("set by virtio-fs-boot");
        for arg in args.split(' ') {
            println!("cargo::rustc-link-arg-bins={arg}");
        }
    }
}
