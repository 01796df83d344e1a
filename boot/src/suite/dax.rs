//! Tests of the DAX window on a real share, and what it costs and gains.

use alloc::{format, string::String, sync::Arc, vec, vec::Vec};
use core::{hint::black_box, time::Duration};

use virtio_fs::{
    conn::{Config, DaxMode},
    dax::Costs,
    device::Transport,
    fs::{At, Changes, Durable, File, MountOptions, Process},
    wire::{FallocateMode, Opcode, OpenFlags},
};

use super::tests::{DIR, clear, text};
use crate::{
    Kernel, check, clock, cpu, println,
    selftest::Test,
    thread,
    virtiofs::{self, Host, Mounted},
};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "DAX: threads change files through the window, and READ sees the same",
        run: churn,
    },
    Test {
        name: "DAX: what fits the window sends no request, and what does not sends few",
        run: figures,
    },
];

pub(super) const MIB: usize = 1 << 20;
pub(super) const PAGE: usize = 4096;
/// Costs that make every access worth a mapping.
pub(super) const EAGER: Costs = Costs {
    map: 1000,
    request: 10_000_000,
    request_kib: 1000,
    access: 0,
    access_kib: 0,
};

/// Returns whether any device has a window.
pub(super) fn has_window() -> bool {
    virtiofs::devices()
        .iter()
        .any(|device| device.transport().shared_memory(0).is_some())
}

pub(super) fn mount(kernel: &Kernel, dax: DaxMode, costs: Costs) -> Result<Mounted, String> {
    mount_tag(kernel.arguments.get("tag"), dax, costs)
}

pub(super) fn mount_tag(
    tag: Option<&str>,
    dax: DaxMode,
    dax_costs: Costs,
) -> Result<Mounted, String> {
    let config = Config {
        dax,
        ..Config::default()
    };
    let options = MountOptions {
        dax_costs,
        ..MountOptions::default()
    };
    virtiofs::mount(tag, config, options)
}

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Ends the mount and checks that nothing of the window is held or lost.
pub(super) fn end(mounted: Mounted) -> Result<(), String> {
    let fs = mounted.mount.file_system().clone();
    let dax = fs.dax().ok_or("the mount has no window")?;
    let counters = fs.connection().counters();
    // What was lost is found again, and the worker may be unmapping ahead of need.
    let limit = clock::now() + Duration::from_secs(30);
    let settled = |totals: virtio_fs::dax::Totals| totals.unknown + totals.busy == 0;
    while !settled(dax.totals()) && clock::now() < limit {
        let _ = fs.work();
        thread::sleep(Duration::from_millis(5));
    }
    let totals = dax.totals();
    check!(
        totals.pins == 0 && totals.unknown == 0 && totals.busy == 0,
        "held or lost: {totals:?}"
    );
    mounted.unmount();
    let totals = dax.totals();
    check!(totals.pins == 0, "held: {totals:?}");
    if counters.dax_lost.get() > 0 {
        // Unmapping may have failed at the very end, before the reset.
        return Ok(());
    }
    check!(
        totals.free == dax.geometry().count(),
        "left behind: {totals:?}"
    );
    check!(
        counters.dax_maps.get() == counters.dax_unmaps.get(),
        "{} maps, {} unmaps",
        counters.dax_maps.get(),
        counters.dax_unmaps.get()
    );
    Ok(())
}

/// Changes a file at random and returns what must be in it then.
fn change(process: &Process<Host>, name: &[u8], seed: u64) -> Result<Vec<u8>, String> {
    const SIZE: u64 = 5 << 20;
    let mut random = Random(seed);
    let mut model = vec![0; SIZE as usize];
    random.fill(&mut model);
    let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
    let fd = process.open(At::Cwd, name, flags, 0o644).map_err(text)?;
    process.write_all(fd, &model).map_err(text)?;
    let mut buf = vec![0; MIB];
    for step in 0..150 {
        let at = random.below(SIZE);
        let most = if step % 3 == 0 { MIB } else { 16 * 1024 };
        let len = 1 + random.below(most as u64) as usize;
        let end = model.len().min(at as usize + len);
        match random.below(20) {
            0..10 => {
                let n = process.pread(fd, &mut buf[..len], at).map_err(text)?;
                let want = model.get(at as usize..end).unwrap_or(&[]);
                check!(
                    buf[..n] == *want,
                    "seed {seed:#x} step {step}: read {len} at {at}"
                );
            }
            10..17 => {
                random.fill(&mut buf[..len]);
                let n = process.pwrite(fd, &buf[..len], at).map_err(text)?;
                let end = at as usize + n;
                if end > model.len() {
                    model.resize(end, 0);
                }
                model[at as usize..end].copy_from_slice(&buf[..n]);
            }
            17 => {
                let changes = Changes {
                    size: Some(at),
                    ..Changes::default()
                };
                process.fset(fd, &changes).map_err(text)?;
                model.resize(at as usize, 0);
            }
            18 => {
                let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                let file = process.file(fd).map_err(text)?;
                file.allocate(at, len as u64, mode).map_err(text)?;
                if let Some(hole) = model.get_mut(at as usize..end) {
                    hole.fill(0);
                }
            }
            _ => process.fsync(fd, Durable::Data).map_err(text)?,
        }
    }
    process.close(fd).map_err(text)?;
    Ok(model)
}

