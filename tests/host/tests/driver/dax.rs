//! File data through the DAX window, compared with the files on the host.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_fs::conn::{Config, DaxMode};
use virtio_fs::dax::Costs;
use virtio_fs::fs::{At, Changes, Durable, MountOptions};
use virtio_fs::wire::{FallocateMode, Opcode, OpenFlags};

use crate::common::{Guest, guest_of_daxd};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// xorshift64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

fn guest(window: u64) -> Guest {
    guest_of_daxd(window, Config::default(), MountOptions::default())
}

/// Costs that make every access worth a mapping.
const EAGER: Costs = Costs {
    map: 1000,
    request: 10_000_000,
    request_kib: 1000,
    access: 0,
    access_kib: 0,
};

fn requests(guest: &Guest, opcode: Opcode) -> u64 {
    guest.conn.counters().requests(opcode.to_wire())
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Random(seed | 1).fill(&mut bytes);
    bytes
}

/// Ends the guest; before that nothing of the window may be held or lost, after
/// it nothing may be mapped.
fn finish(guest: Guest) {
    {
        let dax = guest.mount.file_system().dax().expect("a window");
        let totals = dax.totals();
        assert_eq!(totals.pins, 0, "{totals:?}");
        assert_eq!(totals.unknown + totals.orphaned, 0, "{totals:?}");
        assert_eq!(totals.busy, 0, "{totals:?}");
        let live = guest
            .conn
            .transport()
            .with_window(|window| window.mappings());
        assert_eq!(live, Some(totals.mapped), "{totals:?}");
    }
    assert_eq!(guest.conn.counters().dax_lost.get(), 0);
    let fs = guest.mount.file_system().clone();
    let conn = guest.conn.clone();
    guest.finish();
    let totals = fs.dax().expect("a window").totals();
    assert_eq!(
        totals.free,
        fs.dax().unwrap().geometry().count(),
        "{totals:?}"
    );
    assert_eq!(conn.transport().with_window(|w| w.mappings()), Some(0));
    let counters = fs.connection().counters();
    assert_eq!(counters.dax_maps.get(), counters.dax_unmaps.get());
}

#[test]
fn what_is_read_twice_is_read_through_the_window() {
    for window in [2, 8, 64] {
        let guest = guest(window);
        let content = pattern(5 * MIB + 777, window);
        std::fs::write(guest.path("file"), &content).unwrap();
        let inode = guest.mount.root().lookup(b"file").unwrap();
        let file = inode.open(OpenFlags::RDONLY).unwrap();
        let mut buf = vec![0; content.len() + 100];
        for _ in 0..3 {
            buf.fill(0xee);
            assert_eq!(file.read_at(0, &mut buf).unwrap(), content.len());
            assert!(buf[..content.len()] == content[..]);
            assert!(buf[content.len()..].iter().all(|&b| b == 0xee));
        }
        let counters = guest.conn.counters();
        println!("window {window}: {counters:?}");
        assert!(counters.dax_bytes_read.get() > 2 * MIB as u64);
        drop((file, inode));
        finish(guest);
    }
}

#[test]
fn a_hit_sends_no_request() {
    let guest = guest(8);
    let content = pattern(2 * MIB, 5);
    std::fs::write(guest.path("file"), &content).unwrap();
    let inode = guest.mount.root().lookup(b"file").unwrap();
    let file = inode.open(OpenFlags::RDWR).unwrap();
    let mut page = vec![0; PAGE];
    file.read_at(0, &mut vec![0; 2 * MIB]).unwrap();
    file.write_at(0, &content[..PAGE]).unwrap();
    file.write_at(0, &content[..PAGE]).unwrap();
    inode.revalidate().unwrap();
    let before = guest.conn.counters().total_requests();
    for at in (0..2 * MIB - PAGE).step_by(100_000) {
        file.read_at(at as u64, &mut page).unwrap();
        assert!(page == content[at..at + PAGE]);
        file.write_at(at as u64, &page).unwrap();
    }
    assert_eq!(guest.conn.counters().total_requests(), before);
    assert!(std::fs::read(guest.path("file")).unwrap() == content);
    drop((file, inode));
    finish(guest);
}

#[test]
fn a_write_within_the_file_goes_through_the_window_and_one_behind_it_does_not() {
    let guest = guest(8);
    let mut content = pattern(4 * MIB, 6);
    std::fs::write(guest.path("file"), &content).unwrap();
    let inode = guest.mount.root().lookup(b"file").unwrap();
    let file = inode.open(OpenFlags::RDWR).unwrap();
    let data = pattern(3 * MIB, 7);
    for round in 0..3 {
        let at = round * 100_001;
        assert_eq!(file.write_at(at as u64, &data).unwrap(), data.len());
        content[at..at + data.len()].copy_from_slice(&data);
    }
    let written = guest.conn.counters().dax_bytes_written.get();
    assert!(written >= 4 * MIB as u64, "{written}");
    let at = content.len() - 10;
    file.write_at(at as u64, &data).unwrap();
    content.truncate(at);
    content.extend_from_slice(&data);
    assert_eq!(guest.conn.counters().dax_bytes_written.get(), written);
    file.sync(Durable::All).unwrap();
    assert_eq!(requests(&guest, Opcode::Fsync), 1);
    assert!(std::fs::read(guest.path("file")).unwrap() == content);
    let mut all = vec![0; content.len()];
    file.read_at(0, &mut all).unwrap();
    assert!(all == content);
    drop((file, inode));
    finish(guest);
}

