//! The device between its registers and the server: status, features,
//! configuration space, queues, and replies on their way (virtio 1.3, 2 and 3).

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use virtio_drivers::transport::DeviceStatus;
use virtio_fs::device::{QueueLayout, TransportError};

use crate::abi::{Op, feature};
use crate::faults::{Delivery, Event, Faults, Used, When};
use crate::memory::{BusError, Memory};
use crate::queue::{Chain, Queue};
use crate::server::message::{Grant, Header, frame};
use crate::server::{Interrupts, Outcome, Server};

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

/// A request that the server has seen and the driver has not got back.
#[derive(Debug)]
struct Job {
    queue: u16,
    chain: Chain,
    op: Op,
    unique: u64,
    request: Vec<u8>,
}

/// A reply that waits for its moment.
#[derive(Debug)]
struct Pending {
    job: Job,
    delivery: Delivery,
    grants: Vec<Grant>,
    due: Duration,
    after: u64,
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
    memory: Arc<Memory>,
    status: DeviceStatus,
    vanished: bool,
    window_gone: bool,
    resetting: Option<u32>,
    accepted: u64,
    generation: u32,
    queues: Vec<Option<Queue>>,
    config_vector: Option<u16>,
    isr: u32,
    pending: Vec<Pending>,
    held: Vec<Pending>,
    parked: BTreeMap<u64, Job>,
    buffers: VecDeque<Chain>,
    random: u64,
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

