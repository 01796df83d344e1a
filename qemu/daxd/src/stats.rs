//! Counters, the requests log and the control socket.
//!
//! Counting is always on: one atomic add for a request. A mark is one line of the
//! requests log, written at each STATFS: what was asked since the last one. A
//! program in the guest sets marks with statfs(2) around what it measures.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use log::warn;

use crate::options::RequestsLog;
use crate::window::Window;
use crate::wire::opcode;

/// Operations with a counter of their own; all others share the last.
const OPERATIONS: usize = 64;

/// What was done since the daemon began.
pub struct Stats {
    requests: [AtomicU64; OPERATIONS],
    kicks: AtomicU64,
    errors: AtomicU64,
    malformed: AtomicU64,
    marks: Mutex<Marks>,
}

struct Marks {
    log: Option<Box<dyn Write + Send>>,
    count: u64,
    kicks: u64,
    requests: [u64; OPERATIONS],
}

impl Stats {
    /// Begins at nought.
    ///
    /// # Errors
    /// The requests log cannot be opened.
    pub fn new(log: &RequestsLog) -> io::Result<Self> {
        let log: Option<Box<dyn Write + Send>> = match log {
            RequestsLog::Off => None,
            RequestsLog::Stderr => Some(Box::new(io::stderr())),
            RequestsLog::File(path) => {
                let file: File = OpenOptions::new().append(true).create(true).open(path)?;
                Some(Box::new(file))
            }
        };
        Ok(Self {
            requests: [const { AtomicU64::new(0) }; OPERATIONS],
            kicks: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            malformed: AtomicU64::new(0),
            marks: Mutex::new(Marks {
                log,
                count: 0,
                kicks: 0,
                requests: [0; OPERATIONS],
            }),
        })
    }

    /// Counts a notification of a ring.
    pub fn kick(&self) {
        self.kicks.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request, and sets a mark at a STATFS.
    pub fn request(&self, code: u32) {
        if code == opcode::STATFS {
            self.mark();
        }
        let slot = (code as usize).min(OPERATIONS - 1);
        self.requests[slot].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an error reply.
    pub fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused for its form.
    pub fn malformed(&self) {
        self.malformed.fetch_add(1, Ordering::Relaxed);
    }

    fn mark(&self) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let Marks {
            log: Some(log),
            count,
            kicks,
            requests,
        } = &mut *marks
        else {
            return;
        };
        let kicks_now = self.kicks.load(Ordering::Relaxed);
        let now: [u64; OPERATIONS] =
            std::array::from_fn(|n| self.requests[n].load(Ordering::Relaxed));
        let since: [u64; OPERATIONS] = std::array::from_fn(|n| now[n] - requests[n]);
        let line = format!(
            "mark {count} kicks={} requests={}\n",
            kicks_now - *kicks,
            list(&since)
        );
        // One write, so that lines of several processes stay whole.
        if let Err(e) = log.write_all(line.as_bytes()) {
            warn!("the requests log: {e}");
        }
        (*count, *kicks, *requests) = (*count + 1, kicks_now, now);
    }

    /// All counters, a `name=value` on each line.
    pub fn report(&self, window: &Window) -> String {
        let requests: [u64; OPERATIONS] =
            std::array::from_fn(|n| self.requests[n].load(Ordering::Relaxed));
        let w = window.stats();
        let mut text = String::new();
        for (name, value) in [
            ("statfs", requests[opcode::STATFS as usize]),
            ("kicks", self.kicks.load(Ordering::Relaxed)),
            ("errors", self.errors.load(Ordering::Relaxed)),
            ("malformed", self.malformed.load(Ordering::Relaxed)),
            ("window", window.size()),
            ("mappings", window.mappings() as u64),
            ("maps", w.maps.load(Ordering::Relaxed)),
            ("unmaps", w.unmaps.load(Ordering::Relaxed)),
            ("repeated_maps", w.repeats.load(Ordering::Relaxed)),
            ("refused_maps", w.refused.load(Ordering::Relaxed)),
            ("rejected_maps", w.rejected.load(Ordering::Relaxed)),
        ] {
            let _ = writeln!(text, "{name}={value}");
        }
        let _ = writeln!(text, "requests={}", list(&requests));
        text
    }
}

/// `opcode:count` for those that are not nought, without STATFS, which is the mark
/// itself.
fn list(requests: &[u64; OPERATIONS]) -> String {
    let mut text = String::new();
    for (code, &count) in requests.iter().enumerate() {
        if count != 0 && code != opcode::STATFS as usize {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{code}:{count}");
        }
    }
    text
}

/// Sends [`Stats::report`] to each connection, on a thread of its own, as long as
/// the process lives.
pub fn serve(listener: UnixListener, stats: Arc<Stats>, window: Arc<Window>) {
    let serve = move || {
        for connection in listener.incoming() {
            match connection {
                // Who leaves before the end misses it.
                Ok(mut connection) => drop(connection.write_all(stats.report(&window).as_bytes())),
                Err(e) => return warn!("the control socket: {e}"),
            }
        }
    };
    if let Err(e) = std::thread::Builder::new()
        .name("control".into())
        .spawn(serve)
    {
        warn!("no thread for the control socket: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_lists_what_came_since_the_last() {
        let path = std::env::temp_dir().join(format!("daxd-marks-{}", std::process::id()));
        let stats = Stats::new(&RequestsLog::File(path.clone())).expect("a log");
        for code in [
            opcode::STATFS,
            15,
            15,
            1,
            opcode::STATFS,
            opcode::STATFS,
            4096,
            opcode::STATFS,
        ] {
            stats.kick();
            stats.request(code);
        }
        let text = std::fs::read_to_string(&path).expect("the log");
        std::fs::remove_file(path).expect("to clean up");
        assert_eq!(
            text,
            "mark 0 kicks=1 requests=\nmark 1 kicks=4 requests=1:1,15:2\n\
             mark 2 kicks=1 requests=\nmark 3 kicks=2 requests=63:1\n"
        );
        let report = stats.report(&Window::new(2 << 20));
        assert!(report.contains("statfs=4\nkicks=8\n"), "{report}");
        assert!(report.ends_with("requests=1:1,15:2,63:1\n"), "{report}");
    }
}
