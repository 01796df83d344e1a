//! What QEMU 11.1 and its vhost-user do that a DAX daemon falls over, each as a test.

mod front_end;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use front_end::fuse::{MAP_READ, MAP_WRITE, PIECE, outcome, request, words};
use front_end::{Daemon, Scratch, Vm, wait_until};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

const MIB: u64 = 1 << 20;

/// A file whose byte at n is n / 4096 + seed.
fn file(scratch: &Scratch, name: &str, len: u64, seed: u8) {
    let bytes: Vec<u8> = (0..len).map(|n| (n / 4096) as u8 ^ seed).collect();
    fs::write(scratch.share().join(name), bytes).expect("a file");
}

fn started(scratch: &Scratch, window: &str, args: &[&str]) -> (Daemon, Vm) {
    let daemon = Daemon::start(scratch, &[&["--window", window], args].concat());
    let size = match window {
        "0" => 0,
        text => text.trim_end_matches('M').parse::<u64>().expect("in M") * MIB,
    };
    let mut vm = Vm::connect(&daemon.socket, size, 1);
    vm.init();
    (daemon, vm)
}

#[test]
fn shmem_is_offered_as_bit_21_and_22_and_only_with_a_window() {
    for (window, offered) in [("8M", 0b11), ("0", 0b00)] {
        let scratch = Scratch::new("bits");
        let daemon = Daemon::start(&scratch, &["--window", window]);
        // Asked in bytes: `vhost` does not hand on a bit that it has no name for.
        let mut socket = UnixStream::connect(&daemon.socket).expect("it listens");
        let (get_protocol_features, version) = (15u32, 1u32);
        let mut message = [0; 12];
        message[0..4].copy_from_slice(&get_protocol_features.to_le_bytes());
        message[4..8].copy_from_slice(&version.to_le_bytes());
        socket.write_all(&message).expect("to send");
        let mut reply = [0; 20];
        socket.read_exact(&mut reply).expect("a reply");
        let features = u64::from_le_bytes(reply[12..].try_into().expect("8 bytes"));
        assert_eq!(
            features >> 21 & 0b11,
            offered,
            "window {window}: {features:#x}"
        );
        // Without CONFIGURE_MEM_SLOTS QEMU fails at the eighth mapping.
        assert_ne!(features & 1 << 15, 0);
    }
}

#[test]
fn more_mappings_than_a_memory_table_holds() {
    let scratch = Scratch::new("slots");
    file(&scratch, "f", 32 * MIB, 0);
    let (_daemon, mut vm) = started(&scratch, "64M", &[]);
    vm.window.announce.store(true, Ordering::Relaxed);
    let node = vm.lookup("f");
    for n in 0..16 {
        vm.map(node, n * PIECE, PIECE, MAP_READ, (15 - n) * PIECE)
            .expect("SETUPMAPPING");
    }
    for n in 0..16 {
        let want = (n * PIECE / 4096) as u8;
        assert_eq!(vm.window.read((15 - n) * PIECE, 1), [want], "piece {n}");
    }
    assert_eq!(vm.window.live().len(), 16);
}

#[test]
fn a_region_announced_while_its_request_is_in_service_does_not_deadlock() {
    // The front end waits for the announcement before it acknowledges the mapping.
    for args in [&[][..], &["--threads", "2"]] {
        let scratch = Scratch::new("announce");
        file(&scratch, "f", 4 * MIB, 7);
        let (_daemon, mut vm) = started(&scratch, "8M", args);
        vm.window.announce.store(true, Ordering::Relaxed);
        let node = vm.lookup("f");
        for _ in 0..20 {
            vm.map(node, 0, PIECE, MAP_READ | MAP_WRITE, PIECE)
                .expect("SETUPMAPPING");
            vm.unmap(&[(PIECE, PIECE)]).expect("REMOVEMAPPING");
        }
    }
}

