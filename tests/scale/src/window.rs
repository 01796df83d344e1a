//! A long file, and windows up to 64 GiB: what a step of the books costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use virtio_fs::dax::{
    Access, Chunk, Costs, Geometry, InodeKey, Kind, Pool, Reclaim, Rights, Step, window::Window,
};

use crate::memory;
use crate::random::Random;

/// Length of the file behind the window: 1 TiB.
pub const FILE: u64 = 1 << 40;

/// What a step costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Finding and pinning a mapped chunk, in the best batch of steps.
    pub hit: Duration,
    /// Giving a chunk the range of another one.
    pub replace: Duration,
    /// Heap allocations by all of them.
    pub allocations: u64,
}

/// Fills a window of `len` bytes with chunks of the file at random, then does so many
/// steps of each kind.
///
/// # Panics
///
/// If the books contradict themselves.
pub fn measure(len: u64, steps: u32) -> Cost {
    let geometry = Geometry::new(len, 0).expect("a window of one range at least");
    let ranges = len >> 21;
    let chunks = FILE >> 21;
    let mut pool = Pool::new(
        Window::new(geometry),
        Reclaim::new(ranges as usize, Costs::MEASURED),
    );
    let access = |chunk: u64| Access {
        inode: InodeKey(1),
        chunk: Chunk(chunk),
        at: 0,
        len: 4096,
        chunk_len: 2 << 20,
        // A fault must have a mapping: so each step does what it says.
        kind: Kind::Fault,
        run: 0,
    };
    let mut random = Random::new(len);
    let mut mapped = Vec::with_capacity(ranges as usize);
    // An odd number times a power of two's residues visits every chunk once.
    let mut next = (0..chunks).map(|n| n.wrapping_mul(0x9E37_79B1) % chunks);
    while mapped.len() < ranges as usize {
        let chunk = next.next().expect("the file is longer than the window");
        enter(&mut pool, &access(chunk));
        mapped.push(chunk);
    }
    let made = memory::allocations();
    let hit = best(steps, || {
        let chunk = mapped[random.below(ranges) as usize];
        let pin = pool.hit(&access(chunk), Rights::Writable);
        let pin = black_box(pin).expect("it was mapped");
        pool.window_mut().unpin(pin);
    });
    let replace = best(steps.min((chunks - ranges) as u32), || {
        let chunk = next.next().expect("chunks that were not mapped yet");
        enter(&mut pool, &access(chunk));
    });
    Cost {
        hit,
        replace,
        allocations: memory::allocations() - made,
    }
}

/// Does `steps` steps, and returns how long one takes in the best batch of them: what
/// others do on the machine meanwhile is no cost of ours.
fn best(steps: u32, mut step: impl FnMut()) -> Duration {
    const BATCH: u32 = 500;
    let batch = |_| {
        let begun = Instant::now();
        (0..BATCH).for_each(|_| step());
        begun.elapsed() / BATCH
    };
    (0..steps / BATCH).map(batch).min().unwrap_or_default()
}

/// Maps a chunk that is not, as the driver does it, without a server.
fn enter(pool: &mut Pool<Reclaim>, access: &Access) {
    let mut step = pool.access(access, Rights::Writable);
    loop {
        match step {
            Step::Map(token) => {
                let pin = pool.commit_map(token, access).expect("a fresh token");
                pool.window_mut().unpin(pin);
                return;
            }
            Step::Evict(token) => {
                let unmapped = pool.window_mut().commit_unmap(token);
                unmapped.expect("a fresh token");
                step = pool.claim(access, Rights::Writable);
            }
            step => panic!("a fault that must be mapped became {step:?}"),
        }
    }
}
