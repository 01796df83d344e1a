//! The device as its registers show it: status, features, configuration space,
//! queue set-up, reset (virtio 1.3, 2 and 3).

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use virtio_drivers::transport::DeviceStatus;
use virtio_fs::device::{QueueLayout, TransportError};

use crate::abi::feature;
use crate::faults::Faults;
use crate::memory::Memory;
use crate::queue::{Chain, Queue};
use crate::requests::{Job, Pending};
use crate::server::Server;

/// Why the device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// This queue has used buffers.
    Queue(u16),
    /// The configuration space or the status changed.
    Config,
}

/// An interrupt on its way to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupt {
    /// Vector that the driver chose; `None` for the interrupt line.
    pub vector: Option<u16>,
    /// What it stands for.
    pub cause: Cause,
}

/// What the device counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Notifications by the driver.
    pub kicks: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Requests taken off the queues.
    pub requests: u64,
    /// Requests given back.
    pub completions: u64,
    /// Resets.
    pub resets: u64,
}

/// The choices of the device that a test makes before it starts.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) features: u64,
    pub(crate) request_queues: u16,
    pub(crate) queue_size: u16,
    pub(crate) config: Vec<u8>,
    pub(crate) refuse_features: bool,
    pub(crate) restless_config: bool,
    pub(crate) vectors: Option<u16>,
    pub(crate) reset_reads: Option<u32>,
    pub(crate) latency: Duration,
    pub(crate) reorder: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) shape: Shape,
    pub(crate) server: Server,
    pub(crate) faults: Faults,
    pub(crate) stats: DeviceStats,
    pub(crate) interrupts: VecDeque<Interrupt>,
    pub(crate) violations: Vec<String>,
    pub(crate) stop: bool,
    pub(crate) memory: Arc<Memory>,
    pub(crate) status: DeviceStatus,
    pub(crate) vanished: bool,
    window_gone: bool,
    resetting: Option<u32>,
    pub(crate) accepted: u64,
    generation: u32,
    pub(crate) queues: Vec<Option<Queue>>,
    config_vector: Option<u16>,
    isr: u32,
    pub(crate) pending: Vec<Pending>,
    pub(crate) held: Vec<Pending>,
    pub(crate) parked: BTreeMap<u64, Job>,
    pub(crate) buffers: VecDeque<Chain>,
    pub(crate) random: u64,
}

impl Device {
    pub(crate) fn new(shape: Shape, server: Server, faults: Faults, memory: Arc<Memory>) -> Self {
        let random = shape.reorder.unwrap_or(1).max(1);
        Self {
            shape,
            server,
            faults,
            stats: DeviceStats::default(),
            interrupts: VecDeque::new(),
            violations: Vec::new(),
            stop: false,
            memory,
            status: DeviceStatus::empty(),
            vanished: false,
            window_gone: false,
            resetting: None,
            accepted: 0,
            generation: 0,
            queues: Vec::new(),
            config_vector: None,
            isr: 0,
            pending: Vec::new(),
            held: Vec::new(),
            parked: BTreeMap::new(),
            buffers: VecDeque::new(),
            random,
        }
    }

    pub(crate) fn violation(&mut self, text: impl Into<String>) {
        self.violations.push(text.into());
    }

    // Registers.

    pub(crate) fn features(&self) -> u64 {
        if self.vanished {
            u64::MAX
        } else {
            self.shape.features
        }
    }

