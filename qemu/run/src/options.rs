//! The command line of `virtio-fs-run`.

use crate::{
    Chatter, CommandLine, Console, Error, Machine, Share, demo,
    share::{DaemonKind, Device, OnLoss},
};
use lexopt::{Arg, Parser, ValueExt};
use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

/// What `--help` prints.
pub const HELP: &str = "\
Boots the test kernel in QEMU with a host directory mounted over virtio-fs.

Usage: virtio-fs-run [run] [options]     a shell in the guest, or the commands of --cmd
       virtio-fs-run test [options]      all tests in the guest, and a tree compared with the
                                         host's view through changes from both
       virtio-fs-run test --kernel FILE [options]    the tests of another kernel, on --share
                                         or on an empty directory
       virtio-fs-run torture [--full] [options]      threads at large files in small DAX windows

Options                                   make variable
  --share DIR[:TAG]    a directory to share; may be repeated, each is a device.
                       Default: a small demonstration tree              SHARE
  --tag TAG            the tag of a share that names none, and the one
                       that the guest mounts (myfs)                     TAG
  --cmd COMMANDS       run these and exit with their status             CMD
  --mem SIZE           memory, with M or G (512M)                       MEM
  --smp N              processors (1)                                   SMP
  --cache POLICY       of the daemon: auto, always, never, metadata     CACHE
  --daemon NAME        virtiofsd, or dax: the one with a DAX window     DAEMON
  --accel NAME         auto, tcg, kvm; auto takes KVM only where it
                       really works                                     ACCEL
  --log LEVEL          of the kernel: off, error, warn, info, debug, trace;
                       with debug and trace the commands and the daemons'
                       messages are shown as well                       LOG
  --timeout SECONDS    kill everything after so long                    TIMEOUT
  --queue-size N       entries of each queue (1024)
  --queues N           request queues, for --daemon dax (1)
  --window SIZE        the DAX window, for --daemon dax (64M)
  --device NAME        auto, fs (vhost-user-fs-pci), generic
                       (vhost-user-test-device-pci, QEMU 11.1)
  --restart-daemon     start another daemon where one dies, and have the guest's driver
                       go on with it
  --daemon-arg ARG     one more argument for the daemons; may be repeated
  --qemu-arg ARG       one more argument for QEMU; may be repeated
  --cpu MODEL          (TCG: qemu64, KVM: host)
  --kernel FILE        another kernel image; --initrd FILE, for a Linux guest
  --append WORDS       more words for the kernel's command line
  --trace PATTERN      show QEMU's trace events, such as 'vhost*'
  --only WORD          test: those whose name contains it
  --tap FILE           test: the results as TAP; --junit FILE: as XML of JUnit
  --seed N             test: of the random churn (a fresh one, and it is printed)
  --full               torture: 1 and 4 processors, windows of 2 to 64 MiB, files up to 1 GiB
  --show               print the commands and start nothing
  -h, --help           print this

Programs: those in target/tools (make tools), on PATH, or named by the environment:
QEMU, VIRTIOFSD, DAXD.

Exit status: 0 to 126 is the guest's own. Otherwise 200 bad option, 201 program missing,
202 share missing or no directory, 203 kernel image missing or damaged, 204 daemon died at
its start, 205 daemon died later, 206 time was over, 207 guest crashed, 208 QEMU failed,
209 the operating system refused something, 210 tests failed, 128 + n ended by signal n.
";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Print [`HELP`].
    Help,
    /// Print the commands.
    Show,
    /// Run a guest for a user.
    Run,
    /// Run the test suite.
    Test,
    /// Torture the DAX window.
    Torture,
}

/// A command line, read.
#[derive(Debug, Clone)]
pub struct Options {
    /// What to do.
    pub task: Task,
    /// The machine for it.
    pub machine: Machine,
    /// For [`Task::Test`].
    pub tests: Tests,
}

/// What to test, and where the results go.
#[derive(Debug, Clone, Default)]
pub struct Tests {
    /// The seed of random tests, if one was given.
    pub seed: Option<u64>,
    /// A part of the tests' names, if not all are wanted.
    pub only: Option<String>,
    /// Whether the kernel or the share is the user's own: the tree is not compared then.
    pub own: bool,
    /// Whether the torture takes all its cases, and not only two short ones.
    pub full: bool,
    /// The file for the results as TAP.
    pub tap: Option<PathBuf>,
    /// The file for the results as XML of JUnit.
    pub junit: Option<PathBuf>,
}

