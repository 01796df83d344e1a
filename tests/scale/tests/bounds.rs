//! What holds at any size and does not depend on a clock.

use virtio_fs_scale::memory::Counting;
use virtio_fs_scale::{names, threads, window};

#[global_allocator]
static COUNTING: Counting = Counting;

/// The most that an inode takes together with its name, in tables that were never
/// filled. 400 are aimed at; this is what there is, so that it does not grow.
const BYTES: f64 = 440.0;

#[test]
fn an_inode_with_its_name_stays_within_its_bytes() {
    for count in [1_000, 20_000] {
        let cost = names::measure(count, 1_000);
        assert!(cost.bytes <= BYTES, "{count} files: {} bytes", cost.bytes);
        assert_eq!(cost.sent, 0, "what is known is not asked for");
        assert_eq!(cost.allocations, 0, "nor does it take memory");
    }
}

#[test]
fn a_window_of_64_gib_over_a_file_of_1_tib_allocates_nothing_in_use() {
    let cost = window::measure(64 << 30, 10_000);
    assert_eq!(cost.allocations, 0);
}

#[test]
fn sixty_four_threads_read_over_sixty_four_queues_with_a_request_each() {
    let outcome = threads::measure(64, 64, 20);
    assert_eq!((outcome.reads, outcome.requests), (1280, 1280));
}
