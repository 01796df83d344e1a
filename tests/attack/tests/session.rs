//! Opening and ending: configuration space, features, status, queues, INIT of
//! every shape, and devices that die.

use std::sync::Arc;
use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::conn::{Attach, Config, OpenError, State};
use virtio_fs::fs::{Mount, MountOptions};
use virtio_fs::wire::OpenFlags;
use virtio_fs_attack::{Conn, Guest, Lines, WITNESS, assert_gone, tree};
use virtio_fs_fake::{
    DestroyReply, Drive, Fake, FakeTransport, Fault, Handle, Op, Placement, Rule, Sharing, feature,
    init,
};

/// Opens a device that must be refused, and checks that nothing is left of the
/// attempt.
fn refused(fake: Fake) -> OpenError {
    match Guest::try_with(fake, Config::default(), MountOptions::default()) {
        Ok(_) => panic!("the device was accepted"),
        Err((error, fake)) => {
            assert_gone(&fake);
            error
        }
    }
}

fn works(fake: Fake) -> Guest {
    let guest = Guest::on(fake.fs(tree()));
    guest.assert_works();
    assert_eq!(guest.names("/dir").unwrap().len(), 6);
    guest
}

fn config_space(tag: &[u8], queues: u32) -> Vec<u8> {
    let mut config = vec![0; 40];
    config[..tag.len()].copy_from_slice(tag);
    config[36..].copy_from_slice(&queues.to_le_bytes());
    config
}

// Configuration space.

#[test]
fn a_configuration_space_that_is_too_short_is_refused() {
    for len in [0, 1, 35, 36, 39] {
        let error = refused(Fake::new().config(vec![b'x'; len]));
        assert!(matches!(error, OpenError::Config(_)), "{len}: {error:?}");
    }
}

#[test]
fn an_empty_tag_is_refused() {
    let error = refused(Fake::new().tag(""));
    assert!(matches!(error, OpenError::Config(_)), "{error:?}");
}

#[test]
fn a_tag_with_a_newline_is_refused() {
    let error = refused(Fake::new().tag("my\nfs"));
    assert!(matches!(error, OpenError::Config(_)), "{error:?}");
}

#[test]
fn a_tag_of_36_bytes_without_nul_is_taken_whole() {
    let guest = works(Fake::new().tag([b't'; 36]));
    assert_eq!(guest.conn.device().tag.as_bytes(), [b't'; 36]);
    guest.finish();
}

#[test]
fn a_tag_that_is_no_utf8_is_taken() {
    let guest = works(Fake::new().tag([0xff, 0xfe]));
    assert_eq!(guest.conn.device().tag.as_bytes(), [0xff, 0xfe]);
    guest.finish();
}

#[test]
fn a_device_without_request_queues_is_refused() {
    let error = refused(Fake::new().config(config_space(b"x", 0)));
    assert!(matches!(error, OpenError::Config(_)), "{error:?}");
}

#[test]
fn more_request_queues_claimed_than_there_are_are_refused() {
    for n in [2, 65_534, 65_535, 65_536, u32::MAX] {
        let error = refused(Fake::new().claim_queues(n));
        assert!(
            matches!(error, OpenError::Queue(_) | OpenError::OutOfMemory),
            "{n}: {error:?}"
        );
    }
}

#[test]
fn a_configuration_that_never_rests_is_refused() {
    let error = refused(Fake::new().restless_config());
    assert!(matches!(error, OpenError::Config(_)), "{error:?}");
}

#[test]
fn a_configuration_that_changes_during_the_session_harms_nothing() {
    let guest = works(Fake::new());
    guest.fake.change_config(0, &[0xff; 40]);
    guest.assert_works();
    guest.fake.fault(Rule::on(
        Op::GETATTR,
        Fault::Config {
            offset: 36,
            bytes: vec![0; 4],
        },
    ));
    guest.inode("/dir").revalidate().unwrap();
    guest.assert_works();
    guest.finish();
}

// Features, status, queues.

