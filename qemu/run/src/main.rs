//! `virtio-fs-run`: reads the command line, runs the machine, exits with the guest's status or the tests' verdict.

use signal_hook::{consts, iterator::Signals};
use std::{env, process::ExitCode, thread, time::UNIX_EPOCH};
use virtio_fs_run::{
    Error, Extent, HELP, Options, Report, Running, Suite, Table, Task, Tests, Torture,
};

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
        Task::Torture => {
            let report = torture(&options)?;
            report.write(options.tests.tap.as_deref(), options.tests.junit.as_deref())?;
            report.verdict()?;
        }
        Task::Test => {
            let signals = signals()?;
            let report = test(&options, |running| tie(signals, running))?;
            report.write(options.tests.tap.as_deref(), options.tests.junit.as_deref())?;
            report.verdict()?;
        }
    }
    Ok(0)
}

fn test(options: &Options, started: impl FnOnce(&Running)) -> Result<Report, Error> {
    let machine = options.machine.clone();
    let Tests {
        seed, only, own, ..
    } = &options.tests;
    if *own {
        let filter = only.clone().unwrap_or_else(|| "1".into());
        return Table { machine, filter }.run(started);
    }
    let (seed, rounds) = (seed.unwrap_or_else(fresh), 6);
    Suite {
        machine,
        seed,
        rounds,
    }
    .run(started)
}

fn torture(options: &Options) -> Result<Report, Error> {
    let extent = if options.tests.full {
        Extent::Full
    } else {
        Extent::Short
    };
    Torture {
        machine: options.machine.clone(),
        seed: options.tests.seed.unwrap_or_else(fresh),
        extent,
    }
    .run(|running| {
        // Without them a run can still be killed.
        if let Ok(signals) = signals() {
            tie(signals, running);
        }
    })
}

/// A seed that was not there before.
fn fresh() -> u64 {
    UNIX_EPOCH
        .elapsed()
        .map_or(1, |since| since.as_nanos() as u64 % 1_000_000_000)
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
