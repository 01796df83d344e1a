//! The threads that serve a mount.
//!
//! Each takes a request, answers it and takes the next. When all are busy,
//! a waiting lock for example, one more is started, so that INTERRUPT and
//! FORGET are always taken: up to [`MAX_WORKERS`].

use std::collections::HashMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use virtio_fs::platform::{Caller, Capabilities, Signal};
use virtio_fs_host::Buffer;
use virtio_fs_host::platform::{Signals, set_caller, this_thread};

use crate::dispatch::{self, MAX_WRITE, Reply, Session};
use crate::message::{Header, IN_HEADER, Reader, WRITE_IN, out_header};
use crate::mount::{Channel, Mount};
use crate::opcode;
use crate::operations::Operations;
use crate::value::Errno;

/// Threads that may serve one mount.
pub const MAX_WORKERS: usize = 128;
/// Header and `fuse_write_in`: so a WRITE's data begin with a page.
const HEAD: usize = IN_HEADER + WRITE_IN;

struct Server<'a> {
    mount: &'a Mount,
    operations: &'a dyn Operations,
    session: Session,
    /// Requests being answered, for INTERRUPT.
    busy: Mutex<HashMap<u64, Signals>>,
    workers: AtomicUsize,
    idle: AtomicUsize,
}

/// Serves `mount` until it is unmounted.
///
/// # Errors
///
/// If `/dev/fuse` fails otherwise.
pub fn serve(mount: &Mount, operations: &dyn Operations) -> io::Result<()> {
    let server = Server {
        mount,
        operations,
        session: Session::default(),
        busy: Mutex::default(),
        workers: AtomicUsize::new(1),
        idle: AtomicUsize::new(0),
    };
    let channel = mount.channel()?;
    let result = std::thread::scope(|scope| server.work(scope, channel));
    // Linux sends DESTROY to block device mounts only.
    operations.destroy();
    result
}

impl<'a> Server<'a> {
    fn work<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        channel: Channel,
    ) -> io::Result<()> {
        let mut head = [0; HEAD];
        let mut payload = Buffer::new(MAX_WRITE as usize);
        let mut body = Vec::new();
        loop {
            self.idle.fetch_add(1, Ordering::SeqCst);
            let mut parts = [IoSliceMut::new(&mut head), IoSliceMut::new(&mut payload)];
            let received = channel.receive(&mut parts);
            let others = self.idle.fetch_sub(1, Ordering::SeqCst) - 1;
            let Some(len) = received? else {
                return Ok(());
            };
            if others == 0 {
                self.reinforce(scope);
            }
            let mut reader = Reader(&head[..len.min(IN_HEADER)]);
            let Some(header) = Header::read(&mut reader) else {
                return Err(io::Error::other("a request of /dev/fuse without a header"));
            };
            body.clear();
            body.extend_from_slice(&head[IN_HEADER..len.min(HEAD)]);
            if header.opcode != opcode::WRITE {
                body.extend_from_slice(&payload[..len.saturating_sub(HEAD)]);
            }
            let reply = self.answer(&header, &body, &mut payload);
            let (result, bytes): (_, &[u8]) = match &reply {
                Reply::None => continue,
                Reply::Error(errno) => (Err(*errno), &[]),
                Reply::Body(writer) => (Ok(writer.0.len()), &writer.0),
                Reply::Payload(len) => (Ok(*len), &payload[..*len]),
            };
            let header = out_header(header.unique, result);
            let parts = [IoSlice::new(&header), IoSlice::new(bytes)];
            channel.reply(&parts)?;
        }
    }

    fn answer(&self, header: &Header, body: &[u8], payload: &mut [u8]) -> Reply {
        if header.opcode == opcode::INTERRUPT {
            return self.interrupt(body);
        }
        let signals = this_thread();
        self.busy().insert(header.unique, signals.clone());
        set_caller(caller(header), &[]);
        let reply = dispatch::answer(self.operations, &self.session, header, body, payload);
        self.busy().remove(&header.unique);
        signals.set(Signal::None);
        reply
    }

    fn busy(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Signals>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn interrupt(&self, body: &[u8]) -> Reply {
        let unique = Reader(body).u64();
        let busy = self.busy();
        match unique.and_then(|unique| busy.get(&unique)) {
            Some(signals) => {
                signals.set(Signal::Interrupt);
                Reply::None
            }
            // Not begun yet: the kernel asks again. Or just answered: it knows.
            None => Reply::Error(Errno(libc::EAGAIN)),
        }
    }

    /// Starts one more worker, if there may be more.
    fn reinforce<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        if self.workers.fetch_add(1, Ordering::SeqCst) >= MAX_WORKERS {
            self.workers.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let started = self.mount.channel().map(|channel| {
            scope.spawn(move || {
                if let Err(error) = self.work(scope, channel) {
                    log::error!("/dev/fuse: {error}");
                }
            })
        });
        if let Err(error) = started {
            self.workers.fetch_sub(1, Ordering::SeqCst);
            log::warn!("no further worker: {error}");
        }
    }
}

/// On whose behalf a request comes. The kernel has checked permissions, so
/// what matters is who becomes the owner; user 0 may do everything.
fn caller(header: &Header) -> Caller {
    Caller {
        uid: header.uid,
        gid: header.gid,
        pid: header.pid,
        umask: 0,
        capabilities: if header.uid == 0 {
            Capabilities::all()
        } else {
            Capabilities::empty()
        },
    }
}