#[test]
fn a_device_without_version_1_is_refused() {
    for features in [0, feature::INDIRECT_DESC | feature::EVENT_IDX] {
        assert_eq!(refused(Fake::new().features(features)), OpenError::Legacy);
    }
}

#[test]
fn features_that_are_not_known_are_not_accepted() {
    let guest = works(Fake::new().features(!feature::NOTIFICATION));
    let accepted = guest.fake.accepted_features();
    assert_eq!(accepted & (feature::RING_PACKED | feature::RING_RESET), 0);
    guest.finish();
}

#[test]
fn a_device_that_refuses_its_own_features_is_refused() {
    let error = refused(Fake::new().refuse_features());
    assert!(matches!(error, OpenError::FeaturesRefused(_)), "{error:?}");
}

#[test]
fn a_queue_that_is_too_small_is_refused() {
    for size in [0, 1, 2, 3] {
        let error = refused(Fake::new().queue_size(size));
        assert!(matches!(error, OpenError::Queue(_)), "{size}: {error:?}");
    }
}

#[test]
fn a_reset_that_never_ends_is_given_up_and_leaves_the_memory_to_the_device() {
    let guest = works(Fake::new().slow_reset(u32::MAX));
    let Guest {
        mount,
        process,
        conn,
        fake,
        transport,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    assert_eq!(conn.load(), (0, 0));
    drop(conn);
    // The device may still write to all that it was given.
    let usage = fake.usage();
    assert!(usage.dma_pages > 0);
    assert_eq!(usage.shares, 0);
    fake.assert_clean();
    let config = Config {
        attach: Attach::TakeOver,
        ..Config::default()
    };
    let again = Conn::open(Arc::new(fake.platform()), transport, config);
    assert_eq!(again.err(), Some(OpenError::ResetStuck));
    assert_eq!(fake.usage().dma_pages, usage.dma_pages);
}

#[test]
fn a_slow_reset_is_waited_for() {
    remount(works(Fake::new().slow_reset(50)));
}

#[test]
fn a_device_that_is_not_there_is_refused() {
    let (transport, fake) = Fake::new().build();
    fake.vanish();
    let opened = Conn::open(
        Arc::new(fake.platform()),
        Arc::new(transport),
        Config::default(),
    );
    assert!(opened.is_err());
    assert_gone(&fake);
}

#[test]
fn every_shape_of_queues_and_rings_carries_the_same_work() {
    let bits = [
        feature::VERSION_1,
        feature::VERSION_1 | feature::INDIRECT_DESC,
        feature::VERSION_1 | feature::EVENT_IDX,
        feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC,
    ];
    for size in [4, 8, 128, 1024] {
        for queues in [1, 2, 4, 16] {
            for features in bits {
                let fake = Fake::new()
                    .queue_size(size)
                    .queues(queues)
                    .features(features);
                let guest = works(fake);
                for cpu in 0..18 {
                    guest.platform.set_cpu(cpu);
                    guest.stat("/dir/sub/leaf").unwrap();
                    guest.inode("/dir/file").revalidate().unwrap();
                }
                let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
                let data: Vec<u8> = (0..70_000u32).map(|i| (i * 7) as u8).collect();
                let mut done = 0;
                while done < data.len() {
                    done += file.write_at(done as u64, &data[done..]).unwrap();
                }
                let mut back = vec![0; data.len()];
                assert_eq!(file.read_at(0, &mut back).unwrap(), data.len());
                assert!(back == data, "size {size}, {queues} queues, {features:#x}");
                drop(file);
                guest.finish();
            }
        }
    }
}

#[test]
fn scattered_and_bounced_memory_carry_the_same_data() {
    for placement in [Placement::Contiguous, Placement::Scattered] {
        for sharing in [Sharing::Direct, Sharing::Bounced] {
            for size in [4, 128] {
                let fake = Fake::new()
                    .placement(placement)
                    .sharing(sharing)
                    .queue_size(size);
                let guest = works(fake);
                let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
                let data: Vec<u8> = (0..300_001u32).map(|i| (i >> 3) as u8).collect();
                let mut done = 0;
                while done < data.len() - 1 {
                    done += file.write_at(done as u64, &data[done + 1..]).unwrap();
                }
                assert!(guest.fake.fs(|fs| fs.read("/dir/file")).unwrap() == data[1..]);
                let (mut a, mut b) = (vec![0; 5], vec![0; 299_995]);
                assert_eq!(
                    file.read_vectored_at(0, &mut [&mut a, &mut b]).unwrap(),
                    300_000
                );
                assert!([a, b].concat() == data[1..]);
                drop(file);
                guest.finish();
            }
        }
    }
}

#[test]
fn memory_that_runs_out_at_any_step_of_opening_leaves_nothing_behind() {
    let mut failures = 0;
    for n in 1.. {
        let (transport, fake) = Fake::new().fs(tree()).queue_size(16).queues(2).build();
        fake.memory().fail_allocation(n);
        let config = Config {
            max_active: 3,
            ..Config::default()
        };
        let opened = Conn::open(Arc::new(fake.platform()), Arc::new(transport), config);
        let Err(error) = opened else {
            drop(opened);
            assert_gone(&fake);
            break;
        };
        assert_eq!(error, OpenError::OutOfMemory);
        assert_gone(&fake);
        failures += 1;
    }
    assert!(failures >= 10, "only {failures} allocations were made");
}

#[test]
fn a_device_that_somebody_drives_is_refused_unless_taken_over() {
    let (transport, fake) = Fake::new().fs(tree()).build();
    let (platform, transport) = (Arc::new(fake.platform()), Arc::new(transport));
    let first = Conn::open(platform.clone(), transport.clone(), Config::default()).unwrap();
    let second = Conn::open(platform.clone(), transport.clone(), Config::default());
    assert_eq!(second.err(), Some(OpenError::Busy));
    assert_eq!(first.state(), State::Ready);
    // For a kernel started by another one, which is gone.
    first.abort();
    drop(first);
    let config = Config {
        attach: Attach::TakeOver,
        ..Config::default()
    };
    let third = Conn::open(platform, transport, config).unwrap();
    third.close();
    drop(third);
    assert_gone(&fake);
}

#[test]
fn a_device_can_be_mounted_again_and_again() {
    let (transport, fake) = Fake::new().fs(tree()).build();
    let transport = Arc::new(transport);
    for _ in 0..5 {
        let platform = Arc::new(fake.platform());
        let conn = Conn::open(platform, transport.clone(), Config::default()).unwrap();
        let mount = Mount::new(conn.clone(), MountOptions::default()).unwrap();
        let dir = mount.root().lookup(b"dir").unwrap();
        assert_eq!(
            dir.lookup(b"file").unwrap().metadata().unwrap().size(),
            10_000
        );
        drop(dir);
        mount.unmount();
        assert_eq!(conn.state(), State::Closed);
        drop(conn);
        assert_gone(&fake);
    }
    assert_eq!(fake.count(Op::DESTROY), 5);
}

#[test]
fn an_unmounted_file_system_answers_enotconn() {
    let guest = Guest::new();
    let inode = guest.inode("/witness");
    let Guest {
        mount,
        fake,
        conn,
        process,
        ..
    } = guest;
    mount.unmount();
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ENOTCONN);
    drop((inode, process, conn));
    assert_gone(&fake);
}