    fn violation(&mut self, text: impl Into<String>) {
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

    pub(crate) fn set_status(&mut self, status: DeviceStatus) {
        if self.vanished {
            return;
        }
        if status.is_empty() {
            match self.shape.reset_reads {
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

    fn raise(&mut self, cause: Cause) {
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

    fn serving(&self) -> bool {
        !self.vanished
            && self.resetting.is_none()
            && self.status.contains(DeviceStatus::DRIVER_OK)
            && !self.status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
    }

    // Requests.

    /// Does all that can be done at `now`. Returns whether there was anything.
    pub(crate) fn run(&mut self, now: Duration) -> bool {
        let mut worked = false;
        loop {
            let mut any = false;
            for queue in 0..self.queues.len() {
                while self.run_queue(queue as u16, now) {
                    any = true;
                }
            }
            any |= self.finish_due(now);
            any |= self.send_notifications();
            if !any {
                return worked;
            }
            worked = true;
        }
    }

    /// Takes one request off a queue that was notified. Returns whether there
    /// was one.
    pub(crate) fn run_queue(&mut self, index: u16, now: Duration) -> bool {
        if !self.serving() {
            return false;
        }
        let memory = self.memory.clone();
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else {
            return false;
        };
        if !queue.kicked {
            return false;
        }
        let mut chain = queue.pop(&memory);
        if chain.is_none() && !queue.broken {
            // Ask for the next notification, then look once more: what came in
            // between was not notified.
            queue.kicked = false;
            chain = if queue.listen(&memory).is_ok() {
                queue.pop(&memory)
            } else {
                None
            };
            queue.kicked = chain.is_some();
        }
        if queue.kicked && queue.mute(&memory).is_err() {
            queue.broken = true;
        }
        let broken = queue.broken;
        self.violations.append(&mut queue.violations);
        if broken {
            self.needs_reset();
            return false;
        }
        let Some(chain) = chain else {
            return false;
        };
        self.stats.requests += 1;
        if index == 1 && self.accepted & feature::NOTIFICATION != 0 {
            self.take_buffer(chain);
        } else {
            self.serve(index, chain, now);
        }
        true
    }

    fn take_buffer(&mut self, chain: Chain) {
        let least = self.shape.config.get(40..44).map_or(0, |b| {
            b.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b))
        });
        if !chain.readable.is_empty() || chain.writable_len() < least {
            let len = chain.writable_len();
            self.violation(format!(
                "notification buffer of {len} bytes, at least {least}"
            ));
        }
        self.buffers.push_back(chain);
    }

    fn serve(&mut self, queue: u16, chain: Chain, now: Duration) {
        let Ok(request) = chain.read(&self.memory) else {
            return self.needs_reset();
        };
        let writable = chain.writable_len();
        let header = Header::parse(&request);
        let (op, unique) = header.map_or((Op(0), 0), |h| (h.op, h.unique));
        if self.knows(unique) {
            self.violation(format!(
                "{op:?} {unique}: another request in flight has this number"
            ));
        }
        let outcome = self.server.handle(queue, &request, writable, now);
        if op == Op::INTERRUPT
            && let Some(target) = request.get(40..48)
        {
            self.interrupt(
                target.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)),
                now,
            );
        }
        // What arguments look like is all that faults want to know.
        let kept = request[..request.len().min(4096)].to_vec();
        let job = Job {
            queue,
            chain,
            op,
            unique,
            request: kept,
        };
        self.conclude(job, outcome, now);
        for (unique, outcome) in self.server.take_ready() {
            if let Some(job) = self.parked.remove(&unique) {
                self.conclude(job, outcome, now);
            }
        }
    }

    fn knows(&self, unique: u64) -> bool {
        let mut waiting = self.pending.iter().chain(&self.held);
        self.parked.contains_key(&unique) || waiting.any(|p| p.job.unique == unique)
    }

    fn conclude(&mut self, job: Job, outcome: Outcome, now: Duration) {
        let (bytes, grants) = match outcome {
            Outcome::Reply { bytes, grants } => (bytes, grants),
            Outcome::Nothing => (Vec::new(), Vec::new()),
            Outcome::Parked => {
                self.parked.insert(job.unique, job);
                return;
            }
        };
        let mut delivery = self.faults.apply(job.op, &job.request, bytes);
        if delivery.when == When::Now && self.shape.latency > Duration::ZERO {
            delivery.when = When::Later(self.shape.latency);
        }
        let mut pending = Pending {
            job,
            delivery,
            grants,
            due: now,
            after: 0,
        };
        match pending.delivery.when {
            When::Never => return self.held.push(pending),
            When::Later(time) => pending.due = now.saturating_add(time),
            When::After(n) => pending.after = self.stats.completions + n,
            When::Now => (),
        }
        self.pending.push(pending);
    }

    /// Delivers replies whose moment has come.
    pub(crate) fn finish_due(&mut self, now: Duration) -> bool {
        let mut any = false;
        loop {
            let done = self.stats.completions;
            let ready = |p: &Pending| p.due <= now && p.after <= done;
            let count = self.pending.iter().filter(|p| ready(p)).count();
            if count == 0 || self.vanished {
                return any;
            }
            let skip = if self.shape.reorder.is_some() {
                self.draw(count)
            } else {
                0
            };
            let mut places = self.pending.iter().enumerate().filter(|(_, p)| ready(p));
            let Some((at, _)) = places.nth(skip) else {
                return any;
            };
            let pending = self.pending.remove(at);
            any = true;
            if self.deliver(pending).is_err() {
                self.needs_reset();
            }
        }
    }

    /// Draws a number below `n` (xorshift).
    fn draw(&mut self, n: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % n as u64) as usize
    }

    /// Delivers replies that wait for others, when there are no others.
    pub(crate) fn finish_stragglers(&mut self, now: Duration) -> bool {
        for pending in &mut self.pending {
            pending.after = 0;
        }
        self.finish_due(now)
    }

