//! What threads do to files of their own and to files they share, drawn from a
//! seed: the guest does it, the host knows what must have come of it.
//!
//! | file | who | what is known |
//! |---|---|---|
//! | own | one thread | every byte, and the length |
//! | striped | all threads, each its own cells, several threads in each page | every byte; the length never changes |
//! | shared | all threads, anything anywhere | each byte is what belongs there, or 0 |

use crate::cells::{Cells, mix};

/// Numbers of the files that all threads share; own files have the thread's.
pub const STRIPED: u64 = 1000;
/// See [`STRIPED`].
pub const SHARED: u64 = 1001;

/// Cells of the file that guest and host write in turns before all else: its
/// content is that of file `seed`, in generation 1 by the guest, 2 by the host,
/// and so on.
pub const TURNS: u64 = 2 * 2048;

/// Returns which cell of `cells` the `n`-th durable write goes to, with generation
/// `n`. Few enough that they are written again.
pub fn durable_cell(seed: u64, n: u32, cells: u64) -> u64 {
    let spread = mix(seed ^ mix(n.into()));
    (spread % 97) * (cells / 97)
}

/// The size of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Everything follows from it.
    pub seed: u64,
    /// Threads.
    pub threads: u64,
    /// Steps of each.
    pub steps: u64,
    /// The largest length of each file, in cells.
    pub cells: u64,
}

impl Size {
    /// Reads `SEED,THREADS,STEPS,MIB`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(',').map(|word| word.parse::<u64>().ok());
        let mut next = || words.next().flatten();
        let (seed, threads, steps, mib) = (next()?, next()?, next()?, next()?);
        let sound = words.next().is_none() && (1..=64).contains(&threads);
        (sound && (1..=1024).contains(&mib)).then_some(Self {
            seed,
            threads,
            steps,
            cells: mib * 2048,
        })
    }
}

/// One access, in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// read(2).
    Read {
        /// First cell.
        at: u64,
        /// How many.
        count: u64,
    },
    /// write(2).
    Write {
        /// First cell.
        at: u64,
        /// How many.
        count: u64,
        /// What is written.
        generation: u32,
    },
    /// Loads from a mapping.
    Load {
        /// First cell.
        at: u64,
        /// How many.
        count: u64,
    },
    /// Stores to a mapping.
    Store {
        /// First cell.
        at: u64,
        /// How many.
        count: u64,
        /// What is stored.
        generation: u32,
    },
    /// ftruncate(2).
    Truncate {
        /// The new length.
        cells: u64,
    },
    /// fallocate(2) of a hole that keeps the length.
    Punch {
        /// First cell.
        at: u64,
        /// How many.
        count: u64,
    },
    /// write(2) with O_APPEND. `at` is where it must go.
    Append {
        /// First cell.
        at: u64,
        /// How many.
        count: u64,
        /// What is written.
        generation: u32,
    },
    /// rename(2) to [`Thread::name`].
    Rename,
    /// unlink(2) while it is open and mapped; then a new file of `cells` as a hole.
    Replace {
        /// The new file's length.
        cells: u64,
    },
    /// fsync(2), or msync(2).
    Sync,
}

/// A step, and of which file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Of the thread's own file.
    Own(Step),
    /// Of the striped file: every `threads`-th cell from `at` on.
    Striped(Step),
    /// Of the shared file, in generation 1.
    Shared(Step),
}

/// One thread's steps and what must have come of them.
#[derive(Clone, Debug)]
pub struct Thread {
    size: Size,
    me: u64,
    random: u64,
    generation: u32,
    renames: u64,
    /// What its own file must hold, the steps that were drawn included.
    pub own: Cells,
    /// What the file held that was replaced last.
    pub replaced: Cells,
    /// As `own`, for its cells of the striped file.
    pub striped: Cells,
}

impl Thread {
    /// Thread `me` of them.
    pub fn new(size: Size, me: u64) -> Self {
        Self {
            size,
            me,
            random: mix(size.seed ^ mix(me)) | 1,
            generation: 0,
            renames: 0,
            own: Cells::new(me, size.cells),
            replaced: Cells::new(me, 0),
            striped: Cells::new(STRIPED, size.cells),
        }
    }

