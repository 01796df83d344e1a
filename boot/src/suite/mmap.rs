//! Tests of mapped files on a real share with a DAX window.

use alloc::{format, string::String, sync::Arc, vec, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};

use virtio_fs::{
    Errno,
    conn::DaxMode,
    fs::{At, Changes, Durable, File, Process},
    wire::{FallocateMode, Opcode, OpenFlags},
};

use super::{
    dax::{EAGER, MIB, PAGE, Random, end, mount},
    tests::{DIR, clear, text},
};
use crate::{
    Kernel, check, clock, cpu,
    memory::entries::LARGE,
    mmap::{self, Access, AccessError, COUNTERS, Mapping, Sharing},
    println,
    selftest::Test,
    thread,
    virtiofs::{Host, Mounted},
};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "DAX mmap: loads see the file, by pages of both sizes",
        run: loads,
    },
    Test {
        name: "DAX mmap: stores are the file's own, and a page that was read is upgraded",
        run: stores,
    },
    Test {
        name: "DAX mmap: private stores stay, and their frames come back",
        run: private,
    },
    Test {
        name: "DAX mmap: an access that cannot be served is an error, not the end",
        run: refused,
    },
    Test {
        name: "DAX mmap: truncation and holes reach who has mapped the file",
        run: cut,
    },
    Test {
        name: "DAX mmap: msync makes stores durable that nobody noticed",
        run: durable,
    },
    Test {
        name: "DAX mmap: CPUs load and store in a file that the window cannot hold",
        run: reclaim,
    },
    Test {
        name: "DAX mmap: without a window files are mapped privately",
        run: without_window,
    },
    Test {
        name: "DAX mmap: what a page costs",
        run: costs,
    },
];

type Outcome = Result<(), String>;

/// Runs `work` in an empty directory on a mount that maps whatever it can, and
/// checks that nothing is left of it.
fn with_mount(
    kernel: &'static Kernel,
    work: impl FnOnce(&Mounted, &Process<Host>) -> Outcome,
) -> Outcome {
    let mounted = mount(kernel, DaxMode::Always, EAGER)?;
    let process = mounted.process();
    clear(&process, DIR);
    process.mkdir(At::Cwd, DIR, 0o755).map_err(text)?;
    process.chdir(At::Cwd, DIR).map_err(text)?;
    let result = work(&mounted, &process);
    process.chdir(At::Cwd, b"/").map_err(text)?;
    clear(&process, DIR);
    drop(process);
    let ended = end(mounted);
    result.and(ended)
}

/// Makes a file with these bytes.
fn make(process: &Process<Host>, name: &[u8], data: &[u8]) -> Result<Arc<File<Host>>, String> {
    let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::TRUNC;
    let fd = process.open(At::Cwd, name, flags, 0o644).map_err(text)?;
    process.write_all(fd, data).map_err(text)?;
    let file = process.file(fd).map_err(text)?;
    process.close(fd).map_err(text)?;
    Ok(file)
}

fn random(len: usize, seed: u64) -> Vec<u8> {
    let mut data = vec![0; len];
    Random(seed).fill(&mut data);
    data
}

fn shared(file: &Arc<File<Host>>, len: usize, access: Access) -> Result<Mapping, String> {
    mmap::map(file, 0, len as u64, Sharing::Shared, access).map_err(text)
}

fn bus(error: AccessError) -> String {
    format!("{error}")
}

/// One byte by an ordinary load.
fn load(mapping: &Mapping, at: usize) -> u8 {
    assert!((at as u64) < mapping.len());
    // SAFETY: within the mapping; bytes have no invalid values.
    unsafe { mapping.as_ptr().add(at).read_volatile() }
}

/// One byte by an ordinary store.
fn store(mapping: &Mapping, at: usize, byte: u8) {
    assert!((at as u64) < mapping.len());
    // SAFETY: within the mapping.
    unsafe { mapping.as_ptr().add(at).write_volatile(byte) };
}

