//! The device side of a split virtqueue (virtio 1.3, 2.7).
//!
//! Reads what the driver publishes through [`Memory`], checks it against every
//! rule that the specification sets for drivers, and records what breaks one.

use std::collections::{BTreeMap, BTreeSet};

use virtio_fs::device::QueueLayout;

use crate::memory::{Access, BusError, Memory};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// `flags` of the available ring without event index.
const NO_INTERRUPT: u16 = 1;

/// A piece of memory in a descriptor chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) addr: u64,
    pub(crate) len: u32,
}

/// A request that the driver made available and the device owns.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub(crate) head: u16,
    pub(crate) readable: Vec<Segment>,
    pub(crate) writable: Vec<Segment>,
    /// All that is claimed with the chain, the indirect table included.
    claimed: Vec<Segment>,
}

impl Chain {
    pub(crate) fn writable_len(&self) -> usize {
        self.writable.iter().map(|s| s.len as usize).sum()
    }

    /// Copies everything readable out.
    pub(crate) fn read(&self, memory: &Memory) -> Result<Vec<u8>, BusError> {
        let mut bytes = Vec::new();
        for segment in &self.readable {
            let start = bytes.len();
            // A length that nothing backs must not be allocated first.
            memory.probe(segment.addr, segment.len as usize, Access::Read)?;
            bytes.resize(start + segment.len as usize, 0);
            memory.read(segment.addr, &mut bytes[start..])?;
        }
        Ok(bytes)
    }

    /// Copies as much of `bytes` in as fits and returns how much that was.
    pub(crate) fn write(&self, memory: &Memory, bytes: &[u8]) -> Result<usize, BusError> {
        let mut rest = bytes;
        for segment in &self.writable {
            let (now, later) = rest.split_at(rest.len().min(segment.len as usize));
            memory.write(segment.addr, now)?;
            rest = later;
        }
        Ok(bytes.len() - rest.len())
    }
}

#[derive(Clone, Copy, Debug)]
struct Descriptor {
    addr: u64,
    len: u32,
    flags: u16,
    next: u16,
}

/// Why a chain could not be taken.
type Broken = String;

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) index: u16,
    pub(crate) layout: QueueLayout,
    pub(crate) event_idx: bool,
    pub(crate) indirect: bool,
    /// The driver rang since the queue was last seen empty.
    pub(crate) kicked: bool,
    /// What the driver published cannot be followed any more.
    pub(crate) broken: bool,
    /// Violations since they were last collected.
    pub(crate) violations: Vec<String>,
    last_avail: u16,
    used: u16,
    /// Heads that the device owns, with the descriptors of each.
    in_flight: BTreeMap<u16, Vec<u16>>,
    owned: BTreeSet<u16>,
}

impl Queue {
    pub(crate) fn new(index: u16, layout: QueueLayout, event_idx: bool, indirect: bool) -> Self {
        Self {
            index,
            layout,
            event_idx,
            indirect,
            kicked: false,
            broken: false,
            violations: Vec::new(),
            last_avail: 0,
            used: 0,
            in_flight: BTreeMap::new(),
            owned: BTreeSet::new(),
        }
    }