impl Options {
    /// Reads a command line without the program's name. Makes the demonstration tree if that is
    /// what will be shared.
    ///
    /// # Errors
    /// [`Error::Option`] with what is wrong; [`Error::Os`] if the tree cannot be written.
    pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        let mut machine = Machine::new();
        let (mut task, mut show, mut tests) = (Task::Run, false, Tests::default());
        let (mut dirs, mut template) = (Vec::new(), Share::new("", Share::TAG));
        let (mut cmd, mut log, mut append) = (None, None, Vec::new());

        let mut parser = Parser::from_args(words);
        while let Some(arg) = parser.next().map_err(wrong)? {
            let name = match &arg {
                Arg::Long(name) => format!("--{name}"),
                Arg::Short(name) => format!("-{name}"),
                Arg::Value(value) => value.to_string_lossy().into_owned(),
            };
            let mut text = || {
                parser
                    .value()
                    .and_then(ValueExt::string)
                    .map_err(|error| named(&name, error))
            };
            match name.as_str() {
                "run" => task = Task::Run,
                "test" => task = Task::Test,
                "torture" => task = Task::Torture,
                "-h" | "--help" => {
                    return Ok(Self {
                        task: Task::Help,
                        machine,
                        tests,
                    });
                }
                "--show" => show = true,
                "--share" => dirs.push(parser.value().map_err(wrong)?),
                "--tag" => template.tag = text()?,
                "--cmd" => cmd = Some(text()?),
                "--mem" => machine.memory_mib = mib(&name, &text()?)?,
                "--smp" => machine.smp = read(&name, &text()?)?,
                "--cache" => {
                    template.cache = Some(one_of(
                        &name,
                        text()?,
                        &["auto", "always", "never", "metadata"],
                    )?)
                }
                "--daemon" => template.daemon = read::<DaemonKind>(&name, &text()?)?,
                "--device" => template.device = read::<Device>(&name, &text()?)?,
                "--accel" => machine.accel = read(&name, &text()?)?,
                "--cpu" => machine.cpu = Some(text()?),
                "--log" => {
                    log = Some(one_of(
                        &name,
                        text()?,
                        &["off", "error", "warn", "info", "debug", "trace"],
                    )?);
                }
                "--timeout" => {
                    let seconds = read::<f32>(&name, &text()?)?;
                    let limit = Duration::try_from_secs_f32(seconds)
                        .map_err(|error| named(&name, error))?;
                    machine.timeout = Some(limit);
                }
                "--queue-size" => template.queue_size = read(&name, &text()?)?,
                "--queues" => template.queues = read(&name, &text()?)?,
                "--window" => template.window_mib = mib(&name, &text()?)?,
                "--restart-daemon" => template.on_loss = OnLoss::Restart,
                "--daemon-arg" => template.args.push(parser.value().map_err(wrong)?),
                "--qemu-arg" => machine.qemu_args.push(parser.value().map_err(wrong)?),
                "--kernel" => {
                    machine.kernel = parser.value().map_err(wrong)?.into();
                    tests.own = true;
                }
                "--initrd" => machine.initrd = Some(parser.value().map_err(wrong)?.into()),
                "--append" => append.push(text()?),
                "--trace" => machine.trace.push(text()?),
                "--seed" => tests.seed = Some(read(&name, &text()?)?),
                "--full" => tests.full = true,
                "--only" => {
                    tests.only = Some(text()?);
                    tests.own = true;
                }
                "--tap" => tests.tap = Some(parser.value().map_err(wrong)?.into()),
                "--junit" => tests.junit = Some(parser.value().map_err(wrong)?.into()),
                _ => return Err(Error::Option(format!("unknown: {name}"))),
            }
        }

        if dirs.is_empty() && task == Task::Run {
            dirs.push(demo(&machine.tools.target)?.into());
        }
        tests.own |= !dirs.is_empty();
        for dir in dirs {
            let mut share = share(dir);
            let tag = share.tag.take().unwrap_or_else(|| template.tag.clone());
            machine.shares.push(Share {
                dir: share.dir,
                tag,
                ..template.clone()
            });
        }
        if matches!(task, Task::Test | Task::Torture) && machine.shares.is_empty() {
            // The suite puts its own tree in, or an empty directory.
            machine.shares.push(template.clone());
        }
        machine.cmdline = CommandLine::default().value("tag", &machine.shares[0].tag);
        if template.on_loss == OnLoss::Restart && machine.initrd.is_none() {
            machine.cmdline = machine.cmdline.value("restart", "1");
        }
        if let Some(level) = &log {
            machine.cmdline = machine.cmdline.value("log", level);
        }
        if matches!(log.as_deref(), Some("debug" | "trace")) {
            machine.chatter = Chatter::Shown;
        }
        if !machine.trace.is_empty() {
            machine.chatter = Chatter::Shown;
        }
        for words in append {
            machine.cmdline = machine.cmdline.words(&words);
        }
        machine.console = match (&cmd, &machine.initrd) {
            (None, None) if task == Task::Run => Console::Terminal,
            _ => Console::Echo,
        };
        if let Some(cmd) = &cmd {
            machine.cmdline = machine.cmdline.value("cmd", cmd);
        }
        let task = if show { Task::Show } else { task };
        Ok(Self {
            task,
            machine,
            tests,
        })
    }
}