#[test]
fn names_that_are_looked_up_after_the_mount_was_dropped_keep_nothing_alive() {
    let guest = Guest::new();
    let Guest {
        mount,
        process,
        conn,
        fake,
        ..
    } = guest;
    let inode = mount.root().lookup(b"witness").unwrap();
    let file = inode.open(OpenFlags::RDONLY).unwrap();
    drop((inode, mount));
    let mut buf = [0; 10];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), 10);
    assert_eq!(buf, WITNESS);
    let at = virtio_fs::fs::At::Cwd;
    process
        .stat(at, b"/dir/sub/leaf", virtio_fs::fs::Symlinks::Follow)
        .unwrap();
    let fs = file.inode().file_system().clone();
    drop((file, process));
    assert_eq!((fs.dentry_count(), fs.inode_count()), (0, 0));
    drop((fs, conn));
    assert_gone(&fake);
}

// INIT.

fn init_reply(patch: impl Fn(&mut [u8]) + Send + 'static) -> Fake {
    let edit = move |_: &[u8], reply: &mut Vec<u8>| patch(&mut reply[16..]);
    Fake::new().fault(Rule::on(Op::INIT, Fault::Edit(Box::new(edit))))
}

fn put(at: usize, value: u64, width: usize) -> impl Fn(&mut [u8]) + Send {
    move |body| body[at..at + width].copy_from_slice(&value.to_le_bytes()[..width])
}

