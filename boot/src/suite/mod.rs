//! The driver's tests in the kernel: one table of named tests on a real share,
//! and the kernel's half of the manifest suite of `qemu/run`.

mod dax;
mod durable;
mod mmap;
mod tests;
mod torture;
mod tree;

use alloc::vec::Vec;

pub use durable::DURABLE;
pub use torture::TORTURE;

use virtio_fs::fs::MountOptions;

use crate::{
    Kernel,
    cmdline::Key,
    println,
    selftest::{self, Test},
    virtiofs,
};

/// The word that makes the kernel take part in the manifest suite: its seed.
pub const SEED: Key = Key {
    name: "seed",
    help: "of the changes that host and kernel make in turn, with test=1",
    valid: |word| word.parse::<u64>().is_ok(),
};

/// How many rounds of it.
pub const ROUNDS: Key = Key {
    name: "rounds",
    help: "of changes, with seed",
    valid: |word| word.parse::<u32>().is_ok(),
};

/// Tests of the driver on a share. They work in a directory of their own.
pub const DRIVER: &[Test] = tests::TESTS;

/// The tree compared from both sides, in turns with the host.
const TREE: &[Test] = &[Test {
    name: "a tree is the same from both sides, through changes from both",
    run: tree::take_part,
}];

/// Returns the tables of this kernel that apply to this machine: the kernel's own
/// and, with a virtio-fs device, the driver's. Says which are left out.
pub fn tables(kernel: &Kernel) -> Vec<&'static [Test]> {
    let mut tables = selftest::KERNEL.to_vec();
    if virtiofs::devices().is_empty() {
        println!("# there is no virtio-fs device: the driver's tests are left out");
    } else {
        tables.push(DRIVER);
        if dax::has_window() {
            tables.extend([dax::TESTS, mmap::TESTS]);
        } else {
            println!(
                "# no device has a DAX window: {} tests are left out",
                dax::TESTS.len() + mmap::TESTS.len()
            );
        }
        if kernel.arguments.get(DURABLE.name).is_some() {
            tables.push(durable::TESTS);
        }
        if kernel.arguments.get(TORTURE.name).is_some() {
            tables.push(torture::TESTS);
        }
        if kernel.arguments.get(SEED.name).is_some() {
            tables.push(TREE);
        }
    }
    tables
}

/// Runs those of [`tables`] whose name contains `filter` (all for "1") and
/// returns the exit status.
pub fn run(kernel: &'static Kernel, filter: &str) -> u8 {
    selftest::run(kernel, &tables(kernel), filter)
}

/// Mounts the share for one test.
fn mount(kernel: &Kernel) -> Result<virtiofs::Mounted, alloc::string::String> {
    virtiofs::mount(
        kernel.arguments.get("tag"),
        virtiofs::config(kernel),
        MountOptions::default(),
    )
}
