//! Directories: READDIR, READDIRPLUS, and their records.
//!
//! The iterators cannot leave the reply. Each record is held against it and
//! against the rules for names before anything of it is handed out (a record
//! longer than its destination was CVE-2026-31694 in Linux).

use core::fmt;
use core::iter::FusedIterator;

use zerocopy::FromBytes;

use super::{
    Dialect, DirCookie, Entry, FileHandle, FileType, Found, Malformed, Name, NameError, NodeId,
    Opcode, OpenFlags, Payload, ReplyShape, Request, Writer, abi,
};

/// Reads entries of a directory. The reply is the number of bytes; the records
/// are in the caller's segments, for [`Dirents`]. None at all are the end.
#[derive(Clone, Copy, Debug)]
pub struct Readdir {
    /// The directory.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Where to begin: [`DirCookie::START`], or behind an earlier entry.
    pub cookie: DirCookie,
    /// Room for records. Less than 4096 can look like the end.
    pub size: u32,
    /// The flags that the directory was opened with.
    pub flags: OpenFlags,
}

/// Reads entries of a directory together with a lookup of each. The reply is the
/// number of bytes; the records are in the caller's segments, for
/// [`DirentsPlus`]. None at all are the end.
#[derive(Clone, Copy, Debug)]
pub struct Readdirplus {
    /// The directory.
    pub node: NodeId,
    /// The handle.
    pub fh: FileHandle,
    /// Where to begin: [`DirCookie::START`], or behind an earlier entry.
    pub cookie: DirCookie,
    /// Room for records. Less than 4096 can look like the end.
    pub size: u32,
    /// The flags that the directory was opened with.
    pub flags: OpenFlags,
}

fn read_in(fh: FileHandle, cookie: DirCookie, size: u32, flags: OpenFlags) -> abi::ReadIn {
    abi::ReadIn {
        fh: fh.0,
        offset: cookie.0,
        size,
        flags: flags.bits(),
        ..abi::ReadIn::default()
    }
}

impl Request for Readdir {
    const OPCODE: Opcode = Opcode::Readdir;
    const REPLY: ReplyShape = ReplyShape::Data;
    type Reply = usize;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&read_in(self.fh, self.cookie, self.size, self.flags));
    }

    fn data_in(&self) -> usize {
        self.size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<usize, Malformed> {
        Ok(payload.data)
    }
}

impl fmt::Display for Readdir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            cookie,
            size,
            ..
        } = self;
        write!(
            f,
            "READDIR node={node} fh={fh} cookie={cookie:#x} size={size}"
        )
    }
}

impl Request for Readdirplus {
    const OPCODE: Opcode = Opcode::Readdirplus;
    const REPLY: ReplyShape = ReplyShape::Data;
    type Reply = usize;

    fn node(&self) -> Option<NodeId> {
        Some(self.node)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        w.put(&read_in(self.fh, self.cookie, self.size, self.flags));
    }

    fn data_in(&self) -> usize {
        self.size as usize
    }

    fn decode(payload: Payload<'_>, _: &Dialect) -> Result<usize, Malformed> {
        Ok(payload.data)
    }
}

impl fmt::Display for Readdirplus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            fh,
            cookie,
            size,
            ..
        } = self;
        write!(
            f,
            "READDIRPLUS node={node} fh={fh} cookie={cookie:#x} size={size}"
        )
    }
}

/// The name of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryName<'a> {
    /// `.`, the directory.
    Dot,
    /// `..`, the directory above it.
    DotDot,
    /// An entry of the directory.
    Name(&'a Name),
}

impl<'a> EntryName<'a> {
    /// Returns the bytes.
    pub fn as_bytes(self) -> &'a [u8] {
        match self {
            Self::Dot => b".",
            Self::DotDot => b"..",
            Self::Name(name) => name.as_bytes(),
        }
    }
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirent<'a> {
    /// Inode number, by whatever numbering the server has for this purpose.
    pub ino: u64,
    /// Where to go on reading behind this entry.
    pub next: DirCookie,
    /// What it is; `None` if the server does not say.
    pub file_type: Option<FileType>,
    /// Its name.
    pub name: EntryName<'a>,
}

