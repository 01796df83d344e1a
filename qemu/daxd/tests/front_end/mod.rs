//! A vhost-user front end in the test's own process: guest memory, split rings, and
//! a window that SHMEM messages map into. The daemon is the real program.

#![expect(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod fuse;
pub(crate) mod memory;
pub(crate) mod window;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Error as VhostUserError, Frontend, FrontendReqHandler, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use memory::{GUEST_BASE, Memory};
use window::Window;

/// Nothing in these tests takes longer, even on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

const QUEUE_SIZE: u16 = 64;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
/// Where the rings begin in guest memory, one after the other.
const RINGS: u64 = 0;
const RING_STEP: u64 = 0x4000;
/// Where the buffers begin: a readable and a writable area for each descriptor head.
const BUFFERS: u64 = 1 << 20;
const AREA: u64 = (1 << 20) + 0x4000;
const BUFFERED: u16 = 16;

pub(crate) const WRITABLE: u16 = 2;
const NEXT: u16 = 1;

/// A daemon with a window of 8 MiB, and a guest that has sent INIT, with as many
/// queues as `args` ask for.
pub(crate) fn started(scratch: &Scratch, args: &[&str]) -> (Daemon, Vm) {
    let queues = args
        .iter()
        .skip_while(|a| **a != "--queues")
        .nth(1)
        .map_or(1, |n| n.parse().expect("a number"));
    let daemon = Daemon::start(scratch, &[&["--window", "8M"], args].concat());
    let mut vm = Vm::connect(&daemon.socket, 8 << 20, queues);
    vm.init();
    (daemon, vm)
}

/// A directory of its own for each test, removed at its end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("daxd-{}-{n}-{name}", std::process::id()));
        fs::create_dir_all(dir.join("share")).expect("a scratch directory");
        Self(dir)
    }

    pub(crate) fn share(&self) -> PathBuf {
        self.0.join("share")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Ring {
    at: u64,
    kick: EventFd,
    next_avail: u16,
    next_used: u16,
    free: Vec<u16>,
}

/// The program under test.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn start(scratch: &Scratch, args: &[&str]) -> Self {
        Self::start_sharing(scratch, &scratch.share(), args)
    }

    pub(crate) fn start_sharing(scratch: &Scratch, share: &Path, args: &[&str]) -> Self {
        let socket = scratch.0.join("socket");
        let log = scratch.0.join("log");
        let child = Command::new(env!("CARGO_BIN_EXE_virtio-fs-daxd"))
            .arg("--socket-path")
            .arg(&socket)
            .arg("--shared-dir")
            .arg(share)
            .args(["--log-level", "debug"])
            .args(args)
            .stderr(fs::File::create(&log).expect("a log"))
            .stdin(Stdio::null())
            .spawn()
            .expect("the daemon starts");
        let daemon = Self { child, socket, log };
        wait_until("the socket is there", || daemon.socket.exists());
        daemon
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the daemon ends", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("it ended")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
    }
}

pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        let waited = began.elapsed();
        assert!(waited < LONG, "timed out: {what}");
        // Most of it is done at once.
        if waited < Duration::from_millis(1) {
            thread::yield_now();
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// A connection to the daemon, and what a VM would be.
pub(crate) struct Vm {
    pub(crate) frontend: Frontend,
    pub(crate) memory: Memory,
    pub(crate) window: Arc<Window>,
    rings: Vec<Ring>,
    unique: u64,
}

impl Drop for Vm {
    fn drop(&mut self) {
        // The window's thread holds the connection too, and waits for the daemon.
        // SAFETY: the descriptor is that of `frontend`; the call touches no memory.
        unsafe { libc::shutdown(self.frontend.as_raw_fd(), libc::SHUT_RDWR) };
    }
}

/// What came back for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Bytes written, as the ring says.
    pub(crate) used: u32,
    /// The writable area, all of it.
    pub(crate) bytes: Vec<u8>,
}

