//! The registers of the device and of its queues.

use super::*;

#[test]
fn features_are_read_and_written_by_halves() {
    let transport = transport();
    run_device(Manner::Obedient);
    assert_eq!(transport.device_features(), 0xf000_0001_f000_0000);
    transport.set_driver_features(0x1234_5678_9abc_def0);
    assert_eq!(peek(BAR4 + 8), 1u32.to_le_bytes());
    assert_eq!(peek(BAR4 + 12), 0x1234_5678u32.to_le_bytes());
}

#[test]
fn status_and_generation_are_single_registers() {
    let transport = transport();
    let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(status);
    assert_eq!(peek(BAR4 + 20), [3]);
    assert_eq!(transport.status(), status);
    poke(BAR4 + 21, &[9]);
    assert_eq!(transport.config_generation(), 9);
}

#[test]
fn a_queue_is_set_up_and_rings_its_own_register() {
    let transport = transport();
    run_device(Manner::Obedient);
    assert_eq!(
        [0, 1, 2, 3, 1023].map(|n| transport.max_queue_size(n)),
        [128, 64, 32, 0, 0]
    );
    transport
        .set_queue(
            1,
            &QueueLayout {
                vector: Some(2),
                ..layout()
            },
        )
        .unwrap();
    assert_eq!(peek(BAR4 + 24), 64u16.to_le_bytes());
    assert_eq!(peek(BAR4 + 26), 2u16.to_le_bytes());
    assert_eq!(peek(BAR4 + 28), 1u16.to_le_bytes());
    assert_eq!(peek(BAR4 + 32), 0x1111_0000_2222_0000u64.to_le_bytes());
    assert_eq!(peek(BAR4 + 40), 0x3333_0000_4444_0000u64.to_le_bytes());
    assert_eq!(peek(BAR4 + 48), 0x5555_0000_6666_0000u64.to_le_bytes());
    // Queue 0 was not set up, queue 9 does not exist.
    poke(NOTIFY, &[0xee; 16]);
    transport.notify(0);
    transport.notify(9);
    assert_eq!(peek(NOTIFY), [0xee; 16]);
    transport.notify(1);
    assert_eq!(peek(NOTIFY), [0xee, 0xee, 0xee, 0xee, 1, 0, 0xee, 0xee]);
}

#[test]
fn a_queue_that_the_device_will_not_have_is_refused() {
    let transport = transport();
    run_device(Manner::Obedient);
    let set = |queue, layout: QueueLayout| transport.set_queue(queue, &layout);
    assert_eq!(set(3, layout()), Err(TransportError::Queue(3)));
    assert_eq!(set(2, layout()), Err(TransportError::Queue(2)), "too large");
    assert_eq!(
        set(
            1,
            QueueLayout {
                size: 0,
                ..layout()
            }
        ),
        Err(TransportError::Queue(1))
    );
    assert_eq!(set(1, layout()), Ok(()));
    run_device(Manner::NoEnable);
    assert_eq!(set(1, layout()), Err(TransportError::Queue(1)));
}

#[test]
fn a_vector_that_the_device_has_no_room_for_is_refused() {
    let transport = transport();
    run_device(Manner::Obedient);
    assert_eq!(transport.set_config_vector(Some(1)), Ok(()));
    assert_eq!(peek(BAR4 + 16), 1u16.to_le_bytes());
    assert_eq!(transport.set_config_vector(None), Ok(()));
    assert_eq!(peek(BAR4 + 16), [0xff; 2]);
    // The number that stands for none is no vector.
    assert_eq!(
        transport.set_config_vector(Some(0xffff)),
        Err(TransportError::Vector(0xffff))
    );
    run_device(Manner::NoVectors);
    assert_eq!(
        transport.set_config_vector(Some(1)),
        Err(TransportError::Vector(1))
    );
    let with_vector = QueueLayout {
        vector: Some(2),
        ..layout()
    };
    assert_eq!(
        transport.set_queue(1, &with_vector),
        Err(TransportError::Vector(2))
    );
    assert_eq!(transport.set_queue(1, &layout()), Ok(()));
}

