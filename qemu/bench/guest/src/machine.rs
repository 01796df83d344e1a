//! The machine around the workloads: mounts, counters of the kernel's, the end.

use std::{arch::asm, ffi::CStr, fs, time::Duration};

use rustix::{
    mount::MountFlags,
    process::getpid,
    time::{ClockId, clock_gettime},
};

/// Says whether this is the machine's first process.
pub(crate) fn is_first() -> bool {
    getpid().is_init()
}

/// Mounts a file system.
pub(crate) fn mount(source: &str, to: &str, kind: &str, options: &CStr) -> Result<(), String> {
    rustix::mount::mount(source, to, kind, MountFlags::empty(), options)
        .map_err(|error| format!("mounting {to}: {error}"))
}

/// Mounts what the workloads and the counters below need.
pub(crate) fn mount_all() -> Result<(), String> {
    mount("proc", "/proc", "proc", c"")?;
    mount("tmp", "/tmp", "tmpfs", c"size=256m")
}

/// Returns the time since some moment in ns.
pub(crate) fn now() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Executes `nopl 0x52454550(%rax)`, which does nothing: QEMU's instruction
/// counter (`../insns`) looks for it.
#[inline(always)]
pub(crate) fn mark() {
    // SAFETY: a no-op; the address in it is not accessed.
    unsafe { asm!(".byte 0x0f, 0x1f, 0x80, 0x50, 0x45, 0x45, 0x52") };
}

/// Writes back everything, empties the caches of data, names and attributes, and
/// leaves the forgets time.
pub(crate) fn drop_caches() {
    rustix::fs::sync();
    if let Err(error) = fs::write("/proc/sys/vm/drop_caches", "3\n") {
        println!("env drop_caches={error}");
    }
    std::thread::sleep(Duration::from_millis(100));
}

/// Returns how many interrupts of virtio devices there were.
pub(crate) fn interrupts() -> u64 {
    let text = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains("virtio"));
    // A number for each processor stands behind the vector's.
    let numbers = lines.flat_map(|line| {
        line.split_whitespace()
            .skip(1)
            .map_while(|word| word.parse::<u64>().ok())
    });
    numbers.sum()
}

/// Returns how long the processors were idle, in ns and steps of 10 ms.
pub(crate) fn idle() -> u64 {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = text
        .split_whitespace()
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0);
    (seconds * 1e9) as u64
}

/// Ends the machine through QEMU's exit device, with the status that the test
/// kernel would give it (see `boot/src/exit.rs`).
pub(crate) fn exit(status: u8) -> ! {
    // What was printed must be out before the machine is gone.
    std::thread::sleep(Duration::from_millis(100));
    // SAFETY: asks for the four ports of the exit device, and nothing else of
    // this process touches ports.
    let granted = unsafe { libc::ioperm(0xf4, 4, 1) } == 0;
    if granted {
        let value = u32::from(status) + 1;
        // SAFETY: the port was granted; writing to it ends the machine.
        unsafe { asm!("out dx, eax", in("dx") 0xf4u16, in("eax") value) };
    }
    // Without the device: the first process must not end.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
