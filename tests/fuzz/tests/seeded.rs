//! Each target on its corpus and on inputs made from a seed. From the environment: `FUZZ_SEED`,
//! `FUZZ_RUNS` (executions of each), `FUZZ_SECONDS` (instead: so long for each).

use virtio_fs_fuzz::TARGETS;
use virtio_fs_fuzz::seeded::{Budget, run};

fn fuzz(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.expect("a target of this name");
    assert!(run(target, Budget::from_env(target)) > 0);
}

#[test]
fn any_reply_is_refused_or_keeps_the_promises_of_wire() {
    fuzz("wire");
}

#[test]
fn any_directory_records_end_and_hold_names() {
    fuzz("dirents");
}

#[test]
fn any_device_leaves_the_ring_right_about_its_requests() {
    fuzz("ring");
}

#[test]
fn any_server_leaves_a_mount_that_ends_with_nothing_left() {
    fuzz("session");
}

#[test]
fn caches_change_nothing_but_the_number_of_requests() {
    fuzz("model");
}
