//! [`HostPlatform`]: threads, clocks and callers of a Linux process.
//!
//! Who is calling, whether a signal is pending and on which CPU the call runs
//! are properties of a thread here, set by the test through [`this_thread`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant, SystemTime};

use virtio_fs::device::SharedMemory;
use virtio_fs::device::window::WindowMemory;
use virtio_fs::platform::{Caller, Platform, Signal};
use virtio_fs::sync::order::{self, Context, Held};

use crate::{HostHal, VhostUserTransport, window};

/// How a thread waits for the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Sleeps until an interrupt wakes it; the transport needs an interrupt
    /// handler that leads to the driver.
    Sleep,
    /// Looks at the ring again and again.
    Poll,
}

/// The driver's surroundings in a Linux process.
pub struct HostPlatform {
    start: Instant,
    waiting: Waiting,
}

impl HostPlatform {
    /// Makes a platform whose clock starts at 0 now.
    pub fn new(waiting: Waiting) -> Self {
        order::watch(|check| HELD.with(|held| check(held, CONTEXT.get())));
        Self {
            start: Instant::now(),
            waiting,
        }
    }
}

impl Platform for HostPlatform {
    type Hal = HostHal;
    type Transport = VhostUserTransport;
    type Thread = Thread;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn realtime(&self) -> Option<Duration> {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .ok()
    }

    fn current_thread(&self) -> Thread {
        std::thread::current()
    }

    fn park(&self, deadline: Option<Duration>) {
        match (self.waiting, deadline) {
            // The daemon needs a CPU too, and there may be only one.
            (Waiting::Poll, _) => std::thread::yield_now(),
            (Waiting::Sleep, None) => std::thread::park(),
            (Waiting::Sleep, Some(deadline)) => {
                std::thread::park_timeout(deadline.saturating_sub(self.now()));
            }
        }
    }

    fn unpark(&self, thread: &Thread) {
        thread.unpark();
    }

    fn can_sleep(&self) -> bool {
        self.waiting == Waiting::Sleep
    }

    fn map_window(&self, region: SharedMemory) -> Option<WindowMemory> {
        let base = window::virt(region.addr, usize::try_from(region.len).ok()?)?;
        // SAFETY: the range is reserved for the window's mappings alone, and stays
        // reserved while the device lives, which the driver keeps alive; nothing
        // in this process refers to bytes in it.
        Some(unsafe { WindowMemory::new(base, region.len) })
    }

    fn signal(&self) -> Signal {
        SIGNAL.with(|signal| decode(signal.load(Ordering::Acquire)))
    }

    fn cpu(&self) -> usize {
        CPU.get().unwrap_or_else(|| {
            // SAFETY: no argument; -1, which cannot happen on this kernel,
            // becomes CPU 0.
            usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0)
        })
    }

    fn caller(&self) -> Caller {
        CALLER.get()
    }

    fn in_group(&self, gid: u32) -> bool {
        GROUPS.with_borrow(|groups| groups.contains(&gid))
    }
}

thread_local! {
    static HELD: Held = const { Held::new() };
    static CONTEXT: Cell<Context> = const { Cell::new(Context::Thread) };
    static SIGNAL: Arc<AtomicU8> = const { AtomicU8::new(0) }.into();
    static CPU: Cell<Option<usize>> = const { Cell::new(None) };
    static CALLER: Cell<Caller> = const { Cell::new(Caller::ROOT) };
    static GROUPS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Runs an interrupt handler of the driver's, as one that may wait for nothing.
pub(crate) fn in_interrupt(handler: impl FnOnce()) {
    let before = CONTEXT.replace(Context::Interrupt);
    handler();
    CONTEXT.set(before);
}

fn decode(signal: u8) -> Signal {
    match signal {
        0 => Signal::None,
        1 => Signal::Interrupt,
        _ => Signal::Kill,
    }
}

/// Makes calls of this thread come from `caller`, who belongs to `groups` as
/// well, until the next call.
pub fn set_caller(caller: Caller, groups: &[u32]) {
    CALLER.set(caller);
    GROUPS.with_borrow_mut(|own| {
        own.clear();
        own.extend_from_slice(groups);
    });
}

/// Makes this thread claim to run on `cpu`; `None` for the true one.
pub fn set_cpu(cpu: Option<usize>) {
    CPU.set(cpu);
}

/// Returns a handle with which other threads signal this one.
pub fn this_thread() -> Signals {
    Signals {
        thread: std::thread::current(),
        signal: SIGNAL.with(Arc::clone),
    }
}

/// Sets the signal of one thread, from any thread.
#[derive(Clone)]
pub struct Signals {
    thread: Thread,
    signal: Arc<AtomicU8>,
}

impl Signals {
    /// Makes [`Platform::signal`] of the thread return `signal` from now on,
    /// and wakes the thread so that it looks.
    pub fn set(&self, signal: Signal) {
        let number = match signal {
            Signal::None => 0,
            Signal::Interrupt => 1,
            Signal::Kill => 2,
        };
        self.signal.store(number, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn park_ends_at_the_deadline_and_keeps_an_early_unpark() {
        let platform = HostPlatform::new(Waiting::Sleep);
        platform.unpark(&platform.current_thread());
        platform.park(None);
        let deadline = platform.now() + Duration::from_millis(20);
        while platform.now() < deadline {
            platform.park(Some(deadline));
        }
        // A deadline that has passed does not sleep at all.
        platform.park(Some(Duration::ZERO));
    }

    #[test]
    fn a_signal_wakes_a_sleeper_and_stays_with_its_thread() {
        let platform = Arc::new(HostPlatform::new(Waiting::Sleep));
        let (send, receive) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn({
            let platform = platform.clone();
            move || {
                send.send(this_thread()).unwrap();
                while platform.signal() == Signal::None {
                    platform.park(None);
                }
                platform.signal()
            }
        });
        receive.recv().unwrap().set(Signal::Kill);
        assert_eq!(sleeper.join().unwrap(), Signal::Kill);
        assert_eq!(platform.signal(), Signal::None);
    }

    #[test]
    fn callers_belong_to_threads() {
        let platform = HostPlatform::new(Waiting::Poll);
        let nobody = Caller {
            uid: 65534,
            ..Caller::ROOT
        };
        set_caller(nobody, &[7, 9]);
        set_cpu(Some(3));
        assert_eq!((platform.caller(), platform.cpu()), (nobody, 3));
        assert!(platform.in_group(9) && !platform.in_group(8));
        std::thread::scope(|scope| {
            let other = scope.spawn(|| (platform.caller(), platform.in_group(9)));
            assert_eq!(other.join().unwrap(), (Caller::ROOT, false));
        });
    }
}