fn churn(kernel: &'static Kernel) -> Result<(), String> {
    let seed = clock::now().as_nanos() as u64 | 1;
    let mounted = mount(kernel, DaxMode::Always, EAGER)?;
    clear(&mounted.process(), DIR);
    mounted.process().mkdir(At::Cwd, DIR, 0o755).map_err(text)?;
    let count = cpu::online().count().max(2) as u64;
    let mut running = Vec::new();
    for n in 0..count {
        let process = mounted.process();
        let work = move || -> Result<Vec<u8>, String> {
            process.chdir(At::Cwd, DIR).map_err(text)?;
            change(&process, format!("dax{n}").as_bytes(), seed + 2 * n)
        };
        running.push(thread::spawn("worker", work).map_err(|error| format!("{error}"))?);
    }
    let models: Result<Vec<_>, String> = running.into_iter().map(|t| t.join()).collect();
    let models = models?;
    let copies = mounted.connection.counters().dax_copies.get();
    check!(copies > 20, "only {copies} accesses through the window");
    end(mounted)?;
    // What the host has, by another way.
    let mounted = mount(kernel, DaxMode::Never, EAGER)?;
    let process = mounted.process();
    for (n, model) in models.iter().enumerate() {
        let path = [DIR, format!("/dax{n}").as_bytes()].concat();
        let fd = process
            .open(At::Cwd, &path, OpenFlags::RDONLY, 0)
            .map_err(text)?;
        let mut buf = vec![0; model.len() + 1];
        let mut got = 0;
        loop {
            match process.read(fd, &mut buf[got..]).map_err(text)? {
                0 => break,
                n => got += n,
            }
        }
        check!(buf[..got] == model[..], "seed {seed:#x}: file {n} differs");
        process.close(fd).map_err(text)?;
    }
    clear(&process, DIR);
    drop(process);
    mounted.unmount();
    Ok(())
}

/// Runs `work` and prints what it took.
fn measure(
    mounted: &Mounted,
    name: &str,
    ops: usize,
    bytes: usize,
    work: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let counters = mounted.connection.counters();
    let count = || {
        (
            counters.total_requests(),
            counters.dax_maps.get(),
            counters.requests(Opcode::Read.to_wire()),
        )
    };
    let (before, start) = (count(), clock::now());
    work()?;
    let (time, after) = (clock::now() - start, count());
    println!(
        "  {name:24} {:9.3} ms/op {:8.1} MB/s {:6} requests {:5} maps {:6} reads",
        time.as_secs_f64() * 1e3 / ops as f64,
        bytes as f64 / 1e6 / time.as_secs_f64(),
        after.0 - before.0,
        after.1 - before.1,
        after.2 - before.2,
    );
    Ok(())
}

fn make(mounted: &Mounted, name: &str, len: usize) -> Result<Arc<File<Host>>, String> {
    let process = mounted.process();
    let path = [DIR, b"/", name.as_bytes()].concat();
    let flags = OpenFlags::RDWR | OpenFlags::CREAT;
    let fd = process.open(At::Cwd, &path, flags, 0o644).map_err(text)?;
    let data: Vec<u8> = (0..MIB).map(|i| (i * 131 + 7) as u8).collect();
    for at in (0..len).step_by(MIB) {
        process.pwrite(fd, &data, at as u64).map_err(text)?;
    }
    let file = process.file(fd).map_err(text)?;
    process.close(fd).map_err(text)?;
    Ok(file)
}

fn in_order(file: &File<Host>, len: usize, step: usize) -> Result<(), String> {
    let mut buf = vec![0; step];
    for at in (0..len).step_by(step) {
        let n = file.read_at(at as u64, &mut buf).map_err(text)?;
        check!(n == step && buf[0] == (at * 131 + 7) as u8, "at {at}");
    }
    Ok(())
}

fn at_random(file: &File<Host>, len: usize, count: usize) -> Result<(), String> {
    let (mut random, mut buf) = (Random(0x9E37_79B9_7F4A_7C15), vec![0; PAGE]);
    for _ in 0..count {
        let at = random.below((len / PAGE) as u64) as usize * PAGE;
        let n = file.read_at(at as u64, &mut buf).map_err(text)?;
        check!(n == PAGE && buf[0] == (at * 131 + 7) as u8, "at {at}");
    }
    Ok(())
}