#[test]
fn nothing_that_a_truncation_takes_away_stays_mapped() {
    let guest = guest(16);
    let content = pattern(8 * MIB, 8);
    std::fs::write(guest.path("file"), &content).unwrap();
    let inode = guest.mount.root().lookup(b"file").unwrap();
    let file = inode.open(OpenFlags::RDWR).unwrap();
    let mut buf = vec![0; 8 * MIB];
    for _ in 0..2 {
        file.read_at(0, &mut buf).unwrap();
    }
    let dax = guest.mount.file_system().dax().unwrap();
    assert_eq!(dax.totals().mapped, 4);
    let cut = 3 * MIB + 5;
    let changes = Changes {
        size: Some(cut as u64),
        ..Changes::default()
    };
    inode.set_metadata(&changes).unwrap();
    assert_eq!(dax.totals().mapped, 1);
    assert_eq!(file.read_at(0, &mut buf).unwrap(), cut);
    assert!(buf[..cut] == content[..cut]);
    // Longer again: what was cut reads as zeros.
    let changes = Changes {
        size: Some(6 * MIB as u64),
        ..Changes::default()
    };
    file.set_metadata(&changes).unwrap();
    for _ in 0..2 {
        assert_eq!(file.read_at(0, &mut buf).unwrap(), 6 * MIB);
        assert!(buf[..cut] == content[..cut]);
        assert!(buf[cut..6 * MIB].iter().all(|&b| b == 0));
    }
    let empty = inode.open(OpenFlags::RDWR | OpenFlags::TRUNC).unwrap();
    assert_eq!(dax.totals().mapped, 0);
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 0);
    drop((file, empty, inode));
    finish(guest);
}

#[test]
fn the_modes_never_and_inode_map_nothing_that_the_server_did_not_mark() {
    for dax in [DaxMode::Never, DaxMode::Inode] {
        let config = Config {
            dax,
            ..Config::default()
        };
        let guest = guest_of_daxd(8, config, MountOptions::default());
        let content = pattern(2 * MIB, 9);
        std::fs::write(guest.path("file"), &content).unwrap();
        let inode = guest.mount.root().lookup(b"file").unwrap();
        let file = inode.open(OpenFlags::RDONLY).unwrap();
        let mut buf = vec![0; 2 * MIB];
        for _ in 0..3 {
            file.read_at(0, &mut buf).unwrap();
            assert!(buf == content);
        }
        assert_eq!(guest.conn.counters().dax_maps.get(), 0);
        drop((file, inode));
        guest.finish();
    }
}

#[test]
fn a_file_that_is_gone_gives_its_ranges_back_before_it_is_forgotten() {
    let guest = guest(8);
    for round in 0..20u64 {
        let content = pattern(2 * MIB, round);
        std::fs::write(guest.path("file"), &content).unwrap();
        let inode = guest.mount.root().lookup(b"file").unwrap();
        let file = inode.open(OpenFlags::RDONLY).unwrap();
        let mut buf = vec![0; 2 * MIB];
        for _ in 0..2 {
            file.read_at(0, &mut buf).unwrap();
            assert!(buf == content);
        }
        guest.process.unlink(At::Cwd, b"file").unwrap();
        drop((file, inode));
        guest.mount.file_system().work().unwrap();
        let dax = guest.mount.file_system().dax().unwrap();
        assert_eq!(dax.totals().mapped, 0, "round {round}");
    }
    // The policy finds out that such files do not come back, and maps fewer.
    assert!(guest.conn.counters().dax_maps.get() >= 3);
    finish(guest);
}

