//! The command line.

use lexopt::{Arg, Parser, ValueExt};
use std::{env, path::PathBuf, time::Duration};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Runs the same workloads in the test kernel and in a Linux guest, and compares them.

Usage: virtio-fs-bench [options]                         make variable

  --rounds N         boots of each guest that are timed (5)    ROUNDS
  --quick            one round, nothing counted                QUICK=1
  --set NAMES        posix, dax, or names of workloads
                     with commas between (posix,dax)           SET
  --cache POLICY     of virtiofsd: auto, always, never         CACHE
  --share DIR        where the tree is made; best on a tmpfs
                     (a folder of its own in /dev/shm)         SHARE
  --out DIR          for results (target/bench)
  --name NAME        of the results' files (latest)            NAME
  --compare FILE     print how this differs from the results
                     in FILE, a .json of an earlier run        COMPARE
  --report FILE      start nothing; print the tables and write
                     the chart of the results in FILE          REPORT
  --profile NAMES    start the test kernel once, and say in which of
                     its functions the instructions of these
                     workloads were executed
  --no-linux         the test kernel alone
  --no-count         no boots that count requests and instructions
  --limit SECONDS    for one boot (300)
  --kernel FILE      another test kernel
  -h, --help         print this

Programs: as for virtio-fs-run (QEMU, VIRTIOFSD, DAXD in the environment); the
Linux guest's kernel is target/tools/linux/vmlinuz (qemu/tools.sh linux).
";

/// The command line, read.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    pub(crate) sets: Vec<String>,
    pub(crate) cache: Option<String>,
    pub(crate) share: Option<PathBuf>,
    pub(crate) out: Option<PathBuf>,
    pub(crate) name: String,
    pub(crate) compare: Option<PathBuf>,
    pub(crate) report: Option<PathBuf>,
    pub(crate) profile: Option<Vec<String>>,
    pub(crate) linux: bool,
    pub(crate) count: bool,
    pub(crate) limit: Duration,
    pub(crate) kernel: Option<PathBuf>,
}

impl Options {
    /// Reads the command line; `None` if help was asked for.
    pub(crate) fn parse() -> Result<Option<Self>, String> {
        let mut options = Self {
            rounds: 5,
            sets: vec!["posix".into(), "dax".into()],
            cache: None,
            share: None,
            out: None,
            name: "latest".into(),
            compare: None,
            report: None,
            profile: None,
            linux: true,
            count: true,
            limit: Duration::from_secs(300),
            kernel: None,
        };
        let mut parser = Parser::from_args(env::args_os().skip(1));
        while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
            let Arg::Long(name) = arg else {
                if arg == Arg::Short('h') {
                    return Ok(None);
                }
                return Err(format!("{}", arg.unexpected()));
            };
            let name = name.to_owned();
            let named = |error: lexopt::Error| format!("--{name}: {error}");
            let mut value = || parser.value().map_err(named);
            match name.as_str() {
                "help" => return Ok(None),
                "rounds" => options.rounds = value()?.parse().map_err(named)?,
                "quick" => (options.rounds, options.count) = (1, false),
                "set" => {
                    let sets = value()?.string().map_err(named)?;
                    options.sets = sets.split(',').map(str::to_owned).collect();
                }
                "cache" => options.cache = Some(value()?.string().map_err(named)?),
                "share" => options.share = Some(value()?.into()),
                "out" => options.out = Some(value()?.into()),
                "name" => options.name = value()?.string().map_err(named)?,
                "compare" => options.compare = Some(value()?.into()),
                "report" => options.report = Some(value()?.into()),
                "profile" => {
                    let names = value()?.string().map_err(named)?;
                    options.profile = Some(names.split(',').map(str::to_owned).collect());
                }
                "no-linux" => options.linux = false,
                "no-count" => options.count = false,
                "limit" => options.limit = Duration::from_secs(value()?.parse().map_err(named)?),
                "kernel" => options.kernel = Some(value()?.into()),
                _ => return Err(format!("unknown option: --{name}")),
            }
        }
        if options.rounds == 0 {
            return Err("--rounds: one at least".into());
        }
        Ok(Some(options))
    }
}
