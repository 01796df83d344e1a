//! Reading requests and writing replies, byte by byte.

use crate::operations::DirSink;
use crate::value::{Attr, Attributes, DirEntry, Entry, Errno, Opened, Statfs, Time};

/// Length of the header of a request.
pub(crate) const IN_HEADER: usize = 40;
/// Length of the header of a reply.
pub(crate) const OUT_HEADER: usize = 16;
/// Length of `fuse_write_in`.
pub(crate) const WRITE_IN: usize = 40;
/// Length of `fuse_dirent` without the name.
const DIRENT: usize = 24;
/// Length of `fuse_entry_out`.
const ENTRY_OUT: usize = 128;

/// The header of a request (`fuse_in_header`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    pub(crate) node: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
    /// Length of the extensions at the end of the body, in bytes.
    pub(crate) extensions: usize,
}

impl Header {
    /// Takes the header off the front of a request.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let _len = reader.u32()?;
        let header = Self {
            opcode: reader.u32()?,
            unique: reader.u64()?,
            node: reader.u64()?,
            uid: reader.u32()?,
            gid: reader.u32()?,
            pid: reader.u32()?,
            extensions: usize::from(reader.u16()?) * 8,
        };
        reader.u16()?;
        Some(header)
    }
}

/// Takes fields off the front of a request; `None` where it ends too early.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        Some(u16::from_ne_bytes(self.bytes(2)?.try_into().ok()?))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.bytes(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.bytes(8)?.try_into().ok()?))
    }

    /// Takes a name up to its zero byte.
    pub(crate) fn name(&mut self) -> Option<&'a [u8]> {
        let len = self.0.iter().position(|&byte| byte == 0)?;
        let name = self.bytes(len)?;
        self.bytes(1)?;
        Some(name)
    }
}

/// The body of a reply under construction.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_ne_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn zeros(&mut self, len: usize) -> &mut Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    pub(crate) fn attr(&mut self, attr: &Attr) -> &mut Self {
        let Attr {
            atime,
            mtime,
            ctime,
            ..
        } = attr;
        self.u64(attr.ino).u64(attr.size).u64(attr.blocks);
        for Time { seconds, .. } in [atime, mtime, ctime] {
            self.u64(*seconds as u64);
        }
        for Time { nanos, .. } in [atime, mtime, ctime] {
            self.u32(*nanos);
        }
        self.u32(attr.mode).u32(attr.nlink).u32(attr.uid);
        self.u32(attr.gid).u32(attr.rdev).u32(attr.blksize);
        self.u32(attr.flags)
    }

    pub(crate) fn attributes(&mut self, attributes: &Attributes) -> &mut Self {
        let valid = attributes.valid;
        self.u64(valid.as_secs()).u32(valid.subsec_nanos()).u32(0);
        self.attr(&attributes.attr)
    }

    pub(crate) fn entry(&mut self, entry: &Entry) -> &mut Self {
        let (name, attr) = (entry.name_valid, entry.attr_valid);
        self.u64(entry.node).u64(entry.generation);
        self.u64(name.as_secs()).u64(attr.as_secs());
        self.u32(name.subsec_nanos()).u32(attr.subsec_nanos());
        self.attr(&entry.attr)
    }

    pub(crate) fn opened(&mut self, opened: Opened) -> &mut Self {
        self.u64(opened.fh).u32(opened.flags).u32(0)
    }

    pub(crate) fn statfs(&mut self, state: &Statfs) -> &mut Self {
        self.u64(state.blocks).u64(state.bfree).u64(state.bavail);
        self.u64(state.files).u64(state.ffree);
        self.u32(state.bsize).u32(state.namelen).u32(state.frsize);
        self.zeros(4 + 6 * 4)
    }
}

/// A reply of directory records, at most as long as the kernel asked for.
pub(crate) struct Directory {
    pub(crate) writer: Writer,
    pub(crate) limit: usize,
}

impl Directory {
    fn record(&mut self, entry: DirEntry<'_>, found: Option<&Entry>) -> bool {
        let fixed = DIRENT + found.map_or(0, |_| ENTRY_OUT);
        let len = (fixed + entry.name.len()).next_multiple_of(8);
        if self.writer.0.len() + len > self.limit {
            return false;
        }
        let end = self.writer.0.len() + len;
        if let Some(found) = found {
            self.writer.entry(found);
        }
        self.writer.u64(entry.ino).u64(entry.next);
        self.writer.u32(entry.name.len() as u32).u32(entry.kind);
        self.writer.bytes(entry.name);
        self.writer.0.resize(end, 0);
        true
    }
}

impl DirSink for Directory {
    fn add(&mut self, entry: DirEntry<'_>) -> bool {
        self.record(entry, None)
    }

    fn add_plus(&mut self, entry: DirEntry<'_>, found: &Entry) -> bool {
        self.record(entry, Some(found))
    }
}

/// Returns the header of a reply with `body` bytes after it.
pub(crate) fn out_header(unique: u64, result: Result<usize, Errno>) -> [u8; OUT_HEADER] {
    let (len, error) = match result {
        Ok(body) => (OUT_HEADER + body, 0),
        Err(Errno(number)) => (OUT_HEADER, -number),
    };
    let mut header = [0; OUT_HEADER];
    header[0..4].copy_from_slice(&(len as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..16].copy_from_slice(&unique.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn structures_have_the_lengths_of_the_header_file() {
        let len = |fill: &dyn Fn(&mut Writer) -> usize| fill(&mut Writer::default());
        let attr = Attr::default();
        let valid = Duration::ZERO;
        let entry = Entry {
            node: 1,
            generation: 0,
            name_valid: valid,
            attr_valid: valid,
            attr,
        };
        let attributes = Attributes { valid, attr };
        assert_eq!(len(&|writer| writer.attr(&attr).0.len()), 88);
        assert_eq!(len(&|writer| writer.entry(&entry).0.len()), ENTRY_OUT);
        assert_eq!(len(&|writer| writer.attributes(&attributes).0.len()), 104);
        assert_eq!(len(&|writer| writer.opened(Opened::default()).0.len()), 16);
        assert_eq!(len(&|writer| writer.statfs(&Statfs::default()).0.len()), 80);
    }

    #[test]
    fn directory_records_are_padded_and_never_cut() {
        let mut directory = Directory {
            writer: Writer::default(),
            limit: 32 + 40,
        };
        let entry = |name| DirEntry {
            ino: 1,
            next: 2,
            kind: 4,
            name,
        };
        assert!(directory.add(entry(b"12345678")));
        assert!(directory.add(entry(b"123456789")));
        assert_eq!(directory.writer.0.len(), 72);
        assert!(!directory.add(entry(b"1")));
        assert_eq!(directory.writer.0.len(), 72);
    }

    #[test]
    fn a_reader_does_not_go_past_the_end() {
        let mut reader = Reader(b"name\0rest");
        assert_eq!(reader.name(), Some(&b"name"[..]));
        assert_eq!(reader.u64(), None);
        assert_eq!(reader.name(), None);
        assert_eq!(reader.u32(), Some(u32::from_ne_bytes(*b"rest")));
        assert_eq!(reader.u16(), None);
    }
}
