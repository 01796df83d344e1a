//! The smallest driver that can talk to a virtio-fs daemon, on the transport
//! alone: it tests the harness without the driver, and sends what the driver
//! never would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering, fence};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use virtio_fs::device::transport::DeviceStatus;
use virtio_fs::device::{QueueLayout, Transport};
use virtio_fs::platform::PhysAddr;
use virtio_fs_host::transport::Wake;
use virtio_fs_host::{Buffer, VhostUserTransport};

pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const HIPRIO: u16 = 0;
pub(crate) const REQUEST: u16 = 1;

pub(crate) const LOOKUP: u32 = 1;
pub(crate) const FORGET: u32 = 2;
pub(crate) const GETATTR: u32 = 3;
pub(crate) const OPEN: u32 = 14;
pub(crate) const READ: u32 = 15;
pub(crate) const INIT: u32 = 26;
const SETUPMAPPING: u32 = 48;
const REMOVEMAPPING: u32 = 49;

/// The vector of configuration changes; that of a queue is its number plus 1.
const CONFIG_VECTOR: u16 = 0;

/// Longest time a test waits for one reply.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a reply is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Poll,
    Eventfd,
    /// By the transport's interrupt thread.
    Thread,
}

/// Why no reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoReply {
    HungUp,
    TimedOut,
}

/// A split virtqueue (virtio 1.3, 2.7) of 16-byte descriptors, two per chain.
pub(crate) struct Ring {
    memory: Buffer,
    size: u16,
    available: u16,
    used: u16,
    used_ids: BTreeMap<u16, u32>,
    free: Vec<u16>,
}

impl Ring {
    pub(crate) fn new(size: u16) -> Self {
        let bytes = usize::from(size) * (16 + 2 + 8) + 64;
        Self {
            memory: Buffer::new(bytes),
            size,
            available: 0,
            used: 0,
            used_ids: BTreeMap::new(),
            free: (0..size / 2).map(|pair| pair * 2).collect(),
        }
    }

    fn available_at(&self) -> usize {
        usize::from(self.size) * 16
    }

    fn used_at(&self) -> usize {
        // Flags, index, entries, event index; then rounded up to 4.
        (self.available_at() + usize::from(self.size) * 2 + 6).next_multiple_of(4)
    }

    pub(crate) fn layout(&self, vector: Option<u16>) -> QueueLayout {
        let at = |offset: usize| self.memory.addr() + offset as PhysAddr;
        QueueLayout {
            size: self.size,
            descriptors: at(0),
            available: at(self.available_at()),
            used: at(self.used_at()),
            vector,
        }
    }

    fn describe(&mut self, index: u16, addr: PhysAddr, len: usize, flags: u16, next: u16) {
        let at = usize::from(index) * 16;
        self.memory[at..at + 8].copy_from_slice(&addr.to_le_bytes());
        self.memory[at + 8..at + 12].copy_from_slice(&(len as u32).to_le_bytes());
        self.memory[at + 12..at + 14].copy_from_slice(&flags.to_le_bytes());
        self.memory[at + 14..at + 16].copy_from_slice(&next.to_le_bytes());
    }

    fn index(&self, at: usize) -> &AtomicU16 {
        // SAFETY: the offset is even and inside the buffer, which starts at a
        // page; the device accesses the field as a 16-bit value as well.
        unsafe { AtomicU16::from_ptr(self.memory.as_non_null().add(at).cast().as_ptr()) }
    }

    /// Makes a chain available and returns its head.
    pub(crate) fn submit(
        &mut self,
        readable: (PhysAddr, usize),
        writable: (PhysAddr, usize),
    ) -> u16 {
        let head = self.free.pop().expect("a free pair of descriptors");
        let (next, write) = (1, 2);
        if writable.1 > 0 {
            self.describe(head, readable.0, readable.1, next, head + 1);
            self.describe(head + 1, writable.0, writable.1, write, 0);
        } else {
            self.describe(head, readable.0, readable.1, 0, 0);
        }
        let slot = self.available_at() + 4 + usize::from(self.available % self.size) * 2;
        self.memory[slot..slot + 2].copy_from_slice(&head.to_le_bytes());
        self.available = self.available.wrapping_add(1);
        self.index(self.available_at() + 2)
            .store(self.available, Ordering::Release);
        fence(Ordering::SeqCst);
        head
    }

    /// Returns the used length of chain `head` if the device has returned it.
    pub(crate) fn reap(&mut self, head: u16) -> Option<u32> {
        while self.index(self.used_at() + 2).load(Ordering::Acquire) != self.used {
            let slot = self.used_at() + 4 + usize::from(self.used % self.size) * 8;
            let id = u32::from_le_bytes(self.memory[slot..slot + 4].try_into().unwrap());
            let len = u32::from_le_bytes(self.memory[slot + 4..slot + 8].try_into().unwrap());
            let id = u16::try_from(id).expect("a used id in range");
            assert!(
                self.used_ids.insert(id, len).is_none(),
                "id {id} used twice"
            );
            self.used = self.used.wrapping_add(1);
        }
        let len = self.used_ids.remove(&head)?;
        self.free.push(head);
        Some(len)
    }
}

