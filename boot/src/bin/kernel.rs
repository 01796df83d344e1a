//! The test kernel.
#![cfg_attr(panic = "abort", no_std, no_main)]

use virtio_fs_boot::{Kernel, Program, cmdline::Key, kernel, selftest};

kernel!(Program {
    keys: &[
        Key::any("test", "1 runs all tests, a word those whose name contains it"),
        Key::any("crash", "crashes on purpose: panic, fault, jump, divide, constant or overflow"),
    ],
    main,
});

fn main(kernel: &'static Kernel) -> u8 {
    if let Some(filter) = kernel.arguments.get("test") {
        return selftest::run(kernel, selftest::KERNEL, filter);
    }
    if let Some(how) = kernel.arguments.get("crash") {
        selftest::crash(how);
    }
    0
}