#[test]
fn an_init_error_is_reported_and_the_device_can_be_opened_again() {
    for errno in [71, 13, 5] {
        let (transport, fake) = Fake::new().fs(tree()).build();
        fake.fault(Rule::on(Op::INIT, Fault::Error(-errno)));
        let transport = Arc::new(transport);
        let open = || {
            Conn::open(
                Arc::new(fake.platform()),
                transport.clone(),
                Config::default(),
            )
        };
        match open().err() {
            Some(OpenError::Init(error)) => assert_eq!(i32::from(error.errno().get()), errno),
            other => panic!("{other:?}"),
        }
        assert_gone(&fake);
        drop(open().expect("opens the second time"));
        assert_gone(&fake);
    }
}

#[test]
fn an_init_that_is_never_answered_ends_by_its_deadline_and_frees_nothing_too_early() {
    let (transport, fake) = Fake::new().fs(tree()).build();
    fake.fault(Rule::on(Op::INIT, Fault::Hold));
    let transport = Arc::new(transport);
    let open = || {
        Conn::open(
            Arc::new(fake.platform()),
            transport.clone(),
            Config::default(),
        )
    };
    match open().err() {
        Some(OpenError::Init(error)) => assert_eq!(error.errno(), Errno::ETIMEDOUT),
        other => panic!("{other:?}"),
    }
    fake.release_held();
    assert_gone(&fake);
    drop(open().expect("opens the second time"));
    assert_gone(&fake);
}

#[test]
fn an_init_reply_that_makes_no_sense_is_refused() {
    let faults: [fn() -> Fault; 9] = [
        || Fault::Short(8),
        || Fault::Short(17),
        || Fault::Long(1),
        || Fault::Unique(0),
        || Fault::HeaderLen(17),
        || Fault::Error(1),
        || Fault::ErrorWithBody(-5),
        || Fault::Unwritten,
        || Fault::UsedLen(u32::MAX),
    ];
    for fault in faults {
        Lines::clear();
        let error = refused(Fake::new().fault(Rule::on(Op::INIT, fault())));
        assert!(matches!(error, OpenError::Init(_)), "{error:?}");
        assert_eq!(Lines::take_errors().len(), 1);
    }
}

#[test]
fn an_init_reply_of_an_old_length_leaves_the_defaults() {
    for len in [16 + 8, 16 + 24] {
        let guest = works(Fake::new().fault(Rule::on(Op::INIT, Fault::Short(len))));
        assert_eq!(
            guest.conn.limits().max_pages,
            if len == 24 { 32 } else { 1 }
        );
        guest.finish();
    }
}

#[test]
fn another_major_version_is_refused() {
    for major in [0, 1, 6] {
        let error = refused(init_reply(put(0, major, 4)));
        assert!(matches!(error, OpenError::Version { .. }), "{error:?}");
    }
}

#[test]
fn a_newer_major_version_is_asked_once_more_for_ours() {
    works(init_reply(put(0, 8, 4))).finish();
    let fault = Fault::Edit(Box::new(|_: &[u8], reply: &mut Vec<u8>| reply[16] = 8));
    let error = refused(Fake::new().fault(Rule::on(Op::INIT, fault).always()));
    assert!(matches!(error, OpenError::Version { .. }), "{error:?}");
}

