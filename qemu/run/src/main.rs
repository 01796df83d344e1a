//! `virtio-fs-run`: reads the command line, runs the machine, exits with the guest's status.

use signal_hook::{consts, iterator::Signals};
use std::{env, process::ExitCode, thread};
use virtio_fs_run::{Error, HELP, Machine, Options, Task};

fn main() -> ExitCode {
    match task() {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            if !matches!(error, Error::Interrupted(_)) {
                eprintln!("virtio-fs-run: {error}");
            }
            ExitCode::from(error.exit_status())
        }
    }
}

fn task() -> Result<u8, Error> {
    let options = Options::parse(env::args_os().skip(1))?;
    match options.task {
        Task::Help => print!("{HELP}"),
        Task::Show => {
            options.machine.check()?;
            print!("{}", options.machine.commands()?);
        }
        Task::Run | Task::Test => return run(&options.machine),
    }
    Ok(0)
}

/// Runs the machine; a signal ends it, and with it all that was started.
fn run(machine: &Machine) -> Result<u8, Error> {
    let mut signals =
        Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP]).map_err(|source| {
            Error::Os {
                what: "catching signals".into(),
                source,
            }
        })?;
    let running = machine.start()?;
    let stopper = running.stopper();
    thread::spawn(move || signals.forever().for_each(|signal| stopper.stop(signal)));
    running.wait().status
}
