//! A mount under load, whose daemon is killed with SIGKILL at random moments and
//! started again: nothing that was acknowledged is lost, nothing is done twice,
//! and the work goes on.
//!
//! The variable `KILLS` sets how often (each test has a few by default), `SEED`
//! the random part; both are printed, and so is how long it took from each
//! SIGKILL to the first call that was answered after it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier, OnceLock, Weak};
use std::time::{Duration, Instant};

use virtio_fs::Errno;
use virtio_fs::conn::{Config, Connection, Restart};
use virtio_fs::fs::{At, Durable, LockWait, Mount, MountOptions, Process, Symlinks};
use virtio_fs::wire::{Lock, LockKind, OpenFlags};
use virtio_fs_host::daemon::Config as DaemonConfig;
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::{Options, Reconnect};
use virtio_fs_host::{Daemon, HostPlatform};

type Conn = Connection<HostPlatform>;

const BLOCK: usize = 1000;
const BLOCKS: u64 = 64;
const WORKERS: u64 = 3;

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    let number = value.map_or(default, |value| value.parse().expect("a number"));
    println!("{name}={number}");
    number
}

/// splitmix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }
}

fn connect(daemon: &Daemon) -> Mount<HostPlatform> {
    let options = Options {
        reconnect: Reconnect::OnReset,
        ..Options::default()
    };
    let transport = Arc::new(daemon.connect(options).expect("connects"));
    let target = Arc::new(OnceLock::<Weak<Conn>>::new());
    let config = Config {
        vectors: transport.queues() + 1,
        restart: Some(Restart {
            attempts: 200,
            pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(50),
            // A call that outlives this many servers in a row may fail; none does.
            resends: 100,
        }),
        ..Config::default()
    };
    let interrupted = target.clone();
    transport
        .set_interrupt_handler(Box::new(move |vector| {
            if let Some(conn) = interrupted.get().and_then(Weak::upgrade) {
                conn.interrupt(Some(vector));
            }
        }))
        .unwrap();
    let platform = Arc::new(HostPlatform::new(Waiting::Sleep));
    let conn = Conn::open(platform, transport, config).expect("opens");
    target.set(Arc::downgrade(&conn)).unwrap();
    Mount::new(conn, MountOptions::default()).expect("mounts")
}

/// What a name or block may be, as far as its maker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known<T> {
    Surely(T),
    /// The call got EIO: it was done, or not.
    Either(T, T),
}

impl<T: Copy + PartialEq> Known<T> {
    fn allows(&self, found: T) -> bool {
        match *self {
            Self::Surely(value) => value == found,
            Self::Either(one, other) => one == found || other == found,
        }
    }
}

fn block(worker: u64, version: u64) -> Vec<u8> {
    let mut bytes = vec![(version * 7 + worker) as u8; BLOCK];
    bytes[..8].copy_from_slice(&version.to_le_bytes());
    bytes
}

fn version_of(bytes: &[u8]) -> u64 {
    bytes[..8].try_into().map_or(0, u64::from_le_bytes)
}

/// Accepts what a lost call may answer.
fn lost<T>(result: virtio_fs::Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if error.errno() == Errno::EIO => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// One user of the mount, with files of its own and a record of what it was told.
struct Worker<'a> {
    id: u64,
    process: Process<HostPlatform>,
    rng: Rng,
    blocks: BTreeMap<u64, Known<u64>>,
    names: BTreeMap<u64, Known<bool>>,
    records: Vec<Known<u64>>,
    next: u64,
    calls: &'a AtomicU64,
    eio: u64,
}

