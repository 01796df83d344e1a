//! A machine that runs: one loop over what the daemons, QEMU, the serial port, the terminal and
//! signals report, until the guest has a status or there is a reason why it will have none.

use crate::{
    Chatter, Console, Error, Machine,
    console::{self, Raw},
    daemon::{self, Daemon},
    error::Phase,
    machine::quote,
    process::{self, Tail},
    relay::Relay,
    share::OnLoss,
    tools::Tools,
};
use std::{
    ffi::OsString,
    iter::once,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The guest's status, 0 to 126, or why there is none.
    pub status: Result<u8, Error>,
    /// All that the guest wrote to its serial port, without carriage returns.
    pub serial: String,
    /// From the start of the daemons to the end of QEMU.
    pub duration: Duration,
}

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    Serial(Vec<u8>),
    SerialEnd,
    /// A daemon closed its standard error, so it is ending.
    DaemonEnd(usize),
    /// A relay gave up: this was wrong with the last daemon.
    RelayEnd(usize, String),
    /// Ctrl-A X.
    Quit,
    Signal(i32),
}

/// Ends a run from another thread, or from a signal handler's thread.
#[derive(Debug, Clone)]
pub struct Stopper(Sender<Event>);

impl Stopper {
    /// Ends the run as a signal would; [`Error::Interrupted`] carries the number.
    pub fn stop(&self, signal: i32) {
        // A run that is over needs no stop.
        let _ = self.0.send(Event::Signal(signal));
    }
}

/// A started machine. Dropping it kills QEMU and the daemons.
#[derive(Debug)]
pub struct Running {
    machine: Machine,
    qemu: Child,
    qemu_log: Tail,
    /// One for each share; none once it was killed on purpose.
    daemons: Vec<Option<Daemon>>,
    /// Those that keep a daemon running, in the place of a daemon.
    relays: Vec<Option<Relay>>,
    events: Receiver<Event>,
    sender: Sender<Event>,
    input: Option<Sender<Vec<u8>>>,
    serial: Vec<u8>,
    begun: Instant,
    raw: Option<Raw>,
    prefixed: console::Prefixed,
    /// How it ended, once it has.
    over: Option<Result<u8, Error>>,
}

impl Running {
    pub(crate) fn start(machine: &Machine) -> Result<Self, Error> {
        machine.check()?;
        let begun = Instant::now();
        let program = machine.tools.qemu()?;
        let (sender, events) = mpsc::channel();
        let shown = machine.chatter == Chatter::Shown;
        let names: Vec<String> = machine
            .shares
            .iter()
            .map(|_| daemon::socket_name())
            .collect();
        let args = machine.qemu(|index| format!("path={},abstract=on", names[index]))?;

        let (mut daemons, mut relays) = (Vec::new(), Vec::new());
        for (index, (name, share)) in names.iter().zip(&machine.shares).enumerate() {
            let listener = daemon::listen(name)?;
            if share.on_loss == OnLoss::Restart {
                let sender = sender.clone();
                let end = move |why| drop(sender.send(Event::RelayEnd(index, why)));
                let (share, tools) = (share.clone(), machine.tools.clone());
                let relay = Relay::start(share, tools, machine.chatter, listener, end)?;
                relays.push(Some(relay));
                daemons.push(None);
                continue;
            }
            relays.push(None);
            let sender = sender.clone();
            let end = move || {
                // A run that is over needs no news.
                let _ = sender.send(Event::DaemonEnd(index));
            };
            daemons.push(Some(Daemon::start(
                share,
                &machine.tools,
                &listener,
                machine.chatter,
                end,
            )?));
        }
        if shown {
            let words: Vec<OsString> = once(program.clone().into())
                .chain(args.iter().cloned())
                .collect();
            eprintln!("+ {}", quote(&words));
        }
        let mut command = Command::new(&program);
        command
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut qemu = process::spawn(command).map_err(|error| Tools::broken(&program, &error))?;
        let qemu_log = match qemu.stderr.take() {
            Some(stderr) => Tail::follow(stderr, shown.then(|| "qemu".into()), None, || ()),
            None => Tail::default(),
        };
        if let Some(stdout) = qemu.stdout.take() {
            console::read_serial(stdout, sender.clone());
        }
        let input = qemu.stdin.take().map(console::write_serial);
        let machine = machine.clone();
        let serial = Vec::new();
        let mut running = Self {
            machine,
            qemu,
            qemu_log,
            daemons,
            relays,
            events,
            sender,
            input,
            serial,
            begun,
            raw: None,
            prefixed: console::Prefixed::default(),
            over: None,
        };
        if running.machine.console == Console::Terminal {
            running.raw = console::raw()?;
        }
        Ok(running)
    }