/// What one thread does to files of its own, and to one that it shares.
fn churn(guest: &Guest, thread: u64, seed: u64, size: u64, steps: u64, done: &AtomicU64) {
    let process = virtio_fs::fs::Process::new(&guest.mount);
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread + 1));
    let mut name = format!("own-{thread}");
    let flags = OpenFlags::RDWR | OpenFlags::CREAT;
    let open = |name: &str| {
        process
            .open(At::Cwd, name.as_bytes(), flags, 0o644)
            .unwrap()
    };
    let mut fd = open(&name);
    let mut model = std::fs::read(guest.path(&name)).unwrap();
    let mut buf = vec![0; 3 * MIB];
    for step in 0..steps {
        let here = random.below(size);
        let len = match random.below(4) {
            0 => 1 + random.below(100),
            1 | 2 => 1 + random.below(64 << 10),
            _ => 1 + random.below(3 << 20),
        } as usize;
        let what = random.below(100);
        match what {
            0..45 => {
                let n = process.pread(fd, &mut buf[..len], here).unwrap();
                let end = model.len().min(here as usize + len);
                let want = model.get(here as usize..end).unwrap_or(&[]);
                assert_eq!(n, want.len(), "thread {thread} step {step}: read at {here}");
                assert!(
                    buf[..n] == *want,
                    "thread {thread} step {step}: read at {here}"
                );
            }
            45..80 => {
                random.fill(&mut buf[..len]);
                let n = process.pwrite(fd, &buf[..len], here).unwrap();
                let end = here as usize + n;
                if end > model.len() {
                    model.resize(end, 0);
                }
                model[here as usize..end].copy_from_slice(&buf[..n]);
            }
            80..85 => {
                process
                    .fset(
                        fd,
                        &Changes {
                            size: Some(here),
                            ..Changes::default()
                        },
                    )
                    .unwrap();
                model.resize(here as usize, 0);
            }
            85..90 => {
                let mode = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                process
                    .file(fd)
                    .unwrap()
                    .allocate(here, len as u64, mode)
                    .unwrap();
                let end = model.len().min(here as usize + len);
                if let Some(hole) = model.get_mut(here as usize..end) {
                    hole.fill(0);
                }
            }
            90..93 => {
                let fresh = format!("own-{thread}-{step}");
                process
                    .rename(
                        At::Cwd,
                        name.as_bytes(),
                        At::Cwd,
                        fresh.as_bytes(),
                        Default::default(),
                    )
                    .unwrap();
                name = fresh;
            }
            93..95 => {
                process.close(fd).unwrap();
                process.unlink(At::Cwd, name.as_bytes()).unwrap();
                fd = open(&name);
                model.clear();
            }
            95..97 => {
                process.close(fd).unwrap();
                fd = process
                    .open(At::Cwd, name.as_bytes(), flags | OpenFlags::TRUNC, 0o644)
                    .unwrap();
                model.clear();
            }
            97..99 => {
                // Seen from the host at once, without an fsync.
                let host = std::fs::File::open(guest.path(&name)).unwrap();
                let end = model.len().min(here as usize + len);
                let want = model.get(here as usize..end).unwrap_or(&[]);
                host.read_exact_at(&mut buf[..want.len()], here).unwrap();
                assert!(
                    buf[..want.len()] == *want,
                    "thread {thread} step {step}: host"
                );
            }
            _ => process.fsync(fd, Durable::Data).unwrap(),
        }
    }
    assert_eq!(process.fstat(fd).unwrap().size(), model.len() as u64);
    process.close(fd).unwrap();
    assert!(
        std::fs::read(guest.path(&name)).unwrap() == model,
        "thread {thread}: {name}"
    );
    done.fetch_add(1, Ordering::Relaxed);
}

fn churn_in_a_window_of(mib: u64, file: usize, threads: u64, dax_costs: Costs) {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = seed.unwrap_or(0x5eed_0001);
    println!("seed {seed}");
    let options = MountOptions {
        dax_costs,
        ..MountOptions::default()
    };
    let guest = guest_of_daxd(mib, Config::default(), options);
    for thread in 0..threads {
        let content = pattern(file, seed + thread);
        std::fs::write(guest.path(&format!("own-{thread}")), content).unwrap();
    }
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (guest, done) = (&guest, &done);
            scope.spawn(move || churn(guest, thread, seed, file as u64, 250, done));
        }
    });
    assert_eq!(done.into_inner(), threads);
    let counters = guest.conn.counters();
    counters.for_each(|name, n| {
        if name.starts_with("dax") {
            print!("{name} {n}, ");
        }
    });
    println!("{mib} MiB window, {threads} files of {file} bytes");
    assert!(counters.dax_bytes_read.get() > MIB as u64);
    assert!(counters.dax_bytes_written.get() > MIB as u64);
    guest.mount.file_system().work().unwrap();
    finish(guest);
}

#[test]
fn threads_churn_files_in_a_window_of_one_range() {
    churn_in_a_window_of(2, 5 * MIB + 100, 3, EAGER);
}

#[test]
fn threads_churn_files_in_a_window_of_four_ranges() {
    churn_in_a_window_of(8, 9 * MIB + 4096, 4, EAGER);
}

#[test]
fn threads_churn_files_in_a_window_of_64_mib() {
    churn_in_a_window_of(64, 33 * MIB, 3, EAGER);
}

#[test]
fn threads_churn_files_at_the_usual_costs() {
    churn_in_a_window_of(8, 6 * MIB, 3, Costs::MEASURED);
}
