//! Eventfds as interrupt lines.
//!
//! Each queue has a kick eventfd, which the driver writes and the daemon reads,
//! and a call eventfd the other way round. They live as long as the transport,
//! over resets and reconnects, so that ringing a queue takes no lock. One
//! thread, if the driver wants interrupts at all, waits for all call eventfds
//! and for the end of the connection.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::thread::JoinHandle;

use crate::platform::in_interrupt;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Called in the interrupt thread with the vector that the driver chose for a
/// queue or for configuration changes. Must not block.
pub type Handler = Box<dyn Fn(u16) + Send + Sync>;

/// Stands for no vector (VIRTIO_MSI_NO_VECTOR).
const NO_VECTOR: u16 = u16::MAX;

/// Marks in the epoll set, above every queue number.
const CONFIG: u64 = 1 << 32;
const SOCKET: u64 = 2 << 32;
const STOP: u64 = 3 << 32;

/// The eventfds of one queue, and how often they rang.
struct Line {
    kick: EventFd,
    call: EventFd,
    vector: AtomicU16,
    kicks: AtomicU64,
    interrupts: AtomicU64,
}

/// All eventfds of one device.
pub(crate) struct Lines {
    queues: Box<[Line]>,
    config: EventFd,
    config_vector: AtomicU16,
    config_interrupts: AtomicU64,
    stop: EventFd,
    epoll: OwnedFd,
}

