//! The driver's values as the kernel's, and the other way round.

use virtio_fs::Error;
use virtio_fs::fs::{Changes, Metadata};
use virtio_fs::wire;

use crate::value::{Answer, Attr, Errno, Lock, SetAttr, SetTime, Statfs, Time};

impl From<Error> for Errno {
    fn from(error: Error) -> Self {
        Self(error.errno().get().into())
    }
}

fn time(time: wire::Time) -> Time {
    Time {
        seconds: time.sec,
        nanos: time.nsec,
    }
}

fn set_time(time: Option<SetTime>) -> wire::SetTime {
    match time {
        None => wire::SetTime::Keep,
        Some(SetTime::Now) => wire::SetTime::Now,
        Some(SetTime::To(time)) => {
            wire::SetTime::To(wire::Time::from_wire(time.seconds as u64, time.nanos))
        }
    }
}

/// FUSE_ATTR_* flags are not passed on: a submount is not one for this mount.
pub(crate) fn attr(metadata: &Metadata) -> Attr {
    let attr = &metadata.attr;
    Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: time(attr.atime),
        mtime: time(attr.mtime),
        ctime: time(attr.ctime),
        mode: attr.mode.bits(),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev.0,
        blksize: attr.blksize(),
        flags: 0,
    }
}

pub(crate) fn changes(change: &SetAttr) -> Changes {
    Changes {
        permissions: change.mode.map(|mode| mode & 0o7777),
        uid: change.uid,
        gid: change.gid,
        size: change.size,
        atime: set_time(change.atime),
        mtime: set_time(change.mtime),
    }
}

pub(crate) fn statfs(state: &wire::StatfsReply) -> Statfs {
    Statfs {
        blocks: state.blocks,
        bfree: state.bfree,
        bavail: state.bavail,
        files: state.files,
        ffree: state.ffree,
        bsize: state.bsize,
        namelen: state.namelen,
        frsize: state.frsize,
    }
}

pub(crate) fn lock(lock: &Lock) -> Answer<wire::Lock> {
    Ok(wire::Lock {
        start: lock.start,
        end: lock.end,
        kind: wire::LockKind::from_wire(lock.kind).map_err(|_| Errno(libc::EINVAL))?,
        pid: lock.pid,
    })
}

/// Room that most attributes fit, so that one request does.
const FIRST_TRY: usize = 4096;

/// Fetches something of unknown length with enough room.
pub(crate) fn whole(fetch: impl Fn(&mut [u8]) -> virtio_fs::Result<usize>) -> Answer<Vec<u8>> {
    let mut buffer = vec![0; FIRST_TRY];
    loop {
        match fetch(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            // It may grow again before it is fetched.
            Err(error)
                if error.errno() == virtio_fs::Errno::ERANGE && buffer.len() < 16 * FIRST_TRY =>
            {
                buffer.resize(16 * FIRST_TRY, 0);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
