//! One vhost-user connection to one daemon (QEMU: docs/interop/vhost-user.rst).
//!
//! The order of messages follows QEMU's. Guest memory is announced with a user
//! address equal to its guest-physical address: daemons translate ring
//! addresses from "user" addresses, or from guest-physical ones if
//! GPA_ADDRESSES (bit 21) was negotiated, and so both mean the same. (vhost
//! 0.16 daemons take bit 21 for SHMEM; accepting it is right for them as well.)

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag};
use vhost::vhost_user::{Frontend, VhostUserFrontend, VhostUserProtocolFeatures as Protocol};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_fs::device::QueueLayout;

use crate::arena::{self, arena};
use crate::channel::{Channel, Requests};
use crate::interrupt::Lines;
use crate::watchdog::{self, Exchange};
use crate::window::Window;

/// VHOST_F_LOG_ALL: for the monitor, not for the driver.
const LOG_ALL: u64 = 1 << 26;
/// VHOST_USER_F_PROTOCOL_FEATURES: likewise.
const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Length of the configuration space, with the notification buffer size.
pub(crate) const CONFIG_LEN: usize = 44;
/// Offset of the number of request queues in it.
const CONFIG_QUEUES: usize = 36;
/// A vring message carries the queue number in 8 bits.
const MAX_QUEUES: u64 = 255;

/// Why a message got no good answer.
#[derive(Debug)]
pub struct SessionError {
    step: &'static str,
    reason: String,
}

impl SessionError {
    fn at<E: fmt::Display>(step: &'static str) -> impl Fn(E) -> Self {
        move |error| Self {
            step,
            reason: error.to_string(),
        }
    }
}

impl fmt::Display for SessionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vhost-user {}: {}", self.step, self.reason)
    }
}

impl std::error::Error for SessionError {}

impl From<io::Error> for SessionError {
    fn from(error: io::Error) -> Self {
        Self::at("set-up")(error)
    }
}

/// A connection on which the device is ready to be driven.
pub(crate) struct Session {
    frontend: Frontend,
    /// The same socket, for the watchdog.
    stream: Arc<UnixStream>,
    timeout: Duration,
    features: u64,
    protocol: Protocol,
    queues: u16,
    window_len: u64,
    config: [u8; CONFIG_LEN],
    /// The generation that `config` belongs to.
    config_generation: u64,
    generation: Arc<AtomicU64>,
    channel: Option<Channel>,
}

