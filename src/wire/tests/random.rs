//! Random bytes in place of replies: nothing may panic, and what is accepted
//! keeps the promises of the folder's documentation.

extern crate std;

use super::*;

/// xorshift64*: enough to make bytes, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Fills with bytes of which many are small, so that lengths and types are
    /// often plausible.
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            let random = self.next();
            *byte = match random % 4 {
                0 | 1 => 0,
                2 => (random >> 8) as u8 % 32,
                _ => (random >> 8) as u8,
            };
        }
    }
}

fn check_entry(entry: &Entry) {
    assert_ne!(entry.node, NodeId::ROOT);
    if let Ok(attr) = &entry.attr {
        check_attr(attr);
    }
}

fn check_attr(attr: &Attr) {
    assert!(attr.size <= SIZE_MAX);
    assert!(attr.blksize().is_power_of_two());
    for time in [attr.atime, attr.mtime, attr.ctime] {
        assert!(time.nsec < 1_000_000_000);
    }
}

fn check_name(name: EntryName<'_>) {
    let bytes = name.as_bytes();
    assert!(!bytes.is_empty() && bytes.len() <= NAME_MAX);
    assert!(!bytes.contains(&0) && !bytes.contains(&b'/'));
}

#[test]
fn random_replies_never_panic_and_never_break_a_promise() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0x5eed_1234);
    std::println!("SEED={seed}");
    let mut random = Random(seed);
    let mut buf = [0; 400];
    for _ in 0..20_000 {
        let len = random.next() as usize % (buf.len() + 1);
        let bytes = &mut buf[..len];
        random.fill(bytes);
        let dialect = Dialect {
            minor: random.next() as u32 % 50,
            flags: InitFlags::all(),
        };

        let mut records = 0;
        for dirent in Dirents::new(bytes, NAME_MAX) {
            records += 1;
            if let Ok(dirent) = dirent {
                check_name(dirent.name);
            }
        }
        for plus in DirentsPlus::new(bytes, NAME_MAX) {
            records += 1;
            if let Ok(plus) = plus {
                check_name(plus.dirent.name);
                plus.entry.iter().for_each(check_entry);
            }
        }
        for _ in XattrList::new(bytes) {
            records += 1;
        }
        assert!(records <= 2 + 2 * len, "more records than bytes");
        let _ = Notification::parse(bytes);

        for len in [len, 48, 80, 96, 104, 120, 128, 136, 144, 288] {
            let Some(bytes) = buf.get(..len) else {
                continue;
            };
            if let Ok(Found::Entry(entry)) = super::decode::<Lookup<'_>>(&dialect, bytes, 0) {
                check_entry(&entry);
            }
            if let Ok(reply) = super::decode::<Getattr>(&dialect, bytes, 0) {
                check_attr(&reply.attr);
            }
            if let Ok(reply) = super::decode::<Create<'_>>(&dialect, bytes, 0) {
                check_entry(&reply.entry);
            }
            if let Ok(StatxReply {
                attr: Some(attr), ..
            }) = super::decode::<Statx>(&dialect, bytes, 0)
            {
                check_attr(&attr);
            }
            let _ = super::decode::<Statfs>(&dialect, bytes, 0);
            let _ = super::decode::<Init>(&dialect, bytes, 0);
        }
    }
}

#[test]
fn random_headers_never_let_a_payload_out_of_its_area() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0x5eed_5678);
    std::println!("SEED={seed}");
    let mut random = Random(seed);
    let mut accepted = 0;
    for _ in 0..200_000 {
        let mut header = [0; 16];
        random.fill(&mut header);
        // Often the right id, no error and a plausible length.
        if !random.next().is_multiple_of(8) {
            header[8..].copy_from_slice(&2u64.to_le_bytes());
        }
        if !random.next().is_multiple_of(4) {
            header[4..8].fill(0);
        }
        if !random.next().is_multiple_of(4) {
            header[1..4].fill(0);
        }
        let n = random.next() as usize % 64;
        let shape = match random.next() % 6 {
            0 => ReplyShape::None,
            1 => ReplyShape::Empty,
            2 => ReplyShape::Fixed(n),
            3 => ReplyShape::Versioned(n),
            4 => ReplyShape::Data,
            _ => ReplyShape::FixedThenData(n),
        };
        let capacity = shape.fixed_area() + random.next() as usize % 32;
        let used = match random.next() % 3 {
            0 => 0,
            1 => u32::from_le_bytes([header[0], header[1], header[2], header[3]]),
            _ => random.next() as u32 % 200,
        };
        let silence = match random.next() % 3 {
            0 => Silence::Refuse,
            1 => Silence::TrustHeader,
            _ => Silence::Accept,
        };
        let unique = Unique::new(2).unwrap();
        let expected = Expected {
            unique,
            shape,
            capacity,
            silence,
        };
        if let Ok(payload) = check_reply(&header, used, &expected) {
            accepted += 1;
            assert!(
                payload == 0 || payload + REPLY_HEADER <= capacity,
                "{expected:?}"
            );
            let area = [0; 128];
            let area = &area[..capacity.saturating_sub(REPLY_HEADER)];
            if shape != ReplyShape::None && payload != 0 {
                let split = Payload::split(shape, area, payload).unwrap();
                assert_eq!(split.fixed.len() + split.data, payload);
            }
        }
    }
    assert!(
        accepted > 1000,
        "only {accepted} of the replies were plausible"
    );
}