    /// Returns the number of its own file's name.
    pub fn name(&self) -> (u64, u64) {
        (self.me, self.renames)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % n.max(1)
    }

    /// Where, and how many of `cells`: mostly a few, at times up to 2 MiB.
    fn span(&mut self, cells: u64) -> (u64, u64) {
        let most = [8, 8, 64, 64, 64, 512, 4096][self.below(7) as usize];
        let count = 1 + self.below(most.min(cells.max(1)));
        // Half of them near the beginning, so that they meet.
        let reach = if self.below(2) == 0 { cells } else { cells / 8 };
        (self.below(reach.saturating_sub(count)), count)
    }

    /// Draws the next step and takes it into the model.
    pub fn draw(&mut self) -> Task {
        self.generation += 1;
        match self.below(10) {
            0..6 => Task::Own(self.next_own()),
            6..8 => Task::Striped(self.next_striped()),
            _ => Task::Shared(self.next_shared()),
        }
    }

    fn next_own(&mut self) -> Step {
        let (generation, most) = (self.generation, self.size.cells);
        let (at, count) = self.span(self.own.cells());
        let inside = at + count <= self.own.cells();
        let step = match self.below(40) {
            0..8 if inside => Step::Read { at, count },
            8..16 if inside => Step::Load { at, count },
            16..24 if inside => Step::Store {
                at,
                count,
                generation,
            },
            24..26 => {
                let least = if self.below(4) == 0 { 0 } else { most / 2 };
                let cells = least + self.below(most - least);
                Step::Truncate { cells }
            }
            26..28 if inside => Step::Punch { at, count },
            28..31 if self.own.cells() + count <= most => Step::Append {
                at: self.own.cells(),
                count,
                generation,
            },
            31..33 => Step::Rename,
            33 if self.below(4) == 0 => Step::Replace {
                cells: self.below(most),
            },
            34 => Step::Sync,
            _ if at + count <= most => Step::Write {
                at,
                count,
                generation,
            },
            _ => Step::Sync,
        };
        match step {
            Step::Write { at, count, .. }
            | Step::Store { at, count, .. }
            | Step::Append { at, count, .. } => self.own.set(at, count, 1, generation),
            Step::Punch { at, count } => self.own.set(at, count, 1, 0),
            Step::Truncate { cells } => self.own.resize(cells),
            Step::Replace { cells } => {
                let new = Cells::new(self.me, cells);
                self.replaced = core::mem::replace(&mut self.own, new);
                self.renames += 1;
            }
            Step::Rename => self.renames += 1,
            Step::Read { .. } | Step::Load { .. } | Step::Sync => {}
        }
        step
    }

    fn next_striped(&mut self) -> Step {
        let (generation, step) = (self.generation, self.size.threads);
        let (at, count) = self.span(self.size.cells / step);
        let (at, count) = (at * step + self.me, count.min(64));
        let end = at + (count - 1) * step;
        if end >= self.size.cells {
            return Step::Sync;
        }
        match self.below(8) {
            0 | 1 => Step::Read { at, count },
            2 | 3 => Step::Load { at, count },
            4 => {
                self.striped.set(at, count, step, 0);
                Step::Punch { at, count }
            }
            5 => {
                self.striped.set(at, count, step, generation);
                Step::Write {
                    at,
                    count,
                    generation,
                }
            }
            _ => {
                self.striped.set(at, count, step, generation);
                Step::Store {
                    at,
                    count,
                    generation,
                }
            }
        }
    }

    fn next_shared(&mut self) -> Step {
        let (at, count) = self.span(self.size.cells);
        let generation = 1;
        match self.below(20) {
            0..5 => Step::Read { at, count },
            5..10 => Step::Load { at, count },
            10..14 => Step::Store {
                at,
                count,
                generation,
            },
            14 | 15 => Step::Truncate {
                cells: self.below(self.size.cells),
            },
            16 => Step::Punch { at, count },
            17 => Step::Sync,
            _ => Step::Write {
                at,
                count,
                generation,
            },
        }
    }
}
