//! A host daemon as a child process: started, stopped, killed, restarted.
//!
//! The daemon gets a listening socket by descriptor, so it can be connected to
//! at once, and a daemon that dies early shows as a closed connection. A
//! restarted one listens at the same path.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::keeper;
use crate::transport::{Options, VhostUserTransport};

/// Which program serves the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `virtiofsd` of the virtio-fs project: everything but a window.
    Virtiofsd,
    /// This project's `virtio-fs-daxd`: a window, several request queues.
    Daxd,
}

impl Program {
    /// Returns the environment variable and the file name.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Virtiofsd => ("VIRTIOFSD", "virtiofsd"),
            Self::Daxd => ("VIRTIO_FS_DAXD", "virtio-fs-daxd"),
        }
    }

    /// Looks for the program: the environment variable `VIRTIOFSD` or
    /// `VIRTIO_FS_DAXD`, then the build's `target` folder (`tools/bin`,
    /// `release`, `debug`), then `PATH`.
    ///
    /// # Errors
    ///
    /// With a message that says where it was looked for and how to get it.
    pub fn find(self) -> io::Result<PathBuf> {
        let (variable, name) = self.names();
        // Make exports what is not set as empty.
        if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
            return Ok(path.into());
        }
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let built = ["tools/bin", "release", "debug"].map(|folder| target.join(folder));
        let search = std::env::var_os("PATH").unwrap_or_default();
        built
            .into_iter()
            .chain(std::env::split_paths(&search))
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
            .ok_or_else(|| {
                let remedy = match self {
                    Self::Virtiofsd => "make tools",
                    Self::Daxd => "cargo build --package virtio-fs-daxd",
                };
                let message = format!(
                    "{name} is neither in ${variable} nor in target/{{tools/bin,release,debug}} \
                     nor in $PATH; try `{remedy}`"
                );
                io::Error::new(io::ErrorKind::NotFound, message)
            })
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Config {
    program: Program,
    shared_dir: PathBuf,
    arguments: Vec<String>,
}

impl Config {
    /// A `virtiofsd` for `shared_dir`, without a sandbox, with extended
    /// attributes and with every request in its log.
    pub fn virtiofsd(shared_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: Program::Virtiofsd,
            shared_dir: shared_dir.into(),
            arguments: Vec::new(),
        }
        .arguments(["--sandbox", "none", "--xattr", "--log-level", "debug"])
    }

    /// A `virtio-fs-daxd` for `shared_dir`, with its defaults.
    pub fn daxd(shared_dir: impl Into<PathBuf>) -> Self {
        Self {
            program: Program::Daxd,
            shared_dir: shared_dir.into(),
            arguments: Vec::new(),
        }
    }

    /// Adds command-line arguments. One that the daemon takes only once, such
    /// as `--log-level`, replaces the earlier one together with its value.
    #[must_use]
    pub fn arguments<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut arguments = arguments.into_iter().peekable();
        while let Some(argument) = arguments.next() {
            let value = arguments.next_if(|next| !next.starts_with("--"));
            self.remove(argument);
            self.arguments.push(argument.into());
            self.arguments.extend(value.map(String::from));
        }
        self
    }

    /// Leaves out an argument that was added before, with its value if it has
    /// one.
    #[must_use]
    pub fn without(mut self, argument: &str) -> Self {
        self.remove(argument);
        self
    }

    fn remove(&mut self, argument: &str) {
        if let Some(at) = self.arguments.iter().position(|old| old == argument) {
            let valued = self
                .arguments
                .get(at + 1)
                .is_some_and(|next| !next.starts_with("--"));
            self.arguments.drain(at..=at + usize::from(valued));
        }
    }

    /// Starts the daemon.
    ///
    /// # Errors
    ///
    /// If the program is not found or cannot be run.
    pub fn start(self) -> io::Result<Daemon> {
        let folder = tempfile::Builder::new().prefix("virtio-fs-").tempdir()?;
        let log = Arc::new(Mutex::new(String::new()));
        let socket = folder.path().join("socket");
        let running = Running::start(&self, &socket, log.clone())?;
        Ok(Daemon {
            config: self,
            socket,
            running: Some(running),
            log,
            _folder: folder,
        })
    }
}

/// A daemon that serves a directory. Dropping it kills it.
pub struct Daemon {
    config: Config,
    socket: PathBuf,
    running: Option<Running>,
    log: Arc<Mutex<String>>,
    _folder: tempfile::TempDir,
}

impl Daemon {
    /// Returns the path to connect to; the same after a restart.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns the directory that is served.
    pub fn shared_dir(&self) -> &Path {
        &self.config.shared_dir
    }

