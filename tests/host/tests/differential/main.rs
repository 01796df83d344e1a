//! The same random calls on the driver, over virtiofsd, and on a directory of
//! the host's: results and error numbers must be the same, call by call, and so
//! must the trees in the end. Needs root, for chroot.

mod call;
mod guest;
mod host;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use call::{Call, Outcome, Random};
use guest::Guest;
use host::Host;
use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{CachePolicy, Mount, MountOptions, Process, Symlinks};
use virtio_fs_host::HostPlatform;
use virtio_fs_host::daemon::Config as DaemonConfig;
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;

const CALLS: usize = 4000;
/// Files open at once.
const OPEN_MAX: usize = 12;

/// The supplementary groups of a user.
pub(crate) fn groups(uid: u32) -> Vec<u32> {
    match uid {
        1001 => vec![1000],
        _ => Vec::new(),
    }
}

fn seed() -> u64 {
    let fixed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    fixed.unwrap_or(20_251_120)
}

/// Everything below `dir` that a program can see, but for times.
fn manifest(dir: &Path, prefix: &str, lines: &mut Vec<String>) {
    let mut names: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let stat = std::fs::symlink_metadata(&path).unwrap();
        let kind = stat.file_type();
        let name = format!("{prefix}/{}", name.display());
        let content = if kind.is_file() {
            format!("{} {:?}", stat.nlink(), std::fs::read(&path).unwrap())
        } else if kind.is_symlink() {
            format!("{:?}", std::fs::read_link(&path).unwrap())
        } else {
            format!("fifo: {}", kind.is_fifo())
        };
        lines.push(format!(
            "{name} {:o} {} {} {content}",
            stat.mode(),
            stat.uid(),
            stat.gid()
        ));
        if kind.is_dir() {
            manifest(&path, &name, lines);
        }
    }
}

/// Runs the calls of one seed on both sides.
fn compare(seed: u64, daemon: &[&str], options: MountOptions) {
    // A daemon that is started meanwhile would inherit the host's side's files, and
    // hold their locks.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("SEED={seed}");
    let (share, bare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [&share, &bare] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open).unwrap();
    }
    let (calls, to_host) = mpsc::channel::<Call>();
    let (from_host, outcomes) = mpsc::channel::<Outcome>();
    let root = bare.path().to_owned();
    let host = thread::spawn(move || {
        let mut host = Host::enter(&root);
        for call in to_host {
            from_host.send(host.run(&call)).unwrap();
        }
    });
    let on_host = |call: &Call| {
        calls.send(call.clone()).unwrap();
        outcomes.recv().expect("the host's side lives")
    };

    let daemon = DaemonConfig::virtiofsd(share.path())
        .arguments(daemon.iter().copied())
        .start()
        .expect("virtiofsd starts");
    let transport = Arc::new(daemon.connect(Options::default()).expect("connects"));
    let platform = Arc::new(HostPlatform::new(Waiting::Poll));
    let conn = Connection::open(platform, transport, Config::default()).expect("opens");
    let mount = Mount::new(conn.clone(), options).expect("mounts");
    let process = Process::new(&mount);
    let mut guest = Guest {
        process: &process,
        files: Vec::new(),
    };
    let mut random = Random(seed);
    let (mut failed, mut user) = (0, 0);
    for n in 0..CALLS {
        let call = match guest.files.len() {
            OPEN_MAX => Call::Close(random.below(OPEN_MAX)),
            open => random.call(open),
        };
        // A pipe is the guest kernel's own business, and where a directory is when
        // it was sought that of the file system.
        let kind = |call: &Call| on_host(call).map_or(0, |(_, stat)| type_of(&stat));
        let skip = match &call {
            Call::Open(path, ..) => {
                kind(&Call::Stat(path.clone(), Symlinks::Follow)) == libc::S_IFIFO
            }
            Call::Seek(at, ..) => kind(&Call::Fstat(*at)) == libc::S_IFDIR,
            _ => false,
        };
        if skip {
            continue;
        }
        // Who may make hard links and open files in sticky directories beyond what
        // POSIX says is a setting of the host's.
        if let Call::Become(uid) = call {
            user = uid;
        }
        // A chown to nobody asks the server nothing here (S1-23), where Linux still
        // clears set-id bits.
        let nobody = matches!(call, Call::Chown(_, _, u32::MAX, u32::MAX));
        if nobody || user != 0 && matches!(call, Call::Link(..)) {
            continue;
        }
        let (ours, theirs) = (guest.run(&call), on_host(&call));
        failed += usize::from(theirs.is_err());
        if std::env::var_os("TRACE").is_some() {
            println!("{n} {call:?} {}", show(&theirs));
        }
        assert!(
            ours == theirs,
            "call {n} of seed {seed}, {call:?}: driver {}, host {}",
            show(&ours),
            show(&theirs)
        );
    }
    println!("{CALLS} calls, {failed} of them refused by both sides");
    assert_eq!(guest.run(&Call::Become(0)), on_host(&Call::Become(0)));
    drop(process);
    mount.unmount();
    assert_eq!(conn.load().0, 0, "requests left behind");
    assert_eq!(conn.counters().malformed_replies.get(), 0);
    drop(calls);
    host.join().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    manifest(share.path(), "", &mut ours);
    manifest(bare.path(), "", &mut theirs);
    assert!(ours == theirs, "the trees of seed {seed} differ");
}

/// Returns the type in what `stat_bytes` made.
fn type_of(stat: &[u8]) -> u32 {
    let mode = str::from_utf8(stat).unwrap().split(' ').next().unwrap();
    u32::from_str_radix(mode, 8).unwrap() & libc::S_IFMT
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Ok((n, bytes)) => {
            let text = bytes[..bytes.len().min(200)].escape_ascii();
            format!("{n} \"{text}\" ({} bytes)", bytes.len())
        }
        Err(number) => {
            let errno = virtio_fs::Errno::new(*number as u16).unwrap();
            format!("{errno}")
        }
    }
}

fn policy(cache: CachePolicy) -> MountOptions {
    MountOptions {
        cache,
        ..MountOptions::default()
    }
}

#[test]
fn calls_do_what_they_do_on_the_host_with_a_cache() {
    for n in 0..4 {
        compare(
            seed() + n,
            &["--cache", "auto", "--xattr", "--modcaps=+sys_admin"],
            policy(CachePolicy::Auto),
        );
    }
}

#[test]
fn calls_do_what_they_do_on_the_host_with_everything_cached() {
    for n in 100..104 {
        compare(
            seed() + n,
            &["--cache", "always", "--xattr", "--modcaps=+sys_admin"],
            policy(CachePolicy::Always),
        );
    }
}

#[test]
fn calls_do_what_they_do_on_the_host_without_a_cache() {
    for n in 200..202 {
        compare(
            seed() + n,
            &["--cache", "never", "--xattr", "--modcaps=+sys_admin"],
            policy(CachePolicy::None),
        );
    }
}
