//! Cached pages: how few requests bring them, what ends them, and what a server
//! that errs or lies does to them.

use std::sync::Arc;
use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::conn::{Config, DataCache};
use virtio_fs::fs::{At, Changes, Durable, File, MountOptions};
use virtio_fs::platform::Signal;
use virtio_fs::wire::{FallocateMode, LockOwner, OpenFlags};
use virtio_fs_attack::{Guest, Rng, tree};
use virtio_fs_fake::{
    Drive, Fake, FakePlatform, Fault, Interrupts, MemFs, Notification, Op, Rule, ServerConfig,
    fopen, init,
};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;

/// Bytes that tell where they belong.
fn pattern(len: usize, salt: u8) -> Vec<u8> {
    let byte = |i: usize| (i / PAGE * 7 + i / 8) as u8 ^ i as u8 ^ salt;
    (0..len).map(byte).collect()
}

fn big(len: usize) -> MemFs {
    let mut fs = tree();
    fs.file("/big", pattern(len, 0)).unwrap();
    fs
}

/// A server that lets everything be kept for long.
fn lasting(server: &mut ServerConfig) {
    server.entry_valid = Duration::from_secs(1000);
    server.attr_valid = Duration::from_secs(1000);
    server.open_flags = fopen::KEEP_CACHE;
}

fn guest(len: usize) -> Guest {
    Guest::on(Fake::new().fs(big(len)).tune(lasting))
}

fn open(guest: &Guest, flags: OpenFlags) -> Arc<File<FakePlatform>> {
    guest.inode("/big").open(flags).unwrap()
}

/// Reads the whole file in steps and checks every byte.
fn read_all(file: &File<FakePlatform>, expected: &[u8], step: usize) {
    let mut buf = vec![0; step];
    let mut at = 0;
    loop {
        let n = file.read_at(at as u64, &mut buf).unwrap();
        assert!(buf[..n] == expected[at..at + n], "wrong bytes from {at} on");
        at += n;
        if n < step {
            assert_eq!(at, expected.len());
            return;
        }
    }
}

fn counter(guest: &Guest, name: &str) -> u64 {
    let mut value = None;
    guest.conn.counters().for_each(|n, v| {
        if n == name {
            value = Some(v);
        }
    });
    value.expect("there is such a counter")
}

#[test]
fn a_sequence_of_small_reads_sends_few_large_requests() {
    let len = 16 * MIB + 1234;
    for step in [1000, PAGE, 64 << 10, 3 * MIB] {
        let guest = guest(len);
        let file = open(&guest, OpenFlags::RDONLY);
        guest.fake.clear_log();
        read_all(&file, &pattern(len, 0), step);
        let reads = guest.fake.count(Op::READ);
        assert!(reads <= 17 + 9, "{reads} READs in steps of {step}");
        assert_eq!(guest.fake.counts().len(), 1, "{:?}", guest.fake.counts());
        // And none the second time.
        read_all(&file, &pattern(len, 0), step);
        assert_eq!(guest.fake.count(Op::READ), reads);
        drop(file);
        guest.finish();
    }
}

#[test]
fn a_cached_read_allocates_nothing_and_copies_once() {
    let guest = guest(MIB);
    let file = open(&guest, OpenFlags::RDONLY);
    let mut buf = vec![0; MIB];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), MIB);
    let (usage, copies) = (guest.fake.usage(), counter(&guest, "page_copies"));
    let (requests, hits) = (
        guest.conn.counters().total_requests(),
        counter(&guest, "page_hits"),
    );
    for at in (0..MIB).step_by(PAGE) {
        assert_eq!(file.read_at(at as u64, &mut buf[..PAGE]).unwrap(), PAGE);
    }
    assert_eq!(guest.fake.usage().allocations, usage.allocations);
    assert_eq!(counter(&guest, "page_copies") - copies, 256);
    assert_eq!(counter(&guest, "page_hits") - hits, 256);
    assert_eq!(guest.conn.counters().total_requests(), requests);
    drop(file);
    guest.finish();
}

#[test]
fn random_reads_ask_for_the_bytes_that_were_asked_for() {
    let len = 64 * MIB;
    let mut fs = tree();
    fs.sparse("/big", len as u64).unwrap();
    let guest = Guest::on(Fake::new().fs(fs).tune(lasting));
    let file = open(&guest, OpenFlags::RDONLY);
    let mut rng = Rng::new(0x5eed_0001);
    let mut buf = vec![0; PAGE];
    let before = guest.conn.counters().bytes_received.get();
    for _ in 0..500 {
        let page = 1 + rng.below(len as u64 / PAGE as u64 - 1);
        assert_eq!(file.read_at(page * PAGE as u64, &mut buf).unwrap(), PAGE);
    }
    let received = guest.conn.counters().bytes_received.get() - before;
    assert!(
        received <= 500 * PAGE as u64,
        "{received} bytes for 500 pages"
    );
    assert_eq!(counter(&guest, "ahead_pages"), 0);
    drop(file);
    guest.finish();
}

