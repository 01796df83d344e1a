//! The same random calls on the driver, over virtiofsd, and on a directory of
//! the host's: results and error numbers must be the same, call by call, and so
//! must the trees in the end. Needs root, for chroot.

mod host;

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use host::Host;
use virtio_fs::conn::{Config, Connection, DataCache};
use virtio_fs::fs::{CachePolicy, Mount, MountOptions, Process, Symlinks};
use virtio_fs::wire::OpenFlags;
use virtio_fs_calls::{Call, Driver, Outcome, Random, privileges};
use virtio_fs_host::HostPlatform;
use virtio_fs_host::daemon::Config as DaemonConfig;
use virtio_fs_host::platform::{Waiting, set_caller};
use virtio_fs_host::transport::Options;

const CALLS: usize = 4000;

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
            privileges(stat.mode()),
            stat.uid(),
            stat.gid()
        ));
        if kind.is_dir() {
            manifest(&path, &name, lines);
        }
    }
}

/// Runs the calls of one seed on both sides.
fn compare(seed: u64, daemon: &[&str], options: MountOptions, data_cache: DataCache) {
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
    let config = Config {
        data_cache,
        ..Config::default()
    };
    let platform = Arc::new(HostPlatform::new(Waiting::Poll));
    let conn = Connection::open(platform, transport, config).expect("opens");
    let mount = Mount::new(conn.clone(), options).expect("mounts");
    let process = Process::new(&mount);
    let mut guest = Driver::new(&process, set_caller);
    let mut random = Random(seed);
    let (mut failed, mut user) = (0, 0);
    for n in 0..CALLS {
        let call = Call::choose(&mut random, guest.open());
        // A pipe is the guest kernel's own business, and where a directory is when
        // it was sought that of the file system.
        let kind = |call: &Call| on_host(call).map_or(0, |(_, stat)| type_of(&stat));
        let skip = match &call {
            Call::Open(path, ..) => special(kind(&Call::Stat(path.clone(), Symlinks::Follow))),
            Call::OpenAt(dir, path, ..) => {
                special(kind(&Call::StatAt(*dir, path.clone(), Symlinks::Follow)))
            }
            Call::Seek(at, ..) => kind(&Call::Fstat(*at)) == libc::S_IFDIR,
            _ => false,
        };
        if skip {
            continue;
        }
        // Who may make hard links and open files in sticky directories beyond what
        // POSIX says is a setting of the host's.
        if let Call::Become(uid, _) = call {
            user = uid;
        }
        // A chown to nobody asks the server nothing here (S1-23), where Linux still
        // clears set-id bits.
        let nobody = matches!(
            call,
            Call::Chown(_, _, u32::MAX, u32::MAX) | Call::Fchown(_, u32::MAX, u32::MAX)
        );
        let setting = match &call {
            Call::Link(..) => user != 0,
            // Another's link in a sticky directory is EACCES, even for root.
            Call::Open(_, flags, _) | Call::OpenAt(_, _, flags, _) => {
                flags.contains(OpenFlags::CREAT | OpenFlags::NOFOLLOW)
            }
            // The server lists `trusted` names for whoever asks; Linux's own client
            // passes them on as well.
            Call::Listxattr(..) => user != 0,
            _ => false,
        };
        if nobody || setting {
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
    assert_eq!(
        guest.run(&Call::Become(0, 0o022)),
        on_host(&Call::Become(0, 0o022))
    );
    drop(process);
    mount.unmount();
    assert_eq!(conn.load().0, 0, "requests left behind");
    assert_eq!(conn.counters().malformed_replies.get(), 0);
    drop(calls);
    host.join().unwrap();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    manifest(share.path(), "", &mut ours);
    manifest(bare.path(), "", &mut theirs);
    let differ = ours.iter().zip(&theirs).find(|(a, b)| a != b);
    let differ = differ.map(|(a, b)| [a, b].map(|line| line.chars().take(200).collect::<String>()));
    assert!(
        ours == theirs,
        "the trees of seed {seed} differ: {differ:#?}, {} and {} lines",
        ours.len(),
        theirs.len()
    );
}

/// Whether a file of this type is the guest kernel's own business once it is open.
fn special(kind: u32) -> bool {
    [libc::S_IFIFO, libc::S_IFSOCK, libc::S_IFCHR].contains(&kind)
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

/// Arguments of virtiofsd. With file handles in place of descriptors, which is its default, it loses
/// what was removed unless somebody has it open by OPEN or OPENDIR, and the driver sends no OPENDIR
/// before a directory is read, and nothing for O_PATH: what is done with such a descriptor after
/// the removal is ESTALE then.
fn daemon(cache: &str) -> [&str; 5] {
    let handles = "--inode-file-handles=never";
    ["--cache", cache, "--xattr", "--modcaps=+sys_admin", handles]
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
        let options = policy(CachePolicy::Auto);
        compare(
            seed() + n,
            &daemon("auto"),
            options,
            DataCache::WriteThrough,
        );
    }
}

#[test]
fn calls_do_what_they_do_on_the_host_with_everything_cached() {
    for n in 100..104 {
        let options = policy(CachePolicy::Always);
        compare(
            seed() + n,
            &daemon("always"),
            options,
            DataCache::WriteThrough,
        );
    }
}

#[test]
fn calls_do_what_they_do_on_the_host_without_a_cache() {
    for n in 200..202 {
        let options = policy(CachePolicy::None);
        compare(seed() + n, &daemon("never"), options, DataCache::None);
    }
}

#[test]
fn calls_do_what_they_do_on_the_host_with_data_kept_back() {
    for n in 300..304 {
        let mut arguments = daemon("always").to_vec();
        arguments.push("--writeback");
        let options = policy(CachePolicy::Always);
        compare(seed() + n, &arguments, options, DataCache::WriteBack);
    }
}
