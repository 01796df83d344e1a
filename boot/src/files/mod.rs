//! The shell's file commands, over the driver's path and descriptor calls.

mod change;
mod content;
mod context;
mod info;
mod list;
mod mapped;
mod names;
mod options;
mod tree;

pub use context::Files;

use crate::{bench, shell::Command};

/// All of them.
pub const COMMANDS: &[&dyn Command<Files>] = &[
    &Simple {
        name: "bench",
        usage: "[-n PASSES] [base|posix|dax|WORKLOAD]...",
        help: "run the benchmark's workloads on its tree; see make bench",
        run: bench::command,
    },
    &Simple {
        name: "cat",
        usage: "FILE...",
        help: "print files",
        run: content::cat,
    },
    &Simple {
        name: "cd",
        usage: "[DIRECTORY]",
        help: "change the working directory",
        run: names::cd,
    },
    &Simple {
        name: "chmod",
        usage: "MODE FILE...",
        help: "set permissions (octal)",
        run: change::chmod,
    },
    &Simple {
        name: "chown",
        usage: "UID[:GID] FILE...",
        help: "set owner and group",
        run: change::chown,
    },
    &Simple {
        name: "cp",
        usage: "[-r] FROM... TO",
        help: "copy files, with -r directories",
        run: tree::cp,
    },
    &Simple {
        name: "cpus",
        usage: "",
        help: "count the CPUs that run",
        run: info::cpus,
    },
    &Simple {
        name: "date",
        usage: "",
        help: "show the time, in seconds since 1970",
        run: info::date,
    },
    &Simple {
        name: "df",
        usage: "[PATH]...",
        help: "show the space on file systems",
        run: info::df,
    },
    &Simple {
        name: "du",
        usage: "[-s] [PATH]...",
        help: "sum up the space in use below",
        run: tree::du,
    },
    &Simple {
        name: "echo",
        usage: "[TEXT]...",
        help: "print text; with > FILE or >> FILE, write it",
        run: content::echo,
    },
    &Simple {
        name: "find",
        usage: "[PATH]... [-name PATTERN] [-type f|d|l]",
        help: "list what is below",
        run: tree::find,
    },
    &Simple {
        name: "free",
        usage: "",
        help: "show memory",
        run: info::free,
    },
    &Simple {
        name: "head",
        usage: "[-n LINES] FILE...",
        help: "print the first lines, 10 of them",
        run: content::head,
    },
    &Simple {
        name: "ln",
        usage: "[-s] TARGET NAME",
        help: "make a link, with -s a symbolic one",
        run: names::ln,
    },
    &Simple {
        name: "ls",
        usage: "[-laR] [PATH]...",
        help: "list directories",
        run: list::ls,
    },
    &Simple {
        name: "mkdir",
        usage: "[-p] DIRECTORY...",
        help: "make directories",
        run: names::mkdir,
    },
    &Simple {
        name: "mmap",
        usage: "[-p] FILE... | -w OFFSET TEXT FILE",
        help: "as sum, through a mapping (-p: private); -w stores text",
        run: mapped::mmap,
    },
    &Simple {
        name: "mount",
        usage: "",
        help: "describe the mount",
        run: info::mount,
    },
    &Simple {
        name: "mv",
        usage: "FROM... TO",
        help: "move or rename",
        run: names::mv,
    },
    &Simple {
        name: "pci",
        usage: "",
        help: "list PCI functions",
        run: info::pci,
    },
    &Simple {
        name: "pwd",
        usage: "",
        help: "print the working directory",
        run: names::pwd,
    },
    &Simple {
        name: "rm",
        usage: "[-rf] FILE...",
        help: "remove files, with -r directories",
        run: tree::rm,
    },
    &Simple {
        name: "rmdir",
        usage: "DIRECTORY...",
        help: "remove empty directories",
        run: names::rmdir,
    },
    &Simple {
        name: "stat",
        usage: "FILE...",
        help: "show attributes",
        run: list::stat,
    },
    &Simple {
        name: "stats",
        usage: "",
        help: "show the counters of driver and mappings",
        run: info::stats,
    },
    &Simple {
        name: "sum",
        usage: "FILE...",
        help: "checksum and size, as cksum(1) prints them",
        run: content::sum,
    },
    &Simple {
        name: "sync",
        usage: "",
        help: "make everything durable",
        run: info::sync,
    },
    &Simple {
        name: "touch",
        usage: "FILE...",
        help: "set times to now; make what is missing",
        run: change::touch,
    },
    &Simple {
        name: "truncate",
        usage: "SIZE FILE...",
        help: "set sizes; SIZE may end in K, M or G",
        run: change::truncate,
    },
    &Simple {
        name: "write",
        usage: "[-a] FILE TEXT...",
        help: "write a line to a file, with -a behind what is there",
        run: content::write,
    },
];

/// A command that is a function.
struct Simple {
    name: &'static str,
    usage: &'static str,
    help: &'static str,
    run: fn(&[alloc::string::String], &mut Files) -> Result<u8, Failure>,
}

/// A command could not do what it was asked to.
pub(crate) enum Failure {
    /// It was used wrongly.
    Usage,
    /// Something else, said already.
    Said,
}

impl Command<Files> for Simple {
    fn name(&self) -> &'static str {
        self.name
    }

    fn usage(&self) -> &'static str {
        self.usage
    }

    fn help(&self) -> &'static str {
        self.help
    }

    fn run(&self, args: &[alloc::string::String], files: &mut Files) -> u8 {
        use crate::shell::{Context, command};
        match (self.run)(args, files) {
            Ok(status) => status,
            Err(Failure::Said) => 1,
            Err(Failure::Usage) => {
                files.complain(format_args!("usage: {} {}\n", self.name, self.usage));
                command::MISUSED
            }
        }
    }
}
