//! A mount over a real daemon, and a look at the same files from the host.

use std::path::PathBuf;
use std::sync::Arc;

use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{Mount, MountOptions, Process};
use virtio_fs_host::daemon::Config as DaemonConfig;
use virtio_fs_host::platform::Waiting;
use virtio_fs_host::transport::Options;
use virtio_fs_host::{Daemon, HostPlatform};

pub(crate) struct Guest {
    pub(crate) process: Process<HostPlatform>,
    pub(crate) mount: Mount<HostPlatform>,
    pub(crate) conn: Arc<Connection<HostPlatform>>,
    /// Serves as long as the guest lives.
    _daemon: Daemon,
    pub(crate) share: tempfile::TempDir,
}

impl Guest {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.share.path().join(name)
    }

    /// Ends the mount and checks that nothing was left behind.
    pub(crate) fn finish(self) {
        drop(self.process);
        self.mount.unmount();
        assert_eq!(self.conn.load().0, 0, "requests left behind");
        assert_eq!(self.conn.counters().malformed_replies.get(), 0);
    }
}

pub(crate) fn guest() -> Guest {
    guest_with(&["--cache", "auto"], MountOptions::default())
}

pub(crate) fn guest_with(arguments: &[&str], options: MountOptions) -> Guest {
    let share = tempfile::tempdir().unwrap();
    let daemon = DaemonConfig::virtiofsd(share.path())
        .arguments(arguments.iter().copied())
        .start()
        .expect("virtiofsd starts");
    connect(share, daemon, Config::default(), options)
}

/// A guest of the project's own daemon, with a window of so many MiB.
pub(crate) fn guest_of_daxd(window: u64, config: Config, options: MountOptions) -> Guest {
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
    let conn = Connection::open(platform, transport, config).expect("opens");
    let mount = Mount::new(conn.clone(), options).expect("mounts");
    let process = Process::new(&mount);
    Guest {
        process,
        mount,
        conn,
        _daemon: daemon,
        share,
    }
}
