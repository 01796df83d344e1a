//! `make bench`: the same workloads in the test kernel and in a Linux guest, on
//! the same QEMU, daemon, directory, number of processors and memory, in turns.
//! `README.md` beside this package defines the workloads.
//!
//! Prints tables; writes `NAME.json`, `NAME.txt` and `NAME.svg`.

mod boot;
mod border;
mod chart;
mod initrd;
mod marks;
mod options;
mod profile;
mod results;
mod table;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use signal_hook::{consts, iterator::Signals};
use virtio_fs_run::{DaemonKind, Stopper, Tools};

use boot::{Boot, Ground, Guest, Kind};
use options::{HELP, Options};
use results::Results;
use tree::Tree;

fn main() -> ExitCode {
    let done = match Options::parse() {
        Ok(None) => {
            print!("{HELP}");
            Ok(())
        }
        Ok(Some(options)) => bench(&options),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<(), String> {
    let tools = Tools::default();
    let out = options
        .out
        .clone()
        .unwrap_or_else(|| tools.target.join("bench"));
    fs::create_dir_all(&out).map_err(|e| format!("{}: {e}", out.display()))?;
    let results = match &options.report {
        Some(file) => read(file)?,
        None => match measure(options, &tools, &out)? {
            Some(results) => results,
            None => return Ok(()),
        },
    };
    let mut text = table::all(&results);
    if let Some(file) = &options.compare {
        text.push_str(&table::compared(&read(file)?, &results));
    }
    print!("{text}");
    let name = match &options.report {
        Some(file) => file.file_stem().unwrap_or_default().to_string_lossy(),
        None => options.name.as_str().into(),
    };
    let write = |suffix: &str, what: &str| {
        let path = out.join(format!("{name}.{suffix}"));
        fs::write(&path, what).map_err(|e| format!("{}: {e}", path.display()))
    };
    if options.report.is_none() {
        let json = serde_json::to_string_pretty(&results).map_err(|e| e.to_string())?;
        write("json", &json)?;
    }
    write("txt", &text)?;
    write("svg", &chart::draw(&results))?;
    println!(
        "\n{0}/{name}.json, {0}/{name}.txt and {0}/{name}.svg",
        out.display()
    );
    Ok(())
}

fn read(file: &Path) -> Result<Results, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|e| wrong(&e))?;
    serde_json::from_str(&text).map_err(|e| wrong(&e))
}

/// The results; none where a profile was asked for.
fn measure(options: &Options, tools: &Tools, out: &Path) -> Result<Option<Results>, String> {
    let running = stop_at_signals()?;
    let tree = Tree::new(options.share.as_deref()).map_err(|e| format!("the tree: {e}"))?;
    let ground = Ground {
        kernel: options.kernel.clone().unwrap_or_else(|| tools.kernel()),
        vmlinuz: tools.target.join("tools/linux/vmlinuz"),
        initrd: out.join("initrd.cpio"),
        plugin: tools.target.join("release/libvirtio_fs_insns.so"),
        share: tree.path().to_owned(),
        out: out.to_owned(),
        cache: options.cache.clone(),
        limit: options.limit,
    };
    if let Some(names) = &options.profile {
        return profile(names, &ground, &tree, &running);
    }
    let linux = options.linux && ground.vmlinuz.exists();
    if options.linux && !linux {
        println!(
            "There is no Linux guest to compare with: {} is missing.",
            ground.vmlinuz.display()
        );
    }
    if linux {
        let program = tools.target.join("release/virtio-fs-bench-guest");
        initrd::write(&program, &ground.initrd)
            .map_err(|e| format!("{}: {e}", program.display()))?;
    }
    let mut results = Results {
        setting: setting(options, tools),
        workloads: Vec::new(),
    };
    let boots = plan(options, linux, ground.plugin.exists());
    let begun = Instant::now();
    let all: f64 = boots.iter().map(Boot::weight).sum();
    let mut did = 0.0;
    for (n, boot) in boots.iter().enumerate() {
        let left = match did {
            0.0 => String::new(),
            did => {
                let seconds = begun.elapsed().as_secs_f64() * (all - did) / did;
                format!(", about {} left", minutes(seconds))
            }
        };
        if running.stopped() {
            return Err("ended by a signal".into());
        }
        println!("boot {} of {}: {}{left}", n + 1, boots.len(), boot.title());
        tree.restore().map_err(|e| format!("the tree: {e}"))?;
        let tie = |started: &virtio_fs_run::Running| running.set(started.stopper());
        let done = boot
            .run(&ground, &mut results, tie)
            .and_then(|()| tree.check());
        if let Err(error) = done {
            let error = format!("{}: {error}", boot.title());
            // What only counts may be missing; times of fewer rounds would mislead.
            if boot.kind == Kind::Timed || running.stopped() {
                return Err(error);
            }
            println!("bench: {error}");
        }
        did += boot.weight();
    }
    println!(
        "{} boots in {}\n",
        boots.len(),
        minutes(begun.elapsed().as_secs_f64())
    );
    Ok(Some(results))
}

