//! `virtio-fs-daxd`: reads the command line and serves. Exit status 0 after the
//! front end has left, 1 when serving failed, 2 for a bad command line.

use std::process::ExitCode;

use virtio_fs_daxd::options::{Command, HELP, Options};
use virtio_fs_daxd::{daemon, logger};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Command::Version) => {
            println!("virtio-fs-daxd {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(Command::Serve(options)) => options,
        Err(message) => {
            eprintln!("virtio-fs-daxd: {message}");
            eprintln!("Try 'virtio-fs-daxd --help'.");
            return ExitCode::from(2);
        }
    };
    logger::install(options.log_level);
    match daemon::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("virtio-fs-daxd: {message}");
            ExitCode::FAILURE
        }
    }
}