impl Session {
    /// Connects to the daemon at `path` and negotiates everything that is not
    /// the driver's business. `timeout` bounds this call and
    /// each later one.
    pub(crate) fn open(
        path: &Path,
        tag: &str,
        timeout: Duration,
        generation: Arc<AtomicU64>,
    ) -> Result<Self, SessionError> {
        let at = SessionError::at::<vhost::Error>;
        let stream = UnixStream::connect(path).map_err(SessionError::at("connect"))?;
        let same = Arc::new(stream.try_clone()?);
        let _exchange = watchdog::watch(&same, timeout);
        let mut frontend = Frontend::from_stream(stream, MAX_QUEUES);
        frontend.set_owner().map_err(at("SET_OWNER"))?;
        let features = frontend.get_features().map_err(at("GET_FEATURES"))?;
        let mut protocol = Protocol::empty();
        if features & PROTOCOL_FEATURES != 0 {
            protocol = wanted(
                frontend
                    .get_protocol_features()
                    .map_err(at("GET_PROTOCOL_FEATURES"))?,
            );
            frontend
                .set_protocol_features(protocol)
                .map_err(at("SET_PROTOCOL_FEATURES"))?;
        }
        // Otherwise a refused message would pass unnoticed.
        if protocol.contains(Protocol::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        // Without MQ the daemon cannot be asked: hiprio and one request queue.
        let mut queues = 2;
        if protocol.contains(Protocol::MQ) {
            queues = frontend.get_queue_num().map_err(at("GET_QUEUE_NUM"))?;
        }
        let mut window_len = 0;
        if protocol.contains(Protocol::SHMEM) {
            let regions = frontend
                .get_shmem_config()
                .map_err(at("GET_SHMEM_CONFIG"))?;
            window_len = regions.memory_sizes[0];
        }
        let memory = VhostUserMemoryRegionInfo {
            guest_phys_addr: arena::BASE,
            memory_size: arena().len() as u64,
            userspace_addr: arena::BASE,
            mmap_offset: 0,
            mmap_handle: arena().memfd(),
        };
        frontend
            .set_mem_table(&[memory])
            .map_err(at("SET_MEM_TABLE"))?;
        let mut session = Self {
            frontend,
            stream: same,
            timeout,
            features,
            protocol,
            queues: queues.min(MAX_QUEUES) as u16,
            window_len,
            config: [0; CONFIG_LEN],
            config_generation: generation.load(Ordering::Acquire),
            generation,
            channel: None,
        };
        if protocol.contains(Protocol::CONFIG) {
            session.fetch_config()?;
        } else {
            session.invent_config(tag);
        }
        Ok(session)
    }

    /// Lets the daemon make requests of its own, if it wants to.
    pub(crate) fn open_channel(
        &mut self,
        window: Option<Arc<Mutex<Window>>>,
        lines: Arc<Lines>,
    ) -> Result<(), SessionError> {
        if !self.protocol.contains(Protocol::BACKEND_REQ) {
            return Ok(());
        }
        let requests = Requests {
            window,
            generation: self.generation.clone(),
            lines,
        };
        let _exchange = self.exchange();
        let frontend = &mut self.frontend;
        self.channel = Some(Channel::start(requests, |fd| {
            frontend
                .set_backend_request_fd(&fd)
                .map_err(SessionError::at("SET_BACKEND_REQ_FD"))
        })?);
        Ok(())
    }

    /// Bounds what is said until the result is dropped.
    fn exchange(&self) -> Exchange {
        watchdog::watch(&self.stream, self.timeout)
    }

    /// The features of the device, without those between monitor and daemon.
    pub(crate) fn features(&self) -> u64 {
        self.features & !(LOG_ALL | PROTOCOL_FEATURES)
    }

    /// The number of queues, hiprio included.
    pub(crate) fn queues(&self) -> u16 {
        self.queues
    }

    /// The length of shared-memory region 0; 0 if there is none.
    pub(crate) fn window_len(&self) -> u64 {
        self.window_len
    }

    pub(crate) fn socket(&self) -> RawFd {
        self.frontend.as_raw_fd()
    }

    /// Says whether the daemon has closed the connection, or died.
    pub(crate) fn hung_up(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.socket(),
            events: libc::POLLRDHUP,
            revents: 0,
        };
        // SAFETY: one pollfd is passed with the count 1.
        let count = unsafe { libc::poll(&mut poll, 1, 0) };
        count > 0 && poll.revents != 0
    }

    /// SET_FEATURES with what the driver accepted.
    pub(crate) fn set_features(&self, features: u64) -> Result<(), SessionError> {
        let _exchange = self.exchange();
        let ours = self.features & PROTOCOL_FEATURES;
        self.frontend
            .set_features(features | ours)
            .map_err(SessionError::at("SET_FEATURES"))
    }

    /// Describes a queue to the daemon; it is not served before `enable`.
    pub(crate) fn set_queue(
        &self,
        queue: u16,
        layout: &QueueLayout,
        lines: &Lines,
    ) -> Result<(), SessionError> {
        let _exchange = self.exchange();
        let at = SessionError::at::<vhost::Error>;
        let (kick, call) = lines
            .eventfds(queue)
            .ok_or_else(|| SessionError::at("SET_VRING_NUM")("no such queue"))?;
        let index = usize::from(queue);
        let frontend = &self.frontend;
        frontend
            .set_vring_num(index, layout.size)
            .map_err(at("SET_VRING_NUM"))?;
        let addresses = VringConfigData {
            queue_max_size: layout.size,
            queue_size: layout.size,
            flags: 0,
            desc_table_addr: layout.descriptors,
            used_ring_addr: layout.used,
            avail_ring_addr: layout.available,
            log_addr: None,
        };
        frontend
            .set_vring_addr(index, &addresses)
            .map_err(at("SET_VRING_ADDR"))?;
        frontend
            .set_vring_base(index, 0)
            .map_err(at("SET_VRING_BASE"))?;
        frontend
            .set_vring_call(index, call)
            .map_err(at("SET_VRING_CALL"))?;
        frontend
            .set_vring_kick(index, kick)
            .map_err(at("SET_VRING_KICK"))
    }