#[test]
fn a_minor_version_that_is_too_old_is_refused() {
    for minor in 0..9 {
        let error = refused(init_reply(put(4, minor, 4)));
        assert!(
            matches!(error, OpenError::Version { .. } | OpenError::Init(_)),
            "{minor}: {error:?}"
        );
    }
}

#[test]
fn a_newer_minor_version_is_ours() {
    let guest = works(init_reply(put(4, u64::from(u32::MAX), 4)));
    assert_eq!(guest.conn.limits().minor, virtio_fs::wire::MINOR);
    guest.finish();
}

#[test]
fn every_old_minor_version_that_the_fake_speaks_works() {
    for minor in [12, 19, 22, 23, 27, 28, 31, 35, 36, 37, 38, 39, 44] {
        let fake = Fake::new().tune(|server| {
            server.minor = minor;
            server.min_minor = 0;
        });
        let guest = works(fake);
        assert_eq!(guest.conn.limits().minor, minor);
        guest.finish();
    }
}

#[test]
fn a_max_write_out_of_range_is_clamped() {
    for max in [0, 1, 4095, u64::from(u32::MAX)] {
        let guest = works(init_reply(put(20, max, 4)));
        let limits = guest.conn.limits();
        assert!((4096..=1 << 20).contains(&limits.max_write), "{max}");
        let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
        assert_eq!(file.write_at(0, &[1; 20_000]).unwrap(), 20_000);
        drop(file);
        guest.finish();
    }
}

#[test]
fn max_pages_out_of_range_are_clamped() {
    for max in [0, 1, 65_535] {
        let guest = works(init_reply(put(28, max, 2)));
        let limits = guest.conn.limits();
        assert!((1..=256).contains(&limits.max_pages));
        assert_eq!(limits.max_read, u32::from(limits.max_pages) * 4096);
        let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
        assert_eq!(file.read_at(0, &mut [1; 20_000]).unwrap(), 10_000);
        drop(file);
        guest.finish();
    }
}

#[test]
fn background_limits_out_of_range_are_clamped() {
    for (background, congestion) in [(0, 0), (1, 65_535), (65_535, 0)] {
        let guest = works(init_reply(move |body| {
            put(16, background, 2)(body);
            put(18, congestion, 2)(body);
        }));
        let limits = guest.conn.limits();
        assert!(limits.max_background >= 1);
        assert!(limits.congestion <= limits.max_background);
        guest.finish();
    }
}

#[test]
fn a_time_granularity_that_is_none_is_a_nanosecond() {
    for granularity in [0, 1_000_000_001, u64::from(u32::MAX)] {
        let guest = works(init_reply(put(24, granularity, 4)));
        assert_eq!(guest.conn.limits().time_gran, 1);
        guest.finish();
    }
}

#[test]
fn a_map_alignment_out_of_range_harms_nothing() {
    for log in [0, 11, 63, 64, 65_535] {
        let guest = works(init_reply(put(30, log, 2)));
        assert!(guest.conn.limits().map_alignment.is_power_of_two());
        guest.finish();
    }
}

#[test]
fn flags_that_were_not_asked_for_are_ignored() {
    let fake = Fake::new().tune(|server| server.unasked_flags = u64::MAX);
    let guest = works(fake);
    let flags = guest.conn.limits().flags.bits();
    assert_eq!(flags & init::WRITEBACK_CACHE, 0);
    assert_eq!(flags & init::ALLOW_IDMAP, 0);
    guest.finish();
}

#[test]
fn no_flags_at_all_are_enough() {
    let guest = works(Fake::new().tune(|server| server.flags = 0));
    assert_eq!(guest.conn.limits().max_write, 4096);
    let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
    assert_eq!(file.write_at(0, &[1; 20_000]).unwrap(), 20_000);
    drop(file);
    guest.finish();
}

