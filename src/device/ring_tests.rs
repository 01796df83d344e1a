//! The ring against a small device that obeys the spec, or breaks it on purpose.

#![expect(unsafe_code, reason = "plays the device, which sees plain memory")]

extern crate std;

use std::vec::Vec;

use super::*;
use crate::device::table::Segment;
use crate::platform::PhysAddr;
use crate::testing::TestHal;

/// The device side of a queue: it looks at the ring only when it was notified.
struct Device {
    layout: QueueLayout,
    features: RingFeatures,
    seen: u16,
    used: u16,
    awake: bool,
    kicks: u32,
}

impl Device {
    fn new(ring: &Ring<TestHal>, features: RingFeatures, at: u16) -> Self {
        Self {
            layout: ring.layout(None),
            features,
            seen: at,
            used: at,
            awake: false,
            kicks: 0,
        }
    }

    fn get16(&self, addr: PhysAddr) -> u16 {
        // SAFETY: `addr` lies in the ring's own memory; the test has one thread.
        unsafe { TestHal::pointer(addr).cast::<u16>().read_volatile() }
    }

    fn put16(&self, addr: PhysAddr, value: u16) {
        // SAFETY: as in `get16`.
        unsafe { TestHal::pointer(addr).cast::<u16>().write_volatile(value) }
    }

    fn put32(&self, addr: PhysAddr, value: u32) {
        // SAFETY: as in `get16`.
        unsafe { TestHal::pointer(addr).cast::<u32>().write_volatile(value) }
    }

    fn kick(&mut self) {
        self.kicks += 1;
        self.awake = true;
    }

    /// Takes what is available, if it was notified; then says from where on it
    /// wants to be notified again.
    fn take(&mut self) -> Vec<u16> {
        let mut heads = Vec::new();
        if !self.awake {
            return heads;
        }
        let size = self.layout.size;
        while self.seen != self.get16(self.layout.available + 2) {
            let slot = u64::from(self.seen & (size - 1));
            heads.push(self.get16(self.layout.available + 4 + 2 * slot));
            self.seen = self.seen.wrapping_add(1);
        }
        if self.features.event_idx {
            self.put16(self.layout.used + 4 + 8 * u64::from(size), self.seen);
        }
        self.awake = false;
        heads
    }

    fn put_used(&mut self, id: u32, len: u32) {
        let at = self.layout.used + 4 + 8 * u64::from(self.used & (self.layout.size - 1));
        self.put32(at, id);
        self.put32(at + 4, len);
        self.used = self.used.wrapping_add(1);
        self.put16(self.layout.used + 2, self.used);
    }
}

fn table(segments: u16) -> DescriptorTable<TestHal> {
    let table = DescriptorTable::new(segments).unwrap();
    for i in 0..segments {
        let access = if i == 0 { Access::Read } else { Access::Write };
        table.set(
            i,
            Segment {
                addr: 0x1000 * u64::from(i + 1),
                len: 64,
                access,
            },
            i + 1 < segments,
        );
    }
    table
}

const ALL: [RingFeatures; 4] = [
    RingFeatures {
        indirect: false,
        event_idx: false,
    },
    RingFeatures {
        indirect: true,
        event_idx: false,
    },
    RingFeatures {
        indirect: false,
        event_idx: true,
    },
    RingFeatures {
        indirect: true,
        event_idx: true,
    },
];

#[test]
fn event_comparison_holds_around_the_wrap() {
    // (event, new, old): is the event in the half-open step [old, new)?
    for (event, new, old, want) in [
        (0, 1, 0, true),
        (1, 1, 0, false),
        (65535, 0, 65535, true),
        (65535, 2, 65534, true),
        (65533, 2, 65534, false),
        (0, 2, 65534, true),
        (1, 2, 65534, true),
        (2, 2, 65534, false),
        (5, 5, 5, false),
    ] {
        assert_eq!(
            need_event(event, new, old),
            want,
            "event {event} new {new} old {old}"
        );
    }
}

#[test]
fn every_request_completes_once_over_two_wraps_of_the_index() {
    for features in ALL {
        for batch in [1u16, 3, 8] {
            let mut ring = Ring::<TestHal>::new(32, features).unwrap();
            let mut device = Device::new(&ring, features, 0);
            let table = table(3);
            let mut done = 0u32;
            while done < 140_000 {
                for token in 0..batch {
                    ring.add(token, &table, 3).unwrap();
                }
                if ring.publish() {
                    device.kick();
                }
                let heads = device.take();
                assert_eq!(
                    heads.len(),
                    usize::from(batch),
                    "a kick was lost after {done} requests"
                );
                for head in heads {
                    device.put_used(head.into(), 16);
                }
                let mut tokens = Vec::new();
                while let Some(used) = ring.pop().unwrap() {
                    assert_eq!(used.written, 16);
                    tokens.push(used.token);
                }
                assert_eq!(tokens, (0..batch).collect::<Vec<_>>());
                done += u32::from(batch);
            }
            assert_eq!((ring.in_flight, ring.free), (0, 32));
        }
    }
}

#[test]
fn a_busy_device_is_not_kicked_under_event_index() {
    let features = RingFeatures {
        indirect: true,
        event_idx: true,
    };
    let mut ring = Ring::<TestHal>::new(64, features).unwrap();
    let mut device = Device::new(&ring, features, 0);
    let table = table(2);
    for token in 0..40 {
        ring.add(token, &table, 2).unwrap();
        if ring.publish() {
            device.kick();
        }
    }
    assert_eq!(device.kicks, 1, "the device was awake after the first");
}