    fn deliver(&mut self, pending: Pending) -> Result<(), BusError> {
        let Pending {
            job,
            delivery,
            grants,
            ..
        } = pending;
        if delivery.lost {
            self.server.take_back(&grants);
        }
        match delivery.event {
            Some(Event::NeedsReset) => {
                self.needs_reset();
                return Ok(());
            }
            Some(Event::Vanish) => {
                self.vanish();
                return Ok(());
            }
            Some(Event::WindowVanish) => self.vanish_window(),
            Some(Event::Config(offset, bytes)) => self.change_config(offset, &bytes),
            None => (),
        }
        let memory = self.memory.clone();
        let written = job.chain.write(&memory, &delivery.bytes)?;
        let len = delivery.used_len.unwrap_or(written as u32);
        let Some(Some(queue)) = self.queues.get_mut(usize::from(job.queue)) else {
            return Ok(());
        };
        let mut wanted = match delivery.used {
            Used::OtherId(id) => queue.push_raw(&memory, id, len)?,
            Used::Stray(id) => {
                let first = queue.push_raw(&memory, id, len)?;
                queue.push(&memory, &job.chain, len)? | first
            }
            _ => queue.push(&memory, &job.chain, len)?,
        };
        match delivery.used {
            Used::Twice => wanted |= queue.push_raw(&memory, job.chain.head.into(), len)?,
            Used::Jump(by) => wanted |= queue.advance(&memory, by)?,
            _ => (),
        }
        self.stats.completions += 1;
        if wanted {
            self.raise(Cause::Queue(job.queue));
        }
        Ok(())
    }

    fn interrupt(&mut self, unique: u64, now: Duration) {
        if self.server.config.interrupts == Interrupts::Ignored || self.server.interrupt(unique) {
            return;
        }
        let target = |list: &[Pending]| list.iter().position(|p| p.job.unique == unique);
        let mut pending = match (target(&self.pending), target(&self.held)) {
            (Some(at), _) => self.pending.remove(at),
            (None, Some(at)) => self.held.remove(at),
            (None, None) => return,
        };
        self.server.take_back(&core::mem::take(&mut pending.grants));
        pending.delivery.bytes = frame(unique, -libc::EINTR, &[]);
        (pending.due, pending.after) = (now, 0);
        self.pending.push(pending);
    }

    fn send_notifications(&mut self) -> bool {
        let mut any = false;
        while self.serving() && !self.server.outbox.is_empty() {
            let Some(chain) = self.buffers.pop_front() else {
                break;
            };
            let bytes = self.server.outbox.pop_front().unwrap_or_default();
            let memory = self.memory.clone();
            let Some(Some(queue)) = self.queues.get_mut(1) else {
                break;
            };
            let sent = chain.write(&memory, &bytes);
            let sent = sent.and_then(|len| queue.push(&memory, &chain, len as u32));
            match sent {
                Ok(true) => self.raise(Cause::Queue(1)),
                Ok(false) => (),
                Err(BusError) => self.needs_reset(),
            }
            any = true;
        }
        any
    }

    /// Lets the held replies go. Returns how many there were.
    pub(crate) fn release_held(&mut self, now: Duration) -> usize {
        let held = core::mem::take(&mut self.held);
        let count = held.len();
        self.pending
            .extend(held.into_iter().map(|p| Pending { due: now, ..p }));
        count
    }

    /// When the next reply is due.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.pending.iter().map(|p| p.due).min()
    }

    /// Number of requests that the device owns.
    pub(crate) fn in_flight(&self) -> usize {
        self.queues.iter().flatten().map(Queue::in_flight).sum()
    }

    /// Describes what hangs, for a test that waits for ever.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("status {:?}, vanished: {}", self.status, self.vanished);
        for queue in self.queues.iter().flatten() {
            let (waiting, index) = (queue.available(&self.memory), queue.index);
            let (kicked, owned) = (queue.kicked, queue.in_flight());
            text += &format!(
                "\n  queue {index}: {waiting} available, notified: {kicked}, {owned} in flight"
            );
        }
        let held = self.held.iter().map(|p| (p.job.op, p.job.unique, "held"));
        let parked = self
            .parked
            .values()
            .map(|j| (j.op, j.unique, "waits for a lock"));
        for (op, unique, why) in held.chain(parked) {
            text += &format!("\n  {op:?} {unique} {why}");
        }
        text
    }
}
