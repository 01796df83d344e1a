//! Tests that run inside the kernel: tables of named functions.
//!
//! `test=1` on the command line runs them all, `test=WORD` those whose name
//! contains the word. Each prints `test NAME ... ok` or the reason why not, and
//! the last line is `N passed, N failed`: without that line the run did not end.
//! A test that panics ends the run, with a failing status and a backtrace.
//!
//! A package with a kernel of its own hands its tables to [`run`] beside
//! [`KERNEL`], the tests of this kernel itself.

mod crash;
mod memory;
mod threads;

pub use crash::crash;

use alloc::string::String;

use crate::{Kernel, clock, print, println};

/// A named test. It fails by returning a reason.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What behaviour it shows, in words.
    pub name: &'static str,
    /// The test.
    pub run: fn(&'static Kernel) -> Result<(), String>,
}

/// Ends a test with a message unless a condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::selftest::format!($($message)+));
        }
    };
}
#[doc(hidden)]
pub use alloc::format;

/// The tests of the kernel itself.
pub const KERNEL: &[&[Test]] = &[memory::TESTS, threads::TESTS];

/// Runs the tests of `tables` whose name contains `filter` (all for "1") and
/// returns the exit status: 0 if all passed and there was one.
pub fn run(kernel: &'static Kernel, tables: &[&[Test]], filter: &str) -> u8 {
    let (mut passed, mut failed) = (0, 0);
    for test in tables.iter().copied().flatten() {
        if filter != "1" && !test.name.contains(filter) {
            continue;
        }
        print!("test {} ... ", test.name);
        let start = clock::now();
        let result = (test.run)(kernel);
        let time = (clock::now() - start).as_millis();
        match result {
            Ok(()) => {
                passed += 1;
                println!("ok ({time} ms)");
            }
            Err(reason) => {
                failed += 1;
                println!("FAILED: {reason}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    u8::from(failed > 0 || passed == 0)
}
