//! Torture of the DAX window: threads in the guest at large files in a small window, on several
//! machines one after the other; the host says what must have come of it, byte for byte, and asks
//! the daemons whether any mapping is left. See `virtio_fs_manifest::torture`.

use super::{Scratch, finish, sweep};
use crate::{
    CommandLine, Console, Error, Machine, Report, Running,
    share::{DaemonKind, OnLoss},
};
use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::{fs::FileExt, net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use virtio_fs_manifest::{
    cells::{self, CELL, Cells},
    torture::{SHARED, Size, TURNS, Thread, durable_cell},
};

/// How much torture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Two machines, seconds: for every test run.
    Short,
    /// One and four processors; windows of 2, 8 and 64 MiB; files of 64 MiB to 1 GiB.
    Full,
}

/// A run of the torture.
#[derive(Debug)]
pub struct Torture {
    /// The machine. Its shares are replaced.
    pub machine: Machine,
    /// Of everything that is random.
    pub seed: u64,
    /// How much of it.
    pub extent: Extent,
}

/// One machine.
#[derive(Debug, Clone, Copy)]
struct Case {
    smp: u16,
    window_mib: u32,
    file_mib: u64,
    threads: u64,
    steps: u64,
    /// What daemons fail at on purpose.
    faults: &'static [&'static str],
}

/// Requests refused, and requests done but called failed: what they were about is of unknown
/// state until that is repaired.
const FAULTS: &[&str] = &["map:7", "mapped:5", "unmap:4", "unmapped:3"];

impl Torture {
    /// How long the guest may take for one case.
    const LIMIT: Duration = Duration::from_secs(1200);

    fn cases(&self) -> Vec<Case> {
        let case = |smp, window_mib, file_mib, steps| Case {
            smp,
            window_mib,
            file_mib,
            threads: 4,
            steps,
            faults: &[],
        };
        let failing = |case| Case {
            faults: FAULTS,
            ..case
        };
        match self.extent {
            Extent::Short => vec![
                case(1, 2, 64, 60),
                failing(case(2, 8, 64, 60)),
                case(4, 8, 256, 60),
            ],
            Extent::Full => [1, 4]
                .into_iter()
                .flat_map(|smp| {
                    [
                        (2, 64),
                        (2, 256),
                        (8, 256),
                        (8, 1024),
                        (64, 256),
                        (64, 1024),
                    ]
                    .map(|(window, file)| case(smp, window, file, 1500))
                })
                .chain([1, 4].map(|smp| failing(case(smp, 8, 256, 800))))
                .collect(),
        }
    }

    /// Runs all cases and prints a table of them. `started` gets each running machine, so that
    /// signals can be tied to it.
    ///
    /// # Errors
    /// What kept it from running.
    pub fn run(self, mut started: impl FnMut(&Running)) -> Result<Report, Error> {
        let mut report = Report::default();
        let mut table = String::from(
            "host: cpus window   files  steps     s requests   maps reclaims  copies fallbacks  faults taken_back result\n",
        );
        println!("host: torture, SEED={}", self.seed);
        for (n, case) in self.cases().into_iter().enumerate() {
            let size = Size {
                seed: self.seed + n as u64,
                threads: case.threads,
                steps: case.steps,
                cells: case.file_mib * 2048,
            };
            let before = report.counts();
            let begun = Instant::now();
            let told = self.case(case, size, &mut started, &mut report)?;
            let after = report.counts();
            let number = |name: &str| told.get(name).copied().unwrap_or(0);
            let _ = writeln!(
                table,
                "host: {:4} {:2}+2MiB {:4}MiB {:2}*{:4} {:5.1} {:8} {:6} {:8} {:7} {:9} {:7} {:10} {}",
                case.smp,
                case.window_mib,
                case.file_mib,
                case.threads,
                case.steps,
                begun.elapsed().as_secs_f32(),
                number("requests"),
                number("maps"),
                number("reclaims"),
                number("copies"),
                number("fallbacks"),
                number("faults"),
                number("taken_back"),
                match (after.1 == before.1, case.faults.is_empty()) {
                    (true, true) => "ok",
                    (true, false) => "ok, with failures",
                    (false, _) => "FAILED",
                },
            );
        }
        print!("{table}");
        for n in 0..self.kills() {
            self.kill(self.seed + n, &mut started, &mut report)?;
        }
        Ok(report)
    }

