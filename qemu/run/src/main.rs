//! `virtio-fs-run`: reads the command line, runs the machine, exits with the guest's status.

use signal_hook::{consts, iterator::Signals};
use std::{env, process::ExitCode, thread, time::UNIX_EPOCH};
use virtio_fs_run::{Error, HELP, Options, Running, Suite, Task};

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
        Task::Run => {
            let signals = signals()?;
            let running = options.machine.start()?;
            tie(signals, &running);
            return running.wait().status;
        }
        Task::Test => {
            let signals = signals()?;
            let fresh = || {
                UNIX_EPOCH
                    .elapsed()
                    .map_or(1, |since| since.as_nanos() as u64 % 1_000_000_000)
            };
            let seed = options.seed.unwrap_or_else(fresh);
            Suite {
                machine: options.machine,
                seed,
                rounds: 6,
            }
            .run(|running| tie(signals, running))?;
        }
    }
    Ok(0)
}

/// Catches the signals that end a run. Those that come before there is one wait for it.
fn signals() -> Result<Signals, Error> {
    Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP]).map_err(|source| Error::Os {
        what: "catching signals".into(),
        source,
    })
}

/// Lets a signal end the run, and with it all that was started.
fn tie(mut signals: Signals, running: &Running) {
    let stopper = running.stopper();
    thread::spawn(move || signals.forever().for_each(|signal| stopper.stop(signal)));
}
