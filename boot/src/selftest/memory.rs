//! Tests of memory: frames, heap, mappings, the memory functions' speed.

use alloc::{string::String, vec, vec::Vec};

use core::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::Test;
use crate::{
    Kernel, check, clock,
    memory::{
        self, LINEAR, MAPPINGS, PAGE, frames, heap, image,
        paging::{self, Flags},
        translate,
    },
    println, thread, trap,
};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "frames: random runs are disjoint and come back",
        run: random_runs,
    },
    Test {
        name: "frames: all of memory can be used",
        run: all_memory,
    },
    Test {
        name: "heap: random blocks keep their contents",
        run: random_blocks,
    },
    Test {
        name: "heap: allocations are counted",
        run: counting,
    },
    Test {
        name: "paging: code and constants cannot be written anywhere",
        run: protection,
    },
    Test {
        name: "paging: a fault is served by a thread that may block",
        run: page_faults,
    },
    Test {
        name: "memory: bandwidth of copy and fill",
        run: bandwidth,
    },
];

/// A generator of numbers for tests (Knuth's linear congruential one).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % end
    }
}

fn random_runs(_: &'static Kernel) -> Result<(), String> {
    let seed = 0xf4a3_e500;
    let mut random = Random(seed);
    let before = frames::available();
    let mut runs: Vec<(u64, usize, u64)> = Vec::with_capacity(512);
    for step in 0..4000u64 {
        if runs.len() < 512 && random.below(2) == 0 {
            let order = random.below(7);
            let count = 1 + random.below(1 << order);
            let Some(addr) = frames::allocate(count) else {
                continue;
            };
            for page in 0..count as u64 {
                // SAFETY: the run is ours, and mapped in the linear map.
                unsafe { memory::linear(addr + page * PAGE).cast::<u64>().write(step) };
            }
            runs.push((addr, count, step));
        } else if !runs.is_empty() {
            let (addr, count, mark) = runs.swap_remove(random.below(runs.len()));
            for page in 0..count as u64 {
                // SAFETY: as above.
                let found = unsafe { memory::linear(addr + page * PAGE).cast::<u64>().read() };
                check!(
                    found == mark,
                    "seed {seed:#x}: frame {addr:#x}+{page} was written by another"
                );
            }
            // SAFETY: it came from `allocate` and is forgotten here.
            unsafe { frames::free(addr, count) };
        }
    }
    for (addr, count, _) in runs.drain(..) {
        // SAFETY: as above.
        unsafe { frames::free(addr, count) };
    }
    drop(runs);
    let after = frames::available();
    check!(after >= before, "{} frames were lost", before - after);
    Ok(())
}

fn all_memory(kernel: &'static Kernel) -> Result<(), String> {
    const SAMPLE: usize = 16;
    let before = frames::available();
    let total = (kernel.memory.usable_bytes() / PAGE) as usize;
    check!(
        before > total * 3 / 4,
        "only {before} of {total} frames are free"
    );
    let mut highest = 0;
    let mut runs = Vec::with_capacity(4096);
    for size in [512, 1] {
        while runs.len() < runs.capacity() {
            let Some(addr) = frames::allocate(size) else {
                break;
            };
            // Some of them only: the host makes its pages when they are touched.
            if runs.len().is_multiple_of(SAMPLE) {
                // SAFETY: the run is ours, and mapped in the linear map.
                unsafe { memory::linear(addr).cast::<u64>().write_volatile(addr) };
            }
            highest = highest.max(addr);
            runs.push((addr, size));
        }
    }
    let taken: usize = runs.iter().map(|run| run.1).sum();
    for (at, (addr, size)) in runs.into_iter().enumerate() {
        let found = if at.is_multiple_of(SAMPLE) {
            // SAFETY: the run is ours until it is freed just below.
            unsafe { memory::linear(addr).cast::<u64>().read_volatile() }
        } else {
            addr
        };
        // SAFETY: it came from `allocate` and is forgotten here.
        unsafe { frames::free(addr, size) };
        check!(
            found == addr,
            "memory at {addr:#x} reads back as {found:#x}"
        );
    }
    let end = kernel.memory.usable_end();
    check!(
        taken > before / 2,
        "only {taken} of {before} frames could be taken"
    );
    check!(
        highest >= end - end / 4,
        "nothing above {highest:#x} of {end:#x}"
    );
    check!(frames::available() >= before, "frames were lost");
    Ok(())
}