    fn kills(&self) -> u64 {
        match self.extent {
            Extent::Short => 2,
            Extent::Full => 20,
        }
    }

    /// Kills daemon and machine at some moment, and looks for what the guest knew to be durable.
    fn kill(
        &self,
        seed: u64,
        started: &mut impl FnMut(&Running),
        report: &mut Report,
    ) -> Result<(), Error> {
        const SIZE: u64 = 8 << 20;
        let share = Scratch::new(&self.machine.tools.target, "durable")?;
        let dir = share.0.join(".torture");
        let path = dir.join("durable");
        fs::create_dir(&dir)
            .and_then(|()| File::create(&path)?.set_len(SIZE))
            .map_err(Error::os("making the test file"))?;
        let mut machine = self.machine.clone();
        machine.shares.truncate(1);
        let first = &mut machine.shares[0];
        first.dir.clone_from(&share.0);
        (first.daemon, first.window_mib) = (DaemonKind::Dax, 4);
        first.on_loss = OnLoss::GoOn;
        machine.cmdline = CommandLine::default()
            .words(self.machine.cmdline.as_str())
            .words(&format!("test=durable durable={seed}"));
        machine.console = Console::Capture;
        let mut running = machine.start()?;
        started(&running);
        // Some moment in the course of a later write.
        let told = 20 + (seed % 83) as u32;
        let result = running
            .wait_for(&format!("# durable {told}."), 0, Self::LIMIT)
            .map_err(|error| error.to_string());
        std::thread::sleep(Duration::from_micros(seed * 7919 % 3000));
        if seed.is_multiple_of(2) {
            running.kill_daemon(0)?;
        }
        drop(running);
        let result = result.and_then(|_| durable(&path, seed, told));
        let who = if seed.is_multiple_of(2) {
            "daemon, then machine"
        } else {
            "machine, then daemon"
        };
        let name = format!("SEED={seed} {who} killed: {told} writes that were synced are there");
        report.host(&name, result);
        Ok(())
    }

    /// One machine; returns the numbers that the guest told.
    fn case(
        &self,
        case: Case,
        size: Size,
        started: &mut impl FnMut(&Running),
        report: &mut Report,
    ) -> Result<HashMap<String, u64>, Error> {
        let target = self.machine.tools.target.clone();
        sweep(&target.join("test"));
        let share = Scratch::new(&target, "torture")?;
        let dir = share.0.join(".torture");
        fs::create_dir(&dir).map_err(Error::os("making the test directory"))?;
        let mut machine = self.machine.clone();
        machine.smp = case.smp;
        let template = machine.shares[0].clone();
        let mut sockets = Vec::new();
        // Two devices on one directory; the second with the smallest window there is.
        machine.shares = [("first", case.window_mib), ("second", 2)]
            .map(|(tag, window_mib)| {
                let mut one = template.clone();
                let socket = std::env::temp_dir()
                    .join(format!("virtio-fs-torture-{}-{tag}", std::process::id()));
                one.args
                    .extend(["--control-socket".into(), socket.clone().into()]);
                sockets.push(Socket(socket));
                for fault in case.faults {
                    one.args.extend(["--fault".into(), (*fault).into()]);
                }
                one.dir.clone_from(&share.0);
                one.tag = tag.into();
                one.daemon = DaemonKind::Dax;
                one.window_mib = window_mib;
                one
            })
            .into();
        let mib = size.cells / 2048;
        let words = format!(
            "test=torture torture={},{},{},{mib}",
            size.seed, size.threads, size.steps
        );
        machine.cmdline = CommandLine::default()
            .words(self.machine.cmdline.as_str())
            .words(&words);
        machine.console = Console::Prefixed;
        let mut running = machine.start()?;
        started(&running);
        let name = format!(
            "SEED={} {} cpus, window {} MiB, files {mib} MiB{}",
            size.seed,
            case.smp,
            case.window_mib,
            if case.faults.is_empty() {
                ""
            } else {
                ", failures"
            }
        );
        let result = with_guest(&mut running, &dir, size.seed, &sockets, case);
        let reached = result.is_ok();
        report.host(&format!("{name}: in turns, and no mapping is left"), result);
        let serial = finish(running, report);
        if reached {
            report.host(&format!("{name}: every byte"), verify(&dir, size));
        }
        let told = numbers(&serial);
        if !case.faults.is_empty() {
            let number = |name: &str| told.get(name).copied().unwrap_or(0);
            let (lost, repairs) = (number("lost"), number("repairs"));
            let result = if lost > 0 && repairs > 0 {
                Ok(())
            } else {
                Err(format!("{lost} lost, {repairs} repaired"))
            };
            report.host(&format!("{name}: mappings are lost and repaired"), result);
        }
        Ok(told)
    }
}

