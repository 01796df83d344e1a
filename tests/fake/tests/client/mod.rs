//! A tiny reference client: one request at a time over its own ring, so that
//! the fake is tested without the driver that is tested against it.

#![expect(dead_code, reason = "each test program uses a part of it")]

use std::ptr::NonNull;

use virtio_drivers::transport::DeviceStatus;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};
use virtio_fs::device::{QueueLayout, Transport};
use virtio_fs::platform::Platform;
use virtio_fs_fake::{Fake, FakeHal, FakePlatform, FakeTransport, Handle, Op, feature, init};

const SIZE: u16 = 16;

/// Every INIT flag, but for those that oblige to more in each request.
pub(crate) const ALL_FLAGS: u64 = !(init::SECURITY_CTX | 1 << 31);

/// A page of DMA memory.
pub(crate) struct Page {
    pub(crate) paddr: PhysAddr,
    pub(crate) vaddr: NonNull<u8>,
}

impl Page {
    pub(crate) fn new() -> Self {
        let (paddr, vaddr) = FakeHal::dma_alloc(1, BufferDirection::Both);
        assert_ne!(paddr, 0, "out of DMA memory");
        Self { paddr, vaddr }
    }

    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= PAGE_SIZE);
        // SAFETY: within the page, as just checked; the client has one thread.
        unsafe {
            self.vaddr
                .add(at)
                .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
        };
    }

    pub(crate) fn read<const N: usize>(&self, at: usize) -> [u8; N] {
        assert!(at + N <= PAGE_SIZE);
        // SAFETY: within the page, as just checked; any bytes are a `[u8; N]`.
        unsafe { self.vaddr.add(at).cast::<[u8; N]>().read_volatile() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with one page and dropped once.
        unsafe { FakeHal::dma_dealloc(self.paddr, self.vaddr, 1) };
    }
}

/// A queue: descriptors at 0, available ring at 1024, used ring at 2048, all in
/// one page.
pub(crate) struct Ring {
    pub(crate) page: Page,
    pub(crate) index: u16,
    pub(crate) avail: u16,
    pub(crate) used: u16,
}

impl Ring {
    pub(crate) fn new(transport: &FakeTransport, index: u16) -> Self {
        let page = Page::new();
        let layout = QueueLayout {
            size: SIZE,
            descriptors: page.paddr,
            available: page.paddr + 1024,
            used: page.paddr + 2048,
            vector: Some(index),
        };
        transport.set_queue(index, &layout).unwrap();
        Self {
            page,
            index,
            avail: 0,
            used: 0,
        }
    }

    pub(crate) fn describe(&self, index: u16, addr: u64, len: usize, flags: u16, next: u16) {
        let at = usize::from(index) * 16;
        self.page.write(at, &addr.to_le_bytes());
        self.page.write(at + 8, &(len as u32).to_le_bytes());
        self.page.write(at + 12, &flags.to_le_bytes());
        self.page.write(at + 14, &next.to_le_bytes());
    }

    pub(crate) fn publish(&mut self, head: u16) {
        let slot = usize::from(self.avail % SIZE);
        self.page.write(1024 + 4 + 2 * slot, &head.to_le_bytes());
        self.avail = self.avail.wrapping_add(1);
        self.page.write(1024 + 2, &self.avail.to_le_bytes());
    }

    /// The next used element, if there is one.
    pub(crate) fn take(&mut self) -> Option<(u32, u32)> {
        let index = u16::from_le_bytes(self.page.read(2048 + 2));
        if index == self.used {
            return None;
        }
        let at = 2048 + 4 + 8 * usize::from(self.used % SIZE);
        self.used = self.used.wrapping_add(1);
        // Ask for the interrupt of the next one.
        self.page
            .write(1024 + 4 + 2 * usize::from(SIZE), &self.used.to_le_bytes());
        let (id, len) = (self.page.read(at), self.page.read(at + 4));
        Some((u32::from_le_bytes(id), u32::from_le_bytes(len)))
    }
}

/// A buffer shared with the device.
pub(crate) struct Shared {
    pub(crate) paddr: PhysAddr,
    bytes: Box<[u8]>,
    direction: BufferDirection,
}

impl Shared {
    pub(crate) fn new(bytes: Vec<u8>, direction: BufferDirection) -> Self {
        let mut bytes = bytes.into_boxed_slice();
        // SAFETY: a live buffer that nobody else accesses.
        let paddr = unsafe { FakeHal::share(NonNull::from(&mut *bytes), direction) };
        Self {
            paddr,
            bytes,
            direction,
        }
    }

    pub(crate) fn unshare(mut self) -> Vec<u8> {
        // SAFETY: the values that `share` was called with and returned.
        unsafe { FakeHal::unshare(self.paddr, NonNull::from(&mut *self.bytes), self.direction) };
        self.bytes.into_vec()
    }
}