    /// What can end this run from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// Sends bytes to the guest's serial port. Does not block: what the guest does not read waits.
    pub fn send(&self, bytes: &[u8]) {
        if let Some(input) = &self.input {
            // A guest that is gone reads no more.
            let _ = input.send(bytes.to_vec());
        }
    }

    /// Waits until the guest has written `text` at byte `from` of its output or later, and returns
    /// the byte after it. Blocks for `limit` at most.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the limit is over, [`Error::Crash`] when the run is;
    /// [`Running::wait`] then says how it ended.
    pub fn wait_for(&mut self, text: &str, from: usize, limit: Duration) -> Result<usize, Error> {
        // The machine's own limit holds here, too; `wait` then says that it was that one.
        let left = self.left().unwrap_or(limit);
        let until = Instant::now() + limit.min(left);
        loop {
            let read = self.serial.get(from..).unwrap_or_default();
            if let Some(at) = read
                .windows(text.len().max(1))
                .position(|bytes| bytes == text.as_bytes())
            {
                return Ok(from + at + text.len());
            }
            if self.over.is_some() {
                return Err(Error::Crash(format!(
                    "the run ended before it wrote \"{text}\""
                )));
            }
            match self
                .events
                .recv_timeout(until.saturating_duration_since(Instant::now()))
            {
                Ok(event) => self.over = self.step(event),
                Err(_) => return Err(Error::Timeout(limit)),
            }
        }
    }

    /// The process of a share's daemon, if it runs.
    pub fn daemon_pid(&self, share: usize) -> Option<u32> {
        if let Some(relay) = self.relays.get(share)? {
            return Some(relay.pid()).filter(|pid| *pid != 0);
        }
        self.daemons.get(share)?.as_ref().map(Daemon::pid)
    }

    /// Kills a share's daemon with SIGKILL; it must be a share with [`OnLoss::GoOn`].
    ///
    /// # Errors
    /// [`Error::Option`] for another share.
    pub fn kill_daemon(&mut self, share: usize) -> Result<(), Error> {
        if self
            .machine
            .shares
            .get(share)
            .is_none_or(|share| share.on_loss != OnLoss::GoOn)
        {
            return Err(Error::Option(format!(
                "share {share} is none that may lose its daemon"
            )));
        }
        self.daemons[share] = None;
        Ok(())
    }

    /// Waits until the run is over. Blocks so long; bounded by the machine's timeout.
    pub fn wait(mut self) -> Outcome {
        let status = loop {
            if let Some(over) = self.over.take() {
                break over;
            }
            let event = match self.left() {
                None => self
                    .events
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => self.events.recv_timeout(left),
            };
            match event {
                Ok(event) => self.over = self.step(event),
                Err(_) => break Err(Error::Timeout(self.machine.timeout.unwrap_or_default())),
            }
        };
        let serial = String::from_utf8_lossy(&self.serial).replace('\r', "");
        Outcome {
            status,
            serial,
            duration: self.begun.elapsed(),
        }
    }

    /// What is left of the machine's time, if that is limited.
    fn left(&self) -> Option<Duration> {
        self.machine
            .timeout
            .map(|limit| limit.saturating_sub(self.begun.elapsed()))
    }

