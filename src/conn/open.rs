//! Bringing a device to life and to rest.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use virtio_drivers::device::common::Feature;

use super::config::{Attach, Config, DaxMode};
use super::forget::Forgets;
use super::init;
use super::names::Names;
use super::notify::{self, Notices};
use super::pool::{Class, Pool};
use super::queue::Queue;
use super::recovery::Recovery;
use super::redo::Changes;
use super::state::{State, StateCell};
use super::{Connection, Counters};
use crate::device::Data;
use crate::device::config::{ConfigError, FsConfig};
use crate::device::dma::OutOfDma;
use crate::device::ring::RingFeatures;
use crate::device::transport::{DeviceStatus, Transport, TransportError};
use crate::device::window::Window;
use crate::error::Error;
use crate::platform::Platform;
use crate::sync::{Rank, SpinLock, SpinRwLock, WaitQueue, park};
use crate::wire::{Destroy, InitFlags};

/// The queue for FORGET and INTERRUPT.
pub(super) const HIPRIO: u16 = 0;
/// The first queue for requests, where there is no notification queue.
const FIRST_REQUEST_QUEUE: u16 = 1;
/// The shared memory region that is the DAX window (5.11.4).
pub(super) const WINDOW: u8 = 0;
/// VIRTIO_FS_F_NOTIFICATION: queue 1 is for notifications, requests begin at 2.
pub(super) const NOTIFICATION: u64 = 1 << 0;
/// The smallest queue that carries a request without indirect descriptors:
/// arguments, reply, two pieces of data.
pub(super) const MIN_QUEUE_SIZE: u16 = 4;
/// Entries of a descriptor table. With 1 MiB of data, each page apart, a request
/// has 259 pieces.
const MAX_SEGMENTS: u16 = 512;

/// Why a device could not be opened. Nothing is left of the attempt: the device
/// was reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// Its registers refused.
    Transport(TransportError),
    /// Its configuration makes no sense.
    Config(ConfigError),
    /// Something drives it already; see [`Attach`].
    Busy,
    /// It does not finish a reset.
    ResetStuck,
    /// It does not offer VIRTIO_F_VERSION_1.
    Legacy,
    /// It does not accept the features that it offered itself.
    FeaturesRefused(u64),
    /// This queue is missing or too small.
    Queue(u16),
    /// The kernel has not enough DMA memory.
    OutOfMemory,
    /// INIT failed.
    Init(Error),
    /// The server speaks another major version of the protocol.
    Version {
        /// Its major version.
        major: u32,
        /// Its minor version.
        minor: u32,
    },
    /// After a restart: the device has another tag, or the root is another
    /// directory.
    Another,
    /// After a restart: the server lacks features that the session began with and
    /// cannot do without.
    Lacks(InitFlags),
    /// After a restart: nothing answers at its address.
    Gone,
    /// The attempt was cut short: the connection was aborted or unmounted, or the
    /// thread that made it is to die.
    CutShort,
}

impl OpenError {
    /// Returns whether there is no sense in trying again.
    pub const fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Version { .. }
                | Self::Another
                | Self::Lacks(_)
                | Self::Legacy
                | Self::OutOfMemory
        )
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(e) => e.fmt(f),
            Self::Config(e) => e.fmt(f),
            Self::Busy => f.write_str("device is in use already"),
            Self::ResetStuck => f.write_str("device does not finish its reset"),
            Self::Legacy => f.write_str("device does not offer VIRTIO_F_VERSION_1"),
            Self::FeaturesRefused(bits) => {
                write!(f, "device refuses features {bits:#x}, which it offered")
            }
            Self::Queue(n) => write!(
                f,
                "virtqueue {n} is missing or has fewer than {MIN_QUEUE_SIZE} entries"
            ),
            Self::OutOfMemory => f.write_str("not enough DMA memory for the queues"),
            Self::Init(e) => write!(f, "server did not answer INIT: {e}"),
            Self::Version { major, minor } => {
                write!(f, "server speaks FUSE {major}.{minor}, not 7.x")
            }
            Self::Another => f.write_str("another file system is there than before"),
            Self::Lacks(flags) => write!(f, "server lacks {flags:?} now"),
            Self::Gone => f.write_str("device is gone"),
            Self::CutShort => f.write_str("cut short"),
        }
    }
}

impl core::error::Error for OpenError {}

impl From<TransportError> for OpenError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl From<ConfigError> for OpenError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

impl From<OutOfDma> for OpenError {
    fn from(_: OutOfDma) -> Self {
        Self::OutOfMemory
    }
}

/// Returns the vector that serves `queue` when the kernel has routed `vectors`
/// of them: see [`Config::vectors`].
pub(super) const fn vector_of(queue: u16, vectors: u16) -> Option<u16> {
    match vectors {
        0 => None,
        1 => Some(0),
        n => Some(1 + queue % (n - 1)),
    }
}

