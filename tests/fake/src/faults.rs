//! Misbehaviour on purpose: what the device does to the replies of a server
//! that is itself correct.

use core::fmt;
use core::time::Duration;

use crate::abi::{ENTRY_OUT, OUT_HEADER, Op};

/// A field of `fuse_attr`, wherever the reply carries one. In STATX the field
/// of the same meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttrField {
    /// Inode number.
    Ino,
    /// Size.
    Size,
    /// Blocks.
    Blocks,
    /// Nanoseconds of the last access.
    AtimeNsec,
    /// Nanoseconds of the last change of the content.
    MtimeNsec,
    /// Nanoseconds of the last change.
    CtimeNsec,
    /// Type and permissions.
    Mode,
    /// Link count.
    Nlink,
    /// Owner.
    Uid,
    /// Group.
    Gid,
    /// Preferred block size.
    Blksize,
    /// `attr.flags`; none in STATX.
    Flags,
}

impl AttrField {
    /// Offset and width in `fuse_attr`.
    fn in_attr(self) -> (usize, usize) {
        match self {
            Self::Ino => (0, 8),
            Self::Size => (8, 8),
            Self::Blocks => (16, 8),
            Self::AtimeNsec => (48, 4),
            Self::MtimeNsec => (52, 4),
            Self::CtimeNsec => (56, 4),
            Self::Mode => (60, 4),
            Self::Nlink => (64, 4),
            Self::Uid => (68, 4),
            Self::Gid => (72, 4),
            Self::Blksize => (80, 4),
            Self::Flags => (84, 4),
        }
    }

    /// Offset and width in `struct statx`.
    fn in_statx(self) -> Option<(usize, usize)> {
        Some(match self {
            Self::Ino => (32, 8),
            Self::Size => (40, 8),
            Self::Blocks => (48, 8),
            Self::AtimeNsec => (72, 4),
            Self::MtimeNsec => (120, 4),
            Self::CtimeNsec => (104, 4),
            Self::Mode => (28, 2),
            Self::Nlink => (16, 4),
            Self::Uid => (20, 4),
            Self::Gid => (24, 4),
            Self::Blksize => (4, 4),
            Self::Flags => return None,
        })
    }
}

/// A field of `fuse_entry_out` before the attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryField {
    /// Node id.
    Nodeid,
    /// Generation.
    Generation,
    /// Seconds that the name holds.
    EntryValid,
    /// Seconds that the attributes hold.
    AttrValid,
    /// Nanoseconds that the name holds.
    EntryValidNsec,
    /// Nanoseconds that the attributes hold.
    AttrValidNsec,
}

impl EntryField {
    fn place(self) -> (usize, usize) {
        match self {
            Self::Nodeid => (0, 8),
            Self::Generation => (8, 8),
            Self::EntryValid => (16, 8),
            Self::AttrValid => (24, 8),
            Self::EntryValidNsec => (32, 4),
            Self::AttrValidNsec => (36, 4),
        }
    }
}

/// What is wrong with the records of READDIR or READDIRPLUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DirFault {
    /// The first record that is not `.` or `..` says its name is this long.
    NameLen(u32),
    /// Its name begins with these bytes; the length stays.
    Name(Vec<u8>),
    /// Its type is this.
    Type(u32),
    /// All records have this cookie, so whoever goes on from it goes in circles.
    Cookie(u64),
    /// The last bytes of the reply are missing: the last record is cut.
    Cut(usize),
    /// The reply goes on with these bytes.
    Extra(Vec<u8>),
}

/// Changes a reply; gets the request and the reply, headers included.
pub type Edit = Box<dyn FnMut(&[u8], &mut Vec<u8>) + Send>;

/// One kind of misbehaviour.
pub enum Fault {
    /// The reply has only so many bytes, and its header says so.
    Short(usize),
    /// The reply has so many bytes more, and its header says so.
    Long(usize),
    /// The header answers another request.
    Unique(u64),
    /// The header gives another length than there is.
    HeaderLen(u32),
    /// The reply is an error with this `error` field, as it is.
    Error(i32),
    /// The `error` field is set and the body follows all the same.
    ErrorWithBody(i32),
    /// An attribute is replaced, in the first record of a directory reply that
    /// is not `.` or `..`.
    Attr(AttrField, u64),
    /// A field of the entry is replaced.
    Entry(EntryField, u64),
    /// Bytes of the body are replaced.
    Patch {
        /// Where in the body.
        offset: usize,
        /// By what.
        bytes: Vec<u8>,
    },
    /// The whole body is replaced; the header fits it.
    Body(Vec<u8>),
    /// Directory records are spoilt.
    Dir(DirFault),
    /// Anything else.
    Edit(Edit),
    /// The reply comes so much later.
    Delay(Duration),
    /// The reply comes after so many others, or when nothing else goes on.
    After(u64),
    /// The reply comes when the test calls
    /// [`release_held`](crate::Control::release_held), or never.
    Hold,
    /// Nothing is written and the used length is 0.
    Unwritten,
    /// The used length is this.
    UsedLen(u32),
    /// The used element has this id in place of the request's, which stays with
    /// the device.
    UsedId(u32),
    /// A used element with this id comes before the real one.
    UsedStray(u32),
    /// The used element comes twice.
    UsedTwice,
    /// The used index goes on by so many more, without elements.
    IndexJump(u16),
    /// The device asks for a reset and serves nothing more; the request stays
    /// with it.
    NeedsReset,
    /// The device is gone before it replies.
    Vanish,
    /// The window is gone before the reply comes.
    WindowVanish,
    /// The configuration space changes before the reply comes.
    Config {
        /// Offset of the change.
        offset: usize,
        /// The new bytes.
        bytes: Vec<u8>,
    },
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fault")
    }
}

