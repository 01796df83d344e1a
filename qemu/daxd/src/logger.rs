//! Messages on standard error, one line each: `[warn] text`.
//!
//! Most of what fuse-backend-rs calls an error is a request that failed, which a
//! guest can cause at will; its messages appear from level `debug` on.

use std::io::Write;

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("virtio_fs_daxd") || log::max_level() >= LevelFilter::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_lowercase();
            // Nothing can be done about a standard error that is gone.
            let _ = writeln!(std::io::stderr(), "[{level}] {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Sends the messages of this process up to `level` to standard error. Later
/// calls only change the level.
pub fn install(level: LevelFilter) {
    static LOGGER: Stderr = Stderr;
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}
