//! Finding the device, and what its capabilities name.

use super::*;

#[test]
fn search_finds_virtio_fs_in_every_function_of_every_bus() {
    const FS: u32 = 0x105a_1af4;
    const MULTI: u32 = 0x0080_0000;
    let at = |bus, device, function| DeviceFunction {
        bus,
        device,
        function,
    };
    let config = Buses(std::vec![
        (at(0, 0, 0), [0x29c0_8086, 0, 0, 0]),
        (at(0, 3, 0), [FS, 0, 0, 0]),
        // Not there, as function 0 says that it is alone.
        (at(0, 3, 1), [FS, 0, 0, 0]),
        (at(0, 4, 0), [0x1041_1af4, 0, 0, MULTI]),
        (at(0, 4, 7), [FS, 0, 0, 0]),
        (at(0, 5, 0), [0x1049_1af4, 0, 0, 0]),
        // The transitional id that virtio-fs does not have.
        (at(0, 6, 0), [0x1009_1af4, 0, 0, 0]),
        (at(0, 7, 0), [0x105a_1af5, 0, 0, 0]),
        (at(255, 31, 0), [FS, 0, 0, MULTI]),
    ]);
    let found: Vec<_> = find(&config, 0..=255).collect();
    assert_eq!(found, [at(0, 3, 0), at(0, 4, 7), at(255, 31, 0)]);
    assert_eq!(find(&config, [1, 2]).count(), 0);
}

#[test]
fn other_devices_and_none_are_not_opened() {
    let other = open_with(|config| config.words[0] = 0x1041_1af4).unwrap_err();
    assert_eq!(
        other,
        PciError::OtherDevice {
            vendor: 0x1af4,
            device: 0x1041
        }
    );
    let gone = open_with(|config| config.words = [u32::MAX; 64]).unwrap_err();
    assert_eq!(gone, PciError::Gone);
    let nowhere = DeviceFunction {
        bus: 0,
        device: 32,
        function: 0,
    };
    let result = PciDevice::open::<FakeHal, _>(&mut good(), nowhere);
    assert_eq!(result.unwrap_err(), PciError::Gone);
}

#[test]
fn opening_restores_the_bars_and_lets_the_device_reach_memory() {
    power_on();
    let mut config = good();
    let before = config.words;
    let device = open(&mut config).unwrap();
    assert_eq!(config.words[4..10], before[4..10]);
    // I/O as it was, memory, bus master.
    assert_eq!(config.words[1] & 0xffff, 0b111);
    assert_eq!(device.intx, Some(Intx { pin: 1, line: 11 }));
    assert_eq!(device.msix.unwrap().vectors(), 4);
}

#[test]
fn a_list_of_capabilities_that_does_not_end_is_refused() {
    for (from, to) in [
        (COMMON, COMMON),
        (MSIX, COMMON),
        (MSIX, DEVICE),
        (ISR, 0x04),
        (ISR, 0x3c),
    ] {
        let error = open_with(|config| {
            let word = config.word(from);
            config.put(from, &[word & !0xff00 | u32::from(to) << 8]);
        });
        let broken = PciError::CapabilityList(to);
        assert_eq!(error.unwrap_err(), broken, "{from:#x} to {to:#x}");
    }
    let error = open_with(|config| config.put(0x34, &[0x20])).unwrap_err();
    assert_eq!(error, PciError::CapabilityList(0x20));
}

#[test]
fn structures_that_no_capability_names_are_missing() {
    let no_list = open_with(|config| config.words[1] &= !0x0010_0000).unwrap_err();
    assert_eq!(no_list, PciError::Missing(Structure::Notify));
    for (at, what) in REQUIRED {
        // Types and BARs that are reserved are to be skipped.
        let error = open_with(|config| config.words[usize::from(at / 4)] |= 0x4000_0000);
        assert_eq!(error.unwrap_err(), PciError::Missing(what));
        let error = open_with(|config| config.words[usize::from(at / 4) + 1] = 6);
        assert_eq!(error.unwrap_err(), PciError::Missing(what));
        let error = open_with(|config| {
            let header = config.word(at);
            config.put(at, &[header & !0xff_0000 | 15 << 16]);
        });
        assert_eq!(error.unwrap_err(), PciError::CapabilityLen(what, at));
    }
}

