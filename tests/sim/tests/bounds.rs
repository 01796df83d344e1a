//! What the policy must keep on every synthetic trace: never dearer than FIFO, and
//! within a known factor of the clairvoyant optimum. The model is that of
//! RESULTS.md; the factors are those measured there, rounded up, so that a
//! change for the worse is caught.

use virtio_fs_sim::contest::{Contestant, Limits};
use virtio_fs_sim::cost::Model;
use virtio_fs_sim::report::WORKING_SETS;
use virtio_fs_sim::synthetic::{Shape, WORKLOADS, Workload};
use virtio_fs_sim::trace::Prepared;

const SHAPE: Shape = Shape {
    window: 32,
    working_set: 32,
    accesses: 20_000,
    seed: 1,
};

/// Faults at random: no policy without foresight comes within 1.5 (RESULTS.md).
const BEYOND: &[&str] = &["mmap-uniform", "mmap-zipf"];

fn workload(name: &str) -> &'static Workload {
    let found = WORKLOADS.iter().find(|workload| workload.name == name);
    found.expect("a workload of that name")
}

fn prepare(workload: &Workload, shape: Shape, halves: u64) -> Prepared {
    let shape = Shape {
        working_set: (shape.window * halves / 2).max(1),
        ..shape
    };
    workload.trace(shape).prepare().expect("ranges")
}

/// Runs `check` on each workload and working set.
fn everywhere(shape: Shape, check: impl Fn(&str, &Prepared)) {
    println!("seed {}, {} ranges", shape.seed, shape.window);
    for workload in WORKLOADS {
        for halves in WORKING_SETS {
            let name = format!("{} at {} windows", workload.name, halves as f64 / 2.0);
            check(&name, &prepare(workload, shape, halves));
        }
    }
}

#[test]
fn never_dearer_than_fifo_on_any_trace() {
    let seeds = if cfg!(debug_assertions) { 1..=1 } else { 1..=4 };
    for seed in seeds {
        everywhere(Shape { seed, ..SHAPE }, |name, trace| {
            let ours = Contestant::Ours.run(trace, &Model::MEASURED);
            let fifo = Contestant::Fifo.run(trace, &Model::MEASURED);
            assert!(
                ours.cost <= fifo.cost,
                "{name}, seed {seed}: {} > {}",
                ours.cost,
                fifo.cost
            );
            // One mapping in a hundred more than FIFO's is noise.
            let most = fifo.maps + fifo.maps / 100 + 1;
            assert!(
                ours.maps <= most,
                "{name}, seed {seed}: {} > {most} maps",
                ours.maps
            );
        });
    }
}

#[test]
fn little_dearer_than_fifo_over_windows_of_other_sizes() {
    let all = [
        (2, 10_000),
        (8, 20_000),
        (1, 10_000),
        (4, 10_000),
        (16, 20_000),
        (64, 30_000),
    ];
    // A debug build is slow; two sizes must do there.
    let some = if cfg!(debug_assertions) {
        &all[..2]
    } else {
        &all
    };
    for &(window, accesses) in some {
        let shape = Shape {
            window,
            accesses,
            ..SHAPE
        };
        everywhere(shape, |name, trace| {
            let ours = Contestant::Ours.run(trace, &Model::MEASURED);
            let fifo = Contestant::Fifo.run(trace, &Model::MEASURED);
            let most = fifo.cost + fifo.cost / 16;
            assert!(
                ours.cost <= most,
                "{name}, {window} ranges: {} > {most}",
                ours.cost
            );
        });
    }
}

#[test]
fn within_half_as_much_again_of_the_optimum() {
    everywhere(SHAPE, |name, trace| {
        // The optimum takes a second per trace in a debug build: one working set there.
        if cfg!(debug_assertions) && !name.ends_with(" 4 windows") {
            return;
        }
        let limits = Limits::of(trace, &Model::MEASURED);
        let ours = Contestant::Ours.run(trace, &Model::MEASURED);
        let ratio = ours.cost as f64 / limits.cost as f64;
        println!("{name}: {ratio:.2}");
        if !BEYOND.iter().any(|beyond| name.starts_with(beyond)) {
            assert!(ratio <= 1.5, "{name}: {ratio:.3} times the optimum");
        }
    });
}

#[test]
fn faults_at_random_come_near_one_who_knows_all_frequencies() {
    for name in BEYOND {
        for halves in WORKING_SETS {
            let trace = prepare(workload(name), SHAPE, halves);
            let ranges = trace.geometry.count();
            let model = Model::MEASURED;
            let maps = Contestant::Ours.run(&trace, &model).maps;
            let informed = virtio_fs_sim::optimum::informed_maps(&trace.accesses, &model, ranges);
            let ratio = maps as f64 / informed as f64;
            println!("{name} at {} windows: {ratio:.2}", halves as f64 / 2.0);
            assert!(
                ratio <= 1.2,
                "{name}: {maps} maps, {informed} with all frequencies known"
            );
        }
    }
}

/// The figure of the issue: random 4 KiB reads of four windows cost Linux seven
/// times a plain READ.
#[test]
fn cliff_is_gone() {
    let trace = prepare(workload("uniform-4k"), SHAPE, 8);
    let ours = Contestant::Ours.run(&trace, &Model::MEASURED);
    let read = Model::MEASURED.costs.by_request(4096) * ours.accesses;
    assert!(ours.cost < read, "dearer than READ alone");
    assert!(ours.maps < 64, "{} maps", ours.maps);
    let fifo = Contestant::Fifo.run(&trace, &Model::MEASURED);
    assert!(fifo.cost > 5 * read, "the model shows no cliff to remove");
}

/// Fairness: a file of half a window keeps most accesses in it although another is accessed
/// four times as often, spread over far more than the window.
#[test]
fn busy_neighbour_does_not_displace_a_hot_file() {
    for halves in [8, 32] {
        let trace = prepare(workload("two-tenants"), SHAPE, halves);
        let replay = Contestant::Ours.replay(&trace, &Model::MEASURED);
        let served = replay.files[&1];
        let share = served.by_window as f64 / (served.by_window + served.by_request) as f64;
        println!("{} windows: {share:.2}", halves as f64 / 2.0);
        assert!(share > 0.5, "only {share:.2} through the window");
    }
}

#[test]
fn scan_does_not_displace_the_hot_set() {
    for halves in [4, 8, 32] {
        let trace = prepare(workload("scan+hot"), SHAPE, halves);
        let replay = Contestant::Ours.replay(&trace, &Model::MEASURED);
        let served = replay.files[&1];
        assert!(served.by_request * 100 <= served.by_window, "{served:?}");
    }
}

#[test]
fn scan_finds_its_ranges_mapped_ahead() {
    let trace = prepare(workload("scan-16k"), SHAPE, 8);
    let ours = Contestant::Ours.run(&trace, &Model::MEASURED);
    assert!(ours.ahead * 100 >= ours.maps * 95, "{ours:?}");
}

#[test]
fn large_window_unmaps_in_batches() {
    let shape = Shape {
        window: 512,
        accesses: 150_000,
        ..SHAPE
    };
    let trace = prepare(workload("dense-bursts"), shape, 8);
    let ours = Contestant::Ours.run(&trace, &Model::MEASURED);
    println!(
        "{} removed in {} requests",
        ours.removed, ours.remove_requests
    );
    assert!(ours.removed >= 3 * ours.remove_requests, "{ours:?}");
}
