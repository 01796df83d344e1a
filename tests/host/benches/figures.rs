//! What operations cost: requests, memory, and time where nothing is asked.
//!
//!     cargo bench -p virtio-fs-host --bench figures [-- requests|memory|hot|cold|data]
//!
//! Against real virtiofsd with `--cache always`, as an ordinary process. Requests
//! and bytes do not depend on the machine; times do, and are shown beside the
//! same call of the host's kernel on the bare directory.

mod beside;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{At, Mount, MountOptions, Process, Symlinks};
use virtio_fs::wire::{Opcode, OpenFlags, RenameFlags};
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;
use virtio_fs_host::{HostPlatform, daemon};

/// Counts what is allocated and not freed.
struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);

// SAFETY: all is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Guest {
    process: Process<HostPlatform>,
    mount: Mount<HostPlatform>,
    conn: Arc<Connection<HostPlatform>>,
    daemon: daemon::Daemon,
}

fn guest(share: &std::path::Path, cache: &str, max_dentries: usize) -> Guest {
    guest_with(share, &["--cache", cache], max_dentries)
}

fn guest_with(share: &std::path::Path, arguments: &[&str], max_dentries: usize) -> Guest {
    // The daemon's log is kept in this process, where it would count as ours.
    let daemon = daemon::Config::virtiofsd(share)
        .arguments(["--log-level", "error"])
        .arguments(arguments.iter().copied())
        .start()
        .expect("virtiofsd starts");
    let transport = Arc::new(daemon.connect(Options::default()).expect("connects"));
    let platform = Arc::new(HostPlatform::new(Waiting::Poll));
    let conn = Connection::open(platform, transport, Config::default()).expect("opens");
    let options = MountOptions {
        max_dentries,
        ..MountOptions::default()
    };
    let mount = Mount::new(conn.clone(), options).expect("mounts");
    Guest {
        process: Process::new(&mount),
        mount,
        conn,
        daemon,
    }
}

/// The requests that `work` sends for each of `count` operations, by opcode.
fn row(
    guest: &Guest,
    name: &str,
    linux: &str,
    count: u64,
    work: impl FnOnce(&Process<HostPlatform>),
) {
    guest.mount.file_system().revalidate_all();
    guest.conn.flush_forgets();
    std::thread::sleep(Duration::from_millis(20));
    warm_row(guest, name, linux, count, work);
}

fn warm_row(
    guest: &Guest,
    name: &str,
    linux: &str,
    count: u64,
    work: impl FnOnce(&Process<HostPlatform>),
) {
    let counters = guest.conn.counters();
    let before: Vec<u64> = Opcode::ALL
        .iter()
        .map(|op| counters.requests(op.to_wire()))
        .collect();
    work(&guest.process);
    guest.conn.flush_forgets();
    let mut total = 0;
    let mut parts = Vec::new();
    for (opcode, before) in Opcode::ALL.iter().zip(before) {
        let sent = counters.requests(opcode.to_wire()) - before;
        total += sent;
        if sent > 0 {
            parts.push(format!(
                "{} {:.2}",
                opcode.name(),
                sent as f64 / count as f64
            ));
        }
    }
    println!(
        "{name:34} {:>6.2} {linux:>6}   {}",
        total as f64 / count as f64,
        parts.join(", ")
    );
}

