//! Taking requests apart and putting replies together (protocol.md 2.2).

use core::time::Duration;

use crate::abi::{Errno, IN_HEADER, OUT_HEADER, Op};
use crate::memfs::Stat;

/// Why a request gets no ordinary reply.
#[derive(Debug)]
pub(crate) enum Stop {
    /// An error reply.
    Errno(Errno),
    /// An error reply, and the driver broke the protocol.
    Malformed(String),
    /// The reply comes later.
    Park,
    /// This kind of request has none.
    Silent,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(error.into())
    }
}

pub(crate) fn malformed<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Malformed(why.into()))
}

/// `fuse_in_header`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) len: u32,
    pub(crate) op: Op,
    pub(crate) unique: u64,
    pub(crate) nodeid: u64,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: u32,
    pub(crate) extlen: u16,
    pub(crate) padding: u16,
}

impl Header {
    /// Parses the first 40 bytes; `None` if there are fewer.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut args = Args::new(bytes.get(..IN_HEADER)?);
        Some(Self {
            len: args.u32().ok()?,
            op: Op(args.u32().ok()?),
            unique: args.u64().ok()?,
            nodeid: args.u64().ok()?,
            uid: args.u32().ok()?,
            gid: args.u32().ok()?,
            pid: args.u32().ok()?,
            extlen: args.u16().ok()?,
            padding: args.u16().ok()?,
        })
    }
}

/// What follows the header, read front to back.
#[derive(Clone, Debug)]
pub(crate) struct Args<'a> {
    rest: &'a [u8],
}

impl<'a> Args<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn bytes(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        match self.rest.split_at_checked(n) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => malformed(format!(
                "{} bytes of arguments missing",
                n - self.rest.len()
            )),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Stop> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Stop> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Stop> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Skips reserved bytes, which must be zero.
    pub(crate) fn reserved(&mut self, n: usize) -> Result<(), Stop> {
        if self.bytes(n)?.iter().any(|&b| b != 0) {
            return malformed("reserved bytes are not zero");
        }
        Ok(())
    }

    /// Takes bytes up to a NUL.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Stop> {
        let Some(len) = self.rest.iter().position(|&b| b == 0) else {
            return malformed("name without NUL");
        };
        let name = &self.rest[..len];
        self.rest = &self.rest[len + 1..];
        Ok(name)
    }

    /// Takes the name of a directory entry.
    pub(crate) fn name(&mut self) -> Result<&'a [u8], Stop> {
        let name = self.string()?;
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') {
            return malformed(format!("{:?} is no name", String::from_utf8_lossy(name)));
        }
        Ok(name)
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// Checks that nothing is left over.
    pub(crate) fn end(&self) -> Result<(), Stop> {
        if self.rest.is_empty() {
            return Ok(());
        }
        malformed(format!("{} bytes too many", self.rest.len()))
    }
}

/// What the server gave the client with a reply, and takes back if the reply
/// does not arrive as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// One lookup count.
    Lookup(u64),
    /// An open handle.
    Open(u64),
}

/// A reply without its header.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    pub(crate) grants: Vec<Grant>,
}

impl Body {
    pub(crate) fn u16(mut self, value: u16) -> Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn zeros(mut self, n: usize) -> Self {
        self.bytes.resize(self.bytes.len() + n, 0);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub(crate) fn grant(mut self, grant: Grant) -> Self {
        self.grants.push(grant);
        self
    }

    /// `fuse_attr`.
    pub(crate) fn attr(self, stat: &Stat, flags: u32) -> Self {
        self.u64(stat.ino)
            .u64(stat.size)
            .u64(stat.blocks)
            .u64(stat.atime.as_secs())
            .u64(stat.mtime.as_secs())
            .u64(stat.ctime.as_secs())
            .u32(stat.atime.subsec_nanos())
            .u32(stat.mtime.subsec_nanos())
            .u32(stat.ctime.subsec_nanos())
            .u32(stat.mode)
            .u32(stat.nlink)
            .u32(stat.uid)
            .u32(stat.gid)
            .u32(stat.rdev)
            .u32(4096)
            .u32(flags)
    }

    /// `fuse_attr_out`.
    pub(crate) fn attr_out(self, stat: &Stat, flags: u32, valid: Duration) -> Self {
        self.u64(valid.as_secs())
            .u32(valid.subsec_nanos())
            .u32(0)
            .attr(stat, flags)
    }

    /// `struct statx` with its time stamps.
    pub(crate) fn statx(self, stat: &Stat) -> Self {
        let time = |body: Self, t: Duration| body.u64(t.as_secs()).u32(t.subsec_nanos()).u32(0);
        // The mask says what is filled in: the basic fields and the birth time.
        let body = self
            .u32(0xFFF)
            .u32(4096)
            .u64(0)
            .u32(stat.nlink)
            .u32(stat.uid)
            .u32(stat.gid);
        let body = body.u16(stat.mode as u16).u16(0);
        let body = body.u64(stat.ino).u64(stat.size).u64(stat.blocks).u64(0);
        let body = time(
            time(time(time(body, stat.atime), stat.btime), stat.ctime),
            stat.mtime,
        );
        let rdev = u64::from(stat.rdev);
        let body = body.u32(libc::major(rdev)).u32(libc::minor(rdev));
        body.u32(0).u32(stat.dev + 1).zeros(112)
    }
}

/// Puts the header before a body.
pub(crate) fn frame(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(OUT_HEADER + body.len());
    bytes.extend_from_slice(&((OUT_HEADER + body.len()) as u32).to_le_bytes());
    bytes.extend_from_slice(&error.to_le_bytes());
    bytes.extend_from_slice(&unique.to_le_bytes());
    bytes.extend_from_slice(body);
    bytes
}
