//! The socket, and one connection after the other.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};
use vhost::vhost_user::{Error as ProtocolError, Listener};
use vhost_user_backend::{Error as DaemonError, VhostUserDaemon};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::device::Device;
use crate::limits::Abilities;
use crate::options::{AfterDisconnect, Options, Socket};
use crate::session::Session;
use crate::share::Share;
use crate::stats::{self, Stats};
use crate::window::Window;

/// Serves as `options` say. Returns when the front end has left, or with
/// `--persist` never.
///
/// # Errors
/// A sentence for the user: what failed.
pub fn run(options: &Options) -> Result<(), String> {
    raise_descriptor_limit();
    let stats = Stats::new(&options.requests_log).map_err(|e| format!("the requests log: {e}"))?;
    let stats = Arc::new(stats);
    let window = Arc::new(Window::new(options.window).with_faults(&options.faults));
    if let Some(path) = &options.control_socket {
        let listener = bind(path).map_err(|e| format!("control socket {}: {e}", path.display()))?;
        stats::serve(listener, stats.clone(), window.clone());
    }
    let mut listener = Listener::from(listen(&options.socket)?);
    loop {
        let share =
            Share::open(options).map_err(|e| format!("{}: {e}", options.shared_dir.display()))?;
        let result = serve_one(options, &mut listener, Arc::new(share), &stats, &window);
        match options.after_disconnect {
            AfterDisconnect::Exit => {
                remove(&options.socket);
                return result;
            }
            AfterDisconnect::Listen => {
                if let Err(message) = result {
                    warn!("{message}");
                }
            }
        }
    }
}

/// Accepts one connection and serves it until it ends.
fn serve_one(
    options: &Options,
    listener: &mut Listener,
    share: Arc<Share>,
    stats: &Arc<Stats>,
    window: &Arc<Window>,
) -> Result<(), String> {
    let abilities = Abilities {
        cache: options.cache,
        submounts: options.submounts,
        window: options.window,
        dax: options.dax,
    };
    let session = Arc::new(Session::new(
        share,
        window.clone(),
        stats.clone(),
        abilities,
    ));
    let device = Device::new(
        session,
        window.clone(),
        stats.clone(),
        &options.tag,
        options.queues,
        options.threads,
    )
    .map_err(|e| format!("cannot start threads: {e}"))?;
    let device = Arc::new(device);
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let mut daemon = VhostUserDaemon::new("vhost-user".into(), device.clone(), memory)
        .map_err(|e| e.to_string())?;
    daemon
        .start(listener)
        .map_err(|e| format!("cannot accept a connection: {e}"))?;
    info!("connected");
    let result = daemon.wait();
    // First, so that no request waits for a front end that is gone.
    device.disconnect();
    for handler in daemon.get_epoll_handlers() {
        handler.send_exit_event();
    }
    drop(daemon);
    match result {
        Ok(())
        | Err(DaemonError::HandleRequest(
            ProtocolError::Disconnected | ProtocolError::PartialMessage,
        )) => {
            info!("the front end has left");
            Ok(())
        }
        Err(e) => Err(format!("the connection failed: {e}")),
    }
}

fn listen(socket: &Socket) -> Result<UnixListener, String> {
    match socket {
        Socket::Path(path) => bind(path).map_err(|e| format!("socket {}: {e}", path.display())),
        Socket::Abstract(name) => SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixListener::bind_addr(&address))
            .map_err(|e| format!("socket @{}: {e}", String::from_utf8_lossy(name))),
        Socket::Inherited(fd) => {
            adopt(*fd).map_err(|e| format!("--fd {fd} is no listening unix socket: {e}"))
        }
    }
}

/// Listens at `path`. A socket that an earlier process left there is replaced;
/// anything else stays.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    UnixListener::bind(path)
}

fn remove(socket: &Socket) {
    if let Socket::Path(path) = socket
        && let Err(e) = fs::remove_file(path)
    {
        warn!("{}: {e}", path.display());
    }
}

fn adopt(fd: RawFd) -> io::Result<UnixListener> {
    let option = |name: libc::c_int| {
        let mut value: libc::c_int = 0;
        let mut len = size_of_val(&value) as libc::socklen_t;
        // SAFETY: both pointers are to locals, and `len` says how large the first is.
        let r = unsafe {
            libc::getsockopt(
                fd,
                libc::SOL_SOCKET,
                name,
                (&raw mut value).cast(),
                &raw mut len,
            )
        };
        if r == 0 {
            Ok(value)
        } else {
            Err(io::Error::last_os_error())
        }
    };
    if option(libc::SO_DOMAIN)? != libc::AF_UNIX || option(libc::SO_ACCEPTCONN)? == 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: getsockopt has shown that it is open; who starts this process with
    // `--fd` hands it over, and `options` allows that once.
    Ok(UnixListener::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Every node that the guest knows is an open descriptor.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointer is to a local of the type that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the call only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        warn!(
            "the limit of open files stays low: {}",
            io::Error::last_os_error()
        );
    }
}