fn loads(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |mounted, process| {
        // Two whole ranges and a part, with a last page that is not whole.
        let data = random(5 * MIB + 5 * PAGE + 77, 3);
        let file = make(process, b"loads", &data)?;
        let counts = || {
            let c = &COUNTERS;
            (c.faults.get(), c.large_pages.get(), c.small_pages.get())
        };
        let before = counts();
        let mapping = shared(&file, data.len(), Access::Read)?;
        let mut buf = vec![0; data.len()];
        mapping.read(0, &mut buf).map_err(bus)?;
        check!(
            buf == data,
            "a mapping shows something else than was written"
        );
        let after = counts();
        let (faults, large, small) = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
        check!(large == 2, "{large} large pages for two whole ranges");
        let pages = (data.len() % (4 * MIB) / PAGE) as u64;
        check!(small == pages, "{small} small pages, not {pages}");
        check!(
            faults <= 2 + pages.div_ceil(16) + 2,
            "{faults} faults for {pages} small pages and 2 large ones"
        );
        if mounted
            .mount
            .file_system()
            .dax()
            .ok_or("no window")?
            .geometry()
            .count()
            < 4
        {
            // What was entered first is gone by now.
            return Ok(());
        }
        // Once entered, a page takes no fault. Plain loads do as well.
        let before = counts();
        for at in (0..4 * MIB).step_by(PAGE) {
            check!(load(&mapping, at) == data[at], "byte {at} differs");
        }
        check!(counts() == before, "pages that are there take faults");
        // From the middle, where the offset is no multiple of a large page.
        let from = 3 * MIB + PAGE;
        let part = mmap::map(
            &file,
            from as u64,
            MIB as u64,
            Sharing::Shared,
            Access::Read,
        )
        .map_err(text)?;
        let mut buf = vec![0; MIB];
        part.read(0, &mut buf).map_err(bus)?;
        check!(
            buf[..] == data[from..from + MIB],
            "a part shows another one"
        );
        Ok(())
    })
}

fn stores(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |mounted, process| {
        let mut data = random(2 * MIB + 3 * PAGE, 5);
        let file = make(process, b"stores", &data)?;
        let reader = shared(&file, data.len(), Access::Read)?;
        let writer = shared(&file, data.len(), Access::ReadWrite)?;
        // Read first, so that pages are entered for loads only.
        for mapping in [&reader, &writer] {
            for at in [0, 2 * MIB] {
                check!(load(mapping, at) == data[at], "byte {at} differs");
            }
        }
        let mut numbers = Random(17);
        for _ in 0..500 {
            let (at, byte) = (
                numbers.below(data.len() as u64) as usize,
                numbers.next() as u8,
            );
            store(&writer, at, byte);
            data[at] = byte;
            check!(
                load(&reader, at) == byte,
                "another mapping does not see byte {at}"
            );
        }
        // By read(), and back by write().
        let mut buf = vec![0; data.len()];
        file.read_at(0, &mut buf).map_err(text)?;
        check!(buf == data, "a read does not see what was stored");
        file.write_at(MIB as u64, &[0xa5; 3000]).map_err(text)?;
        data[MIB..MIB + 3000].fill(0xa5);
        reader.read(0, &mut buf).map_err(bus)?;
        check!(buf == data, "a mapping does not see what was written");
        // What the host has.
        drop((reader, writer, file));
        let sent = mounted
            .connection
            .counters()
            .requests(Opcode::Write.to_wire());
        check!(sent <= 4, "{sent} WRITE requests for stores");
        Ok(())
    })
}

fn private(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |_, process| {
        let data = random(2 * MIB + 100, 7);
        let file = make(process, b"private", &data)?;
        let map = || {
            mmap::map(
                &file,
                0,
                data.len() as u64,
                Sharing::Private,
                Access::ReadWrite,
            )
        };
        let count = || (COUNTERS.copied_pages.get(), COUNTERS.copies_freed.get());
        let before = count();
        let (one, two) = (map().map_err(text)?, map().map_err(text)?);
        let mut model = data.clone();
        // Loads first: the copy replaces a part of a large page.
        check!(load(&one, MIB) == data[MIB], "the wrong byte");
        for n in 0..20 {
            let at = n * 100_000 + 13;
            store(&one, at, !data[at]);
            model[at] = !data[at];
        }
        // In the last page, too, which cannot be mapped.
        store(&one, data.len() - 1, !data[data.len() - 1]);
        model[data.len() - 1] ^= 0xff;
        let mut buf = vec![0; data.len()];
        one.read(0, &mut buf).map_err(bus)?;
        check!(buf == model, "a private mapping forgot something");
        two.read(0, &mut buf).map_err(bus)?;
        check!(buf == data, "another private mapping sees the stores");
        file.read_at(0, &mut buf).map_err(text)?;
        check!(buf == data, "the file has the stores");
        // What the driver takes back are the file's pages, not the copies.
        let changes = Changes {
            size: Some(2 * MIB as u64),
            ..Changes::default()
        };
        file.set_metadata(&changes).map_err(text)?;
        one.read(0, &mut buf[..2 * MIB]).map_err(bus)?;
        check!(buf[..2 * MIB] == model[..2 * MIB], "copies were taken away");
        drop((one, two, file));
        let (copied, freed) = (count().0 - before.0, count().1 - before.1);
        check!(
            (21..=24).contains(&copied),
            "{copied} copies for 21 pages that were stored to"
        );
        check!(freed == copied, "{copied} copies, {freed} freed");
        Ok(())
    })
}

