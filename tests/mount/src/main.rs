//! `virtio-fs-mount`: the driver on a daemon, mounted.

mod options;

use std::io;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use options::Options;
use virtio_fs::conn::{Config, Connection, Offer};
use virtio_fs::fs::MountOptions;
use virtio_fs_host::daemon::{self, Program};
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::{Daemon, HostPlatform, transport};
use virtio_fs_mount::export::{Export, Settings};
use virtio_fs_mount::mount::{Signals, block_signals};
use virtio_fs_mount::{Mount, serve};

type Conn = Connection<HostPlatform>;

fn main() -> ExitCode {
    let options = match options::parse(lexopt::Parser::from_env()) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("virtio-fs-mount: {error}; --help lists the options");
            return ExitCode::from(2);
        }
    };
    if log::set_logger(&StandardError).is_ok() {
        log::set_max_level(options.log);
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("virtio-fs-mount: {error}");
            ExitCode::FAILURE
        }
    }
}

struct StandardError;

impl log::Log for StandardError {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}

fn run(options: &Options) -> io::Result<()> {
    // Before any thread is started: all of them leave signals to one.
    let signals = block_signals()?;
    let daemon = start_daemon(options)?;
    let conn = connect(&daemon, options)?;
    let worker = std::thread::spawn({
        let conn = conn.clone();
        move || conn.run_worker()
    });
    let result = serve_until_unmounted(&conn, options, signals);
    // On errors as well as after unmounting, where it does nothing.
    conn.close();
    let _ = worker.join();
    let log = daemon.log();
    if !log.is_empty() {
        eprint!("{log}");
    }
    if options.counters {
        print_counters(&conn);
    }
    result
}

fn start_daemon(options: &Options) -> io::Result<Daemon> {
    let share = options.share.canonicalize()?;
    let threads = options.threads.to_string();
    let (mut config, pool) = match options.daemon {
        Program::Daxd => (daemon::Config::daxd(share), "--threads"),
        // It begins with --xattr and a talkative log.
        Program::Virtiofsd => (daemon::Config::virtiofsd(share), "--thread-pool-size"),
    };
    config = config.arguments(["--log-level", "error", "--cache", &options.cache]);
    config = config.arguments([pool, &threads]);
    if options.xattr {
        config = config.arguments(["--xattr"]);
    } else {
        config = config.without("--xattr");
    }
    if options.posix_acl {
        config = config.arguments(["--posix-acl"]);
    }
    config
        .arguments(options.daemon_arguments.iter().map(String::as_str))
        .start()
}

/// Opens a session with the daemon, with interrupts unless it is to poll.
fn connect(daemon: &Daemon, options: &Options) -> io::Result<Arc<Conn>> {
    let transport = Arc::new(daemon.connect(transport::Options::default())?);
    let mut config = Config {
        offer: Offer {
            posix_acl: options.posix_acl,
            ..Offer::default()
        },
        ..Config::default()
    };
    let waiting = if options.poll {
        Waiting::Poll
    } else {
        Waiting::Sleep
    };
    let target = Arc::new(OnceLock::<Weak<Conn>>::new());
    if waiting == Waiting::Sleep {
        config.vectors = transport.queues() + 1;
        let target = target.clone();
        transport.set_interrupt_handler(Box::new(move |vector| {
            if let Some(conn) = target.get().and_then(Weak::upgrade) {
                conn.interrupt(Some(vector));
            }
        }))?;
    }
    let platform = Arc::new(HostPlatform::new(waiting));
    let conn = Connection::open(platform, transport, config)
        .map_err(|error| io::Error::other(error.to_string()))?;
    // Set once only, here.
    let _ = target.set(Arc::downgrade(&conn));
    Ok(conn)
}

fn serve_until_unmounted(conn: &Arc<Conn>, options: &Options, signals: Signals) -> io::Result<()> {
    let mount_options = MountOptions {
        cache: options.policy,
        default_permissions: options.check_permissions,
        ..MountOptions::default()
    };
    let driver_mount = virtio_fs::fs::Mount::new(conn.clone(), mount_options)
        .map_err(|error| io::Error::other(format!("the root of the share: {error}")))?;
    let settings = Settings {
        lifetime: options.lifetime,
        check_permissions: options.check_permissions,
    };
    let export = Export::new(driver_mount, settings);
    let source = options.share.display().to_string();
    let mount = Arc::new(Mount::new(&source, &options.mountpoint)?);
    let ended = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let (mount, conn, ended) = (mount.clone(), conn.clone(), ended.clone());
        move || unmount_on_signal(&signals, &mount, &conn, &ended)
    });
    eprintln!(
        "virtio-fs-mount: {} is mounted on {}; Ctrl-C or umount ends it",
        options.share.display(),
        mount.path().display()
    );
    let result = serve(&mount, &export);
    ended.store(true, Ordering::Release);
    export.into_mount().unmount();
    result
}

/// The first signal unmounts, lazily if a program uses the mount; a second one
/// cuts such programs off.
fn unmount_on_signal(signals: &Signals, mount: &Mount, conn: &Conn, ended: &AtomicBool) {
    if signals.wait().is_err() {
        return;
    }
    if mount.unmount().is_err() && mount.detach().is_ok() {
        eprintln!("virtio-fs-mount: in use; it ends with the last program, or a second Ctrl-C");
    }
    if signals.wait().is_ok() && !ended.load(Ordering::Acquire) {
        conn.abort();
        std::process::exit(130);
    }
}

fn print_counters(conn: &Conn) {
    let counters = conn.counters();
    eprintln!("requests {}", counters.total_requests());
    for opcode in 0..64 {
        let count = counters.requests(opcode);
        if count > 0 {
            match virtio_fs::wire::Opcode::from_wire(opcode) {
                Some(opcode) => eprintln!("  {opcode} {count}"),
                None => eprintln!("  opcode {opcode} {count}"),
            }
        }
    }
    counters.for_each(|name, count| {
        if count > 0 {
            eprintln!("{name} {count}");
        }
    });
}