#[test]
fn strides_and_backward_reads_are_foreseen() {
    let len = 16 * MIB;
    for step in [-(PAGE as i64), 10 * PAGE as i64, -10 * PAGE as i64] {
        let guest = guest(len);
        let file = open(&guest, OpenFlags::RDONLY);
        let (mut buf, expected) = (vec![0; PAGE], pattern(len, 0));
        let start = if step < 0 { len - PAGE } else { PAGE };
        for n in 0..200 {
            let at = (start as i64 + n * step) as usize;
            assert_eq!(file.read_at(at as u64, &mut buf).unwrap(), PAGE);
            assert!(buf == expected[at..at + PAGE]);
        }
        let used = counter(&guest, "ahead_used");
        assert!(used > 180, "{used} of 200 were foreseen with step {step}");
        drop(file);
        guest.finish();
    }
}

#[test]
fn a_small_file_takes_one_request_of_each_kind() {
    let guest = Guest::on(Fake::new().fs(tree()).tune(lasting));
    assert_eq!(guest.read("/witness").unwrap(), b"still here");
    guest.settle();
    let counts = guest.fake.counts();
    for op in [Op::LOOKUP, Op::OPEN, Op::READ, Op::RELEASE] {
        assert_eq!(counts.get(&op), Some(&1), "{counts:?}");
    }
    assert!(!counts.contains_key(&Op::FLUSH), "{counts:?}");
    guest.finish();
}

#[test]
fn an_open_drops_what_the_server_does_not_let_be_kept() {
    for (flags, reads) in [(0, 2), (fopen::KEEP_CACHE, 1), (fopen::DIRECT_IO, 2)] {
        let guest = Guest::on(Fake::new().fs(big(PAGE)).tune(|server| {
            lasting(server);
            server.open_flags = flags;
        }));
        for _ in 0..2 {
            let file = open(&guest, OpenFlags::RDONLY);
            read_all(&file, &pattern(PAGE, 0), 2 * PAGE);
        }
        assert_eq!(guest.fake.count(Op::READ), reads, "open flags {flags}");
        guest.finish();
    }
}

#[test]
fn a_change_on_the_host_is_seen_when_the_attributes_are_asked_for() {
    let guest = Guest::on(Fake::new().fs(big(3 * PAGE)).tune(|server| {
        lasting(server);
        server.attr_valid = Duration::from_secs(1);
    }));
    let file = open(&guest, OpenFlags::RDONLY);
    read_all(&file, &pattern(3 * PAGE, 0), PAGE);
    guest.platform.advance(Duration::from_secs(5));
    guest
        .fake
        .fs(|fs| fs.write_at("/big", 0, &pattern(3 * PAGE, 9)).unwrap());
    read_all(&file, &pattern(3 * PAGE, 9), PAGE);
    // Shorter, then longer than before.
    for len in [PAGE + 100, 5 * PAGE + 7] {
        guest.platform.advance(Duration::from_secs(5));
        guest.fake.fs(|fs| {
            fs.truncate("/big", 0).unwrap();
            fs.write_at("/big", 0, &pattern(len, 3)).unwrap();
        });
        read_all(&file, &pattern(len, 3), PAGE);
    }
    drop(file);
    guest.finish();
}

#[test]
fn writes_show_in_pages_that_are_cached() {
    let guest = guest(8 * PAGE);
    let (file, mut expected) = (open(&guest, OpenFlags::RDWR), pattern(8 * PAGE, 0));
    read_all(&file, &expected, PAGE);
    let mut rng = Rng::new(0x5eed_0002);
    let reads = guest.fake.count(Op::READ);
    for round in 0..200u64 {
        let at = rng.below(expected.len() as u64) as usize;
        let len = (1 + rng.below(2 * PAGE as u64) as usize).min(expected.len() - at);
        let data = vec![round as u8; len];
        assert_eq!(file.write_at(at as u64, &data).unwrap(), len);
        expected[at..at + len].copy_from_slice(&data);
        read_all(&file, &expected, 3 * PAGE);
    }
    assert_eq!(guest.fake.count(Op::READ), reads, "nothing is read again");
    assert!(guest.fake.fs(|fs| fs.read("/big").unwrap()) == expected);
    drop(file);
    guest.finish();
}