/// An entry of a directory with its inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirentPlus<'a> {
    /// The entry as READDIR has it.
    pub dirent: Dirent<'a>,
    /// The inode, of which the server counted a lookup. `None` where it counted
    /// none: for `.` and `..`, and where it could not look the name up. That
    /// does not mean that the name does not exist.
    pub entry: Option<Entry>,
}

/// Records are padded to this many bytes.
const ALIGN: usize = 8;

/// Takes one record off the beginning of `bytes`: what stands before its
/// [`abi::Dirent`], the entry, and all behind the record.
fn take_record<T: FromBytes>(
    bytes: &[u8],
    limit: usize,
    dirent_of: impl FnOnce(&T) -> abi::Dirent,
) -> Result<(T, Dirent<'_>, &[u8]), Malformed> {
    let (head, rest) = T::read_from_prefix(bytes).map_err(|_| Malformed::Truncated)?;
    let dirent = dirent_of(&head);
    let name_len = dirent.namelen as usize;
    if name_len == 0 || name_len > limit {
        return Err(Malformed::NameLen(dirent.namelen));
    }
    let name = rest.get(..name_len).ok_or(Malformed::Truncated)?;
    // The heads are multiples of the alignment, so padding depends on the name
    // alone. The last record of a reply has its padding too.
    let rest = rest
        .get(name_len.next_multiple_of(ALIGN)..)
        .ok_or(Malformed::Truncated)?;
    let name = match (Name::with_limit(name, limit), name) {
        (Ok(name), _) => EntryName::Name(name),
        (Err(NameError::Dots), b".") => EntryName::Dot,
        (Err(NameError::Dots), _) => EntryName::DotDot,
        (Err(_), _) => return Err(Malformed::NameByte),
    };
    let dirent = Dirent {
        ino: dirent.ino,
        next: DirCookie(dirent.off),
        file_type: FileType::from_dirent(dirent.kind),
        name,
    };
    Ok((head, dirent, rest))
}

const _: () = assert!(size_of::<abi::Dirent>().is_multiple_of(ALIGN));
const _: () = assert!(size_of::<abi::Direntplus>().is_multiple_of(ALIGN));

macro_rules! records {
    ($(#[$doc:meta])* $name:ident of $item:ident; |$bytes:ident, $limit:ident| $take:expr) => {
        $(#[$doc])*
        ///
        /// Ends at the first record that is malformed, after having said so.
        #[derive(Clone, Debug)]
        pub struct $name<'a> {
            rest: &'a [u8],
            limit: usize,
        }

        impl<'a> $name<'a> {
            /// Reads the bytes that were returned, and no more than those.
            /// Names may have `limit` bytes ([`NAME_MAX`](super::NAME_MAX)).
            pub const fn new(bytes: &'a [u8], limit: usize) -> Self {
                Self { rest: bytes, limit }
            }
        }

        impl<'a> Iterator for $name<'a> {
            type Item = Result<$item<'a>, Malformed>;

            fn next(&mut self) -> Option<Self::Item> {
                if self.rest.is_empty() {
                    return None;
                }
                let ($bytes, $limit) = (self.rest, self.limit);
                self.rest = &[];
                let (item, rest) = match $take {
                    Ok(taken) => taken,
                    Err(malformed) => return Some(Err(malformed)),
                };
                self.rest = rest;
                Some(Ok(item))
            }
        }

        impl FusedIterator for $name<'_> {}
    };
}

records! {
    /// The entries in a reply to [`Readdir`].
    Dirents of Dirent;
    |bytes, limit| take_record(bytes, limit, |head: &abi::Dirent| *head)
        .map(|(_, dirent, rest)| (dirent, rest))
}

records! {
    /// The entries in a reply to [`Readdirplus`].
    ///
    /// When it ends early the server has counted lookups of the records behind;
    /// nothing is known of those.
    DirentsPlus of DirentPlus;
    |bytes, limit| take_record(bytes, limit, |head: &abi::Direntplus| head.dirent)
        .map(|(head, dirent, rest)| {
            let entry = match (Found::from_wire(&head.entry_out), dirent.name) {
                (Found::Entry(entry), EntryName::Name(_)) if entry.node != NodeId::ROOT => {
                    Some(entry)
                }
                _ => None,
            };
            (DirentPlus { dirent, entry }, rest)
        })
}
