//! Tests that run inside the kernel: tables of named functions.
//!
//! `test=1` on the command line runs them all, `test=WORD` those whose name
//! contains the word. What is printed is [TAP], version 14: the plan, then for
//! each test a comment when it begins and a line when it is over. The last line is
//! `# N passed, N failed`: without that line the run did not end. A test that
//! panics ends the run, with a failing status and a backtrace.
//!
//! A package with a kernel of its own hands its tables to [`run`], beside
//! [`KERNEL`] or [`suite::tables`](crate::suite::tables) if it wants those as well;
//! `tests/example-kernel` shows it.
//!
//! [TAP]: https://testanything.org/tap-version-14-specification.html

mod crash;
mod memory;
mod threads;

pub use crash::crash;

use alloc::string::String;
use core::fmt::{self, Write};

use crate::{Kernel, clock, println};

/// A named test. It fails by returning a reason.
#[derive(Clone, Copy, Debug)]
pub struct Test {
    /// What behaviour it shows, in words. No other test has the same.
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
    let chosen = || {
        let all = tables.iter().copied().flatten();
        all.filter(|test| filter == "1" || test.name.contains(filter))
    };
    println!("TAP version 14");
    println!("1..{}", chosen().count());
    let (mut passed, mut failed) = (0, 0);
    for (number, test) in (1..).zip(chosen()) {
        println!("# begins {number} - {}", Name(test.name));
        let start = clock::now();
        let result = (test.run)(kernel);
        let time = (clock::now() - start).as_millis();
        let verdict = if result.is_ok() { "ok" } else { "not ok" };
        println!("{verdict} {number} - {} # time={time}ms", Name(test.name));
        match result {
            Ok(()) => passed += 1,
            Err(reason) => {
                failed += 1;
                println!("  ---");
                println!("  message: |");
                for line in reason.lines() {
                    println!("    {line}");
                }
                println!("  ...");
            }
        }
    }
    println!("# {passed} passed, {failed} failed");
    u8::from(failed > 0 || passed == 0)
}

/// A test's name in a TAP line, where `#` begins a directive.
struct Name(&'static str);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '#' | '\\' => write!(f, "\\{c}"),
            _ => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Name;
    use std::string::ToString;

    #[test]
    fn a_name_cannot_hold_a_directive() {
        assert_eq!(Name(r"plain # skip \").to_string(), r"plain \# skip \\");
    }
}