#[test]
fn nothing_is_mapped_past_the_end_of_the_file() {
    let scratch = Scratch::new("eof");
    file(&scratch, "f", PIECE + 5000, 0);
    let (mut daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    for (from, len) in [
        (PIECE, PIECE),
        (PIECE, 8192),
        (0, 2 * PIECE),
        (PIECE + 4096, 4096),
        (4 * PIECE, 4096),
    ] {
        assert_eq!(
            vm.map(node, from, len, MAP_READ, 0),
            Err(libc::ENXIO),
            "{from:#x} {len:#x}"
        );
    }
    assert_eq!(
        vm.window.asked_maps.load(Ordering::Relaxed),
        0,
        "the front end was asked"
    );
    // Up to the last whole page it is.
    vm.map(node, PIECE, 4096, MAP_READ, 0)
        .expect("a whole page");
    // What has grown is mapped anew.
    vm.unmap(&[(0, 4096)]).expect("REMOVEMAPPING");
    file(&scratch, "f", 2 * PIECE, 0);
    vm.map(node, PIECE, PIECE, MAP_READ, 0)
        .expect("the file has grown");
    assert!(daemon.is_alive());
}

#[test]
fn a_read_mapping_gets_a_descriptor_that_can_be_mapped_for_writing() {
    // The front end of this test, like QEMU, maps read-write whatever it is asked.
    let scratch = Scratch::new("rdwr");
    file(&scratch, "f", PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    let handle = vm.open(node, libc::O_RDONLY).expect("OPEN");
    vm.map(node, 0, PIECE, MAP_READ, 0).expect("SETUPMAPPING");
    vm.window.write(4096, b"through the window");
    assert_eq!(
        vm.read(node, handle, 4096, 18).expect("READ"),
        b"through the window"
    );
    let host = fs::read(scratch.share().join("f")).expect("the file");
    assert_eq!(&host[4096..4114], b"through the window");
}

#[test]
fn a_refused_mapping_is_an_error_reply_and_leaves_nothing_behind() {
    let scratch = Scratch::new("refused");
    file(&scratch, "f", 2 * PIECE, 0);
    let (mut daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    vm.window.refuse.store(true, Ordering::Relaxed);
    assert_eq!(vm.map(node, 0, PIECE, MAP_READ, 0), Err(libc::ENOMEM));
    vm.window.refuse.store(false, Ordering::Relaxed);
    vm.map(node, PIECE, PIECE, MAP_READ, 0)
        .expect("the place is free");
    assert!(daemon.is_alive());
}

#[test]
fn a_refused_unmap_stays_mapped_and_can_be_repaired() {
    let scratch = Scratch::new("repair");
    file(&scratch, "f", 4 * PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    vm.map(node, 0, PIECE, MAP_READ, 0).expect("SETUPMAPPING");
    vm.window.refuse.store(true, Ordering::Relaxed);
    assert_eq!(vm.unmap(&[(0, PIECE)]), Err(libc::EIO));
    vm.window.refuse.store(false, Ordering::Relaxed);
    assert_eq!(
        vm.map(node, PIECE, PIECE, MAP_READ, 0),
        Err(libc::EEXIST),
        "it may still be mapped"
    );
    vm.unmap(&[(0, PIECE)]).expect("the second attempt");
    vm.map(node, PIECE, PIECE, MAP_READ, 0)
        .expect("the place is free");
}

#[test]
fn an_unmap_names_whole_mappings_or_changes_nothing() {
    let scratch = Scratch::new("exact");
    file(&scratch, "f", 4 * PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "16M", &[]);
    let node = vm.lookup("f");
    vm.map(node, 0, PIECE, MAP_READ, 0).expect("SETUPMAPPING");
    vm.map(node, PIECE, PIECE, MAP_READ, PIECE)
        .expect("SETUPMAPPING");
    for (spans, error) in [
        (&[(0, 2 * PIECE)][..], libc::ENOENT),     // two at once
        (&[(0, PIECE / 2)], libc::ENOENT),         // a part
        (&[(PIECE / 2, PIECE / 2)], libc::ENOENT), // its end
        (&[(4 * PIECE, PIECE)], libc::ENOENT),     // nothing there
        (&[(0, PIECE), (4 * PIECE, PIECE)], libc::ENOENT), // one that is, one that is not
        (&[(0, PIECE), (0, PIECE)], libc::EINVAL), // twice
        (&[(0, 0)], libc::EINVAL),
        (&[(1, PIECE)], libc::EINVAL),
        (&[(u64::MAX - 4095, 4096)], libc::EINVAL),
        (&[(0, u64::MAX)], libc::EINVAL),
    ] {
        assert_eq!(vm.unmap(spans), Err(error), "{spans:x?}");
    }
    assert_eq!(
        vm.window.asked_unmaps.load(Ordering::Relaxed),
        0,
        "the front end was asked"
    );
    vm.unmap(&[(0, PIECE), (PIECE, PIECE)])
        .expect("both, exactly");
    assert_eq!(vm.window.live(), []);
    vm.unmap(&[]).expect("nothing to do");
}

#[test]
fn no_mapping_goes_over_a_live_one() {
    let scratch = Scratch::new("overlap");
    file(&scratch, "f", 8 * PIECE, 0);
    file(&scratch, "g", 8 * PIECE, 9);
    let (_daemon, mut vm) = started(&scratch, "16M", &[]);
    let (f, g) = (vm.lookup("f"), vm.lookup("g"));
    vm.map(f, 0, PIECE, MAP_READ, PIECE).expect("SETUPMAPPING");
    for (node, file, len, window) in [
        (f, PIECE, PIECE, PIECE),         // the same place
        (g, 0, PIECE, PIECE),             // the same place, another file
        (f, 0, 2 * PIECE, 0),             // over its begin
        (f, 0, PIECE, PIECE + PIECE / 2), // over its end
        (f, 0, 4 * PIECE, 0),             // all around it
        (f, 0, 4096, PIECE + 4096),       // inside it
    ] {
        assert_eq!(
            vm.map(node, file, len, MAP_READ, window),
            Err(libc::EEXIST),
            "{file:x} {len:x} {window:x}"
        );
    }
    assert_eq!(vm.window.asked_maps.load(Ordering::Relaxed), 1);
    vm.map(f, 0, PIECE, MAP_READ, 0).expect("before it");
    vm.map(f, 0, PIECE, MAP_READ, 2 * PIECE).expect("behind it");
}

#[test]
fn the_same_mapping_again_succeeds_without_asking() {
    // Linux makes a mapping writable by mapping it once more.
    let scratch = Scratch::new("upgrade");
    file(&scratch, "f", PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    vm.map(node, 0, PIECE, MAP_READ, 0).expect("for reading");
    vm.map(node, 0, PIECE, MAP_READ | MAP_WRITE, 0)
        .expect("for writing");
    assert_eq!(vm.window.asked_maps.load(Ordering::Relaxed), 1);
    vm.window.write(0, b"x");
}

#[test]
fn mappings_that_no_front_end_could_make_are_refused_here() {
    let scratch = Scratch::new("form");
    file(&scratch, "f", 32 * PIECE, 0);
    fs::create_dir(scratch.share().join("d")).expect("a directory");
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    for (file, len, flags, window) in [
        (0, 0, MAP_READ, 0),
        (0, PIECE, 0, 0),
        (0, PIECE, 4, 0),
        (1, PIECE, MAP_READ, 0),
        (0, PIECE + 1, MAP_READ, 0),
        (0, PIECE, MAP_READ, 512),
        (0, PIECE, MAP_READ, 4 * PIECE),
        (0, PIECE, MAP_READ, 4 * PIECE - 4096),
        (0, PIECE, MAP_READ, u64::MAX - 4095),
        (u64::MAX - 4095, PIECE, MAP_READ, 0),
        (0, u64::MAX - 4095, MAP_READ, 0),
    ] {
        assert_eq!(
            vm.map(node, file, len, flags, window),
            Err(libc::EINVAL),
            "{file:x} {len:x} {flags} {window:x}"
        );
    }
    let directory = vm.lookup("d");
    assert_eq!(vm.map(directory, 0, PIECE, MAP_READ, 0), Err(libc::EINVAL));
    assert_eq!(vm.map(99, 0, PIECE, MAP_READ, 0), Err(libc::EBADF));
    assert_eq!(vm.window.asked_maps.load(Ordering::Relaxed), 0);
}

#[test]
fn regions_stay_below_what_qemu_survives() {
    let scratch = Scratch::new("ceiling");
    fs::File::create(scratch.share().join("f"))
        .and_then(|f| f.set_len(4 * MIB))
        .expect("a file");
    let (mut daemon, mut vm) = started(&scratch, "8M", &[]);
    vm.window.announce.store(true, Ordering::Relaxed);
    let node = vm.lookup("f");
    let mut made = 0;
    let error = loop {
        match vm.map(node, 0, 4096, MAP_READ, made * 4096) {
            Ok(()) => made += 1,
            Err(e) => break e,
        }
        assert!(made < 512, "QEMU 11.1 would have aborted");
    };
    assert_eq!(error, libc::ENOMEM);
    assert!(made > 450, "only {made}");
    // A place that becomes free can be used again.
    vm.unmap(&[(0, 4096)]).expect("REMOVEMAPPING");
    vm.map(node, 0, 4096, MAP_READ, 0).expect("one is free");
    assert!(daemon.is_alive());
}

#[test]
fn init_and_destroy_begin_with_an_empty_window() {
    let scratch = Scratch::new("clear");
    file(&scratch, "f", PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    for destroy in [false, true] {
        let node = vm.lookup("f");
        vm.map(node, 0, PIECE, MAP_READ, 0).expect("SETUPMAPPING");
        if destroy {
            vm.fuse(38, 0, &[], 0).expect("DESTROY");
            assert_eq!(vm.window.live(), []);
            assert_eq!(vm.entry(1, "f").expect_err("no session"), libc::EIO);
        }
        vm.init();
        assert_eq!(vm.window.live(), []);
    }
}

#[test]
fn a_device_reset_forgets_all_mappings() {
    let scratch = Scratch::new("reset");
    file(&scratch, "f", PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    vm.map(node, 0, PIECE, MAP_READ, 0).expect("SETUPMAPPING");
    for queue in 0..2 {
        vm.frontend
            .set_vring_enable(queue, false)
            .expect("SET_VRING_ENABLE");
        vm.stop_ring(queue);
    }
    vm.frontend.reset_device().expect("RESET_DEVICE");
    vm.frontend
        .set_features(1 << 30 | 1 << 32)
        .expect("SET_FEATURES");
    for queue in 0..2 {
        vm.restart_ring(queue);
    }
    vm.init();
    // The front end keeps its mapping in this test, so this one is refused there.
    let node = vm.lookup("f");
    assert_eq!(vm.map(node, 0, PIECE, MAP_READ, 0), Err(libc::ENOMEM));
}

#[test]
fn a_ring_stops_while_its_request_waits_for_the_front_end() {
    let scratch = Scratch::new("stop");
    file(&scratch, "f", PIECE, 0);
    let (mut daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    let slow = Duration::from_secs(2);
    *vm.window.delay.lock().expect("unpoisoned") = slow;
    let unique = vm.unique();
    let body = words(&[u64::MAX, 0, PIECE, MAP_READ, 0]);
    let head = vm.submit(1, &request(48, unique, node, &body), 16);
    vm.kick(1);
    wait_until("the front end is asked", || {
        vm.window.asked_maps.load(Ordering::Relaxed) == 1
    });
    let began = Instant::now();
    vm.stop_ring(1);
    assert!(
        began.elapsed() < slow / 2,
        "stopping waited for the front end"
    );
    // The request's memory is ours again: nothing is written, nothing comes back.
    std::thread::sleep(slow + Duration::from_millis(500));
    assert_eq!(vm.poll(1), None);
    assert_eq!(vm.reply(1, head, 0, 16).bytes, [0xa5; 16]);
    *vm.window.delay.lock().expect("unpoisoned") = Duration::ZERO;
    vm.restart_ring(1);
    vm.init();
    let node = vm.lookup("f");
    vm.map(node, 0, PIECE, MAP_READ, 0).expect("a new session");
    assert!(daemon.is_alive());
}

#[test]
fn requests_in_service_come_back_before_a_ring_has_stopped() {
    let scratch = Scratch::new("drain");
    file(&scratch, "f", 4 * MIB, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &["--threads", "3"]);
    let node = vm.lookup("f");
    let handle = vm.open(node, libc::O_RDONLY).expect("OPEN");
    for _ in 0..50 {
        let heads: Vec<(u16, u64)> = (0..8)
            .map(|n| {
                let unique = vm.unique();
                let body = words(&[handle, n * 4096, 256 << 10, 0, 0]);
                (
                    vm.submit(1, &request(15, unique, node, &body), 16 + (256 << 10)),
                    unique,
                )
            })
            .collect();
        vm.kick(1);
        // What was not taken was never in service; all that was has come back.
        let taken = vm.stop_ring(1) as u16;
        assert_eq!(vm.given_back(1), taken, "a request in service is lost");
        while let Some((head, used)) = vm.poll(1) {
            let reply = vm.reply(1, head, used, 16 + (256 << 10));
            let unique = heads.iter().find(|h| h.0 == head).expect("one of ours").1;
            outcome(&reply, unique).expect("READ");
        }
        vm.restart_ring(1);
    }
}

#[test]
fn writes_through_the_window_and_by_request_meet() {
    let scratch = Scratch::new("coherent");
    file(&scratch, "f", 2 * PIECE, 0);
    let (_daemon, mut vm) = started(&scratch, "8M", &[]);
    let node = vm.lookup("f");
    let handle = vm.open(node, libc::O_RDWR).expect("OPEN");
    vm.map(node, PIECE, PIECE, MAP_READ | MAP_WRITE, 0)
        .expect("SETUPMAPPING");
    vm.write(node, handle, PIECE + 100, b"by request")
        .expect("WRITE");
    assert_eq!(vm.window.read(100, 10), b"by request");
    vm.window.write(200, b"by window");
    assert_eq!(
        vm.read(node, handle, PIECE + 200, 9).expect("READ"),
        b"by window"
    );
    vm.fuse(20, node, &words(&[handle, 0]), 0).expect("FSYNC");
    let host = fs::File::open(scratch.share().join("f")).expect("the file");
    let mut bytes = [0; 9];
    host.read_exact_at(&mut bytes, PIECE + 200)
        .expect("its content");
    assert_eq!(&bytes, b"by window");
}
