//! Random configuration space.

use std::collections::BTreeSet;
use std::string::String;

use super::*;

/// xorshift64: enough to make words, and the same on every machine.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Whatever configuration space holds, nothing panics, and nothing outside of
/// the BARs is mapped: the fake `Hal` would panic.
#[test]
fn random_configuration_space_is_survived() {
    let seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0xfeed);
    std::println!("SEED={seed}");
    let mut state = seed | 1;
    let mut random = || random(&mut state);
    power_on();
    add_memory(BAR2, 0x1_0000);
    let mut outcomes = BTreeSet::new();
    for _ in 0..20_000 {
        let mut config = good();
        config.bar64(2, BAR2, 0x1_0000);
        config.put(SHARED + 12, &[0x1_0000]);
        // A few words of the capabilities change, in a few bits or altogether.
        for _ in 0..random() % 4 {
            let at = 13 + random() as usize % 30;
            config.words[at] = match random() % 3 {
                0 => random() as u32,
                1 => config.words[at] ^ 1 << (random() % 32),
                _ => config.words[at] ^ (random() as u32 & 0xff) << (random() % 4 * 8),
            };
        }
        let outcome = match open(&mut config) {
            Ok(device) => {
                let transport = device.transport;
                for queue in 0..3 {
                    let _ = transport.set_queue(
                        queue,
                        &QueueLayout {
                            size: 1,
                            ..layout()
                        },
                    );
                    transport.notify(queue);
                }
                let _ = transport.read_config(0, &mut [0; 40]);
                if let Some(region) = transport.shared_memory(0) {
                    // It lies in one of the BARs, so this finds it there.
                    assert!(region.len > 0);
                    peek::<1>(region.addr);
                    peek::<1>(region.addr + region.len - 1);
                }
                String::from("opened")
            }
            Err(error) => std::format!("{error:?}"),
        };
        outcomes.insert(String::from(outcome.split('(').next().unwrap_or_default()));
        // What was written to the registers is not for the next round.
        poke(BAR4, &[0; 64]);
        poke(BAR4 + 18, &3u16.to_le_bytes());
    }
    assert!(outcomes.len() > 5, "too tame: {outcomes:?}");
}
