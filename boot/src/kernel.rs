//! From the first Rust code to the program's main function.

use alloc::boxed::Box;
use core::str::FromStr;

use log::LevelFilter;

use crate::{
    acpi::{self, Machine, Memory},
    clock,
    cmdline::{CommandLine, Key},
    console, cpu,
    exit::{self, exit},
    interrupts,
    memory::{
        self, CacheMode, linear, map_mmio,
        start_info::{MemoryMap, StartInfo},
    },
    pci, println, smp, thread,
};

/// What a kernel binary adds to this library; see [`kernel!`](crate::kernel!).
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Words of the command line besides [`KEYS`].
    pub keys: &'static [Key],
    /// Runs as the first thread, with everything set up and interrupts on. What
    /// it returns becomes the exit status (see [`exit`](mod@crate::exit)).
    pub main: fn(&'static Kernel) -> u8,
}

/// The running kernel, for the program.
#[derive(Debug)]
pub struct Kernel {
    /// The command line.
    pub arguments: CommandLine,
    /// What ACPI says about the machine.
    pub machine: Machine,
    /// The usable memory at boot.
    pub memory: MemoryMap,
}

/// The words of the command line that every kernel understands.
pub const KEYS: &[Key] = &[
    Key {
        name: "log",
        help: "off, error, warn (the default), info, debug or trace",
        valid: |level| LevelFilter::from_str(level).is_ok(),
    },
    Key {
        name: "cpus",
        help: "the most CPUs to use, 1 to 8",
        valid: |count| matches!(count.parse(), Ok(1..=cpu::MAX)),
    },
];

/// Makes a [`Program`] the kernel of this binary. The binary begins with
/// `#![cfg_attr(panic = "abort", no_std, no_main)]`.
#[macro_export]
macro_rules! kernel {
    ($program:expr) => {
        #[doc(hidden)]
        #[cfg_attr(panic = "abort", unsafe(export_name = "virtio_fs_boot_program"))]
        pub static PROGRAM: $crate::Program = $program;

        #[cfg(not(panic = "abort"))]
        fn main() {
            let _ = &PROGRAM;
            eprintln!("this kernel needs its own profile: cargo build --profile kernel");
            std::process::exit(1);
        }
    };
}

/// Sets the kernel up and becomes the boot CPU's idle loop.
///
/// # Safety
///
/// Called once, by the entry code, with what the loader passed.
#[cfg_attr(
    not(panic = "abort"),
    expect(dead_code, reason = "only a kernel boots")
)]
pub(crate) unsafe fn boot(info: u64, program: &'static Program) -> ! {
    // First, so that whatever goes wrong from here on is reported.
    // SAFETY: the first thing that happens, once.
    unsafe { cpu::init_boot() };
    // So that there is somewhere to report to.
    console::init();
    // Before the loader's memory can be given to somebody else.
    // SAFETY: the loader passed `info`; the boot tables map it where it is.
    let info = unsafe { StartInfo::read(info) };
    // Before anything allocates.
    // SAFETY: once, on the boot page tables.
    unsafe { memory::init(&info.memory) };
    // From here on an overflowing interrupt stack is noticed.
    cpu::init_stacks();
    // Before the log shows times, and before anything waits.
    clock::init();
    let arguments = arguments(&info, program);
    // Where the interrupt controllers and PCI are.
    let machine = match acpi::read(info.rsdp, &Physical) {
        Ok(machine) => machine,
        Err(error) => fail(exit::UNUSABLE, format_args!("{error}")),
    };
    pci::init(&machine.ecam);
    // This code becomes the idle loop, so that threads can be made.
    thread::init_cpu();
    // The last thing the boot needs: from here on the timer can preempt.
    interrupts::init(&machine);
    console::init_input();
    let kernel: &'static Kernel = Box::leak(Box::new(Kernel {
        arguments,
        machine,
        memory: info.memory.clone(),
    }));
    let main = move || {
        let most = kernel
            .arguments
            .get("cpus")
            .and_then(|most| most.parse().ok());
        smp::start(&kernel.machine.cpus, most.unwrap_or(cpu::MAX));
        log::info!(
            "{} MiB of memory, {} CPU(s)",
            kernel.memory.usable_bytes() >> 20,
            cpu::online().count()
        );
        exit((program.main)(kernel))
    };
    match thread::spawn::<()>("main", main) {
        Ok(_) => thread::idle(),
        Err(error) => fail(exit::UNUSABLE, format_args!("{error}")),
    }
}

/// Reads the command line; a wrong one ends the kernel with a helpful message.
fn arguments(info: &StartInfo, program: &Program) -> CommandLine {
    let Some(line) = info.command_line() else {
        fail(exit::USAGE, format_args!("the command line is not UTF-8"));
    };
    match CommandLine::parse(line, &[KEYS, program.keys]) {
        Ok(arguments) => {
            let level = arguments.get("log").and_then(|level| level.parse().ok());
            log::set_max_level(level.unwrap_or(LevelFilter::Warn));
            arguments
        }
        Err(error) => {
            println!("kernel: {error}; it understands:");
            for key in KEYS.iter().chain(program.keys) {
                println!("  {:8} {}", key.name, key.help);
            }
            exit(exit::USAGE)
        }
    }
}

fn fail(status: u8, why: core::fmt::Arguments) -> ! {
    println!("kernel: {why}");
    exit(status)
}

/// Physical memory, for ACPI: firmware's tables lie outside usable memory.
struct Physical;

impl Memory for Physical {
    fn read(&self, addr: u64, buffer: &mut [u8]) -> bool {
        let mapped = memory::translate(linear(0) as u64 + addr).is_some()
            && memory::translate(linear(0) as u64 + addr + buffer.len() as u64).is_some();
        let from = if mapped {
            linear(addr)
        } else {
            // A few small mappings that stay for good.
            match map_mmio(addr, buffer.len() as u64, CacheMode::WriteBack) {
                Ok(from) => from,
                Err(_) => return false,
            }
        };
        for (at, byte) in buffer.iter_mut().enumerate() {
            // SAFETY: mapped for the whole length; volatile, as firmware's memory
            // may not be memory at all.
            *byte = unsafe { from.add(at).read_volatile() };
        }
        true
    }
}
