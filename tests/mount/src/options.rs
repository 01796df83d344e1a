//! The command line of `virtio-fs-mount`.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use virtio_fs::fs::{CachePolicy, MountOptions};
use virtio_fs_host::daemon::Program;

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Mounts a host directory through the virtio-fs driver, as an ordinary process: programs ->
Linux -> /dev/fuse -> driver -> vhost-user -> daemon -> directory. Needs root. Runs until it
is unmounted or gets SIGINT or SIGTERM.

Usage: virtio-fs-mount [options] DIR MOUNTPOINT

  --daemon NAME          virtiofsd, or dax: the one with a DAX window (virtiofsd)
  --cache POLICY         of the daemon: auto, always, never, metadata (auto)
  --policy POLICY        of the driver: none, auto, always, metadata (auto: as the daemon says)
  --threads N            of the daemon's pool (0: it serves in one thread)
  --daemon-arg ARG       one more argument for the daemon; may be repeated
  --no-xattr             without extended attributes
  --posix-acl            with access control lists
  --lifetime SECONDS     how long Linux may believe names and attributes (1, with --cache never
                         0: it asks the driver each time, and the driver's caches answer)
  --dentries N           names that the driver keeps at most (16384)
  --check-permissions    the driver checks permissions, too
  --poll                 threads look at the ring instead of sleeping until an interrupt
  --counters             print what the driver counted at the end
  --log LEVEL            error, warn, info, debug, trace (warn)
  -h, --help             print this

Programs: those in target/tools (make tools), on PATH, or named by the environment:
VIRTIOFSD, VIRTIO_FS_DAXD.
";

/// A command line, read.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The directory to serve.
    pub(crate) share: PathBuf,
    /// Where to mount it.
    pub(crate) mountpoint: PathBuf,
    /// Who serves it.
    pub(crate) daemon: Program,
    /// Its cache policy.
    pub(crate) cache: String,
    /// The driver's cache policy.
    pub(crate) policy: CachePolicy,
    /// Threads of the daemon.
    pub(crate) threads: u32,
    /// More arguments for it.
    pub(crate) daemon_arguments: Vec<String>,
    /// Whether it has extended attributes.
    pub(crate) xattr: bool,
    /// Whether it has access control lists.
    pub(crate) posix_acl: bool,
    /// How long Linux may believe names and attributes.
    pub(crate) lifetime: Duration,
    /// Names that the driver keeps.
    pub(crate) dentries: usize,
    /// Whether the driver checks permissions.
    pub(crate) check_permissions: bool,
    /// Whether threads poll.
    pub(crate) poll: bool,
    /// Whether to print counters.
    pub(crate) counters: bool,
    /// What to log.
    pub(crate) log: log::LevelFilter,
}

/// Reads the arguments. `None` if help is wanted.
///
/// # Errors
///
/// With a message for the user.
pub(crate) fn parse(mut parser: Parser) -> Result<Option<Options>, lexopt::Error> {
    let mut places = Vec::new();
    let mut options = Options {
        share: PathBuf::new(),
        mountpoint: PathBuf::new(),
        daemon: Program::Virtiofsd,
        cache: "auto".into(),
        policy: CachePolicy::Auto,
        threads: 0,
        daemon_arguments: Vec::new(),
        xattr: true,
        posix_acl: false,
        lifetime: Duration::from_secs(1),
        dentries: MountOptions::default().max_dentries,
        check_permissions: false,
        poll: false,
        counters: false,
        log: log::LevelFilter::Warn,
    };
    let mut lifetime = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Long("daemon") => {
                options.daemon = parser.value()?.parse_with(|name| match name {
                    "virtiofsd" => Ok(Program::Virtiofsd),
                    "dax" => Ok(Program::Daxd),
                    _ => Err("virtiofsd or dax"),
                })?;
            }
            Arg::Long("cache") => options.cache = parser.value()?.string()?,
            Arg::Long("policy") => {
                options.policy = parser.value()?.parse_with(|name| match name {
                    "none" => Ok(CachePolicy::None),
                    "auto" => Ok(CachePolicy::Auto),
                    "always" => Ok(CachePolicy::Always),
                    "metadata" => Ok(CachePolicy::Metadata),
                    _ => Err("none, auto, always or metadata"),
                })?;
            }
            Arg::Long("threads") => options.threads = parser.value()?.parse()?,
            Arg::Long("daemon-arg") => options.daemon_arguments.push(parser.value()?.string()?),
            Arg::Long("no-xattr") => options.xattr = false,
            Arg::Long("posix-acl") => options.posix_acl = true,
            Arg::Long("lifetime") => {
                let seconds = |text: &str| text.parse().map(Duration::try_from_secs_f64);
                lifetime = Some(parser.value()?.parse_with(seconds)?.unwrap_or_default());
            }
            Arg::Long("dentries") => options.dentries = parser.value()?.parse()?,
            Arg::Long("check-permissions") => options.check_permissions = true,
            Arg::Long("poll") => options.poll = true,
            Arg::Long("counters") => options.counters = true,
            Arg::Long("log") => {
                let level = |name: &str| name.parse().map_err(|_| "no such level");
                options.log = parser.value()?.parse_with(level)?;
            }
            Arg::Value(place) => places.push(PathBuf::from(place)),
            _ => return Err(argument.unexpected()),
        }
    }
    if let Some(lifetime) = lifetime {
        options.lifetime = lifetime;
    } else if options.cache == "never" {
        options.lifetime = Duration::ZERO;
    }
    let [share, mountpoint] = <[PathBuf; 2]>::try_from(places)
        .map_err(|_| lexopt::Error::from("a directory and a mount point are needed"))?;
    Ok(Some(Options {
        share,
        mountpoint,
        ..options
    }))
}