/// A request that was published and not yet taken back.
pub(crate) struct Flight {
    pub(crate) unique: u64,
    pub(crate) queue: usize,
    request: Shared,
    reply: Option<Shared>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) used_len: u32,
    /// All writable bytes, whatever the used length says.
    pub(crate) raw: Vec<u8>,
}

impl Reply {
    pub(crate) fn len(&self) -> u32 {
        u32::from_le_bytes(self.raw[..4].try_into().unwrap())
    }

    pub(crate) fn error(&self) -> i32 {
        i32::from_le_bytes(self.raw[4..8].try_into().unwrap())
    }

    pub(crate) fn unique(&self) -> u64 {
        u64::from_le_bytes(self.raw[8..16].try_into().unwrap())
    }

    /// The body of a well-formed reply.
    pub(crate) fn body(&self) -> Result<&[u8], i32> {
        assert_eq!(self.used_len, self.len(), "used length and header agree");
        match self.error() {
            0 => Ok(&self.raw[16..self.used_len as usize]),
            error => {
                assert_eq!(self.used_len, 16, "an error is a header");
                Err(-error)
            }
        }
    }
}

pub(crate) struct Client {
    pub(crate) transport: FakeTransport,
    pub(crate) rings: Vec<Ring>,
    platform: FakePlatform,
    next: u64,
    /// uid, gid and pid of the requests.
    pub(crate) who: [u32; 3],
}

impl Client {
    /// Brings the device up without INIT.
    pub(crate) fn probe(transport: FakeTransport, handle: &Handle) -> Self {
        Self::accept(transport, handle, u64::MAX)
    }

    /// Brings the device up with some of the features it offers.
    pub(crate) fn accept(transport: FakeTransport, handle: &Handle, features: u64) -> Self {
        let platform = handle.platform();
        let mut client = Self {
            transport,
            rings: Vec::new(),
            platform,
            next: 2,
            who: [0; 3],
        };
        client.start(features);
        client
    }

    /// Resets the device and sets it up.
    pub(crate) fn start(&mut self, features: u64) {
        use DeviceStatus as S;
        self.reset();
        let transport = &self.transport;
        transport.set_status(S::ACKNOWLEDGE);
        transport.set_status(S::ACKNOWLEDGE | S::DRIVER);
        let features = transport.device_features() & features;
        transport.set_driver_features(features);
        let ok = S::ACKNOWLEDGE | S::DRIVER | S::FEATURES_OK;
        transport.set_status(ok);
        assert_eq!(transport.status(), ok);
        while transport.max_queue_size(self.rings.len() as u16) != 0 {
            self.rings
                .push(Ring::new(transport, self.rings.len() as u16));
        }
        transport.set_status(ok | S::DRIVER_OK);
    }

    /// Resets the device and frees the rings, unless the device is gone.
    pub(crate) fn reset(&mut self) {
        self.transport.set_status(DeviceStatus::empty());
        let status = self.transport.status();
        assert!(status.is_empty() || status.bits() == 0xFF, "{status:?}");
        self.rings.clear();
    }

    /// Brings the device and a session up.
    pub(crate) fn mount(fake: Fake) -> (Self, Handle) {
        let (transport, handle) = fake.build();
        let mut client = Self::probe(transport, &handle);
        client.init(45, ALL_FLAGS).unwrap();
        (client, handle)
    }

    pub(crate) fn init(&mut self, minor: u32, flags: u64) -> Result<Vec<u8>, i32> {
        let args = [7, minor, 1 << 17, flags as u32, (flags >> 32) as u32];
        let mut body: Vec<u8> = args.iter().flat_map(|n| n.to_le_bytes()).collect();
        body.resize(64, 0);
        self.call(Op::INIT, 0, &body, 64)
    }

    pub(crate) fn message(&mut self, op: Op, nodeid: u64, args: &[u8]) -> (u64, Vec<u8>) {
        let unique = self.next;
        self.next += 2;
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&(40 + args.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&op.0.to_le_bytes());
        bytes.extend_from_slice(&unique.to_le_bytes());
        bytes.extend_from_slice(&nodeid.to_le_bytes());
        self.who
            .iter()
            .for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(args);
        (unique, bytes)
    }

    /// Publishes one request as the two descriptors 2n and 2n+1.
    pub(crate) fn submit(
        &mut self,
        queue: usize,
        slot: u16,
        bytes: Vec<u8>,
        room: usize,
    ) -> Flight {
        let unique = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
        let request = Shared::new(bytes, BufferDirection::DriverToDevice);
        let reply = (room > 0).then(|| Shared::new(vec![0; room], BufferDirection::DeviceToDriver));
        let ring = &mut self.rings[queue];
        let head = 2 * slot;
        let more = u16::from(reply.is_some());
        ring.describe(head, request.paddr, request.bytes.len(), more, head + 1);
        if let Some(reply) = &reply {
            ring.describe(head + 1, reply.paddr, reply.bytes.len(), 2, 0);
        }
        ring.publish(head);
        self.transport.notify(queue as u16);
        Flight {
            unique,
            queue,
            request,
            reply,
        }
    }

