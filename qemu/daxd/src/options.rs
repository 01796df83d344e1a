//! The command line, checked: an [`Options`] can be served as it is, as far as
//! that can be known before the first connection.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use log::LevelFilter;

use crate::faults;

/// What `--help` prints.
pub const HELP: &str = include_str!("help.txt");

/// What a command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Share a directory.
    Serve(Box<Options>),
}

/// Where the front end connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// A path; a stale socket there is replaced.
    Path(PathBuf),
    /// A name in the abstract namespace, without the leading `@`.
    Abstract(Vec<u8>),
    /// An inherited descriptor that listens already.
    Inherited(RawFd),
}

/// What the guest may cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cache {
    /// Names and attributes for a second, data until the next open.
    Auto,
    /// Everything, for a day.
    Always,
    /// Nothing; reads and writes come here one by one.
    Never,
}

/// Whether the guest may change the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// It may.
    Allowed,
    /// Everything that would is answered with EROFS.
    Refused,
}

/// Whether extended attributes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Xattr {
    /// They are passed through.
    Passed,
    /// Their requests are answered with ENOSYS.
    Hidden,
}

/// Whether the guest learns where another file system begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submounts {
    /// Such directories carry the SUBMOUNT flag.
    Announced,
    /// They look like any other.
    Hidden,
}

/// Which regular files carry the DAX flag, for a guest in `dax=inode` mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dax {
    /// None: such a guest maps nothing.
    Never,
    /// All.
    Always,
    /// Those of at least so many bytes.
    AtLeast(u64),
}

/// What comes after the front end has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDisconnect {
    /// The daemon ends.
    Exit,
    /// It waits for the next connection.
    Listen,
}

/// Where marks go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestsLog {
    /// Nowhere.
    Off,
    /// To standard error.
    Stderr,
    /// To the end of this file.
    File(PathBuf),
}

/// A checked command line.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the front end connects.
    pub socket: Socket,
    /// What comes after a connection.
    pub after_disconnect: AfterDisconnect,
    /// The directory.
    pub shared_dir: PathBuf,
    /// Its name in the guest, 1 to 36 bytes.
    pub tag: String,
    /// Whether the guest may change it.
    pub writes: Writes,
    /// Whether extended attributes pass.
    pub xattr: Xattr,
    /// What the guest may cache.
    pub cache: Cache,
    /// Whether other file systems below the directory are announced.
    pub submounts: Submounts,
    /// Size of the window in bytes; 0 for none.
    pub window: u64,
    /// Which files carry the DAX flag.
    pub dax: Dax,
    /// Number of request queues, 1 to 63.
    pub queues: usize,
    /// Threads that share the work; 0 for one of each queue's own.
    pub threads: usize,
    /// Messages up to this level are printed.
    pub log_level: LevelFilter,
    /// Where marks go.
    pub requests_log: RequestsLog,
    /// Where counters can be read.
    pub control_socket: Option<PathBuf>,
    /// What fails on purpose.
    pub faults: Vec<faults::Rule>,
}

/// Smallest window and the step of its size: the piece that guests map.
const WINDOW_STEP: u64 = 2 << 20;
const MAX_TAG: usize = 36;
/// vhost-user-backend keeps a thread's queues in a 64-bit mask; one is hiprio's.
const MAX_QUEUES: usize = 63;
const MAX_THREADS: usize = 64;