    /// Connects a device to the daemon.
    ///
    /// # Errors
    ///
    /// If the daemon does not answer; with the end of its log.
    pub fn connect(&self, options: Options) -> io::Result<VhostUserTransport> {
        VhostUserTransport::connect(&self.socket, options).map_err(|error| {
            // A daemon that gave up has said why, a moment ago.
            self.wait_until(Duration::from_millis(500), || !self.log().is_empty());
            let log = self.log();
            let start = log.lines().count().saturating_sub(5);
            let tail = log.lines().skip(start).collect::<Vec<_>>();
            io::Error::other(format!("{error}; the daemon's last lines: {tail:#?}"))
        })
    }

    /// Returns the process id while a daemon runs.
    pub fn pid(&self) -> Option<u32> {
        Some(self.running.as_ref()?.child.id())
    }

    /// Kills the daemon with SIGKILL and waits for its end.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts a new process on the same socket path, killing the old one if it
    /// still runs.
    ///
    /// # Errors
    ///
    /// If the program cannot be run.
    pub fn restart(&mut self) -> io::Result<()> {
        self.kill();
        self.running = Some(Running::start(
            &self.config,
            &self.socket,
            self.log.clone(),
        )?);
        Ok(())
    }

    /// Stops the process where it is (SIGSTOP): it neither answers nor dies.
    /// Returns when all its threads have stopped.
    pub fn pause(&self) {
        self.signal(libc::SIGSTOP);
        let Some(pid) = self.pid() else {
            return;
        };
        // SAFETY: all-zero bytes are a valid `siginfo_t`.
        let mut info = unsafe { std::mem::zeroed() };
        // The end of the process counts too, or this might never return; it is
        // left for `Child` to collect.
        let options = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: `info` is valid for writing.
        unsafe { libc::waitid(libc::P_PID, pid, &mut info, options) };
    }

    /// Lets a paused process go on.
    pub fn resume(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        if let Some(pid) = self.pid() {
            // SAFETY: no memory is passed; the process is our child and not
            // yet waited for, so the number is not somebody else's.
            unsafe { libc::kill(pid as libc::pid_t, signal) };
        }
    }

    /// Waits until the daemon has ended by itself, at most `timeout`. `None` if
    /// it still runs, or none was running.
    pub fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Ok(Some(status)) = self.running.as_mut()?.child.try_wait() {
                self.running = None;
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns what all processes of this daemon have written so far.
    pub fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Counts the requests that `virtiofsd` has logged, by opcode. A request
    /// is logged when it arrives, but the log takes a moment to get here: use
    /// [`requests_when`](Self::requests_when) to wait for one.
    pub fn requests(&self) -> BTreeMap<u32, u64> {
        let mut counts = BTreeMap::new();
        for line in self.log().lines() {
            // "Received request: opcode=Getattr (3), inode=1, …"
            let opcode = line
                .split_once("Received request: opcode=")
                .and_then(|(_, rest)| rest.split_once('(')?.1.split_once(')'))
                .and_then(|(number, _)| number.parse().ok());
            if let Some(opcode) = opcode {
                *counts.entry(opcode).or_default() += 1;
            }
        }
        counts
    }

    /// Waits at most 5 s until `enough` holds for the counted requests and
    /// returns the last count.
    pub fn requests_when(
        &self,
        enough: impl Fn(&BTreeMap<u32, u64>) -> bool,
    ) -> BTreeMap<u32, u64> {
        self.wait_until(Duration::from_secs(5), || enough(&self.requests()));
        self.requests()
    }

    fn wait_until(&self, timeout: Duration, done: impl Fn() -> bool) {
        let deadline = Instant::now() + timeout;
        while !done() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// One process and the thread that reads its log.
struct Running {
    child: Child,
    reader: Option<JoinHandle<()>>,
}

impl Running {
    fn start(config: &Config, socket: &Path, log: Arc<Mutex<String>>) -> io::Result<Self> {
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        let fd = listener.as_raw_fd();
        let mut command = Command::new(config.program.find()?);
        command
            .arg("--fd")
            .arg(fd.to_string())
            .arg("--shared-dir")
            .arg(&config.shared_dir)
            .args(&config.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // SAFETY: between fork and exec the closure makes one system call on a
        // descriptor that the child inherited, and touches no memory.
        unsafe {
            command.pre_exec(move || match libc::fcntl(fd, libc::F_SETFD, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let mut child = keeper::spawn(command)?;
        // The listener stays with the daemon alone, so that its death refuses
        // new connections.
        drop(listener);
        let reader = child.stderr.take().map(|stderr| {
            std::thread::spawn(move || {
                let mut stderr = BufReader::new(stderr);
                let mut line = Vec::new();
                while stderr.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                    log.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        });
        Ok(Self { child, reader })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