#[test]
fn a_full_ring_refuses_and_stays_as_it_was() {
    for features in ALL {
        let mut ring = Ring::<TestHal>::new(8, features).unwrap();
        let table = table(3);
        let fit = if features.indirect { 8 } else { 2 };
        for token in 0..fit {
            ring.add(token, &table, 3).unwrap();
        }
        let before = (ring.free, ring.free_head, ring.available, ring.in_flight);
        assert_eq!(ring.add(99, &table, 3), Err(RingFull));
        assert_eq!(
            before,
            (ring.free, ring.free_head, ring.available, ring.in_flight)
        );
    }
}

#[test]
fn completions_out_of_order_find_their_tokens() {
    for features in ALL {
        let mut ring = Ring::<TestHal>::new(16, features).unwrap();
        let mut device = Device::new(&ring, features, 0);
        let table = table(3);
        for round in 0..1000 {
            for token in 0..5 {
                ring.add(token, &table, 3).unwrap();
            }
            if ring.publish() {
                device.kick();
            }
            let mut heads = device.take();
            heads.rotate_left(round % 5);
            heads.swap(0, 3);
            for head in heads {
                device.put_used(head.into(), 0);
            }
            let mut tokens = Vec::new();
            while let Some(used) = ring.pop().unwrap() {
                tokens.push(used.token);
            }
            tokens.sort_unstable();
            assert_eq!(tokens, [0, 1, 2, 3, 4]);
        }
    }
}

/// A ring with one request in flight, near the wrap, and its device.
fn one_in_flight(features: RingFeatures) -> (Ring<TestHal>, Device, u32) {
    let mut ring = Ring::<TestHal>::new(8, features).unwrap();
    ring.start_at(65535);
    let mut device = Device::new(&ring, features, 65535);
    if features.event_idx {
        device.put16(device.layout.used + 4 + 8 * 8, 65535);
    }
    ring.add(7, &table(3), 3).unwrap();
    assert!(ring.publish());
    device.kick();
    let head = device.take()[0];
    (ring, device, head.into())
}

#[test]
fn a_used_id_out_of_range_breaks_the_ring() {
    for features in ALL {
        let (mut ring, mut device, _) = one_in_flight(features);
        device.put_used(8, 0);
        assert_eq!(ring.pop(), Err(RingError::UsedId(8)));
        assert_eq!(ring.pop(), Err(RingError::UsedId(8)), "and stays broken");
        assert_eq!(ring.add(1, &table(3), 3), Err(RingFull));
    }
}

#[test]
fn a_used_id_that_heads_nothing_breaks_the_ring() {
    for features in ALL {
        let (mut ring, mut device, head) = one_in_flight(features);
        device.put_used((head + 1) % 8, 0);
        assert!(matches!(ring.pop(), Err(RingError::UsedId(_))));
    }
}

#[test]
fn a_used_id_given_twice_breaks_the_ring() {
    for features in ALL {
        let (mut ring, mut device, head) = one_in_flight(features);
        ring.add(8, &table(3), 3).unwrap();
        let _ = ring.publish();
        device.put_used(head, 0);
        device.put_used(head, 0);
        assert_eq!(
            ring.pop(),
            Ok(Some(Used {
                token: 7,
                written: 0
            }))
        );
        assert_eq!(ring.pop(), Err(RingError::UsedId(head)));
    }
}

#[test]
fn a_used_index_that_runs_ahead_breaks_the_ring() {
    for features in ALL {
        let (mut ring, device, _) = one_in_flight(features);
        device.put16(device.layout.used + 2, 65535u16.wrapping_add(2));
        assert_eq!(
            ring.pop(),
            Err(RingError::UsedIndex {
                index: 1,
                last: 65535,
                in_flight: 1
            })
        );
    }
}

#[test]
fn a_used_index_before_publishing_breaks_the_ring() {
    let features = RingFeatures::default();
    let mut ring = Ring::<TestHal>::new(8, features).unwrap();
    let mut device = Device::new(&ring, features, 0);
    ring.add(1, &table(2), 2).unwrap();
    device.put_used(0, 0);
    assert!(matches!(ring.pop(), Err(RingError::UsedIndex { .. })));
}

#[test]
fn a_reset_makes_a_broken_ring_new() {
    for features in ALL {
        let (mut ring, mut device, _) = one_in_flight(features);
        device.put_used(1000, 0);
        assert!(ring.pop().is_err());
        ring.reset();
        let mut device = Device::new(&ring, features, 0);
        ring.add(3, &table(3), 3).unwrap();
        if ring.publish() {
            device.kick();
        }
        let head = device.take()[0];
        device.put_used(head.into(), 5);
        assert_eq!(
            ring.pop(),
            Ok(Some(Used {
                token: 3,
                written: 5
            }))
        );
    }
}

#[test]
fn enabling_interrupts_reports_what_came_meanwhile() {
    for features in ALL {
        let (mut ring, mut device, head) = one_in_flight(features);
        assert!(!ring.enable_interrupts());
        device.put_used(head, 0);
        assert!(ring.enable_interrupts());
        assert!(ring.pop().unwrap().is_some());
        assert!(!ring.enable_interrupts());
    }
}
