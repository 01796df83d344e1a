//! The test kernel: a small x86-64 kernel that boots under QEMU and exists to
//! run the virtio-fs driver.
//!
//! # What it offers
//!
//! - PVH boot: `qemu-system-x86_64 -M q35 -kernel kernel`, no boot loader.
//! - Memory: page frames, page tables in which nothing is both writable and
//!   executable, guarded stacks, a heap that counts ([`memory`]).
//! - Exceptions and panics with registers, cause and a backtrace with function
//!   names and lines, then a failing exit status ([`exit`](mod@exit)).
//! - ACPI tables, PCI by ECAM, local and I/O APICs, message-signalled and
//!   line interrupts ([`acpi`], [`pci`], [`interrupts`]).
//! - Up to 8 CPUs, threads with preemption, park and unpark, wait queues ([`thread`], [`wait`]).
//! - A monotonic clock and the time of day ([`clock`]).
//! - A serial console with input, a log with levels, a command line, a shell
//!   ([`console`], [`cmdline`], [`shell`]), and a table of tests ([`selftest`]).
//! - Files mapped into memory, shared and copy-on-write ([`mmap`]).
//! - The driver's platform and DMA traits ([`platform`], [`hal`]), its devices
//!   and mounts ([`virtiofs`]), file commands for the shell ([`files`]), and its
//!   tests on a real share ([`suite`]), and the workloads of its benchmark
//!   (`bench` in the shell).
//!
//! # What it leaves out
//!
//! User mode, processes, signals, power management, AML, NUMA, IOMMUs, PCI
//! resource assignment (firmware did it), any device but the serial port, more
//! than 8 CPUs, any way to end but leaving QEMU, security against its own code.
//!
//! # A kernel of your own
//!
//! A binary names its main function and its command-line keys with [`kernel!`],
//! and hands its tests to [`selftest::run`]; `tests/example-kernel` is a package that
//! does. It is built for the
//! host's target under the workspace's `kernel` profile (`panic = "abort"`); the
//! arguments for its linker are in `DEP_VIRTIO_FS_BOOT_LINK_ARGS` when its build
//! script runs. Built under any other profile it is a program that says so, so
//! that checks and tests of a whole workspace work; code that cannot even be
//! linked there is left out by `cfg(panic = "abort")`.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod acpi;
pub mod apic;
pub mod backtrace;
mod bench;
pub mod clock;
pub mod cmdline;
pub mod console;
pub mod cpu;
mod crash;
#[cfg(panic = "abort")]
mod entry;
pub mod exit;
pub mod files;
pub mod hal;
pub mod interrupts;
pub mod kernel;
pub mod memory;
pub mod mmap;
pub mod pci;
pub mod platform;
pub mod rtc;
pub mod selftest;
pub mod shell;
pub mod smp;
pub mod suite;
pub mod sync;
pub mod thread;
pub mod trap;
pub mod virtiofs;
pub mod wait;

pub use kernel::{Kernel, Program};
