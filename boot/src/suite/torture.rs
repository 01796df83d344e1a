//! Threads that read, write, map, cut, punch, extend, rename and remove large
//! files through a small window; the host knows what must have come of it, see
//! `virtio_fs_manifest::torture`.

use alloc::{format, string::String, sync::Arc, vec, vec::Vec};

use virtio_fs::{
    Error,
    conn::DaxMode,
    dax::Costs,
    fs::{At, Changes, Durable, File, Process},
    wire::{FallocateMode, OpenFlags, RenameFlags},
};
use virtio_fs_manifest::{
    cells::{self, CELL},
    torture::{SHARED, STRIPED, Size, Step, TURNS, Task, Thread},
};

use super::{
    dax::{EAGER, end, mount_tag},
    tests::text,
};
use crate::{
    Kernel, check,
    cmdline::Key,
    console,
    mmap::{self, Access, AccessError, COUNTERS, Mapping, Sharing},
    println,
    selftest::Test,
    thread,
    virtiofs::{self, Host, Mounted},
};

/// The word that makes the kernel do it.
pub const TORTURE: Key = Key {
    name: "torture",
    help: "SEED,THREADS,STEPS,MIB: of what threads do to files of MIB, with test=torture",
    valid: |word| Size::parse(word).is_some(),
};

pub(super) const TESTS: &[Test] = &[Test {
    name: "torture: threads at large files in a small window",
    run,
}];

const DIR: &[u8] = b".torture";

fn run(kernel: &'static Kernel) -> Result<(), String> {
    let size = kernel.arguments.get(TORTURE.name).and_then(Size::parse);
    let size = size.ok_or("no size")?;
    let costs = if size.seed.is_multiple_of(2) {
        Costs::MEASURED
    } else {
        EAGER
    };
    // All devices share one directory; the first is the one for all but stripes.
    let mut mounts: Vec<Mounted> = Vec::new();
    for device in virtiofs::devices() {
        let tag = format!("{}", device.tag());
        mounts.push(mount_tag(Some(&tag), DaxMode::Always, costs)?);
    }
    let first = mounts.first().ok_or("no device")?.process();
    first.chdir(At::Cwd, DIR).map_err(text)?;
    for (name, cells) in [("striped", size.cells), ("shared", size.cells / 2)] {
        let file = create(&first, name.as_bytes())?;
        resize(&file, cells)?;
    }
    in_turns(&first, size)?;
    let mut running = Vec::new();
    for me in 0..size.threads {
        let other = mounts[me as usize % mounts.len()].process();
        other.chdir(At::Cwd, DIR).map_err(text)?;
        let process = mounts[0].process();
        process.chdir(At::Cwd, DIR).map_err(text)?;
        let work = move || Worker::new(size, me, process, &other)?.work();
        running.push(thread::spawn("torture", work).map_err(|error| format!("{error}"))?);
    }
    let results: Vec<_> = running.into_iter().map(thread::JoinHandle::join).collect();
    drop(first);
    let mut result: Result<(), String> = results.into_iter().collect();
    for (n, mounted) in mounts.into_iter().enumerate() {
        let connection = mounted.connection.clone();
        let ended = end(mounted);
        let c = connection.counters();
        println!(
            "# torture: mount {n}: requests={} maps={} reclaims={} copies={} fallbacks={} lost={} repairs={}",
            c.total_requests(),
            c.dax_maps.get(),
            c.dax_reclaims.get(),
            c.dax_copies.get(),
            c.dax_fallbacks.get(),
            c.dax_lost.get(),
            c.dax_repairs.get(),
        );
        result = result.and(ended);
    }
    println!(
        "# torture: faults={} large={} small={} taken_back={}",
        COUNTERS.faults.get(),
        COUNTERS.large_pages.get(),
        COUNTERS.small_pages.get(),
        COUNTERS.pages_taken_back.get(),
    );
    // The daemons' counters are read before they end.
    println!("# torture: over");
    while console::read() != b'\n' {}
    result.map_err(|why| format!("SEED={}: {why}", size.seed))
}

/// Guest and host see each other's writes through one mapping.
fn in_turns(process: &Process<Host>, size: Size) -> Result<(), String> {
    let file = create(process, b"turns")?;
    resize(&file, TURNS)?;
    let open = Open::new(file, size)?;
    let mut bytes = vec![0; (TURNS * CELL) as usize];
    for turn in 0..4 {
        for (cell, bytes) in bytes.chunks_mut(CELL as usize).enumerate() {
            cells::fill(size.seed, cell as u64, 2 * turn + 1, bytes);
        }
        let refused = COUNTERS.faults_refused.get();
        open.store(0, &bytes)?;
        let refused = COUNTERS.faults_refused.get() - refused;
        let faults = COUNTERS.faults.get();
        println!("# torture: turn {turn}");
        while console::read() != b'\n' {}
        open.mapping.read(0, &mut bytes).map_err(bus)?;
        let mut want = [0; CELL as usize];
        for (cell, bytes) in bytes.chunks(CELL as usize).enumerate() {
            cells::fill(size.seed, cell as u64, 2 * turn + 2, &mut want);
            check!(bytes == want, "turn {turn}: not what the host wrote");
        }
        let faults = COUNTERS.faults.get() - faults;
        check!(
            faults == 0 || refused > 0,
            "{faults} faults to see what the host wrote"
        );
    }
    process.unlink(At::Cwd, b"turns").map_err(text)
}

