//! Against virtiofsd: registers, rings, interrupts, death and return.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::{
    Device, FORGET, GETATTR, HIPRIO, INIT, LOOKUP, NoReply, OPEN, READ, REQUEST, VERSION_1, Wait,
};
use virtio_fs::device::Transport;
use virtio_fs::device::transport::DeviceStatus;
use virtio_fs_host::daemon::{Config, Daemon};
use virtio_fs_host::transport::{Loss, Options, Reconnect};
use virtio_fs_host::{Buffer, VhostUserTransport};

/// Length of the file `bytes`: no whole number of pages.
const FILE_LEN: usize = (3 << 20) + 1234;

/// A directory to serve, with one file.
fn share() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bytes"), bytes()).unwrap();
    folder
}

/// Bytes that differ from page to page.
fn bytes() -> Vec<u8> {
    (0..FILE_LEN as u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}

fn start(folder: &Path) -> Daemon {
    Config::virtiofsd(folder).start().unwrap()
}

fn device(daemon: &Daemon, wait: Wait) -> Device {
    let transport = daemon.connect(Options::default()).unwrap();
    Device::new(transport, wait)
}

#[test]
fn init_and_getattr_are_answered_however_one_waits() {
    let folder = share();
    for wait in [Wait::Poll, Wait::Eventfd, Wait::Thread] {
        let daemon = start(folder.path());
        let mut device = device(&daemon, wait);
        let (minor, max_write) = device.init();
        assert!(minor >= 27, "minor {minor}");
        assert!(max_write >= 4096, "max_write {max_write}");
        assert_eq!(device.getattr(1).unwrap().0 & 0o170_000, 0o040_000);
        let node = device.lookup("bytes").unwrap();
        assert_eq!(device.getattr(node).unwrap().1, FILE_LEN as u64);
        assert_eq!(device.lookup("none"), Err(libc::ENOENT));
        assert_eq!(device.transport.kicks(REQUEST), 5);
        // Several may become one, and a reply may be seen before it interrupts.
        while wait == Wait::Thread && device.transport.interrupts(REQUEST) == 0 {
            std::thread::yield_now();
        }
        assert!(device.transport.interrupts(REQUEST) <= 5);
        assert_eq!(device.transport.interrupts(HIPRIO), 0);
    }
}

#[test]
fn reads_of_every_size_return_exactly_the_bytes_of_the_file() {
    let folder = share();
    let daemon = start(folder.path());
    let mut device = device(&daemon, Wait::Eventfd);
    device.init();
    let node = device.lookup("bytes").unwrap();
    let fh = device.open(node).unwrap();
    let content = bytes();
    for size in [1, 511, 4095, 4096, 4097, 65_536, 1 << 20] {
        for offset in [
            0,
            1,
            4096,
            FILE_LEN - size,
            FILE_LEN - 1,
            FILE_LEN,
            FILE_LEN + 1,
        ] {
            let end = (offset + size).min(FILE_LEN);
            let expected = content.get(offset..end).unwrap_or_default();
            let got = device.read(node, fh, offset as u64, size as u32).unwrap();
            assert!(got == expected, "{size} bytes at {offset}");
        }
    }
}

#[test]
fn forget_goes_out_on_hiprio_without_a_reply_and_the_log_counts_each_opcode() {
    let folder = share();
    let daemon = start(folder.path());
    let mut device = device(&daemon, Wait::Eventfd);
    device.init();
    let node = device.lookup("bytes").unwrap();
    let fh = device.open(node).unwrap();
    device.read(node, fh, 0, 10).unwrap();
    let forget = device.send(HIPRIO, FORGET, node, &1_u64.to_le_bytes(), None);
    assert_eq!(device.finish(forget).unwrap().0, 0);
    assert_eq!(device.transport.kicks(HIPRIO), 1);
    let counts = daemon.requests_when(|counts| counts.contains_key(&FORGET));
    let expected = [(LOOKUP, 1), (FORGET, 1), (OPEN, 1), (READ, 1), (INIT, 1)];
    assert_eq!(counts, expected.into());
}

#[test]
fn the_configuration_comes_from_the_daemon_or_else_from_the_options() {
    let folder = share();
    for (arguments, tag) in [(&["--tag", "theirs"][..], "theirs"), (&[], "ours")] {
        let daemon = Config::virtiofsd(folder.path())
            .arguments(arguments.iter().copied())
            .start()
            .unwrap();
        let options = Options {
            tag: "ours".into(),
            queue_size: 256,
            ..Options::default()
        };
        let transport = daemon.connect(options).unwrap();
        let mut config = [0xa5; 40];
        transport.read_config(0, &mut config).unwrap();
        assert_eq!(&config[..tag.len()], tag.as_bytes());
        assert!(config[tag.len()..36].iter().all(|&byte| byte == 0));
        assert_eq!(config[36..], 1_u32.to_le_bytes());
        assert!(transport.read_config(44, &mut [0]).is_err());
        assert!(transport.read_config(usize::MAX, &mut [0; 4]).is_err());
        let sizes = [0, 1, 2, u16::MAX].map(|queue| transport.max_queue_size(queue));
        assert_eq!(sizes, [256, 256, 0, 0]);
        assert_eq!(transport.shared_memory(0), None);
    }
}

#[test]
fn features_of_the_wire_are_hidden_and_unknown_ones_are_refused() {
    let folder = share();
    let daemon = start(folder.path());
    let transport = daemon.connect(Options::default()).unwrap();
    let offered = transport.device_features();
    assert_ne!(offered & VERSION_1, 0);
    assert_eq!(offered & (1 << 26 | 1 << 30), 0);
    let begun = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(begun);
    transport.set_driver_features(VERSION_1 | 1 << 40);
    transport.set_status(begun | DeviceStatus::FEATURES_OK);
    assert_eq!(transport.status(), begun);
}

#[test]
fn a_reset_makes_the_daemon_forget_and_the_device_starts_again_on_the_same_connection() {
    let folder = share();
    let daemon = start(folder.path());
    let mut device = device(&daemon, Wait::Eventfd);
    let probes = device.transport.resets();
    for _ in 0..5 {
        device.init();
        let node = device.lookup("bytes").unwrap();
        assert!(device.getattr(node).is_ok());
        device.probe();
        device.init();
        assert!(device.getattr(1).is_ok());
        assert!(device.getattr(node).is_err());
    }
    assert_eq!(device.transport.resets(), probes + 5);
    assert_eq!(device.transport.reconnects(), 0);
}

#[test]
fn the_daemon_ends_by_itself_when_the_device_goes() {
    let folder = share();
    let mut daemon = start(folder.path());
    let mut device = device(&daemon, Wait::Poll);
    device.init();
    drop(device);
    let status = daemon
        .wait(Duration::from_secs(5))
        .expect("the daemon's end");
    assert!(status.success(), "{status}");
}

#[test]
fn a_daemon_killed_in_mid_request_shows_as_a_device_that_needs_a_reset() {
    let folder = share();
    for wait in [Wait::Poll, Wait::Eventfd, Wait::Thread] {
        let mut daemon = start(folder.path());
        let mut device = device(&daemon, wait);
        device.init();
        daemon.pause();
        let pending = device.send(REQUEST, GETATTR, 1, &[0; 16], Some(104));
        assert!(
            !device
                .transport
                .status()
                .contains(DeviceStatus::DEVICE_NEEDS_RESET)
        );
        daemon.kill();
        assert_eq!(device.finish(pending).unwrap_err(), NoReply::HungUp);
        let status = device.transport.status();
        assert!(status.contains(DeviceStatus::DEVICE_NEEDS_RESET | DeviceStatus::DRIVER_OK));
        // It can be reset, and has nothing to offer then.
        device.transport.set_status(DeviceStatus::empty());
        assert_eq!(device.transport.status(), DeviceStatus::empty());
        assert_eq!(device.transport.device_features(), 0);
        assert_eq!(device.transport.max_queue_size(REQUEST), 0);
        assert!(device.transport.read_config(0, &mut [0; 4]).is_err());
        if wait == Wait::Thread {
            assert_eq!(device.transport.config_interrupts(), 1);
        }
    }
}

#[test]
fn a_daemon_killed_can_look_like_a_device_pulled_out() {
    let folder = share();
    let mut daemon = start(folder.path());
    let options = Options {
        loss: Loss::AllOnes,
        ..Options::default()
    };
    let mut device = Device::new(daemon.connect(options).unwrap(), Wait::Eventfd);
    device.init();
    daemon.kill();
    let transport = &device.transport;
    assert_eq!(transport.status().bits(), 0xff);
    assert_eq!(transport.device_features(), u64::MAX);
    assert_eq!(transport.max_queue_size(REQUEST), u16::MAX);
    assert_eq!(transport.config_generation(), u32::MAX);
    let mut config = [0; 4];
    transport.read_config(36, &mut config).unwrap();
    assert_eq!(config, [0xff; 4]);
    transport.notify(REQUEST);
    transport.set_status(DeviceStatus::empty());
    assert_eq!(transport.status().bits(), 0xff);
}

#[test]
fn a_reset_finds_the_daemon_that_was_started_again() {
    let folder = share();
    let mut daemon = start(folder.path());
    let options = Options {
        reconnect: Reconnect::OnReset,
        ..Options::default()
    };
    let mut device = Device::new(daemon.connect(options).unwrap(), Wait::Thread);
    for round in 1..=5 {
        device.init();
        let generation = device.transport.config_generation();
        let pending = device.send(REQUEST, LOOKUP, 1, b"bytes\0", Some(128));
        daemon.kill();
        // It may have been answered just before.
        match device.finish(pending) {
            Err(NoReply::HungUp) | Ok(_) => {}
            Err(NoReply::TimedOut) => panic!("neither a reply nor a hang-up"),
        }
        // Nobody listens yet: the device offers nothing, until a later reset.
        device.transport.set_status(DeviceStatus::empty());
        assert_eq!(device.transport.device_features(), 0);
        daemon.restart().unwrap();
        device.probe();
        assert_eq!(device.transport.reconnects(), round);
        assert_ne!(device.transport.config_generation(), generation);
    }
    device.init();
    assert!(device.getattr(1).is_ok());
}

#[test]
fn a_daemon_that_is_silent_is_given_up_after_the_timeout() {
    let folder = share();
    let mut daemon = start(folder.path());
    let timeout = Duration::from_millis(200);
    let options = Options {
        timeout,
        reconnect: Reconnect::OnReset,
        ..Options::default()
    };
    let mut device = Device::new(daemon.connect(options).unwrap(), Wait::Eventfd);
    device.init();
    daemon.pause();
    let begun = Instant::now();
    device.transport.set_status(DeviceStatus::empty());
    assert!(begun.elapsed() >= timeout);
    assert!(begun.elapsed() < 20 * timeout, "{:?}", begun.elapsed());
    assert_eq!(device.transport.device_features(), 0);
    daemon.restart().unwrap();
    device.probe();
    device.init();
    assert!(device.getattr(1).is_ok());
}

#[test]
fn an_address_that_is_no_guest_address_ends_the_daemon_not_the_test() {
    let folder = share();
    let mut daemon = start(folder.path());
    let mut device = device(&daemon, Wait::Eventfd);
    device.init();
    let buffer = Buffer::new(4096);
    let pointer = buffer.as_ptr() as u64;
    device.rings[usize::from(REQUEST)].submit((pointer, 40), (buffer.addr(), 16));
    device.transport.notify(REQUEST);
    let status = daemon
        .wait(Duration::from_secs(5))
        .expect("the daemon's end");
    assert!(!status.success(), "{status}");
    let lost = device.transport.status();
    assert!(lost.contains(DeviceStatus::DEVICE_NEEDS_RESET));
}

#[test]
fn a_missing_daemon_is_an_error_with_a_reason() {
    let nowhere = Path::new("/nonexistent/socket");
    let error = VhostUserTransport::connect(nowhere, Options::default());
    let text = error.err().expect("an error").to_string();
    assert!(text.contains("connect"), "{text}");

    let folder = share();
    let daemon = Config::virtiofsd(folder.path())
        .arguments(["--cache", "nonsense"])
        .start()
        .unwrap();
    let text = daemon
        .connect(Options::default())
        .err()
        .expect("an error")
        .to_string();
    assert!(text.contains("nonsense"), "{text}");
}

#[test]
fn eight_devices_work_side_by_side() {
    let folder = share();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let daemon = Config::virtiofsd(folder.path())
                    .arguments(["--log-level", "warn"])
                    .start()
                    .unwrap();
                let mut device = device(&daemon, Wait::Eventfd);
                device.init();
                let node = device.lookup("bytes").unwrap();
                for _ in 0..500 {
                    assert_eq!(device.getattr(node).unwrap().1, FILE_LEN as u64);
                }
                assert_eq!(device.transport.kicks(REQUEST), 502);
            });
        }
    });
}

#[test]
fn the_ring_indices_wrap() {
    let folder = share();
    let daemon = Config::virtiofsd(folder.path())
        .arguments(["--log-level", "warn"])
        .start()
        .unwrap();
    let mut device = device(&daemon, Wait::Eventfd);
    device.init();
    for batch in 0..(70_000 / 32) {
        let pending: Vec<_> = (0..32)
            .map(|_| device.send(REQUEST, GETATTR, 1, &[0; 16], Some(104)))
            .collect();
        for request in pending {
            let (used, _) = device.finish(request).unwrap();
            assert_eq!(used, 120, "batch {batch}");
        }
    }
}
