//! [`VhostUserTransport`]: the registers of a virtio device whose other end is
//! a vhost-user socket.
//!
//! It behaves as a device on a bus does. A daemon that dies shows as a device
//! that needs a reset, or as one that was pulled out ([`Loss`]); a reset may
//! find a new daemon on the same socket ([`Reconnect`]).
//!
//! Register accesses send messages and wait for answers, so unlike on a bus
//! they may take a while, bounded by [`Options::timeout`]. Ringing a queue is
//! one write to an eventfd.

use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use virtio_fs::device::transport::{DeviceStatus, InterruptStatus};
use virtio_fs::device::{QueueLayout, SharedMemory, Transport, TransportError};

use crate::interrupt::{Handler, InterruptThread, Lines};
use crate::session::{Session, SessionError};
use crate::window::{self, Window};

/// How the end of the daemon shows in the registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loss {
    /// DEVICE_NEEDS_RESET is set in the status.
    #[default]
    NeedsReset,
    /// Every register reads as all ones, as one of a device that is gone.
    AllOnes,
}

/// Whether a reset looks for a new daemon when the old one is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// It does not: the device offers nothing any more.
    #[default]
    Never,
    /// It connects to the same socket path once per reset.
    OnReset,
}

/// How a device is to behave.
#[derive(Clone, Debug)]
pub struct Options {
    /// Tag in the configuration space if the daemon serves none.
    pub tag: String,
    /// Largest queue size that the driver is offered.
    pub queue_size: u16,
    /// How the end of the daemon shows.
    pub loss: Loss,
    /// Whether a reset looks for a new daemon.
    pub reconnect: Reconnect,
    /// Which mapping requests the window refuses.
    pub window: window::Rules,
    /// Bound on the daemon's answers to what one register access makes of
    /// messages. A daemon that is later counts as dead.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tag: "host".into(),
            queue_size: 1024,
            loss: Loss::default(),
            reconnect: Reconnect::default(),
            window: window::Rules::QEMU,
            timeout: Duration::from_secs(5),
        }
    }
}

/// How a wait for an interrupt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The queue rang.
    Interrupt,
    /// The daemon is gone.
    HungUp,
    /// Nothing happened in time.
    TimedOut,
}

/// A virtio-fs device behind a vhost-user socket.
pub struct VhostUserTransport {
    path: PathBuf,
    options: Options,
    lines: Arc<Lines>,
    generation: Arc<AtomicU64>,
    resets: AtomicU64,
    reconnects: AtomicU64,
    state: Mutex<State>,
    /// After `state`: the thread may be in a handler that reads a register.
    interrupts: Mutex<Option<InterruptThread>>,
}

/// What changes with the device's life.
struct State {
    /// `None` once the daemon was found dead or silent.
    session: Option<Session>,
    status: DeviceStatus,
    driver_features: u64,
    /// Queues that the daemon knows, by number.
    queues: Vec<bool>,
    /// Windows of this device; the last is the present one. Earlier ones stay
    /// reserved, so that a stale pointer finds nothing rather than something.
    windows: Vec<Arc<Mutex<Window>>>,
}

impl VhostUserTransport {
    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not answer as vhost-user wants it.
    pub fn connect(path: &Path, options: Options) -> Result<Self, SessionError> {
        let generation = Arc::new(AtomicU64::new(0));
        let session = Session::open(path, &options.tag, options.timeout, generation.clone())?;
        let lines = Arc::new(Lines::new(session.queues())?);
        let transport = Self {
            path: path.to_owned(),
            state: Mutex::new(State {
                session: None,
                status: DeviceStatus::empty(),
                driver_features: 0,
                queues: vec![false; usize::from(lines.len())],
                windows: Vec::new(),
            }),
            options,
            lines,
            generation,
            resets: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            interrupts: Mutex::new(None),
        };
        transport.adopt(&mut transport.state(), session)?;
        Ok(transport)
    }