/// Says which replies a [`Fault`] befalls.
#[derive(Debug)]
pub struct Rule {
    op: Option<Op>,
    skip: u64,
    times: u64,
    fault: Fault,
}

impl Rule {
    /// The next reply to a request of this kind, once.
    pub fn on(op: Op, fault: Fault) -> Self {
        Self {
            op: Some(op),
            skip: 0,
            times: 1,
            fault,
        }
    }

    /// The next reply of any kind, once.
    pub fn any(fault: Fault) -> Self {
        Self {
            op: None,
            skip: 0,
            times: 1,
            fault,
        }
    }

    /// Begins with the `n`-th such reply; 1 is the next one.
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// Befalls so many replies.
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    /// Befalls all replies from then on.
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Says whether this reply is one of those, and counts it.
    fn applies(&mut self, op: Op) -> bool {
        if self.op.is_some_and(|wanted| wanted != op) || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times = self.times.saturating_sub(u64::from(self.times != u64::MAX));
        true
    }
}

/// When a reply is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    Later(Duration),
    After(u64),
    Never,
}

/// What happens to the used ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Used {
    Once,
    OtherId(u32),
    Stray(u32),
    Twice,
    Jump(u16),
}

/// What happens to the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    NeedsReset,
    Vanish,
    WindowVanish,
    Config(usize, Vec<u8>),
}

/// A reply with everything that is done to it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) bytes: Vec<u8>,
    pub(crate) used_len: Option<u32>,
    pub(crate) used: Used,
    pub(crate) when: When,
    pub(crate) event: Option<Event>,
    /// The client cannot take what the reply grants.
    pub(crate) lost: bool,
}

/// All rules, in the order they were added.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Vec<Rule>,
}

impl Faults {
    pub(crate) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    /// Does to a reply all that applies to it.
    pub(crate) fn apply(&mut self, op: Op, request: &[u8], reply: Vec<u8>) -> Delivery {
        let before = reply.clone();
        let mut delivery = Delivery {
            bytes: reply,
            used_len: None,
            used: Used::Once,
            when: When::Now,
            event: None,
            lost: false,
        };
        for rule in self
            .rules
            .iter_mut()
            .filter_map(|r| r.applies(op).then_some(r))
        {
            spoil(&mut delivery, op, request, &mut rule.fault);
        }
        self.rules.retain(|rule| rule.times > 0);
        // The header, and the node id where there is one, must have come through.
        let known = before.len().min(OUT_HEADER + 8);
        let bytes = &delivery.bytes;
        delivery.lost |= bytes.len() != before.len() || bytes[..known] != before[..known];
        delivery
    }
}

