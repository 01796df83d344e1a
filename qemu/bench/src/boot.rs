//! One boot of one guest, and what it said.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use virtio_fs_run::{CommandLine, DaemonKind, Machine, Outcome, Running, Share};

use crate::{
    marks::{self, number, words},
    results::{Results, Side},
};

/// Whose file system is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guest {
    Ours,
    Linux,
}

/// What a boot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Time. Nothing else is on.
    Timed,
    /// The daemon counts requests, which makes it slower.
    Requests,
    /// QEMU counts instructions, which makes it much slower.
    Instructions,
    /// QEMU counts instructions block by block.
    Profile,
}

/// A boot to be done.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    pub(crate) guest: Guest,
    pub(crate) kind: Kind,
    /// The workloads.
    pub(crate) sets: Vec<String>,
    /// The daemon with a window, or virtiofsd.
    pub(crate) daemon: DaemonKind,
}

/// What boots need.
pub(crate) struct Ground {
    /// The test kernel.
    pub(crate) kernel: PathBuf,
    /// The Linux guest's.
    pub(crate) vmlinuz: PathBuf,
    pub(crate) initrd: PathBuf,
    /// The instruction counter.
    pub(crate) plugin: PathBuf,
    pub(crate) share: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) cache: Option<String>,
    pub(crate) limit: Duration,
}

/// Times that a set is run in a boot; the last one counts.
pub(crate) const PASSES: u32 = 2;

impl Boot {
    /// What it is, in words.
    pub(crate) fn title(&self) -> String {
        let guest = match self.guest {
            Guest::Ours => "test kernel",
            Guest::Linux => "Linux",
        };
        let kind = match self.kind {
            Kind::Timed => "timed",
            Kind::Requests => "requests counted",
            Kind::Instructions => "instructions counted",
            Kind::Profile => "profiled",
        };
        format!("{guest}, {}, {kind}", self.sets.join(" "))
    }

    /// How long it takes beside a timed one of the test kernel: for the estimate of
    /// what is left.
    pub(crate) fn weight(&self) -> f64 {
        let guest = match self.guest {
            Guest::Ours => 1.0,
            Guest::Linux => 2.0,
        };
        guest
            * match self.kind {
                Kind::Timed => 1.0,
                Kind::Requests => 1.5,
                Kind::Instructions | Kind::Profile => 2.0,
            }
    }

    fn log(&self, ground: &Ground) -> PathBuf {
        ground.out.join("daemon.log")
    }

    fn counts(&self, ground: &Ground) -> PathBuf {
        ground.out.join("instructions.log")
    }

    /// Where a profile is.
    pub(crate) fn blocks(&self, ground: &Ground) -> PathBuf {
        ground.out.join("blocks.log")
    }

    fn machine(&self, ground: &Ground) -> Machine {
        let mut machine = Machine::new();
        let mut share = Share::new(&ground.share, Share::TAG);
        share.daemon = self.daemon;
        share.cache = ground.cache.clone();
        if self.kind == Kind::Requests {
            match self.daemon {
                DaemonKind::Virtiofsd => {
                    share.args.extend(["--log-level".into(), "debug".into()]);
                    share.log = Some(self.log(ground));
                }
                DaemonKind::Dax => share
                    .args
                    .extend(["--requests-log".into(), self.log(ground).into()]),
            }
        }
        machine.shares.push(share);
        machine.memory_mib = 1024;
        machine.timeout = Some(ground.limit);
        if matches!(self.kind, Kind::Instructions | Kind::Profile) {
            let plugin = ground.plugin.display();
            let mut words = format!("{plugin},out={}", self.counts(ground).display());
            if self.kind == Kind::Profile {
                words += &format!(",blocks={}", self.blocks(ground).display());
            }
            machine.qemu_args.extend(["-plugin".into(), words.into()]);
        }
        match self.guest {
            Guest::Ours => {
                machine.kernel = ground.kernel.clone();
                let command = format!("bench -n {PASSES} {}", self.sets.join(" "));
                machine.cmdline = CommandLine::default()
                    .value("tag", Share::TAG)
                    .value("cmd", &command);
            }
            Guest::Linux => {
                machine.kernel = ground.vmlinuz.clone();
                machine.initrd = Some(ground.initrd.clone());
                let sets = self.sets.join(",");
                machine.cmdline = CommandLine::default()
                    .words("console=ttyS0 quiet panic=-1 mitigations=off")
                    .words(&format!("bench.set={sets} bench.passes={PASSES}"));
                if self.daemon == DaemonKind::Dax {
                    machine.cmdline = machine.cmdline.words("bench.options=dax=always");
                }
            }
        }
        machine
    }

