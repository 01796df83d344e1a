//! The Linux side of the benchmark: the first and only process of the guest.
//! Mounts the share, runs the workloads of `../README.md`, and ends the machine
//! with a status, as the test kernel does. A static program, so that it is the
//! whole of the initial ramdisk.
//!
//! From the kernel's command line: `bench.set=NAME,...`, `bench.passes=N`,
//! `bench.options=` for mount(2).

mod base;
mod content;
mod data;
mod machine;
mod names;
mod region;

use std::{ffi::CString, process::ExitCode};

use region::Bench;

/// Where the share is mounted.
const DIR: &str = "/mnt";

/// A workload.
struct Workload {
    name: &'static str,
    run: fn(&mut Bench, &str),
}

fn main() -> ExitCode {
    if !machine::is_first() {
        eprintln!("this is the first process of the benchmark's guest, nothing to be run by hand");
        return ExitCode::FAILURE;
    }
    let status = match run() {
        Ok(()) => 0,
        Err(error) => {
            println!("env failed={error}");
            1
        }
    };
    machine::exit(status)
}

fn run() -> Result<(), String> {
    machine::mount_all()?;
    let line = std::fs::read_to_string("/proc/cmdline").map_err(|e| e.to_string())?;
    let word = |key: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .unwrap_or("")
    };
    let options = CString::new(word("bench.options")).map_err(|e| e.to_string())?;
    machine::mount("myfs", DIR, "virtiofs", &options)?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("env kernel={}", kernel.trim());
    let passes: u32 = word("bench.passes").parse().unwrap_or(1);
    let mut bench = Bench::new(DIR);
    let sets = [
        ("base", base::BASE),
        ("posix", data::POSIX),
        ("posix", names::POSIX),
        ("dax", data::DAX),
    ];
    for pass in 1..=passes {
        println!("pass n={pass} of={passes}");
        for wanted in word("bench.set").split(',') {
            for (set, all) in sets {
                for workload in all.iter().filter(|w| set == wanted || w.name == wanted) {
                    (workload.run)(&mut bench, workload.name);
                }
            }
        }
    }
    println!("done");
    Ok(())
}
