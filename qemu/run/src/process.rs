//! Children that never outlive this process, however it ends.
//!
//! Each child asks the kernel for SIGKILL when its parent dies (PR_SET_PDEATHSIG), so even a runner
//! that was itself killed leaves nothing. Linux sends that signal when the *thread* that forked
//! ends, so one thread that lives as long as the process starts all children. Each is the leader of
//! a process group of its own: Ctrl-C at the terminal reaches only the runner, and a kill reaches
//! everything below the child.

use rustix::process::{Pid, Signal, getpid, getppid, kill_process_group};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    thread,
};

type Job = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a child that dies with this process and leads its own process group. Blocks until the
/// program runs or could not be started.
///
/// # Errors
/// Those of [`Command::spawn`].
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static KEEPER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in jobs {
                // Nobody waits any more only if the process is about to end: the child goes, too.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let parent = getpid();
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes three system calls without allocating,
    // locking or touching memory of other threads: prctl, getppid and, through the returned error,
    // nothing else. All are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the signal was asked for.
            if getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    let (sender, answer) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts children has ended");
    keeper
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, sender))
        .map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

/// Kills a child with all of its process group, and reaps it. Does nothing to one already reaped.
pub(crate) fn kill(child: &mut Child) {
    if matches!(child.try_wait(), Ok(None)) {
        if let Some(group) = Pid::from_raw(child.id() as i32) {
            // Not reaped yet, so the number still is this child's. It may be just ending.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    }
}

/// How a child ended, in words.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

/// The last lines that a child wrote, kept while they come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    const LINES: usize = 20;

    /// Reads a child's output to its end on a thread of its own, which then calls `end`. With
    /// `echo`, each line also goes to standard error behind that name; with `file`, to that.
    pub(crate) fn follow(
        from: impl Read + Send + 'static,
        echo: Option<String>,
        file: Option<File>,
        end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let tail = Self::default();
        let lines = tail.clone();
        thread::spawn(move || {
            let mut file = file.map(BufWriter::new);
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                if let Some(whole) = &mut file
                    && whole
                        .write_all(&line)
                        .and_then(|()| whole.write_all(b"\n"))
                        .is_err()
                {
                    // A full disk must not end the run: the reader sees what is missing.
                    file = None;
                }
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if let Some(name) = &echo {
                    // Terminals in raw mode need the carriage return.
                    eprint!("{name}: {line}\r\n");
                }
                let mut lines = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
                if lines.len() == Self::LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
            drop(file);
            end();
        });
        tail
    }

    /// The lines kept.
    pub(crate) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_group_takes_its_grandchildren_along() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(std::process::Stdio::piped());
        let mut child = spawn(command).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        kill(&mut child);
        let stat = format!("/proc/{}/stat", line.trim());
        // An orphan stays a zombie until init reaps it; it must not run.
        let alive = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        for _ in 0..100 {
            if !alive() {
                return;
            }
            thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{stat} still runs");
    }

    #[test]
    fn a_missing_program_is_an_error_and_the_next_one_starts() {
        assert_eq!(
            spawn(Command::new("/nonexistent")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        assert!(
            spawn(Command::new("true"))
                .unwrap()
                .wait()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn the_tail_keeps_only_the_last_lines() {
        let (sender, done) = mpsc::channel();
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let tail = Tail::follow(io::Cursor::new(text), None, None, move || {
            sender.send(()).unwrap()
        });
        done.recv().unwrap();
        assert_eq!(tail.text().lines().count(), Tail::LINES);
        assert!(tail.text().ends_with("line 99"));
    }
}