    /// The three areas with their lengths and how the device uses them.
    pub(crate) fn areas(&self) -> [(u64, usize, Access); 3] {
        let size = usize::from(self.layout.size);
        [
            (self.layout.descriptors, 16 * size, Access::Read),
            (self.layout.available, 6 + 2 * size, Access::Read),
            (self.layout.used, 6 + 8 * size, Access::Write),
        ]
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Number of requests published and not yet taken.
    pub(crate) fn available(&self, memory: &Memory) -> u16 {
        let published = memory.load_u16(self.layout.available + 2);
        published.map_or(0, |index| index.wrapping_sub(self.last_avail))
    }

    fn violation(&mut self, text: impl AsRef<str>) {
        self.violations
            .push(format!("queue {}: {}", self.index, text.as_ref()));
    }

    /// Takes the next request. A broken one ends the use of the queue.
    pub(crate) fn pop(&mut self, memory: &Memory) -> Option<Chain> {
        if self.broken {
            return None;
        }
        match self.try_pop(memory) {
            Ok(chain) => chain,
            Err(why) => {
                self.violation(why);
                self.broken = true;
                None
            }
        }
    }

    fn try_pop(&mut self, memory: &Memory) -> Result<Option<Chain>, Broken> {
        let bus = |_| "ring is not in device memory".to_string();
        let flags = memory.load_u16(self.layout.available).map_err(bus)?;
        if flags & !NO_INTERRUPT != 0 || self.event_idx && flags != 0 {
            self.violation(format!("available ring flags {flags:#x}"));
        }
        let index = memory.load_u16(self.layout.available + 2).map_err(bus)?;
        let ready = index.wrapping_sub(self.last_avail);
        if ready == 0 {
            return Ok(None);
        }
        if ready > self.layout.size {
            return Err(format!(
                "available index went from {} to {index}",
                self.last_avail
            ));
        }
        let slot = u64::from(self.last_avail % self.layout.size);
        let head = memory
            .load_u16(self.layout.available + 4 + 2 * slot)
            .map_err(bus)?;
        self.last_avail = self.last_avail.wrapping_add(1);
        let (chain, used) = self.walk(memory, head)?;
        for &d in &used {
            if !self.owned.insert(d) {
                return Err(format!(
                    "descriptor {d} of chain {head} is already in flight"
                ));
            }
        }
        self.in_flight.insert(head, used);
        for segment in &chain.claimed {
            memory.claim(segment.addr, segment.len as usize);
        }
        Ok(Some(chain))
    }

    /// Follows a chain and returns it with the ring's descriptors it takes.
    fn walk(&mut self, memory: &Memory, head: u16) -> Result<(Chain, Vec<u16>), Broken> {
        let size = self.layout.size;
        let mut chain = Chain {
            head,
            readable: Vec::new(),
            writable: Vec::new(),
            claimed: Vec::new(),
        };
        let mut used = Vec::new();
        let mut at = head;
        let mut length = 0;
        loop {
            if at >= size {
                return Err(format!("descriptor {at} of chain {head} is out of range"));
            }
            if used.contains(&at) {
                return Err(format!("chain {head} loops at descriptor {at}"));
            }
            used.push(at);
            let d = descriptor(memory, self.layout.descriptors, at)?;
            if d.flags & !(NEXT | WRITE | INDIRECT) != 0 {
                self.violation(format!("descriptor {at}: flags {:#x}", d.flags));
            }
            if d.flags & INDIRECT != 0 {
                length += self.walk_table(memory, &d, &mut chain)?;
                break;
            }
            length += 1;
            self.add(&mut chain, &d)?;
            if d.flags & NEXT == 0 {
                break;
            }
            at = d.next;
        }
        if length > usize::from(size) {
            self.violation(format!(
                "chain {head} has {length} descriptors, the queue {size}"
            ));
        }
        Ok((chain, used))
    }

    fn walk_table(
        &mut self,
        memory: &Memory,
        d: &Descriptor,
        chain: &mut Chain,
    ) -> Result<usize, Broken> {
        if !self.indirect {
            return Err("indirect descriptor without the feature".into());
        }
        if d.flags & (NEXT | WRITE) != 0 {
            self.violation(format!("indirect descriptor with flags {:#x}", d.flags));
        }
        if d.len == 0 || !d.len.is_multiple_of(16) {
            return Err(format!("indirect table of {} bytes", d.len));
        }
        if !d.addr.is_multiple_of(16) {
            self.violation(format!("indirect table at {:#x}", d.addr));
        }
        chain.claimed.push(Segment {
            addr: d.addr,
            len: d.len,
        });
        let count = d.len / 16;
        let (mut at, mut taken) = (0_u16, 0_usize);
        loop {
            if u32::from(at) >= count {
                return Err(format!("entry {at} of an indirect table of {count}"));
            }
            taken += 1;
            if taken > count as usize {
                return Err("indirect table loops".into());
            }
            let d = descriptor(memory, d.addr, at)?;
            if d.flags & !(NEXT | WRITE) != 0 {
                return Err(format!("indirect table entry with flags {:#x}", d.flags));
            }
            self.add(chain, &d)?;
            if d.flags & NEXT == 0 {
                return Ok(taken);
            }
            at = d.next;
        }
    }

    fn add(&mut self, chain: &mut Chain, d: &Descriptor) -> Result<(), Broken> {
        let segment = Segment {
            addr: d.addr,
            len: d.len,
        };
        if d.len == 0 {
            self.violation(format!("chain {}: descriptor of no bytes", chain.head));
            return Ok(());
        }
        if d.flags & WRITE != 0 {
            chain.writable.push(segment);
        } else if chain.writable.is_empty() {
            chain.readable.push(segment);
        } else {
            return Err(format!("chain {}: readable after writable", chain.head));
        }
        chain.claimed.push(segment);
        Ok(())
    }

    /// Gives a request back: writes the used element and publishes it. Returns
    /// whether the driver wants an interrupt for it.
    pub(crate) fn push(
        &mut self,
        memory: &Memory,
        chain: &Chain,
        len: u32,
    ) -> Result<bool, BusError> {
        self.forget(chain.head);
        for segment in &chain.claimed {
            memory.release(segment.addr, segment.len as usize);
        }
        self.push_raw(memory, u32::from(chain.head), len)
    }

    /// Publishes a used element whatever it says.
    pub(crate) fn push_raw(
        &mut self,
        memory: &Memory,
        id: u32,
        len: u32,
    ) -> Result<bool, BusError> {
        let slot = u64::from(self.used % self.layout.size);
        let mut element = [0; 8];
        element[..4].copy_from_slice(&id.to_le_bytes());
        element[4..].copy_from_slice(&len.to_le_bytes());
        memory.write(self.layout.used + 4 + 8 * slot, &element)?;
        self.advance(memory, 1)
    }

    /// Moves the used index on without writing elements, if `by` is not 1.
    pub(crate) fn advance(&mut self, memory: &Memory, by: u16) -> Result<bool, BusError> {
        let old = self.used;
        self.used = self.used.wrapping_add(by);
        memory.store_u16(self.layout.used + 2, self.used)?;
        let size = u64::from(self.layout.size);
        if self.event_idx {
            let event = memory.load_u16(self.layout.available + 4 + 2 * size)?;
            Ok(need_event(event, self.used, old))
        } else {
            Ok(memory.load_u16(self.layout.available)? & NO_INTERRUPT == 0)
        }
    }

    fn forget(&mut self, head: u16) {
        for d in self.in_flight.remove(&head).unwrap_or_default() {
            self.owned.remove(&d);
        }
    }

    /// Asks for a notification of the next request (virtio 1.3, 2.7.10). The
    /// caller looks at the ring once more afterwards.
    pub(crate) fn listen(&mut self, memory: &Memory) -> Result<(), BusError> {
        if self.event_idx {
            let size = u64::from(self.layout.size);
            memory.store_u16(self.layout.used + 4 + 8 * size, self.last_avail)
        } else {
            memory.store_u16(self.layout.used, 0)
        }
    }

    /// Says that no notification is needed for now.
    pub(crate) fn mute(&mut self, memory: &Memory) -> Result<(), BusError> {
        if self.event_idx {
            return Ok(());
        }
        memory.store_u16(self.layout.used, 1)
    }
}

/// `vring_need_event` of the specification: `event` lies in `old..new`.
pub(crate) fn need_event(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

fn descriptor(memory: &Memory, table: u64, index: u16) -> Result<Descriptor, Broken> {
    let mut raw = [0; 16];
    let at = table + 16 * u64::from(index);
    memory
        .read(at, &mut raw)
        .map_err(|_| format!("descriptor {index} is not readable"))?;
    let value = u128::from_le_bytes(raw);
    Ok(Descriptor {
        addr: value as u64,
        len: (value >> 64) as u32,
        flags: (value >> 96) as u16,
        next: (value >> 112) as u16,
    })
}