fn spoil(delivery: &mut Delivery, op: Op, request: &[u8], fault: &mut Fault) {
    let bytes = &mut delivery.bytes;
    match fault {
        Fault::Short(n) => {
            bytes.truncate(*n);
            set_len(bytes);
        }
        Fault::Long(n) => {
            bytes.resize(bytes.len() + *n, 0xA5);
            set_len(bytes);
        }
        Fault::Unique(unique) => put(bytes, 8, &unique.to_le_bytes()),
        Fault::HeaderLen(len) => {
            put(bytes, 0, &len.to_le_bytes());
            delivery.lost = true;
        }
        Fault::Error(error) => {
            bytes.truncate(OUT_HEADER);
            put(bytes, 4, &error.to_le_bytes());
            set_len(bytes);
        }
        Fault::ErrorWithBody(error) => put(bytes, 4, &error.to_le_bytes()),
        Fault::Attr(field, value) => {
            let place = match op {
                Op::GETATTR | Op::SETATTR => Some((OUT_HEADER + 16, field.in_attr())),
                Op::STATX => field.in_statx().map(|at| (OUT_HEADER + 32, at)),
                _ => entry_at(op, bytes).map(|at| (at + 40, field.in_attr())),
            };
            if let Some((base, (offset, width))) = place {
                put(bytes, base + offset, &value.to_le_bytes()[..width]);
            }
        }
        Fault::Entry(field, value) => {
            let (offset, width) = field.place();
            if let Some(at) = entry_at(op, bytes) {
                put(bytes, at + offset, &value.to_le_bytes()[..width]);
            }
        }
        Fault::Patch { offset, bytes: new } => put(bytes, OUT_HEADER + *offset, new),
        Fault::Body(body) => {
            bytes.truncate(OUT_HEADER);
            bytes.extend_from_slice(body);
            set_len(bytes);
        }
        Fault::Dir(fault) => spoil_dir(bytes, op, fault),
        Fault::Edit(edit) => edit(request, bytes),
        Fault::Delay(time) => delivery.when = When::Later(*time),
        Fault::After(n) => delivery.when = When::After(*n),
        Fault::Hold => delivery.when = When::Never,
        Fault::Unwritten => {
            bytes.clear();
            delivery.used_len = Some(0);
        }
        Fault::UsedLen(len) => {
            // A length beyond the buffer harms nothing that was written.
            delivery.lost |= (*len as usize) < bytes.len();
            delivery.used_len = Some(*len);
        }
        Fault::UsedId(id) => {
            delivery.used = Used::OtherId(*id);
            delivery.lost = true;
        }
        Fault::UsedStray(id) => delivery.used = Used::Stray(*id),
        Fault::UsedTwice => delivery.used = Used::Twice,
        Fault::IndexJump(by) => delivery.used = Used::Jump(*by),
        Fault::NeedsReset => delivery.event = Some(Event::NeedsReset),
        Fault::Vanish => delivery.event = Some(Event::Vanish),
        Fault::WindowVanish => delivery.event = Some(Event::WindowVanish),
        Fault::Config { offset, bytes } => {
            delivery.event = Some(Event::Config(*offset, bytes.clone()));
        }
    }
}

/// Overwrites bytes, as far as they exist.
fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (old, new) in bytes.iter_mut().skip(at).zip(new) {
        *old = *new;
    }
}

fn set_len(bytes: &mut [u8]) {
    let len = bytes.len() as u32;
    put(bytes, 0, &len.to_le_bytes());
}

/// Records of a directory reply: where each begins and its name's length.
fn records(op: Op, bytes: &[u8]) -> Vec<(usize, usize)> {
    let head = dirent_at(op) + 24;
    let mut found = Vec::new();
    let mut at = OUT_HEADER;
    while let Some(len) = bytes.get(at + head - 8..at + head - 4) {
        let len = len.iter().rev().fold(0, |n, &b| n << 8 | usize::from(b));
        found.push((at, len));
        at += (head + len).next_multiple_of(8);
    }
    found
}

fn dirent_at(op: Op) -> usize {
    if op == Op::READDIRPLUS { ENTRY_OUT } else { 0 }
}

/// The first record that is neither `.` nor `..`.
fn first_record(op: Op, bytes: &[u8]) -> Option<(usize, usize)> {
    let name = dirent_at(op) + 24;
    records(op, bytes).into_iter().find(|&(at, len)| {
        let name = bytes.get(at + name..at + name + len);
        name.is_some_and(|name| name != b"." && name != b"..")
    })
}

/// Where a reply has its `fuse_entry_out`.
fn entry_at(op: Op, bytes: &[u8]) -> Option<usize> {
    match op {
        Op::LOOKUP | Op::SYMLINK | Op::MKNOD | Op::MKDIR | Op::LINK | Op::CREATE | Op::TMPFILE => {
            Some(OUT_HEADER)
        }
        Op::READDIRPLUS => first_record(op, bytes).map(|(at, _)| at),
        _ => None,
    }
}

fn spoil_dir(bytes: &mut Vec<u8>, op: Op, fault: &DirFault) {
    let dirent = dirent_at(op);
    let first = first_record(op, bytes).map(|(at, _)| at + dirent);
    match (fault, first) {
        (DirFault::NameLen(len), Some(at)) => put(bytes, at + 16, &len.to_le_bytes()),
        (DirFault::Name(name), Some(at)) => put(bytes, at + 24, name),
        (DirFault::Type(kind), Some(at)) => put(bytes, at + 20, &kind.to_le_bytes()),
        (DirFault::Cookie(cookie), _) => {
            for (at, _) in records(op, bytes) {
                put(bytes, at + dirent + 8, &cookie.to_le_bytes());
            }
        }
        (DirFault::Cut(n), _) => {
            bytes.truncate(bytes.len().saturating_sub(*n).max(OUT_HEADER));
            set_len(bytes);
        }
        (DirFault::Extra(more), _) => {
            bytes.extend_from_slice(more);
            set_len(bytes);
        }
        _ => (),
    }
}