impl Worker<'_> {
    fn path(&self, name: impl std::fmt::Display) -> String {
        format!("w{}/{name}", self.id)
    }

    fn run(&mut self, ready: &Barrier, stop: &AtomicBool) {
        let dir = format!("w{}", self.id);
        self.process.mkdir(At::Cwd, dir.as_bytes(), 0o755).unwrap();
        let open = |path: String, flags| {
            let flags = OpenFlags::CREAT | flags;
            self.process.open(At::Cwd, path.as_bytes(), flags, 0o644)
        };
        let data = open(self.path("data"), OpenFlags::RDWR).unwrap();
        let log = open(self.path("log"), OpenFlags::WRONLY | OpenFlags::APPEND).unwrap();
        let lock = Lock {
            start: 0,
            end: 9,
            kind: LockKind::Write,
            pid: 0,
        };
        self.process.lock(data, lock, LockWait::Fail).unwrap();
        ready.wait();
        while !stop.load(Ordering::Relaxed) {
            match self.rng.below(10) {
                0..=3 => self.write(data),
                4 => self.read(data),
                5 => self.append(log),
                6 | 7 => self.name(),
                8 => {
                    let path = self.path("data");
                    let at = path.as_bytes();
                    self.process.stat(At::Cwd, at, Symlinks::NoFollow).unwrap();
                }
                _ => {
                    self.process.fsync(data, Durable::Data).unwrap();
                }
            }
            self.calls.fetch_add(1, Ordering::Relaxed);
        }
        self.process.fsync(data, Durable::All).unwrap();
        self.process.close(data).unwrap();
        self.process.close(log).unwrap();
    }

    fn write(&mut self, fd: virtio_fs::fs::Fd) {
        let at = self.rng.below(BLOCKS);
        self.next += 1;
        let version = self.next;
        let bytes = block(self.id, version);
        let old = match self.blocks.get(&at) {
            Some(Known::Surely(old)) => *old,
            Some(Known::Either(..)) => return,
            None => 0,
        };
        let offset = at * BLOCK as u64;
        let known = match lost(self.process.pwrite(fd, &bytes, offset)) {
            Some(n) => {
                assert_eq!(n, BLOCK);
                Known::Surely(version)
            }
            None => {
                self.eio += 1;
                Known::Either(old, version)
            }
        };
        self.blocks.insert(at, known);
    }

    fn read(&mut self, fd: virtio_fs::fs::Fd) {
        let at = self.rng.below(BLOCKS);
        let Some(known) = self.blocks.get(&at) else {
            return;
        };
        let mut bytes = vec![0; BLOCK];
        let n = self.process.pread(fd, &mut bytes, at * BLOCK as u64);
        let n = n.expect("a read is never lost");
        if n == BLOCK {
            let version = version_of(&bytes);
            assert!(known.allows(version), "block {at}: {known:?}, {version}");
            assert!(version == 0 || bytes == block(self.id, version));
        } else {
            assert_eq!(
                *known,
                Known::Either(0, self.next.max(1)),
                "block {at} is cut"
            );
        }
    }

    fn append(&mut self, fd: virtio_fs::fs::Fd) {
        self.next += 1;
        let record = format!("{:015}\n", self.next);
        let known = match lost(self.process.write(fd, record.as_bytes())) {
            Some(n) => {
                assert_eq!(n, record.len());
                Known::Surely(self.next)
            }
            None => {
                self.eio += 1;
                Known::Either(0, self.next)
            }
        };
        self.records.push(known);
    }

    fn name(&mut self) {
        let name = self.rng.below(40);
        let path = self.path(format_args!("name{name}"));
        let there = match self.names.get(&name) {
            Some(Known::Surely(there)) => *there,
            // Nobody knows: it is looked at.
            Some(Known::Either(..)) => {
                let found = self
                    .process
                    .stat(At::Cwd, path.as_bytes(), Symlinks::NoFollow);
                let there = match found {
                    Ok(_) => true,
                    Err(error) if error.errno() == Errno::ENOENT => false,
                    Err(error) => panic!("{path}: {error:?}"),
                };
                self.names.insert(name, Known::Surely(there));
                return;
            }
            None => false,
        };
        let result = if there {
            self.process.unlink(At::Cwd, path.as_bytes())
        } else {
            self.process.mkdir(At::Cwd, path.as_bytes(), 0o755)
        };
        let known = if there {
            // A directory: unlinking it must fail, and rmdir does it.
            assert!(result.is_err());
            lost(self.process.rmdir(At::Cwd, path.as_bytes()))
        } else {
            lost(result)
        };
        let known = match known {
            Some(()) => Known::Surely(!there),
            None => {
                self.eio += 1;
                Known::Either(there, !there)
            }
        };
        self.names.insert(name, known);
    }

    /// Compares the record with what is on the host.
    fn verify(&self, share: &Path) {
        let dir = share.join(format!("w{}", self.id));
        let data = std::fs::read(dir.join("data")).unwrap();
        for (at, known) in &self.blocks {
            let start = *at as usize * BLOCK;
            let bytes = data.get(start..start + BLOCK);
            let version = bytes.map_or(0, version_of);
            assert!(known.allows(version), "block {at}: {known:?}, {version}");
            if let (Some(bytes), true) = (bytes, version > 0) {
                assert!(bytes == block(self.id, version), "block {at} is torn");
            }
        }
        for (name, known) in &self.names {
            let there = dir.join(format!("name{name}")).is_dir();
            assert!(known.allows(there), "name{name}: {known:?}, {there}");
        }
        // Each record once, in order; those that got EIO once or not at all.
        let log = std::fs::read_to_string(dir.join("log")).unwrap();
        let mut found = log
            .lines()
            .map(|line| line.parse::<u64>().unwrap())
            .peekable();
        for record in &self.records {
            match *record {
                Known::Surely(n) => assert_eq!(found.next(), Some(n), "record {n}"),
                Known::Either(_, n) => drop(found.next_if_eq(&n)),
            }
        }
        assert_eq!(found.next(), None, "a record stands twice");
    }
}