#[test]
fn sizes_and_holes_made_here_show_at_once() {
    let guest = guest(3 * PAGE + 100);
    let (file, mut expected) = (open(&guest, OpenFlags::RDWR), pattern(3 * PAGE + 100, 0));
    let resize = |len: usize| {
        let changes = Changes {
            size: Some(len as u64),
            ..Changes::default()
        };
        file.set_metadata(&changes).unwrap();
    };
    read_all(&file, &expected, PAGE);
    for len in [2 * PAGE + 50, 5 * PAGE, 10, 4 * PAGE] {
        resize(len);
        expected.resize(len, 0);
        read_all(&file, &expected, PAGE);
    }
    // A write behind the end leaves zeros in between.
    expected.resize(6 * PAGE, 0);
    expected.extend([1; 10]);
    file.write_at(6 * PAGE as u64, &[1; 10]).unwrap();
    read_all(&file, &expected, PAGE);
    expected.iter_mut().for_each(|byte| *byte = 9);
    file.write_at(0, &expected).unwrap();
    let hole = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
    file.allocate(100, 2 * PAGE as u64, hole).unwrap();
    expected[100..100 + 2 * PAGE].fill(0);
    read_all(&file, &expected, PAGE);
    file.allocate(0, 8 * PAGE as u64, FallocateMode::empty())
        .unwrap();
    expected.resize(8 * PAGE, 0);
    read_all(&file, &expected, PAGE);
    let other = guest.inode("/dir/file").open(OpenFlags::RDONLY).unwrap();
    assert_eq!(other.copy_to(0, &file, 50, 5000).unwrap(), 5000);
    expected[50..5050].fill(7);
    read_all(&file, &expected, PAGE);
    drop(open(&guest, OpenFlags::WRONLY | OpenFlags::TRUNC));
    read_all(&file, &[], PAGE);
    drop((file, other));
    guest.finish();
}

#[test]
fn the_memory_stays_within_its_bound() {
    let len = 4 * MIB;
    let options = MountOptions {
        page_cache: MIB,
        ..MountOptions::default()
    };
    let guest = Guest::with(
        Fake::new().fs(big(len)).tune(lasting),
        Config::default(),
        options,
    );
    let (file, expected) = (open(&guest, OpenFlags::RDONLY), pattern(len, 0));
    let check = || {
        let (used, bound) = guest.mount.file_system().page_cache();
        assert!(used <= bound && bound == MIB as u64, "{used} of {bound}");
    };
    for step in [PAGE, 100_000, len] {
        read_all(&file, &expected, step);
        check();
    }
    // A stream takes no memory that it has not had.
    let allocations = guest.fake.usage().allocations;
    read_all(&file, &expected, 64 << 10);
    let more = guest.fake.usage().allocations - allocations;
    assert!(more < 64, "{more} allocations");
    let mut rng = Rng::new(0x5eed_0003);
    let mut buf = vec![0; 3 * PAGE];
    for _ in 0..2000 {
        let at = rng.below((len - buf.len()) as u64) as usize;
        assert_eq!(file.read_at(at as u64, &mut buf).unwrap(), buf.len());
        assert!(buf == expected[at..at + buf.len()]);
        check();
    }
    let used = guest.mount.file_system().page_cache().0;
    assert_eq!(
        guest.mount.reclaim(256 << 10) >= 256 << 10,
        used >= 256 << 10
    );
    guest.mount.reclaim(usize::MAX);
    assert_eq!(guest.mount.file_system().page_cache().0, 0);
    read_all(&file, &expected, len);
    drop(file);
    guest.finish();
}

#[test]
fn what_is_used_again_survives_a_stream() {
    let options = MountOptions {
        page_cache: MIB,
        ..MountOptions::default()
    };
    let guest = Guest::with(
        Fake::new().fs(big(8 * MIB)).tune(lasting),
        Config::default(),
        options,
    );
    let hot = guest.inode("/dir/file").open(OpenFlags::RDONLY).unwrap();
    let (cold, expected) = (open(&guest, OpenFlags::RDONLY), pattern(8 * MIB, 0));
    let mut buf = vec![0; 3 * PAGE];
    let mut step = vec![0; 64 << 10];
    hot.read_at(0, &mut buf).unwrap();
    guest.fake.clear_log();
    let mut again = 0;
    for at in (0..8 * MIB).step_by(step.len()) {
        cold.read_at(at as u64, &mut step).unwrap();
        assert!(step == expected[at..at + step.len()]);
        let node = guest.inode("/dir/file").node().get();
        hot.read_at(0, &mut buf).unwrap();
        again = guest
            .fake
            .log()
            .iter()
            .filter(|r| r.op == Op::READ && r.nodeid == node)
            .count();
    }
    assert_eq!(again, 0, "the file in use was read again");
    drop((hot, cold));
    guest.finish();
}

