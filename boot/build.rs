//! Links the `kernel` binary for a bare machine.
//!
//! The kernel is built for the host's own target, so the arguments below must
//! reach this one binary only, and only when it is built under the `kernel`
//! profile: under any other profile the binary is an ordinary program that says
//! how to build the kernel, so that builds of the whole workspace just work.
//! Cargo tells a build script nothing of custom profiles but the path it may
//! write to, `target/<profile>/build/<package>/out`.

use std::{env, path::Path};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    let script = format!("{root}/kernel.ld");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={script}");

    let args = [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        // The DWARF sections are laid over one another, see kernel.ld.
        "-Wl,--no-check-sections",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,noexecstack",
        "-Wl,--build-id=none",
        &format!("-Wl,-T,{script}"),
    ];
    println!("cargo::metadata=LINK_ARGS={}", args.join(" "));

    let out = env::var("OUT_DIR").expect("set by cargo");
    let profile = Path::new(&out).ancestors().nth(3).and_then(Path::file_name);
    if profile.is_some_and(|profile| profile == "kernel") {
        for arg in args {
            println!("cargo::rustc-link-arg-bin=kernel={arg}");
        }
    }
}
