//! One request: decoded, called, its answer encoded.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::message::{Directory, Header, Reader, Writer};
use crate::opcode;
use crate::operations::{Context, Create, Io, Operations};
use crate::value::{
    Answer, CopyEnd, Errno, Features, Lock, LockCall, Opened, Rename, SetAttr, SetTime, Time,
};

/// The minor version that is spoken here at most.
const MINOR: u32 = 38;
/// Largest WRITE and READ: what the payload buffers hold.
pub(crate) const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel may have under way in the background.
const MAX_BACKGROUND: u16 = 64;
/// FUSE_EXT_GROUPS.
const EXTENSION_GROUPS: u32 = 32;

/// What goes back to the kernel.
pub(crate) enum Reply {
    /// Nothing: the request has no reply.
    None,
    /// A header with an errno.
    Error(Errno),
    /// A header and this body.
    Body(Writer),
    /// A header and so many bytes of the payload buffer.
    Payload(usize),
}

impl From<Errno> for Reply {
    fn from(errno: Errno) -> Self {
        Self::Error(errno)
    }
}

/// What INIT settled.
#[derive(Default)]
pub(crate) struct Session {
    setxattr_ext: AtomicBool,
}

/// Answers one request. `body` is what follows the header, without a WRITE's
/// data, which are in `payload`; a READ's data are put there.
pub(crate) fn answer(
    operations: &dyn Operations,
    session: &Session,
    header: &Header,
    body: &[u8],
    payload: &mut [u8],
) -> Reply {
    let (body, group) = match split_extensions(header, body) {
        Some(split) => split,
        None => return Reply::Error(Errno(libc::EIO)),
    };
    let context = Context {
        uid: header.uid,
        gid: header.gid,
        pid: header.pid,
        group,
    };
    let request = Request {
        operations,
        session,
        header,
        context: &context,
    };
    request
        .answer(Reader(body), payload)
        .unwrap_or_else(|| {
            log::error!("malformed request of opcode {}", header.opcode);
            Ok(Reply::Error(Errno(libc::EIO)))
        })
        .unwrap_or_else(Reply::Error)
}

/// Takes the extensions off the end of a body and returns the supplementary
/// group in them. `None` if they are malformed.
fn split_extensions<'a>(header: &Header, body: &'a [u8]) -> Option<(&'a [u8], Option<u32>)> {
    let (body, extensions) = body.split_at_checked(body.len().checked_sub(header.extensions)?)?;
    let mut reader = Reader(extensions);
    let mut group = None;
    while !reader.0.is_empty() {
        let (size, kind) = (reader.u32()? as usize, reader.u32()?);
        let mut content = Reader(reader.bytes(size.checked_sub(8)?)?);
        if kind == EXTENSION_GROUPS && content.u32()? > 0 {
            group = Some(content.u32()?);
        }
    }
    Some((body, group))
}

struct Request<'a> {
    operations: &'a dyn Operations,
    session: &'a Session,
    header: &'a Header,
    context: &'a Context,
}