    /// Takes in one event. `Some`: the run is over.
    fn step(&mut self, event: Event) -> Option<Result<u8, Error>> {
        match event {
            Event::Serial(bytes) => {
                if let (Console::Terminal, true, Some(input)) =
                    (self.machine.console, self.serial.is_empty(), &self.input)
                {
                    console::join(input.clone(), self.sender.clone());
                }
                self.serial.extend_from_slice(&bytes);
                let shown = match self.machine.console {
                    Console::Capture => Ok(()),
                    Console::Echo | Console::Terminal => console::echo(&bytes),
                    Console::Prefixed => self.prefixed.show(&bytes),
                };
                // Nobody reads on: what SIGPIPE would mean.
                shown.err().map(|_| Err(Error::Interrupted(13)))
            }
            Event::SerialEnd => Some(self.verdict()),
            Event::DaemonEnd(share) => self.daemon_ended(share).map(Err),
            Event::RelayEnd(share, why) => {
                // With QEMU its connection goes: then its status counts.
                if patiently(&mut self.qemu, Duration::from_millis(500)).is_some() {
                    return None;
                }
                Some(Err(Error::Daemon {
                    tag: self.machine.shares[share].tag.clone(),
                    how: "no daemon could be kept running".into(),
                    log: why,
                    phase: Phase::Running,
                }))
            }
            Event::Quit => Some(Ok(0)),
            Event::Signal(signal) => Some(Err(Error::Interrupted(signal))),
        }
    }

    /// A daemon has ended. That is no fault if the machine ended first: then its status counts.
    fn daemon_ended(&mut self, share: usize) -> Option<Error> {
        if self.machine.shares[share].on_loss == OnLoss::GoOn {
            return None;
        }
        if patiently(&mut self.qemu, Duration::from_millis(500)).is_some() {
            return None; // the end of the serial port brings the verdict
        }
        self.blame(share)
    }

    /// The error for a share whose daemon has ended by itself.
    fn blame(&mut self, share: usize) -> Option<Error> {
        let daemon = self.daemons[share].as_mut()?;
        let how = process::describe(patiently(daemon.child(), Duration::from_millis(200))?);
        let phase = if self.serial.is_empty() {
            Phase::Start
        } else {
            Phase::Running
        };
        let tag = self.machine.shares[share].tag.clone();
        Some(Error::Daemon {
            tag,
            how,
            log: daemon.log(),
            phase,
        })
    }

    /// What QEMU's end means.
    fn verdict(&mut self) -> Result<u8, Error> {
        let Some(status) = patiently(&mut self.qemu, Duration::from_secs(5)) else {
            return Err(Error::Qemu {
                how: "it closed the serial port".into(),
                log: self.qemu_log.text(),
            });
        };
        match status.code() {
            Some(code) if code >= 3 && code % 2 == 1 => Ok(((code - 1) / 2 - 1) as u8),
            Some(0) => Err(Error::Crash(
                "the machine was reset or switched off, and it had written no status".into(),
            )),
            _ => {
                // A daemon that failed takes QEMU along; it is the one to name.
                let failed = |daemon: &mut Option<Daemon>| {
                    let daemon = daemon.as_mut()?;
                    patiently(daemon.child(), Duration::from_millis(100))
                        .filter(|status| !status.success())
                };
                let culprit = self
                    .daemons
                    .iter_mut()
                    .position(|daemon| failed(daemon).is_some());
                let how = process::describe(status);
                let qemu = Error::Qemu {
                    how,
                    log: self.qemu_log.text(),
                };
                Err(culprit.and_then(|share| self.blame(share)).unwrap_or(qemu))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // QEMU first: a daemon killed under it would only make it complain.
        process::kill(&mut self.qemu);
    }
}

/// A child's status, if it ends within `limit`. Blocks so long.
fn patiently(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
}