fn refused(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |_, process| {
        let data = random(2 * PAGE + 10, 9);
        let file = make(process, b"refused", &data)?;
        let mapping = shared(&file, 8 * PAGE, Access::ReadWrite)?;
        let mut buf = vec![0; PAGE];
        // The tail, which cannot be mapped: loads go by request, stores are refused.
        mapping.read(2 * PAGE as u64, &mut buf[..10]).map_err(bus)?;
        check!(buf[..10] == data[2 * PAGE..], "the tail is another");
        let got = mapping.write(2 * PAGE as u64, b"x");
        check!(
            got == Err(AccessError::Unmappable),
            "the tail was stored to: {got:?}"
        );
        for (at, len) in [(2 * PAGE + 5, 6), (3 * PAGE, 1), (7 * PAGE, PAGE)] {
            let got = mapping.read(at as u64, &mut buf[..len]);
            check!(got == Err(AccessError::BeyondEnd), "{at}: {got:?}");
        }
        let got = mapping.write(4 * PAGE as u64, b"x");
        check!(
            got == Err(AccessError::BeyondEnd),
            "a store behind the end: {got:?}"
        );
        let got = mapping.read(7 * PAGE as u64 + 1, &mut buf);
        check!(got == Err(AccessError::Unmapped), "outside: {got:?}");
        let reader = shared(&file, PAGE, Access::Read)?;
        let got = reader.write(0, b"x");
        check!(
            got == Err(AccessError::Protected),
            "a read-only mapping: {got:?}"
        );
        // What a file was not opened for.
        let fd = process
            .open(At::Cwd, b"refused", OpenFlags::RDONLY, 0)
            .map_err(text)?;
        let narrow = process.file(fd).map_err(text)?;
        process.close(fd).map_err(text)?;
        let map = |offset: usize, len: usize, sharing, access| {
            mmap::map(&narrow, offset as u64, len as u64, sharing, access)
                .err()
                .map(virtio_fs::Error::errno)
        };
        for (offset, len, sharing, access, errno) in [
            (
                0,
                PAGE,
                Sharing::Shared,
                Access::ReadWrite,
                Some(Errno::EACCES),
            ),
            (0, PAGE, Sharing::Private, Access::ReadWrite, None),
            (0, 0, Sharing::Shared, Access::Read, Some(Errno::EINVAL)),
            (1, PAGE, Sharing::Shared, Access::Read, Some(Errno::EINVAL)),
            (
                0,
                usize::MAX,
                Sharing::Shared,
                Access::Read,
                Some(Errno::EINVAL),
            ),
            (
                0,
                1 << 50,
                Sharing::Shared,
                Access::Read,
                Some(Errno::ENOMEM),
            ),
        ] {
            let got = map(offset, len, sharing, access);
            check!(
                got == errno,
                "{offset} {len} {sharing:?} {access:?}: {got:?}"
            );
        }
        Ok(())
    })
}

fn cut(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |_, process| {
        let data = random(4 * MIB, 11);
        let file = make(process, b"cut", &data)?;
        let mapping = shared(&file, data.len(), Access::ReadWrite)?;
        let mut buf = vec![0; data.len()];
        mapping.read(0, &mut buf).map_err(bus)?;
        let back = COUNTERS.pages_taken_back.get();
        let resize = |size: usize| {
            let changes = Changes {
                size: Some(size as u64),
                ..Changes::default()
            };
            file.set_metadata(&changes).map(drop).map_err(text)
        };
        resize(MIB)?;
        let back = COUNTERS.pages_taken_back.get() - back;
        check!(back >= 1, "{back} pages were taken back");
        let got = mapping.read(MIB as u64, &mut buf[..1]);
        check!(
            got == Err(AccessError::BeyondEnd),
            "behind the new end: {got:?}"
        );
        check!(load(&mapping, MIB - 1) == data[MIB - 1], "before it");
        resize(4 * MIB)?;
        mapping.read(0, &mut buf).map_err(bus)?;
        check!(buf[..MIB] == data[..MIB], "what stayed is another");
        check!(buf[MIB..].iter().all(|&b| b == 0), "what was cut came back");
        store(&mapping, 3 * MIB, 1);
        let hole = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
        file.allocate(0, 2 * PAGE as u64, hole).map_err(text)?;
        mapping.read(0, &mut buf).map_err(bus)?;
        check!(buf[..2 * PAGE].iter().all(|&b| b == 0), "a hole has bytes");
        check!(buf[2 * PAGE..MIB] == data[2 * PAGE..MIB], "around a hole");
        check!(buf[3 * MIB] == 1, "a store was lost");
        Ok(())
    })
}