fn requests() {
    let share = tempfile::tempdir().unwrap();
    let root = share.path();
    std::fs::create_dir(root.join("small")).unwrap();
    for i in 0..500 {
        std::fs::write(root.join(format!("small/f{i:04}")), [7; 4096]).unwrap();
    }
    std::fs::create_dir_all(root.join("1/2/3/4/5/6/7")).unwrap();
    std::fs::write(root.join("1/2/3/4/5/6/7/file"), b"x").unwrap();
    std::fs::create_dir(root.join("scratch")).unwrap();
    let guest = guest(root, "always", 16_384);
    let paths = |prefix: &str, n: usize| -> Vec<Vec<u8>> {
        (0..n)
            .map(|i| format!("{prefix}{i:04}").into_bytes())
            .collect()
    };
    let small = paths("small/f", 500);
    let stat = |p: &Process<HostPlatform>, path: &[u8]| {
        p.stat(At::Cwd, path, Symlinks::Follow).unwrap();
    };
    println!(
        "\n{:34} {:>6} {:>6}   sent",
        "requests for each operation", "ours", "Linux"
    );
    row(&guest, "stat, cold", "1", 500, |p| {
        small.iter().for_each(|path| stat(p, path))
    });
    warm_row(&guest, "stat, warm", "0", 500, |p| {
        small.iter().for_each(|path| stat(p, path))
    });
    row(&guest, "stat, 8 deep, 100 times", "", 100, |p| {
        (0..100).for_each(|_| stat(p, b"1/2/3/4/5/6/7/file"));
    });
    let mut buf = vec![0; 4096];
    row(&guest, "open, read 4 KiB, close", "5", 500, |p| {
        for path in &small {
            let fd = p.open(At::Cwd, path, OpenFlags::RDONLY, 0).unwrap();
            assert_eq!(p.read(fd, &mut buf).unwrap(), 4096);
            p.close(fd).unwrap();
        }
    });
    let new = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
    let files = paths("scratch/c", 300);
    row(&guest, "create, close", "5", 300, |p| {
        for path in &files {
            let fd = p.open(At::Cwd, path, new, 0o644).unwrap();
            p.close(fd).unwrap();
        }
    });
    let moved = paths("scratch/m", 300);
    row(&guest, "rename", "4", 300, |p| {
        for (from, to) in files.iter().zip(&moved) {
            p.rename(At::Cwd, from, At::Cwd, to, RenameFlags::empty())
                .unwrap();
        }
    });
    row(&guest, "unlink", "4", 300, |p| {
        moved
            .iter()
            .for_each(|path| p.unlink(At::Cwd, path).unwrap())
    });
    let dirs = paths("scratch/d", 300);
    row(&guest, "mkdir", "3", 300, |p| {
        dirs.iter()
            .for_each(|path| p.mkdir(At::Cwd, path, 0o755).unwrap())
    });
    row(&guest, "rmdir", "4", 300, |p| {
        dirs.iter().for_each(|path| p.rmdir(At::Cwd, path).unwrap())
    });
    let written = paths("scratch/w", 300);
    row(&guest, "create, write 4 KiB, close", "6", 300, |p| {
        for path in &written {
            let fd = p.open(At::Cwd, path, new, 0o644).unwrap();
            p.write_all(fd, &buf).unwrap();
            p.close(fd).unwrap();
        }
    });
    let list = |p: &Process<HostPlatform>, with_stat: bool| {
        let fd = p.open(At::Cwd, b"small", OpenFlags::DIRECTORY, 0).unwrap();
        let mut names = Vec::new();
        loop {
            // As getdents64 with 32 KiB: in portions, a stat of each name in between.
            let mut room = 100;
            let end = p
                .read_dir(fd, |entry| {
                    if room == 0 {
                        return false;
                    }
                    room -= 1;
                    names.push(entry.name.to_vec());
                    true
                })
                .unwrap();
            for name in names
                .drain(..)
                .filter(|name| with_stat && !name.starts_with(b"."))
            {
                p.stat(At::Fd(fd), &name, Symlinks::NoFollow).unwrap();
            }
            if end {
                break;
            }
        }
        p.close(fd).unwrap();
    };
    row(&guest, "list 500 names, for each name", "0.01", 500, |p| {
        list(p, false)
    });
    row(
        &guest,
        "list and stat them, for each name",
        "0.04",
        500,
        |p| list(p, true),
    );
    drop(guest.process);
    guest.mount.unmount();
}

fn memory_and_descriptors() {
    const COUNT: usize = 100_000;
    let share = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    for d in 0..100 {
        let dir = share.path().join(format!("d{d:02}"));
        std::fs::create_dir(&dir).unwrap();
        for f in 0..COUNT / 100 {
            // Names of 20 bytes.
            std::fs::File::create(dir.join(format!("name-{d:02}-{f:012}"))).unwrap();
        }
    }
    let descriptors = |guest: &Guest| {
        let pid = guest.daemon.pid().expect("the daemon runs");
        std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
    };
    // Returns the files, and the most descriptors seen at the daemon.
    let walk = |guest: &Guest| {
        let (mut files, mut most) = (0, 0);
        for d in 0..100 {
            let dir = format!("d{d:02}").into_bytes();
            let fd = guest
                .process
                .open(At::Cwd, &dir, OpenFlags::DIRECTORY, 0)
                .unwrap();
            let mut names = Vec::new();
            guest
                .process
                .read_dir(fd, |entry| {
                    names.push(entry.name.to_vec());
                    true
                })
                .unwrap();
            for name in names.iter().filter(|name| !name.starts_with(b".")) {
                guest
                    .process
                    .stat(At::Fd(fd), name, Symlinks::NoFollow)
                    .unwrap();
                files += 1;
            }
            most = most.max(descriptors(guest));
            guest.process.close(fd).unwrap();
        }
        (files, most)
    };
    println!("\na tree of {COUNT} files, walked with a stat of each");
    // A daemon that holds a descriptor for each inode shows what we hold; for all of
    // the tree at once it would have too few.
    for (bound, handles) in [(2 * COUNT, "prefer"), (4096, "never")] {
        let handles = format!("--inode-file-handles={handles}");
        let guest = guest_with(share.path(), &["--cache", "auto", &handles], bound);
        let before = LIVE.load(Relaxed);
        let (files, most) = walk(&guest);
        assert_eq!(files, COUNT);
        guest.conn.flush_forgets();
        // What is kept of the listings is no part of an inode.
        let live = LIVE.load(Relaxed) - before;
        let inodes = guest.mount.file_system().inode_count() as u64;
        let names = guest.mount.file_system().dentry_count();
        println!(
            "  at most {bound:6} names: {names:6} kept, {inodes:6} inodes, {:4} bytes for each, {most} descriptors at the daemon at most",
            live / inodes.max(1),
        );
        drop(guest.process);
        guest.mount.unmount();
    }
}

