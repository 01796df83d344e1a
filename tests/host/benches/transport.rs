//! What a round trip costs on this machine, without any driver above it: the
//! floor for the driver's own figures. No verdict, only numbers.
//!
//! `taskset -c 1 cargo bench --package virtio-fs-host` gives the figures of one
//! CPU.

use std::time::{Duration, Instant};

use virtio_fs_host::daemon::Config;
use virtio_fs_host::transport::Options;

#[path = "../tests/transport/common.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod common;

use common::{Device, Wait};

/// Length of the file that is read.
const FILE_LEN: usize = 64 << 20;
const ROUND_TRIPS: usize = 20_000;

fn percentile(times: &[Duration], percent: usize) -> f64 {
    times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e6
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), vec![0x5a; FILE_LEN]).unwrap();
    println!("wait     GETATTR p50 us  p99 us   READ 4 KiB  64 KiB  1 MiB (MiB/s)");
    for wait in [Wait::Poll, Wait::Eventfd, Wait::Thread] {
        let daemon = Config::virtiofsd(folder.path())
            .arguments(["--log-level", "warn"])
            .start()
            .unwrap();
        let mut device = Device::new(daemon.connect(Options::default()).unwrap(), wait);
        device.init();
        let mut times: Vec<_> = (0..ROUND_TRIPS)
            .map(|_| {
                let begun = Instant::now();
                device.getattr(1).unwrap();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        let node = device.lookup("file").unwrap();
        let fh = device.open(node).unwrap();
        let rates = [4096, 64 << 10, 1 << 20].map(|size: usize| {
            let total = FILE_LEN.min(size * 4096);
            let begun = Instant::now();
            for at in (0..total).step_by(size) {
                device.read(node, fh, at as u64, size as u32).unwrap();
            }
            (total >> 20) as f64 / begun.elapsed().as_secs_f64()
        });
        println!(
            "{:8} {:14.1} {:7.1}   {:10.0} {:7.0} {:7.0}",
            format!("{wait:?}"),
            percentile(&times, 50),
            percentile(&times, 99),
            rates[0],
            rates[1],
            rates[2],
        );
    }
}
