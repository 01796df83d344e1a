//! FUSE requests over the front end.

use super::{Reply, Vm};

pub(crate) const ROOT: u64 = 1;
pub(crate) const MAP_READ: u64 = 2;
pub(crate) const MAP_WRITE: u64 = 1;
pub(crate) const PIECE: u64 = 2 << 20;

/// INIT flags: all but the reserved one.
pub(crate) const ALL_FLAGS: u64 = !(1 << 31);

pub(crate) fn request(opcode: u32, unique: u64, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 40];
    bytes[0..4].copy_from_slice(&(40 + body.len() as u32).to_le_bytes());
    bytes[4..8].copy_from_slice(&opcode.to_le_bytes());
    bytes[8..16].copy_from_slice(&unique.to_le_bytes());
    bytes[16..24].copy_from_slice(&node.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// Little-endian words, one after the other.
pub(crate) fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_le_bytes()).collect()
}

/// A name as it stands in a request, with the NUL behind it.
pub(crate) fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// A body of words and a name.
pub(crate) fn with_name(fixed: &[u64], text: &str) -> Vec<u8> {
    [words(fixed), name(text)].concat()
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// What a reply holds after its header, or its errno. Panics unless the header is
/// that of `unique` and agrees with the used length.
pub(crate) fn outcome(reply: &Reply, unique: u64) -> Result<Vec<u8>, i32> {
    assert!(reply.used >= 16, "no reply: used {}", reply.used);
    assert_eq!(
        u32_at(&reply.bytes, 0),
        reply.used,
        "length in the header and in the ring"
    );
    assert_eq!(u64_at(&reply.bytes, 8), unique);
    match u32_at(&reply.bytes, 4) as i32 {
        0 => Ok(reply.bytes[16..reply.used as usize].to_vec()),
        e => {
            assert_eq!(reply.used, 16, "an error with a payload");
            Err(-e)
        }
    }
}

impl Vm {
    /// One request on a queue, with room for `room` bytes after the header.
    pub(crate) fn fuse_on(
        &mut self,
        queue: usize,
        opcode: u32,
        node: u64,
        body: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, i32> {
        let unique = self.unique();
        let reply = self.call(queue, &request(opcode, unique, node, body), 16 + room);
        outcome(&reply, unique)
    }

    pub(crate) fn fuse(
        &mut self,
        opcode: u32,
        node: u64,
        body: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, i32> {
        self.fuse_on(1, opcode, node, body, room)
    }

    pub(crate) fn init(&mut self) -> Vec<u8> {
        let mut body = vec![0; 64];
        body[0..4].copy_from_slice(&7u32.to_le_bytes());
        body[4..8].copy_from_slice(&38u32.to_le_bytes());
        body[12..16].copy_from_slice(&(ALL_FLAGS as u32).to_le_bytes());
        body[16..20].copy_from_slice(&((ALL_FLAGS >> 32) as u32).to_le_bytes());
        self.fuse(26, 0, &body, 64).expect("INIT")
    }

    /// The entry of a name: node, size, attribute flags.
    pub(crate) fn entry(&mut self, parent: u64, name: &str) -> Result<(u64, u64, u32), i32> {
        let entry = self.fuse(1, parent, format!("{name}\0").as_bytes(), 128)?;
        Ok((
            u64_at(&entry, 0),
            u64_at(&entry, 40 + 8),
            u32_at(&entry, 40 + 84),
        ))
    }

    pub(crate) fn lookup(&mut self, name: &str) -> u64 {
        self.entry(ROOT, name).expect("LOOKUP").0
    }

    pub(crate) fn open(&mut self, node: u64, flags: i32) -> Result<u64, i32> {
        let opened = self.fuse(14, node, &words(&[flags as u64]), 16)?;
        Ok(u64_at(&opened, 0))
    }

    pub(crate) fn read(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        size: u32,
    ) -> Result<Vec<u8>, i32> {
        self.fuse(
            15,
            node,
            &words(&[handle, offset, size.into(), 0, 0]),
            size as usize,
        )
    }

    pub(crate) fn write(
        &mut self,
        node: u64,
        handle: u64,
        offset: u64,
        data: &[u8],
    ) -> Result<u32, i32> {
        let mut body = words(&[handle, offset, data.len() as u64, 0, libc::O_RDWR as u64]);
        body.extend_from_slice(data);
        Ok(u32_at(&self.fuse(16, node, &body, 8)?, 0))
    }

    pub(crate) fn map(
        &mut self,
        node: u64,
        file: u64,
        len: u64,
        flags: u64,
        window: u64,
    ) -> Result<(), i32> {
        self.fuse(48, node, &words(&[u64::MAX, file, len, flags, window]), 0)
            .map(drop)
    }

    pub(crate) fn unmap(&mut self, spans: &[(u64, u64)]) -> Result<(), i32> {
        let mut body = (spans.len() as u32).to_le_bytes().to_vec();
        for &(at, len) in spans {
            body.extend(words(&[at, len]));
        }
        self.fuse(49, 0, &body, 0).map(drop)
    }
}
