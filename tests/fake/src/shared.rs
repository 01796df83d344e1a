//! What transport, platform, handle and the device's threads have in common.

use core::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use virtio_fs::device::SharedMemory;

use crate::clock::Clock;
use crate::device::{Device, Interrupt};
use crate::memory::Memory;
use crate::platform::in_interrupt;

/// Who makes the device work, and on which clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drive {
    /// The notifying thread: when `notify` returns, everything is served that
    /// is not delayed on purpose. Virtual time. For one thread.
    #[default]
    Immediate,
    /// [`Control::step`](crate::Control::step), and a driver that waits in
    /// `park`. Virtual time. For one thread.
    Manual,
    /// A thread for each queue, on the host's clock.
    Threads,
}

/// Called for each interrupt, as the kernel's handler would.
pub(crate) type Handler = Arc<dyn Fn(Interrupt) + Send + Sync>;

pub(crate) struct Shared {
    device: Mutex<Device>,
    pub(crate) wake: Condvar,
    pub(crate) memory: Arc<Memory>,
    pub(crate) clock: Clock,
    pub(crate) drive: Drive,
    pub(crate) window: Option<SharedMemory>,
    pub(crate) handler: Mutex<Option<Handler>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("drive", &self.drive)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(
        device: Device,
        memory: Arc<Memory>,
        clock: Clock,
        drive: Drive,
        window: Option<SharedMemory>,
    ) -> Self {
        Self {
            device: Mutex::new(device),
            wake: Condvar::new(),
            memory,
            clock,
            drive,
            window,
            handler: Mutex::default(),
        }
    }

    /// Locks the device. A test thread that panicked inside did so in a check,
    /// so what it left is whole.
    pub(crate) fn device(&self) -> MutexGuard<'_, Device> {
        self.memory.attach();
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands interrupts to the driver's handler, with nothing locked. Without a
    /// handler they are dropped.
    pub(crate) fn deliver_interrupts(&self) -> bool {
        let mut any = false;
        loop {
            let next = self.device().interrupts.pop_front();
            let handler = self
                .handler
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            match (next, handler) {
                (Some(interrupt), Some(handler)) => in_interrupt(|| handler(interrupt)),
                (Some(_), None) => (),
                (None, _) => return any,
            }
            any = true;
        }
    }

    /// Lets the device do what it can now.
    pub(crate) fn step(&self) -> bool {
        let worked = self.device().run(self.clock.now());
        self.deliver_interrupts() | worked
    }

    /// Starts a thread for each queue.
    pub(crate) fn spawn(self: &Arc<Self>, queues: u16) -> Vec<JoinHandle<()>> {
        let start = |queue| {
            let shared = self.clone();
            thread::spawn(move || shared.serve(queue))
        };
        (0..queues).map(start).collect()
    }

    fn serve(&self, queue: u16) {
        let mut device = self.device();
        while !device.stop {
            let now = self.clock.now();
            // All threads deliver what is due, so replies come out of order.
            let worked = device.run_queue(queue, now) | device.finish_due(now);
            let worked = if queue == 0 && !worked {
                device.run(now)
            } else {
                worked
            };
            if !device.interrupts.is_empty() || worked {
                drop(device);
                self.deliver_interrupts();
                device = self.device();
                continue;
            }
            if device.finish_stragglers(now) {
                continue;
            }
            let next = device.next_due().map(|due| due.saturating_sub(now));
            device = match next {
                Some(time) => {
                    let woken = self.wake.wait_timeout(device, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .wake
                    .wait(device)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
