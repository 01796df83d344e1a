//! The log as tests see it: the lines of the calling thread.

use std::cell::RefCell;
use std::sync::Once;

use log::{Level, LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

struct Collector;

impl Log for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = (record.level(), record.args().to_string());
            LINES.with_borrow_mut(|lines| lines.push(line));
        }
    }

    fn flush(&self) {}
}

pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Collector).expect("no other logger is there");
        log::set_max_level(LevelFilter::Info);
    });
}

/// The lines that were logged on this thread.
pub struct Lines;

impl Lines {
    /// Forgets them.
    pub fn clear() {
        LINES.with_borrow_mut(Vec::clear);
    }

    /// Returns those that report something wrong, and forgets all.
    pub fn take_errors() -> Vec<String> {
        let lines = LINES.with_borrow_mut(core::mem::take);
        let errors = lines
            .into_iter()
            .filter(|(level, _)| *level <= Level::Error);
        errors.map(|(_, line)| line).collect()
    }
}