#[test]
fn errors_reach_the_reader_and_leave_nothing() {
    let guest = guest(64 * PAGE);
    let (file, expected) = (open(&guest, OpenFlags::RDONLY), pattern(64 * PAGE, 0));
    let mut buf = vec![0; PAGE];
    guest.fake.fault(Rule::on(Op::READ, Fault::Error(-5)));
    assert_eq!(file.read_at(0, &mut buf).unwrap_err().errno(), Errno::EIO);
    read_all(&file, &expected, PAGE);
    for fault in [
        Fault::Long(100),
        Fault::HeaderLen(1 << 30),
        Fault::Unique(12345),
        Fault::Unwritten,
    ] {
        guest.mount.file_system().revalidate_all();
        guest.fake.fault(Rule::on(Op::READ, fault));
        assert_eq!(file.read_at(0, &mut buf).unwrap_err().errno(), Errno::EIO);
        read_all(&file, &expected, PAGE);
    }
    // One that nobody waits for is met by nobody, if it goes well the second time.
    guest.mount.file_system().revalidate_all();
    guest
        .fake
        .fault(Rule::on(Op::READ, Fault::Error(-5)).nth(3));
    read_all(&file, &expected, PAGE);
    drop(file);
    guest.finish();
}

#[test]
fn short_replies_end_the_file_and_are_not_remembered() {
    let guest = guest(8 * PAGE);
    let (file, expected) = (open(&guest, OpenFlags::RDONLY), pattern(8 * PAGE, 0));
    let mut buf = vec![0xff; 8 * PAGE];
    // 16 bytes of header, and a page and a half.
    guest
        .fake
        .fault(Rule::on(Op::READ, Fault::Short(16 + 6000)).times(2));
    let n = file.read_at(0, &mut buf).unwrap();
    assert!(n == 6000 || n == 8 * PAGE, "{n}");
    assert!(buf[..n] == expected[..n]);
    guest.fake.clear_faults();
    read_all(&file, &expected, 8 * PAGE);
    drop(file);
    guest.finish();
}

#[test]
fn pages_that_were_dropped_on_their_way_are_not_believed() {
    let guest = Guest::on(
        Fake::new()
            .fs(big(16 * PAGE))
            .notifications(4096)
            .tune(lasting),
    );
    let file = open(&guest, OpenFlags::RDONLY);
    let node = guest.inode("/big").node().get();
    let mut buf = vec![0; PAGE];
    // Read ahead, and not back yet.
    guest.fake.fault(Rule::on(Op::READ, Fault::Hold).nth(2));
    file.read_at(0, &mut buf).unwrap();
    file.read_at(PAGE as u64, &mut buf).unwrap();
    file.read_at(2 * PAGE as u64, &mut buf).unwrap();
    guest
        .fake
        .fs(|fs| fs.write_at("/big", 0, &pattern(16 * PAGE, 5)).unwrap());
    guest.fake.notify(&Notification::InvalInode {
        nodeid: node,
        off: 0,
        len: 0,
    });
    guest.fake.step();
    guest.conn.work();
    guest.fake.release_held();
    read_all(&file, &pattern(16 * PAGE, 5), PAGE);
    drop(file);
    guest.finish();
}

#[test]
fn notifications_reach_the_pages() {
    let guest = Guest::on(
        Fake::new()
            .fs(big(4 * PAGE))
            .notifications(3 * PAGE as u32)
            .tune(lasting),
    );
    let arrive = || {
        guest.fake.step();
        guest.conn.work();
    };
    let file = open(&guest, OpenFlags::RDONLY);
    let nodeid = guest.inode("/big").node().get();
    let mut expected = pattern(4 * PAGE, 0);
    read_all(&file, &expected, PAGE);
    // What the server stores is read without a request.
    let data = vec![0x77; 5000];
    expected[1000..6000].copy_from_slice(&data);
    guest
        .fake
        .fs(|fs| fs.write_at("/big", 1000, &data).unwrap());
    let reads = guest.fake.count(Op::READ);
    guest.fake.notify(&Notification::Store {
        nodeid,
        offset: 1000,
        data,
    });
    arrive();
    let mut buf = vec![0; 4 * PAGE];
    guest.fake.notify(&Notification::Retrieve {
        notify_unique: 77,
        nodeid,
        offset: 900,
        size: 300,
    });
    arrive();
    let retrieved = guest.fake.retrieved();
    assert_eq!(retrieved.last().unwrap().1, expected[900..1200]);
    assert_eq!(guest.fake.count(Op::READ), reads);
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 4 * PAGE);
    assert!(buf == expected);
    // An invalidated range is read again, the rest is not.
    for offset in [u64::MAX, 1 << 62] {
        guest.fake.notify(&Notification::Store {
            nodeid,
            offset,
            data: vec![1; 10],
        });
        arrive();
    }
    read_all(&file, &expected, PAGE);
    drop(file);
    guest.finish();
}