impl Options {
    /// Reads a command line without its first word.
    ///
    /// # Errors
    /// A sentence for the user: what is wrong and, where it is not plain, what to
    /// give instead.
    pub fn parse<I>(args: I) -> Result<Command, String>
    where
        I: IntoIterator<Item = OsString>,
    {
        use lexopt::Arg::{Long, Short};
        let mut parser = lexopt::Parser::from_args(args);
        let mut socket = None;
        let mut shared_dir = None;
        let mut options = Options {
            socket: Socket::Inherited(-1),
            after_disconnect: AfterDisconnect::Exit,
            shared_dir: PathBuf::new(),
            tag: "myfs".into(),
            writes: Writes::Allowed,
            xattr: Xattr::Hidden,
            cache: Cache::Auto,
            submounts: Submounts::Announced,
            window: 64 << 20,
            dax: Dax::Never,
            queues: 1,
            threads: 0,
            log_level: LevelFilter::Warn,
            requests_log: RequestsLog::Off,
            control_socket: None,
            faults: Vec::new(),
        };
        while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
            let name = match arg {
                Short('h') => "help".to_owned(),
                Short('V') => "version".to_owned(),
                Long(name) => name.to_owned(),
                other => return Err(other.unexpected().to_string()),
            };
            let value = |parser: &mut lexopt::Parser| parser.value().map_err(|e| e.to_string());
            match name.as_str() {
                "help" => return Ok(Command::Help),
                "version" => return Ok(Command::Version),
                "socket-path" => set_socket(&mut socket, socket_path(value(&mut parser)?)?)?,
                "fd" => {
                    let fd = number(
                        &name,
                        text(&name, value(&mut parser)?)?,
                        0,
                        RawFd::MAX as u64,
                    )?;
                    set_socket(&mut socket, Socket::Inherited(fd as RawFd))?;
                }
                "persist" => options.after_disconnect = AfterDisconnect::Listen,
                "shared-dir" => shared_dir = Some(PathBuf::from(value(&mut parser)?)),
                "tag" => options.tag = tag(text(&name, value(&mut parser)?)?)?,
                "readonly" => options.writes = Writes::Refused,
                "xattr" => options.xattr = Xattr::Passed,
                "cache" => {
                    options.cache = match text(&name, value(&mut parser)?)?.as_str() {
                        "auto" => Cache::Auto,
                        "always" => Cache::Always,
                        "never" => Cache::Never,
                        other => {
                            return Err(format!("--cache is auto, always or never, not '{other}'"));
                        }
                    }
                }
                "announce-submounts" => options.submounts = Submounts::Announced,
                "no-announce-submounts" => options.submounts = Submounts::Hidden,
                "window" => options.window = window(&text(&name, value(&mut parser)?)?)?,
                "dax" => options.dax = dax(&text(&name, value(&mut parser)?)?)?,
                "queues" => {
                    options.queues = number(
                        &name,
                        text(&name, value(&mut parser)?)?,
                        1,
                        MAX_QUEUES as u64,
                    )? as usize;
                }
                "threads" => {
                    options.threads = number(
                        &name,
                        text(&name, value(&mut parser)?)?,
                        0,
                        MAX_THREADS as u64,
                    )? as usize;
                }
                "log-level" => {
                    let level = text(&name, value(&mut parser)?)?;
                    options.log_level = LevelFilter::from_str(&level).map_err(|_| {
                        format!(
                            "--log-level is off, error, warn, info, debug or trace, not '{level}'"
                        )
                    })?;
                }
                "requests-log" => {
                    let path = value(&mut parser)?;
                    options.requests_log = if path == "-" {
                        RequestsLog::Stderr
                    } else {
                        RequestsLog::File(path.into())
                    };
                }
                "fault" => {
                    let rule = text(&name, value(&mut parser)?)?.parse()?;
                    options.faults.push(rule);
                }
                "control-socket" => options.control_socket = Some(value(&mut parser)?.into()),
                _ => return Err(format!("unknown option '--{name}'")),
            }
        }
        options.socket =
            socket.ok_or("give --socket-path PATH, or --fd FD, for QEMU to connect to")?;
        options.shared_dir = shared_dir.ok_or("give --shared-dir DIR, the directory to share")?;
        match std::fs::metadata(&options.shared_dir) {
            Ok(m) if m.is_dir() => {}
            Ok(_) => {
                return Err(format!(
                    "--shared-dir {} is not a directory",
                    options.shared_dir.display()
                ));
            }
            Err(e) => {
                return Err(format!(
                    "--shared-dir {}: {e}",
                    options.shared_dir.display()
                ));
            }
        }
        Ok(Command::Serve(Box::new(options)))
    }
}

fn set_socket(slot: &mut Option<Socket>, socket: Socket) -> Result<(), String> {
    match slot.replace(socket) {
        None => Ok(()),
        Some(_) => Err("give --socket-path or --fd, once".into()),
    }
}

fn socket_path(path: OsString) -> Result<Socket, String> {
    match path.as_bytes() {
        [] | [b'@'] => Err("--socket-path is empty".into()),
        [b'@', name @ ..] => Ok(Socket::Abstract(name.to_vec())),
        _ => Ok(Socket::Path(path.into())),
    }
}

fn text(name: &str, value: OsString) -> Result<String, String> {
    value
        .into_string()
        .map_err(|v| format!("--{name} '{}' is not UTF-8", v.to_string_lossy()))
}

fn number(name: &str, value: String, least: u64, most: u64) -> Result<u64, String> {
    match value.parse() {
        Ok(n) if (least..=most).contains(&n) => Ok(n),
        _ => Err(format!(
            "--{name} is a number from {least} to {most}, not '{value}'"
        )),
    }
}

fn tag(tag: String) -> Result<String, String> {
    match tag.len() {
        1..=MAX_TAG if !tag.contains(['\n', '\0']) => Ok(tag),
        1..=MAX_TAG => Err("--tag must not hold a line feed".into()),
        n => Err(format!("--tag has {n} bytes; it must have 1 to {MAX_TAG}")),
    }
}

