//! Building a fake device.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use virtio_fs::device::SharedMemory;

use crate::abi::feature;
use crate::clock::Clock;
use crate::device::{Device, Shape};
use crate::faults::{Faults, Rule};
use crate::handle::Handle;
use crate::memfs::MemFs;
use crate::memory::{Memory, Placement, Sharing};
use crate::server::{Server, ServerConfig};
use crate::shared::{Drive, Shared};
use crate::transport::FakeTransport;
use crate::window::{Window, WindowRules};

/// Longest tag.
const TAG: usize = 36;

/// A fake device to be: each method makes a choice, [`build`](Self::build)
/// makes the device.
///
/// The default is a conforming device `fake` with one request queue of 128
/// entries, indirect descriptors and event index, no window, an empty tree and
/// immediate replies in virtual time.
#[derive(Debug)]
#[must_use = "build makes the device"]
pub struct Fake {
    shape: Shape,
    notify_buffer: Option<u32>,
    drive: Drive,
    can_sleep: bool,
    placement: Placement,
    sharing: Sharing,
    fs: MemFs,
    server: ServerConfig,
    faults: Faults,
    window: Option<(u64, WindowRules)>,
    raw_config: bool,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// Starts with the default device.
    pub fn new() -> Self {
        let mut config = vec![0; TAG + 8];
        config[..4].copy_from_slice(b"fake");
        config[TAG] = 1;
        let shape = Shape {
            features: feature::VERSION_1 | feature::INDIRECT_DESC | feature::EVENT_IDX,
            request_queues: 1,
            queue_size: 128,
            config,
            refuse_features: false,
            restless_config: false,
            vectors: Some(64),
            reset_reads: None,
            latency: Duration::ZERO,
            reorder: None,
        };
        Self {
            shape,
            notify_buffer: None,
            drive: Drive::Immediate,
            can_sleep: false,
            placement: Placement::Contiguous,
            sharing: Sharing::Direct,
            fs: MemFs::new(),
            server: ServerConfig::default(),
            faults: Faults::default(),
            window: None,
            raw_config: false,
        }
    }

    /// Sets the tag, of which the first 36 bytes count.
    pub fn tag(mut self, tag: impl AsRef<[u8]>) -> Self {
        let config = &mut self.shape.config[..TAG];
        config.fill(0);
        config
            .iter_mut()
            .zip(tag.as_ref())
            .for_each(|(to, from)| *to = *from);
        self
    }

    /// Sets the number of request queues.
    pub fn queues(mut self, n: u16) -> Self {
        self.shape.request_queues = n;
        self.claim_queues(n.into())
    }

    /// Sets the number of request queues that the configuration space claims.
    pub fn claim_queues(mut self, n: u32) -> Self {
        self.shape.config[TAG..TAG + 4].copy_from_slice(&n.to_le_bytes());
        self
    }

    /// Sets the largest queue size.
    pub fn queue_size(mut self, n: u16) -> Self {
        self.shape.queue_size = n;
        self
    }

    /// Sets the feature bits offered. `NOTIFICATION` comes with
    /// [`notifications`](Self::notifications).
    pub fn features(mut self, features: u64) -> Self {
        self.shape.features = features;
        self
    }

    /// Offers the notification queue, for buffers of at least this size.
    pub fn notifications(mut self, buffer_size: u32) -> Self {
        self.notify_buffer = Some(buffer_size);
        self
    }

    /// Sets the whole configuration space, whatever its length.
    pub fn config(mut self, config: Vec<u8>) -> Self {
        self.shape.config = config;
        self.raw_config = true;
        self
    }

    /// Changes the configuration generation at every read.
    pub fn restless_config(mut self) -> Self {
        self.shape.restless_config = true;
        self
    }

    /// Takes FEATURES_OK back whatever was accepted.
    pub fn refuse_features(mut self) -> Self {
        self.shape.refuse_features = true;
        self
    }

    /// Sets the number of interrupt vectors; `None` for an interrupt line only.
    pub fn vectors(mut self, n: Option<u16>) -> Self {
        self.shape.vectors = n;
        self
    }

    /// Lets a reset take so many reads of the status; `u32::MAX` for ever.
    pub fn slow_reset(mut self, reads: u32) -> Self {
        self.shape.reset_reads = Some(reads);
        self
    }

    /// Lets each reply take so long.
    pub fn latency(mut self, latency: Duration) -> Self {
        self.shape.latency = latency;
        self
    }

    /// Shuffles replies that are ready at the same time.
    pub fn reorder(mut self, seed: u64) -> Self {
        self.shape.reorder = Some(seed);
        self
    }

    /// Adds a DAX window of this many bytes.
    pub fn window(mut self, len: u64, rules: WindowRules) -> Self {
        self.window = Some((len, rules));
        self
    }

    /// Sets what the server serves.
    pub fn fs(mut self, fs: MemFs) -> Self {
        self.fs = fs;
        self
    }

    /// Sets all choices of the server.
    pub fn server(mut self, server: ServerConfig) -> Self {
        self.server = server;
        self
    }

    /// Changes choices of the server.
    pub fn tune(mut self, tune: impl FnOnce(&mut ServerConfig)) -> Self {
        tune(&mut self.server);
        self
    }

    /// Adds misbehaviour.
    pub fn fault(mut self, rule: Rule) -> Self {
        self.faults.add(rule);
        self
    }

    /// Sets how shared buffers lie in physical memory.
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Sets whether the device works on copies of shared buffers.
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Sets who makes the device work.
    pub fn drive(mut self, drive: Drive) -> Self {
        self.drive = drive;
        self
    }

    /// Lets the platform say that it can sleep, so the driver relies on
    /// interrupts; see [`Control::on_interrupt`](crate::Control::on_interrupt).
    pub fn can_sleep(mut self) -> Self {
        self.can_sleep = true;
        self
    }

    /// Makes the device, and attaches the calling thread to its memory.
    ///
    /// # Panics
    ///
    /// If the host has no address space for the window.
    pub fn build(mut self) -> (FakeTransport, Handle) {
        if let Some(size) = self.notify_buffer {
            self.shape.features |= feature::NOTIFICATION;
            if !self.raw_config {
                self.shape.config[TAG + 4..].copy_from_slice(&size.to_le_bytes());
            }
        } else if !self.raw_config {
            self.shape.config.truncate(TAG + 4);
        }
        let memory = Memory::new(self.placement, self.sharing);
        memory.attach();
        let window = self
            .window
            .map(|(len, rules)| Window::new(len, rules).expect("host maps the window"));
        let shared_memory = window.as_ref().map(|window| SharedMemory {
            addr: memory.add_mmio(window.base(), window.len() as usize),
            len: window.len(),
        });
        let clock = match self.drive {
            Drive::Threads => Clock::Real(Instant::now()),
            _ => Clock::Virtual(AtomicU64::new(0)),
        };
        let queues = 2 + self.shape.request_queues;
        let server = Server::new(self.fs, self.server, window);
        let device = Device::new(self.shape, server, self.faults, memory.clone());
        let shared = Arc::new(Shared::new(
            device,
            memory,
            clock,
            self.drive,
            shared_memory,
        ));
        let threads = match self.drive {
            Drive::Threads => shared.spawn(queues),
            _ => Vec::new(),
        };
        let handle = Handle::new(shared.clone(), threads, self.can_sleep);
        (FakeTransport { shared }, handle)
    }
}
