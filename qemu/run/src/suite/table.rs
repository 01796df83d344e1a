//! The table of tests of any kernel, on a share of the user's choice.

use super::{Scratch, finish, sweep};
use crate::{CommandLine, Console, Error, Machine, Report, Running};

/// A run of a kernel's table.
#[derive(Debug)]
pub struct Table {
    /// The machine. Without a share it gets an empty directory, which is removed in the end.
    pub machine: Machine,
    /// The word `test=` for the kernel: "1" for all, or a part of the tests' names.
    pub filter: String,
}

impl Table {
    /// Runs it, and prints what happens. `started` gets the running machine before anything is waited
    /// for, so that signals can be tied to it.
    ///
    /// # Errors
    /// What kept it from running.
    pub fn run(mut self, started: impl FnOnce(&Running)) -> Result<Report, Error> {
        let target = self.machine.tools.target.clone();
        sweep(&target.join("test"));
        let scratch = Scratch::new(&target, "empty")?;
        for share in &mut self.machine.shares {
            if share.dir.as_os_str().is_empty() {
                share.dir.clone_from(&scratch.0);
            }
        }
        self.machine.cmdline = CommandLine::default()
            .words(self.machine.cmdline.as_str())
            .value("test", &self.filter);
        self.machine.console = Console::Prefixed;
        let running = self.machine.start()?;
        started(&running);
        let mut report = Report::default();
        finish(running, &mut report);
        Ok(report)
    }
}
