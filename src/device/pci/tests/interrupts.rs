//! MSI-X and the interrupt line.

use super::*;

/// The control word of a vector's entry.
fn control(vector: u64) -> [u8; 4] {
    peek(u64::from(BAR1) + 16 * vector + 12)
}

#[test]
fn vectors_get_messages_and_masks() {
    power_on();
    for vector in 0..4 {
        poke(u64::from(BAR1) + 16 * vector + 12, &[0xfe, 0, 0, 0]);
    }
    let mut msix = open(&mut good()).unwrap().msix.unwrap();
    for vector in 0..4 {
        assert_eq!(
            control(vector),
            [1, 0, 0, 0],
            "masked until it has a message"
        );
    }
    let message = MsiMessage {
        address: 0x1_fee0_1000,
        data: 0x4041,
    };
    msix.set_message(3, message).unwrap();
    let entry: [u8; 16] = peek(u64::from(BAR1) + 48);
    assert_eq!(
        entry,
        [
            0, 0x10, 0xe0, 0xfe, 1, 0, 0, 0, 0x41, 0x40, 0, 0, 0, 0, 0, 0
        ]
    );
    msix.mask(3).unwrap();
    assert_eq!(control(3), [1, 0, 0, 0]);
    msix.unmask(3).unwrap();
    assert_eq!(control(3), [0, 0, 0, 0]);
    assert_eq!(control(2), [1, 0, 0, 0]);
}

#[test]
fn a_vector_is_masked_while_its_message_changes() {
    let mut msix = open_with(|_| {}).unwrap().msix.unwrap();
    msix.unmask(1).unwrap();
    set_device(|paddr| {
        if paddr != u64::from(BAR1) + 16 + 12 {
            assert_eq!(control(1), [1, 0, 0, 0]);
        }
    });
    msix.set_message(
        1,
        MsiMessage {
            address: 0xfee0_0000,
            data: 0x30,
        },
    )
    .unwrap();
    assert_eq!(control(1), [0, 0, 0, 0]);
}

#[test]
fn vectors_that_the_device_has_not_are_refused() {
    let mut msix = open_with(|_| {}).unwrap().msix.unwrap();
    let before: [u8; 0x1000] = peek(BAR1.into());
    for vector in [4, 5, u16::MAX] {
        let error = MsixError { vector, vectors: 4 };
        let message = MsiMessage {
            address: 1,
            data: 2,
        };
        assert_eq!(msix.set_message(vector, message), Err(error));
        assert_eq!(msix.mask(vector), Err(error));
        assert_eq!(msix.unmask(vector), Err(error));
    }
    assert_eq!(peek(BAR1.into()), before);
}

#[test]
fn enabling_msix_silences_the_interrupt_line() {
    power_on();
    let mut config = good();
    config.words[usize::from(MSIX / 4)] |= 1 << 30;
    let mut msix = open(&mut config).unwrap().msix.unwrap();
    assert_eq!(config.word(4) & 0x400, 0);
    msix.enable(&mut config);
    assert_eq!(config.word(MSIX), 0x8003_0011, "enabled, nothing masked");
    assert_eq!(config.word(4) & 0x407, 0x407);
    msix.disable(&mut config);
    assert_eq!(config.word(MSIX), 0x0003_0011);
    assert_eq!(config.word(4) & 0x407, 0x007);
}

#[test]
fn a_device_with_broken_msix_works_without() {
    for words in [
        // 2048 vectors need more than the BAR has.
        [0x07ff_0011, 1, 0x801],
        // Table, then pending bits, over the end of the BAR.
        [0x0003_0011, 0xfc8 | 1, 0x801],
        [0x0003_0011, 1, 0x1001],
        // No such BAR.
        [0x0003_0011, 0, 0x801],
        [0x0003_0011, 7, 0x801],
        [0x0003_0011, 1, 0x806],
    ] {
        let device = open_with(|config| config.put(MSIX, &words)).unwrap();
        assert!(device.msix.is_none(), "{words:x?}");
    }
}

#[test]
fn a_capability_over_the_end_of_configuration_space_is_refused() {
    let error = open_with(|config| {
        let header = config.word(SHARED);
        config.put(SHARED, &[header & !0xff00 | 0xfc00]);
        config.put(0xfc, &[0x0003_0011]);
    });
    assert_eq!(
        error.unwrap_err(),
        PciError::CapabilityLen(Structure::MsixTable, 0xfc)
    );
}

#[test]
fn the_interrupt_line_says_what_it_was_for() {
    let transport = transport();
    assert!(transport.take_interrupt().is_empty());
    poke(BAR4 + 0x1000, &[2]);
    assert!(transport.take_interrupt() == InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT);
    let device = open_with(|config| config.put(0x3c, &[0x000b])).unwrap();
    assert_eq!(device.intx, None);
}
