//! Loops without a fuzzer: inputs made from a seed, some from nothing, some from the corpus.
//!
//! An execution is named by its own seed, so that a finding is repeated by that one alone. One that
//! does not end is a finding as well: the watch ends the process after `PATIENCE`.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use virtio_fs_calls::{Random, Source};

use crate::Target;

/// Seconds. Nothing that is fuzzed takes a tenth of it on a busy machine, but under valgrind:
/// `FUZZ_PATIENCE` says another number.
const PATIENCE: u64 = 60;

/// A number in the environment.
fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// How long to go on, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Seed of the first execution; each next one has the next.
    pub seed: u64,
    /// How many there are, unless the time says otherwise.
    pub executions: u32,
    /// Go on so long, however many there are.
    pub time: Option<Duration>,
}

impl Budget {
    /// As the environment wants it: `FUZZ_SEED`, `FUZZ_RUNS`, `FUZZ_SECONDS`.
    ///
    /// # Panics
    ///
    /// If one of them is no number.
    pub fn from_env(target: &Target) -> Self {
        Self {
            seed: number("FUZZ_SEED").unwrap_or(1),
            executions: number("FUZZ_RUNS").map_or(target.executions, |runs| runs as u32),
            time: number("FUZZ_SECONDS").map(Duration::from_secs),
        }
    }
}

/// The committed inputs of a target.
///
/// # Panics
///
/// If they cannot be read, or there are none.
pub fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let mut files: Vec<_> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("corpus").path())
        .collect();
    files.sort();
    let inputs: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(file).expect("corpus"))
        .collect();
    assert!(!inputs.is_empty(), "{} is empty", dir.display());
    inputs
}

/// Runs the corpus, then made inputs, and returns how many.
///
/// # Panics
///
/// With the seed in front, where an execution does.
pub fn run(target: &Target, budget: Budget) -> u64 {
    let inputs = corpus(target);
    let watch = Watch::start(target.name);
    for (number, input) in inputs.iter().enumerate() {
        watch.next(number as u64);
        judged(target, input, &format!("input {number} of its corpus"));
    }
    let begun = Instant::now();
    let mut count = 0;
    let more = |count| match budget.time {
        Some(time) => begun.elapsed() < time,
        None => count < u64::from(budget.executions),
    };
    while more(count) {
        let seed = budget.seed.wrapping_add(count);
        watch.next(seed);
        let input = make(&inputs, target.max_len, seed);
        judged(target, &input, &format!("FUZZ_SEED={seed} FUZZ_RUNS=1"));
        count += 1;
    }
    println!(
        "{}: {count} executions from FUZZ_SEED={}, {:.1} s",
        target.name,
        budget.seed,
        begun.elapsed().as_secs_f32()
    );
    count
}

fn judged(target: &Target, input: &[u8], name: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        let file = std::env::temp_dir().join(format!("virtio-fs-fuzz.{}", target.name));
        let saved = std::fs::write(&file, input)
            .map_or("not saved".into(), |()| file.display().to_string());
        eprintln!(
            "{}: a finding; repeat it with {name}; the input: {saved}",
            target.name
        );
        resume_unwind(panic);
    }
}

/// Makes the input of a seed.
pub fn make(corpus: &[Vec<u8>], max_len: usize, seed: u64) -> Vec<u8> {
    // Neighbouring seeds begin far from each other.
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let len = 1 + random.below(max_len);
    let mut input = if corpus.is_empty() || random.chance(3) {
        Vec::new()
    } else {
        corpus[random.below(corpus.len())].clone()
    };
    // What is committed is short; behind it a session goes on.
    if input.is_empty() || random.chance(2) {
        // Small bytes are plausible lengths and choices.
        let small = random.chance(2);
        input.extend((0..len).map(|_| match random.below(4) {
            0 if small => 0,
            1 if small => random.below(32) as u8,
            _ => random.below(256) as u8,
        }));
    }
    for _ in 0..random.below(6) {
        mutate(&mut input, corpus, &mut random);
    }
    input.truncate(max_len);
    input
}

fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    if input.is_empty() {
        input.push(0);
    }
    let at = random.below(input.len());
    match random.below(6) {
        0 => input[at] ^= 1 << random.below(8),
        1 => input[at] = random.of(&[0, 1, 0x7f, 0x80, 0xff]),
        2 => input.truncate(at),
        3 => {
            let end = at + random.below(input.len() - at);
            let piece = input[at..end].to_vec();
            input.extend(piece);
        }
        4 => drop(input.remove(at)),
        _ if corpus.is_empty() => input.insert(at, random.below(256) as u8),
        _ => {
            // The rest of another one.
            let other = &corpus[random.below(corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[at.min(other.len())..]);
        }
    }
}

/// Ends the process when an execution does not end.
struct Watch(Arc<AtomicU64>);

impl Watch {
    const OVER: u64 = u64::MAX;

    fn start(name: &'static str) -> Self {
        let state = Arc::new(AtomicU64::new(0));
        let seen = state.clone();
        let patience = Duration::from_secs(number("FUZZ_PATIENCE").unwrap_or(PATIENCE));
        std::thread::spawn(move || {
            let (mut last, mut since) = (0, Instant::now());
            loop {
                std::thread::sleep(Duration::from_millis(500));
                let now = seen.load(Ordering::Relaxed);
                if now == Self::OVER {
                    return;
                }
                if now != last {
                    (last, since) = (now, Instant::now());
                } else if since.elapsed() > patience {
                    // Not eprintln: the test's thread may hold what captures it.
                    let text = format!("{name}: execution {now} does not end\n");
                    let _ = std::io::stderr().write_all(text.as_bytes());
                    std::process::abort();
                }
            }
        });
        Self(state)
    }

    fn next(&self, execution: u64) {
        self.0
            .store(execution.min(Self::OVER - 1), Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(Self::OVER, Ordering::Relaxed);
    }
}