#[test]
fn the_readahead_is_the_smaller_of_both() {
    let most = Config::default().max_readahead;
    for (theirs, ours) in [(0, 0), (4096, 4096), (u64::from(u32::MAX), most)] {
        let guest = works(init_reply(put(8, theirs, 4)));
        assert_eq!(guest.conn.limits().max_readahead, ours);
        guest.finish();
    }
}

#[test]
fn servers_like_those_in_use_work() {
    use virtio_fs_fake::ServerConfig;
    for server in [ServerConfig::virtiofsd(), ServerConfig::fuse_backend_rs()] {
        works(Fake::new().server(server)).finish();
    }
}

#[test]
fn nothing_is_sent_before_init_is_answered() {
    let guest = Guest::new();
    assert_eq!(guest.fake.log()[0].op, Op::INIT);
    guest.finish();
}

#[test]
fn destroy_is_sent_once_and_last_whatever_it_is_answered() {
    for destroy in [DestroyReply::Nothing, DestroyReply::Header] {
        let guest = works(Fake::new().tune(|server| server.destroy = destroy));
        let fake_log = |fake: &Handle| fake.log().iter().map(|r| r.op).collect::<Vec<_>>();
        let Guest {
            mount,
            process,
            conn,
            fake,
            ..
        } = guest;
        drop(process);
        mount.unmount();
        let log = fake_log(&fake);
        assert_eq!(log.last(), Some(&Op::DESTROY));
        assert_eq!(log.iter().filter(|op| **op == Op::DESTROY).count(), 1);
        drop(conn);
        assert_gone(&fake);
    }
}

// The ring.

/// Breaks the ring with a reply to GETATTR: the caller gets EIO, others
/// ENOTCONN, and the device can be mounted anew.
fn broken_ring(fault: Fault) {
    let guest = works(Fake::new());
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, fault));
    Lines::clear();
    let first = inode.revalidate();
    let second = inode.revalidate();
    let errno = |r: virtio_fs::error::Result<_>| r.err().map(|e| e.errno());
    // A reply that was there before the ring broke counts.
    assert!(matches!(errno(first), None | Some(Errno::EIO)));
    let second = errno(second);
    assert!(
        matches!(second, Some(Errno::ENOTCONN | Errno::EIO)),
        "{second:?}"
    );
    assert_eq!(errno(inode.revalidate()), Some(Errno::ENOTCONN));
    assert_eq!(guest.conn.state(), State::Lost);
    assert_eq!(guest.conn.load(), (0, 0));
    // What the ring broke with, and that the device is lost.
    let lines = Lines::take_errors();
    assert!((1..=2).contains(&lines.len()), "{lines:?}");
    drop(inode);
    remount(guest);
}

/// Ends a mount whose device was lost, and mounts the device again.
fn remount(guest: Guest) {
    let Guest {
        mount,
        process,
        conn,
        fake,
        transport,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    drop(conn);
    assert_gone(&fake);
    fake.clear_faults();
    let conn = Conn::open(Arc::new(fake.platform()), transport, Config::default()).unwrap();
    let mount = Mount::new(conn.clone(), MountOptions::default()).unwrap();
    assert!(mount.root().lookup(b"witness").is_ok());
    mount.unmount();
    drop(conn);
    assert_gone(&fake);
}

#[test]
fn a_used_id_out_of_range_loses_the_device() {
    broken_ring(Fault::UsedId(u32::MAX));
    broken_ring(Fault::UsedId(128));
    broken_ring(Fault::UsedStray(1 << 16));
}

#[test]
fn a_used_id_that_is_not_in_flight_loses_the_device() {
    broken_ring(Fault::UsedId(77));
    broken_ring(Fault::UsedStray(77));
}

#[test]
fn a_used_id_that_comes_twice_loses_the_device() {
    broken_ring(Fault::UsedTwice);
}

#[test]
fn a_used_index_that_jumps_loses_the_device() {
    for by in [1, 127, 128, 1000] {
        broken_ring(Fault::IndexJump(by));
    }
}

#[test]
fn a_device_that_asks_for_a_reset_loses_its_requests_and_can_be_mounted_again() {
    let guest = works(Fake::new());
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::NeedsReset));
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EIO);
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ENOTCONN);
    assert_eq!(guest.conn.state(), State::Lost);
    drop(inode);
    remount(guest);
}