/// A request in flight.
#[must_use]
pub(crate) struct Pending {
    queue: u16,
    head: u16,
    unique: u64,
    _request: Buffer,
    pub(crate) reply: Buffer,
}

/// A device with its rings.
pub(crate) struct Device {
    pub(crate) transport: VhostUserTransport,
    pub(crate) rings: Vec<Ring>,
    pub(crate) wait: Wait,
    interrupts: Receiver<u16>,
    unique: u64,
}

impl Drop for Device {
    fn drop(&mut self) {
        // A daemon that is still at work must not write into freed buffers.
        self.transport.set_status(DeviceStatus::empty());
    }
}

impl Device {
    /// Brings the device up, without INIT.
    pub(crate) fn new(transport: VhostUserTransport, wait: Wait) -> Self {
        let (sender, interrupts) = channel();
        if wait == Wait::Thread {
            let handler = move |vector| sender.send(vector).unwrap_or_default();
            transport.set_interrupt_handler(Box::new(handler)).unwrap();
        }
        let mut device = Self {
            transport,
            rings: Vec::new(),
            wait,
            interrupts,
            unique: 0,
        };
        device.probe();
        device
    }

    /// Resets the device and sets it up from scratch with new rings.
    pub(crate) fn probe(&mut self) {
        let transport = &self.transport;
        transport.set_status(DeviceStatus::empty());
        assert_eq!(transport.status(), DeviceStatus::empty(), "reset");
        // The device has been reset: the old rings are ours again.
        self.rings.clear();
        let mut status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
        transport.set_status(status);
        assert_ne!(transport.device_features() & VERSION_1, 0);
        transport.set_driver_features(VERSION_1);
        status |= DeviceStatus::FEATURES_OK;
        transport.set_status(status);
        assert_eq!(transport.status(), status, "features");
        transport.set_config_vector(Some(CONFIG_VECTOR)).unwrap();
        for queue in 0..transport.queues() {
            let ring = Ring::new(transport.max_queue_size(queue).min(128));
            let vector = (self.wait == Wait::Thread).then_some(queue + 1);
            transport.set_queue(queue, &ring.layout(vector)).unwrap();
            self.rings.push(ring);
        }
        status |= DeviceStatus::DRIVER_OK;
        transport.set_status(status);
        assert_eq!(transport.status(), status, "driver ok");
    }

    /// Sends a request with room for `reply_len` bytes after the reply header.
    /// `None` for requests without a reply.
    pub(crate) fn send(
        &mut self,
        queue: u16,
        opcode: u32,
        node: u64,
        body: &[u8],
        reply_len: Option<usize>,
    ) -> Pending {
        self.unique += 2;
        let mut request = Buffer::new(40 + body.len());
        let len = request.len() as u32;
        request[0..4].copy_from_slice(&len.to_le_bytes());
        request[4..8].copy_from_slice(&opcode.to_le_bytes());
        request[8..16].copy_from_slice(&self.unique.to_le_bytes());
        request[16..24].copy_from_slice(&node.to_le_bytes());
        request[40..].copy_from_slice(body);
        let reply = Buffer::new(reply_len.map_or(0, |len| 16 + len));
        let head = self.rings[usize::from(queue)]
            .submit((request.addr(), request.len()), (reply.addr(), reply.len()));
        self.transport.notify(queue);
        Pending {
            queue,
            head,
            unique: self.unique,
            _request: request,
            reply,
        }
    }

    /// Waits for the reply and returns the used length with the buffers.
    pub(crate) fn finish(&mut self, pending: Pending) -> Result<(u32, Buffer), NoReply> {
        let deadline = Instant::now() + PATIENCE;
        let mut polls = 0_u32;
        loop {
            let ring = &mut self.rings[usize::from(pending.queue)];
            if let Some(used) = ring.reap(pending.head) {
                return Ok((used, pending.reply));
            }
            polls += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let wake = match self.wait {
                Wait::Eventfd => self.transport.wait_for_interrupt(pending.queue, left),
                Wait::Thread => match self.interrupts.recv_timeout(left) {
                    // Perhaps of an earlier daemon.
                    Ok(CONFIG_VECTOR) => self.alive(),
                    // Perhaps late, and another queue's.
                    Ok(vector) => {
                        assert!(vector <= self.transport.queues(), "vector {vector}");
                        Wake::Interrupt
                    }
                    Err(_) => Wake::TimedOut,
                },
                Wait::Poll if left.is_zero() => Wake::TimedOut,
                Wait::Poll if polls.is_multiple_of(10_000) => self.alive(),
                Wait::Poll => {
                    std::hint::spin_loop();
                    Wake::Interrupt
                }
            };
            match wake {
                Wake::Interrupt => {}
                // The buffers stay the device's until it is reset.
                Wake::HungUp => {
                    std::mem::forget(pending);
                    return Err(NoReply::HungUp);
                }
                Wake::TimedOut => {
                    std::mem::forget(pending);
                    return Err(NoReply::TimedOut);
                }
            }
        }
    }