impl Lines {
    /// Makes lines for `queues` queues. None interrupts before
    /// [`enable`](Self::enable).
    pub(crate) fn new(queues: u16) -> io::Result<Self> {
        // Non-blocking on our side and the daemon's: the flag is shared.
        let eventfd = || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC);
        let line = |_| {
            Ok(Line {
                kick: eventfd()?,
                call: eventfd()?,
                vector: AtomicU16::new(NO_VECTOR),
                kicks: AtomicU64::new(0),
                interrupts: AtomicU64::new(0),
            })
        };
        // SAFETY: no pointer is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        let lines = Self {
            queues: (0..queues).map(line).collect::<io::Result<_>>()?,
            config: eventfd()?,
            config_vector: AtomicU16::new(NO_VECTOR),
            config_interrupts: AtomicU64::new(0),
            stop: eventfd()?,
            // SAFETY: epoll_create1 just returned this descriptor to us alone.
            epoll: unsafe { OwnedFd::from_raw_fd(epoll) },
        };
        lines.control(
            libc::EPOLL_CTL_ADD,
            lines.stop.as_raw_fd(),
            libc::EPOLLIN,
            STOP,
        )?;
        lines.control(
            libc::EPOLL_CTL_ADD,
            lines.config.as_raw_fd(),
            libc::EPOLLIN,
            CONFIG,
        )?;
        Ok(lines)
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, mark: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: mark,
        };
        // SAFETY: `event` is valid; descriptors that are none are an error.
        if unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Returns how many queues have lines.
    pub(crate) fn len(&self) -> u16 {
        self.queues.len() as u16
    }

    /// Returns the kick and call eventfds of `queue`, if it has any.
    pub(crate) fn eventfds(&self, queue: u16) -> Option<(&EventFd, &EventFd)> {
        let line = self.queues.get(usize::from(queue))?;
        Some((&line.kick, &line.call))
    }

    /// Rings `queue`.
    pub(crate) fn kick(&self, queue: u16) {
        if let Some(line) = self.queues.get(usize::from(queue)) {
            line.kicks.fetch_add(1, Ordering::Relaxed);
            // It can only fail if 2^64 - 2 kicks are pending: the queue is
            // rung then.
            let _ = line.kick.write(1);
        }
    }

    /// Counts how often `queue` was rung.
    pub(crate) fn kicks(&self, queue: u16) -> u64 {
        let line = self.queues.get(usize::from(queue));
        line.map_or(0, |line| line.kicks.load(Ordering::Relaxed))
    }

    /// Counts the interrupts of `queue` that were delivered or waited for.
    pub(crate) fn interrupts(&self, queue: u16) -> u64 {
        let line = self.queues.get(usize::from(queue));
        line.map_or(0, |line| line.interrupts.load(Ordering::Relaxed))
    }

    /// Counts the configuration change interrupts that were delivered.
    pub(crate) fn config_interrupts(&self) -> u64 {
        self.config_interrupts.load(Ordering::Relaxed)
    }

    /// Lets `queue` interrupt through `vector`.
    pub(crate) fn enable(&self, queue: u16, vector: u16) -> io::Result<()> {
        let Some(line) = self.queues.get(usize::from(queue)) else {
            return Ok(());
        };
        line.vector.store(vector, Ordering::Release);
        let call = &line.call;
        match self.control(
            libc::EPOLL_CTL_ADD,
            call.as_raw_fd(),
            libc::EPOLLIN,
            u64::from(queue),
        ) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    /// Keeps `queue` from interrupting.
    pub(crate) fn disable(&self, queue: u16) {
        if let Some((_, call)) = self.eventfds(queue) {
            // A queue that did not interrupt is not in the set: no matter.
            let _ = self.control(libc::EPOLL_CTL_DEL, call.as_raw_fd(), 0, 0);
        }
    }

    /// Sends configuration change interrupts to `vector`; `None` for nowhere.
    pub(crate) fn set_config_vector(&self, vector: Option<u16>) {
        let vector = vector.unwrap_or(NO_VECTOR);
        self.config_vector.store(vector, Ordering::Release);
    }

    /// Watches a new connection for its end. Closing the socket ends that.
    pub(crate) fn watch(&self, socket: RawFd) -> io::Result<()> {
        // Once only: a hang-up stays, and the thread would spin on it.
        let events = libc::EPOLLRDHUP | libc::EPOLLONESHOT;
        self.control(libc::EPOLL_CTL_ADD, socket, events, SOCKET)
    }

    /// Raises a configuration change interrupt.
    pub(crate) fn raise_config(&self) {
        let _ = self.config.write(1);
    }

    /// Takes one interrupt of `queue` if it is pending.
    pub(crate) fn take(&self, queue: u16) -> bool {
        let line = self.queues.get(usize::from(queue));
        line.is_some_and(|line| {
            let pending = line.call.read().is_ok();
            if pending {
                line.interrupts.fetch_add(1, Ordering::Relaxed);
            }
            pending
        })
    }

    /// Waits for the next interrupt and returns its vector; `None` to stop.
    fn next(&self) -> io::Result<Option<u16>> {
        loop {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: room for one event is passed with the count 1.
            let count = unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &mut event, 1, -1) };
            if count < 0 {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return Err(error);
            }
            // Copied out: the struct is packed.
            match event.u64 {
                STOP => {
                    let _ = self.stop.read();
                    return Ok(None);
                }
                SOCKET => {}
                CONFIG => {
                    let _ = self.config.read();
                }
                queue => {
                    let queue = queue as u16;
                    let line = self.queues.get(usize::from(queue));
                    if let Some(line) = line
                        && self.take(queue)
                    {
                        return Ok(Some(line.vector.load(Ordering::Acquire)));
                    }
                    continue;
                }
            }
            let vector = self.config_vector.load(Ordering::Acquire);
            if vector != NO_VECTOR {
                self.config_interrupts.fetch_add(1, Ordering::Relaxed);
                return Ok(Some(vector));
            }
        }
    }
}

/// A running interrupt thread. Dropping it stops the thread.
pub(crate) struct InterruptThread {
    lines: Arc<Lines>,
    thread: Option<JoinHandle<()>>,
}

impl InterruptThread {
    /// Starts a thread that calls `handler` for each interrupt.
    pub(crate) fn start(lines: Arc<Lines>, handler: Handler) -> io::Result<Self> {
        let shared = lines.clone();
        let thread = std::thread::Builder::new()
            .name("interrupts".into())
            .spawn(move || {
                loop {
                    match shared.next() {
                        Ok(Some(vector)) => in_interrupt(|| handler(vector)),
                        Ok(None) => return,
                        Err(error) => panic!("epoll for interrupts: {error}"),
                    }
                }
            })?;
        Ok(Self {
            lines,
            thread: Some(thread),
        })
    }
}

impl Drop for InterruptThread {
    fn drop(&mut self) {
        let _ = self.lines.stop.write(1);
        let Some(thread) = self.thread.take() else {
            return;
        };
        // A handler may own the last reference to the device; its own thread
        // cannot wait for itself and ends after the handler returns.
        if thread.thread().id() != std::thread::current().id() {
            let _ = thread.join();
        }
    }
}
