//! Prints what the driver costs as something grows, and draws it.
//!
//!     virtio-fs-scale [FOLDER]      the SVG files go there (target/bench)

use std::path::PathBuf;
use std::process::ExitCode;

use virtio_fs_scale::chart::{Curve, draw};
use virtio_fs_scale::memory::Counting;
use virtio_fs_scale::{names, threads, window};

#[global_allocator]
static COUNTING: Counting = Counting;

const STEPS: u32 = 200_000;

fn main() -> ExitCode {
    let folder = std::env::args_os().nth(1);
    let folder = folder.map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    let files = [
        ("scale-names.svg", names_curve()),
        ("scale-window.svg", window_curve()),
    ];
    threads_table();
    let written = std::fs::create_dir_all(&folder).and_then(|()| {
        files
            .iter()
            .try_for_each(|(name, svg)| std::fs::write(folder.join(name), svg))
    });
    match written {
        Ok(()) => {
            println!("\ncurves in {}", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("scale: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

fn names_curve() -> String {
    println!("{:>9} {:>12} {:>9}", "files", "bytes/inode", "stat, ns");
    let (mut bytes, mut stat) = (Vec::new(), Vec::new());
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        let cost = names::measure(count, STEPS as usize);
        println!(
            "{count:>9} {:>12.0} {:>9}",
            cost.bytes,
            cost.stat.as_nanos()
        );
        bytes.push((count as f64, cost.bytes));
        stat.push((count as f64, cost.stat.as_nanos() as f64));
    }
    let curves: [Curve; 2] = [("bytes", bytes), ("stat, ns", stat)];
    draw(
        "Files that are known",
        ("files", "bytes for each, ns of a stat at random"),
        (1e3, 1e6),
        (10.0, 1e4),
        &curves,
    )
}

fn window_curve() -> String {
    println!(
        "\n{:>9} {:>9} {:>9} {:>12}   a file of 1 TiB",
        "window", "ranges", "hit, ns", "replace, ns"
    );
    let (mut hit, mut replace) = (Vec::new(), Vec::new());
    for shift in (26..=36).step_by(2) {
        let len: u64 = 1 << shift;
        let cost = window::measure(len, STEPS);
        let ranges = len >> 21;
        println!(
            "{:>5} MiB {ranges:>9} {:>9} {:>12}",
            len >> 20,
            cost.hit.as_nanos(),
            cost.replace.as_nanos()
        );
        hit.push((ranges as f64, cost.hit.as_nanos() as f64));
        replace.push((ranges as f64, cost.replace.as_nanos() as f64));
    }
    let curves: [Curve; 2] = [("hit", hit), ("replace", replace)];
    draw(
        "The DAX window's books",
        ("ranges of 2 MiB", "ns of a step"),
        (10.0, 1e5),
        (10.0, 1e5),
        &curves,
    )
}

fn threads_table() {
    println!(
        "\n{:>7} {:>8} {:>9} {:>9} {:>11}   on a file of 1 TiB",
        "queues", "threads", "reads", "requests", "us per read"
    );
    for n in [1, 4, 16, 64] {
        let outcome = threads::measure(n, n.into(), 2000 / u64::from(n).min(8));
        println!(
            "{n:>7} {n:>8} {:>9} {:>9} {:>11.1}",
            outcome.reads,
            outcome.requests,
            outcome.took.as_secs_f64() * 1e6 / outcome.reads as f64
        );
    }
}