fn create(process: &Process<Host>, name: &[u8]) -> Result<Arc<File<Host>>, String> {
    let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
    open(process, name, flags).map_err(text)
}

fn open(process: &Process<Host>, name: &[u8], flags: OpenFlags) -> Result<Arc<File<Host>>, Error> {
    let fd = process.open(At::Cwd, name, flags, 0o644)?;
    let file = process.file(fd);
    process.close(fd)?;
    file
}

fn resize(file: &File<Host>, cells: u64) -> Result<(), String> {
    let changes = Changes {
        size: Some(cells * CELL),
        ..Changes::default()
    };
    file.set_metadata(&changes).map(drop).map_err(text)
}

/// A file and all of it mapped, also what may come behind its end.
struct Open {
    file: Arc<File<Host>>,
    mapping: Mapping,
}

impl Open {
    fn new(file: Arc<File<Host>>, size: Size) -> Result<Self, String> {
        let len = size.cells * CELL;
        let mapping = mmap::map(&file, 0, len, Sharing::Shared, Access::ReadWrite);
        Ok(Self {
            mapping: mapping.map_err(text)?,
            file,
        })
    }

    fn read(&self, at: u64, buf: &mut [u8]) -> Result<usize, String> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(at * CELL + done as u64, &mut buf[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) => return Err(text(error)),
            }
        }
        Ok(done)
    }

    fn write(&self, at: u64, data: &[u8]) -> Result<(), String> {
        let mut done = 0;
        while done < data.len() {
            let offset = at * CELL + done as u64;
            done += self.file.write_at(offset, &data[done..]).map_err(text)?;
        }
        Ok(())
    }

    fn store(&self, at: u64, data: &[u8]) -> Result<(), String> {
        match self.mapping.write(at * CELL, data) {
            // The last page, which ends within the file; or the server refused.
            Err(AccessError::Unmappable) => self.write(at, data),
            result => result.map_err(bus),
        }
    }

    fn punch(&self, at: u64, count: u64) -> Result<(), String> {
        let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        self.file
            .allocate(at * CELL, count * CELL, mode)
            .map_err(text)
    }

    fn sync(&self, step: usize) -> Result<(), String> {
        if step.is_multiple_of(2) {
            self.mapping.sync().map(drop).map_err(text)
        } else {
            self.file.sync(Durable::All).map_err(text)
        }
    }
}

struct Worker {
    size: Size,
    me: u64,
    process: Process<Host>,
    plan: Thread,
    own: Open,
    own_name: String,
    striped: Open,
    shared: Open,
    buf: Vec<u8>,
    step: usize,
}

fn name_of((thread, number): (u64, u64)) -> String {
    format!("own-{thread}-{number}")
}

impl Worker {
    fn new(
        size: Size,
        me: u64,
        process: Process<Host>,
        other: &Process<Host>,
    ) -> Result<Self, String> {
        let plan = Thread::new(size, me);
        let own_name = name_of(plan.name());
        let own = create(&process, own_name.as_bytes())?;
        resize(&own, plan.own.cells())?;
        let rdwr = OpenFlags::RDWR;
        Ok(Self {
            own: Open::new(own, size)?,
            striped: Open::new(open(other, b"striped", rdwr).map_err(text)?, size)?,
            shared: Open::new(open(&process, b"shared", rdwr).map_err(text)?, size)?,
            size,
            me,
            process,
            plan,
            own_name,
            buf: Vec::new(),
            step: 0,
        })
    }

    fn work(mut self) -> Result<(), String> {
        for step in 0..self.size.steps as usize {
            self.step = step;
            let task = self.plan.draw();
            log::debug!("thread {}, step {step}: {task:?}", self.me);
            let result = match task {
                Task::Own(step) => self.own(step),
                Task::Striped(step) => self.striped(step),
                Task::Shared(step) => self.shared(step),
            };
            result.map_err(|why| format!("thread {}, step {step}, {task:?}: {why}", self.me))?;
        }
        Ok(())
    }

    /// Makes the buffer as long as so many cells and fills them, for cells from
    /// `at` on.
    fn fill(&mut self, file: u64, at: u64, count: u64, generation: u32) {
        self.room(count);
        for (n, cell) in self.buf.chunks_mut(CELL as usize).enumerate() {
            cells::fill(file, at + n as u64, generation, cell);
        }
    }

    fn room(&mut self, count: u64) {
        self.buf.resize((count * CELL) as usize, 0);
    }

