//! The high priority queue: FORGET, BATCH_FORGET and INTERRUPT.
//!
//! Each entry that a server hands out is handed back here, once. The room to
//! remember it is reserved when the entry is accepted, so that forgetting never
//! fails for memory (S4-M34). Forgets are gathered and go out in batches: when
//! enough have come together, when a request is sent and the oldest has waited
//! long enough, from the worker, and before the connection closes.

use alloc::vec::Vec;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::Connection;
use super::open::HIPRIO;
use crate::device::Transport;
use crate::device::dma::{DmaRegion, OutOfDma};
use crate::device::ring::{Access, DescriptorTable, Ring, RingFeatures, Segment};
use crate::device::transport::QueueLayout;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{PAGE_SIZE, Platform};
use crate::sync::{HandoffLock, SpinLock};
use crate::wire::{
    self, BatchForget, Credentials, Dialect, Forget, ForgetOne, Interrupt, NodeId, Opcode,
    REQUEST_HEADER, Request, Unique,
};

/// Messages that may be on the queue at once.
const MESSAGES: u16 = 8;
/// Entries that fit the page of one message.
const BATCH_MAX: usize = (PAGE_SIZE - REQUEST_HEADER - 8) / size_of::<ForgetOne>();
/// How long a forget may wait for company.
const MAX_AGE: Duration = Duration::from_millis(10);

/// Node ids to be handed back.
pub(super) struct Forgets<P: Platform> {
    pending: SpinLock<Pending>,
    /// Length of the list, to look without the lock.
    count: AtomicUsize,
    channel: HandoffLock<Channel<P>>,
    batch: usize,
}

struct Pending {
    list: Vec<(NodeId, u64)>,
    /// Node ids that are out there, each of which will need a place.
    reserved: usize,
    oldest: Duration,
}

struct Channel<P: Platform> {
    ring: Ring<P::Hal>,
    messages: Vec<Message<P>>,
    /// Indices of `messages` that are not with the device.
    free: Vec<u16>,
    broken: bool,
}

struct Message<P: Platform> {
    page: DmaRegion<P::Hal>,
    table: DescriptorTable<P::Hal>,
}

impl<P: Platform> Forgets<P> {
    pub(super) fn new(size: u16, features: RingFeatures, batch: usize) -> Result<Self, OutOfDma> {
        let count = MESSAGES.min(size);
        let message = |_| {
            Ok(Message {
                page: DmaRegion::new(PAGE_SIZE)?,
                table: DescriptorTable::new(1)?,
            })
        };
        Ok(Self {
            pending: SpinLock::new(Pending {
                list: Vec::new(),
                reserved: 0,
                oldest: Duration::ZERO,
            }),
            count: AtomicUsize::new(0),
            channel: HandoffLock::new(Channel {
                ring: Ring::new(size, features)?,
                messages: (0..count).map(message).collect::<Result<_, _>>()?,
                free: (0..count).collect(),
                broken: false,
            }),
            batch: batch.clamp(1, BATCH_MAX),
        })
    }

    pub(super) fn layout(&self, vector: Option<u16>) -> QueueLayout {
        self.channel
            .with(|channel| channel.ring.layout(vector), |_| ())
    }

    /// Takes finished messages off the ring. Any context.
    pub(super) fn reap(&self, _: &Connection<P>) {
        self.channel.request(Channel::reap);
    }

    /// Returns how many messages the device has.
    pub(super) fn in_flight(&self) -> u16 {
        self.channel
            .with(|channel| channel.ring.in_flight(), Channel::reap)
    }

    pub(super) fn reset(&self) {
        self.channel.with(
            |channel| {
                channel.ring.reset();
                channel.free.clear();
                channel.free.extend(0..channel.messages.len() as u16);
                channel.broken = false;
            },
            |_| (),
        );
        let mut pending = self.pending.lock();
        pending.list.clear();
        self.count.store(0, Relaxed);
    }

    /// Makes room to forget one more node id.
    fn reserve(&self) -> Result<()> {
        let mut pending = self.pending.lock();
        let need = pending.reserved + 1 - pending.list.len().min(pending.reserved);
        let no_memory = |_| Error::new(Errno::ENOMEM, Origin::Platform);
        pending.list.try_reserve(need).map_err(no_memory)?;
        pending.reserved += 1;
        Ok(())
    }

    fn push(&self, node: NodeId, lookups: u64, now: Duration) -> usize {
        let mut pending = self.pending.lock();
        if pending.list.is_empty() {
            pending.oldest = now;
        }
        pending.list.push((node, lookups));
        pending.reserved = pending.reserved.saturating_sub(1);
        self.count.store(pending.list.len(), Relaxed);
        pending.list.len()
    }

    /// Sends what is pending, as far as there is room. Does not block. What
    /// finds no room goes later.
    pub(super) fn flush(&self, conn: &Connection<P>) {
        while self.count.load(Relaxed) > 0 {
            let mut kick = false;
            let sent = self.channel.with(
                |channel| {
                    channel.reap();
                    let sent = channel.send_batch(self, conn);
                    kick = channel.ring.publish();
                    sent
                },
                Channel::reap,
            );
            if kick {
                conn.counters.kicks.add(1);
                conn.transport.notify(HIPRIO);
            }
            if !sent {
                break;
            }
        }
    }