#[test]
fn structures_lie_inside_their_bar() {
    for (at, what) in REQUIRED {
        let place = |bar: u32, offset: u32, len: u32| {
            open_with(|config| config.put(at + 4, &[bar, offset, len])).unwrap_err()
        };
        assert_eq!(place(4, 0x3004, 0x1000), PciError::OutsideBar(what, 4));
        assert_eq!(place(4, 0x4000, 0x1000), PciError::OutsideBar(what, 4));
        assert_eq!(place(4, 0, u32::MAX), PciError::OutsideBar(what, 4));
        assert_eq!(
            place(4, u32::MAX - 3, u32::MAX),
            PciError::OutsideBar(what, 4)
        );
        assert_eq!(place(4, 0, 0), PciError::TooShort(what, 0));
        assert_eq!(place(0, 0, 0x1000), PciError::NoBar(what, 0));
        // The upper half of BAR 4.
        assert_eq!(place(5, 0, 0x1000), PciError::NoBar(what, 5));
        if what != Structure::Isr {
            assert_eq!(place(4, 0x1001, 0x100), PciError::Unaligned(what, 0x1001));
        }
    }
    let short = open_with(|config| config.put(COMMON + 12, &[55])).unwrap_err();
    assert_eq!(short, PciError::TooShort(Structure::Common, 55));
    assert_eq!(
        std::format!("{short}"),
        "common configuration has only 55 bytes"
    );
}

#[test]
fn a_second_capability_serves_where_the_first_names_an_unusable_bar() {
    let device = open_with(|config| {
        // BAR 0 is in I/O space.
        config.words[4] = 0xc001;
        config.masks[4] = 0xfffc;
        config.put(ISR + 4, &[0]);
        config.put(MSIX + 12, &cap(0, 16, 3, 4, 0x1008, 4));
        link_last(config, MSIX + 12);
    });
    poke(BAR4 + 0x1008, &[1]);
    let status = device.unwrap().transport.take_interrupt();
    assert!(status == InterruptStatus::QUEUE_INTERRUPT);
}

#[test]
fn structures_in_a_bar_that_contradicts_itself_are_not_used() {
    for (what, low, high, mask) in [
        ("no address", 0b1100, 0, !0x3fff),
        ("no power of two", 0b1100, 0x80, !0x5fff),
        ("I/O space", 0xc001, 0, !0x3fff),
        ("reserved width", 0x8000_0110, 0, !0x3fff),
        ("nothing can be written", 0b1100, 0x80, 0),
    ] {
        let error = open_with(|config| {
            config.words[8..10].copy_from_slice(&[low, high]);
            config.masks[8] = mask;
            if mask == 0 {
                config.masks[9] = 0;
            }
        });
        assert_eq!(
            error.unwrap_err(),
            PciError::NoBar(Structure::Common, 4),
            "{what}"
        );
    }
    // 64 bits wide in the last register.
    let error = open_with(|config| {
        config.words[8..10].copy_from_slice(&[0, 0x8000_000c]);
        config.masks[8] = 0;
        config.put(COMMON + 4, &[5]);
    });
    assert_eq!(error.unwrap_err(), PciError::NoBar(Structure::Common, 5));
}

#[test]
fn shared_memory_has_64_bits_of_offset_and_length_and_any_id() {
    let window = |id: u32, offset: u64, len: u64| {
        let device = open_with(|config| {
            let (low, high) = (offset as u32, (offset >> 32) as u32);
            config.put(
                SHARED + 4,
                &[2 | id << 8, low, len as u32, high, (len >> 32) as u32],
            );
        });
        device.unwrap().transport
    };
    let whole = window(0, 0, 1 << 30);
    assert_eq!(
        whole.shared_memory(0),
        Some(SharedMemory {
            addr: BAR2,
            len: 1 << 30
        })
    );
    assert_eq!(whole.shared_memory(1), None);
    let (offset, len) = (0xff_0000_0000, 0x1_0000_0000);
    let upper = window(7, offset, len);
    assert_eq!(
        upper.shared_memory(7),
        Some(SharedMemory {
            addr: BAR2 + offset,
            len
        })
    );
    assert_eq!(upper.shared_memory(0), None);
    // Absent, outside, overflowing: the device works without.
    for (offset, len) in [
        (0, 0),
        (1, 1 << 40),
        (u64::MAX, 2),
        (1 << 63, 1 << 63),
        (0, u64::MAX),
    ] {
        assert_eq!(
            window(0, offset, len).shared_memory(0),
            None,
            "{offset:#x}+{len:#x}"
        );
    }
}

#[test]
fn the_first_of_two_regions_with_one_id_counts() {
    let device = open_with(|config| {
        config.put(MSIX + 12, &cap(0, 24, 8, 2, 0x1000, 0x1000));
        link_last(config, MSIX + 12);
    });
    let transport = device.unwrap().transport;
    assert_eq!(
        transport.shared_memory(0),
        Some(SharedMemory {
            addr: BAR2,
            len: 1 << 30
        })
    );
}
