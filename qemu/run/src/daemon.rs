//! A running host daemon and the socket by which QEMU finds it.
//!
//! The socket is bound by the runner, in the abstract namespace, and handed to virtiofsd as an open
//! descriptor: nothing in the file system, so nothing to be left behind, and QEMU can connect before
//! the daemon is up. `virtio-fs-daxd` takes the same `--fd`.

use crate::{
    Chatter, Error, Share,
    machine::quote,
    process::{self, Tail},
    tools::Tools,
};
use rustix::io::{FdFlags, fcntl_setfd};
use std::{
    ffi::OsString,
    fs::File,
    hash::{BuildHasher, RandomState},
    iter::once,
    os::{
        fd::{AsRawFd, BorrowedFd},
        linux::net::SocketAddrExt,
        unix::{
            net::{SocketAddr, UnixListener},
            process::CommandExt,
        },
    },
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// A daemon, killed when dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: Tail,
}

/// A name for a socket that no other run has: the process, a count, and 64 random bits.
pub(crate) fn socket_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let random = RandomState::new().hash_one(0);
    format!(
        "virtio-fs-{}-{}-{random:016x}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Binds a socket in the abstract namespace.
pub(crate) fn listen(name: &str) -> Result<UnixListener, Error> {
    SocketAddr::from_abstract_name(name)
        .and_then(|address| UnixListener::bind_addr(&address))
        .map_err(Error::os(format!("binding the socket @{name}")))
}

impl Daemon {
    /// Starts the daemon of a share on a bound socket. `end` is called, on another thread, when it
    /// closes its standard error, which it does by ending.
    pub(crate) fn start(
        share: &Share,
        tools: &Tools,
        listener: &UnixListener,
        chatter: Chatter,
        end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let program = tools.daemon(share.daemon)?;
        let file = match &share.log {
            Some(path) => {
                Some(File::create(path).map_err(Error::os(format!("writing {}", path.display())))?)
            }
            None => None,
        };
        let mut command = Command::new(&program);
        let fd = listener.as_raw_fd();
        command
            .arg("--fd")
            .arg(fd.to_string())
            .args(share.daemon_args());
        let shown = chatter == Chatter::Shown;
        if shown {
            let words: Vec<OsString> = once(program.clone().into())
                .chain(command.get_args().map(Into::into))
                .collect();
            eprintln!("+ {}", quote(&words));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: the closure makes one fcntl call, which is async-signal-safe. The descriptor is
        // open then: `listener` lives until spawn has returned, and the child has a copy of the
        // table. Only in the child is it kept over exec, so no other child inherits it.
        unsafe {
            command.pre_exec(move || {
                let fd = BorrowedFd::borrow_raw(fd);
                Ok(fcntl_setfd(fd, FdFlags::empty())?)
            });
        }
        let mut child = process::spawn(command).map_err(|error| Tools::broken(&program, &error))?;
        let echo = shown.then(|| format!("{} {}", share.daemon, share.tag));
        let log = match child.stderr.take() {
            Some(stderr) => Tail::follow(stderr, echo, file, end),
            None => Tail::default(),
        };
        Ok(Self { child, log })
    }

    /// Its process, to wait for.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it wrote last.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Its process's number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

/// The command that starts a share's daemon by hand, on a socket at `path`.
pub(crate) fn by_hand(share: &Share, program: OsString, path: &str) -> Vec<OsString> {
    let mut words = vec![program, format!("--socket-path={path}").into()];
    words.extend(share.daemon_args());
    words
}
