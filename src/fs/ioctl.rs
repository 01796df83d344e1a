//! Device control and block numbers: ioctl(2), and FIBMAP of it.
//!
//! A restricted ioctl says in its number how many bytes go which way, and the
//! server gets and gives no others. An unrestricted one lets the server ask for
//! memory of the caller's at addresses of its own choice (Linux: `fuse_do_ioctl`
//! with FUSE_IOCTL_UNRESTRICTED, for CUSE); that is for servers that are trusted,
//! and for kernels that offer the memory.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian::U64};

use super::{Dir, File, Inode};
use crate::conn::Class;
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::{PAGE_SIZE, Platform};
use crate::wire::{
    self, Bmap, Dialect, FileHandle, FileType, InitFlags, IoctlFlags, IoctlReply, Malformed,
    NodeId, Opcode, Payload, ReplyShape, Request, Writer,
};

/// Areas of memory that a server may ask for (FUSE_IOCTL_MAX_IOV).
const AREAS_MAX: usize = 256;
/// How often it may ask for others.
const ROUNDS_MAX: usize = 16;
/// Bytes that go in one direction, at most.
const BYTES_MAX: u64 = 1 << 20;

/// What ioctl(2) returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoctlResult {
    /// Its value.
    pub value: i32,
    /// Bytes that the server wrote.
    pub written: usize,
}

/// The memory of a caller, for [`File::ioctl_unrestricted`].
pub trait IoctlMemory {
    /// Copies what is at `address` to `bytes`.
    ///
    /// # Errors
    ///
    /// EFAULT where the caller has no memory.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Copies `bytes` to `address`.
    ///
    /// # Errors
    ///
    /// EFAULT where the caller has no memory to write to.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()>;
}

/// IOCTL with its input as a part of its arguments: a request has one list of
/// buffers, and that is for the answer.
struct WithInput<'a> {
    request: wire::Ioctl,
    input: &'a [u8],
}

impl Request for WithInput<'_> {
    const OPCODE: Opcode = Opcode::Ioctl;
    const REPLY: ReplyShape = wire::Ioctl::REPLY;
    type Reply = IoctlReply;

    fn node(&self) -> Option<NodeId> {
        self.request.node()
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.request.encode(w);
        w.bytes(self.input);
    }

    fn data_in(&self) -> usize {
        self.request.data_in()
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<IoctlReply, Malformed> {
        wire::Ioctl::decode(payload, dialect)
    }
}

impl fmt::Display for WithInput<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.request, f)
    }
}

/// An area of the caller's memory, as a server asks for it.
#[derive(Clone, Copy, FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Area {
    base: U64,
    len: U64,
}

/// What an ioctl is done on.
struct Target<'a, P: Platform> {
    inode: &'a Inode<P>,
    fh: FileHandle,
    flags: IoctlFlags,
}

/// Returns the bytes to the server and back that the number says (`_IOC` of
/// Linux, as most architectures have it).
const fn sizes(cmd: u32) -> (usize, usize) {
    let size = ((cmd >> 16) & 0x3fff) as usize;
    let (to_server, back) = (cmd >> 30 & 1, cmd >> 31);
    (size * to_server as usize, size * back as usize)
}