    /// Sends what has waited long enough. Does not block.
    pub(super) fn flush_old(&self, conn: &Connection<P>) {
        if self.count.load(Relaxed) > 0
            && conn.now().saturating_sub(self.pending.lock().oldest) >= MAX_AGE
        {
            self.flush(conn);
        }
    }

    /// Returns when the oldest pending forget should go out.
    pub(super) fn due(&self) -> Option<Duration> {
        let pending = self.pending.lock();
        (!pending.list.is_empty()).then(|| pending.oldest + MAX_AGE)
    }

    /// Sends INTERRUPT for a request. Does not block; without room it is not
    /// sent, as if the server had ignored it.
    pub(super) fn interrupt(&self, conn: &Connection<P>, target: Unique) {
        let interrupt = Interrupt { target, node: None };
        let kick = self.channel.with(
            |channel| {
                channel.reap();
                channel.send(&interrupt, target.interrupt(), conn.limits.read().dialect);
                channel.ring.publish()
            },
            Channel::reap,
        );
        conn.counters.request(Opcode::Interrupt.to_wire());
        if kick {
            conn.counters.kicks.add(1);
            conn.transport.notify(HIPRIO);
        }
    }
}

impl<P: Platform> Channel<P> {
    fn reap(&mut self) {
        loop {
            match self.ring.pop() {
                Ok(Some(used)) => self.free.push(used.token),
                Ok(None) => return,
                Err(error) => {
                    if !core::mem::replace(&mut self.broken, true) {
                        log::error!("virtio-fs: high priority queue: {error}");
                    }
                    return;
                }
            }
        }
    }

    fn send<R: Request>(&mut self, request: &R, unique: Unique, dialect: Dialect) -> bool {
        let Some(token) = self.free.pop() else {
            return false;
        };
        let message = &mut self.messages[usize::from(token)];
        let bytes = message.page.bytes_mut();
        let Ok(encoded) = wire::encode(request, unique, Credentials::DRIVER, dialect, bytes) else {
            self.free.push(token);
            return false;
        };
        let addr = message.page.paddr(0);
        message.table.set(
            0,
            Segment {
                addr,
                len: encoded.args as u32,
                access: Access::Read,
            },
            false,
        );
        if self.ring.add(token, &message.table, 1).is_err() {
            self.free.push(token);
            return false;
        }
        log::trace!("virtio-fs: ! {request}");
        true
    }

    fn send_batch(&mut self, forgets: &Forgets<P>, conn: &Connection<P>) -> bool {
        if self.free.is_empty() {
            return false;
        }
        let mut batch = [ForgetOne::new(NodeId::ROOT, 0); BATCH_MAX];
        let mut first = None;
        let mut n = 0;
        {
            let mut pending = forgets.pending.lock();
            while n < forgets.batch
                && let Some((node, lookups)) = pending.list.pop()
            {
                batch[n] = ForgetOne::new(node, lookups);
                first.get_or_insert(Forget { node, lookups });
                n += 1;
            }
            forgets.count.store(pending.list.len(), Relaxed);
        }
        let Some(first) = first else { return false };
        let (dialect, unique) = (conn.limits.read().dialect, conn.unique());
        let sent = if n == 1 {
            conn.counters.request(Opcode::Forget.to_wire());
            self.send(&first, unique, dialect)
        } else {
            conn.counters.request(Opcode::BatchForget.to_wire());
            self.send(&BatchForget::split(&batch[..n]).0, unique, dialect)
        };
        if sent {
            conn.counters.forgets.add(n as u64);
        } else {
            log::error!(
                "virtio-fs: {n} node ids could not be forgotten: the high priority queue is broken"
            );
        }
        sent
    }
}

impl<P: Platform> Connection<P> {
    /// Makes room to [forget](Self::forget) a node id later. To be called before
    /// each entry that is kept.
    ///
    /// # Errors
    ///
    /// ENOMEM; the entry must then be forgotten at once, for which there is
    /// always room.
    pub fn reserve_forget(&self) -> Result<()> {
        self.forgets.reserve()
    }

    /// Hands `lookups` counts of a node id back to the server, soon. Does not
    /// block, and needs no memory if room was [reserved](Self::reserve_forget).
    pub fn forget(&self, node: NodeId, lookups: u64) {
        if node == NodeId::ROOT || lookups == 0 || self.state() != super::State::Ready {
            return;
        }
        if self.forgets.push(node, lookups, self.now()) >= self.forgets.batch {
            self.forgets.flush(self);
        }
    }

    /// Sends all forgets that are pending, as far as the queue has room. Does not
    /// block.
    pub fn flush_forgets(&self) {
        self.forgets.flush(self);
    }

    /// Returns how many node ids wait to be forgotten.
    pub fn pending_forgets(&self) -> usize {
        self.forgets.count.load(Relaxed)
    }
}