/// Kills the daemon of a busy mount `kills` times.
fn kill_under_load(mut daemon: Daemon, share: &Path, kills: u64, seed: u64) {
    let mount = connect(&daemon);
    let conn = mount.connection().clone();
    let (calls, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let ready = Barrier::new(WORKERS as usize + 1);
    let mut rng = Rng(seed);
    let mut times = Vec::new();
    let workers: Vec<Worker<'_>> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for id in 0..WORKERS {
            let mut worker = Worker {
                id,
                process: Process::new(&mount),
                rng: Rng(seed ^ (id + 1) << 32),
                blocks: BTreeMap::new(),
                names: BTreeMap::new(),
                records: Vec::new(),
                next: 0,
                calls: &calls,
                eio: 0,
            };
            let (ready, stop) = (&ready, &stop);
            threads.push(scope.spawn(move || {
                worker.run(ready, stop);
                worker
            }));
        }
        ready.wait();
        for kill in 0..kills {
            // Somewhere in the middle of what is going on.
            std::thread::sleep(Duration::from_micros(rng.below(20_000)));
            let lives = conn.counters().restarts.get();
            let begun = Instant::now();
            daemon.restart().expect("the daemon starts again");
            let deadline = begun + Duration::from_secs(30);
            let wait = |ready: &dyn Fn() -> bool| {
                while !ready() {
                    assert!(Instant::now() < deadline, "kill {kill}: nothing goes on");
                    if threads.iter().any(|thread| thread.is_finished()) {
                        return;
                    }
                    std::thread::sleep(Duration::from_micros(200));
                }
            };
            wait(&|| conn.counters().restarts.get() > lives);
            let done = calls.load(Ordering::Relaxed);
            wait(&|| calls.load(Ordering::Relaxed) > done);
            times.push(begun.elapsed());
            if threads.iter().any(|thread| thread.is_finished()) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a worker fails"))
            .collect()
    });
    times.sort();
    let eio: u64 = workers.iter().map(|worker| worker.eio).sum();
    println!(
        "{} kills, {} calls, {eio} lost with EIO, {} requests sent again, SIGKILL to the first answered call: \
         median {:?}, 99 % {:?}, longest {:?}",
        times.len(),
        calls.load(Ordering::Relaxed),
        conn.counters().requests_resent.get(),
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
    );
    assert_eq!(times.len() as u64, kills);
    for worker in &workers {
        worker.verify(share);
    }
    let report = mount.file_system().last_restart().expect("restarted");
    assert!(report.is_complete(), "{report:?}");
    drop(workers);
    mount.unmount();
    assert_eq!(conn.load(), (0, 0), "requests left behind");
    assert_eq!(conn.counters().malformed_replies.get(), 0);
}

#[test]
fn killing_virtiofsd_under_load_loses_nothing_that_was_acknowledged() {
    let share = tempfile::tempdir().unwrap();
    let daemon = DaemonConfig::virtiofsd(share.path())
        .arguments(["--cache", "auto", "--log-level", "off"])
        .start()
        .expect("virtiofsd starts");
    let (kills, seed) = (number("KILLS", 20), number("SEED", 1));
    kill_under_load(daemon, share.path(), kills, seed);
}

#[test]
fn killing_the_dax_daemon_under_load_loses_nothing_that_was_acknowledged() {
    let share = tempfile::tempdir().unwrap();
    let daemon = DaemonConfig::daxd(share.path())
        .arguments(["--window", "8M", "--queues", "2"])
        .start()
        .expect("daxd starts");
    let (kills, seed) = (number("KILLS", 20), number("SEED", 1));
    kill_under_load(daemon, share.path(), kills, seed);
}
