//! Synthetic workloads. Each takes its working set in ranges of 2 MiB, and a
//! seed; the same arguments give the same trace everywhere.

use std::collections::HashMap;

use virtio_fs::dax::Kind;

use crate::random::{Random, Zipf};
use crate::trace::{Touch, Trace};

const RANGE: u64 = 2 << 20;
const PAGE: u64 = 4096;
const KIB: u64 = 1024;

/// What a workload is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Ranges of the window.
    pub window: u64,
    /// Ranges of the working set.
    pub working_set: u64,
    /// About how many accesses to make.
    pub accesses: usize,
    /// Seed.
    pub seed: u64,
}

/// A named generator.
pub struct Workload {
    /// Name in the tables.
    pub name: &'static str,
    /// One line of explanation.
    pub about: &'static str,
    make: fn(&mut Maker),
}

impl Workload {
    /// Makes the trace.
    pub fn trace(&self, shape: Shape) -> Trace {
        let mut maker = Maker {
            shape,
            random: Random::new(shape.seed),
            trace: Trace {
                name: self.name.to_owned(),
                window: shape.window * RANGE,
                sizes: HashMap::new(),
                touches: Vec::new(),
            },
        };
        (self.make)(&mut maker);
        maker.trace
    }
}

struct Maker {
    shape: Shape,
    random: Random,
    trace: Trace,
}

impl Maker {
    fn wants_more(&self) -> bool {
        self.trace.touches.len() < self.shape.accesses
    }

    fn file(&mut self, file: u64, size: u64) {
        self.trace.sizes.insert(file, size);
    }

    fn big_file(&mut self) -> u64 {
        let ranges = self.shape.working_set;
        self.file(1, ranges * RANGE);
        ranges
    }

    fn touch(&mut self, file: u64, stream: u32, offset: u64, len: u64, kind: Kind) {
        self.trace.touches.push(Touch {
            file,
            stream,
            offset,
            len: len as u32,
            kind,
        });
    }

    fn page_of(&mut self, chunk: u64) -> u64 {
        chunk * RANGE + self.random.below(RANGE / PAGE) * PAGE
    }

    /// Reads a page of `chunk` of file 1.
    fn page(&mut self, chunk: u64, kind: Kind) {
        let offset = self.page_of(chunk);
        self.touch(1, 0, offset, PAGE, kind);
    }

    fn sequential(&mut self, file: u64, from: u64, to: u64, piece: u64) {
        for offset in (from..to).step_by(piece as usize) {
            self.touch(file, 0, offset, piece.min(to - offset), Kind::Copy);
        }
    }
}

fn uniform(m: &mut Maker, piece: u64, kind: Kind) {
    let ranges = m.big_file();
    while m.wants_more() {
        let offset = m.random.below(ranges * RANGE / piece) * piece;
        m.touch(1, 0, offset, piece, kind);
    }
}

fn zipf(m: &mut Maker, kind: Kind) {
    let ranges = m.big_file();
    let zipf = Zipf::new(ranges, 0.99, &mut m.random);
    while m.wants_more() {
        let chunk = zipf.draw(&mut m.random);
        m.page(chunk, kind);
    }
}

fn scan(m: &mut Maker, piece: u64) {
    let size = m.shape.working_set * RANGE;
    let mut file = 0;
    while m.wants_more() {
        file += 1;
        m.file(file, size);
        m.sequential(file, 0, size, piece);
    }
}

fn scan_with_hot_set(m: &mut Maker) {
    let hot = (m.shape.window / 4).max(1);
    let size = m.shape.working_set * RANGE;
    m.file(1, hot * RANGE);
    m.file(2, size);
    let mut at = 0;
    while m.wants_more() {
        let chunk = m.random.below(hot);
        m.page(chunk, Kind::Copy);
        m.touch(2, 0, at, 16 * KIB, Kind::Copy);
        at = (at + 16 * KIB) % size;
    }
}

fn looped(m: &mut Maker) {
    let size = (m.shape.working_set + (m.shape.window / 8).max(1)) * RANGE;
    m.file(1, size);
    while m.wants_more() {
        m.sequential(1, 0, size, 16 * KIB);
    }
}

fn fault_loop(m: &mut Maker) {
    let ranges = m.shape.working_set + (m.shape.window / 8).max(1);
    m.file(1, ranges * RANGE);
    while m.wants_more() {
        for chunk in 0..ranges {
            for _ in 0..8 {
                m.page(chunk, Kind::Fault);
            }
        }
    }
}

fn small_files(m: &mut Maker, popularity: f64) {
    let files = m.shape.working_set;
    for file in 0..files {
        let size = (1 + m.random.below(16)) * PAGE;
        m.file(file, size);
    }
    let zipf = Zipf::new(files, popularity, &mut m.random);
    while m.wants_more() {
        let file = zipf.draw(&mut m.random);
        let size = m.trace.sizes[&file];
        m.touch(file, 0, 0, size, Kind::Copy);
    }
}

fn tree_walk(m: &mut Maker) {
    let mut file = 0;
    while m.wants_more() {
        file += 1;
        let size = (1 + m.random.below(16)) * PAGE;
        m.file(file, size);
        m.sequential(file, 0, size, 32 * KIB);
    }
}

