//! A conforming FUSE server (protocol.md 2 to 4), and a strict one: whatever a
//! request has that the protocol does not allow is recorded as a violation, so
//! that a driver's mistake is noticed even where a real server would let it
//! pass or fall over.
//!
//! The server knows bytes in and bytes out. Queues, delays and misbehaviour are
//! the device's.

mod attrs;
mod config;
mod dax;
mod dirs;
mod files;
mod locks;
pub(crate) mod message;
mod names;
mod nodes;
mod notify;
mod ranges;
mod session;
mod xattrs;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::abi::{Errno, IN_HEADER, OUT_HEADER, Op};
use crate::memfs::{Ino, MemFs};
use crate::window::Window;
pub use config::{DestroyReply, Interrupts, NodeIds, ServerConfig};
pub use files::IOCTL_REVERSE;
pub use locks::Lock;
use locks::Locks;
use message::{Args, Body, Grant, Header, Stop, frame, malformed};
pub use nodes::OpenHandle;
use nodes::{Handles, Nodes};
pub use notify::Notification;
use session::Session;

/// One served request, as the log keeps it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Index of the virtqueue that it came by.
    pub queue: u16,
    /// What was asked.
    pub op: Op,
    /// Number of the request.
    pub unique: u64,
    /// Node it is about.
    pub nodeid: u64,
    /// User of the header.
    pub uid: u32,
    /// Group of the header.
    pub gid: u32,
    /// Process of the header.
    pub pid: u32,
    /// Supplementary groups that came as an extension.
    pub groups: Vec<u32>,
    /// Everything behind the header, the first 512 bytes of it.
    pub args: Vec<u8>,
    /// Readable bytes of the request.
    pub readable: usize,
    /// Writable bytes of the request.
    pub writable: usize,
    /// Bytes of the server's reply, 0 if there is none (yet).
    pub reply: usize,
    /// Errno of the reply, positive, 0 for success.
    pub errno: i32,
    /// When it was served, on the device's clock.
    pub at: Duration,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// A reply with its header, and what is taken back if it gets lost.
    Reply { bytes: Vec<u8>, grants: Vec<Grant> },
    /// This kind has no reply.
    Nothing,
    /// The reply comes with [`Server::take_ready`].
    Parked,
}

/// A request while it is served.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) op: Op,
    pub(crate) unique: u64,
    pub(crate) nodeid: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Room for the reply's body.
    pub(crate) room: usize,
    extlen: usize,
    groups: Vec<u32>,
    /// Label that came as an extension.
    label: Option<(Vec<u8>, Vec<u8>)>,
}

type Handled = Result<Body, Stop>;

/// The server. See the [module](self).
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) fs: MemFs,
    pub(crate) config: ServerConfig,
    pub(crate) window: Option<Window>,
    session: Option<Session>,
    nodes: Nodes,
    handles: Handles,
    locks: Locks,
    /// Files that were copied up.
    upper: BTreeSet<Ino>,
    /// Handles that were open before, and what they go on to show.
    lower: BTreeMap<u64, Vec<u8>>,
    pinned_maps: Vec<Ino>,
    poll_ready: BTreeMap<Ino, u32>,
    poll_waiters: Vec<(Ino, u64)>,
    /// Notifications that wait for a buffer.
    pub(crate) outbox: VecDeque<Vec<u8>>,
    /// Replies to RETRIEVE: notify unique and data.
    pub(crate) retrieved: Vec<(u64, Vec<u8>)>,
    ready: Vec<(u64, Outcome)>,
    pub(crate) counts: BTreeMap<Op, u64>,
    pub(crate) log: VecDeque<Record>,
    pub(crate) violations: Vec<String>,
}

impl Server {
    pub(crate) fn new(fs: MemFs, config: ServerConfig, window: Option<Window>) -> Self {
        Self {
            nodes: Nodes::new(),
            handles: Handles::new(config.first_fh),
            fs,
            config,
            window,
            session: None,
            locks: Locks::default(),
            upper: BTreeSet::new(),
            lower: BTreeMap::new(),
            pinned_maps: Vec::new(),
            poll_ready: BTreeMap::new(),
            poll_waiters: Vec::new(),
            outbox: VecDeque::new(),
            retrieved: Vec::new(),
            ready: Vec::new(),
            counts: BTreeMap::new(),
            log: VecDeque::new(),
            violations: Vec::new(),
        }
    }

