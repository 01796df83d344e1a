//! The test suite in the guest, and the host's part in it.
//!
//! Three things make the verdict, and none is enough alone: the kernel's table of tests, whole to its
//! last line; its exit status; and the host's own look at the files. The last means:
//! after each round of changes (see `virtio-fs-manifest`) the guest's manifest must be the host's;
//! and what the guest changed must be what the same changes make of a plain directory on the host.

mod table;
mod torture;
mod tree;

pub use table::Table;
pub use torture::{Extent, Torture};

use crate::{CommandLine, Console, Error, HostFs, Machine, OnLoss, Report, Running, tap};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use virtio_fs_manifest::{CHANGES, Churn, Op, Scope, Turn, apply, scope, turn, walk};

/// A run of the suite.
#[derive(Debug)]
pub struct Suite {
    /// The machine. Its first share is replaced by a tree of the suite's own.
    pub machine: Machine,
    /// Of the random changes.
    pub seed: u64,
    /// Rounds of changes.
    pub rounds: u32,
}

/// A folder that is removed with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(target: &Path, name: &str) -> Result<Self, Error> {
        let path = target
            .join("test")
            .join(format!("{name}-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(Error::os(format!("making {}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is below the build folder and has this process's number.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Suite {
    /// How long the guest may take from one round to the next.
    const ROUND: Duration = Duration::from_secs(240);
    /// The guest may trust names and attributes for a second (the daemon's policy "auto"): a change
    /// of the host's is certain to be seen only after it.
    const STALE: Duration = Duration::from_millis(1100);

    /// Runs it, and prints what happens. `started` gets the running machine before anything is waited
    /// for, so that signals can be tied to it.
    ///
    /// # Errors
    /// What kept it from running.
    pub fn run(mut self, started: impl FnOnce(&Running)) -> Result<Report, Error> {
        let target = self.machine.tools.target.clone();
        sweep(&target.join("test"));
        let (share, mirror) = (
            Scratch::new(&target, "share")?,
            Scratch::new(&target, "mirror")?,
        );
        let entries = tree::make(&share.0).map_err(Error::os("making the test tree"))?;
        fs::create_dir(share.0.join(".manifest")).map_err(Error::os("making the test tree"))?;
        println!(
            "host: a tree of {entries} entries, seed {}, {} rounds",
            self.seed, self.rounds
        );

        if let Some(first) = self.machine.shares.first_mut() {
            first.dir.clone_from(&share.0);
        }
        let words = format!("test=1 seed={} rounds={}", self.seed, self.rounds);
        self.machine.cmdline = CommandLine::default()
            .words(self.machine.cmdline.as_str())
            .words(&words);
        self.machine.console = Console::Prefixed;
        let mut running = self.machine.start()?;
        started(&running);

        let mut report = Report::default();
        self.rounds(&mut running, &share.0, &mirror.0, &mut report);
        finish(running, &mut report);
        Ok(report)
    }

    /// Takes turns with the guest; at the first round that it does not reach, the rest is off.
    fn rounds(&self, running: &mut Running, share: &Path, mirror: &Path, report: &mut Report) {
        let (mut ours, mut at) = (HostFs::new(share), 0);
        let (mut copy, mut churn) = (HostFs::new(mirror), Churn::new(self.seed));
        let mut next: Option<Vec<Op>> = None;
        for round in 0..=self.rounds {
            match running.wait_for(&format!("manifest: round {round}"), at, Self::ROUND) {
                Ok(after) => at = after,
                Err(error) => {
                    return report.host(&format!("round {round}"), Err(error.to_string()));
                }
            }
            let name = match turn(round) {
                Turn::Nobody => "round 0, the tree as it was made".into(),
                Turn::Host => format!("round {round}, after changes by the host"),
                Turn::Guest => format!("round {round}, after changes by the guest"),
            };
            let scope = scope(round, self.rounds);
            let guest = fs::read_to_string(share.join(format!(".manifest/guest-{round}")))
                .map_err(|e| e.to_string());
            let same =
                guest.and_then(|guest| same(&guest, &manifest(&mut ours, scope)?, "guest", "host"));
            report.host(&name, same);
            if let (Turn::Guest, Some(ops)) = (turn(round), next.take()) {
                let expected = change(&mut copy, &ops)
                    .and_then(|()| manifest(&mut copy, Scope::Churn))
                    .and_then(|copy| same_tree(&mut ours, &copy));
                report.host(
                    &format!("round {round}, against a plain directory"),
                    expected,
                );
            }
            if round < self.rounds {
                let ops = churn.round(CHANGES);
                if turn(round + 1) == Turn::Host {
                    let done = change(&mut ours, &ops).and_then(|()| change(&mut copy, &ops));
                    if let Err(why) = done {
                        return report.host("changes by the host", Err(why));
                    }
                    thread::sleep(Self::STALE);
                } else {
                    next = Some(ops);
                }
            }
            if self
                .machine
                .shares
                .first()
                .is_some_and(|share| share.on_loss == OnLoss::Restart)
                && let Err(why) = kill(running)
            {
                return report.host(&format!("round {round}, the daemon killed"), Err(why));
            }
            running.send(b"go\n");
        }
    }
}

/// Kills the first share's daemon while the guest waits, so that none of its changes is
/// in flight: those that cannot be repeated would fail, as they should.
fn kill(running: &Running) -> Result<(), String> {
    let pid = || {
        running
            .daemon_pid(0)
            .and_then(|pid| Pid::from_raw(pid as i32))
    };
    // The one before may only just have died.
    let until = Instant::now() + Suite::ROUND;
    let pid = loop {
        match pid() {
            Some(pid) => break pid,
            None if Instant::now() > until => return Err("there is no daemon".into()),
            None => thread::sleep(Duration::from_millis(5)),
        }
    };
    kill_process(pid, Signal::KILL).map_err(|error| error.to_string())
}

/// Waits for the end of a guest that runs a table of tests, judges it, and returns what it wrote.
fn finish(running: Running, report: &mut Report) -> String {
    let outcome = running.wait();
    println!(
        "host: the guest ran for {:.1} s",
        outcome.duration.as_secs_f32()
    );
    let status = outcome.status.map_err(|error| error.to_string());
    tap::judge(&outcome.serial, status, report);
    outcome.serial
}

/// Removes what runs that were killed have left.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .rsplit_once('-')
            .map(|(_, pid)| Path::new("/proc").join(pid));
        if owner.is_some_and(|owner| !owner.exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn change(fs: &mut HostFs, ops: &[Op]) -> Result<(), String> {
    ops.iter()
        .try_for_each(|op| apply(fs, op).map_err(|error| format!("{op:?}: {error}")))
}

fn manifest(fs: &mut HostFs, scope: Scope) -> Result<String, String> {
    let mut text = String::new();
    let mut sink = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    walk(fs, scope.root(), &mut sink)
        .map_err(|(path, error)| format!("{}: {error}", path.escape_ascii()))?;
    Ok(text)
}

fn same_tree(ours: &mut HostFs, copy: &str) -> Result<(), String> {
    same(&manifest(ours, Scope::Churn)?, copy, "share", "plain")
}

/// Compares two manifests, and shows the first lines that only one of them has.
fn same(left: &str, right: &str, left_name: &str, right_name: &str) -> Result<(), String> {
    const SHOWN: usize = 10;
    if left == right {
        return Ok(());
    }
    let only = |of: &str, not: &str, name: &str| -> Vec<String> {
        let other: std::collections::HashSet<&str> = not.lines().collect();
        let lines = of.lines().filter(|line| !other.contains(line)).take(SHOWN);
        lines.map(|line| format!("  only {name}: {line}")).collect()
    };
    let mut lines = only(left, right, left_name);
    lines.extend(only(right, left, right_name));
    if lines.is_empty() {
        lines.push("  the same lines in another order, or more than once".into());
    }
    Err(lines.join("\n"))
}
