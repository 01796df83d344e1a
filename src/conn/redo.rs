//! What may be sent again after its reply was lost.
//!
//! A request that the device never got may always be. One that it got may have
//! been carried out, and is sent again only where that changes nothing:
//!
//! | request | sent again |
//! |---|---|
//! | LOOKUP, GETATTR, READ, READDIR and whatever else only asks | yes |
//! | OPEN, OPENDIR | yes: the first handle went with its session |
//! | SETATTR, SETXATTR without CREATE, FSYNC, SYNCFS, FLUSH, SETLK, SETLKW | yes: twice is as good as once |
//! | WRITE at an offset, SETATTR of the size, OPEN with O_TRUNC, FALLOCATE that neither shifts nor appends | where no other change of this guest's to the same bytes was under way or was made since |
//! | CREATE, MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, TMPFILE, REMOVEXATTR, COPY_FILE_RANGE, IOCTL, appending WRITE | no: the caller gets EIO |
//!
//! # Why a WRITE may be
//!
//! It is not answered, so its caller has not gone on: nothing that the caller
//! does later can be undone by it. Carried out twice with nothing in between it
//! leaves what it leaves once. What could come in between is another change of
//! the same bytes: those of this guest are in [`Changes`], noted when they are
//! sent and when they are answered, and one that lies behind the WRITE's own
//! mark and touches its bytes keeps it from being sent again. Of several writes
//! to the same bytes at once only the last one sent is repeated. What other
//! clients of the directory do, and stores through the DAX window, are not seen
//! here; as with NFS, who shares bytes with others locks them.

use core::mem::offset_of;

use crate::sync::{Rank, SpinLock};
use crate::wire::ids::get;
use crate::wire::{NodeId, Opcode, OpenFlags, REQUEST_HEADER, SetattrValid, abi};

/// Whether a request that may have been carried out may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Redo {
    /// It changes nothing, or nothing more.
    Yes,
    /// Unless something else changed these bytes meanwhile.
    Unless(Span),
    /// No.
    No,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    node: u64,
    start: u64,
    /// First byte behind.
    end: u64,
}

impl Span {
    fn overlaps(&self, other: &Self) -> bool {
        self.node == other.node && self.start < other.end && other.start < self.end
    }
}

/// `FALLOC_FL_COLLAPSE_RANGE` and `FALLOC_FL_INSERT_RANGE`.
const FALLOC_SHIFTS: u32 = 0x08 | 0x20;
/// `FUSE_WRITE_CACHE`.
const WRITE_CACHE: u32 = 1 << 0;
/// `XATTR_CREATE`.
const XATTR_CREATE: u32 = 1;

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Says whether an encoded request may be sent again; `node` is its node as the
/// caller knows it.
pub(super) fn redo(opcode: Opcode, node: NodeId, request: &[u8]) -> Redo {
    use Opcode as O;
    let body = request.get(REQUEST_HEADER..).unwrap_or_default();
    match opcode {
        O::Lookup | O::Getattr | O::Readlink | O::Read | O::Statfs | O::Getxattr => Redo::Yes,
        O::Listxattr | O::Readdir | O::Readdirplus | O::Access | O::Bmap | O::Getlk => Redo::Yes,
        O::Lseek | O::Statx | O::Poll | O::Opendir => Redo::Yes,
        O::Fsync | O::Fsyncdir | O::Syncfs | O::Flush | O::Setlk | O::Setlkw => Redo::Yes,
        O::Setxattr if word(body, offset_of!(abi::SetxattrIn, flags)) & XATTR_CREATE == 0 => {
            Redo::Yes
        }
        O::Open | O::Setattr | O::Fallocate | O::Write => match span(opcode, node, request) {
            None => Redo::Yes,
            Some(span) if span.end == u64::MAX && opcode == O::Write => Redo::No,
            Some(_) if opcode == O::Fallocate && shifts(body) => Redo::No,
            Some(span) => Redo::Unless(span),
        },
        _ => Redo::No,
    }
}

fn shifts(body: &[u8]) -> bool {
    word(body, offset_of!(abi::FallocateIn, mode)) & FALLOC_SHIFTS != 0
}

/// Returns which bytes a request changes. An appending WRITE may change any.
pub(super) fn span(opcode: Opcode, node: NodeId, request: &[u8]) -> Option<Span> {
    use Opcode as O;
    let body = request.get(REQUEST_HEADER..)?;
    let mut node = node.get();
    let mut whole = (0, u64::MAX);
    match opcode {
        O::Write => {
            let flags = OpenFlags::from_bits_retain(word(body, offset_of!(abi::WriteIn, flags)));
            let cached = word(body, offset_of!(abi::WriteIn, write_flags)) & WRITE_CACHE != 0;
            if cached || !flags.contains(OpenFlags::APPEND) {
                let start = get(body, offset_of!(abi::WriteIn, offset))?;
                let len = word(body, offset_of!(abi::WriteIn, size));
                // Offsets fit an `i64`, so this is never the mark of a whole file.
                whole = (start, start.saturating_add(len.into()).min(u64::MAX - 1));
            }
        }
        O::Fallocate if !shifts(body) => {
            let start = get(body, offset_of!(abi::FallocateIn, offset))?;
            let len = get(body, offset_of!(abi::FallocateIn, length))?;
            whole = (start, start.saturating_add(len));
        }
        O::Fallocate => {}
        O::CopyFileRange | O::CopyFileRange64 => {
            node = get(body, offset_of!(abi::CopyFileRangeIn, nodeid_out))?;
            let start = get(body, offset_of!(abi::CopyFileRangeIn, off_out))?;
            let len = get(body, offset_of!(abi::CopyFileRangeIn, len))?;
            whole = (start, start.saturating_add(len));
        }
        O::Setattr => {
            let valid = word(body, offset_of!(abi::SetattrIn, valid));
            if !SetattrValid::from_bits_retain(valid).contains(SetattrValid::SIZE) {
                return None;
            }
        }
        O::Open | O::Create => {
            let flags = OpenFlags::from_bits_retain(word(body, 0));
            if !flags.contains(OpenFlags::TRUNC) {
                return None;
            }
        }
        _ => return None,
    }
    Some(Span {
        node,
        start: whole.0,
        end: whole.1,
    })
}

/// Changes that are remembered.
const KEPT: usize = 128;

/// The latest changes of file data, in the order in which they were sent and
/// answered.
pub(super) struct Changes(SpinLock<Log>);

struct Log {
    /// How many there were.
    count: u64,
    spans: [Span; KEPT],
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Changes {
    pub(super) const fn new() -> Self {
        let none = Span {
            node: 0,
            start: 0,
            end: 0,
        };
        Self(SpinLock::new(
            Rank::Leaf,
            Log {
                count: 0,
                spans: [none; KEPT],
            },
        ))
    }

    /// Notes a change. Returns the place behind it.
    pub(super) fn note(&self, span: Span) -> Mark {
        let mut log = self.0.lock();
        let at = (log.count % KEPT as u64) as usize;
        log.spans[at] = span;
        log.count += 1;
        Mark(log.count)
    }

    /// Returns whether a change of some of these bytes may stand behind `mark`.
    pub(super) fn touched(&self, mark: Mark, span: &Span) -> bool {
        let log = self.0.lock();
        let behind = log.count - mark.0;
        behind > KEPT as u64
            || (mark.0..log.count).any(|at| {
                let at = (at % KEPT as u64) as usize;
                log.spans[at].overlaps(span)
            })
    }
}

#[cfg(test)]
#[path = "redo_tests.rs"]
mod tests;