#[test]
fn explicit_invalidation_keeps_pages_until_told() {
    let guest = Guest::on(
        Fake::new()
            .fs(big(4 * PAGE))
            .notifications(4096)
            .tune(|server| {
                lasting(server);
                server.attr_valid = Duration::from_secs(1);
                server.flags &= !init::AUTO_INVAL_DATA;
                server.flags |= init::EXPLICIT_INVAL_DATA;
            }),
    );
    let file = open(&guest, OpenFlags::RDONLY);
    let nodeid = guest.inode("/big").node().get();
    read_all(&file, &pattern(4 * PAGE, 0), PAGE);
    guest
        .fake
        .fs(|fs| fs.write_at("/big", 0, &pattern(4 * PAGE, 1)).unwrap());
    guest.platform.advance(Duration::from_secs(5));
    read_all(&file, &pattern(4 * PAGE, 0), PAGE);
    guest.fake.notify(&Notification::InvalInode {
        nodeid,
        off: 0,
        len: 0,
    });
    guest.fake.step();
    guest.conn.work();
    read_all(&file, &pattern(4 * PAGE, 1), PAGE);
    drop(file);
    guest.finish();
}

#[test]
fn a_killed_reader_leaves_its_pages_to_the_device() {
    let fake = Fake::new()
        .fs(big(4 * PAGE))
        .tune(lasting)
        .tune(|server| server.interrupts = Interrupts::Ignored);
    let guest = Guest::on(fake);
    let file = open(&guest, OpenFlags::RDONLY);
    guest.fake.fault(Rule::on(Op::READ, Fault::Hold));
    let platform = guest.platform.clone();
    guest
        .platform
        .on_park(move |_| platform.set_signal(Signal::Kill));
    let mut buf = [0x55; PAGE];
    assert_eq!(file.read_at(0, &mut buf).unwrap_err().errno(), Errno::EINTR);
    guest.platform.on_park(|_| ());
    guest.platform.set_signal(Signal::None);
    assert_eq!(buf, [0x55; PAGE]);
    assert_eq!(guest.conn.load().0, 1, "the slot is the device's");
    // The next one waits for the same request.
    let release = guest.fake.control();
    guest.platform.on_park(move |_| {
        release.release_held();
    });
    read_all(&file, &pattern(4 * PAGE, 0), PAGE);
    guest.platform.on_park(|_| ());
    drop(file);
    guest.finish();
}

#[test]
fn a_read_that_never_comes_back_ends_by_its_deadline() {
    let guest = guest(4 * PAGE);
    let file = open(&guest, OpenFlags::RDONLY);
    guest.fake.fault(Rule::on(Op::READ, Fault::Hold));
    let before = guest.fake.now();
    let mut buf = [0; PAGE];
    let error = file.read_at(0, &mut buf).unwrap_err();
    assert_eq!(error.errno(), Errno::ETIMEDOUT);
    let took = guest.fake.now() - before;
    assert!(
        (Duration::from_secs(59)..Duration::from_secs(70)).contains(&took),
        "{took:?}"
    );
    guest.fake.release_held();
    read_all(&file, &pattern(4 * PAGE, 0), PAGE);
    drop(file);
    guest.finish();
}

#[test]
fn an_abort_ends_what_is_on_its_way() {
    let guest = guest(MIB);
    let file = open(&guest, OpenFlags::RDONLY);
    guest.fake.fault(Rule::on(Op::READ, Fault::Hold).always());
    let conn = guest.conn.clone();
    guest.platform.on_park(move |n| {
        if n > 3 {
            conn.abort();
        }
    });
    let mut buf = vec![0; MIB];
    assert!(file.read_at(0, &mut buf).is_err());
    guest.platform.on_park(|_| ());
    drop(file);
    drop(guest);
}

#[test]
fn replies_in_any_order_make_the_same_file() {
    let len = 3 * MIB + 77;
    for seed in 1..5 {
        let fake = Fake::new()
            .fs(big(len))
            .tune(lasting)
            .reorder(seed)
            .queues(3);
        let guest = Guest::on(fake);
        let file = open(&guest, OpenFlags::RDONLY);
        read_all(&file, &pattern(len, 0), 10_000);
        drop(file);
        guest.finish();
    }
}

#[test]
fn threads_read_one_file_through_a_small_cache() {
    let len = 2 * MIB;
    let options = MountOptions {
        page_cache: 512 << 10,
        ..MountOptions::default()
    };
    let fake = Fake::new().fs(big(len)).tune(lasting).queues(2);
    let fake = fake.drive(Drive::Threads).can_sleep();
    let guest = Guest::with(fake, Config::default(), options);
    let (file, expected) = (open(&guest, OpenFlags::RDONLY), pattern(len, 0));
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (file, expected) = (&file, &expected);
            scope.spawn(move || {
                let mut rng = Rng::new(0x5eed_0010 + thread);
                let mut buf = vec![0; 100_000];
                for _ in 0..200 {
                    let at = rng.below(len as u64 - 100_000) as usize;
                    let n = 1 + rng.below(100_000) as usize;
                    assert_eq!(file.read_at(at as u64, &mut buf[..n]).unwrap(), n);
                    assert!(buf[..n] == expected[at..at + n], "thread {thread} at {at}");
                }
            });
        }
    });
    drop(file);
    drop(guest.process);
    guest.mount.unmount();
}