/// `4096`, `64K`, `64M`, `1G`.
fn size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        b't' | b'T' => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn window(text: &str) -> Result<u64, String> {
    match size(text) {
        Some(0) => Ok(0),
        // The window is a PCI BAR of its own.
        Some(n) if n >= WINDOW_STEP && n.is_power_of_two() => Ok(n),
        Some(_) => Err(format!(
            "--window {text}: give a power of two of at least 2M, such as 64M, or 0 for none"
        )),
        None => Err(format!("--window '{text}' is not a size; 64M and 8G are")),
    }
}

fn dax(text: &str) -> Result<Dax, String> {
    match text.strip_prefix("inode:") {
        None if text == "never" => Ok(Dax::Never),
        None if text == "always" => Ok(Dax::Always),
        Some(least) => size(least)
            .map(Dax::AtLeast)
            .ok_or(format!("--dax inode:SIZE: '{least}' is not a size")),
        None => Err(format!(
            "--dax is never, always or inode:SIZE, not '{text}'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, String> {
        Options::parse(line.split_whitespace().map(OsString::from))
    }

    fn served(line: &str) -> Options {
        match parse(&format!("--socket-path /s --shared-dir /tmp {line}")) {
            Ok(Command::Serve(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        parse(&format!("--socket-path /s --shared-dir /tmp {line}")).expect_err(line)
    }

    #[test]
    fn defaults_are_those_that_help_names() {
        let o = served("");
        assert_eq!(
            (o.tag.as_str(), o.window, o.queues, o.threads),
            ("myfs", 64 << 20, 1, 0)
        );
        assert_eq!(
            (o.cache, o.writes, o.xattr),
            (Cache::Auto, Writes::Allowed, Xattr::Hidden)
        );
        assert_eq!((o.submounts, o.dax), (Submounts::Announced, Dax::Never));
        assert_eq!(
            (o.after_disconnect, o.log_level),
            (AfterDisconnect::Exit, LevelFilter::Warn)
        );
    }

    #[test]
    fn every_option_is_taken() {
        let o = served(
            "--persist --tag=t --readonly --xattr --cache never --no-announce-submounts --window 8G \
             --dax inode:2M --queues 4 --threads 8 --log-level debug --requests-log - --control-socket /c",
        );
        assert_eq!(
            (o.tag.as_str(), o.window, o.queues, o.threads),
            ("t", 8 << 30, 4, 8)
        );
        assert_eq!(
            (o.cache, o.writes, o.xattr),
            (Cache::Never, Writes::Refused, Xattr::Passed)
        );
        assert_eq!(
            (o.submounts, o.dax),
            (Submounts::Hidden, Dax::AtLeast(2 << 20))
        );
        assert_eq!(
            (o.after_disconnect, o.log_level),
            (AfterDisconnect::Listen, LevelFilter::Debug)
        );
        assert_eq!(
            (o.requests_log, o.control_socket),
            (RequestsLog::Stderr, Some("/c".into()))
        );
    }

    #[test]
    fn sockets_come_as_path_name_or_descriptor() {
        let socket = |line: &str| match parse(&format!("--shared-dir /tmp {line}")) {
            Ok(Command::Serve(o)) => o.socket,
            other => panic!("{other:?}"),
        };
        assert_eq!(socket("--socket-path /a/b"), Socket::Path("/a/b".into()));
        assert_eq!(
            socket("--socket-path @name"),
            Socket::Abstract(b"name".to_vec())
        );
        assert_eq!(socket("--fd 3"), Socket::Inherited(3));
    }

    #[test]
    fn a_bad_value_is_refused_with_what_to_give() {
        assert!(refused("--window 3M").contains("power of two"));
        assert!(refused("--window 1M").contains("at least 2M"));
        assert!(refused("--window x").contains("not a size"));
        assert!(refused("--window 99999999999G").contains("not a size"));
        assert!(refused("--queues 0").contains("from 1 to 63"));
        assert!(refused("--threads 65").contains("from 0 to 64"));
        assert!(refused("--cache maybe").contains("auto, always or never"));
        assert!(refused("--dax sometimes").contains("inode:SIZE"));
        assert!(refused("--tag aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").contains("37 bytes"));
        assert!(refused("--log-level loud").contains("debug"));
        assert!(refused("--nonsense").contains("--nonsense"));
        assert!(refused("--fd 3").contains("once"));
        assert!(refused("stray").contains("stray"));
    }

    #[test]
    fn what_is_missing_is_named() {
        assert!(
            parse("--shared-dir /tmp")
                .expect_err("no socket")
                .contains("--socket-path")
        );
        assert!(
            parse("--socket-path /s")
                .expect_err("no directory")
                .contains("--shared-dir")
        );
        assert!(
            parse("--socket-path /s --shared-dir /nowhere/at/all")
                .expect_err("gone")
                .contains("/nowhere")
        );
    }
}
