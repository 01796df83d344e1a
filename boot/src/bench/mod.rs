//! Workloads that the benchmark (`make bench`) also runs in a Linux guest, each
//! the same: `qemu/bench/README.md` defines them. Here the driver is called as a
//! kernel would call it, by paths and descriptors of one [`Process`].
//!
//! A line for each workload, and some beside it:
//!
//! ```text
//! bench name=<name> ops=<n> bytes=<n> ns=<elapsed>
//! aux name=<name> irqs=<n> idle_ns=<n>
//! count name=<name> allocations=<n> <counter of the driver>=<n> ...
//! skip name=<name> errno=<n> at=<call>        where the mount refuses
//! ```
//!
//! Around each timed region stand two marks for observers outside of the guest:
//! a statfs, which is a request that no workload sends, and the no-op
//! instruction of [`mark`].

mod base;
mod content;
mod data;
mod names;

use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::{arch::asm, time::Duration};

use virtio_fs::{
    Error,
    fs::{At, Process},
};

use crate::{
    clock,
    files::{Failure, Files},
    memory::heap,
    println,
    shell::Context,
    thread,
    virtiofs::{Host, Mounted},
};
use content::{Buffer, MIB, content};

/// Why a workload did not run to its end.
#[derive(Clone, Copy, Debug)]
struct Refused {
    errno: u16,
    at: &'static str,
}

/// What a workload did: operations and bytes.
type Done = Result<(usize, usize), Refused>;

/// A file did not hold what it should (EBADMSG).
const WRONG_CONTENT: Refused = Refused {
    errno: 74,
    at: "content",
};

/// Says which call an error came from.
trait Of<T> {
    fn of(self, at: &'static str) -> Result<T, Refused>;
}

impl<T> Of<T> for Result<T, Error> {
    fn of(self, at: &'static str) -> Result<T, Refused> {
        self.map_err(|error| Refused {
            errno: error.errno().get(),
            at,
        })
    }
}

/// A workload.
struct Workload {
    name: &'static str,
    run: fn(&mut Bench, &str),
}

/// What workloads run in.
struct Bench {
    mounted: Arc<Mounted>,
    process: Process<Host>,
    /// Where reads go.
    buffer: Buffer,
    /// The content stream's first MiB.
    stream: Buffer,
    /// The same with all bits flipped: what is written over files.
    other: Buffer,
}

/// Runs workloads by name, or a set of them, so many times.
pub(crate) fn command(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let (mut passes, mut wanted) = (1, Vec::new());
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-n" => {
                let count = words.next().and_then(|word| word.parse::<u32>().ok());
                passes = count.ok_or(Failure::Usage)?;
            }
            word => wanted.push(word),
        }
    }
    if wanted.is_empty() {
        wanted.push("posix");
    }
    let sets = [
        ("base", base::BASE),
        ("posix", data::POSIX),
        ("posix", names::POSIX),
        ("dax", data::DAX),
    ];
    let known = |word: &str| {
        sets.iter()
            .any(|(set, all)| *set == word || all.iter().any(|w| w.name == word))
    };
    if let Some(word) = wanted.iter().find(|word| !known(word)) {
        files.complain(format_args!("bench: there is no workload {word}\n"));
        return Err(Failure::Usage);
    }
    let mut bench = Bench::new(files.mounted());
    for pass in 1..=passes {
        println!("pass n={pass} of={passes}");
        for word in &wanted {
            for (set, all) in &sets {
                for workload in all.iter().filter(|w| set == word || w.name == *word) {
                    (workload.run)(&mut bench, workload.name);
                }
            }
        }
    }
    println!("done");
    Ok(0)
}

impl Bench {
    fn new(mounted: Arc<Mounted>) -> Self {
        Self {
            process: mounted.process(),
            mounted,
            buffer: Buffer::new(MIB, |_| 0x5a),
            stream: Buffer::new(MIB, content),
            other: Buffer::new(MIB, |at| !content(at)),
        }
    }

    /// Writes back what is dirty, empties all caches, and waits for the forgets.
    fn drop_caches(&self) {
        let fs = self.mounted.mount.file_system();
        if let Err(error) = fs.sync() {
            log::warn!("sync: {error}");
        }
        fs.revalidate_all();
        self.mounted.connection.flush_forgets();
        thread::sleep(Duration::from_millis(100));
    }

    /// Runs one timed region and prints its lines.
    fn region(&mut self, name: &str, work: impl FnOnce(&mut Self) -> Done) {
        self.statfs();
        let before = self.counts();
        let idle = thread::idle_time();
        let begun = clock::now();
        mark();
        let result = work(self);
        mark();
        let ns = (clock::now() - begun).as_nanos();
        let idle = (thread::idle_time() - idle).as_nanos();
        let after = self.counts();
        self.statfs();
        match result {
            Ok((ops, bytes)) => {
                println!("bench name={name} ops={ops} bytes={bytes} ns={ns}");
                let grown = before.iter().zip(&after).map(|(b, a)| (a.0, a.1 - b.1));
                let (mut irqs, mut counts) = (0, String::new());
                for (counter, count) in grown.filter(|(_, count)| *count > 0) {
                    if counter == "interrupts" {
                        irqs = count;
                    }
                    counts += &format!(" {counter}={count}");
                }
                println!("aux name={name} irqs={irqs} idle_ns={idle}");
                println!("count name={name}{counts}");
            }
            Err(Refused { errno, at }) => {
                let at = at.replace(' ', "_");
                println!("skip name={name} errno={errno} at={at}");
            }
        }
    }

    /// Sends the request that marks a region's ends.
    fn statfs(&self) {
        if let Err(error) = self.process.statfs(At::Cwd, b"/") {
            log::warn!("statfs: {error}");
        }
    }

    /// The kernel's and the driver's counters.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        // The list must not count itself.
        let mut counts = Vec::with_capacity(128);
        counts.push(("allocations", heap::allocations()));
        let counters = self.mounted.connection.counters();
        counts.push(("requests", counters.total_requests()));
        counters.for_each(|name, count| counts.push((name, count)));
        counts
    }
}

/// Executes `nopl 0x52454550(%rax)`, which does nothing: QEMU's instruction
/// counter (`qemu/bench/insns`) looks for it.
#[inline(always)]
fn mark() {
    // SAFETY: a no-op; the address in it is not accessed.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80, 0x50, 0x45, 0x45, 0x52") };
}

/// Makes paths `prefix0000`, `prefix0001` and so on.
fn paths(count: usize, prefix: &str) -> Vec<Vec<u8>> {
    (0..count)
        .map(|n| format!("/{prefix}{n:04}").into_bytes())
        .collect()
}
