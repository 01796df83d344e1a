//! What an access through the DAX window costs beside a plain copy in memory.
//!
//!     cargo bench -p virtio-fs-host --bench dax [-- SECONDS]
//!
//! The project's own daemon, as an ordinary process; everything is mapped, so no
//! request is sent. The plain copy moves the same bytes from and to a mapping of
//! the same file, in the same order. Each figure is the best of several rounds,
//! and rounds of both kinds take turns. With SECONDS only the 4 KiB reads run, for
//! so long: for a profiler.

use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virtio_fs::conn::{Config, Connection};
use virtio_fs::dax::Costs;
use virtio_fs::fs::{File, Mount, MountOptions};
use virtio_fs::wire::OpenFlags;
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;
use virtio_fs_host::{HostPlatform, daemon};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
/// Length of the file, half the window.
const LEN: usize = 32 * MIB;
const ROUNDS: usize = 15;
/// Costs that make every access worth a mapping.
const EAGER: Costs = Costs {
    map: 1000,
    request: 10_000_000,
    request_kib: 1000,
    access: 0,
    access_kib: 0,
};

/// The file again, mapped by this process.
struct Plain(*mut u8);

impl Plain {
    fn new(path: &std::path::Path) -> Self {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                LEN,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        Self(base.cast())
    }

    fn read(&self, at: usize, out: &mut [u8]) {
        assert!(at + out.len() <= LEN);
        // SAFETY: inside the mapping, of which no slices exist.
        unsafe {
            self.0
                .add(at)
                .copy_to_nonoverlapping(out.as_mut_ptr(), out.len())
        };
    }

    fn write(&self, at: usize, data: &[u8]) {
        assert!(at + data.len() <= LEN);
        // SAFETY: as above.
        unsafe {
            self.0
                .add(at)
                .copy_from_nonoverlapping(data.as_ptr(), data.len())
        };
    }
}

/// The same offsets for both.
fn offsets(size: usize) -> Vec<usize> {
    if size == MIB {
        return (0..LEN).step_by(MIB).collect();
    }
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    (0..8192).map(|_| next() % (LEN / size) * size).collect()
}

/// The best time of `one` and of `other`, for each of `offsets`.
fn compare(
    offsets: &[usize],
    mut one: impl FnMut(usize),
    mut other: impl FnMut(usize),
) -> (Duration, Duration) {
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        offsets.iter().for_each(|&at| one(at));
        let middle = Instant::now();
        offsets.iter().for_each(|&at| other(at));
        best.0 = best.0.min(middle - start);
        best.1 = best.1.min(middle.elapsed());
    }
    best
}

fn report(what: &str, size: usize, count: usize, (ours, plain): (Duration, Duration)) {
    let rate = |time: Duration| (size * count) as f64 / 1e6 / time.as_secs_f64();
    println!(
        "{what:20} {:>8.0} ns {:>8.0} MB/s {:>10.0} ns {:>8.0} MB/s {:>8.2}",
        ours.as_secs_f64() * 1e9 / count as f64,
        rate(ours),
        plain.as_secs_f64() * 1e9 / count as f64,
        rate(plain),
        plain.as_secs_f64() / ours.as_secs_f64(),
    );
}

fn measure(file: &Arc<File<HostPlatform>>, plain: &Plain) {
    println!(
        "{:20} {:>24} {:>26} {:>8}",
        "", "through the window", "plain copy", "ratio"
    );
    for (name, size) in [("4 KiB random", PAGE), ("1 MiB in order", MIB)] {
        let offsets = offsets(size);
        let (mut buf, mut other) = (vec![1u8; size], vec![1u8; size]);
        let times = compare(
            &offsets,
            |at| assert_eq!(file.read_at(at as u64, &mut buf).unwrap(), size),
            |at| plain.read(at, black_box(&mut other)),
        );
        report(&format!("read, {name}"), size, offsets.len(), times);
        let times = compare(
            &offsets,
            |at| assert_eq!(file.write_at(at as u64, &buf).unwrap(), size),
            |at| plain.write(at, black_box(&other)),
        );
        report(&format!("write, {name}"), size, offsets.len(), times);
    }
}

fn main() {
    let seconds = std::env::args().skip(1).find_map(|word| word.parse().ok());
    // In memory where there is such a place: no disk is meant to be measured.
    let share = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let share = share.expect("a folder for the share");
    let path = share.path().join("file");
    std::fs::write(&path, vec![0x5a; LEN]).unwrap();
    let daemon = daemon::Config::daxd(share.path())
        .arguments(["--window", "64M", "--cache", "always"])
        .start()
        .expect("daxd starts");
    let transport = Arc::new(daemon.connect(Options::default()).expect("connects"));
    let platform = Arc::new(HostPlatform::new(Waiting::Poll));
    let conn = Connection::open(platform, transport, Config::default()).expect("opens");
    let options = MountOptions {
        dax_costs: EAGER,
        ..MountOptions::default()
    };
    let mount = Mount::new(conn.clone(), options).expect("mounts");
    let inode = mount.root().lookup(b"file").unwrap();
    let file = Arc::new(inode.open(OpenFlags::RDWR).unwrap());
    let plain = Plain::new(&path);
    // Map all of it, and touch each page.
    for at in (0..LEN).step_by(MIB) {
        let data = vec![0x5a; MIB];
        file.write_at(at as u64, &data).unwrap();
        file.write_at(at as u64, &data).unwrap();
        plain.write(at, &data);
    }
    let before = conn.counters().total_requests();
    if let Some(seconds) = seconds {
        let (end, mut buf) = (Instant::now() + Duration::from_secs(seconds), vec![0; PAGE]);
        let offsets = offsets(PAGE);
        while Instant::now() < end {
            for &at in &offsets {
                file.read_at(at as u64, &mut buf).unwrap();
            }
        }
    } else {
        measure(&file, &plain);
    }
    assert_eq!(conn.counters().total_requests(), before, "all was mapped");
    drop((file, inode));
    mount.unmount();
}