fn random_blocks(_: &'static Kernel) -> Result<(), String> {
    let seed = 0x4ea9_0001;
    let mut random = Random(seed);
    let before = heap::in_use();
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    for step in 0..20_000usize {
        match random.below(3) {
            0 if blocks.len() < 400 => {
                let order = random.below(18);
                let len = 1 + random.below(1 << order);
                blocks.push(vec![step as u8; len]);
            }
            1 if !blocks.is_empty() => {
                let at = random.below(blocks.len());
                let block = &mut blocks[at];
                let (mark, extra) = (block[0], random.below(5000));
                block.resize(block.len() + extra, mark);
            }
            _ if !blocks.is_empty() => {
                let block = blocks.swap_remove(random.below(blocks.len()));
                let intact = block.iter().all(|&byte| byte == block[0]);
                check!(
                    intact,
                    "seed {seed:#x}, step {step}: a block was overwritten"
                );
            }
            _ => {}
        }
    }
    drop(blocks);
    check!(
        heap::in_use() == before,
        "{} bytes were lost",
        heap::in_use() - before
    );
    Ok(())
}

fn counting(_: &'static Kernel) -> Result<(), String> {
    let before = heap::allocations();
    let mut sum = 0u64;
    for i in 0..1000 {
        sum = core::hint::black_box(sum + i);
    }
    check!(
        heap::allocations() == before,
        "a loop of additions allocated"
    );
    drop(core::hint::black_box(vec![1u8, 2]));
    check!(
        heap::allocations() == before + 1,
        "one allocation was not counted as one"
    );
    Ok(())
}

fn protection(_: &'static Kernel) -> Result<(), String> {
    check!(translate(0).is_none(), "page 0 is mapped");
    for range in [image::text(), image::rodata()] {
        for addr in range.step_by(PAGE as usize) {
            for virt in [addr, addr + LINEAR] {
                check!(
                    translate(virt) == Some(addr),
                    "{virt:#x} is not the image's page"
                );
                let flags = paging::flags(virt).unwrap_or(Flags::all());
                let writable = flags.contains(Flags::WRITABLE);
                check!(!writable, "{virt:#x} can be written: {flags:?}");
            }
        }
    }
    for virt in [image::data().start, image::text().start + LINEAR] {
        let flags = paging::flags(virt).unwrap_or(Flags::empty());
        let barred = flags.contains(Flags::NO_EXECUTE);
        check!(barred, "{virt:#x} can be executed: {flags:?}");
    }
    Ok(())
}

fn page_faults(_: &'static Kernel) -> Result<(), String> {
    const PAGES: u64 = 16;
    static SERVED: AtomicU64 = AtomicU64::new(0);
    let start = MAPPINGS.end - PAGES * PAGE;
    let before = trap::replace_page_fault_handler(Some(|addr, _| {
        thread::sleep(Duration::from_millis(1));
        let Some(frame) = frames::allocate_zeroed(1) else {
            return false;
        };
        let flags = Flags::PRESENT | Flags::WRITABLE | Flags::NO_EXECUTE;
        // SAFETY: the address is in MAPPINGS, and the frame is fresh.
        let mapped = unsafe { paging::map(addr / PAGE * PAGE, frame, PAGE, flags) };
        SERVED.fetch_add(1, Ordering::Relaxed);
        mapped.is_ok()
    }));
    let mut sum = 0.0;
    for page in 0..2 * PAGES {
        let at = (start + page / 2 * PAGE) as *mut f64;
        // SAFETY: the handler maps a zeroed page wherever nothing is mapped.
        unsafe { at.add(page as usize).write_volatile(0.5) };
        // SAFETY: as above.
        sum += unsafe { at.add(page as usize).read_volatile() };
    }
    trap::replace_page_fault_handler(before);
    for page in 0..PAGES {
        let virt = start + page * PAGE;
        let frame = translate(virt).ok_or("a page is not mapped")?;
        // SAFETY: nobody refers to the page any more.
        unsafe { paging::unmap(virt) };
        paging::shoot_down();
        // SAFETY: the handler took it, and now it is mapped nowhere.
        unsafe { frames::free(frame, 1) };
    }
    let served = SERVED.load(Ordering::Relaxed);
    check!(served == PAGES, "{served} faults for {PAGES} pages");
    check!(sum == PAGES as f64, "the sum came out as {sum}");
    Ok(())
}

fn bandwidth(_: &'static Kernel) -> Result<(), String> {
    const LEN: usize = 1 << 20;
    const ROUNDS: u32 = 32;
    let mut from = vec![7u8; LEN];
    let mut to = vec![0u8; LEN];
    let rate = |time: core::time::Duration| {
        (LEN as u128 * u128::from(ROUNDS) * 1000 / time.as_nanos().max(1)) as u64
    };
    let start = clock::now();
    for _ in 0..ROUNDS {
        core::hint::black_box(&mut to).copy_from_slice(core::hint::black_box(&from));
    }
    let copy = rate(clock::now() - start);
    let start = clock::now();
    for _ in 0..ROUNDS {
        core::hint::black_box(&mut from).fill(9);
    }
    let fill = rate(clock::now() - start);
    println!("copy {copy} MB/s, fill {fill} MB/s");
    check!(to.iter().all(|&byte| byte == 7), "the copy is not a copy");
    check!(
        from.iter().all(|&byte| byte == 9),
        "the fill left something"
    );
    Ok(())
}
