//! The device side of virtio: registers, queues, interrupts, time, threads.

mod client;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Page, Shared, cstr, u32_at};
use virtio_drivers::BufferDirection;
use virtio_drivers::transport::DeviceStatus;
use virtio_fs::device::{QueueLayout, Transport, TransportError};
use virtio_fs::platform::Platform;
use virtio_fs_fake::{
    Cause, Drive, Fake, Fault, Interrupt, MemFs, Notification, Op, ROOT_ID, Rule, feature,
};

fn expect(found: &[String], what: &[&str]) {
    let fits = found.len() == what.len() && found.iter().zip(what).all(|(f, w)| f.contains(w));
    assert!(fits, "{found:#?} are not {what:?}");
}

#[test]
fn the_configuration_space_is_what_was_asked_for() {
    let (transport, handle) = Fake::new()
        .tag([b'x'; 36])
        .queues(3)
        .claim_queues(7)
        .build();
    let mut config = [0; 40];
    transport.read_config(0, &mut config).unwrap();
    assert_eq!((&config[..36], u32_at(&config, 36)), (&[b'x'; 36][..], 7));
    assert_eq!(
        transport.read_config(37, &mut [0; 4]),
        Err(TransportError::Config(40))
    );
    assert_eq!(transport.config_generation(), transport.config_generation());
    handle.change_config(0, b"new");
    assert_eq!(transport.config_generation(), 1);
    assert_eq!(transport.take_interrupt().bits(), 2);
    assert_eq!(transport.take_interrupt().bits(), 0);
    assert_eq!(
        (transport.max_queue_size(3), transport.max_queue_size(4)),
        (128, 0)
    );
    assert_eq!(transport.shared_memory(0), None);
    let (transport, _handle) = Fake::new().restless_config().notifications(256).build();
    assert_ne!(transport.config_generation(), transport.config_generation());
    let mut size = [0; 4];
    transport.read_config(40, &mut size).unwrap();
    assert_eq!(u32::from_le_bytes(size), 256);
}

#[test]
fn status_goes_forward_only() {
    use DeviceStatus as S;
    let (transport, handle) = Fake::new().build();
    transport.set_status(S::DRIVER);
    expect(&handle.take_violations(), &["DRIVER"]);
    transport.set_status(S::ACKNOWLEDGE);
    expect(&handle.take_violations(), &["lost bits"]);
    transport.set_status(S::ACKNOWLEDGE | S::DRIVER);
    transport.set_driver_features(feature::VERSION_1 | feature::RING_PACKED);
    transport.set_status(S::ACKNOWLEDGE | S::DRIVER | S::FEATURES_OK);
    assert!(!transport.status().contains(S::FEATURES_OK));
    expect(&handle.take_violations(), &["not offered"]);
    transport.notify(0);
    expect(&handle.take_violations(), &["before DRIVER_OK"]);
    transport.set_status(S::FAILED | S::ACKNOWLEDGE | S::DRIVER);
    let (transport, _handle) = Fake::new().refuse_features().build();
    transport.set_status(S::ACKNOWLEDGE);
    transport.set_status(S::ACKNOWLEDGE | S::DRIVER);
    transport.set_driver_features(feature::VERSION_1);
    transport.set_status(S::ACKNOWLEDGE | S::DRIVER | S::FEATURES_OK);
    assert!(!transport.status().contains(S::FEATURES_OK));
}

#[test]
fn a_slow_reset_keeps_the_memory_until_it_is_done() {
    let (transport, handle) = Fake::new().slow_reset(2).build();
    transport.set_status(DeviceStatus::ACKNOWLEDGE);
    transport.set_status(DeviceStatus::empty());
    let reads: Vec<u32> = (0..3).map(|_| transport.status().bits()).collect();
    assert_eq!(reads, [1, 1, 0]);
    assert_eq!(handle.stats().resets, 1);
    assert_eq!(
        handle.now(),
        Duration::from_millis(2),
        "who polls the status sees time pass"
    );
    // One that never ends.
    let (transport, handle) = Fake::new().slow_reset(u32::MAX).build();
    transport.set_status(DeviceStatus::ACKNOWLEDGE);
    transport.set_status(DeviceStatus::empty());
    while handle.now() < Duration::from_secs(10) {
        assert!(!transport.status().is_empty());
    }
}

