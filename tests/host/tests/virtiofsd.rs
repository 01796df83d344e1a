//! The transport against a real virtiofsd, below any FUSE driver.

mod common;

use common::{Device, HIPRIO, INIT, REQUEST, Wait};
use virtio_fs::device::Transport;
use virtio_fs_host::daemon::{Config, Daemon};
use virtio_fs_host::transport::Options;

fn share() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("hello"), b"hello, host\n").unwrap();
    folder
}

fn start(folder: &tempfile::TempDir) -> Daemon {
    Config::virtiofsd(folder.path()).start().unwrap()
}

#[test]
fn init_and_getattr_are_answered() {
    let folder = share();
    let daemon = start(&folder);
    for wait in [Wait::Poll, Wait::Eventfd] {
        // One connection in a daemon's life.
        let mut daemon = Config::virtiofsd(folder.path()).start().unwrap();
        let mut device = Device::new(daemon.connect(Options::default()).unwrap(), wait);
        let (minor, max_write) = device.init();
        assert!(minor >= 27 && max_write >= 4096, "{minor} {max_write}");
        assert_eq!(device.getattr(1).unwrap().0 & 0o170_000, 0o040_000);
        drop(device);
        let _ = &mut daemon;
    }
    let _ = (daemon, HIPRIO, INIT, REQUEST);
}
