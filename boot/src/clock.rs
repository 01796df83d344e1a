//! Time: a clock that never goes back, from the time stamp counter, and the
//! time of day, from the PC's real-time clock.
//!
//! The counter's rate comes from the processor or the hypervisor where they say
//! it, and else from 50 ms against the programmable interval timer (8254),
//! which every PC has at 1193182 Hz.

use core::{
    arch::x86_64::{__cpuid, _mm_lfence, _rdtsc},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use x86_64::instructions::port::Port;

use crate::rtc::DateTime;

/// Counter value at moment 0.
static START: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per tick, times 2^32; 0 until the clock runs.
static SCALE: AtomicU64 = AtomicU64::new(0);
/// Time of day at moment 0, in nanoseconds since 1970; 0 if unknown.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Starts the clock.
pub fn init() {
    let (hertz, source) = match stated_rate() {
        Some(hertz) => (hertz, "cpuid"),
        None => (measured_rate(), "interval timer"),
    };
    START.store(ticks(), Ordering::Relaxed);
    SCALE.store(
        ((1_000_000_000u128 << 32) / u128::from(hertz)) as u64,
        Ordering::Release,
    );
    match DateTime::read(cmos) {
        Some(date) => {
            // The clock shows whole seconds; half a one is the best guess for the rest.
            let epoch = Duration::from_secs(date.unix_seconds()) + Duration::from_millis(500);
            EPOCH.store((epoch - now()).as_nanos() as u64, Ordering::Release);
        }
        None => log::warn!("the real-time clock shows no valid date"),
    }
    log::debug!("time stamp counter at {} kHz ({source})", hertz / 1000);
}

/// Returns the time since the clock was started; zero before. Never goes back.
pub fn now() -> Duration {
    let scale = SCALE.load(Ordering::Acquire);
    if scale == 0 {
        return Duration::ZERO;
    }
    let ticks = ticks().saturating_sub(START.load(Ordering::Relaxed));
    Duration::from_nanos(((u128::from(ticks) * u128::from(scale)) >> 32) as u64)
}

/// Returns the time since 1970-01-01 UTC, to within a second of the PC's clock.
/// `None` if that clock shows no valid date.
pub fn realtime() -> Option<Duration> {
    match EPOCH.load(Ordering::Acquire) {
        0 => None,
        epoch => Some(Duration::from_nanos(epoch) + now()),
    }
}

/// Waits without giving the CPU away: for device set-up, microseconds.
pub fn spin(time: Duration) {
    let end = now() + time;
    while now() < end {
        core::hint::spin_loop();
    }
}

fn ticks() -> u64 {
    // SAFETY: both instructions exist on every 64-bit processor. The fence keeps
    // the counter from being read before earlier loads.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

/// The rate that leaf 0x15 (crystal and ratio) or the hypervisor's leaf
/// 0x40000010 (kHz) states.
fn stated_rate() -> Option<u64> {
    if __cpuid(0).eax >= 0x15 {
        let leaf = __cpuid(0x15);
        if leaf.eax != 0 && leaf.ebx != 0 && leaf.ecx != 0 {
            return Some(u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax));
        }
    }
    let hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    if hypervisor && __cpuid(0x4000_0000).eax >= 0x4000_0010 {
        let khz = __cpuid(0x4000_0010).eax;
        return (khz != 0).then(|| u64::from(khz) * 1000);
    }
    None
}

/// Counts ticks against channel 2 of the interval timer.
fn measured_rate() -> u64 {
    const HERTZ: u64 = 1_193_182;
    let mut gate = Port::<u8>::new(0x61);
    let mut command = Port::<u8>::new(0x43);
    let mut channel = Port::<u8>::new(0x42);
    // SAFETY: the interval timer's channel 2 and its gate: the PC speaker's,
    // which nobody uses here.
    let mut sample = unsafe {
        // Gate on, speaker off; mode 0: count down once from 0xffff, 54.9 ms.
        let old = gate.read();
        gate.write((old & !2) | 1);
        command.write(0xb0);
        channel.write(0xff);
        channel.write(0xff);
        move || {
            // The counter is latched by the command, so the tick to pair with
            // it lies between the two readings around it.
            let before = ticks();
            command.write(0x80);
            let after = ticks();
            let count = u64::from(channel.read()) | u64::from(channel.read()) << 8;
            (before.midpoint(after), after - before, count)
        }
    };
    // A reading that was disturbed took long: keep the quickest of several.
    let mut best = || {
        (0..8)
            .map(|_| sample())
            .min_by_key(|s| s.1)
            .expect("eight samples")
    };
    let (first, _, from) = best();
    let end = from.saturating_sub(HERTZ / 25);
    loop {
        let (last, _, to) = best();
        if to <= end && to < from {
            return ((last - first) * HERTZ / (from - to)).max(1);
        }
    }
}

fn cmos(register: u8) -> u8 {
    // SAFETY: index and data port of the CMOS, used by this function alone and
    // only while one CPU runs.
    unsafe {
        Port::<u8>::new(0x70).write(0x80 | register);
        Port::<u8>::new(0x71).read()
    }
}