    fn own(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Read { at, count } => {
                self.room(count);
                let n = self.own.read(at, &mut self.buf)?;
                whole(n, &self.buf)?;
                self.plan.own.check(at, &self.buf).map_err(differs)
            }
            Step::Load { at, count } => {
                self.room(count);
                self.own
                    .mapping
                    .read(at * CELL, &mut self.buf)
                    .map_err(bus)?;
                self.plan.own.check(at, &self.buf).map_err(differs)
            }
            Step::Write {
                at,
                count,
                generation,
            } => {
                self.fill(self.me, at, count, generation);
                self.own.write(at, &self.buf)
            }
            Step::Store {
                at,
                count,
                generation,
            } => {
                self.fill(self.me, at, count, generation);
                self.own.store(at, &self.buf)
            }
            Step::Append {
                at,
                count,
                generation,
            } => {
                self.fill(self.me, at, count, generation);
                let flags = OpenFlags::WRONLY | OpenFlags::APPEND;
                let name = self.own_name.as_bytes();
                let file = open(&self.process, name, flags).map_err(text)?;
                let mut done = 0;
                while done < self.buf.len() {
                    done += file.write_at(0, &self.buf[done..]).map_err(text)?;
                }
                Ok(())
            }
            Step::Truncate { cells } => resize(&self.own.file, cells),
            Step::Punch { at, count } => self.own.punch(at, count),
            Step::Rename => {
                let new = name_of(self.plan.name());
                let (from, to) = (self.own_name.as_bytes(), new.as_bytes());
                self.process
                    .rename(At::Cwd, from, At::Cwd, to, RenameFlags::empty())
                    .map_err(text)?;
                self.own_name = new;
                Ok(())
            }
            Step::Replace { cells } => {
                let name = self.own_name.as_bytes();
                self.process.unlink(At::Cwd, name).map_err(text)?;
                // Nobody can find it, but it is there.
                let old = &self.plan.replaced;
                let count = old.cells().min(64);
                self.buf.resize((count * CELL) as usize, 0);
                self.own.mapping.read(0, &mut self.buf).map_err(bus)?;
                old.check(0, &self.buf).map_err(differs)?;
                self.own_name = name_of(self.plan.name());
                let new = create(&self.process, self.own_name.as_bytes())?;
                resize(&new, cells)?;
                self.own = Open::new(new, self.size)?;
                Ok(())
            }
            Step::Sync => self.own.sync(self.step),
        }
    }

    /// Single cells, with those of other threads between them.
    fn striped(&mut self, step: Step) -> Result<(), String> {
        let (at, count) = match step {
            Step::Read { at, count }
            | Step::Load { at, count }
            | Step::Punch { at, count }
            | Step::Write { at, count, .. }
            | Step::Store { at, count, .. } => (at, count),
            _ => return self.striped.sync(self.step),
        };
        for n in 0..count {
            let cell = at + n * self.size.threads;
            self.room(1);
            match step {
                Step::Read { .. } => {
                    let n = self.striped.read(cell, &mut self.buf)?;
                    whole(n, &self.buf)?;
                    self.plan.striped.check(cell, &self.buf).map_err(differs)?;
                }
                Step::Punch { .. } => self.striped.punch(cell, 1)?,
                Step::Write { generation, .. } => {
                    self.fill(STRIPED, cell, 1, generation);
                    self.striped.write(cell, &self.buf)?;
                }
                Step::Store { generation, .. } => {
                    self.fill(STRIPED, cell, 1, generation);
                    self.striped.store(cell, &self.buf)?;
                }
                _ => {
                    let mapping = &self.striped.mapping;
                    mapping.read(cell * CELL, &mut self.buf).map_err(bus)?;
                    self.plan.striped.check(cell, &self.buf).map_err(differs)?;
                }
            }
        }
        Ok(())
    }

    /// Where anybody may have cut the file meanwhile.
    fn shared(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Read { at, count } => {
                self.room(count);
                let n = self.shared.read(at, &mut self.buf)?;
                cells::check_loosely(SHARED, at, &self.buf[..n]).map_err(differs)
            }
            Step::Load { at, count } => {
                self.room(count);
                self.buf.fill(0);
                match self.shared.mapping.read(at * CELL, &mut self.buf) {
                    Ok(()) | Err(AccessError::BeyondEnd) => {}
                    Err(error) => return Err(bus(error)),
                }
                cells::check_loosely(SHARED, at, &self.buf).map_err(differs)
            }
            Step::Write { at, count, .. } => {
                self.fill(SHARED, at, count, 1);
                self.shared.write(at, &self.buf)
            }
            Step::Store { at, count, .. } => {
                self.fill(SHARED, at, count, 1);
                match self.shared.mapping.write(at * CELL, &self.buf) {
                    Ok(()) | Err(AccessError::BeyondEnd | AccessError::Unmappable) => Ok(()),
                    Err(error) => Err(bus(error)),
                }
            }
            Step::Truncate { cells } => resize(&self.shared.file, cells),
            Step::Punch { at, count } => self.shared.punch(at, count),
            _ => self.shared.sync(self.step),
        }
    }
}

fn whole(n: usize, buf: &[u8]) -> Result<(), String> {
    if n == buf.len() {
        return Ok(());
    }
    Err(format!("{n} bytes of {}", buf.len()))
}

fn differs(byte: u64) -> String {
    format!("byte {byte} is another one than was written")
}

fn bus(error: AccessError) -> String {
    format!("{error}")
}
