//! Many names and inodes: what each takes, and what finding one costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use virtio_fs::fs::{At, CachePolicy, MountOptions, Symlinks};
use virtio_fs::wire::OpenFlags;
use virtio_fs_fake::{Drive, Fake, MemFs};

use crate::random::Random;
use crate::{Guest, memory};

/// Files in each directory.
const EACH: usize = 1000;
/// Stats that are timed together.
const BATCH: usize = 500;
const LONG: Duration = Duration::from_secs(1 << 20);

/// What so many files cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes of the driver's for each inode with its name, tables included.
    pub bytes: f64,
    /// Time of a stat of a random known file, in the best batch of them.
    pub stat: Duration,
    /// Requests that the stats sent.
    pub sent: u64,
    /// Heap allocations that they made.
    pub allocations: u64,
}

/// Mounts a tree of `count` files, makes all of them known, and looks at `stats` of
/// them again.
///
/// # Panics
///
/// If the driver does not keep them all.
pub fn measure(count: usize, stats: usize) -> Cost {
    let mut fs = MemFs::new();
    let dirs = count.div_ceil(EACH);
    for dir in 0..dirs {
        let name = format!("/d{dir:04}");
        fs.mkdir(&name).expect("a new name");
        let files = EACH.min(count - dir * EACH);
        fs.fill(&name, "name-of-a-file-", files).expect("new names");
    }
    // The server has a thread of its own, and its memory is not this one's.
    let fake = Fake::new().fs(fs).drive(Drive::Threads).tune(|server| {
        (server.entry_valid, server.attr_valid) = (LONG, LONG);
        server.log_limit = 0;
    });
    let guest = Guest::on(
        fake,
        MountOptions {
            cache: CachePolicy::Always,
            max_dentries: 2 * count + dirs,
            ..MountOptions::default()
        },
    );
    let before = memory::held();
    let mut path = String::new();
    for dir in 0..dirs {
        let name = format!("d{dir:04}");
        let opened = guest
            .process
            .open(At::Cwd, name.as_bytes(), OpenFlags::DIRECTORY, 0);
        let fd = opened.expect("the directory opens");
        let end = guest.process.read_dir(fd, |_| true).expect("it is read");
        assert!(end, "the whole directory");
        guest.process.close(fd).expect("it is closed");
        for file in 0..EACH.min(count - dir * EACH) {
            at(&mut path, dir * EACH + file);
            stat(&guest, &path);
        }
    }
    let fs = guest.mount.file_system();
    assert!(fs.inode_count() > count, "all inodes are kept");
    assert!(fs.dentry_count() >= count, "all names are kept");
    // What is kept of the listings is no part of a name or an inode.
    let bytes = (memory::held() - before) as f64 / count as f64;
    let mut random = Random::new(1);
    let paths: Vec<String> = (0..stats)
        .map(|_| {
            at(&mut path, random.below(count as u64) as usize);
            path.clone()
        })
        .collect();
    let (sent, made) = (
        guest.conn.counters().total_requests(),
        memory::allocations(),
    );
    // The best batch: what others do on the machine meanwhile is no cost of ours.
    let batch = |paths: &[String]| {
        let begun = Instant::now();
        paths.iter().for_each(|path| stat(&guest, path));
        begun.elapsed() / paths.len() as u32
    };
    let best = paths.chunks(BATCH).map(batch).min();
    let cost = Cost {
        bytes,
        stat: best.unwrap_or_default(),
        sent: guest.conn.counters().total_requests() - sent,
        allocations: memory::allocations() - made,
    };
    drop(guest.process);
    guest.mount.unmount();
    cost
}

fn at(path: &mut String, file: usize) {
    use std::fmt::Write as _;
    path.clear();
    let (dir, file) = (file / EACH, file % EACH);
    write!(path, "d{dir:04}/name-of-a-file-{file:05}").expect("a string takes all");
}

fn stat(guest: &Guest, path: &str) {
    let found = guest
        .process
        .stat(At::Cwd, path.as_bytes(), Symlinks::NoFollow);
    black_box(found.expect("it is there"));
}
