//! Why a run ended without a status of the guest's, as one message and one exit status for each reason.
//!
//! The guest's own statuses are 0 to 126. A reason of the runner's takes a number above, so that a script can tell
//! the two apart; 128 + n stands for signal n, as in a shell.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why there is no status of the guest's.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An option or its value makes no sense.
    Option(String),
    /// A program that is needed is missing, does not start, or is too old.
    Tool {
        /// The program.
        name: String,
        /// What is wrong with it.
        why: String,
        /// What to type.
        remedy: String,
    },
    /// The directory to share is missing or is none.
    Share {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel image is missing or damaged.
    Kernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A host daemon ended although nobody had asked it to.
    Daemon {
        /// The tag of its share.
        tag: String,
        /// How it ended.
        how: String,
        /// What it had written last.
        log: String,
        /// Whether the guest had already said something.
        phase: Phase,
    },
    /// The time given was over; everything was killed.
    Timeout(Duration),
    /// The machine was reset or switched off, or stopped, and no status had been written: a triple fault, mostly.
    Crash(String),
    /// QEMU failed.
    Qemu {
        /// How it ended.
        how: String,
        /// What it had written last.
        log: String,
    },
    /// The user or a signal ended the run.
    Interrupted(i32),
    /// The tests ran and some failed, or what they left behind is wrong.
    Tests(String),
    /// The operating system refused something.
    Os {
        /// What was tried.
        what: String,
        /// Its answer.
        source: io::Error,
    },
}

/// When a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before the guest had written anything.
    Start,
    /// Later.
    Running,
}

impl Error {
    /// Wraps an error of the operating system with what was tried.
    pub fn os(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Os { what, source }
    }

    /// The exit status of the runner for this reason.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Option(_) => 200,
            Self::Tool { .. } => 201,
            Self::Share { .. } => 202,
            Self::Kernel { .. } => 203,
            Self::Daemon {
                phase: Phase::Start,
                ..
            } => 204,
            Self::Daemon {
                phase: Phase::Running,
                ..
            } => 205,
            Self::Timeout(_) => 206,
            Self::Crash(_) => 207,
            Self::Qemu { .. } => 208,
            Self::Os { .. } => 209,
            Self::Tests(_) => 210,
            Self::Interrupted(signal) => 128u8.wrapping_add(*signal as u8),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(why) => write!(f, "{why} (--help lists the options)"),
            Self::Tool { name, why, remedy } => write!(f, "{name}: {why}\ntype: {remedy}"),
            Self::Share { dir, why } => write!(f, "cannot share {}: {why}", dir.display()),
            Self::Kernel { path, why } => write!(
                f,
                "kernel image {}: {why}\ntype: make kernel",
                path.display()
            ),
            Self::Daemon {
                tag,
                how,
                log,
                phase,
            } => {
                let when = match phase {
                    Phase::Start => "at its start",
                    Phase::Running => "while the guest was running",
                };
                write!(
                    f,
                    "the daemon of share \"{tag}\" ended {when} ({how}){}",
                    Lines(log)
                )
            }
            Self::Timeout(limit) => write!(
                f,
                "the guest had not finished after {} s",
                limit.as_secs_f32()
            ),
            Self::Crash(how) => write!(f, "the guest crashed: {how}"),
            Self::Qemu { how, log } => write!(f, "QEMU failed ({how}){}", Lines(log)),
            Self::Interrupted(signal) => write!(f, "ended by signal {signal}"),
            Self::Tests(what) => f.write_str(what),
            Self::Os { what, source } => write!(f, "{what}: {source}"),
        }
    }
}

impl std::error::Error for Error {}

/// The last lines of a log, indented below a message.
struct Lines<'a>(&'a str);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.trim().is_empty() {
            return f.write_str(" without a word");
        }
        self.0
            .trim_end()
            .lines()
            .try_for_each(|line| write!(f, "\n  | {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_statuses_of_their_own_above_the_guests() {
        let (os, text) = (io::Error::other("no"), String::new);
        let daemon = |phase| Error::Daemon {
            tag: text(),
            how: text(),
            log: text(),
            phase,
        };
        let all = [
            Error::Option(text()),
            Error::Tool {
                name: text(),
                why: text(),
                remedy: text(),
            },
            Error::Share {
                dir: PathBuf::new(),
                why: text(),
            },
            Error::Kernel {
                path: PathBuf::new(),
                why: text(),
            },
            daemon(Phase::Start),
            daemon(Phase::Running),
            Error::Timeout(Duration::ZERO),
            Error::Crash(text()),
            Error::Qemu {
                how: text(),
                log: text(),
            },
            Error::Os {
                what: text(),
                source: os,
            },
            Error::Tests(text()),
            Error::Interrupted(2),
        ];
        let mut statuses: Vec<u8> = all.iter().map(Error::exit_status).collect();
        assert!(statuses.iter().all(|status| *status > 126), "{statuses:?}");
        statuses.sort_unstable();
        statuses.dedup();
        assert_eq!(statuses.len(), all.len());
    }
}
