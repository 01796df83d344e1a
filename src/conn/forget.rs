//! The high priority queue: FORGET, BATCH_FORGET and INTERRUPT.
//!
//! Each entry that a server hands out is handed back here, once. The room to
//! remember it is reserved when the entry is accepted, so that forgetting never
//! fails for memory (S4-M34). Forgets are gathered and go out in batches: when
//! enough have come together, when a request is sent and the oldest has waited
//! long enough, from the worker, and before the connection closes.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicUsize};
use core::time::Duration;

use super::Connection;
use super::names::Life;
use super::open::HIPRIO;
use crate::device::Transport;
use crate::device::dma::{DmaRegion, OutOfDma};
use crate::device::ring::{Ring, RingFeatures};
use crate::device::table::{Access, DescriptorTable, Segment};
use crate::device::transport::QueueLayout;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{PAGE_SIZE, Platform};
use crate::sync::{HandoffLock, Rank, SpinLock};
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
    /// The device broke the ring's rules: nothing more comes back.
    broken: AtomicBool,
    batch: usize,
}

/// Whether a forget has room set aside for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Reserved,
    None,
}

/// INVARIANT: `list` has capacity for `reserved` more entries.
struct Pending {
    list: Vec<(NodeId, u64)>,
    /// Nodes with a RELEASE that was not answered yet, as often as there are
    /// such: a server may not know a file any more that was forgotten.
    closing: Vec<NodeId>,
    /// Node ids that are out there, each of which will need a place.
    reserved: usize,
    oldest: Duration,
}

struct Channel<P: Platform> {
    ring: Ring<P::Hal>,
    messages: Vec<Message<P>>,
    /// Indices of `messages` that are not with the device.
    free: Vec<u16>,
    /// The life that the ring is for.
    life: Life,
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
            pending: SpinLock::new(
                Rank::Forgets,
                Pending {
                    list: Vec::new(),
                    closing: Vec::new(),
                    reserved: 0,
                    oldest: Duration::ZERO,
                },
            ),
            count: AtomicUsize::new(0),
            channel: HandoffLock::new(
                Rank::Ring,
                Channel {
                    ring: Ring::new(size, features)?,
                    messages: (0..count).map(message).collect::<Result<_, _>>()?,
                    free: (0..count).collect(),
                    life: Life::default(),
                },
            ),
            broken: AtomicBool::new(false),
            batch: batch.clamp(1, BATCH_MAX),
        })
    }

    pub(super) fn layout(&self, vector: Option<u16>) -> QueueLayout {
        self.channel
            .with(|channel| channel.ring.layout(vector), |_| ())
    }

    /// Takes finished messages off the ring. Any context.
    pub(super) fn reap(&self) {
        self.channel.request(|channel| channel.reap(&self.broken));
    }

    /// Returns whether the device broke the queue. It needs a reset then, or
    /// what is to be forgotten would pile up for ever.
    pub(super) fn failed(&self) -> bool {
        self.broken.load(Acquire)
    }

    /// Returns how many messages the device has.
    pub(super) fn in_flight(&self) -> u16 {
        self.channel.with(
            |channel| channel.ring.in_flight(),
            |channel| channel.reap(&self.broken),
        )
    }

    /// Sends nothing more of this life, and from the next on of `next`.
    pub(super) fn retire(&self, next: Life) {
        self.channel.with(|channel| channel.life = next, |_| ());
    }

    /// Gives the queue another ring, where the device wants one. Only after a
    /// [`reset`](Self::reset).
    pub(super) fn refit(&self, size: u16, features: RingFeatures) -> Result<(), OutOfDma> {
        let fits = |channel: &mut Channel<P>| {
            channel.ring.size() == size && channel.ring.features() == features
        };
        if !self.channel.with(fits, |_| ()) {
            let new = Ring::new(size, features)?;
            let old = self
                .channel
                .with(|channel| core::mem::replace(&mut channel.ring, new), |_| ());
            drop(old);
        }
        Ok(())
    }

    /// Returns the number of entries of the queue.
    pub(super) fn size(&self) -> u16 {
        self.channel.with(|channel| channel.ring.size(), |_| ())
    }

    pub(super) fn reset(&self) {
        self.channel.with(
            |channel| {
                channel.ring.reset();
                channel.free.clear();
                channel.free.extend(0..channel.messages.len() as u16);
            },
            |_| (),
        );
        self.broken.store(false, Release);
        let mut pending = self.pending.lock();
        pending.list.clear();
        pending.closing.clear();
        self.count.store(0, Relaxed);
    }

    /// Keeps all memory that the device may have from being used again.
    pub(super) fn leak(&self) {
        self.channel.with(
            |channel| {
                core::mem::forget(core::mem::take(&mut channel.messages));
                channel.free.clear();
                channel.ring.leak();
            },
            |_| (),
        );
    }

    /// Makes room to forget one more node id.
    fn reserve(&self) -> Result<()> {
        let mut pending = self.pending.lock();
        let need = pending.reserved + 1;
        let no_memory = |_| Error::new(Errno::ENOMEM, Origin::Platform);
        if pending.list.capacity() - pending.list.len() < need {
            // One for each inode: not doubled, an eighth more.
            let more = need + need / 8;
            pending.list.try_reserve_exact(more).map_err(no_memory)?;
        }
        pending.reserved += 1;
        Ok(())
    }

    /// Notes that a RELEASE of this node is to come. Until it was answered, the
    /// node is not forgotten.
    pub(super) fn closing(&self, node: NodeId) {
        self.pending.lock().closing.push(node);
    }

    /// Notes that one was answered.
    pub(super) fn closed(&self, node: NodeId) {
        let closing = &mut self.pending.lock().closing;
        if let Some(at) = closing.iter().position(|n| *n == node) {
            closing.swap_remove(at);
        }
    }

    /// Gives up the room for one node id.
    fn unreserve(&self) {
        let mut pending = self.pending.lock();
        pending.reserved = pending.reserved.saturating_sub(1);
    }

    /// Queues a forget. Without `room` of its own it may not take what others
    /// reserved, and fails if there is no memory. Returns how many are pending.
    fn push(&self, node: NodeId, lookups: u64, now: Duration, room: Room) -> Result<usize> {
        let mut pending = self.pending.lock();
        match room {
            Room::Reserved => pending.reserved = pending.reserved.saturating_sub(1),
            Room::None => {
                let need = pending.reserved + 1;
                let no_memory = |_| Error::new(Errno::ENOMEM, Origin::Platform);
                pending.list.try_reserve(need).map_err(no_memory)?;
            }
        }
        if pending.list.is_empty() {
            pending.oldest = now;
        }
        pending.list.push((node, lookups));
        self.count.store(pending.list.len(), Relaxed);
        Ok(pending.list.len())
    }

    /// Sends what is pending, as far as there is room. Does not block. What
    /// finds no room goes later.
    pub(super) fn flush(&self, conn: &Connection<P>) {
        while !conn.state().is_interlude() && self.count.load(Relaxed) > 0 {
            let mut kick = false;
            let sent = self.channel.with(
                |channel| {
                    channel.reap(&self.broken);
                    let sent = channel.send_batch(self, conn);
                    kick = channel.ring.publish();
                    sent
                },
                |channel| channel.reap(&self.broken),
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
                channel.reap(&self.broken);
                channel.send(&interrupt, target.interrupt(), conn.limits.read().dialect);
                channel.ring.publish()
            },
            |channel| channel.reap(&self.broken),
        );
        conn.counters.request(Opcode::Interrupt.to_wire());
        if kick {
            conn.counters.kicks.add(1);
            conn.transport.notify(HIPRIO);
        }
    }
}

