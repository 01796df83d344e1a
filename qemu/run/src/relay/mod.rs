//! Between QEMU and a daemon that may die: QEMU's connection stays, daemons come
//! and go behind it.
//!
//! QEMU 11.1 takes no second daemon (see [`OnLoss`](crate::OnLoss)). So it is
//! connected to this relay, which passes everything on in both directions. When
//! the daemon is gone it tells the driver, through the [`rings`], starts another daemon
//! and tells it the [`session`] so far. The driver's reset then reaches the new one.
//!
//! Not for a DAX window: QEMU keeps what a daemon had mapped into it, and dies when
//! the device is reset before that was taken back; and it cannot be taken back while
//! the driver, which knows of nothing yet, may copy from there.

mod message;
mod rings;
mod session;

use crate::{Chatter, Error, Share, daemon, daemon::Daemon, tools::Tools};
use message::Message;
use rings::{Rings, Verdict};
use rustix::event::{PollFd, PollFlags, poll};
use session::Session;
use std::{
    io,
    os::{
        fd::AsFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    },
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

/// How long a fresh daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Daemons one after the other that do not get as far as being told everything.
const ATTEMPTS: u32 = 8;

/// A relay at work. It ends with QEMU's connection.
#[derive(Debug)]
pub(crate) struct Relay {
    pid: Arc<AtomicU32>,
}

impl Relay {
    /// Starts to wait for QEMU on `listener`. `end` is called, on another thread,
    /// when no daemon can be kept running.
    pub(crate) fn start(
        share: Share,
        tools: Tools,
        chatter: Chatter,
        listener: UnixListener,
        end: impl FnOnce(String) + Send + 'static,
    ) -> Result<Self, Error> {
        let pid = Arc::new(AtomicU32::new(0));
        let backend = Backend {
            share,
            tools,
            chatter,
            pid: pid.clone(),
        };
        // The first one before QEMU starts, so that what is wrong with it is said.
        let first = backend.start().map_err(|error| match error {
            Failure::Start(error) => error,
            Failure::Io(error) => Error::os("connecting to the daemon")(error),
        })?;
        thread::Builder::new()
            .name("relay".into())
            .spawn(move || {
                let worked = listener
                    .accept()
                    .map_err(Failure::Io)
                    .and_then(|(qemu, _)| {
                        Pump {
                            qemu,
                            backend,
                            daemon: Some(first),
                            session: Session::default(),
                            rings: Rings::default(),
                            asked: None,
                        }
                        .run()
                    });
                if let Err(failure) = worked {
                    end(match failure {
                        Failure::Start(error) => error.to_string(),
                        Failure::Io(error) => error.to_string(),
                    });
                }
            })
            .map_err(Error::os("starting a thread"))?;
        Ok(Self { pid })
    }

    /// The process of the present daemon.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Acquire)
    }
}

/// Why there is no daemon.
enum Failure {
    Start(Error),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How daemons are started.
struct Backend {
    share: Share,
    tools: Tools,
    chatter: Chatter,
    pid: Arc<AtomicU32>,
}

impl Backend {
    fn start(&self) -> Result<(Daemon, UnixStream), Failure> {
        let name = daemon::socket_name();
        let listener = daemon::listen(&name).map_err(Failure::Start)?;
        // Its end shows at the socket.
        let daemon = Daemon::start(&self.share, &self.tools, &listener, self.chatter, || ())
            .map_err(Failure::Start)?;
        drop(listener);
        let address = SocketAddr::from_abstract_name(&name)?;
        let stream = UnixStream::connect_addr(&address)?;
        self.pid.store(daemon.pid(), Ordering::Release);
        Ok((daemon, stream))
    }
}

/// Passes messages on until QEMU goes.
struct Pump {
    qemu: UnixStream,
    backend: Backend,
    daemon: Option<(Daemon, UnixStream)>,
    session: Session,
    rings: Rings,
    /// What QEMU waits for an answer to.
    asked: Option<Message>,
}

impl Pump {
    fn run(mut self) -> Result<(), Failure> {
        loop {
            let Some((_, daemon)) = &self.daemon else {
                self.revive()?;
                continue;
            };
            let mut fds = [self.qemu.as_fd(), daemon.as_fd()]
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Failure::Io(error.into())),
            }
            let [qemu, daemon] = fds.map(|fd| !fd.revents().is_empty());
            if daemon {
                self.pass_to_qemu()?;
            } else if qemu && !self.pass_to_daemon()? {
                return Ok(());
            }
        }
    }

    /// Takes a message of QEMU's. False if QEMU has gone.
    fn pass_to_daemon(&mut self) -> Result<bool, Failure> {
        let Some(message) = Message::receive(&self.qemu)? else {
            return Ok(false);
        };
        if let Verdict::Answer(answer) = self.rings.note(&message)? {
            if message.is_asking() {
                message.answer(answer).send(&self.qemu)?;
            }
            return Ok(true);
        }
        self.session.note(&message)?;
        let asking = message.is_asking();
        let passed = match &self.daemon {
            Some((_, daemon)) => message.send(daemon),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        if asking {
            self.asked = Some(message);
        }
        if passed.is_err() {
            self.daemon = None;
        }
        Ok(true)
    }

    fn pass_to_qemu(&mut self) -> Result<(), Failure> {
        let answer = match &self.daemon {
            Some((_, daemon)) => Message::receive(daemon),
            None => Ok(None),
        };
        match answer {
            Ok(Some(answer)) => {
                self.asked = None;
                answer.send(&self.qemu)?;
            }
            Ok(None) | Err(_) => self.daemon = None,
        }
        Ok(())
    }

    /// Puts a fresh daemon in the place of one that is gone.
    fn revive(&mut self) -> Result<(), Failure> {
        self.backend.pid.store(0, Ordering::Release);
        self.rings.break_all();
        let mut pause = Duration::from_millis(5);
        for attempt in 1.. {
            match self.try_revive() {
                Ok(()) => return Ok(()),
                Err(failure) if attempt == ATTEMPTS => return Err(failure),
                Err(_) => thread::sleep(pause),
            }
            pause *= 2;
        }
        Ok(())
    }

    fn try_revive(&mut self) -> Result<(), Failure> {
        let (process, daemon) = self.backend.start()?;
        daemon.set_read_timeout(Some(PATIENCE))?;
        self.session.replay(&daemon)?;
        daemon.set_read_timeout(None)?;
        // What QEMU waits for was not answered.
        if let Some(asked) = self.asked.take() {
            if let Verdict::Answer(answer) = self.rings.note(&asked)? {
                asked.answer(answer).send(&self.qemu)?;
            } else {
                asked.send(&daemon)?;
                self.asked = Some(asked);
            }
        }
        self.daemon = Some((process, daemon));
        Ok(())
    }
}