impl<P: Platform> Target<'_, P> {
    fn send(
        &self,
        cmd: u32,
        arg: u64,
        flags: IoctlFlags,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<IoctlReply> {
        self.inode.check()?;
        let fs = &self.inode.fs;
        let request = WithInput {
            request: wire::Ioctl {
                node: self.inode.node,
                fh: self.fh,
                flags: self.flags | flags,
                cmd,
                arg,
                in_size: input.len() as u32,
                out_size: output.len() as u32,
            },
            input,
        };
        let send = || {
            fs.conn
                .call(&request, Data::Sink(&mut [output]), Class::Normal)
        };
        fs.lacking
            .unless(Opcode::Ioctl, send)
            .unwrap_or(Err(Error::caller(Errno::ENOTTY)))
    }

    fn restricted(
        &self,
        cmd: u32,
        arg: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<IoctlResult> {
        let (to_server, back) = sizes(cmd);
        let (Some(input), Some(output)) = (input.get(..to_server), output.get_mut(..back)) else {
            return Err(Error::caller(Errno::EFAULT));
        };
        let reply = self.send(cmd, arg, IoctlFlags::empty(), input, output)?;
        if reply.flags.contains(IoctlFlags::RETRY) {
            return Err(self.nonsense("asks for memory in a restricted ioctl"));
        }
        self.result(&reply)
    }

    fn unrestricted(
        &self,
        cmd: u32,
        arg: u64,
        memory: &mut dyn IoctlMemory,
    ) -> Result<IoctlResult> {
        let (mut input, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS_MAX {
            // At least a page, for a list of areas.
            let room = targets
                .iter()
                .map(|area: &Area| area.len.get() as usize)
                .sum();
            let mut output = vec![0; PAGE_SIZE.max(room)];
            let unrestricted = IoctlFlags::UNRESTRICTED;
            let reply = self.send(cmd, arg, unrestricted, &input, &mut output)?;
            if !reply.flags.contains(IoctlFlags::RETRY) {
                if reply.data > room {
                    return Err(self.nonsense("returns more than it asked room for"));
                }
                let result = self.result(&reply)?;
                let mut rest = &output[..reply.data];
                for area in &targets {
                    let (bytes, behind) = rest.split_at(rest.len().min(area.len.get() as usize));
                    memory.write(area.base.get(), bytes)?;
                    rest = behind;
                }
                return Ok(result);
            }
            let (sources, wanted) = self.areas(&output[..reply.data], reply.areas)?;
            input.clear();
            for area in sources {
                let start = input.len();
                input.resize(start + area.len.get() as usize, 0);
                memory.read(area.base.get(), &mut input[start..])?;
            }
            targets = wanted;
        }
        Err(self.nonsense("asks for other memory again and again"))
    }

    /// Reads the areas that the server asks for, those to send it first.
    fn areas(&self, list: &[u8], [from, to]: [u32; 2]) -> Result<(Vec<Area>, Vec<Area>)> {
        let (from, to) = (from as usize, to as usize);
        let count = from.saturating_add(to);
        let list = list.get(..count.saturating_mul(size_of::<Area>()));
        let Some(list) = list.filter(|_| count <= AREAS_MAX) else {
            return Err(self.nonsense("asks for more memory than it lists"));
        };
        let mut areas = Vec::with_capacity(count);
        for bytes in list.chunks_exact(size_of::<Area>()) {
            areas.extend(Area::read_from_bytes(bytes));
        }
        let wanted = areas.split_off(from);
        for list in [&areas, &wanted] {
            let bytes = list
                .iter()
                .try_fold(0u64, |sum, area| sum.checked_add(area.len.get()));
            if bytes.is_none_or(|bytes| bytes > BYTES_MAX) {
                return Err(Error::caller(Errno::ENOMEM));
            }
        }
        Ok((areas, wanted))
    }

    fn result(&self, reply: &IoctlReply) -> Result<IoctlResult> {
        if reply.result >= 0 {
            return Ok(IoctlResult {
                value: reply.result,
                written: reply.data,
            });
        }
        match Errno::from_wire(reply.result) {
            Err(Some(errno)) => Err(Error::new(errno, crate::error::Origin::Server)),
            _ => Err(self.nonsense("returns an error that is none")),
        }
    }

    fn nonsense(&self, what: &str) -> Error {
        self.inode.fs.counters().malformed_replies.add(1);
        log::error!(
            "virtio-fs: IOCTL of node {}: server {what}",
            self.inode.node
        );
        Error::protocol()
    }
}

impl<P: Platform> File<P> {
    fn ioctl_target(&self) -> Target<'_, P> {
        Target {
            inode: self.inode(),
            fh: self.handle.fh(),
            flags: IoctlFlags::empty(),
        }
    }

    /// Controls a device or file: ioctl(2). `arg` is the argument as the caller
    /// has it. What `cmd` says that goes to the server is taken from `input`,
    /// what comes back goes to `output`. Blocks.
    ///
    /// # Errors
    ///
    /// EFAULT if the buffers are smaller than `cmd` says, ENOTTY where the server
    /// knows no ioctl, or not this one, and the server's.
    pub fn ioctl(
        &self,
        cmd: u32,
        arg: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<IoctlResult> {
        self.ioctl_target().restricted(cmd, arg, input, output)
    }

    /// As [`ioctl`](Self::ioctl), of a server that may read and write the
    /// caller's memory where it likes: at most 256 areas and 1 MiB each way, and
    /// 16 rounds of asking. Blocks.
    ///
    /// # Errors
    ///
    /// Those of `memory`, ENOMEM if the server asks for more, EIO if it does not
    /// come to an end, ENOTTY, and the server's.
    pub fn ioctl_unrestricted(
        &self,
        cmd: u32,
        arg: u64,
        memory: &mut dyn IoctlMemory,
    ) -> Result<IoctlResult> {
        self.ioctl_target().unrestricted(cmd, arg, memory)
    }
}

impl<P: Platform> Dir<P> {
    /// As [`File::ioctl`], on a directory. Blocks.
    ///
    /// # Errors
    ///
    /// As there; ENOTTY where the server has none on directories.
    pub fn ioctl(
        &mut self,
        cmd: u32,
        arg: u64,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<IoctlResult> {
        let limits = self.inode().fs.conn.limits();
        if !limits.has(InitFlags::HAS_IOCTL_DIR) {
            return Err(Error::caller(Errno::ENOTTY));
        }
        let handle = self.server_handle()?;
        let target = Target {
            inode: self.inode(),
            fh: handle.fh(),
            flags: IoctlFlags::DIR,
        };
        target.restricted(cmd, arg, input, output)
    }
}

impl<P: Platform> Inode<P> {
    /// Returns where a block of a file lies on its block device, 0 for a hole:
    /// FIBMAP of ioctl(2). Blocks.
    ///
    /// # Errors
    ///
    /// EINVAL for what is no regular file, a block size of 0, or where the
    /// server does not know.
    pub fn bmap(self: &Arc<Self>, block: u64, block_size: u32) -> Result<u64> {
        self.check()?;
        let invalid = Error::caller(Errno::EINVAL);
        if self.file_type() != FileType::Regular || block_size == 0 {
            return Err(invalid);
        }
        let request = Bmap {
            node: self.node,
            block,
            block_size,
        };
        let fs = &self.fs;
        fs.lacking
            .unless(Opcode::Bmap, || fs.conn.ask(&request))
            .unwrap_or(Err(invalid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_an_ioctl_says_how_much_goes_which_way() {
        // FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FITRIM, TCGETS.
        assert_eq!(sizes(0x8008_6601), (0, 8));
        assert_eq!(sizes(0x4008_6602), (8, 0));
        assert_eq!(sizes(0x401c_5820), (28, 0));
        assert_eq!(sizes(0xc018_5879), (24, 24));
        assert_eq!(sizes(0x5401), (0, 0));
    }
}