    /// Serves one request that came by `queue` with room for `writable` bytes.
    pub(crate) fn handle(
        &mut self,
        queue: u16,
        bytes: &[u8],
        writable: usize,
        now: Duration,
    ) -> Outcome {
        let Some(header) = Header::parse(bytes) else {
            self.violations
                .push(format!("request of {} bytes on queue {queue}", bytes.len()));
            return Outcome::Nothing;
        };
        let mut request = Request {
            op: header.op,
            unique: header.unique,
            nodeid: header.nodeid,
            uid: header.uid,
            gid: header.gid,
            room: writable.saturating_sub(OUT_HEADER),
            extlen: usize::from(header.extlen) * 8,
            groups: Vec::new(),
            label: None,
        };
        self.fs.set_now(Duration::from_secs(1_700_000_000) + now);
        *self.counts.entry(header.op).or_default() += 1;
        self.check_header(queue, &header, bytes.len(), writable);
        let args = &bytes[IN_HEADER..];
        let handled = self.dispatch(&mut request, args);
        let outcome = self.conclude(&request, handled, writable);
        self.keep(
            queue,
            &header,
            request,
            args,
            bytes.len(),
            writable,
            &outcome,
            now,
        );
        outcome
    }

    fn check_header(&mut self, queue: u16, header: &Header, len: usize, writable: usize) {
        let mut bad = |why: String| {
            self.violations
                .push(format!("{:?} {}: {why}", header.op, header.unique));
        };
        if header.len as usize != len {
            bad(format!("header says {} bytes, there are {len}", header.len));
        }
        if header.unique == 0 {
            bad("unique is 0".into());
        }
        if header.padding != 0 {
            bad("header padding is not zero".into());
        }
        if (queue == 0) != header.op.is_hiprio() {
            bad(format!("does not belong on queue {queue}"));
        }
        let silent = header.op.is_hiprio() || header.op == Op::NOTIFY_REPLY;
        if silent && writable != 0 {
            bad(format!("{writable} writable bytes, no reply will come"));
        } else if !silent && writable < OUT_HEADER {
            bad(format!("{writable} writable bytes, no room for a header"));
        }
    }

    fn conclude(&mut self, request: &Request, handled: Handled, writable: usize) -> Outcome {
        let body = match handled {
            Ok(body) => body,
            Err(Stop::Park) => return Outcome::Parked,
            Err(Stop::Silent) => return Outcome::Nothing,
            Err(Stop::Errno(errno)) => return self.error(request, errno, writable),
            Err(Stop::Malformed(why)) => {
                self.violations
                    .push(format!("{:?} {}: {why}", request.op, request.unique));
                return self.error(request, Errno(libc::EINVAL), writable);
            }
        };
        if body.bytes.len() > request.room || writable < OUT_HEADER {
            self.violations.push(format!(
                "{:?} {}: reply of {} bytes does not fit {writable} writable ones",
                request.op,
                request.unique,
                OUT_HEADER + body.bytes.len(),
            ));
            self.take_back(&body.grants);
            return self.error(request, Errno(libc::EIO), writable);
        }
        Outcome::Reply {
            bytes: frame(request.unique, 0, &body.bytes),
            grants: body.grants,
        }
    }

    fn error(&self, request: &Request, errno: Errno, writable: usize) -> Outcome {
        if writable < OUT_HEADER || request.op.is_hiprio() {
            return Outcome::Nothing;
        }
        Outcome::Reply {
            bytes: frame(request.unique, -errno.0, &[]),
            grants: Vec::new(),
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "gathers one log record, called once"
    )]
    fn keep(
        &mut self,
        queue: u16,
        header: &Header,
        request: Request,
        args: &[u8],
        readable: usize,
        writable: usize,
        outcome: &Outcome,
        at: Duration,
    ) {
        let (reply, errno) = match outcome {
            Outcome::Reply { bytes, .. } => {
                let mut args = Args::new(&bytes[4..]);
                (
                    bytes.len(),
                    args.u32().map_or(0, |e| (e as i32).wrapping_neg()),
                )
            }
            _ => (0, 0),
        };
        if self.log.len() >= self.config.log_limit {
            self.log.pop_front();
        }
        self.log.push_back(Record {
            queue,
            op: header.op,
            unique: header.unique,
            nodeid: header.nodeid,
            uid: header.uid,
            gid: header.gid,
            pid: header.pid,
            groups: request.groups,
            args: args[..args.len().min(512)].to_vec(),
            readable,
            writable,
            reply,
            errno,
            at,
        });
    }

