//! Many queues and many threads.

use std::thread;
use std::time::{Duration, Instant};

use virtio_fs::fs::{At, CachePolicy, MountOptions};
use virtio_fs::wire::OpenFlags;
use virtio_fs_fake::{Drive, Fake, MemFs};

use crate::Guest;
use crate::random::Random;

/// A file of 1 TiB with something in it.
const FILE: &str = "/long";
const LEN: u64 = 1 << 40;
/// What stands at every GiB of it.
const MARK: [u8; 16] = *b"a mark in a hole";
const APART: u64 = 1 << 30;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Reads that were done.
    pub reads: u64,
    /// READ requests that the server received for them.
    pub requests: u64,
    /// How long all took.
    pub took: Duration,
}

/// Reads 16 bytes at random GiBs of a file of 1 TiB, `reads` times in each of
/// `threads` threads, over `queues` request queues.
///
/// # Panics
///
/// If a read fails or returns other bytes, or something is left behind.
pub fn measure(queues: u16, threads: u64, reads: u64) -> Outcome {
    let mut fs = MemFs::new();
    fs.sparse(FILE, LEN).expect("a new name");
    let fake = Fake::new().fs(fs).queues(queues).drive(Drive::Threads);
    let guest = Guest::on(
        fake,
        MountOptions {
            cache: CachePolicy::None,
            ..MountOptions::default()
        },
    );
    let process = &guest.process;
    let fd = process
        .open(At::Cwd, FILE.as_bytes(), OpenFlags::RDWR, 0)
        .expect("it opens");
    for at in (0..LEN).step_by(APART as usize) {
        assert_eq!(process.pwrite(fd, &MARK, at).expect("it is written"), 16);
    }
    let counters = guest.conn.counters();
    const READ: u32 = 15;
    let before = counters.requests(READ);
    let begun = Instant::now();
    thread::scope(|scope| {
        for n in 0..threads {
            let fake = &guest.fake;
            scope.spawn(move || {
                fake.memory().attach();
                let mut random = Random::new(n + 1);
                for _ in 0..reads {
                    // The queue is chosen by it; threads may share one.
                    fake.platform().set_cpu(n as usize);
                    let mut buf = [0; 16];
                    let at = random.below(LEN / APART) * APART;
                    let got = process.pread(fd, &mut buf, at).expect("it is read");
                    assert_eq!((got, buf), (16, MARK), "at {at:#x}");
                }
            });
        }
    });
    let took = begun.elapsed();
    let requests = counters.requests(READ) - before;
    process.close(fd).expect("it is closed");
    let Guest {
        process,
        mount,
        conn,
        fake,
    } = guest;
    drop(process);
    mount.unmount();
    assert_eq!(conn.load().0, 0, "requests left behind");
    drop(conn);
    fake.assert_clean();
    Outcome {
        reads: threads * reads,
        requests,
        took,
    }
}