/// Sums up the `name=number` of the guest's lines.
fn numbers(serial: &str) -> HashMap<String, u64> {
    let mut sums = HashMap::new();
    let lines = serial.lines().filter(|line| line.starts_with("# torture:"));
    for word in lines.flat_map(str::split_whitespace) {
        if let Some((name, number)) = word.split_once('=')
            && let Ok(number) = number.parse::<u64>()
        {
            *sums.entry(name.to_owned()).or_default() += number;
        }
    }
    sums
}

/// A daemon's socket, removed in the end.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // A daemon that never began has made none.
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    fn counters(&self) -> Result<HashMap<String, u64>, String> {
        let mut text = String::new();
        UnixStream::connect(&self.0)
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .map_err(|error| format!("the daemon's counters: {error}"))?;
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        Ok(pairs
            .filter_map(|(name, number)| Some((name.to_owned(), number.parse().ok()?)))
            .collect())
    }
}

/// The host's part while the guest runs.
fn with_guest(
    running: &mut Running,
    dir: &Path,
    seed: u64,
    sockets: &[Socket],
    case: Case,
) -> Result<(), String> {
    let mut at = 0;
    for turn in 0..4 {
        let wait = running.wait_for(&format!("torture: turn {turn}"), at, Torture::LIMIT);
        at = wait.map_err(|error| error.to_string())?;
        let result = take_turn(&dir.join("turns"), seed, turn);
        running.send(b"\n");
        result?;
    }
    let wait = running.wait_for("torture: over", at, Torture::LIMIT);
    wait.map_err(|error| error.to_string())?;
    let counters: Result<Vec<_>, _> = sockets.iter().map(Socket::counters).collect();
    running.send(b"\n");
    for (n, counters) in counters?.iter().enumerate() {
        let number = |name: &str| counters.get(name).copied().unwrap_or(u64::MAX);
        let (maps, unmaps, live) = (number("maps"), number("unmaps"), number("mappings"));
        // With failures the reset at the end has removed the last ones.
        let lost = maps != unmaps && case.faults.is_empty();
        if lost || live != 0 || maps == 0 {
            return Err(format!(
                "daemon {n}: {maps} maps, {unmaps} unmaps, {live} live at the end"
            ));
        }
    }
    Ok(())
}

