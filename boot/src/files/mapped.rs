//! Files through mappings: mmap.

use alloc::{string::String, vec};

use virtio_fs::{Errno, Error, Result, fs::At, wire::OpenFlags};

use super::{Failure, Files, content::Cksum, context::Show, options};
use crate::{
    mmap::{self, Access, AccessError, Mapping, Sharing},
    shell::Context,
};

const STEP: usize = 1 << 20;

/// Checksums, as `sum` prints them, or text stored at an offset.
pub(super) fn mmap(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (options, rest) = options::split(args, "pw")?;
    let sharing = if options.contains(&'p') {
        Sharing::Private
    } else {
        Sharing::Shared
    };
    if !options.contains(&'w') {
        return files.each("mmap", &rest, |files, path| sum(files, path, sharing));
    }
    let [offset, text, path] = &rest[..] else {
        return Err(Failure::Usage);
    };
    let at = options::size(offset).ok_or(Failure::Usage)?;
    let paths = core::slice::from_ref(path);
    files.each("mmap", paths, |files, path| {
        let (mapping, size) = open(files, path, sharing, Access::ReadWrite)?;
        if at
            .checked_add(text.len() as u64)
            .is_none_or(|end| end > size)
        {
            return Err(Errno::ENXIO.into());
        }
        mapping.write(at, text.as_bytes()).map_err(error)?;
        let dirty = mapping.sync()?;
        files.print(format_args!("{dirty} page(s) written\n"));
        Ok(())
    })
}

fn sum(files: &mut Files, path: &[u8], sharing: Sharing) -> Result<()> {
    let mut cksum = Cksum::new();
    match open(files, path, sharing, Access::Read) {
        Ok((mapping, size)) => {
            let mut buf = vec![0; STEP];
            for at in (0..size).step_by(STEP) {
                let len = (size - at).min(STEP as u64) as usize;
                mapping.read(at, &mut buf[..len]).map_err(error)?;
                cksum.update(&buf[..len]);
            }
        }
        // An empty file cannot be mapped.
        Err(error) if error.errno() == Errno::EINVAL => {}
        Err(error) => return Err(error),
    }
    let (crc, size) = cksum.finish();
    files.print(format_args!("{crc} {size} {}\n", Show(path)));
    Ok(())
}

/// Maps a whole file and returns its size, too.
fn open(files: &Files, path: &[u8], sharing: Sharing, access: Access) -> Result<(Mapping, u64)> {
    let flags = match access {
        Access::Read => OpenFlags::RDONLY,
        Access::ReadWrite => OpenFlags::RDWR,
    };
    let process = &files.process;
    let fd = process.open(At::Cwd, path, flags, 0)?;
    let file = process.file(fd);
    process.close(fd)?;
    let file = file?;
    let size = file.metadata()?.attr.size;
    Ok((mmap::map(&file, 0, size, sharing, access)?, size))
}

/// The number for it, as a signal has none here.
fn error(error: AccessError) -> Error {
    match error {
        AccessError::Failed(error) => error,
        AccessError::NoMemory(_) => Errno::ENOMEM.into(),
        AccessError::Unmappable => Errno::ENODEV.into(),
        AccessError::Protected | AccessError::BeyondEnd | AccessError::Unmapped => {
            Errno::EFAULT.into()
        }
    }
}