    /// Lets the daemon serve `queue`. Rings start enabled where the two sides
    /// have no protocol features.
    pub(crate) fn enable(&mut self, queue: u16) -> Result<(), SessionError> {
        let _exchange = self.exchange();
        if self.features & PROTOCOL_FEATURES == 0 {
            return Ok(());
        }
        self.frontend
            .set_vring_enable(usize::from(queue), true)
            .map_err(SessionError::at("SET_VRING_ENABLE"))
    }

    /// Stops `queues` and makes the daemon forget the driver.
    pub(crate) fn reset(&mut self, queues: impl Iterator<Item = u16>) -> Result<(), SessionError> {
        let _exchange = self.exchange();
        let at = SessionError::at::<vhost::Error>;
        for queue in queues {
            let index = usize::from(queue);
            if self.features & PROTOCOL_FEATURES != 0 {
                self.frontend
                    .set_vring_enable(index, false)
                    .map_err(at("SET_VRING_ENABLE"))?;
            }
            self.frontend
                .get_vring_base(index)
                .map_err(at("GET_VRING_BASE"))?;
        }
        if self.protocol.contains(Protocol::RESET_DEVICE) {
            self.frontend.reset_device().map_err(at("RESET_DEVICE"))?;
        }
        Ok(())
    }

    /// Copies from the configuration space; `None` past its end.
    pub(crate) fn config(&mut self, offset: usize, out: &mut [u8]) -> Option<()> {
        if self.config_generation != self.generation.load(Ordering::Acquire)
            && let Err(error) = self.fetch_config()
        {
            log::error!("{error}");
        }
        let end = offset.checked_add(out.len())?;
        out.copy_from_slice(self.config.get(offset..end)?);
        Some(())
    }

    fn fetch_config(&mut self) -> Result<(), SessionError> {
        let _exchange = self.exchange();
        let generation = self.generation.load(Ordering::Acquire);
        let (_, bytes) = self
            .frontend
            .get_config(
                0,
                CONFIG_LEN as u32,
                VhostUserConfigFlags::empty(),
                &[0; CONFIG_LEN],
            )
            .map_err(SessionError::at("GET_CONFIG"))?;
        // The crate has checked the length.
        self.config.copy_from_slice(&bytes);
        self.config_generation = generation;
        Ok(())
    }

    /// What QEMU's own virtio-fs device does: the tag comes from its command
    /// line, the queues are all but hiprio.
    fn invent_config(&mut self, tag: &str) {
        let len = tag.len().min(CONFIG_QUEUES);
        self.config[..len].copy_from_slice(&tag.as_bytes()[..len]);
        let requests = u32::from(self.queues.saturating_sub(1));
        self.config[CONFIG_QUEUES..CONFIG_QUEUES + 4].copy_from_slice(&requests.to_le_bytes());
    }
}

/// Chooses among the protocol features that the daemon offers.
fn wanted(offered: Protocol) -> Protocol {
    let mut wanted = Protocol::MQ
        | Protocol::REPLY_ACK
        | Protocol::CONFIG
        | Protocol::RESET_DEVICE
        | Protocol::BACKEND_REQ
        | Protocol::BACKEND_SEND_FD
        | Protocol::GPA_ADDRESSES;
    // A window needs acknowledged requests with descriptors.
    let for_window = Protocol::REPLY_ACK | Protocol::BACKEND_REQ | Protocol::BACKEND_SEND_FD;
    if offered.contains(for_window) {
        wanted |= Protocol::SHMEM;
    }
    offered & wanted
}