fn durable(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |mounted, process| {
        let file = make(process, b"durable", &vec![0; 2 * MIB])?;
        file.sync(Durable::All).map_err(text)?;
        let sent = || {
            let counters = mounted.connection.counters();
            counters.requests(Opcode::Fsync.to_wire())
        };
        let mapping = shared(&file, 2 * MIB, Access::ReadWrite)?;
        let before = sent();
        load(&mapping, 0);
        check!(
            mapping.sync().map_err(text)? == 0,
            "a load made a page dirty"
        );
        check!(sent() == before, "FSYNC for loads");
        for round in 1..4 {
            // From the second round on this takes no fault.
            store(&mapping, round * PAGE, 1);
            let dirty = mapping.sync().map_err(text)?;
            check!(dirty == 1, "round {round}: {dirty} dirty pages");
            check!(sent() == before + round as u64, "round {round}: no FSYNC");
        }
        // The same by fsync, which knows no mapping.
        store(&mapping, 0, 2);
        file.sync(Durable::All).map_err(text)?;
        store(&mapping, 0, 3);
        file.sync(Durable::All).map_err(text)?;
        check!(sent() == before + 5, "an fsync after a store sent nothing");
        Ok(())
    })
}

fn reclaim(kernel: &'static Kernel) -> Outcome {
    const PER_PAGE: u64 = 8;
    let seed = clock::now().as_nanos() as u64 | 1;
    with_mount(kernel, |mounted, process| {
        let fs = mounted.mount.file_system();
        let geometry = *fs.dax().ok_or("no window")?.geometry();
        let window = geometry.range_size() * geometry.count() as u64;
        if window > 16 * MIB as u64 {
            println!("# left out: the window is larger than 16 MiB");
            return Ok(());
        }
        let len = window as usize * 2 + 2 * MIB;
        let file = make(process, b"reclaim", &[])?;
        let changes = Changes {
            size: Some(len as u64),
            ..Changes::default()
        };
        file.set_metadata(&changes).map_err(text)?;
        let back = COUNTERS.pages_taken_back.get();
        let mapping = Arc::new(shared(&file, len, Access::ReadWrite)?);
        let count = cpu::online().count().max(2);
        let steps = 600 / count as u64;
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for me in 0..count {
            // Each has a word of its own in every page, and stores its own count.
            let (mapping, stop) = (mapping.clone(), stop.clone());
            let work = move || -> Result<Vec<u64>, String> {
                let mut numbers = Random(seed + 2 * me as u64);
                let mut model = vec![0u64; len / PAGE];
                for step in 1..=steps {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let page = numbers.below(model.len() as u64) as usize;
                    let at = page * PAGE + me * PER_PAGE as usize;
                    // SAFETY: within the mapping, aligned, and this thread's own.
                    let word = unsafe { mapping.as_ptr().add(at).cast::<u64>() };
                    // SAFETY: as above.
                    let found = unsafe { word.read_volatile() };
                    if found != model[page] {
                        stop.store(true, Ordering::Relaxed);
                        let want = model[page];
                        return Err(format!("seed {seed}: page {page}: {found}, not {want}"));
                    }
                    if numbers.below(2) == 0 {
                        // SAFETY: as above.
                        unsafe { word.write_volatile(step) };
                        model[page] = step;
                    }
                }
                Ok(model)
            };
            running.push(thread::spawn("mapped", work).map_err(|error| format!("{error}"))?);
        }
        let models: Vec<_> = running.into_iter().map(thread::JoinHandle::join).collect();
        let models = models.into_iter().collect::<Result<Vec<_>, _>>()?;
        let back = COUNTERS.pages_taken_back.get() - back;
        check!(back > 20, "only {back} pages were taken back");
        drop(mapping);
        // What the file has, by READ: nothing of it is worth a mapping here.
        let mut buf = vec![0; PAGE];
        for page in 0..len / PAGE {
            file.read_at((page * PAGE) as u64, &mut buf).map_err(text)?;
            for (me, model) in models.iter().enumerate() {
                let at = me * PER_PAGE as usize;
                let found = u64::from_le_bytes(buf[at..at + 8].try_into().expect("8 bytes"));
                let want = model[page];
                check!(
                    found == want,
                    "seed {seed}: page {page}: {found}, not {want}"
                );
            }
        }
        Ok(())
    })
}