#[test]
fn queues_are_checked_when_they_are_set_up() {
    use DeviceStatus as S;
    let (transport, handle) = Fake::new().queue_size(64).vectors(Some(2)).build();
    let page = Page::new();
    let layout = |size, at, vector| QueueLayout {
        size,
        descriptors: at,
        available: page.paddr + 1024,
        used: page.paddr + 2048,
        vector,
    };
    assert!(
        transport
            .set_queue(0, &layout(16, page.paddr, None))
            .is_ok()
    );
    expect(&handle.take_violations(), &["set up in status"]);
    transport.set_status(S::empty());
    transport.set_status(S::ACKNOWLEDGE);
    transport.set_status(S::ACKNOWLEDGE | S::DRIVER);
    transport.set_driver_features(feature::VERSION_1);
    transport.set_status(S::ACKNOWLEDGE | S::DRIVER | S::FEATURES_OK);
    let refused = |q, layout: &QueueLayout| transport.set_queue(q, layout).unwrap_err();
    assert_eq!(
        refused(0, &layout(16, page.paddr, Some(2))),
        TransportError::Vector(0)
    );
    assert_eq!(
        refused(0, &layout(128, page.paddr, None)),
        TransportError::Queue(0)
    );
    assert_eq!(
        refused(2, &layout(16, page.paddr, None)),
        TransportError::Queue(2)
    );
    handle.assert_clean();
    assert_eq!(
        refused(0, &layout(12, page.paddr, None)),
        TransportError::Queue(0)
    );
    assert_eq!(
        refused(0, &layout(16, page.paddr + 8, None)),
        TransportError::Queue(0)
    );
    assert_eq!(
        refused(0, &layout(16, 0x1000, None)),
        TransportError::Queue(0)
    );
    expect(
        &handle.take_violations(),
        &["twice or as", "twice or as", "nothing is shared"],
    );
    assert_eq!(
        transport.set_config_vector(Some(9)),
        Err(TransportError::Vector(9))
    );
    transport.set_status(S::empty());
}