    /// Has `handler` called for every interrupt, in a thread of its own, from
    /// now on, with the vector that the driver chose in `set_queue` or
    /// `set_config_vector`. A handler that was set before is forgotten.
    ///
    /// The end of the daemon is a configuration change.
    ///
    /// The handler must not own the device, or neither is ever freed: give it a
    /// `Weak`.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn set_interrupt_handler(&self, handler: Handler) -> io::Result<()> {
        let mut thread = self
            .interrupts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *thread = None;
        *thread = Some(InterruptThread::start(self.lines.clone(), handler)?);
        Ok(())
    }

    /// Waits in the calling thread until `queue` rings, for drivers without an
    /// interrupt thread.
    pub fn wait_for_interrupt(&self, queue: u16, timeout: Duration) -> Wake {
        let Some((_, call)) = self.lines.eventfds(queue) else {
            return Wake::TimedOut;
        };
        let socket = self.state().session.as_ref().map_or(-1, Session::socket);
        let mut fds =
            [(call.as_raw_fd(), libc::POLLIN), (socket, libc::POLLRDHUP)].map(|(fd, events)| {
                libc::pollfd {
                    fd,
                    events,
                    revents: 0,
                }
            });
        let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the array is passed with its length.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
        if self.lines.take(queue) {
            Wake::Interrupt
        } else if socket < 0 || fds[1].revents != 0 {
            Wake::HungUp
        } else {
            Wake::TimedOut
        }
    }

    /// Returns the number of queues, hiprio included.
    pub fn queues(&self) -> u16 {
        self.lines.len()
    }

    /// Counts how often the driver rang `queue`.
    pub fn kicks(&self, queue: u16) -> u64 {
        self.lines.kicks(queue)
    }

    /// Counts the interrupts of `queue` that were delivered or waited for.
    pub fn interrupts(&self, queue: u16) -> u64 {
        self.lines.interrupts(queue)
    }

    /// Counts the configuration change interrupts that were delivered.
    pub fn config_interrupts(&self) -> u64 {
        self.lines.config_interrupts()
    }

    /// Counts the resets that left a device with a daemon behind.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// Counts the resets that found a new daemon.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Runs `look` on the window, if the device has one.
    pub fn with_window<T>(&self, look: impl FnOnce(&Window) -> T) -> Option<T> {
        let window = self.state().windows.last().cloned()?;
        let window = window.lock().unwrap_or_else(PoisonError::into_inner);
        Some(look(&window))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `session` the device's connection.
    fn adopt(&self, state: &mut State, mut session: Session) -> Result<(), SessionError> {
        let len = session.window_len();
        let present = state
            .windows
            .last()
            .map(|window| window.lock().unwrap_or_else(PoisonError::into_inner).len());
        if len != 0 && present != Some(len) {
            let window = Window::reserve(len, self.options.window)?;
            state.windows.push(Arc::new(Mutex::new(window)));
        }
        let window = (len != 0).then(|| state.windows.last().cloned()).flatten();
        session.open_channel(window, self.lines.clone())?;
        self.lines.watch(session.socket())?;
        state.session = Some(session);
        Ok(())
    }

    /// Resets the device. Without a daemon it is a device that offers nothing,
    /// as QEMU's is: no features, no queues, no configuration.
    fn reset(&self, state: &mut State) -> Result<(), SessionError> {
        let known: Vec<u16> = (0..)
            .zip(&state.queues)
            .filter(|(_, known)| **known)
            .map(|(queue, _)| queue)
            .collect();
        for &queue in &known {
            self.lines.disable(queue);
        }
        self.lines.set_config_vector(None);
        state.queues.fill(false);
        state.status = DeviceStatus::empty();
        state.driver_features = 0;
        // The old daemon may be alive, dead, or no longer talking sense.
        let stopped = match state.session.as_mut() {
            Some(session) if !session.hung_up() => session.reset(known.into_iter()),
            _ => {
                state.session = None;
                Ok(())
            }
        };
        if let Err(error) = stopped {
            log::warn!("reset: {error}");
            state.session = None;
        }
        for window in &state.windows {
            window
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear()?;
        }
        if state.session.is_none() {
            if self.options.reconnect == Reconnect::Never {
                return Ok(());
            }
            let session = Session::open(
                &self.path,
                &self.options.tag,
                self.options.timeout,
                self.generation.clone(),
            )?;
            self.generation.fetch_add(1, Ordering::Release);
            self.adopt(state, session)?;
            self.reconnects.fetch_add(1, Ordering::Relaxed);
        }
        // Rings of the driver's former life must not interrupt in this one.
        for queue in 0..self.lines.len() {
            if let Some((kick, call)) = self.lines.eventfds(queue) {
                let _ = kick.read();
                let _ = call.read();
            }
        }
        self.resets.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Says what a 64-bit register reads as, given what it would hold.
    fn read(&self, state: &State, value: impl FnOnce(&Session) -> u64) -> u64 {
        match (&state.session, self.options.loss) {
            (Some(session), Loss::AllOnes) if session.hung_up() => u64::MAX,
            (Some(session), _) => value(session),
            (None, Loss::AllOnes) => u64::MAX,
            (None, Loss::NeedsReset) => 0,
        }
    }
}

impl Transport for VhostUserTransport {
    fn device_features(&self) -> u64 {
        self.read(&self.state(), Session::features)
    }

    fn set_driver_features(&self, features: u64) {
        self.state().driver_features = features;
    }

    fn status(&self) -> DeviceStatus {
        let state = self.state();
        let alive = state
            .session
            .as_ref()
            .is_some_and(|session| !session.hung_up());
        match self.options.loss {
            _ if alive => state.status,
            // A reset has been done; that nobody is there shows in the next steps.
            Loss::NeedsReset if state.status.is_empty() => state.status,
            Loss::NeedsReset => state.status | DeviceStatus::DEVICE_NEEDS_RESET,
            // The register is one byte wide on PCI.
            Loss::AllOnes => DeviceStatus::from_bits_retain(0xff),
        }
    }

    fn set_status(&self, status: DeviceStatus) {
        let mut guard = self.state();
        let state = &mut *guard;
        if status.is_empty() {
            if let Err(error) = self.reset(state) {
                log::warn!("reset: {error}");
            }
            return;
        }
        let new = status.difference(state.status);
        let mut accepted = status;
        let Some(session) = state.session.as_mut() else {
            state.status = status;
            return;
        };
        if new.contains(DeviceStatus::FEATURES_OK) {
            let wanted = state.driver_features;
            let strange = wanted & !session.features() != 0;
            if strange || session.set_features(wanted).is_err() {
                accepted.remove(DeviceStatus::FEATURES_OK);
            }
        }
        if new.contains(DeviceStatus::DRIVER_OK) {
            for (queue, _) in (0..).zip(&state.queues).filter(|(_, known)| **known) {
                if let Err(error) = session.enable(queue) {
                    log::error!("{error}");
                    accepted |= DeviceStatus::DEVICE_NEEDS_RESET;
                }
            }
        }
        state.status = accepted;
    }

    fn max_queue_size(&self, queue: u16) -> u16 {
        let size = |session: &Session| {
            let exists = queue < session.queues().min(self.lines.len());
            if exists {
                u64::from(self.options.queue_size)
            } else {
                0
            }
        };
        self.read(&self.state(), size) as u16
    }

    fn set_queue(&self, queue: u16, layout: &QueueLayout) -> Result<(), TransportError> {
        let refused = |error: SessionError| {
            log::error!("queue {queue}: {error}");
            TransportError::Queue(queue)
        };
        let mut guard = self.state();
        let state = &mut *guard;
        let running = state.status.contains(DeviceStatus::DRIVER_OK);
        let known = state
            .queues
            .get_mut(usize::from(queue))
            .ok_or(TransportError::Queue(queue))?;
        let session = state.session.as_mut().ok_or(TransportError::Queue(queue))?;
        session
            .set_queue(queue, layout, &self.lines)
            .map_err(refused)?;
        if let Some(vector) = layout.vector {
            self.lines
                .enable(queue, vector)
                .map_err(|_| TransportError::Vector(vector))?;
        }
        *known = true;
        if running {
            session.enable(queue).map_err(refused)?;
        }
        Ok(())
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), TransportError> {
        self.lines.set_config_vector(vector);
        Ok(())
    }

    fn notify(&self, queue: u16) {
        self.lines.kick(queue);
    }

    fn take_interrupt(&self) -> InterruptStatus {
        // Every queue has a line of its own.
        InterruptStatus::empty()
    }

    fn config_generation(&self) -> u32 {
        let generation = self.generation.load(Ordering::Acquire);
        self.read(&self.state(), |_| generation) as u32
    }

    fn read_config(&self, offset: usize, out: &mut [u8]) -> Result<(), TransportError> {
        let mut state = self.state();
        let end = TransportError::Config(offset);
        if self.read(&state, |_| 0) != 0 {
            out.fill(0xff);
            return Ok(());
        }
        let session = state.session.as_mut().ok_or(end)?;
        session.config(offset, out).ok_or(end)
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        let state = self.state();
        if id != 0 || state.session.as_ref()?.window_len() == 0 {
            return None;
        }
        let window = state.windows.last()?;
        let window = window.lock().unwrap_or_else(PoisonError::into_inner);
        Some(SharedMemory {
            addr: window.base(),
            len: window.len(),
        })
    }
}
