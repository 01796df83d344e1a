//! A mount over a real daemon, and a look at the same files from the host.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{Mount, MountOptions, Process};
use virtio_fs_host::daemon::Config as DaemonConfig;
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;
use virtio_fs_host::{Daemon, HostPlatform, VhostUserTransport};

pub struct Guest {
    pub process: Process<HostPlatform>,
    pub mount: Mount<HostPlatform>,
    pub conn: Arc<Connection<HostPlatform>>,
    pub transport: Arc<VhostUserTransport>,
    pub daemon: Daemon,
    pub share: tempfile::TempDir,
}

impl Guest {
    pub fn path(&self, name: &str) -> PathBuf {
        self.share.path().join(name)
    }

    pub fn host(&self) -> &Path {
        self.share.path()
    }

    /// Checks that the server counts for each inode what the driver counts, and
    /// ends the mount.
    pub fn finish(self) {
        drop(self.process);
        self.mount.unmount();
        assert_eq!(self.conn.load().0, 0, "requests left behind");
        assert_eq!(self.conn.counters().malformed_replies.get(), 0);
    }
}

pub fn guest() -> Guest {
    guest_with(&["--cache", "auto"], MountOptions::default())
}

pub fn guest_with(arguments: &[&str], options: MountOptions) -> Guest {
    let share = tempfile::tempdir().unwrap();
    let daemon = DaemonConfig::virtiofsd(share.path())
        .arguments(arguments.iter().copied())
        .start()
        .expect("virtiofsd starts");
    connect(share, daemon, Config::default(), options)
}

/// A guest of the project's own daemon, with a window of so many MiB.
pub fn guest_of_daxd(window: u64, config: Config, options: MountOptions) -> Guest {
    let share = tempfile::tempdir().unwrap();
    let daemon = DaemonConfig::daxd(share.path())
        .arguments(["--window", &format!("{window}M"), "--queues", "2"])
        .start()
        .expect("daxd starts");
    connect(share, daemon, config, options)
}

fn connect(
    share: tempfile::TempDir,
    daemon: Daemon,
    config: Config,
    options: MountOptions,
) -> Guest {
    let transport = Arc::new(daemon.connect(Options::default()).expect("connects"));
    let platform = Arc::new(HostPlatform::new(Waiting::Poll));
    let conn = Connection::open(platform, transport.clone(), config).expect("opens");
    let mount = Mount::new(conn.clone(), options).expect("mounts");
    let process = Process::new(&mount);
    Guest {
        process,
        mount,
        conn,
        transport,
        daemon,
        share,
    }
}