/// One boot in which the instructions are counted block by block.
fn profile(
    names: &[String],
    ground: &Ground,
    tree: &Tree,
    running: &Current,
) -> Result<Option<Results>, String> {
    let boot = Boot {
        guest: Guest::Ours,
        kind: Kind::Profile,
        sets: names.to_vec(),
        daemon: match names.iter().all(in_window) {
            true => DaemonKind::Dax,
            false => DaemonKind::Virtiofsd,
        },
    };
    let mut results = Results::default();
    tree.restore().map_err(|e| format!("the tree: {e}"))?;
    boot.run(ground, &mut results, |started| {
        running.set(started.stopper());
    })?;
    let once: u64 = results.workloads.iter().map(|w| w.ours.ops).sum();
    let ops = once * u64::from(boot::PASSES);
    print!(
        "{}",
        profile::table(&boot.blocks(ground), &ground.kernel, ops)?
    );
    Ok(None)
}

/// Says whether a workload wants the daemon with a window.
fn in_window(name: &String) -> bool {
    name == "dax" || name.starts_with("dax_") || name.starts_with("mmap_")
}

/// The boots: rounds over both guests and all sets, so that a slow minute of the
/// machine meets all of them, each round in the other order; then those that count.
fn plan(options: &Options, linux: bool, plugin: bool) -> Vec<Boot> {
    let (window, plain): (Vec<&String>, Vec<&String>) =
        options.sets.iter().partition(|name| in_window(name));
    let mut units = Vec::new();
    if !plain.is_empty() {
        let mut sets: Vec<String> = plain.into_iter().cloned().collect();
        if !sets.contains(&"base".into()) {
            sets.insert(0, "base".into());
        }
        units.push((DaemonKind::Virtiofsd, sets));
    }
    if !window.is_empty() {
        units.push((DaemonKind::Dax, window.into_iter().cloned().collect()));
    }
    let round = |kind: Kind, turned: bool| {
        let mut guests = vec![Guest::Ours];
        if linux {
            guests.push(Guest::Linux);
        }
        if turned {
            guests.reverse();
        }
        let boots = units.iter().flat_map(move |(daemon, sets)| {
            let boot = |guest| Boot {
                guest,
                kind,
                sets: sets.clone(),
                daemon: *daemon,
            };
            guests.clone().into_iter().map(boot).collect::<Vec<_>>()
        });
        boots.collect::<Vec<_>>()
    };
    let mut boots: Vec<Boot> = (0..options.rounds)
        .flat_map(|n| round(Kind::Timed, n % 2 == 1))
        .collect();
    if options.count {
        boots.extend(round(Kind::Requests, false));
        if plugin {
            boots.extend(round(Kind::Instructions, false));
        }
    }
    boots
}

/// What the figures stand on.
fn setting(options: &Options, tools: &Tools) -> std::collections::BTreeMap<String, String> {
    let version = |program: Result<PathBuf, virtio_fs_run::Error>| {
        let said = program.ok().and_then(|program| {
            let output = Command::new(program).arg("--version").output().ok()?;
            String::from_utf8(output.stdout).ok()
        });
        let said = said.unwrap_or_default();
        said.lines().next().unwrap_or("unknown").to_owned()
    };
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = text("/proc/cpuinfo");
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    [
        ("qemu", version(tools.qemu())),
        ("virtiofsd", version(tools.daemon(DaemonKind::Virtiofsd))),
        ("cache", options.cache.clone().unwrap_or("auto".into())),
        ("rounds", options.rounds.to_string()),
        ("processor", model.to_owned()),
        ("load at start", text("/proc/loadavg").trim().to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn minutes(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

/// The machine that a signal stops.
#[derive(Clone, Default)]
struct Current(Arc<Mutex<(Option<Stopper>, bool)>>);

impl Current {
    fn lock(&self) -> MutexGuard<'_, (Option<Stopper>, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, stopper: Stopper) {
        self.lock().0 = Some(stopper);
    }

    /// Says whether a signal came.
    fn stopped(&self) -> bool {
        self.lock().1
    }
}

/// Lets a signal end the machine that runs, which ends the run with an error, so
/// that everything is cleaned up.
fn stop_at_signals() -> Result<Current, String> {
    let mut signals = Signals::new([consts::SIGINT, consts::SIGTERM, consts::SIGHUP])
        .map_err(|e| format!("catching signals: {e}"))?;
    let current = Current::default();
    let seen = current.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let mut current = seen.lock();
            current.1 = true;
            if let Some(stopper) = &current.0 {
                stopper.stop(signal);
            }
        }
    });
    Ok(current)
}