/// Resets the device and waits until it says so. Blocks up to `patience`.
pub(super) fn reset<T: Transport, P: Platform>(
    transport: &T,
    platform: &P,
    patience: Duration,
) -> Result<(), OpenError> {
    transport.set_status(DeviceStatus::empty());
    let end = platform.now() + patience;
    // 4.3.3.1.1 and 4.1.4.3.1: reset is done when the field reads 0.
    loop {
        let status = transport.status();
        if status.is_empty() || super::is_gone(status) {
            return Ok(());
        }
        if platform.now() >= end {
            return Err(OpenError::ResetStuck);
        }
        core::hint::spin_loop();
    }
}

/// Settles the device's features. Returns what they mean for rings, and which of
/// the `optional` ones there are.
pub(super) fn negotiate_features<T: Transport>(
    transport: &T,
    optional: u64,
) -> Result<(RingFeatures, u64), OpenError> {
    let offered = Feature::from_bits_retain(transport.device_features());
    if !offered.contains(Feature::VERSION_1) {
        return Err(OpenError::Legacy);
    }
    let wanted = Feature::VERSION_1
        | Feature::RING_INDIRECT_DESC
        | Feature::RING_EVENT_IDX
        | Feature::ACCESS_PLATFORM
        | Feature::ORDER_PLATFORM;
    let optional = offered.bits() & optional;
    let features = (offered & wanted) | Feature::from_bits_retain(optional);
    transport.set_driver_features(features.bits());
    let negotiated = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
    transport.set_status(negotiated);
    if !transport.status().contains(DeviceStatus::FEATURES_OK) {
        transport.set_status(negotiated | DeviceStatus::FAILED);
        return Err(OpenError::FeaturesRefused(features.bits()));
    }
    let ring_features = RingFeatures {
        indirect: features.contains(Feature::RING_INDIRECT_DESC),
        event_idx: features.contains(Feature::RING_EVENT_IDX),
    };
    Ok((ring_features, optional))
}

/// Returns the size of the high priority queue, of which the device takes up to
/// `max` entries.
pub(super) const fn hiprio_size(max: u16) -> u16 {
    1 << (if max < 64 { max } else { 64 }).ilog2()
}

/// Returns the size of a queue of which the device takes up to `max` entries:
/// the largest power of two that both sides take.
pub(super) fn queue_size(max: u16, config: &Config) -> u16 {
    1 << max.min(config.max_queue_size).max(MIN_QUEUE_SIZE).ilog2()
}

