//! The serial port's two ends: QEMU's standard input and output, and the terminal.
//!
//! In a session at the terminal every key belongs to the guest: Ctrl-C cancels the line in its
//! shell, as it would in any other. Ctrl-A is the one key that does not: Ctrl-A X ends the run and
//! Ctrl-A Ctrl-A sends a Ctrl-A, as with QEMU's own `-nographic`.

use crate::{Error, running::Event};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};
use std::{
    io::{self, IsTerminal, Read, Write},
    process::{ChildStdin, ChildStdout},
    sync::mpsc::{self, Sender},
    thread,
};

/// Said when a session begins.
pub(crate) const KEYS: &str = "Keys go to the guest, Ctrl-C too; `exit` or Ctrl-A X leaves.";

const CTRL_A: u8 = 1;
const CTRL_D: u8 = 4;

/// The terminal in raw mode; dropping it puts back what was before.
#[derive(Debug)]
pub(crate) struct Raw(Termios);

impl Raw {
    fn new() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Messages of our own keep their line ends.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to put back.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Sets the terminal, if standard input is one, to raw mode, and says how to leave.
pub(crate) fn raw() -> Result<Option<Raw>, Error> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    eprintln!("{KEYS}");
    Raw::new()
        .map(Some)
        .map_err(Error::os("setting the terminal to raw mode"))
}

/// Joins standard input with the guest's serial port. From a file or a pipe the bytes go as they
/// are, with a Ctrl-D at their end.
///
/// To be called when the guest has written something: a byte that comes before its driver resets
/// the port is lost.
pub(crate) fn join(guest: Sender<Vec<u8>>, events: Sender<Event>) {
    let terminal = io::stdin().is_terminal();
    thread::spawn(move || {
        let mut keys = Keys::default();
        let mut bytes = [0; 4096];
        // Either channel closes when the run is over.
        loop {
            let read = match io::stdin().read(&mut bytes) {
                Ok(0) | Err(_) => break,
                Ok(read) => &bytes[..read],
            };
            let (send, quit) = if terminal {
                keys.take(read)
            } else {
                (read.to_vec(), false)
            };
            if quit && events.send(Event::Quit).is_err() {
                return;
            }
            if !send.is_empty() && guest.send(send).is_err() {
                return;
            }
        }
        let _ = guest.send(vec![CTRL_D]);
    });
}

/// Finds Ctrl-A commands among keys.
#[derive(Debug, Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// What goes to the guest, and whether Ctrl-A X was among it.
    fn take(&mut self, keys: &[u8]) -> (Vec<u8>, bool) {
        let mut send = Vec::new();
        for &key in keys {
            match (std::mem::take(&mut self.escaped), key) {
                (true, b'x' | b'X') => return (send, true),
                (true, CTRL_A) => send.push(CTRL_A),
                (true, _) => (), // as QEMU does with a command that it does not know
                (false, CTRL_A) => self.escaped = true,
                (false, _) => send.push(key),
            }
        }
        (send, false)
    }
}

/// Reads the serial port to its end, on a thread of its own.
pub(crate) fn read_serial(mut from: ChildStdout, events: Sender<Event>) {
    thread::spawn(move || {
        let mut bytes = [0; 16384];
        // A run that is over hears no more; QEMU is killed then.
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            if events.send(Event::Serial(bytes[..read].to_vec())).is_err() {
                return;
            }
        }
        let _ = events.send(Event::SerialEnd);
    });
}

/// Writes to the serial port on a thread of its own: a guest that reads nothing must not block
/// anybody.
pub(crate) fn write_serial(mut to: ChildStdin) -> Sender<Vec<u8>> {
    let (sender, input) = mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        for bytes in input {
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
    });
    sender
}

/// Shows what the guest wrote. A file or a pipe gets no carriage returns.
pub(crate) fn echo(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        out.write_all(bytes)?;
    } else {
        bytes
            .split(|byte| *byte == b'\r')
            .try_for_each(|part| out.write_all(part))?;
    }
    out.flush()
}

/// Shows what the guest writes line by line, so that it cannot be taken for the runner's own words.
#[derive(Debug, Default)]
pub(crate) struct Prefixed(Vec<u8>);

impl Prefixed {
    /// Prints the lines that are complete.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for &byte in bytes {
            match byte {
                b'\r' => (),
                b'\n' => writeln!(
                    out,
                    "guest: {}",
                    String::from_utf8_lossy(&std::mem::take(&mut self.0))
                )?,
                _ => self.0.push(byte),
            }
        }
        out.flush()
    }
}

impl Drop for Prefixed {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            // At the end of a run nobody may be reading any more.
            let _ = self.show(b"\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ctrl_a_is_kept_from_the_guest() {
        let mut keys = Keys::default();
        assert_eq!(
            keys.take(b"ls\x03\x1a\r"),
            (b"ls\x03\x1a\r".to_vec(), false)
        );
        assert_eq!(keys.take(b"a\x01"), (b"a".to_vec(), false));
        assert_eq!(keys.take(b"\x01b"), (b"\x01b".to_vec(), false));
        assert_eq!(keys.take(b"\x01qc"), (b"c".to_vec(), false));
        assert_eq!(keys.take(b"d\x01xe"), (b"d".to_vec(), true));
    }
}
