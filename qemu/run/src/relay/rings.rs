//! The rings of a device as a relay sees them, and how a driver is told that they
//! are lost.
//!
//! QEMU 11.1 does not notice that a virtio-fs daemon is gone, and has no way to say
//! "device needs reset" on its behalf. But a back end writes the used rings. So
//! the relay, as the back end, does there what no device may do: it moves the
//! index of each used ring half a round ahead, and rings. A driver that looks
//! finds the ring broken, resets the device, and starts anew if it knows how;
//! one that does not know ends its mount, instead of waiting for ever.

use super::message::{Message, request as r};
use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

/// A region of guest memory, by QEMU's own addresses.
#[derive(Debug)]
struct Region {
    guest: u64,
    start: u64,
    len: u64,
    offset: u64,
    file: File,
}

#[derive(Debug, Default)]
struct Ring {
    /// Where the used ring lies, by QEMU's addresses.
    used: Option<u64>,
    /// Interrupts the guest.
    call: Option<OwnedFd>,
    /// The daemon there is knows it.
    known: bool,
}

/// All rings, and the memory they lie in.
#[derive(Debug, Default)]
pub(super) struct Rings {
    rings: Vec<Ring>,
    memory: Vec<Region>,
}

/// What to do with a message about a ring.
pub(super) enum Verdict {
    /// The daemon is to have it.
    Pass,
    /// It concerns a ring that the daemon does not know; this is the answer, if one is
    /// wanted.
    Answer(Vec<u8>),
}

impl Rings {
    /// Takes note of a message from QEMU.
    pub(super) fn note(&mut self, message: &Message) -> io::Result<Verdict> {
        match message.request {
            r::SET_MEM_TABLE => {
                self.memory.clear();
                let count = message.u32(0).unwrap_or(0) as usize;
                for (n, file) in message.files.iter().enumerate().take(count) {
                    self.add_region(message, 8 + 32 * n, file)?;
                }
            }
            r::ADD_MEM_REG => {
                if let Some(file) = message.files.first() {
                    self.add_region(message, 8, file)?;
                }
            }
            r::REM_MEM_REG => {
                let gone = message.u64(8);
                self.memory.retain(|region| Some(region.guest) != gone);
            }
            r::SET_VRING_NUM | r::SET_VRING_ADDR => {
                let used = message
                    .u64(16)
                    .filter(|_| message.request == r::SET_VRING_ADDR);
                if let Some(ring) = self.ring(message.u32(0)) {
                    ring.known = true;
                    ring.used = used.or(ring.used);
                }
            }
            r::SET_VRING_CALL => {
                let call = message.files.first().map(OwnedFd::try_clone).transpose()?;
                if let Some(ring) = self.ring(message.u32(0).map(|index| index & 0xff)) {
                    ring.call = call;
                }
            }
            r::GET_VRING_BASE | r::SET_VRING_ENABLE => {
                let index = message.u32(0);
                let known = self.ring(index).is_none_or(|ring| ring.known);
                if !known {
                    return Ok(Verdict::Answer(match message.request {
                        // The ring has not moved.
                        r::GET_VRING_BASE => [index.unwrap_or(0), 0]
                            .into_iter()
                            .flat_map(u32::to_ne_bytes)
                            .collect(),
                        _ => vec![0; 8],
                    }));
                }
            }
            _ => {}
        }
        Ok(Verdict::Pass)
    }

    fn ring(&mut self, index: Option<u32>) -> Option<&mut Ring> {
        let index = usize::try_from(index?).ok().filter(|index| *index < 256)?;
        if index >= self.rings.len() {
            self.rings.resize_with(index + 1, Ring::default);
        }
        self.rings.get_mut(index)
    }

    fn add_region(&mut self, message: &Message, at: usize, file: &OwnedFd) -> io::Result<()> {
        let number = |n: usize| message.u64(at + 8 * n).unwrap_or(0);
        self.memory.push(Region {
            guest: number(0),
            len: number(1),
            start: number(2),
            offset: number(3),
            file: file.try_clone()?.into(),
        });
        Ok(())
    }

    /// Tells the driver that all rings are lost with the daemon that served them.
    pub(super) fn break_all(&mut self) {
        for ring in &mut self.rings {
            if !core::mem::take(&mut ring.known) {
                continue;
            }
            let Some(used) = ring.used else { continue };
            let place = self.memory.iter().find_map(|region| {
                let inside = used
                    .checked_sub(region.start)
                    .filter(|at| at + 4 <= region.len)?;
                Some((&region.file, region.offset + inside + 2))
            });
            if let Some((file, at)) = place {
                let mut index = [0; 2];
                let moved = file.read_exact_at(&mut index, at).and_then(|()| {
                    let ahead = u16::from_le_bytes(index).wrapping_add(0x8000);
                    file.write_all_at(&ahead.to_le_bytes(), at)
                });
                if moved.is_err() {
                    // The driver's own deadline is left.
                    continue;
                }
            }
            if let Some(call) = &ring.call {
                // Somebody who looks without being called finds it as well.
                let _ = rustix::io::write(call, &1u64.to_ne_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn words(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn a_lost_ring_shows_in_its_used_index_and_is_not_asked_of_the_next_daemon() {
        let memory = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(memory.as_fd().try_clone_to_owned().unwrap());
        file.set_len(1 << 16).unwrap();
        let mut rings = Rings::default();
        // One region of 64 KiB at 0x10000, in QEMU's eyes at 0x7000_0000.
        let mut table = Message::asking(
            r::SET_MEM_TABLE,
            words(&[1, 0x1_0000, 0x1_0000, 0x7000_0000, 0]),
        );
        table.files = vec![memory];
        rings.note(&table).unwrap();
        let address = words(&[1, 0x7000_1000, 0x7000_3000, 0x7000_2000, 0]);
        let address = Message::asking(r::SET_VRING_ADDR, address);
        rings.note(&address).unwrap();
        let base = Message::asking(r::GET_VRING_BASE, words(&[1]));
        assert!(matches!(rings.note(&base).unwrap(), Verdict::Pass));
        file.write_all_at(&5u16.to_le_bytes(), 0x3002).unwrap();
        rings.break_all();
        let mut index = [0; 2];
        file.read_exact_at(&mut index, 0x3002).unwrap();
        assert_eq!(u16::from_le_bytes(index), 0x8005);
        assert!(matches!(
            rings.note(&base).unwrap(),
            Verdict::Answer(answer) if answer == [1, 0, 0, 0, 0, 0, 0, 0]
        ));
        // Once only; and what is set up anew is the new daemon's.
        rings.break_all();
        rings.note(&address).unwrap();
        assert!(matches!(rings.note(&base).unwrap(), Verdict::Pass));
    }
}