/// A share as it was typed.
struct Typed {
    dir: PathBuf,
    tag: Option<String>,
}

/// Takes `DIR[:TAG]` apart. A directory whose name holds a colon is taken whole.
fn share(text: OsString) -> Typed {
    let split = text.to_str().and_then(|text| text.rsplit_once(':'));
    match split {
        Some((dir, tag))
            if !dir.is_empty() && !tag.contains('/') && !PathBuf::from(&text).is_dir() =>
        {
            Typed {
                dir: dir.into(),
                tag: Some(tag.into()),
            }
        }
        _ => Typed {
            dir: text.into(),
            tag: None,
        },
    }
}

fn wrong(error: lexopt::Error) -> Error {
    Error::Option(error.to_string())
}

fn named(name: &str, error: impl std::fmt::Display) -> Error {
    Error::Option(format!("{name}: {error}"))
}

fn read<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, Error> {
    text.parse()
        .map_err(|error| named(name, format!("\"{text}\": {error}")))
}

fn one_of(name: &str, text: String, all: &[&str]) -> Result<String, Error> {
    if all.contains(&text.as_str()) {
        return Ok(text);
    }
    Err(named(
        name,
        format!("\"{text}\" is none of {}", all.join(", ")),
    ))
}

/// A size as MiB, from a number with M or G behind it; bare numbers are MiB, as with QEMU's `-m`.
fn mib(name: &str, text: &str) -> Result<u32, Error> {
    let (number, factor) = match text.as_bytes().last() {
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1024),
        _ => (text, 1),
    };
    let size = number
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    size.filter(|size| *size > 0)
        .ok_or_else(|| named(name, format!("\"{text}\" is no size such as 512M or 2G")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, Error> {
        Options::parse(words.iter().map(OsString::from))
    }

    #[test]
    fn a_tag_follows_the_last_colon() {
        let tags = |words: &[&str]| {
            let shares = parse(words).unwrap().machine.shares;
            shares
                .into_iter()
                .map(|share| (share.dir, share.tag))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            tags(&["--share", "/srv:data"]),
            [("/srv".into(), "data".into())]
        );
        assert_eq!(
            tags(&["--share", "/a:b/c"]),
            [("/a:b/c".into(), "myfs".into())]
        );
        let both = tags(&["--share", "/x", "--share", "/y:y", "--tag", "x"]);
        assert_eq!(both, [("/x".into(), "x".into()), ("/y".into(), "y".into())]);
    }

    #[test]
    fn options_reach_the_guest_and_every_share() {
        let words = [
            "--share=/a",
            "--share=/b:b",
            "--daemon=dax",
            "--window=1G",
            "--cmd=ls \"x\"",
            "--log=debug",
        ];
        let machine = parse(&words).unwrap().machine;
        assert_eq!(
            machine.cmdline.as_str(),
            r#"tag=myfs log=debug cmd="ls \"x\"""#
        );
        assert!(
            machine
                .shares
                .iter()
                .all(|share| share.window_mib == 1024 && share.daemon == DaemonKind::Dax)
        );
        assert_eq!(
            (machine.console, machine.chatter),
            (Console::Echo, Chatter::Shown)
        );
        assert_eq!(
            parse(&["--share=/a"]).unwrap().machine.console,
            Console::Terminal
        );
    }

    #[test]
    fn a_kernel_a_share_or_a_word_of_the_users_own_is_tested_without_the_tree() {
        let own = |words: &[&str]| parse(words).unwrap().tests.own;
        assert!(!own(&["test"]));
        assert!(own(&["test", "--share=/a"]));
        assert!(own(&["test", "--kernel=k"]));
        assert!(own(&["test", "--only=stat"]));
    }

    #[test]
    fn bad_values_are_named() {
        for words in [
            &["--mem", "lots"][..],
            &["--mem", "0"],
            &["--mem", "4194304G"],
            &["--smp", "many"],
            &["--accel", "xen"],
            &["--daemon", "nfs"],
            &["--cache", "sometimes"],
            &["--log", "loud"],
            &["--timeout", "-1"],
            &["--timeout"],
            &["--bogus"],
            &["walk"],
        ] {
            let error = parse(words).unwrap_err();
            assert_eq!(error.exit_status(), 200, "{words:?}");
            assert!(error.to_string().contains(words[0]), "{error}");
        }
    }
}