#[test]
fn notification_registers_follow_the_multiplier_and_stay_inside() {
    for (multiplier, len, last) in [
        (0, 2, Some(0)),
        (0, 3, Some(0)),
        (2, 6, Some(4)),
        (2, 5, None),
        (4, 0x1000, Some(8)),
        (0x400, 0x1000, Some(0x800)),
        (0x800, 0x1000, None),
        (0x8000_0000, 0x1000, None),
        (0xffff_fffe, 0x1000, None),
    ] {
        let device = open_with(|config| config.put(NOTIFY_CAP + 12, &[len, multiplier]));
        let transport = device.unwrap().transport;
        run_device(Manner::Obedient);
        poke(NOTIFY, &[0; 0x1000]);
        let result = transport.set_queue(
            2,
            &QueueLayout {
                size: 8,
                ..layout()
            },
        );
        let expected = if last.is_some() {
            Ok(())
        } else {
            Err(TransportError::Queue(2))
        };
        assert_eq!(result, expected, "{multiplier:#x}");
        transport.notify(2);
        let rung: [u8; 0x1000] = peek(NOTIFY);
        assert_eq!(rung.iter().position(|&b| b == 2), last, "{multiplier:#x}");
    }
    for odd in [1, 3, u32::MAX] {
        let error = open_with(|config| config.put(NOTIFY_CAP + 16, &[odd])).unwrap_err();
        assert_eq!(error, PciError::NotifyMultiplier(odd));
    }
}

#[test]
fn configuration_is_read_within_its_bounds() {
    let transport = open_with(|config| config.put(DEVICE + 12, &[44]))
        .unwrap()
        .transport;
    let bytes: Vec<u8> = (0..44).collect();
    poke(BAR4 + 0x2000, &bytes);
    for (offset, len) in [
        (0, 36),
        (36, 4),
        (38, 2),
        (37, 2),
        (0, 8),
        (4, 8),
        (43, 1),
        (44, 0),
    ] {
        let mut out = std::vec![0xa5; len];
        assert_eq!(
            transport.read_config(offset, &mut out),
            Ok(()),
            "{offset}+{len}"
        );
        assert_eq!(out, bytes[offset..offset + len], "{offset}+{len}");
    }
    for (offset, len) in [(44, 1), (41, 4), (0, 45), (usize::MAX, 2)] {
        let mut out = std::vec![0xa5; len];
        let result = transport.read_config(offset, &mut out);
        assert_eq!(result, Err(TransportError::Config(offset)));
        assert!(out.iter().all(|&b| b == 0xa5));
    }
}

#[test]
fn a_device_that_is_gone_answers_all_ones_and_harms_nobody() {
    let transport = transport();
    poke(BAR4, &[0xff; 0x4000]);
    set_device(|paddr| {
        // Nothing that is written stays.
        if (BAR4..BAR4 + 0x4000).contains(&paddr) {
            poke(BAR4, &[0xff; 0x4000]);
        }
    });
    assert_eq!(transport.device_features(), u64::MAX);
    assert!(
        transport
            .status()
            .contains(DeviceStatus::DEVICE_NEEDS_RESET)
    );
    assert_eq!(transport.max_queue_size(0), 0);
    assert_eq!(
        transport.set_queue(0, &layout()),
        Err(TransportError::Queue(0))
    );
    assert_eq!(
        transport.set_config_vector(Some(0)),
        Err(TransportError::Vector(0))
    );
    assert_eq!(transport.config_generation(), 0xff);
    transport.set_driver_features(1);
    transport.set_status(DeviceStatus::empty());
    transport.notify(0);
    let mut out = [0; 4];
    assert_eq!(transport.read_config(36, &mut out), Ok(()));
    assert_eq!(out, [0xff; 4]);
    assert!(transport.take_interrupt().is_all());
}

#[test]
fn more_queues_than_the_driver_uses_are_not_there() {
    power_on();
    poke(BAR4 + 18, &[0xff; 2]);
    let transport = open(&mut good()).unwrap().transport;
    poke(BAR4 + 24, &128u16.to_le_bytes());
    assert_eq!(transport.max_queue_size(1023), 128);
    assert_eq!(transport.max_queue_size(1024), 0);
    assert_eq!(transport.max_queue_size(u16::MAX), 0);
}
