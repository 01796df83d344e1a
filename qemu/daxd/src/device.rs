//! The vhost-user device: features, config space, rings. virtio 1.3, 5.11;
//! vhost-user specification.
//!
//! Three facts of the ground are handled here:
//! - The protocol feature SHMEM is bit 21 for `vhost` 0.16, bit 22 for QEMU 11.1
//!   and the specification. Both are offered. Bit 21 has become "addresses are
//!   guest-physical", which QEMU 11.1 does not do although it accepts the bit.
//! - Each mapping becomes a memory region that QEMU announces, so without
//!   CONFIGURE_MEM_SLOTS it fails at the eighth.
//! - It announces the region while the request that asked for the mapping is still
//!   in service. So nothing that [`Device::update_memory`] needs is held by a
//!   request: each takes the memory that it began with.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fuse_backend_rs::transport::{Reader, VirtioFsWriter};
use log::{debug, info, warn};
use vhost::vhost_user::Backend;
use vhost::vhost_user::message::{
    VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserVirtioFeatures,
};
use vhost_user_backend::{VhostUserBackend, VringT};
use vm_memory::{GuestAddressSpace, GuestMemory, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::channel::{Announcements, Channel};
use crate::pool::Pool;
use crate::ring::{Request, Ring};
use crate::session::Session;
use crate::stats::Stats;
use crate::window::Window;

const VERSION_1: u64 = 1 << 32;
const INDIRECT_DESC: u64 = 1 << 28;
const EVENT_IDX: u64 = 1 << 29;
/// SHMEM as the specification counts.
const SHMEM: u64 = 1 << 22;
const MAX_QUEUE_SIZE: usize = 32768;

const TAG: usize = 36;
const CONFIG: usize = 44;
const HIPRIO: usize = 0;

/// A virtio-fs device for one connection.
pub struct Device {
    session: Arc<Session>,
    window: Arc<Window>,
    stats: Arc<Stats>,
    config: [u8; CONFIG],
    request_queues: usize,
    /// None: each ring's thread serves its requests.
    pool: OnceLock<Pool<Request>>,
    channel: Mutex<Option<Backend>>,
    announcements: Arc<Announcements>,
    /// Whether the front end asked for the regions, and so has SHMEM.
    maps: AtomicBool,
}

impl Device {
    /// A device with `request_queues` queues and one for high priority, served by
    /// `threads` threads, or for 0 by one for each queue.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(
        session: Arc<Session>,
        window: Arc<Window>,
        stats: Arc<Stats>,
        tag: &str,
        request_queues: usize,
        threads: usize,
    ) -> io::Result<Self> {
        let mut config = [0; CONFIG];
        let tag = &tag.as_bytes()[..tag.len().min(TAG)];
        config[..tag.len()].copy_from_slice(tag);
        config[TAG..TAG + 4].copy_from_slice(&(request_queues as u32).to_le_bytes());
        let device = Self {
            session,
            window,
            stats,
            config,
            request_queues,
            pool: OnceLock::new(),
            channel: Mutex::new(None),
            announcements: Arc::default(),
            maps: AtomicBool::new(false),
        };
        if threads > 0 {
            let session = device.session.clone();
            let _ = device
                .pool
                .set(Pool::new(threads, move |request| serve(&session, request))?);
        }
        Ok(device)
    }

    /// Ends the session after the front end has left.
    pub fn disconnect(&self) {
        self.window.disconnect();
        self.session.end();
    }

    fn announce_channel(&self) {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = &*channel
            && self.maps.load(Ordering::Relaxed)
        {
            // vhost 0.16 sets it only for bit 21.
            channel.set_shmem_flag(true);
        }
    }
}

/// Serves a request and gives it back.
fn serve(session: &Session, mut request: Request) {
    let memory = request.memory.clone();
    let reader = Reader::from_descriptor_chain(&*memory, request.chain.clone());
    let writer = VirtioFsWriter::new(&*memory, request.chain.clone());
    let len = match (reader, writer) {
        (Ok(reader), Ok(writer)) => session.serve(reader, writer, &mut request.ticket),
        (Err(e), _) | (_, Err(e)) => {
            debug!("a request outside the guest's memory: {e}");
            Ok(0)
        }
    };
    if let Ok(len) = len {
        request.complete(len);
    }
}

impl VhostUserBackend for Device {
    type Bitmap = ();
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        1 + self.request_queues
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        VERSION_1 | INDIRECT_DESC | EVENT_IDX | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        use VhostUserProtocolFeatures as F;
        let features = F::MQ
            | F::BACKEND_REQ
            | F::BACKEND_SEND_FD
            | F::REPLY_ACK
            | F::CONFIG
            | F::RESET_DEVICE
            | F::CONFIGURE_MEM_SLOTS;
        match self.window.size() {
            0 => features,
            _ => features | F::SHMEM | F::from_bits_retain(SHMEM),
        }
    }

    fn set_event_idx(&self, _: bool) {}

    fn reset_device(&self) {
        info!("device reset");
        // The front end drops its mappings by itself, and waits for us meanwhile.
        self.window.forget();
        self.session.end();
    }

    fn update_memory(&self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        let regions = memory.memory().num_regions();
        debug!("{regions} memory regions");
        self.window.set_regions(regions);
        self.announcements.add();
        Ok(())
    }

    fn set_backend_req_fd(&self, channel: Backend) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel.clone());
        self.announce_channel();
        self.window
            .connect(Arc::new(Channel::new(channel, self.announcements.clone())));
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // A front end may ask for more than there is: the rest is nought.
        let at = |n: u32| self.config.get(n as usize).copied().unwrap_or(0);
        (offset..offset.saturating_add(size)).map(at).collect()
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        self.maps.store(true, Ordering::Relaxed);
        self.announce_channel();
        Ok(match self.window.size() {
            0 => VhostUserShMemConfig::new(0, &[]),
            size => VhostUserShMemConfig::new(1, &[size]),
        })
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.num_queues()).map(|queue| 1 << queue).collect()
    }

    fn exit_event(&self, _: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::CLOEXEC | EventFlag::NONBLOCK)
            .inspect_err(|e| warn!("no event to end a thread with: {e}"))
            .ok()
    }

    /// Each thread has one ring, so `thread` is the queue's number.
    fn handle_event(&self, _: u16, _: EventSet, rings: &[Ring], thread: usize) -> io::Result<()> {
        let Some(ring) = rings.first() else {
            return Ok(());
        };
        self.stats.kick();
        let pool = self.pool.get().filter(|_| thread != HIPRIO);
        // An error would end the thread; a ring that fails is one without requests.
        loop {
            let _ = ring.disable_notification();
            while let Some(request) = ring.take() {
                match pool {
                    Some(pool) => pool.push(request),
                    None => serve(&self.session, request),
                }
            }
            if !ring.enable_notification().unwrap_or(false) {
                return Ok(());
            }
        }
    }
}
