//! Requests on their way through the device: off a queue, to the server, through
//! the faults, and back when their moment comes.

use core::time::Duration;

use crate::abi::{Op, feature};
use crate::device::{Cause, Device};
use crate::faults::{Delivery, Event, Used, When};
use crate::memory::BusError;
use crate::queue::{Chain, Queue};
use crate::server::message::{Grant, Header, frame};
use crate::server::{Interrupts, Outcome};

/// A request that the server has seen and the driver has not got back.
#[derive(Debug)]
pub(crate) struct Job {
    queue: u16,
    chain: Chain,
    op: Op,
    unique: u64,
    request: Vec<u8>,
}

/// A reply that waits for its moment.
#[derive(Debug)]
pub(crate) struct Pending {
    job: Job,
    delivery: Delivery,
    grants: Vec<Grant>,
    due: Duration,
    after: u64,
}

impl Device {
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
        let of = |queue: &Queue| queue.in_flight() + usize::from(queue.available(&self.memory));
        self.queues.iter().flatten().map(of).sum()
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