#[test]
fn a_file_of_a_tebibyte_is_read_where_one_looks() {
    let mut fs = tree();
    fs.sparse("/big", 1 << 40).unwrap();
    fs.write_at("/big", (1 << 40) - 10, b"0123456789").unwrap();
    let guest = Guest::on(Fake::new().fs(fs).tune(lasting));
    let file = open(&guest, OpenFlags::RDONLY);
    let mut buf = [0xff; 20];
    assert_eq!(file.read_at((1 << 40) - 15, &mut buf).unwrap(), 15);
    assert_eq!(&buf[..15], b"\0\0\0\0\x000123456789");
    let fd = guest
        .process
        .open(At::Cwd, b"/big", OpenFlags::RDONLY, 0)
        .unwrap();
    assert_eq!(guest.process.pread(fd, &mut buf, 1 << 40).unwrap(), 0);
    guest.process.close(fd).unwrap();
    drop(file);
    guest.finish();
}

/// A mount that keeps written data back.
fn lazy_with(fs: MemFs, tune: impl FnOnce(&mut ServerConfig), page_cache: usize) -> Guest {
    let config = Config {
        data_cache: DataCache::WriteBack,
        ..Config::default()
    };
    let options = MountOptions {
        page_cache,
        ..MountOptions::default()
    };
    let fake = Fake::new().fs(fs).notifications(4096).tune(|server| {
        lasting(server);
        server.flags |= init::WRITEBACK_CACHE;
        tune(server);
    });
    Guest::with(fake, config, options)
}

fn lazy(fs: MemFs) -> Guest {
    lazy_with(fs, |_| (), 64 << 20)
}

const NEW: OpenFlags = OpenFlags::RDWR;

#[test]
fn small_writes_to_a_new_file_go_out_together() {
    let guest = lazy(tree());
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    let expected = pattern(3 * MIB + 123, 1);
    guest.fake.clear_log();
    for (i, chunk) in expected.chunks(1000).enumerate() {
        assert_eq!(file.write_at(i as u64 * 1000, chunk).unwrap(), chunk.len());
    }
    read_all(&file, &expected, 10_000);
    file.flush(LockOwner(1)).unwrap();
    let counts = guest.fake.counts();
    assert!(counts[&Op::WRITE] <= 6, "{counts:?}");
    assert_eq!(counts.get(&Op::READ), None, "{counts:?}");
    assert_eq!(counts.get(&Op::SETATTR), None, "{counts:?}");
    assert!(guest.fake.fs(|fs| fs.read("/new").unwrap()) == expected);
    drop(file);
    guest.finish();
}

#[test]
fn a_server_that_does_not_take_part_gets_every_write() {
    let guest = lazy_with(tree(), |server| server.flags &= !init::WRITEBACK_CACHE, MIB);
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    for i in 0..3 {
        file.write_at(i * 10, &[7; 10]).unwrap();
    }
    assert_eq!(guest.fake.count(Op::WRITE), 3);
    drop(file);
    guest.finish();
}

#[test]
fn what_fsync_acknowledged_is_with_the_server() {
    let guest = lazy(big(8 * PAGE));
    let file = open(&guest, OpenFlags::RDWR);
    let mut expected = pattern(8 * PAGE, 0);
    // The first write takes privileges off and goes through.
    file.write_at(0, &[1]).unwrap();
    expected[0] = 1;
    let mut rng = Rng::new(0x5eed_0020);
    for round in 0..30u8 {
        let at = rng.below(10 * PAGE as u64) as usize;
        let data = vec![round; 1 + rng.below(9000) as usize];
        file.write_at(at as u64, &data).unwrap();
        let end = at + data.len();
        expected.resize(expected.len().max(end), 0);
        expected[at..end].copy_from_slice(&data);
        file.sync(Durable::Data).unwrap();
        assert!(
            guest.fake.fs(|fs| fs.read("/big").unwrap()) == expected,
            "{round}"
        );
    }
    drop(file);
    guest.finish();
}

