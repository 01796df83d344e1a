//! The timed region and its marks.

use std::ffi::CString;

use rustix::io::Errno;

use crate::{
    content::{Buffer, MIB, content},
    machine::{idle, interrupts, mark, now},
};

/// Why a workload did not run to its end: an error, and of which call.
pub(crate) type Refused = (Errno, &'static str);

/// What a workload did: operations and bytes.
pub(crate) type Done = Result<(usize, usize), Refused>;

/// Says which call an error came from.
pub(crate) trait Of<T> {
    fn of(self, at: &'static str) -> Result<T, Refused>;
}

impl<T> Of<T> for rustix::io::Result<T> {
    fn of(self, at: &'static str) -> Result<T, Refused> {
        self.map_err(|errno| (errno, at))
    }
}

/// What workloads run in.
pub(crate) struct Bench {
    dir: &'static str,
    /// Where reads go.
    pub(crate) buffer: Buffer,
    /// The content stream's first MiB.
    pub(crate) stream: Buffer,
    /// The same with all bits flipped: what is written over files.
    pub(crate) other: Buffer,
}

impl Bench {
    pub(crate) fn new(dir: &'static str) -> Self {
        Self {
            dir,
            buffer: Buffer::new(MIB, |_| 0x5a),
            stream: Buffer::new(MIB, content),
            other: Buffer::new(MIB, |at| !content(at)),
        }
    }

    pub(crate) fn path(&self, name: &str) -> CString {
        CString::new(format!("{}/{name}", self.dir)).expect("no NUL in these names")
    }

    /// Makes paths `prefix0000`, `prefix0001` and so on.
    pub(crate) fn paths(&self, count: usize, prefix: &str) -> Vec<CString> {
        (0..count)
            .map(|n| self.path(&format!("{prefix}{n:04}")))
            .collect()
    }

    /// Runs one timed region between two statfs and two marks, and prints its lines.
    /// What the statfs say does not matter: they are there to be counted by.
    pub(crate) fn region(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Done) {
        let _ = rustix::fs::statfs(self.dir);
        let (irqs, idle_ns) = (interrupts(), idle());
        let begun = now();
        mark();
        let result = work(self);
        mark();
        let ns = now() - begun;
        let (irqs, idle_ns) = (interrupts() - irqs, idle() - idle_ns);
        let _ = rustix::fs::statfs(self.dir);
        match result {
            Ok((ops, bytes)) => {
                println!("bench name={name} ops={ops} bytes={bytes} ns={ns}");
                println!("aux name={name} irqs={irqs} idle_ns={idle_ns}");
            }
            Err((errno, at)) => {
                let at = at.replace(' ', "_");
                println!("skip name={name} errno={} at={at}", errno.raw_os_error());
            }
        }
    }
}