fn without_window(kernel: &'static Kernel) -> Outcome {
    let mounted = mount(kernel, DaxMode::Never, EAGER)?;
    let process = mounted.process();
    clear(&process, DIR);
    process.mkdir(At::Cwd, DIR, 0o755).map_err(text)?;
    process.chdir(At::Cwd, DIR).map_err(text)?;
    let data = random(3 * PAGE + 1, 13);
    let file = make(&process, b"private", &data)?;
    let len = data.len() as u64;
    let refused = mmap::map(&file, 0, len, Sharing::Shared, Access::Read);
    let errno = refused.err().map(virtio_fs::Error::errno);
    check!(errno == Some(Errno::ENODEV), "shared: {errno:?}");
    let mapping = mmap::map(&file, 0, len, Sharing::Private, Access::ReadWrite).map_err(text)?;
    let mut buf = vec![0; data.len()];
    mapping.read(0, &mut buf).map_err(bus)?;
    check!(buf == data, "a private mapping shows something else");
    mapping.write(PAGE as u64 - 2, b"1234").map_err(bus)?;
    mapping.read(0, &mut buf).map_err(bus)?;
    check!(buf[PAGE - 2..PAGE + 2] == *b"1234", "a store was lost");
    drop((mapping, file));
    clear(&process, DIR);
    drop(process);
    mounted.unmount();
    Ok(())
}

/// The loads and stores of `mmap_read` and `mmap_write` of other benchmarks: one
/// byte of each page in order, over what the window holds.
fn costs(kernel: &'static Kernel) -> Outcome {
    with_mount(kernel, |mounted, process| {
        let geometry = *mounted
            .mount
            .file_system()
            .dax()
            .ok_or("no window")?
            .geometry();
        let ranges = geometry.count().min(16);
        let len = ranges * LARGE as usize;
        let file = make(process, b"costs", &[])?;
        for at in (0..len).step_by(MIB) {
            file.write_at(at as u64, &[1; MIB]).map_err(text)?;
        }
        let counters = mounted.connection.counters();
        let measure = |name: &str, work: &dyn Fn() -> Outcome| -> Outcome {
            let (faults, requests) = (COUNTERS.faults.get(), counters.total_requests());
            let start = clock::now();
            work()?;
            let time = (clock::now() - start).as_nanos() as f64;
            let (faults, requests) = (
                COUNTERS.faults.get() - faults,
                counters.total_requests() - requests,
            );
            println!(
                "# {name:26} {:9.0} ns/page {faults:6} faults {requests:5} requests",
                time / (len / PAGE) as f64
            );
            Ok(())
        };
        let read = || -> Outcome {
            let mapping = shared(&file, len, Access::Read)?;
            for at in (0..len).step_by(PAGE) {
                check!(load(&mapping, at) == 1, "page at {at} differs");
            }
            Ok(())
        };
        let write = || -> Outcome {
            let mapping = shared(&file, len, Access::ReadWrite)?;
            for at in (0..len).step_by(PAGE) {
                store(&mapping, at, 1);
            }
            mapping.sync().map(drop).map_err(text)
        };
        for _ in 0..2 {
            measure("mmap_read", &read)?;
            measure("mmap_write, with msync", &write)?;
        }
        // A fault on each page: not aligned as large pages need it, so that only
        // those around a page come with it.
        let faults = COUNTERS.faults.get();
        let part = len - PAGE;
        let start = clock::now();
        let mapping = mmap::map(&file, 0, PAGE as u64, Sharing::Shared, Access::Read);
        let mut mapping = mapping.map_err(text)?;
        let rounds = 128;
        for n in 0..rounds {
            let offset = (n * 7 * PAGE % part / PAGE * PAGE) as u64;
            mapping = mmap::map(&file, offset, PAGE as u64, Sharing::Shared, Access::Read)
                .map_err(text)?;
            load(&mapping, 0);
        }
        drop(mapping);
        let each = (clock::now() - start).as_nanos() / rounds as u128;
        println!("# map, fault one page, unmap {each:9} ns");
        let faults = COUNTERS.faults.get() - faults;
        check!(
            faults == rounds as u64,
            "{faults} faults for {rounds} pages"
        );
        Ok(())
    })
}