#[test]
fn pages_go_out_when_they_are_old_and_when_the_mount_ends() {
    let guest = lazy(tree());
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    file.write_at(0, b"hello").unwrap();
    let there = |guest: &Guest| guest.fake.fs(|fs| fs.read("/new").unwrap());
    guest.mount.file_system().work();
    assert_eq!(there(&guest), b"");
    guest.platform.advance(Duration::from_secs(6));
    guest.mount.file_system().work();
    assert_eq!(there(&guest), b"hello");
    file.write_at(5, b" world").unwrap();
    drop(file);
    let Guest {
        process,
        mount,
        conn,
        fake,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    assert_eq!(fake.fs(|fs| fs.read("/new").unwrap()), b"hello world");
    assert_eq!(conn.load(), (0, 0));
}

#[test]
fn an_error_of_a_late_write_is_told_once_to_each_open_file() {
    let guest = lazy(tree());
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    let other = guest.inode("/new").open(OpenFlags::RDWR).unwrap();
    file.write_at(0, &[1; 5000]).unwrap();
    guest.fake.fault(Rule::on(Op::WRITE, Fault::Error(-28)));
    assert_eq!(file.sync(Durable::Data).unwrap_err().errno(), Errno::ENOSPC);
    assert!(file.sync(Durable::Data).is_ok());
    assert_eq!(
        other.sync(Durable::Data).unwrap_err().errno(),
        Errno::ENOSPC
    );
    assert!(other.sync(Durable::Data).is_ok());
    // What the server has is what shows, and the file goes on. The reply was
    // spoilt, not the write.
    let size = guest.fake.fs(|fs| fs.stat("/new").unwrap().size);
    assert_eq!(guest.stat("/new").unwrap().size(), size);
    file.write_at(0, &[2; 100]).unwrap();
    file.sync(Durable::All).unwrap();
    assert_eq!(
        guest.fake.fs(|fs| fs.read("/new").unwrap())[..100],
        [2; 100]
    );
    drop((file, other));
    guest.finish();
}

#[test]
fn a_server_that_writes_little_at_a_time_gets_all_of_it_or_an_error() {
    let guest = lazy(tree());
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    file.write_at(0, &pattern(5 * PAGE, 2)).unwrap();
    // WRITE's reply says that one page was written, or one byte.
    let count = |n: u32| Fault::Body([n.to_le_bytes(), [0; 4]].concat());
    guest.fake.fault(Rule::on(Op::WRITE, count(PAGE as u32)));
    file.sync(Durable::Data).unwrap();
    assert!(guest.fake.count(Op::WRITE) >= 2);
    assert!(guest.fake.fs(|fs| fs.read("/new").unwrap()) == pattern(5 * PAGE, 2));
    file.write_at(0, &pattern(5 * PAGE, 3)).unwrap();
    guest.fake.fault(Rule::on(Op::WRITE, count(1)).always());
    assert_eq!(file.sync(Durable::Data).unwrap_err().errno(), Errno::EIO);
    guest.fake.clear_faults();
    // What it did not refuse is still to be written.
    file.sync(Durable::Data).unwrap();
    drop(file);
    guest.finish();
}

#[test]
fn an_fsync_goes_on_with_a_server_that_writes_a_page_at_a_time() {
    let guest = lazy(tree());
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    file.write_at(0, &pattern(5 * PAGE, 2)).unwrap();
    let page = Fault::Body([(PAGE as u32).to_le_bytes(), [0; 4]].concat());
    // What it says to have written it did: all of it, and again what is left.
    guest.fake.fault(Rule::on(Op::WRITE, page).always());
    file.sync(Durable::Data).unwrap();
    assert!(guest.fake.count(Op::WRITE) >= 5);
    assert!(guest.fake.fs(|fs| fs.read("/new").unwrap()) == pattern(5 * PAGE, 2));
    guest.fake.clear_faults();
    drop(file);
    guest.finish();
}

#[test]
fn the_size_is_ours_while_data_are_kept_back_however_short_attributes_are_valid() {
    let short = |server: &mut ServerConfig| {
        server.attr_valid = Duration::ZERO;
        server.entry_valid = Duration::ZERO;
    };
    let guest = lazy_with(tree(), short, 1 << 20);
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    file.write_at(0, &[1; 5000]).unwrap();
    let end = guest
        .inode("/new")
        .open(OpenFlags::WRONLY | OpenFlags::APPEND)
        .unwrap();
    end.write_at(0, &[2; 10]).unwrap();
    let mut back = [0; 6000];
    assert_eq!(file.read_at(0, &mut back).unwrap(), 5010);
    file.sync(Durable::Data).unwrap();
    let held = guest.fake.fs(|fs| fs.read("/new").unwrap());
    assert!(held[..5000] == [1; 5000] && held[5000..] == [2; 10]);
    drop((file, end));
    guest.finish();
}

#[test]
fn an_abort_loses_dirty_pages_and_nothing_else() {
    let guest = lazy(tree());
    let file = guest.mount.root().create(b"new", NEW, 0o644).unwrap();
    file.write_at(0, &[1; 5000]).unwrap();
    guest.conn.abort();
    assert!(file.sync(Durable::Data).is_err());
    assert!(file.flush(LockOwner(1)).is_err());
    drop(file);
    let Guest {
        process,
        mount,
        conn,
        fake,
        transport,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    drop((conn, transport));
    virtio_fs_attack::assert_gone(&fake);
}

/// Everything that changes a file, at random, against bytes in memory: by open
/// files with and without O_DIRECT, O_DSYNC, O_APPEND, with reads, truncation,
/// holes, copies, fsync, stat, reclaim.
fn fsx(data_cache: DataCache, page_cache: usize, seed: u64, calls: usize) {
    let config = Config {
        data_cache,
        ..Config::default()
    };
    let options = MountOptions {
        page_cache,
        ..MountOptions::default()
    };
    let fake = Fake::new().fs(tree()).tune(|server| {
        lasting(server);
        server.flags |= init::WRITEBACK_CACHE;
    });
    let guest = Guest::with(fake, config, options);
    let mut rng = Rng::new(seed);
    println!("seed {seed}, {data_cache:?}, {page_cache} bytes");
    let file = guest.mount.root().create(b"f", NEW, 0o644).unwrap();
    let inode = guest.inode("/f");
    let direct = inode.open(NEW | OpenFlags::DIRECT).unwrap();
    let append = inode.open(NEW | OpenFlags::APPEND).unwrap();
    let synced = inode.open(NEW | OpenFlags::DSYNC).unwrap();
    let mut model: Vec<u8> = Vec::new();
    const MAX: u64 = 300_000;
    for call in 0..calls {
        let at = rng.below(MAX);
        let most = if rng.below(4) == 0 { 60_000 } else { 5000 };
        let len = (1 + rng.below(most)).min(MAX - at);
        let (start, end) = (at as usize, (at + len) as usize);
        let through = [&file, &file, &file, &direct, &synced][rng.below(5) as usize];
        let what = rng.below(14);
        match what {
            0..=3 => {
                let data: Vec<u8> = (0..len).map(|i| (i + call as u64) as u8).collect();
                assert_eq!(through.write_at(at, &data).unwrap(), data.len());
                model.resize(model.len().max(end), 0);
                model[start..end].copy_from_slice(&data);
            }
            4..=7 => {
                let mut buf = vec![0xee; len as usize];
                let n = through.read_at(at, &mut buf).unwrap();
                let expected = &model[start.min(model.len())..end.min(model.len())];
                assert_eq!(n, expected.len(), "call {call}");
                assert!(buf[..n] == *expected, "call {call}: read of {len} at {at}");
            }
            8 => {
                let size = rng.below(MAX);
                let changes = Changes {
                    size: Some(size),
                    ..Changes::default()
                };
                through.set_metadata(&changes).unwrap();
                model.resize(size as usize, 0);
            }
            9 => {
                let hole = FallocateMode::PUNCH_HOLE | FallocateMode::KEEP_SIZE;
                through.allocate(at, len, hole).unwrap();
                let (start, end) = (start.min(model.len()), end.min(model.len()));
                model[start..end].fill(0);
            }
            10 if model.len() < MAX as usize => {
                let data = vec![call as u8; 1 + rng.below(3000) as usize];
                assert_eq!(append.write_at(0, &data).unwrap(), data.len());
                model.extend(data);
            }
            11 => {
                let to = rng.below(MAX);
                let apart = at + len <= to || to + len <= at;
                if apart && end <= model.len() {
                    assert_eq!(file.copy_to(at, &file, to, len).unwrap(), len);
                    let copied = model[start..end].to_vec();
                    let stop = to as usize + copied.len();
                    model.resize(model.len().max(stop), 0);
                    model[to as usize..stop].copy_from_slice(&copied);
                }
            }
            12 => {
                assert_eq!(file.metadata().unwrap().size(), model.len() as u64);
                file.sync(Durable::All).unwrap();
                let there = guest.fake.fs(|fs| fs.read("/f").unwrap());
                assert!(there == model, "call {call}");
            }
            _ => {
                guest.mount.reclaim(rng.below(1 << 20) as usize);
                guest.platform.advance(Duration::from_millis(700));
                guest.mount.file_system().work();
            }
        }
        let (used, bound) = guest.mount.file_system().page_cache();
        assert!(used <= bound, "call {call}: {used} of {bound}");
    }
    read_all(&file, &model, 7777);
    file.flush(LockOwner(1)).unwrap();
    assert!(guest.fake.fs(|fs| fs.read("/f").unwrap()) == model);
    drop((file, direct, append, synced, inode));
    guest.finish();
}

#[test]
fn any_sequence_of_calls_leaves_the_bytes_that_it_should() {
    let seed = Rng::from_env(0x5eed_0030).number();
    for round in 0..3 {
        for cache in [
            DataCache::None,
            DataCache::WriteThrough,
            DataCache::WriteBack,
        ] {
            fsx(cache, 4 << 20, seed ^ round, 400);
            // So little that much must go by request.
            fsx(cache, 64 << 10, seed ^ round << 32, 300);
        }
    }
}