    /// Waits for the next used element of a queue.
    pub(crate) fn wait(&mut self, queue: usize) -> (u32, u32) {
        loop {
            if let Some(used) = self.rings[queue].take() {
                return used;
            }
            self.platform.park(None);
        }
    }

    pub(crate) fn finish(&mut self, flight: Flight, used_len: u32) -> Reply {
        flight.request.unshare();
        Reply {
            used_len,
            raw: flight.reply.map_or_else(Vec::new, Shared::unshare),
        }
    }

    /// Sends a request and waits for what comes back.
    pub(crate) fn exchange(&mut self, op: Op, nodeid: u64, args: &[u8], room: usize) -> Reply {
        let (_, bytes) = self.message(op, nodeid, args);
        self.exchange_raw(op, bytes, room)
    }

    pub(crate) fn exchange_raw(&mut self, op: Op, bytes: Vec<u8>, room: usize) -> Reply {
        let silent = matches!(op, Op::FORGET | Op::BATCH_FORGET | Op::INTERRUPT);
        let features = self.accepted_notifications();
        let queue = if silent { 0 } else { 1 + features };
        let room = if silent { 0 } else { 16 + room };
        let flight = self.submit(queue, 0, bytes, room);
        let (id, len) = self.wait(queue);
        assert_eq!(id, 0);
        self.finish(flight, len)
    }

    fn accepted_notifications(&self) -> usize {
        usize::from(self.transport.device_features() & feature::NOTIFICATION != 0)
    }

    /// Sends a request and returns the reply's body or errno.
    pub(crate) fn call(
        &mut self,
        op: Op,
        nodeid: u64,
        args: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, i32> {
        let unique = self.next;
        let reply = self.exchange(op, nodeid, args, room);
        assert_eq!(reply.unique(), unique);
        reply.body().map(<[u8]>::to_vec)
    }

    pub(crate) fn lookup(&mut self, parent: u64, name: &str) -> Result<u64, i32> {
        let entry = self.call(Op::LOOKUP, parent, &cstr(name), 128)?;
        Ok(u64_at(&entry, 0))
    }

    pub(crate) fn forget(&mut self, nodeid: u64, n: u64) {
        let reply = self.exchange(Op::FORGET, nodeid, &n.to_le_bytes(), 0);
        assert_eq!(reply.used_len, 0);
    }

    pub(crate) fn open(&mut self, nodeid: u64, flags: i32) -> Result<u64, i32> {
        let open = self.call(Op::OPEN, nodeid, &words(&[flags as u32, 0]), 16)?;
        Ok(u64_at(&open, 0))
    }

    pub(crate) fn release(&mut self, op: Op, nodeid: u64, fh: u64, flags: i32) {
        let args = [&fh.to_le_bytes()[..], &words(&[flags as u32, 0]), &[0; 8]].concat();
        self.call(op, nodeid, &args, 0).unwrap();
    }

    pub(crate) fn read(
        &mut self,
        nodeid: u64,
        fh: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, i32> {
        self.call(Op::READ, nodeid, &read_in(fh, offset, size), size as usize)
    }

    pub(crate) fn write(
        &mut self,
        nodeid: u64,
        fh: u64,
        offset: u64,
        data: &[u8],
        flags: i32,
    ) -> Result<u32, i32> {
        let head = [
            &longs(&[fh, offset])[..],
            &words(&[data.len() as u32, 0]),
            &[0; 8],
            &words(&[flags as u32, 0]),
            data,
        ];
        Ok(u32_at(&self.call(Op::WRITE, nodeid, &head.concat(), 8)?, 0))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.reset();
        }
    }
}

pub(crate) fn read_in(fh: u64, offset: u64, size: u32) -> Vec<u8> {
    [&longs(&[fh, offset])[..], &words(&[size, 0]), &[0; 16]].concat()
}

pub(crate) fn cstr(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

pub(crate) fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|n| n.to_le_bytes()).collect()
}

pub(crate) fn longs(values: &[u64]) -> Vec<u8> {
    values.iter().flat_map(|n| n.to_le_bytes()).collect()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The records of a READDIR or READDIRPLUS reply: name, cookie, node id.
pub(crate) fn records(op: Op, bytes: &[u8]) -> Vec<(String, u64, u64)> {
    let head = if op == Op::READDIRPLUS { 128 } else { 0 };
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let nodeid = if head > 0 { u64_at(rest, 0) } else { 0 };
        let len = u32_at(rest, head + 16) as usize;
        let name = String::from_utf8(rest[head + 24..head + 24 + len].to_vec()).unwrap();
        found.push((name, u64_at(rest, head + 8), nodeid));
        rest = &rest[(head + 24 + len).next_multiple_of(8)..];
    }
    found
}