impl Vm {
    /// Connects in the order that QEMU does, and starts `queues` request queues.
    pub(crate) fn connect(socket: &Path, window_size: u64, queues: usize) -> Self {
        let rings = queues + 1;
        let mut frontend = Frontend::connect(socket, rings as u64).expect("the daemon listens");
        frontend.set_owner().expect("SET_OWNER");
        let features = frontend.get_features().expect("GET_FEATURES");
        let protocol = frontend
            .get_protocol_features()
            .expect("GET_PROTOCOL_FEATURES");
        frontend
            .set_protocol_features(protocol)
            .expect("SET_PROTOCOL_FEATURES");
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(
            frontend.get_queue_num().expect("GET_QUEUE_NUM"),
            rings as u64
        );
        let window = Arc::new(Window::new(window_size, frontend.clone()));
        if window_size > 0 {
            assert!(protocol.contains(VhostUserProtocolFeatures::SHMEM));
            let regions = frontend.get_shmem_config().expect("GET_SHMEM_CONFIG");
            assert_eq!(
                (regions.nregions, regions.memory_sizes[0]),
                (1, window_size)
            );
        }
        let mut handler = FrontendReqHandler::new(window.clone()).expect("a channel");
        handler.set_reply_ack_flag(true);
        // The sending end must not be ours as well, or it would never be closed.
        frontend
            .set_backend_request_fd(&handler.get_tx_raw_fd())
            .expect("SET_BACKEND_REQ_FD");
        thread::spawn(move || {
            // What the window refuses is an error here too.
            while matches!(
                handler.handle_request(),
                Ok(_) | Err(VhostUserError::ReqHandlerError(_))
            ) {}
        });
        frontend
            .set_features(features & (VERSION_1 | PROTOCOL_FEATURES))
            .expect("SET_FEATURES");
        let memory = Memory::new(BUFFERS + rings as u64 * u64::from(BUFFERED) * 2 * AREA);
        let mut vm = Self {
            frontend,
            memory,
            window,
            rings: Vec::new(),
            unique: 0,
        };
        vm.frontend
            .set_mem_table(&[vm.region()])
            .expect("SET_MEM_TABLE");
        for queue in 0..rings {
            vm.start_ring(queue);
        }
        vm
    }