/// Reads what the guest has stored, and writes something else for it to load.
fn take_turn(path: &Path, seed: u64, turn: u32) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("turn {turn}: {error}");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(failed)?;
    let (mut found, mut want) = ([0; CELL as usize], [0; CELL as usize]);
    for cell in 0..TURNS {
        file.read_exact_at(&mut found, cell * CELL)
            .map_err(failed)?;
        cells::fill(seed, cell, 2 * turn + 1, &mut want);
        if found != want {
            return Err(format!(
                "turn {turn}: cell {cell} is not what the guest stored"
            ));
        }
        cells::fill(seed, cell, 2 * turn + 2, &mut want);
        file.write_all_at(&want, cell * CELL).map_err(failed)?;
    }
    Ok(())
}

/// Looks for the writes up to `told`. One that came later may have replaced it, in whole or in part.
fn durable(path: &Path, seed: u64, told: u32) -> Result<(), String> {
    const LATER: u32 = 5000;
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let count = bytes.len() as u64 / CELL;
    let mut last = HashMap::<u64, Vec<u32>>::new();
    for n in 1..=told {
        last.insert(durable_cell(seed, n, count), vec![n]);
    }
    for n in told + 1..told + LATER {
        if let Some(list) = last.get_mut(&durable_cell(seed, n, count)) {
            list.push(n);
        }
    }
    let mut want = [0; CELL as usize];
    for (cell, list) in last {
        let at = (cell * CELL) as usize;
        let found = &bytes[at..at + CELL as usize];
        // Each byte is of one of them: the last one may have been cut off in the middle.
        let mut left: Vec<usize> = (0..found.len()).collect();
        for n in list.iter().copied() {
            cells::fill(seed, cell, n, &mut want);
            if found == want {
                left.clear();
                break;
            }
            // The first is the one that is durable, the second the one after it.
            if n <= list.get(1).copied().unwrap_or(n) {
                left.retain(|&byte| found[byte] != want[byte]);
            }
        }
        if !left.is_empty() {
            return Err(format!("write {} to cell {cell} is lost", list[0]));
        }
    }
    Ok(())
}

/// Compares the files with what the threads must have made of them.
fn verify(dir: &Path, size: Size) -> Result<(), String> {
    let mut names = vec!["shared".to_owned(), "striped".to_owned()];
    let mut threads = Vec::new();
    for me in 0..size.threads {
        let mut thread = Thread::new(size, me);
        for _ in 0..size.steps {
            thread.draw();
        }
        let (_, number) = thread.name();
        let name = format!("own-{me}-{number}");
        compare(&dir.join(&name), Some(thread.own.size()), |at, bytes| {
            thread.own.check(at, bytes)
        })?;
        names.push(name);
        threads.push(thread.striped);
    }
    let striped = |at: u64, bytes: &[u8]| {
        let mut want = [0; CELL as usize];
        for (n, found) in bytes.chunks(CELL as usize).enumerate() {
            let cell = at + n as u64;
            let of: &Cells = &threads[(cell % size.threads) as usize];
            of.expect(cell, &mut want);
            if found != &want[..found.len()] {
                return Err(cell * CELL);
            }
        }
        Ok(())
    };
    compare(&dir.join("striped"), Some(size.cells * CELL), striped)?;
    compare(&dir.join("shared"), None, |at, bytes| {
        cells::check_loosely(SHARED, at, bytes)
    })?;
    let entries = fs::read_dir(dir).map_err(|error| error.to_string())?;
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    found.sort();
    if names == found {
        Ok(())
    } else {
        Err(format!("the files are {found:?}, not {names:?}"))
    }
}

