//! Content: cat, head, echo, write, sum.

use alloc::string::String;

use crc::{CRC_32_CKSUM, Crc, Digest};
use virtio_fs::{Result, fs::At, wire::OpenFlags};

use super::{Failure, Files, context::Show, options};
use crate::shell::Context;

pub(super) fn cat(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    files.each("cat", args, |files, path| {
        files.read_file(path, |files, bytes| {
            files.put(bytes);
            true
        })
    })
}

pub(super) fn head(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (lines, paths) = match args {
        [option, count, paths @ ..] if option == "-n" => {
            (count.parse().map_err(|_| Failure::Usage)?, paths)
        }
        paths => (10usize, paths),
    };
    files.each("head", paths, |files, path| {
        let mut left = lines;
        files.read_file(path, |files, bytes| {
            let mut end = 0;
            while left > 0 && end < bytes.len() {
                match bytes[end..].iter().position(|&b| b == b'\n') {
                    Some(at) => {
                        end += at + 1;
                        left -= 1;
                    }
                    None => end = bytes.len(),
                }
            }
            files.put(&bytes[..end]);
            left > 0
        })
    })
}

pub(super) fn echo(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    files.print(format_args!("{}\n", args.join(" ")));
    Ok(0)
}

pub(super) fn write(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (options, rest) = options::split(args, "a")?;
    let [path, text @ ..] = &rest[..] else {
        return Err(Failure::Usage);
    };
    let how = if options.is_empty() {
        OpenFlags::TRUNC
    } else {
        OpenFlags::APPEND
    };
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT | how;
    let line = text.join(" ") + "\n";
    let process = &files.process;
    let written = process
        .open(At::Cwd, path.as_bytes(), flags, 0o666)
        .and_then(|fd| {
            let written = process.write_all(fd, line.as_bytes());
            written.and(process.close(fd))
        });
    written.map_err(|error| files.fail("write", path.as_bytes(), error))?;
    Ok(0)
}

static CKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_CKSUM);

/// POSIX cksum: the CRC of the content with its length behind it, lowest byte
/// first.
pub(super) struct Cksum {
    digest: Digest<'static, u32>,
    size: u64,
}

impl Cksum {
    pub(super) fn new() -> Self {
        Self {
            digest: CKSUM.digest(),
            size: 0,
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// Returns the sum, and how many bytes there were.
    pub(super) fn finish(mut self) -> (u32, u64) {
        let mut rest = self.size;
        while rest > 0 {
            self.digest.update(&[rest as u8]);
            rest >>= 8;
        }
        (self.digest.finalize(), self.size)
    }
}

pub(super) fn sum(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    files.each("sum", args, |files, path| {
        let (crc, size) = cksum(files, path)?;
        files.print(format_args!("{crc} {size} {}\n", Show(path)));
        Ok(())
    })
}

fn cksum(files: &mut Files, path: &[u8]) -> Result<(u32, u64)> {
    let mut cksum = Cksum::new();
    files.read_file(path, |_, bytes| {
        cksum.update(bytes);
        true
    })?;
    Ok(cksum.finish())
}