const HOT_PATHS: [&str; 2] = ["1", "1/2/3/4/5/6/7/file"];
const COUNTED_ROUNDS: u32 = 1000;

fn hot_tree() -> tempfile::TempDir {
    let share = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(share.path().join("1/2/3/4/5/6/7")).unwrap();
    std::fs::write(share.path().join("1/2/3/4/5/6/7/file"), b"x").unwrap();
    share
}

fn hot_stat() {
    let share = hot_tree();
    let guest = guest(share.path(), "always", 16_384);
    // Short runs, so that some are left in peace by whatever else goes on.
    const ROUNDS: u32 = 1000;
    const RUNS: u32 = 500;
    let best = |mut work: Box<dyn FnMut() + '_>| {
        (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                (0..ROUNDS).for_each(|_| work());
                start.elapsed() / ROUNDS
            })
            .min()
            .unwrap()
    };
    println!("\nhot stat, best of {RUNS} runs of {ROUNDS}");
    let clock = best(Box::new(|| {
        std::hint::black_box(Instant::now());
    }));
    println!("  one look at the clock    {:>5} ns", clock.as_nanos());
    for path in HOT_PATHS {
        let ours = best(Box::new(|| {
            guest
                .process
                .stat(At::Cwd, path.as_bytes(), Symlinks::Follow)
                .unwrap();
        }));
        let bare = share.path().join(path);
        let host = best(Box::new(|| {
            std::fs::metadata(&bare).unwrap();
        }));
        println!(
            "  {path:20} {:>5} ns; stat(2) on the bare directory {:>5} ns",
            ours.as_nanos(),
            host.as_nanos()
        );
    }
    drop(guest.process);
    guest.mount.unmount();
}

/// Counts instructions of hot calls by running this program once more under
/// callgrind, where there is valgrind. What the host's kernel does for its stat(2)
/// is not seen by it.
fn instructions() {
    let program = std::env::current_exe().expect("the program has a path");
    println!("\ninstructions of a hot stat, by callgrind");
    for path in HOT_PATHS {
        let output = std::process::Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .args(["--collect-atstart=no", "--toggle-collect=*hot_rounds*"])
            .arg(&program)
            .args(["rounds", path])
            .output();
        let Ok(output) = output else {
            println!("  not counted: no valgrind here");
            return;
        };
        let log = String::from_utf8_lossy(&output.stderr);
        let collected = log
            .lines()
            .find_map(|line| line.split_once("Collected :"))
            .and_then(|(_, count)| count.trim().parse::<u64>().ok());
        match collected {
            Some(count) => println!("  {path:20} {:>5}", count / u64::from(COUNTED_ROUNDS)),
            None => println!("  {path:20} not counted: {}", log.trim()),
        }
    }
}

/// The work that callgrind counts.
#[inline(never)]
fn hot_rounds(guest: &Guest, path: &str) {
    for _ in 0..COUNTED_ROUNDS {
        let found = guest
            .process
            .stat(At::Cwd, path.as_bytes(), Symlinks::Follow);
        std::hint::black_box(found).unwrap();
    }
}

fn counted_rounds(path: &str) {
    let share = hot_tree();
    let guest = guest(share.path(), "always", 16_384);
    guest
        .process
        .stat(At::Cwd, path.as_bytes(), Symlinks::Follow)
        .unwrap();
    hot_rounds(&guest, path);
    drop(guest.process);
    guest.mount.unmount();
}

/// With the name of a section only that.
fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [section, path] = &arguments[..]
        && section == "rounds"
    {
        return counted_rounds(path);
    }
    let wanted = |section: &str| {
        let mut named = arguments
            .iter()
            .filter(|word| !word.starts_with('-'))
            .peekable();
        named.peek().is_none() || named.any(|word| word == section)
    };
    if wanted("requests") {
        requests();
    }
    if wanted("memory") {
        memory_and_descriptors();
    }
    if wanted("hot") {
        hot_stat();
        instructions();
    }
    if wanted("cold") {
        beside::cold_stat();
    }
    if wanted("data") {
        beside::data();
    }
}