/// What a broken chain looks like, by what is said about it.
type Break = (&'static str, fn(&mut Client, u64));

#[test]
fn broken_chains_are_noticed() {
    let cases: [Break; 11] = [
        ("out of range", |c, _| c.rings[1].publish(99)),
        ("loops", |c, at| {
            c.rings[1].describe(0, at, 8, 1, 1);
            c.rings[1].describe(1, at, 8, 1, 0);
            c.rings[1].publish(0);
        }),
        ("readable after writable", |c, at| {
            c.rings[1].describe(0, at, 8, 3, 1);
            c.rings[1].describe(1, at, 8, 0, 0);
            c.rings[1].publish(0);
        }),
        ("already in flight", |c, at| {
            c.rings[1].describe(0, at, 8, 1, 1);
            c.rings[1].describe(1, at, 40, 0, 0);
            c.rings[1].describe(2, at, 8, 1, 1);
            c.rings[1].publish(0);
            c.rings[1].publish(2);
        }),
        ("indirect table of 24 bytes", |c, at| {
            c.rings[1].describe(0, at, 24, 4, 0);
            c.rings[1].publish(0);
        }),
        ("indirect table loops", |c, at| {
            c.rings[1].page.write(3072 + 12, &[1, 0, 0, 0]);
            c.rings[1].page.write(3072, &at.to_le_bytes());
            c.rings[1].page.write(3072 + 8, &[8, 0, 0, 0]);
            let table = c.rings[1].page.paddr + 3072;
            c.rings[1].describe(0, table, 16, 4, 0);
            c.rings[1].publish(0);
        }),
        ("indirect table entry with flags", |c, at| {
            c.rings[1].page.write(3072, &at.to_le_bytes());
            c.rings[1].page.write(3072 + 8, &[8, 0, 0, 0, 4, 0, 0, 0]);
            let table = c.rings[1].page.paddr + 3072;
            c.rings[1].describe(0, table, 16, 4, 0);
            c.rings[1].publish(0);
        }),
        ("of an indirect table of 1", |c, at| {
            c.rings[1].page.write(3072, &at.to_le_bytes());
            c.rings[1].page.write(3072 + 8, &[8, 0, 0, 0, 1, 0, 5, 0]);
            let table = c.rings[1].page.paddr + 3072;
            c.rings[1].describe(0, table, 16, 4, 0);
            c.rings[1].publish(0);
        }),
        ("available index went", |c, _| {
            c.rings[1].avail += 99;
            c.rings[1].publish(0);
        }),
        ("is not readable", |c, at| {
            c.rings[1].describe(0, at + (1 << 30), 16, 4, 0);
            c.rings[1].publish(0);
        }),
        ("nothing is shared there", |c, at| {
            c.rings[1].describe(0, at + (1 << 30), 40, 0, 0);
            c.rings[1].publish(0);
        }),
    ];
    for (what, damage) in cases {
        let (mut client, handle) = Client::mount(Fake::new());
        handle.fault(Rule::any(Fault::Hold).always());
        let shared = Shared::new(vec![0; 40], BufferDirection::DriverToDevice);
        damage(&mut client, shared.paddr);
        client.transport.notify(1);
        let found = handle.take_violations();
        assert!(found.iter().any(|f| f.contains(what)), "{what}: {found:#?}");
        assert!(
            client
                .transport
                .status()
                .contains(DeviceStatus::DEVICE_NEEDS_RESET),
            "{what}"
        );
        client.reset();
        shared.unshare();
    }
}

#[test]
fn odd_descriptors_are_noticed_and_served() {
    let (mut client, handle) = Client::mount(Fake::new());
    client.transport.notify(7);
    expect(&handle.take_violations(), &["queue 7 notified"]);
    client.rings[1].page.write(1024, &[1, 0]);
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    let (_, len) = client.wait(1);
    client.finish(flight, len).body().unwrap();
    let found = handle.take_violations();
    assert!(
        found.iter().all(|f| f.contains("available ring flags")),
        "{found:?}"
    );
}

#[test]
fn the_index_wraps_in_both_notification_schemes() {
    for features in [u64::MAX, !feature::EVENT_IDX] {
        let (transport, handle) = Fake::new().build();
        let mut client = Client::accept(transport, &handle, features);
        client.init(45, 0).unwrap();
        for _ in 0..70_000 {
            client.call(Op::GETATTR, ROOT_ID, &[0; 16], 104).unwrap();
        }
        assert_eq!(handle.count(Op::GETATTR), 70_000);
        assert_eq!(handle.stats().kicks, handle.stats().requests);
    }
}

#[test]
fn a_request_without_notification_is_not_served() {
    let (mut client, handle) = Client::mount(Fake::new());
    handle.step();
    let served = handle.stats().requests;
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let shared = Shared::new(bytes, BufferDirection::DriverToDevice);
    let reply = Shared::new(vec![0; 96], BufferDirection::DeviceToDriver);
    client.rings[1].describe(0, shared.paddr, 40, 1, 1);
    client.rings[1].describe(1, reply.paddr, 96, 2, 0);
    client.rings[1].publish(0);
    assert!(!handle.step());
    assert_eq!(handle.stats().requests, served);
    client.transport.notify(1);
    assert_eq!(client.wait(1), (0, 96));
    shared.unshare();
    reply.unshare();
}

#[test]
#[should_panic(expected = "1 available, notified: false")]
fn waiting_for_ever_panics_and_says_why() {
    let (mut client, handle) = Client::mount(Fake::new());
    client.rings[1].publish(0);
    let platform = handle.platform();
    for _ in 0..20 {
        platform.park(None);
    }
}

#[test]
fn interrupts_come_outside_of_notify_and_as_asked_for() {
    let (mut client, handle) = Client::mount(Fake::new());
    let seen: Arc<Mutex<Vec<Interrupt>>> = Arc::default();
    let log = seen.clone();
    handle.step();
    handle.on_interrupt(move |interrupt| log.lock().unwrap().push(interrupt));
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    assert!(seen.lock().unwrap().is_empty(), "not inside notify");
    handle.step();
    let used = Interrupt {
        vector: Some(1),
        cause: Cause::Queue(1),
    };
    assert_eq!(*seen.lock().unwrap(), [used]);
    // The used element is there, and was not acknowledged: no further interrupt.
    let before = handle.stats().interrupts;
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let second = client.submit(1, 1, bytes, 96);
    assert_eq!(handle.stats().interrupts, before);
    for flight in [flight, second] {
        let (_, len) = client.wait(1);
        client.finish(flight, len).body().unwrap();
    }
    handle.needs_reset();
    handle.step();
    let change = Interrupt {
        vector: None,
        cause: Cause::Config,
    };
    assert_eq!(seen.lock().unwrap().last(), Some(&change));
}

#[test]
fn virtual_time_moves_with_waiting_only() {
    let (transport, handle) = Fake::new().latency(Duration::from_secs(3600)).build();
    let platform = handle.platform();
    let mut client = Client::probe(transport, &handle);
    assert_eq!(platform.now(), Duration::ZERO);
    client.init(45, 0).unwrap();
    assert_eq!(platform.now(), Duration::from_secs(3600));
    platform.park(Some(Duration::from_secs(4000)));
    assert_eq!(platform.now(), Duration::from_secs(4000));
    platform.advance(Duration::from_secs(1));
    assert_eq!(handle.now(), Duration::from_secs(4001));
    // A wake-up before the wait is not lost.
    platform.unpark(&platform.current_thread());
    platform.park(None);
}

#[test]
fn the_hook_runs_while_a_call_waits() {
    let mut fs = MemFs::new();
    fs.file("f", "old").unwrap();
    let (mut client, handle) = Client::mount(Fake::new().fs(fs).latency(Duration::from_secs(1)));
    let parks = Arc::new(AtomicU64::new(0));
    let seen = parks.clone();
    handle
        .platform()
        .on_park(move |n| seen.store(n, Ordering::Relaxed));
    client.lookup(ROOT_ID, "f").unwrap();
    assert_eq!(parks.load(Ordering::Relaxed), handle.platform().parks());
    assert!(parks.load(Ordering::Relaxed) > 0);
}

#[test]
fn replies_that_are_ready_together_are_shuffled() {
    let orders: Vec<Vec<u32>> = [1, 2, 3, 1]
        .map(|seed| {
            let latency = Duration::from_millis(1);
            let (mut client, _handle) = Client::mount(Fake::new().latency(latency).reorder(seed));
            let flights: Vec<_> = (0..8)
                .map(|slot| {
                    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
                    client.submit(1, slot, bytes, 96)
                })
                .collect();
            let order = (0..8).map(|_| client.wait(1).0).collect();
            for flight in flights {
                client.finish(flight, 96).body().unwrap();
            }
            order
        })
        .into();
    assert_eq!(orders[0], orders[3], "the seed decides");
    assert!(orders[0] != orders[1] || orders[1] != orders[2]);
    let mut sorted = orders[0].clone();
    sorted.sort();
    assert_eq!(sorted, [0, 2, 4, 6, 8, 10, 12, 14]);
}

#[test]
fn notifications_wait_for_a_buffer() {
    let (mut client, handle) = Client::mount(Fake::new().notifications(64));
    assert_ne!(handle.accepted_features() & feature::NOTIFICATION, 0);
    let sent = Notification::InvalEntry {
        parent: 1,
        name: b"abc".into(),
        flags: 1,
    };
    handle.notify(&sent);
    let buffer = Shared::new(vec![0; 64], BufferDirection::DeviceToDriver);
    client.rings[1].describe(0, buffer.paddr, 64, 2, 0);
    client.rings[1].publish(0);
    client.transport.notify(1);
    assert_eq!(client.wait(1), (0, 36));
    let bytes = buffer.unshare();
    assert_eq!([0, 4, 24, 28].map(|at| u32_at(&bytes, at)), [36, 3, 3, 1]);
    assert_eq!(&bytes[32..36], &cstr("abc"));
    // Too small a buffer.
    let buffer = Shared::new(vec![0; 63], BufferDirection::DeviceToDriver);
    client.rings[1].describe(0, buffer.paddr, 63, 2, 0);
    client.rings[1].publish(0);
    client.transport.notify(1);
    expect(&handle.take_violations(), &["at least 64"]);
    client.reset();
    buffer.unshare();
}

#[test]
fn threads_serve_several_queues_at_once() {
    let mut fs = MemFs::new();
    fs.file("f", "x").unwrap();
    let (transport, handle) = Fake::new().queues(2).fs(fs).drive(Drive::Threads).build();
    let mut client = Client::probe(transport, &handle);
    client.init(45, client::ALL_FLAGS).unwrap();
    let interrupts = Arc::new(AtomicU64::new(0));
    let seen = interrupts.clone();
    handle.on_interrupt(move |_| {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    for round in 0..200 {
        let flights: Vec<_> = [1, 2]
            .map(|queue| {
                let (_, bytes) = client.message(Op::LOOKUP, ROOT_ID, &cstr("f"));
                client.submit(queue, round % 8, bytes, 144)
            })
            .into();
        for flight in flights {
            let (_, len) = client.wait(flight.queue);
            client.finish(flight, len).body().unwrap();
        }
    }
    assert_eq!(handle.nodes().into_values().collect::<Vec<_>>(), [400]);
    assert!(interrupts.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_vanished_device_reads_as_ones() {
    let (mut client, handle) = Client::mount(Fake::new());
    handle.fault(Rule::on(Op::STATFS, Fault::Vanish));
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    let transport = &client.transport;
    assert_eq!(
        (transport.status().bits(), transport.device_features()),
        (0xFF, u64::MAX)
    );
    assert_eq!(
        (transport.max_queue_size(0), transport.config_generation()),
        (u16::MAX, u32::MAX)
    );
    let mut tag = [0; 4];
    transport.read_config(0, &mut tag).unwrap();
    assert_eq!(tag, [0xFF; 4]);
    assert_eq!(client.rings[1].take(), None);
    // Nobody owns the memory any more.
    client.finish(flight, 0);
    handle.assert_lookups([]);
}
