//! The test kernel.
#![cfg_attr(panic = "abort", no_std, no_main)]

extern crate alloc;

use alloc::{format, string::String, vec::Vec};
use core::{fmt::Arguments, time::Duration};

use virtio_fs_boot::{
    Kernel, Program, clock,
    cmdline::Key,
    cpu, kernel,
    memory::{PAGE, frames, heap},
    pci, print, selftest,
    shell::{self, Command, Context, Shell, words::Output},
};

kernel!(Program {
    keys: &[
        Key::any(
            "cmd",
            "\"COMMANDS\" for the shell; the kernel ends with their status"
        ),
        Key::any(
            "test",
            "1 runs all tests, a word those whose name contains it"
        ),
        Key::any(
            "crash",
            "crashes on purpose: panic, fault, jump, divide, constant or overflow"
        ),
    ],
    main: run,
});

fn run(kernel: &'static Kernel) -> u8 {
    if let Some(filter) = kernel.arguments.get("test") {
        return selftest::run(kernel, selftest::KERNEL, filter);
    }
    if let Some(how) = kernel.arguments.get("crash") {
        selftest::crash(how);
    }
    let mut shell = Shell::new(COMMANDS);
    match kernel.arguments.get("cmd") {
        Some(commands) => shell.run(commands, &mut Bare),
        None => shell::interact(&mut shell, &mut Bare, |_| "> ".into()),
    }
}

/// A shell without files.
struct Bare;

impl Context for Bare {
    fn print(&mut self, text: Arguments) {
        print!("{text}");
    }

    fn complain(&mut self, text: Arguments) {
        print!("{text}");
    }

    fn redirect(&mut self, _output: &Output) -> Result<(), String> {
        Err("no file system is mounted".into())
    }

    fn restore(&mut self) -> Result<(), String> {
        Ok(())
    }

    fn now(&self) -> Duration {
        clock::now()
    }

    fn complete_path(&self, _word: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A command that only shows something.
struct Show {
    name: &'static str,
    help: &'static str,
    show: fn() -> String,
}

impl Command<Bare> for Show {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        ""
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn run(&self, _args: &[String], context: &mut Bare) -> u8 {
        context.print(format_args!("{}\n", (self.show)()));
        shell::command::SUCCESS
    }
}

const COMMANDS: &[&dyn Command<Bare>] = &[
    &Show {
        name: "cpus",
        help: "count the CPUs that run",
        show: || format!("{} of at most {}", cpu::online().count(), cpu::MAX),
    },
    &Show {
        name: "date",
        help: "show the time of day, in seconds since 1970, and since boot",
        show: || match clock::realtime() {
            Some(time) => format!(
                "{:.3} ({:.3})",
                time.as_secs_f64(),
                clock::now().as_secs_f64()
            ),
            None => format!("unknown ({:.3})", clock::now().as_secs_f64()),
        },
    },
    &Show {
        name: "free",
        help: "show memory",
        show: || {
            let free = (frames::available() as u64 * PAGE) >> 10;
            format!(
                "{free} KiB free, {} KiB of the heap in use",
                heap::in_use() >> 10
            )
        },
    },
    &Show {
        name: "pci",
        help: "list PCI functions",
        show: || {
            let lines = pci::functions()
                .into_iter()
                .map(|(at, info)| format!("{at} {info}"));
            lines.collect::<Vec<_>>().join("\n")
        },
    },
];