impl Request<'_> {
    /// `None` for a request that is too short.
    fn answer(&self, mut body: Reader<'_>, payload: &mut [u8]) -> Option<Answer<Reply>> {
        let (fs, context, node) = (self.operations, self.context, self.header.node);
        let mut out = Writer::default();
        let done = |answer: Answer<()>| answer.map(|()| Reply::Body(Writer::default()));
        let entry = |answer: Answer<crate::value::Entry>| {
            answer.map(|entry| {
                let mut out = Writer::default();
                out.entry(&entry);
                Reply::Body(out)
            })
        };
        let opened = |answer: Answer<Opened>| {
            answer.map(|opened| {
                let mut out = Writer::default();
                out.opened(opened);
                Reply::Body(out)
            })
        };
        Some(match self.header.opcode {
            opcode::LOOKUP => entry(fs.lookup(context, node, body.name()?)),
            opcode::FORGET => {
                fs.forget(node, body.u64()?);
                Ok(Reply::None)
            }
            opcode::BATCH_FORGET => {
                let count = body.u32()?;
                body.u32()?;
                for _ in 0..count {
                    fs.forget(body.u64()?, body.u64()?);
                }
                Ok(Reply::None)
            }
            opcode::GETATTR => {
                let with_handle = body.u32()? & 1 != 0;
                body.u32()?;
                let fh = body.u64()?;
                fs.getattr(context, node, with_handle.then_some(fh))
                    .map(|attributes| {
                        out.attributes(&attributes);
                        Reply::Body(out)
                    })
            }
            opcode::SETATTR => {
                let change = read_setattr(&mut body)?;
                fs.setattr(context, node, &change).map(|attributes| {
                    out.attributes(&attributes);
                    Reply::Body(out)
                })
            }
            opcode::READLINK => fs
                .readlink(context, node)
                .map(|target| Reply::Body(Writer(target))),
            opcode::SYMLINK => {
                let (name, target) = (body.name()?, body.name()?);
                entry(fs.symlink(
                    context,
                    &self.create(name, libc::S_IFLNK | 0o777, 0),
                    target,
                ))
            }
            opcode::MKNOD => {
                let (mode, rdev, umask) = (body.u32()?, body.u32()?, body.u32()?);
                body.u32()?;
                entry(fs.mknod(context, &self.create(body.name()?, mode, umask), rdev))
            }
            opcode::MKDIR => {
                let (mode, umask) = (body.u32()?, body.u32()?);
                entry(fs.mkdir(context, &self.create(body.name()?, mode, umask)))
            }
            opcode::UNLINK => done(fs.unlink(context, node, body.name()?)),
            opcode::RMDIR => done(fs.rmdir(context, node, body.name()?)),
            opcode::RENAME | opcode::RENAME2 => {
                let to = body.u64()?;
                let mut flags = 0;
                if self.header.opcode == opcode::RENAME2 {
                    flags = body.u32()?;
                    body.u32()?;
                }
                let rename = Rename {
                    from: node,
                    name: body.name()?,
                    to,
                    new_name: body.name()?,
                    flags,
                };
                done(fs.rename(context, &rename))
            }
            opcode::LINK => {
                let target = body.u64()?;
                entry(fs.link(context, target, node, body.name()?))
            }
            opcode::OPEN => opened(fs.open(context, node, body.u32()?)),
            opcode::OPENDIR => opened(fs.opendir(context, node, body.u32()?)),
            opcode::CREATE | opcode::TMPFILE => {
                let (flags, mode, umask) = (body.u32()?, body.u32()?, body.u32()?);
                body.u32()?;
                let made = if self.header.opcode == opcode::CREATE {
                    fs.create(context, &self.create(body.name()?, mode, umask), flags)
                } else {
                    fs.tmpfile(context, &self.create(b"", mode, umask), flags)
                };
                made.map(|(entry, opened)| {
                    out.entry(&entry).opened(opened);
                    Reply::Body(out)
                })
            }
            opcode::READ => {
                let (io, size) = self.read_in(&mut body)?;
                let buffer = payload.get_mut(..size as usize)?;
                fs.read(context, &io, buffer)
                    .map(|len| Reply::Payload(len.min(size as usize)))
            }
            opcode::WRITE => {
                let (io, size) = self.write_in(&mut body)?;
                let data = payload.get(..size as usize)?;
                fs.write(context, &io, data).map(|len| {
                    out.u32(len.min(data.len()) as u32).u32(0);
                    Reply::Body(out)
                })
            }
            opcode::STATFS => fs.statfs(context, node).map(|state| {
                out.statfs(&state);
                Reply::Body(out)
            }),
            opcode::RELEASE | opcode::RELEASEDIR => {
                let (fh, flags, release) = (body.u64()?, body.u32()?, body.u32()?);
                let owner = body.u64()?;
                let opened = Opened { fh, flags };
                done(if self.header.opcode == opcode::RELEASE {
                    fs.release(node, opened, (release & 2 != 0).then_some(owner))
                } else {
                    fs.releasedir(node, opened)
                })
            }
            opcode::FSYNC | opcode::FSYNCDIR => {
                let (fh, flags) = (body.u64()?, body.u32()?);
                done(if self.header.opcode == opcode::FSYNC {
                    fs.fsync(context, node, fh, flags & 1 != 0)
                } else {
                    fs.fsyncdir(context, node, fh, flags & 1 != 0)
                })
            }
            opcode::SETXATTR => {
                let (size, flags) = (body.u32()? as usize, body.u32()?);
                let mut kill_sgid = false;
                if self.session.setxattr_ext.load(Ordering::Relaxed) {
                    kill_sgid = body.u32()? & 1 != 0;
                    body.u32()?;
                }
                let (name, value) = (body.name()?, body.bytes(size)?);
                done(fs.setxattr(context, node, name, value, flags, kill_sgid))
            }
            opcode::GETXATTR | opcode::LISTXATTR => {
                let size = body.u32()? as usize;
                body.u32()?;
                let value = if self.header.opcode == opcode::GETXATTR {
                    fs.getxattr(context, node, body.name()?)
                } else {
                    fs.listxattr(context, node)
                };
                value.and_then(|value| sized(value, size))
            }
            opcode::REMOVEXATTR => done(fs.removexattr(context, node, body.name()?)),
            opcode::FLUSH => {
                let fh = body.u64()?;
                body.u64()?;
                done(fs.flush(context, node, fh, body.u64()?))
            }
            opcode::INIT => return self.init(body),
            // `serve` ends the session, for mounts that send none as well.
            opcode::DESTROY => Ok(Reply::Body(out)),
            opcode::READDIR | opcode::READDIRPLUS => {
                let (io, size) = self.read_in(&mut body)?;
                let mut sink = Directory {
                    writer: out,
                    limit: size as usize,
                };
                let listed = if self.header.opcode == opcode::READDIR {
                    fs.readdir(context, node, io.fh, io.offset, &mut sink)
                } else {
                    fs.readdirplus(context, node, io.fh, io.offset, &mut sink)
                };
                listed.map(|()| Reply::Body(sink.writer))
            }
            opcode::GETLK => {
                let (fh, owner, lock, _) = read_lock(&mut body)?;
                fs.getlk(context, node, fh, owner, &lock).map(|found| {
                    out.u64(found.start).u64(found.end);
                    out.u32(found.kind).u32(found.pid);
                    Reply::Body(out)
                })
            }
            opcode::SETLK | opcode::SETLKW => {
                let (fh, owner, lock, flags) = read_lock(&mut body)?;
                let call = LockCall {
                    owner,
                    flock: flags & 1 != 0,
                    wait: self.header.opcode == opcode::SETLKW,
                };
                done(fs.setlk(context, node, fh, call, &lock))
            }
            opcode::ACCESS => done(fs.access(context, node, body.u32()?)),
            opcode::FALLOCATE => {
                let (fh, offset, len) = (body.u64()?, body.u64()?, body.u64()?);
                done(fs.fallocate(context, node, fh, offset, len, body.u32()?))
            }
            opcode::LSEEK => {
                let (fh, offset, whence) = (body.u64()?, body.u64()?, body.u32()?);
                fs.lseek(context, node, fh, offset, whence).map(|found| {
                    out.u64(found);
                    Reply::Body(out)
                })
            }
            opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => {
                let (from_fh, from_offset) = (body.u64()?, body.u64()?);
                let (to_node, to_fh, to_offset) = (body.u64()?, body.u64()?, body.u64()?);
                let from = CopyEnd {
                    node,
                    fh: from_fh,
                    offset: from_offset,
                };
                let to = CopyEnd {
                    node: to_node,
                    fh: to_fh,
                    offset: to_offset,
                };
                fs.copy_file_range(context, from, to, body.u64()?)
                    .map(|copied| {
                        if self.header.opcode == opcode::COPY_FILE_RANGE {
                            // The kernel asks for less than 4 GiB here.
                            out.u32(copied as u32).u32(0);
                        } else {
                            out.u64(copied);
                        }
                        Reply::Body(out)
                    })
            }
            opcode::SYNCFS => done(fs.syncfs(context, node)),
            _ => Err(Errno(libc::ENOSYS)),
        })
    }

    fn create<'n>(&self, name: &'n [u8], mode: u32, umask: u32) -> Create<'n> {
        Create {
            parent: self.header.node,
            name,
            mode,
            umask,
        }
    }

    /// Reads `fuse_read_in`; returns the size as well.
    fn read_in(&self, body: &mut Reader<'_>) -> Option<(Io, u32)> {
        let (fh, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
        let (read_flags, owner, flags) = (body.u32()?, body.u64()?, body.u32()?);
        let io = Io {
            node: self.header.node,
            fh,
            offset,
            flags,
            lock_owner: (read_flags & 2 != 0).then_some(owner),
            from_cache: false,
            kill_privileges: false,
        };
        Some((io, size))
    }

    /// Reads `fuse_write_in`; returns the size as well.
    fn write_in(&self, body: &mut Reader<'_>) -> Option<(Io, u32)> {
        let (fh, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
        let (write_flags, owner, flags) = (body.u32()?, body.u64()?, body.u32()?);
        let io = Io {
            node: self.header.node,
            fh,
            offset,
            flags,
            lock_owner: (write_flags & 2 != 0).then_some(owner),
            from_cache: write_flags & 1 != 0,
            kill_privileges: write_flags & 4 != 0,
        };
        Some((io, size))
    }

    fn init(&self, mut body: Reader<'_>) -> Option<Answer<Reply>> {
        let (major, minor, readahead) = (body.u32()?, body.u32()?, body.u32()?);
        let mut out = Writer::default();
        if major > 7 {
            // The kernel tries again with the version that it is told.
            out.u32(7).u32(MINOR).zeros(56);
            return Some(Ok(Reply::Body(out)));
        }
        if major < 7 || minor < 31 {
            return Some(Err(Errno(libc::EPROTO)));
        }
        let mut offered = u64::from(body.u32()?);
        if offered & Features::INIT_EXT.bits() != 0 {
            offered |= u64::from(body.u32()?) << 32;
        }
        let offered = Features::from_bits_truncate(offered);
        let settings = self.operations.init(offered);
        let base = Features::INIT_EXT | Features::MAX_PAGES | Features::BIG_WRITES;
        let taken = (settings.features | base) & offered;
        let ext = taken.contains(Features::SETXATTR_EXT);
        self.session.setxattr_ext.store(ext, Ordering::Relaxed);
        let max_write = settings.max_write.clamp(4096, MAX_WRITE);
        out.u32(7).u32(minor.min(MINOR)).u32(readahead);
        out.u32(taken.bits() as u32);
        out.u16(MAX_BACKGROUND).u16(MAX_BACKGROUND / 4 * 3);
        out.u32(max_write).u32(settings.time_granularity);
        out.u16(max_write.div_ceil(4096) as u16).u16(0);
        out.u32((taken.bits() >> 32) as u32).zeros(28);
        Some(Ok(Reply::Body(out)))
    }
}

/// Answers with a value, or with its size if that was asked.
fn sized(value: Vec<u8>, size: usize) -> Answer<Reply> {
    if size == 0 {
        let mut out = Writer::default();
        out.u32(value.len() as u32).u32(0);
        return Ok(Reply::Body(out));
    }
    if value.len() > size {
        return Err(Errno(libc::ERANGE));
    }
    Ok(Reply::Body(Writer(value)))
}

fn read_lock(body: &mut Reader<'_>) -> Option<(u64, u64, Lock, u32)> {
    let (fh, owner) = (body.u64()?, body.u64()?);
    let lock = Lock {
        start: body.u64()?,
        end: body.u64()?,
        kind: body.u32()?,
        pid: body.u32()?,
    };
    Some((fh, owner, lock, body.u32()?))
}

fn read_setattr(body: &mut Reader<'_>) -> Option<SetAttr> {
    let valid = body.u32()?;
    body.u32()?;
    let (fh, size, lock_owner) = (body.u64()?, body.u64()?, body.u64()?);
    let seconds = [body.u64()?, body.u64()?, body.u64()?];
    let nanos = [body.u32()?, body.u32()?, body.u32()?];
    let mode = body.u32()?;
    body.u32()?;
    let (uid, gid) = (body.u32()?, body.u32()?);
    let has = |bit: u32| valid & 1 << bit != 0;
    let time = |which: usize| Time {
        seconds: seconds[which] as i64,
        nanos: nanos[which],
    };
    let set_time = |which, bit, now_bit| {
        has(bit).then(|| {
            if has(now_bit) {
                SetTime::Now
            } else {
                SetTime::To(time(which))
            }
        })
    };
    Some(SetAttr {
        mode: has(0).then_some(mode),
        uid: has(1).then_some(uid),
        gid: has(2).then_some(gid),
        size: has(3).then_some(size),
        atime: set_time(0, 4, 7),
        mtime: set_time(1, 5, 8),
        fh: has(6).then_some(fh),
        lock_owner: has(9).then_some(lock_owner),
        ctime: has(10).then(|| time(2)),
        kill_privileges: has(11),
    })
}