fn compare(
    path: &Path,
    size: Option<u64>,
    check: impl Fn(u64, &[u8]) -> Result<(), u64>,
) -> Result<(), String> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let failed = |error: std::io::Error| format!("{name}: {error}");
    let mut file = File::open(path).map_err(failed)?;
    let len = file.metadata().map_err(failed)?.len();
    if let Some(size) = size
        && size != len
    {
        return Err(format!("{name}: {len} bytes, not {size}"));
    }
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let here = buf.len().min((len - at) as usize);
        file.read_exact(&mut buf[..here]).map_err(failed)?;
        check(at / CELL, &buf[..here])
            .map_err(|byte| format!("{name}: byte {byte} of {len} differs"))?;
        at += here as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtio_fs_manifest::torture::{Step, Task};

    /// What the guest does, on plain files and by one thread after the other.
    fn play(dir: &Path, size: Size) {
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            options.open(dir.join(name)).unwrap()
        };
        let put = |file: &File, of: u64, cell: u64, generation: u32| {
            let mut bytes = [0; CELL as usize];
            cells::fill(of, cell, generation, &mut bytes);
            file.write_all_at(&bytes, cell * CELL).unwrap();
        };
        let (striped, shared) = (open("striped"), open("shared"));
        striped.set_len(size.cells * CELL).unwrap();
        for me in 0..size.threads {
            let mut thread = Thread::new(size, me);
            let name_of = |thread: &Thread| format!("own-{me}-{}", thread.name().1);
            let mut name = name_of(&thread);
            open(&name).set_len(size.cells * CELL).unwrap();
            for _ in 0..size.steps {
                let task = thread.draw();
                let (file, of, apart, step) = match task {
                    Task::Own(step) => (open(&name), me, 1, step),
                    Task::Striped(step) => (striped.try_clone().unwrap(), 1000, size.threads, step),
                    Task::Shared(step) => (shared.try_clone().unwrap(), SHARED, 1, step),
                };
                let each = |at: u64, count: u64, generation: u32| {
                    (0..count).for_each(|n| put(&file, of, at + n * apart, generation));
                };
                match step {
                    Step::Write {
                        at,
                        count,
                        generation,
                    }
                    | Step::Store {
                        at,
                        count,
                        generation,
                    }
                    | Step::Append {
                        at,
                        count,
                        generation,
                    } => each(at, count, generation),
                    Step::Punch { at, count } => {
                        let len = file.metadata().unwrap().len();
                        let inside = count.min((len / CELL).saturating_sub(at));
                        each(at, if of == SHARED { inside } else { count }, 0);
                    }
                    Step::Truncate { cells } => file.set_len(cells * CELL).unwrap(),
                    Step::Replace { cells } => {
                        fs::remove_file(dir.join(&name)).unwrap();
                        name = name_of(&thread);
                        open(&name).set_len(cells * CELL).unwrap();
                    }
                    Step::Rename => {
                        let new = name_of(&thread);
                        fs::rename(dir.join(&name), dir.join(&new)).unwrap();
                        name = new;
                    }
                    Step::Read { .. } | Step::Load { .. } | Step::Sync => {}
                }
            }
        }
    }

    #[test]
    fn what_the_steps_make_of_plain_files_is_what_is_expected_and_nothing_else() {
        let name = format!("virtio-fs-torture-test-{}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        fs::create_dir(&dir).unwrap();
        let seed = fs::metadata(&dir).unwrap().modified().unwrap();
        let seed = seed.elapsed().unwrap().subsec_nanos().into();
        println!("SEED={seed}");
        let size = Size {
            seed,
            threads: 3,
            steps: 300,
            cells: 6000,
        };
        play(&dir, size);
        assert_eq!(verify(&dir, size), Ok(()));
        for name in ["striped", "shared"] {
            let path = dir.join(name);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap();
            let mut byte = [0];
            file.read_exact_at(&mut byte, 5 * CELL + 7).unwrap();
            file.write_all_at(&[byte[0] ^ 0x55], 5 * CELL + 7).unwrap();
            assert!(verify(&dir, size).is_err(), "{name}");
            file.write_all_at(&byte, 5 * CELL + 7).unwrap();
        }
        fs::write(dir.join("stray"), "").unwrap();
        assert!(verify(&dir, size).is_err());
        // Nor does a file pass that lacks what was synced.
        fs::write(dir.join("empty"), vec![0; 1 << 20]).unwrap();
        assert!(durable(&dir.join("empty"), seed, 30).is_err());
        fs::remove_dir_all(dir).unwrap();
    }
}