fn phases(m: &mut Maker) {
    let ranges = m.big_file();
    let hot = (m.shape.window / 2).max(1).min(ranges);
    while m.wants_more() {
        let first = m.random.below(ranges);
        for _ in 0..m.shape.accesses / 8 {
            let chunk = (first + m.random.below(hot)) % ranges;
            m.page(chunk, Kind::Copy);
        }
    }
}

fn dense_bursts(m: &mut Maker) {
    let ranges = m.big_file();
    while m.wants_more() {
        let chunk = m.random.below(ranges);
        let from = chunk * RANGE + m.random.below(4) * (RANGE / 4);
        m.sequential(1, from, from + RANGE / 4, 16 * KIB);
    }
}

fn interleaved(m: &mut Maker) {
    let streams = 4;
    let size = (m.shape.working_set / streams).max(1) * RANGE;
    for file in 0..streams {
        m.file(file, size);
    }
    let mut at = 0;
    while m.wants_more() {
        for file in 0..streams {
            m.touch(file, 0, at, 16 * KIB, Kind::Copy);
        }
        at = (at + 16 * KIB) % size;
    }
}

fn two_tenants(m: &mut Maker) {
    let size = m.shape.working_set * RANGE;
    let own = (m.shape.window / 2).max(1);
    m.file(1, own * RANGE);
    m.file(2, size);
    let zipf = Zipf::new(own, 0.8, &mut m.random);
    while m.wants_more() {
        let chunk = zipf.draw(&mut m.random);
        m.page(chunk, Kind::Copy);
        for _ in 0..4 {
            let offset = m.random.below(size / PAGE) * PAGE;
            m.touch(2, 0, offset, PAGE, Kind::Copy);
        }
    }
}

/// Every workload of the tables.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "uniform-4k",
        about: "random 4 KiB reads of one file; at 4 windows the cliff of the Linux measurement",
        make: |m| uniform(m, PAGE, Kind::Copy),
    },
    Workload {
        name: "uniform-64k",
        about: "random 64 KiB reads of one file",
        make: |m| uniform(m, 64 * KIB, Kind::Copy),
    },
    Workload {
        name: "uniform-1m",
        about: "random 1 MiB reads of one file",
        make: |m| uniform(m, 1024 * KIB, Kind::Copy),
    },
    Workload {
        name: "zipf-4k",
        about: "4 KiB reads, ranges by Zipf 0.99",
        make: |m| zipf(m, Kind::Copy),
    },
    Workload {
        name: "scan-16k",
        about: "file after file, each as large as the working set, read once in 16 KiB pieces",
        make: |m| scan(m, 16 * KIB),
    },
    Workload {
        name: "scan-1m",
        about: "the same in 1 MiB pieces",
        make: |m| scan(m, 1024 * KIB),
    },
    Workload {
        name: "scan+hot",
        about: "random 4 KiB reads of a quarter window, in turn with a 16 KiB scan over and over the working set",
        make: scan_with_hot_set,
    },
    Workload {
        name: "loop",
        about: "working set plus an eighth of a window, read round and round in 16 KiB pieces",
        make: looped,
    },
    Workload {
        name: "small-files",
        about: "files of 4 to 64 KiB, as many as the working set has ranges, read whole, by Zipf 0.8",
        make: |m| small_files(m, 0.8),
    },
    Workload {
        name: "tree-walk",
        about: "files of 4 to 64 KiB, each read once in 32 KiB pieces",
        make: tree_walk,
    },
    Workload {
        name: "phases",
        about: "random 4 KiB reads of half a window, which moves eight times",
        make: phases,
    },
    Workload {
        name: "dense-bursts",
        about: "a quarter of a random range in 16 KiB pieces, then another",
        make: dense_bursts,
    },
    Workload {
        name: "4-streams",
        about: "four files read side by side, over and over, in 16 KiB pieces",
        make: interleaved,
    },
    Workload {
        name: "two-tenants",
        about: "one file of half a window by Zipf 0.8, another four times as often at random, 4 KiB",
        make: two_tenants,
    },
    Workload {
        name: "mmap-zipf",
        about: "page faults, ranges by Zipf 0.99",
        make: |m| zipf(m, Kind::Fault),
    },
    Workload {
        name: "mmap-loop",
        about: "eight faults in each range of working set plus an eighth of a window, round and round",
        make: fault_loop,
    },
    Workload {
        name: "mmap-uniform",
        about: "page faults at random",
        make: |m| uniform(m, PAGE, Kind::Fault),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_repeat_and_stay_inside_their_files() {
        for workload in WORKLOADS {
            let shape = Shape {
                window: 4,
                working_set: 8,
                accesses: 500,
                seed: 7,
            };
            let trace = workload.trace(shape);
            assert_eq!(trace, workload.trace(shape), "{}", workload.name);
            assert!(trace.touches.len() >= 500);
            for touch in &trace.touches {
                let end = touch.offset + u64::from(touch.len);
                assert!(
                    touch.len > 0 && end <= trace.sizes[&touch.file],
                    "{}",
                    workload.name
                );
            }
        }
    }
}