    pub(crate) fn set_features(&mut self, features: u64) {
        if self.status.contains(DeviceStatus::FEATURES_OK) {
            self.violation("features written after FEATURES_OK");
        }
        if !self.status.contains(DeviceStatus::DRIVER) {
            self.violation("features written before DRIVER");
        }
        self.accepted = features;
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    pub(crate) fn status(&mut self) -> DeviceStatus {
        if self.vanished {
            return DeviceStatus::from_bits_retain(0xFF);
        }
        match self.resetting {
            Some(0) => self.reset(),
            // All ones stand for a reset that never ends.
            Some(n) if n < u32::MAX => self.resetting = Some(n - 1),
            _ => (),
        }
        self.status
    }

    pub(crate) fn is_resetting(&self) -> bool {
        self.resetting.is_some()
    }

    pub(crate) fn set_status(&mut self, status: DeviceStatus) {
        if self.vanished {
            return;
        }
        if status.is_empty() {
            match self.shape.reset_reads {
                // There is nothing to wait for before the first one.
                _ if self.status.is_empty() && self.resetting.is_none() => self.reset(),
                None => self.reset(),
                reads => self.resetting = reads,
            }
            return;
        }
        let before = self.status & !DeviceStatus::DEVICE_NEEDS_RESET;
        if !status.contains(before) {
            self.violation(format!("status {before:?} lost bits: {status:?}"));
        }
        let order = [
            (DeviceStatus::DRIVER, DeviceStatus::ACKNOWLEDGE),
            (DeviceStatus::FEATURES_OK, DeviceStatus::DRIVER),
            (DeviceStatus::DRIVER_OK, DeviceStatus::FEATURES_OK),
        ];
        for (bit, needs) in order {
            if status.contains(bit)
                && !before.contains(needs)
                && !status.contains(DeviceStatus::FAILED)
            {
                self.violation(format!("status {bit:?} set after {before:?}"));
            }
        }
        let mut now = status | self.status & DeviceStatus::DEVICE_NEEDS_RESET;
        if status.contains(DeviceStatus::FEATURES_OK) && !before.contains(DeviceStatus::FEATURES_OK)
        {
            let unknown = self.accepted & !self.shape.features;
            if unknown != 0 {
                self.violation(format!("features {unknown:#x} accepted but not offered"));
            }
            if self.accepted & feature::VERSION_1 == 0 {
                self.violation("VERSION_1 was not accepted");
            }
            if self.shape.refuse_features || unknown != 0 {
                now -= DeviceStatus::FEATURES_OK;
            }
        }
        self.status = now;
    }

    /// Number of queues: high priority, notification, requests.
    pub(crate) fn queue_count(&self) -> u16 {
        1 + u16::from(self.accepted & feature::NOTIFICATION != 0) + self.shape.request_queues
    }

    pub(crate) fn max_queue_size(&self, queue: u16) -> u16 {
        match queue {
            _ if self.vanished => u16::MAX,
            _ if queue < self.queue_count() => self.shape.queue_size,
            _ => 0,
        }
    }

    pub(crate) fn set_queue(
        &mut self,
        index: u16,
        layout: &QueueLayout,
    ) -> Result<(), TransportError> {
        if self.vanished {
            return Err(TransportError::Queue(index));
        }
        if layout
            .vector
            .is_some_and(|v| self.shape.vectors.is_none_or(|n| v >= n))
        {
            return Err(TransportError::Vector(index));
        }
        if !self.status.contains(DeviceStatus::FEATURES_OK)
            || self.status.contains(DeviceStatus::DRIVER_OK)
        {
            self.violation(format!("queue {index} set up in status {:?}", self.status));
        }
        let size = layout.size;
        if index >= self.queue_count() || size == 0 || size > self.shape.queue_size {
            return Err(TransportError::Queue(index));
        }
        let bad_layout = !size.is_power_of_two()
            || !layout.descriptors.is_multiple_of(16)
            || !layout.available.is_multiple_of(2)
            || !layout.used.is_multiple_of(4);
        if bad_layout
            || self
                .queues
                .get(usize::from(index))
                .is_some_and(Option::is_some)
        {
            self.violation(format!("queue {index} set up twice or as {layout:x?}"));
            return Err(TransportError::Queue(index));
        }
        let event_idx = self.accepted & feature::EVENT_IDX != 0;
        let indirect = self.accepted & feature::INDIRECT_DESC != 0;
        let queue = Queue::new(index, *layout, event_idx, indirect);
        for (addr, len, access) in queue.areas() {
            if self.memory.probe(addr, len, access).is_err() {
                return Err(TransportError::Queue(index));
            }
        }
        for (addr, len, _) in queue.areas() {
            self.memory.claim(addr, len);
        }
        let slot = usize::from(index);
        self.queues
            .resize_with(self.queues.len().max(slot + 1), || None);
        self.queues[slot] = Some(queue);
        Ok(())
    }

    pub(crate) fn set_config_vector(&mut self, vector: Option<u16>) -> Result<(), TransportError> {
        if let Some(v) = vector.filter(|&v| self.shape.vectors.is_none_or(|n| v >= n)) {
            return Err(TransportError::Vector(v));
        }
        self.config_vector = vector;
        Ok(())
    }

    pub(crate) fn kick(&mut self, index: u16) {
        self.stats.kicks += 1;
        if self.vanished {
            return;
        }
        if !self.status.contains(DeviceStatus::DRIVER_OK) {
            self.violation(format!("queue {index} notified before DRIVER_OK"));
            return;
        }
        match self.queues.get_mut(usize::from(index)) {
            Some(Some(queue)) => queue.kicked = true,
            _ => self.violation(format!("queue {index} notified, but not set up")),
        }
    }

    pub(crate) fn take_isr(&mut self) -> u32 {
        if self.vanished {
            u32::MAX
        } else {
            core::mem::take(&mut self.isr)
        }
    }

    pub(crate) fn generation(&mut self) -> u32 {
        if self.vanished {
            return u32::MAX;
        }
        if self.shape.restless_config {
            self.generation = self.generation.wrapping_add(1);
        }
        self.generation
    }

    pub(crate) fn read_config(&self, offset: usize, out: &mut [u8]) -> Result<(), TransportError> {
        if self.vanished {
            out.fill(0xFF);
            return Ok(());
        }
        let config = self
            .shape
            .config
            .get(offset..)
            .and_then(|c| c.get(..out.len()));
        out.copy_from_slice(config.ok_or(TransportError::Config(self.shape.config.len()))?);
        Ok(())
    }

    pub(crate) fn window_present(&self) -> bool {
        !self.vanished && !self.window_gone
    }

    // What happens to a device.

    fn reset(&mut self) {
        self.stats.resets += 1;
        self.resetting = None;
        self.status = DeviceStatus::empty();
        self.accepted = 0;
        self.config_vector = None;
        self.isr = 0;
        self.interrupts.clear();
        self.drop_requests();
        self.server.end_session();
    }

    /// The device owns no memory any more.
    fn drop_requests(&mut self) {
        self.queues.clear();
        self.pending.clear();
        self.held.clear();
        self.parked.clear();
        self.buffers.clear();
        self.memory.release_all();
    }

    pub(crate) fn vanish(&mut self) {
        self.vanished = true;
        self.drop_requests();
        self.vanish_window();
        self.server.end_session();
    }

    pub(crate) fn vanish_window(&mut self) {
        self.window_gone = true;
        self.server.vanish_window();
    }

    pub(crate) fn needs_reset(&mut self) {
        if self.status.contains(DeviceStatus::DRIVER_OK) {
            self.status |= DeviceStatus::DEVICE_NEEDS_RESET;
            self.raise(Cause::Config);
        }
    }

    pub(crate) fn change_config(&mut self, offset: usize, bytes: &[u8]) {
        let config = self.shape.config.iter_mut().skip(offset);
        config.zip(bytes).for_each(|(old, new)| *old = *new);
        self.generation = self.generation.wrapping_add(1);
        self.raise(Cause::Config);
    }

    pub(crate) fn raise(&mut self, cause: Cause) {
        let vector = match cause {
            Cause::Config => self.config_vector,
            Cause::Queue(q) => {
                let queue = self.queues.get(usize::from(q)).and_then(Option::as_ref);
                queue.and_then(|queue| queue.layout.vector)
            }
        };
        if vector.is_none() {
            self.isr |= if cause == Cause::Config { 2 } else { 1 };
        }
        self.stats.interrupts += 1;
        self.interrupts.push_back(Interrupt { vector, cause });
    }

    pub(crate) fn serving(&self) -> bool {
        !self.vanished
            && self.resetting.is_none()
            && self.status.contains(DeviceStatus::DRIVER_OK)
            && !self.status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }
}