    fn dispatch(&mut self, request: &mut Request, args: &[u8]) -> Handled {
        let op = request.op;
        if op == Op::INIT {
            return self.init(request, Args::new(args));
        }
        let Some(session) = &self.session else {
            return malformed("no session: before INIT or after DESTROY");
        };
        if self.config.missing.contains(&op) || op.since() > session.minor {
            return Err(Stop::Errno(Errno(libc::ENOSYS)));
        }
        let split = args.len().checked_sub(request.extlen);
        let Some(split) = split else {
            return malformed(format!("{} bytes of extensions", request.extlen));
        };
        let (fixed, extensions) = args.split_at(split);
        self.extensions(request, extensions)?;
        let args = Args::new(fixed);
        match op {
            Op::LOOKUP => self.op_lookup(request, args),
            Op::FORGET => self.op_forget(request, args),
            Op::BATCH_FORGET => self.op_batch_forget(args),
            Op::GETATTR => self.op_getattr(request, args),
            Op::SETATTR => self.op_setattr(request, args),
            Op::STATX => self.op_statx(request, args),
            Op::STATFS => self.op_statfs(request, args),
            Op::ACCESS => self.op_access(request, args),
            Op::READLINK => self.op_readlink(request, args),
            Op::SYMLINK | Op::MKNOD | Op::MKDIR => self.op_make(request, args),
            Op::CREATE | Op::TMPFILE => self.op_create(request, args),
            Op::UNLINK | Op::RMDIR => self.op_remove(request, args),
            Op::RENAME | Op::RENAME2 => self.op_rename(request, args),
            Op::LINK => self.op_link(request, args),
            Op::OPEN | Op::OPENDIR => self.op_open(request, args),
            Op::RELEASE | Op::RELEASEDIR => self.op_release(request, args),
            Op::FLUSH => self.op_flush(request, args),
            Op::FSYNC | Op::FSYNCDIR => self.op_fsync(request, args),
            Op::SYNCFS => self.op_syncfs(request, args),
            Op::READ => self.op_read(request, args),
            Op::WRITE => self.op_write(request, args),
            Op::LSEEK => self.op_lseek(request, args),
            Op::FALLOCATE => self.op_fallocate(request, args),
            Op::COPY_FILE_RANGE | Op::COPY_FILE_RANGE_64 => self.op_copy(request, args),
            Op::IOCTL => self.op_ioctl(request, args),
            Op::POLL => self.op_poll(request, args),
            Op::BMAP => self.op_bmap(request, args),
            Op::READDIR | Op::READDIRPLUS => self.op_readdir(request, args),
            Op::GETLK => self.op_getlk(request, args),
            Op::SETLK | Op::SETLKW => self.op_setlk(request, args),
            Op::SETXATTR => self.op_setxattr(request, args),
            Op::GETXATTR => self.op_getxattr(request, args),
            Op::LISTXATTR => self.op_listxattr(request, args),
            Op::REMOVEXATTR => self.op_removexattr(request, args),
            Op::SETUPMAPPING => self.op_setupmapping(request, args),
            Op::REMOVEMAPPING => self.op_removemapping(args),
            Op::NOTIFY_REPLY => self.op_notify_reply(request, args),
            Op::INTERRUPT => self.op_interrupt(args),
            Op::DESTROY => self.op_destroy(args),
            _ => Err(Stop::Errno(Errno(libc::ENOSYS))),
        }
    }

    /// Replies to requests that were parked.
    pub(crate) fn take_ready(&mut self) -> Vec<(u64, Outcome)> {
        core::mem::take(&mut self.ready)
    }

    /// Says that a reply did not reach the client as it was.
    pub(crate) fn take_back(&mut self, grants: &[Grant]) {
        for grant in grants {
            match *grant {
                Grant::Lookup(nodeid) => self.nodes.put(&mut self.fs, nodeid, 1),
                Grant::Open(fh) => self.close(fh),
            }
        }
    }

    /// Ends a parked request with EINTR. Returns whether there was one.
    pub(crate) fn interrupt(&mut self, unique: u64) -> bool {
        let waited = self.locks.stop_waiting(unique);
        if waited {
            let bytes = frame(unique, -libc::EINTR, &[]);
            self.ready.push((
                unique,
                Outcome::Reply {
                    bytes,
                    grants: Vec::new(),
                },
            ));
        }
        waited
    }

    fn op_interrupt(&mut self, mut args: Args) -> Handled {
        // The device acts on it: it knows what is held back.
        args.u64()?;
        args.end()?;
        Err(Stop::Silent)
    }
}