/// Times copies through the window beside copies of the same blocks in memory, and
/// prints what part of their speed is left. Laps of both kinds, some hundred
/// microseconds each, take turns, and of each lap the best counts: others use the
/// machine as well.
fn beside_memory(file: &File<Host>, len: usize) -> Result<(), String> {
    const ROUNDS: usize = 12;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let pages = (0..512).map(|_| random.below((len / PAGE) as u64) as usize * PAGE);
    let blocks = [
        ("4 KiB at random", PAGE, 128, pages.collect::<Vec<_>>()),
        (
            "1 MiB in order",
            MIB,
            1,
            (0..len.min(4 * MIB)).step_by(MIB).collect(),
        ),
    ];
    let mut memory = vec![1; len];
    for (what, size, lap, ats) in blocks {
        let mut buf = vec![1; size];
        let mut sums = [Duration::ZERO; 4];
        for ats in ats.chunks(lap) {
            let mut best = [Duration::MAX; 4];
            for _ in 0..ROUNDS {
                let mut begun = clock::now();
                let mut lap = |best: &mut Duration| {
                    *best = (*best).min(clock::now() - begun);
                    begun = clock::now();
                };
                for &at in ats {
                    file.read_at(at as u64, &mut buf).map_err(text)?;
                }
                lap(&mut best[0]);
                for &at in ats {
                    buf.copy_from_slice(&memory[at..at + size]);
                    black_box(&mut buf);
                }
                lap(&mut best[1]);
                for &at in ats {
                    file.write_at(at as u64, &buf).map_err(text)?;
                }
                lap(&mut best[2]);
                for &at in ats {
                    memory[at..at + size].copy_from_slice(&buf);
                    black_box(&mut memory);
                }
                lap(&mut best[3]);
            }
            for (sum, best) in sums.iter_mut().zip(best) {
                *sum += best;
            }
        }
        let us = sums.map(|time| time.as_secs_f64() * 1e6 / ats.len() as f64);
        println!(
            "  {what}: read {:.2} us, {:.2} of the speed of memory; write {:.2} us, {:.2}",
            us[0],
            us[1] / us[0],
            us[2],
            us[3] / us[2],
        );
    }
    Ok(())
}

fn figures(kernel: &'static Kernel) -> Result<(), String> {
    let mounted = mount(kernel, DaxMode::Always, Costs::MEASURED)?;
    let window = {
        let geometry = *mounted
            .mount
            .file_system()
            .dax()
            .ok_or("no window")?
            .geometry();
        geometry.range_size() as usize * geometry.count()
    };
    if window > 64 * MIB {
        println!("  left out: the window is larger than the files that fit here");
        return end(mounted);
    }
    clear(&mounted.process(), DIR);
    mounted.process().mkdir(At::Cwd, DIR, 0o755).map_err(text)?;
    let (fit, twice, four) = ((window / 2).max(2 * MIB), 2 * window, 4 * window);
    let seq = make(&mounted, "seq", twice)?;
    let small = make(&mounted, "fit", fit)?;
    let big = make(&mounted, "big", four)?;
    let over = make(&mounted, "over", window)?;
    for _ in 0..2 {
        println!("  window of {} MiB", window / MIB);
        measure(&mounted, "seqread_1m", twice / MIB, twice, || {
            in_order(&seq, twice, MIB)
        })?;
        measure(&mounted, "seqread_4k", twice / PAGE, twice, || {
            in_order(&seq, twice, PAGE)
        })?;
        in_order(&small, fit, MIB)?;
        measure(&mounted, "reread_1m", fit / MIB, fit, || {
            in_order(&small, fit, MIB)
        })?;
        measure(&mounted, "randread_4k", 4096, 4096 * PAGE, || {
            at_random(&small, fit, 4096)
        })?;
        measure(&mounted, "randread_4k_thrash", 4096, 4096 * PAGE, || {
            at_random(&big, four, 4096)
        })?;
        measure(&mounted, "seqwrite_1m", window / MIB, window, || {
            let data = vec![0x5a; MIB];
            for at in (0..window).step_by(MIB) {
                over.write_at(at as u64, &data).map_err(text)?;
            }
            over.sync(Durable::All).map_err(text)
        })?;
    }
    drop((seq, small, big, over));
    end(mounted)?;
    // All of it mapped, and writable: what a copy costs beside one in memory.
    let mounted = mount(kernel, DaxMode::Always, EAGER)?;
    let small = make(&mounted, "fit", fit)?;
    for _ in 0..3 {
        let data = vec![0x5a; MIB];
        for at in (0..fit).step_by(MIB) {
            small.write_at(at as u64, &data).map_err(text)?;
        }
    }
    small.inode().revalidate().map_err(text)?;
    let counters = mounted.connection.counters();
    let before = (counters.total_requests(), counters.dax_maps.get());
    beside_memory(&small, fit)?;
    let requests = counters.total_requests() - before.0;
    let maps = counters.dax_maps.get() - before.1;
    drop(small);
    clear(&mounted.process(), DIR);
    end(mounted)?;
    // An attribute may expire in the middle.
    check!(
        maps == 0 && requests <= 8,
        "{requests} requests where everything is mapped"
    );
    Ok(())
}