    /// Does it, and adds what came out to `results`. `tie` is given the running
    /// machine, for signals.
    pub(crate) fn run(
        &self,
        ground: &Ground,
        results: &mut Results,
        tie: impl FnOnce(&Running),
    ) -> Result<(), String> {
        for file in [self.log(ground), self.counts(ground)] {
            // Mostly not there.
            let _ = fs::remove_file(file);
        }
        let running = self.machine(ground).start().map_err(|e| e.to_string())?;
        tie(&running);
        let Outcome { status, serial, .. } = running.wait();
        let kept = ground.out.join(format!(
            "{:?}-{}-{:?}.log",
            self.guest,
            self.sets.join("-"),
            self.kind
        ));
        fs::write(&kept, &serial).map_err(|e| e.to_string())?;
        let kept = kept.display();
        match status {
            Ok(0) => {}
            Ok(status) => return Err(format!("it ended with status {status}, see {kept}")),
            Err(error) => return Err(format!("{error}\nsee {kept}")),
        }
        if !serial.lines().any(|line| line == "done") {
            return Err(format!("it did not come to the end, see {kept}"));
        }
        self.take(&serial, ground, results)
    }

    /// Reads what a guest said, and what was counted meanwhile.
    fn take(&self, serial: &str, ground: &Ground, results: &mut Results) -> Result<(), String> {
        let read = |path: &Path| {
            let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok::<_, String>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let requests = match (self.kind, self.daemon) {
            (Kind::Requests, DaemonKind::Virtiofsd) => marks::virtiofsd(&read(&self.log(ground))?),
            (Kind::Requests, DaemonKind::Dax) => marks::daxd(&read(&self.log(ground))?),
            _ => Vec::new(),
        };
        let executed = match self.kind {
            Kind::Instructions => marks::instructions(&read(&self.counts(ground))?),
            _ => Vec::new(),
        };
        // Debug logs of a boot are tens of megabytes.
        let _ = fs::remove_file(self.log(ground));
        let (mut region, mut first, mut last) = (0, true, false);
        for line in serial.lines() {
            let words = words(line);
            let Some((kind, _)) = line.split_once(' ') else {
                continue;
            };
            if kind == "pass" {
                first = words.get("n") == Some(&"1");
                last = words.get("n") == words.get("of");
            }
            if kind == "env" {
                let said = line.trim_start_matches("env ");
                if let Some((key, value)) = said.split_once('=') {
                    let key = format!("{:?} {key}", self.guest);
                    results.setting.insert(key, value.into());
                }
            }
            let Some(name) = words.get("name") else {
                continue;
            };
            let side = self.side(results, name);
            match kind {
                "bench" | "skip" => {
                    if last {
                        side.requests = marks::requests(&requests, region).or(side.requests.take());
                        side.instructions =
                            marks::executed(&executed, region).or(side.instructions);
                    }
                    region += 1;
                    if kind == "skip" {
                        let why = |key| words.get(key).copied().unwrap_or("?");
                        side.skipped = Some(format!("{} at {}", why("errno"), why("at")));
                        continue;
                    }
                    side.ops = number(&words, "ops");
                    side.bytes = number(&words, "bytes");
                    if self.kind == Kind::Timed && last {
                        side.ns.push(number(&words, "ns"));
                    } else if self.kind == Kind::Timed && first {
                        side.first_ns.push(number(&words, "ns"));
                    }
                }
                "aux" if self.kind == Kind::Timed && last => {
                    side.irqs.push(number(&words, "irqs"));
                    side.idle_ns.push(number(&words, "idle_ns"));
                }
                "count" if self.kind == Kind::Timed && last => {
                    let counts = words.iter().filter(|(key, _)| **key != "name");
                    side.counts = counts
                        .filter_map(|(key, count)| Some(((*key).into(), count.parse().ok()?)))
                        .collect();
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn side<'r>(&self, results: &'r mut Results, name: &str) -> &'r mut Side {
        let set = match name {
            name if name.starts_with("base_") => "base",
            name if name.starts_with("dax_") || name.starts_with("mmap_") => "dax",
            _ => "posix",
        };
        let workload = results.entry(set, name);
        match self.guest {
            Guest::Ours => &mut workload.ours,
            Guest::Linux => &mut workload.linux,
        }
    }
}