    pub(crate) fn region(&self) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: GUEST_BASE,
            memory_size: self.memory.len(),
            userspace_addr: self.memory.address(0),
            mmap_offset: 0,
            mmap_handle: self.memory.file().as_raw_fd(),
        }
    }

    fn start_ring(&mut self, queue: usize) {
        let at = RINGS + queue as u64 * RING_STEP;
        self.memory.fill(at, RING_STEP, 0);
        let ring = Ring {
            at,
            kick: EventFd::new(EFD_NONBLOCK).expect("an event"),
            next_avail: 0,
            next_used: 0,
            free: (0..BUFFERED).collect(),
        };
        let call = EventFd::new(EFD_NONBLOCK).expect("an event");
        let f = &mut self.frontend;
        f.set_vring_num(queue, QUEUE_SIZE).expect("SET_VRING_NUM");
        f.set_vring_base(queue, 0).expect("SET_VRING_BASE");
        let config = VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: self.memory.address(at),
            avail_ring_addr: self.memory.address(at + 0x1000),
            used_ring_addr: self.memory.address(at + 0x2000),
            log_addr: None,
        };
        f.set_vring_addr(queue, &config).expect("SET_VRING_ADDR");
        f.set_vring_call(queue, &call).expect("SET_VRING_CALL");
        f.set_vring_kick(queue, &ring.kick).expect("SET_VRING_KICK");
        f.set_vring_enable(queue, true).expect("SET_VRING_ENABLE");
        if queue < self.rings.len() {
            self.rings[queue] = ring;
        } else {
            self.rings.push(ring);
        }
    }

    /// Stops a ring; returns where the daemon was.
    pub(crate) fn stop_ring(&mut self, queue: usize) -> u32 {
        self.frontend.get_vring_base(queue).expect("GET_VRING_BASE")
    }

    /// Starts it again, empty.
    pub(crate) fn restart_ring(&mut self, queue: usize) {
        self.start_ring(queue);
    }

    pub(crate) fn unique(&mut self) -> u64 {
        self.unique += 2;
        self.unique
    }

    fn areas(queue: usize, head: u16) -> (u64, u64) {
        let at = BUFFERS + (queue as u64 * u64::from(BUFFERED) + u64::from(head)) * 2 * AREA;
        (at, at + AREA)
    }

    /// Puts a request on a ring, without a kick; returns its head.
    pub(crate) fn submit(&mut self, queue: usize, readable: &[u8], writable: usize) -> u16 {
        let head = self.rings[queue]
            .free
            .pop()
            .expect("not so many requests at once");
        let (read_at, write_at) = Self::areas(queue, head);
        self.memory.write(read_at, readable);
        self.memory.fill(write_at, writable as u64, 0xa5);
        let table = self.rings[queue].at;
        let second = head + BUFFERED;
        let (r, w) = (readable.len() as u32, writable as u32);
        match (r, w) {
            (_, 0) => self.descriptor(table, head, GUEST_BASE + read_at, r, 0, 0),
            (0, _) => self.descriptor(table, head, GUEST_BASE + write_at, w, WRITABLE, 0),
            _ => {
                self.descriptor(table, head, GUEST_BASE + read_at, r, NEXT, second);
                self.descriptor(table, second, GUEST_BASE + write_at, w, WRITABLE, 0);
            }
        }
        self.publish(queue, head);
        head
    }

    pub(crate) fn descriptor(
        &mut self,
        table: u64,
        n: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut bytes = [0; 16];
        bytes[0..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&len.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&next.to_le_bytes());
        self.memory.write(table + u64::from(n) * 16, &bytes);
    }

    /// Where the descriptors of a ring are.
    pub(crate) fn table(&self, queue: usize) -> u64 {
        self.rings[queue].at
    }

    /// Makes a head available that [`Self::descriptor`] has filled.
    pub(crate) fn publish(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let avail = ring.at + 0x1000;
        let slot = u64::from(ring.next_avail % QUEUE_SIZE);
        ring.next_avail = ring.next_avail.wrapping_add(1);
        self.memory.write(avail + 4 + slot * 2, &head.to_le_bytes());
        self.memory.store_u16(avail + 2, ring.next_avail);
    }

    pub(crate) fn kick(&self, queue: usize) {
        self.rings[queue].kick.write(1).expect("a kick");
    }

    /// How many requests the ring has given back since it was started.
    pub(crate) fn given_back(&self, queue: usize) -> u16 {
        self.memory.load_u16(self.rings[queue].at + 0x2000 + 2)
    }

    /// The next used element, if there is one: head and length.
    pub(crate) fn poll(&mut self, queue: usize) -> Option<(u16, u32)> {
        let ring = &mut self.rings[queue];
        let used = ring.at + 0x2000;
        if self.memory.load_u16(used + 2) == ring.next_used {
            return None;
        }
        let slot = used + 4 + u64::from(ring.next_used % QUEUE_SIZE) * 8;
        ring.next_used = ring.next_used.wrapping_add(1);
        let element = self.memory.read(slot, 8);
        let word = |at: usize| u32::from_le_bytes(element[at..at + 4].try_into().expect("4 bytes"));
        Some((word(0) as u16, word(4)))
    }

    /// The reply of a request that came back.
    pub(crate) fn reply(&mut self, queue: usize, head: u16, used: u32, writable: usize) -> Reply {
        self.rings[queue].free.push(head);
        let (_, write_at) = Self::areas(queue, head);
        Reply {
            used,
            bytes: self.memory.read(write_at, writable),
        }
    }

    pub(crate) fn wait(&mut self, queue: usize) -> (u16, u32) {
        let mut got = None;
        wait_until("a request comes back", || {
            got = self.poll(queue);
            got.is_some()
        });
        got.expect("it came")
    }

    /// Sends one request and waits for it.
    pub(crate) fn call(&mut self, queue: usize, readable: &[u8], writable: usize) -> Reply {
        let sent = self.submit(queue, readable, writable);
        self.kick(queue);
        let (head, used) = self.wait(queue);
        assert_eq!(head, sent, "another request came back");
        self.reply(queue, head, used, writable)
    }
}
