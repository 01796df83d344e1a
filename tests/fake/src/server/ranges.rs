//! Requests about ranges of a file: LSEEK, FALLOCATE, COPY_FILE_RANGE.

use super::message::{Args, Body, malformed};
use super::{Handled, Request, Server};
use crate::abi::{Op, fail};

impl Server {
    pub(super) fn op_lseek(&mut self, request: &Request, mut args: Args) -> Handled {
        let (fh, offset, whence) = (args.u64()?, args.u64()?, args.u32()? as i32);
        args.reserved(4)?;
        args.end()?;
        let handle = self.handle_of(request.nodeid, fh)?;
        let (file, disk) = (self.fs.content(handle.ino)?, &self.fs.disk);
        let signed = offset as i64;
        let at = match whence {
            libc::SEEK_DATA if signed >= 0 => file.seek_data(disk, offset)?,
            libc::SEEK_HOLE if signed >= 0 => file.seek_hole(disk, offset)?,
            libc::SEEK_DATA | libc::SEEK_HOLE => return Ok(fail(libc::ENXIO)?),
            libc::SEEK_SET if signed >= 0 => offset,
            libc::SEEK_END => match file.size().checked_add_signed(signed) {
                Some(at) if at <= i64::MAX as u64 => at,
                _ => return Ok(fail(libc::EINVAL)?),
            },
            _ => return Ok(fail(libc::EINVAL)?),
        };
        Ok(Body::default().u64(at))
    }

    pub(super) fn op_fallocate(&mut self, request: &Request, mut args: Args) -> Handled {
        const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
        const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
        const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
        const ZERO_KEEP: i32 = ZERO | KEEP;
        const COLLAPSE: i32 = libc::FALLOC_FL_COLLAPSE_RANGE;
        const INSERT: i32 = libc::FALLOC_FL_INSERT_RANGE;
        let (fh, offset, len, mode) = (args.u64()?, args.u64()?, args.u64()?, args.u32()? as i32);
        args.reserved(4)?;
        args.end()?;
        let handle = self.writable(request.nodeid, fh)?;
        let end = offset
            .checked_add(len)
            .filter(|&end| end <= i64::MAX as u64);
        let Some(end) = end.filter(|_| len > 0) else {
            return Ok(fail(if len == 0 { libc::EINVAL } else { libc::EFBIG })?);
        };
        let size = self.fs.content(handle.ino)?.size();
        let whole = offset % 4096 == 0 && len % 4096 == 0;
        self.edit(handle.ino, |file, disk| match mode {
            0 if end > size => file.resize(disk, end),
            0 | KEEP => Ok(()),
            PUNCH | ZERO_KEEP => file.punch(disk, offset, len),
            ZERO => {
                file.punch(disk, offset, len)?;
                if end > size {
                    file.resize(disk, end)
                } else {
                    Ok(())
                }
            }
            COLLAPSE if whole && end < size => file.shift(disk, end, offset),
            INSERT if whole && offset < size => match size.checked_add(len) {
                Some(new) if new <= i64::MAX as u64 => file.shift(disk, offset, end),
                _ => fail(libc::EFBIG),
            },
            COLLAPSE | INSERT => fail(libc::EINVAL),
            _ => fail(libc::EOPNOTSUPP),
        })?;
        Ok(Body::default())
    }

    pub(super) fn op_copy(&mut self, request: &Request, mut args: Args) -> Handled {
        /// Bytes copied at a time.
        const STEP: u64 = 1 << 20;
        let (fh_in, off_in) = (args.u64()?, args.u64()?);
        let (nodeid_out, fh_out, off_out) = (args.u64()?, args.u64()?, args.u64()?);
        let (len, flags) = (args.u64()?, args.u64()?);
        args.end()?;
        if flags != 0 {
            return malformed(format!("COPY_FILE_RANGE flags {flags:#x}"));
        }
        let from = self.handle_of(request.nodeid, fh_in)?;
        let to = self.writable(nodeid_out, fh_out)?;
        if from.flags as i32 & libc::O_ACCMODE == libc::O_WRONLY {
            return Ok(fail(libc::EBADF)?);
        }
        let narrow = request.op == Op::COPY_FILE_RANGE;
        // The narrow reply holds 32 bits.
        let len = if narrow {
            len.min(u64::from(u32::MAX) & !4095)
        } else {
            len
        };
        let len = len.min(self.fs.content(from.ino)?.size().saturating_sub(off_in));
        if from.ino == to.ino && off_in < off_out + len && off_out < off_in + len {
            return Ok(fail(libc::EINVAL)?);
        }
        let mut done = 0;
        while done < len {
            let n = STEP.min(len - done);
            let data = self
                .fs
                .content(from.ino)?
                .read(&self.fs.disk, off_in + done, n)?;
            self.edit(to.ino, |file, disk| file.write(disk, off_out + done, &data))?;
            done += n;
        }
        let body = Body::default();
        Ok(if narrow {
            body.u32(done as u32).u32(0)
        } else {
            body.u64(done)
        })
    }
}
