//! Against the project's own daemon: the shared-memory window and several
//! request queues.

use crate::common::{Device, GETATTR, Wait};
use virtio_fs::device::Transport;
use virtio_fs::platform::Hal;
use virtio_fs_host::HostHal;
use virtio_fs_host::daemon::{Config, Daemon};
use virtio_fs_host::transport::{Options, Reconnect};

const PAGE: usize = 4096;
const FILE_LEN: usize = 64 * PAGE + 100;
const WINDOW: u64 = 8 << 20;

fn share() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..FILE_LEN).map(|at| (at / PAGE) as u8).collect();
    std::fs::write(folder.path().join("pages"), content).unwrap();
    folder
}

fn start(folder: &tempfile::TempDir) -> Daemon {
    Config::daxd(folder.path())
        .arguments(["--window", "8M", "--queues", "3"])
        .start()
        .unwrap()
}

fn options() -> Options {
    Options {
        reconnect: Reconnect::OnReset,
        ..Options::default()
    }
}

/// Reads one byte of the window as the driver would.
fn byte_at(device: &Device, offset: usize) -> u8 {
    let window = device.transport.shared_memory(0).unwrap();
    // SAFETY: the window is a valid region of the device.
    let start = unsafe { HostHal::mmio_phys_to_virt(window.addr, window.len as usize) };
    // SAFETY: the tests ask only for offsets that are mapped.
    unsafe { start.add(offset).read_volatile() }
}

#[test]
fn the_window_shows_what_setupmapping_asked_for_until_removemapping() {
    let folder = share();
    let daemon = start(&folder);
    let mut device = Device::new(daemon.connect(options()).unwrap(), Wait::Eventfd);
    device.init();
    let window = device.transport.shared_memory(0).unwrap();
    assert_eq!(window.len, WINDOW);
    assert_eq!(device.transport.shared_memory(1), None);

    let node = device.lookup("pages").unwrap();
    let fh = device.open_for_writing(node).unwrap();
    device.map(node, fh, 0, 16 * PAGE, 0).unwrap();
    device.map(node, fh, 40 * PAGE, 8 * PAGE, 2 << 20).unwrap();
    for page in 0..16 {
        assert_eq!(byte_at(&device, page * PAGE), page as u8);
    }
    assert_eq!(byte_at(&device, (2 << 20) + 3 * PAGE), 43);
    let seen = device.transport.with_window(|window| window.counters());
    assert_eq!(seen.unwrap().maps, 2);

    // QEMU's rule: nothing past the end of the file. What stands is unharmed.
    assert!(device.map(node, fh, 64 * PAGE, PAGE, 4 << 20).is_err());
    assert_eq!(byte_at(&device, PAGE), 1);

    device
        .unmap(&[(0, 16 * PAGE), (2 << 20, 8 * PAGE)])
        .unwrap();
    let left = device.transport.with_window(|window| window.mappings());
    assert_eq!(left, Some(0));
    device.map(node, fh, 8 * PAGE, PAGE, 0).unwrap();
    assert_eq!(byte_at(&device, 0), 8);
}

#[test]
fn a_reset_and_a_new_daemon_leave_an_empty_window_at_the_same_place() {
    let folder = share();
    let mut daemon = start(&folder);
    let mut device = Device::new(daemon.connect(options()).unwrap(), Wait::Eventfd);
    let window = device.transport.shared_memory(0);
    for round in 0..4 {
        device.init();
        let node = device.lookup("pages").unwrap();
        let fh = device.open_for_writing(node).unwrap();
        device.map(node, fh, 5 * PAGE, PAGE, 0).unwrap();
        assert_eq!(byte_at(&device, 0), 5);
        if round % 2 == 1 {
            daemon.restart().unwrap();
        }
        device.probe();
        assert_eq!(device.transport.shared_memory(0), window);
        let left = device.transport.with_window(|window| window.mappings());
        assert_eq!(left, Some(0));
    }
    assert_eq!(device.transport.reconnects(), 2);
}

#[test]
fn every_request_queue_is_served() {
    let folder = share();
    let daemon = start(&folder);
    let mut device = Device::new(daemon.connect(options()).unwrap(), Wait::Thread);
    assert_eq!(device.transport.queues(), 4);
    let mut number = [0; 4];
    device.transport.read_config(36, &mut number).unwrap();
    assert_eq!(u32::from_le_bytes(number), 3);
    device.init();
    for queue in [1, 2, 3, 2, 1] {
        let pending = device.send(queue, GETATTR, 1, &[0; 16], Some(104));
        assert_eq!(device.finish(pending).unwrap().0, 120);
    }
    let kicks = [1, 2, 3].map(|queue| device.transport.kicks(queue));
    // INIT went to the first.
    assert_eq!(kicks, [3, 2, 1]);
}
