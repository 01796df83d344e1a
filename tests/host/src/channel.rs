//! The daemon's own requests (vhost-user back-end channel): mapping files into
//! the window, and telling of a changed configuration space.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Error, FrontendReqHandler, HandlerResult, VhostUserFrontendReqHandler};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::interrupt::Lines;
use crate::window::{Access, Window};

/// What the daemon may act on.
pub(crate) struct Requests {
    /// The window, if the device has one.
    pub(crate) window: Option<Arc<Mutex<Window>>>,
    /// Grows with each change of the configuration space.
    pub(crate) generation: Arc<AtomicU64>,
    /// For the interrupt that such a change raises.
    pub(crate) lines: Arc<Lines>,
}

impl Requests {
    fn with_window<T>(
        &self,
        shmid: u8,
        action: impl FnOnce(&mut Window) -> io::Result<T>,
    ) -> io::Result<T> {
        // virtio-fs has one region, number 0.
        match &self.window {
            Some(window) if shmid == 0 => {
                action(&mut window.lock().unwrap_or_else(PoisonError::into_inner))
            }
            _ => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        }
    }
}

impl VhostUserFrontendReqHandler for Requests {
    fn handle_config_change(&self) -> HandlerResult<u64> {
        self.generation.fetch_add(1, Ordering::Release);
        self.lines.raise_config();
        Ok(0)
    }

    fn shmem_map(&self, request: &VhostUserMMap, file: &dyn AsRawFd) -> HandlerResult<u64> {
        let access = if request.flags & VhostUserMMapFlags::WRITABLE.bits() != 0 {
            Access::ReadWrite
        } else {
            Access::Read
        };
        self.with_window(request.shmid, |window| {
            let (offset, len) = (request.shm_offset, request.len);
            window.map(offset, len, file.as_raw_fd(), request.fd_offset, access)
        })?;
        Ok(0)
    }

    fn shmem_unmap(&self, request: &VhostUserMMap) -> HandlerResult<u64> {
        self.with_window(request.shmid, |window| {
            window.unmap(request.shm_offset, request.len)
        })?;
        Ok(0)
    }
}

/// The thread that serves one daemon's requests. Dropping it stops the thread.
pub(crate) struct Channel {
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Channel {
    /// Starts to serve. `announce` gets the descriptor that the daemon is to
    /// have, before anything is read from the other end.
    pub(crate) fn start<E: From<io::Error>>(
        requests: Requests,
        announce: impl FnOnce(RawFd) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut handler = FrontendReqHandler::new(Arc::new(requests))
            .map_err(|error| io::Error::other(error.to_string()))?;
        handler.set_reply_ack_flag(true);
        announce(handler.get_tx_raw_fd())?;
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("backend-requests".into())
            .spawn(move || {
                while wait(handler.as_raw_fd(), stopped.as_raw_fd()) {
                    match handler.handle_request() {
                        // A refused request has been answered with its errno.
                        Ok(_) | Err(Error::ReqHandlerError(_)) => {}
                        // The stream cannot be trusted any more.
                        Err(error) => {
                            log::error!("daemon's request channel: {error}");
                            return;
                        }
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

/// Waits until `socket` has something to read; `false` if `stop` rang.
fn wait(socket: RawFd, stop: RawFd) -> bool {
    let mut fds = [stop, socket].map(|fd| libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    });
    loop {
        // SAFETY: the array is passed with its length.
        let count = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        if count > 0 {
            return fds[0].revents == 0;
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