impl<P: Platform> Connection<P> {
    /// Sets the device up and opens a session with its server. Blocks until INIT
    /// is answered.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub fn open(
        platform: Arc<P>,
        transport: Arc<P::Transport>,
        config: Config,
    ) -> Result<Arc<Self>, OpenError> {
        if config.attach == Attach::IfIdle && transport.status().contains(DeviceStatus::DRIVER_OK) {
            return Err(OpenError::Busy);
        }
        reset(&*transport, &*platform, config.grace)?;
        let (registers, clock, grace) = (transport.clone(), platform.clone(), config.grace);
        let conn = Self::build(platform, transport, config).inspect_err(|_| {
            // It was not let go yet and touches nothing; this leaves it as found.
            if let Err(error) = reset(&*registers, &*clock, grace) {
                log::error!("virtio-fs: {error}");
            }
        })?;
        let conn = Arc::new(conn);
        // From here on `conn`'s drop resets the device.
        conn.transport.set_status(
            DeviceStatus::ACKNOWLEDGE
                | DeviceStatus::DRIVER
                | DeviceStatus::FEATURES_OK
                | DeviceStatus::DRIVER_OK,
        );
        let wants_interrupts = conn.has_interrupts();
        for queue in &conn.queues {
            queue.set_interrupts(wants_interrupts, &conn.env());
        }
        if let Some(notices) = &conn.notices {
            notices.start(&conn.transport, wants_interrupts);
        }
        let limits = init::negotiate(&conn)?;
        log::info!(
            "virtio-fs: {}: FUSE 7.{}, {} request queue(s) of {}, writes up to {} KiB",
            conn.device.tag,
            limits.minor,
            conn.queues.len(),
            conn.queue_size(),
            limits.max_write / 1024
        );
        *conn.limits.write() = limits;
        conn.pool
            .set_max_background(&conn.platform, limits.max_background);
        conn.state.change(State::Starting, State::Ready);
        Ok(conn)
    }

    /// Everything up to DRIVER_OK. All that can fail for memory comes before the
    /// step that lets the device go (S4-M23).
    fn build(
        platform: Arc<P>,
        transport: Arc<P::Transport>,
        config: Config,
    ) -> Result<Self, OpenError> {
        // 3.1.1: one step after the other.
        transport.set_status(DeviceStatus::ACKNOWLEDGE);
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let device = FsConfig::read(&*transport)?;
        let (ring_features, notified) = negotiate_features(&*transport, NOTIFICATION)?;

        let count = device
            .request_queues
            .min(config.max_request_queues.into())
            .max(1) as u16;
        let pool = Pool::new(config.max_active, config.max_queue_size.min(MAX_SEGMENTS))?;
        let slots = pool.iter().count();
        let make = |index: u16| -> Result<Queue<P>, OpenError> {
            let max = transport.max_queue_size(index);
            if max < MIN_QUEUE_SIZE || index == u16::MAX {
                return Err(OpenError::Queue(index));
            }
            let size = queue_size(max, &config);
            Ok(Queue::new(index, size, ring_features, slots)?)
        };
        let notices = match notified {
            0 => None,
            _ => {
                let max = transport.max_queue_size(notify::INDEX);
                if max == 0 {
                    return Err(OpenError::Queue(notify::INDEX));
                }
                let size = FsConfig::notify_buffer_size(&*transport)?;
                Some(Notices::new(max, size, ring_features)?)
            }
        };
        let first = FIRST_REQUEST_QUEUE + u16::from(notices.is_some());
        let queues: Box<[Queue<P>]> = (0..count)
            .map(|n| make(first.saturating_add(n)))
            .collect::<Result<_, _>>()?;
        let hiprio_max = transport.max_queue_size(HIPRIO);
        if hiprio_max < MIN_QUEUE_SIZE {
            return Err(OpenError::Queue(HIPRIO));
        }
        let forgets = Forgets::new(hiprio_size(hiprio_max), ring_features, config.forget_batch)?;
        if config.vectors > 0 {
            transport.set_config_vector(Some(0))?;
        }
        // Forgets are reaped with other work and need no interrupt of their own.
        transport.set_queue(HIPRIO, &forgets.layout(vector_of(HIPRIO, config.vectors)))?;
        if let Some(notices) = &notices {
            let vector = vector_of(notify::INDEX, config.vectors);
            transport.set_queue(notify::INDEX, &notices.layout(vector))?;
        }
        for queue in &queues {
            let vector = vector_of(queue.index(), config.vectors);
            transport.set_queue(queue.index(), &queue.with_ring(|ring| ring.layout(vector)))?;
        }
        let window = match config.dax {
            DaxMode::Never => None,
            _ => transport.shared_memory(WINDOW),
        };
        // No more than both say.
        let window = window.and_then(|region| {
            let memory = platform.map_window(region)?;
            (memory.len() <= region.len).then(|| Window::new(memory, region.addr))
        });
        let seed = platform.now().as_nanos() as u64;
        Ok(Self {
            platform,
            transport,
            config,
            device,
            window,
            state: StateCell::new(),
            stopped: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            limits: SpinRwLock::new(Rank::Leaf, init::before()),
            counters: Counters::default(),
            pool,
            queues,
            forgets,
            notices,
            locks: SpinLock::new(Rank::Leaf, Vec::new()),
            releases: SpinLock::new(Rank::Leaf, Vec::new()),
            next_unique: AtomicU64::new(0),
            names: Names::new(seed),
            changes: Changes::new(),
            recovery: SpinLock::new(Rank::Leaf, Recovery::new()),
            recovering: AtomicBool::new(false),
            progressed: AtomicBool::new(false),
            gate: WaitQueue::new(),
            keeper: SpinLock::new(Rank::Leaf, None),
        })
    }

    /// Ends the session: no new requests, those under way are waited for, DESTROY
    /// is sent (S4-M40), the device is reset and may be opened again. Blocks,
    /// but not for longer than the deadlines allow.
    pub fn close(&self) {
        self.forgets.flush(self);
        while !self.state.change(State::Ready, State::Closed) {
            // A session may come to stand, or be lost, between the two.
            let state = self.state();
            if self.end_interlude(State::Closed) || !(state == State::Ready || state.is_interlude())
            {
                return;
            }
        }
        self.pool.wake_all(&self.platform);
        let patience = self
            .config
            .deadlines
            .data
            .unwrap_or(Duration::from_secs(60))
            + self.config.grace;
        let end = self.now() + patience;
        // Nothing else may be in flight when DESTROY goes out.
        let busy = || self.load().0 > 0 || self.forgets.in_flight() > 0;
        while busy() && self.now() < end && !self.device_failed() {
            self.poll();
            self.tidy();
            if busy() {
                park(&*self.platform, Some(self.now() + Duration::from_millis(1)));
            }
        }
        // DESTROY takes the mappings away.
        self.empty_window();
        // A server that still holds requests is not asked: DESTROY comes after
        // all others, and there may be no slot for it.
        if !busy() && !self.device_failed() {
            // Its outcome changes nothing.
            if let Err(error) = self.call(&Destroy, Data::None, Class::Session) {
                log::warn!("virtio-fs: {}: DESTROY: {error}", self.device.tag);
            } else if let Some(window) = &self.window {
                window.take_used();
            }
        }
        self.stop_device();
    }
}