#[test]
fn a_device_that_asks_for_a_reset_while_idle_is_noticed_by_the_worker() {
    let guest = works(Fake::new());
    guest.fake.needs_reset();
    guest.conn.work();
    assert_eq!(guest.conn.state(), State::Lost);
    remount(guest);
}

#[test]
fn a_device_that_vanishes_ends_every_call() {
    let guest = works(Fake::new());
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Vanish));
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EIO);
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ENOTCONN);
    drop(inode);
    let Guest {
        mount,
        process,
        conn,
        fake,
        ..
    } = guest;
    drop(process);
    mount.unmount();
    drop(conn);
    assert_gone(&fake);
}

#[test]
fn an_abort_ends_a_hung_request_and_refuses_new_ones() {
    let guest = works(Fake::new().drive(Drive::Immediate));
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::on(Op::GETATTR, Fault::Hold));
    let conn = guest.conn.clone();
    guest.platform.on_park(move |n| {
        if n > 3 {
            conn.abort();
        }
    });
    let started = guest.fake.now();
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::EIO);
    assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ECONNABORTED);
    assert!(guest.fake.now() - started < Duration::from_secs(30));
    guest.platform.on_park(|_| ());
    drop(inode);
    remount(guest);
}

#[test]
fn a_hiprio_queue_that_breaks_loses_the_device() {
    let guest = works(Fake::new());
    guest
        .fake
        .fault(Rule::on(Op::BATCH_FORGET, Fault::UsedId(9999)));
    guest.fake.fault(Rule::on(Op::FORGET, Fault::UsedId(9999)));
    guest.mount.file_system().shrink(usize::MAX);
    guest.conn.flush_forgets();
    for _ in 0..3 {
        guest.conn.work();
    }
    assert_eq!(guest.conn.state(), State::Lost);
    remount(guest);
}

/// Holds requests back so that the server seems dead, and unmounts.
fn unmount_of_a_dead_server(requests: u64) {
    let config = Config {
        max_active: 4,
        ..Config::default()
    };
    let guest = Guest::with(Fake::new().fs(tree()), config, MountOptions::default());
    let inode = guest.inode("/dir/file");
    guest.fake.fault(Rule::any(Fault::Hold).always());
    for _ in 0..requests {
        assert_eq!(inode.revalidate().unwrap_err().errno(), Errno::ETIMEDOUT);
    }
    drop(inode);
    let Guest {
        mount,
        process,
        conn,
        fake,
        ..
    } = guest;
    drop(process);
    let before = fake.now();
    mount.unmount();
    assert!(fake.now() - before < Duration::from_secs(120));
    assert_eq!(conn.load(), (0, 0));
    drop(conn);
    assert_gone(&fake);
}

#[test]
fn unmounting_a_dead_server_is_bounded() {
    unmount_of_a_dead_server(0);
    unmount_of_a_dead_server(1);
    unmount_of_a_dead_server(4);
}

#[test]
fn unmounting_with_open_files_and_queued_forgets_leaves_nothing() {
    let guest = works(Fake::new());
    let file = guest.inode("/dir/file").open(OpenFlags::RDWR).unwrap();
    let Guest {
        mount,
        process,
        conn,
        fake,
        ..
    } = guest;
    mount.unmount();
    assert_eq!(
        file.read_at(0, &mut [0; 10]).unwrap_err().errno(),
        Errno::ENOTCONN
    );
    drop((file, process, conn));
    assert_gone(&fake);
}

#[test]
fn a_transport_is_needed_by_nobody_after_the_end() {
    let guest = works(Fake::new());
    let transport: Arc<FakeTransport> = guest.transport.clone();
    guest.finish();
    assert_eq!(Arc::strong_count(&transport), 1);
}
