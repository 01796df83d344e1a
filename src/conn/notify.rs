//! The notification queue: what a server says without being asked (virtio 1.3,
//! 5.11.6; no server is known to use it yet).
//!
//! It exists where the device offers VIRTIO_FS_F_NOTIFICATION, and is queue 1
//! then; requests begin at queue 2. The device gets buffers to write to; what
//! comes back is copied out, the buffer goes round again, and whoever
//! [subscribed](Connection::subscribe) is told, in thread context, from
//! [`Connection::work`].

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::{Acquire, Release};

use super::Connection;
use crate::device::Transport;
use crate::device::dma::{DmaRegion, OutOfDma};
use crate::device::ring::{Ring, RingFeatures};
use crate::device::table::{Access, DescriptorTable, Segment};
use crate::device::transport::QueueLayout;
use crate::platform::{PAGE_SIZE, Platform};
use crate::sync::{HandoffLock, Rank, SpinLock};
use crate::wire::Notification;

/// The queue's number where it exists.
pub(super) const INDEX: u16 = 1;
/// Buffers that the device may fill at once.
const BUFFERS: u16 = 16;
/// The largest buffer that a device gets, whatever it asks for.
const BUFFER_MAX: usize = 1 << 20;

/// Is told of notifications. Called in thread context; may block.
pub type Subscriber = Box<dyn Fn(&Notification<'_>) + Send + Sync>;

pub(super) struct Notices<P: Platform> {
    channel: HandoffLock<Channel<P>>,
    /// The device broke the queue's rules.
    failed: AtomicBool,
    subscriber: SpinLock<Option<alloc::sync::Arc<Subscriber>>>,
}

struct Channel<P: Platform> {
    ring: Ring<P::Hal>,
    buffers: Vec<Buffer<P>>,
    /// What the device is done with: buffer and length, in order. Has room for
    /// all buffers.
    filled: Vec<(u16, u32)>,
}

struct Buffer<P: Platform> {
    memory: DmaRegion<P::Hal>,
    table: DescriptorTable<P::Hal>,
}

impl<P: Platform> Notices<P> {
    /// Makes a queue of up to `max_size` entries with buffers of `buffer_size`
    /// bytes, all of them ready for the device.
    pub(super) fn new(
        max_size: u16,
        buffer_size: u32,
        features: RingFeatures,
    ) -> Result<Self, OutOfDma> {
        let count = BUFFERS.min(max_size);
        let len = (buffer_size as usize).clamp(PAGE_SIZE, BUFFER_MAX);
        let mut ring = Ring::new(1 << count.ilog2(), features)?;
        let mut buffers = Vec::new();
        for token in 0..ring.size() {
            let memory = DmaRegion::new(len)?;
            let table = DescriptorTable::new(1)?;
            let segment = Segment {
                addr: memory.paddr(0),
                len: len as u32,
                access: Access::Write,
            };
            table.set(0, segment, false);
            // A ring has room for as many chains of one as it has entries.
            let _ = ring.add(token, &table, 1);
            buffers.push(Buffer { memory, table });
        }
        let filled = Vec::with_capacity(buffers.len());
        let channel = HandoffLock::new(
            Rank::Ring,
            Channel {
                ring,
                buffers,
                filled,
            },
        );
        Ok(Self {
            channel,
            failed: AtomicBool::new(false),
            subscriber: SpinLock::new(Rank::Leaf, None),
        })
    }

    pub(super) fn layout(&self, vector: Option<u16>) -> QueueLayout {
        self.channel
            .with(|channel| channel.ring.layout(vector), |_| ())
    }

    /// Lets the device have the buffers. After DRIVER_OK.
    pub(super) fn start(&self, transport: &P::Transport, interrupts: bool) {
        let kick = self.channel.with(
            |channel| {
                if interrupts {
                    // Nothing can be there before the first buffer is.
                    let _ = channel.ring.enable_interrupts();
                }
                channel.ring.publish()
            },
            |channel| channel.reap(&self.failed),
        );
        if kick {
            transport.notify(INDEX);
        }
    }

    /// Takes filled buffers off the ring. Any context.
    pub(super) fn reap(&self) {
        self.channel.request(|channel| channel.reap(&self.failed));
    }

    /// Returns whether the device broke the queue's rules.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// Forgets the device's buffers after a reset; none will come any more.
    pub(super) fn reset(&self) {
        self.channel.with(
            |channel| {
                channel.ring.reset();
                channel.filled.clear();
            },
            |_| (),
        );
        self.failed.store(false, Release);
    }

    /// Makes all buffers ready for the device again, on another ring where it
    /// wants one. Only after a [`reset`](Self::reset).
    pub(super) fn refit(&self, max_size: u16, features: RingFeatures) -> Result<(), OutOfDma> {
        let size = self.channel.with(|channel| channel.ring.size(), |_| ());
        let size = 1 << size.min(max_size.max(1)).ilog2();
        let mut new = Some(Ring::new(size, features)?);
        let old = self.channel.with(
            |channel| {
                let old = new
                    .take()
                    .map(|new| core::mem::replace(&mut channel.ring, new));
                for (token, buffer) in (0..size).zip(&channel.buffers) {
                    // As when it was made.
                    let _ = channel.ring.add(token, &buffer.table, 1);
                }
                old
            },
            |_| (),
        );
        drop(old);
        Ok(())
    }

    /// Takes the oldest notification out, and gives its buffer back to the
    /// device.
    fn take(&self, transport: &P::Transport) -> Option<Vec<u8>> {
        let (bytes, kick) = self.channel.with(
            |channel| {
                channel.reap(&self.failed);
                if channel.filled.is_empty() {
                    return (None, false);
                }
                let (token, len) = channel.filled.remove(0);
                let buffer = &channel.buffers[usize::from(token)];
                // The device's word, cut to what it had room for.
                let mut bytes = vec![0; (len as usize).min(buffer.memory.len())];
                buffer.memory.read(0, &mut bytes);
                let _ = channel.ring.add(token, &buffer.table, 1);
                (Some(bytes), channel.ring.publish())
            },
            |channel| channel.reap(&self.failed),
        );
        if kick {
            transport.notify(INDEX);
        }
        bytes
    }
}

impl<P: Platform> Channel<P> {
    fn reap(&mut self, failed: &AtomicBool) {
        loop {
            match self.ring.pop() {
                Ok(Some(used)) => self.filled.push((used.token, used.written)),
                Ok(None) => {
                    if !self.ring.interrupts_enabled() || !self.ring.enable_interrupts() {
                        return;
                    }
                }
                Err(error) => {
                    if !failed.swap(true, Release) {
                        log::error!("virtio-fs: notification queue: {error}");
                    }
                    return;
                }
            }
        }
    }
}

impl<P: Platform> Connection<P> {
    /// Has `subscriber` told of what the server says without being asked, in
    /// place of whoever was told before. [`Mount`](crate::fs::Mount) subscribes.
    pub fn subscribe(&self, subscriber: Subscriber) {
        if let Some(notices) = &self.notices {
            let old = notices
                .subscriber
                .lock()
                .replace(alloc::sync::Arc::new(subscriber));
            drop(old);
        }
    }

    /// Returns whether the device has a notification queue.
    pub fn has_notifications(&self) -> bool {
        self.notices.is_some()
    }

    /// Passes on what came. Thread context; blocks if the subscriber does.
    pub(super) fn deliver_notifications(&self) {
        let Some(notices) = &self.notices else { return };
        while let Some(bytes) = notices.take(&self.transport) {
            self.counters.notifications.add(1);
            let notification = match Notification::parse(&bytes) {
                Ok(notification) => notification,
                Err(why) => {
                    self.counters.malformed_replies.add(1);
                    log::error!("virtio-fs: malformed notification: {why}");
                    continue;
                }
            };
            let subscriber = notices.subscriber.lock().clone();
            if let Some(subscriber) = subscriber {
                subscriber(&notification);
            }
        }
    }
}