    /// Says whether the wait can go on.
    fn alive(&self) -> Wake {
        let lost = DeviceStatus::DEVICE_NEEDS_RESET;
        if self.transport.status().contains(lost) {
            Wake::HungUp
        } else {
            Wake::Interrupt
        }
    }

    /// Sends a request and returns the reply's body, or its errno.
    pub(crate) fn call(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        reply_len: usize,
    ) -> Result<Vec<u8>, i32> {
        let pending = self.send(REQUEST, opcode, node, body, Some(reply_len));
        let unique = pending.unique;
        let (used, reply) = self.finish(pending).expect("a reply");
        let word = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap());
        let echo = u64::from_le_bytes(reply[8..16].try_into().unwrap());
        assert_eq!((word(0), echo), (used, unique), "opcode {opcode}");
        match word(4) as i32 {
            0 => Ok(reply[16..used as usize].to_vec()),
            error => Err(-error),
        }
    }

    /// Starts a session and returns the minor version and max_write.
    pub(crate) fn init(&mut self) -> (u32, u32) {
        let mut body = [0; 64];
        body[0..4].copy_from_slice(&7_u32.to_le_bytes());
        body[4..8].copy_from_slice(&38_u32.to_le_bytes());
        body[8..12].copy_from_slice(&(1_u32 << 20).to_le_bytes());
        // FUSE_MAX_PAGES, for a max_write above 128 KiB.
        body[12..16].copy_from_slice(&(1_u32 << 22).to_le_bytes());
        let reply = self.call(INIT, 0, &body, 64).expect("INIT");
        let word = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap());
        assert_eq!(word(0), 7, "major version");
        (word(4), word(20))
    }

    /// Returns the mode and size of `node`.
    pub(crate) fn getattr(&mut self, node: u64) -> Result<(u32, u64), i32> {
        let reply = self.call(GETATTR, node, &[0; 16], 104)?;
        let size = u64::from_le_bytes(reply[24..32].try_into().unwrap());
        Ok((u32::from_le_bytes(reply[76..80].try_into().unwrap()), size))
    }

    /// Returns the node of `name` in the root directory.
    pub(crate) fn lookup(&mut self, name: &str) -> Result<u64, i32> {
        let body = [name.as_bytes(), b"\0"].concat();
        let reply = self.call(LOOKUP, 1, &body, 128)?;
        Ok(u64::from_le_bytes(reply[0..8].try_into().unwrap()))
    }

    /// Opens `node` for reading and returns the handle.
    pub(crate) fn open(&mut self, node: u64) -> Result<u64, i32> {
        let reply = self.call(OPEN, node, &[0; 8], 16)?;
        Ok(u64::from_le_bytes(reply[0..8].try_into().unwrap()))
    }

    /// Opens `node` for reading and writing and returns the handle.
    pub(crate) fn open_for_writing(&mut self, node: u64) -> Result<u64, i32> {
        let mut body = [0; 8];
        body[0..4].copy_from_slice(&libc::O_RDWR.to_le_bytes());
        let reply = self.call(OPEN, node, &body, 16)?;
        Ok(u64::from_le_bytes(reply[0..8].try_into().unwrap()))
    }

    /// Maps `len` bytes of a file from `from` to `to` in the window.
    pub(crate) fn map(
        &mut self,
        node: u64,
        fh: u64,
        from: usize,
        len: usize,
        to: usize,
    ) -> Result<(), i32> {
        // FUSE_SETUPMAPPING_FLAG_WRITE and _READ.
        let fields = [fh, from as u64, len as u64, 3, to as u64];
        let body: Vec<u8> = fields
            .iter()
            .flat_map(|field| field.to_le_bytes())
            .collect();
        self.call(SETUPMAPPING, node, &body, 0).map(drop)
    }

    /// Removes mappings, each given by offset and length.
    pub(crate) fn unmap(&mut self, mappings: &[(usize, usize)]) -> Result<(), i32> {
        let mut body = (mappings.len() as u32).to_le_bytes().to_vec();
        for &(at, len) in mappings {
            body.extend((at as u64).to_le_bytes());
            body.extend((len as u64).to_le_bytes());
        }
        self.call(REMOVEMAPPING, 1, &body, 0).map(drop)
    }

    /// Reads `size` bytes at `offset`.
    pub(crate) fn read(
        &mut self,
        node: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, i32> {
        let mut body = [0; 40];
        body[0..8].copy_from_slice(&fh.to_le_bytes());
        body[8..16].copy_from_slice(&offset.to_le_bytes());
        body[16..20].copy_from_slice(&size.to_le_bytes());
        self.call(READ, node, &body, size as usize)
    }
}