impl<P: Platform> Channel<P> {
    fn reap(&mut self, broken: &AtomicBool) {
        loop {
            match self.ring.pop() {
                Ok(Some(used)) => self.free.push(used.token),
                Ok(None) => return,
                Err(error) => {
                    if !broken.swap(true, Release) {
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
        let (mut n, mut taken) = (0, 0);
        {
            let mut pending = forgets.pending.lock();
            let mut at = pending.list.len();
            while n < forgets.batch && at > 0 {
                at -= 1;
                let (node, lookups) = pending.list[at];
                if pending.closing.contains(&node) {
                    continue;
                }
                pending.list.swap_remove(at);
                taken += 1;
                // What the server of this life does not know it need not forget.
                let known = conn.names.uncount(self.life, node, lookups);
                let Some((node, lookups)) = known else {
                    continue;
                };
                batch[n] = ForgetOne::new(node, lookups);
                first.get_or_insert(Forget { node, lookups });
                n += 1;
            }
            forgets.count.store(pending.list.len(), Relaxed);
        }
        let Some(first) = first else {
            return taken > 0;
        };
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
    /// ENOMEM; the entry is then [refused](Self::forget_unkept).
    pub fn reserve_forget(&self) -> Result<()> {
        self.forgets.reserve()
    }

    /// Hands `lookups` counts of a node id back to the server, soon, and with
    /// them the room that was [reserved](Self::reserve_forget). Does not block
    /// and needs no memory. With 0 counts only the room is given up.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        if node == NodeId::ROOT {
            return;
        }
        if lookups == 0 {
            self.forgets.unreserve();
            self.names.drop_lost(node);
        } else {
            self.queue_forget(node, lookups, Room::Reserved);
        }
    }

    /// Hands back one count of an entry that was not kept, so that no room was
    /// reserved for it. Does not block.
    pub fn forget_unkept(&self, node: NodeId) {
        self.queue_forget(node, 1, Room::None);
    }

    fn queue_forget(&self, node: NodeId, lookups: u64, room: Room) {
        let state = self.state();
        if node == NodeId::ROOT || !(state == super::State::Ready || state.is_interlude()) {
            return;
        }
        match self.forgets.push(node, lookups, self.now(), room) {
            Ok(pending) if pending >= self.forgets.batch => self.forgets.flush(self),
            Ok(_) => {}
            Err(error) => {
                log::error!("virtio-fs: no memory to forget node {node}: {error}");
            }
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
