//! Attributes: chmod, chown, touch, truncate.

use alloc::string::String;

use virtio_fs::{
    Errno,
    fs::{At, Changes, SetTime, Symlinks},
    wire::OpenFlags,
};

use super::{Failure, Files, options};

pub(super) fn chmod(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let [mode, paths @ ..] = args else {
        return Err(Failure::Usage);
    };
    let mode = u32::from_str_radix(mode, 8)
        .ok()
        .filter(|&mode| mode <= 0o7777);
    let changes = Changes {
        permissions: Some(mode.ok_or(Failure::Usage)?),
        ..Changes::default()
    };
    set(files, "chmod", paths, Symlinks::Follow, &changes)
}

pub(super) fn chown(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let [owner, paths @ ..] = args else {
        return Err(Failure::Usage);
    };
    let id = |text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Failure::Usage),
    };
    let (uid, gid) = owner.split_once(':').unwrap_or((owner, ""));
    let changes = Changes {
        uid: id(uid)?,
        gid: id(gid)?,
        ..Changes::default()
    };
    set(files, "chown", paths, Symlinks::Follow, &changes)
}

pub(super) fn touch(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let now = Changes {
        atime: SetTime::Now,
        mtime: SetTime::Now,
        ..Changes::default()
    };
    files.each("touch", args, |files, path| {
        match files.process.set(At::Cwd, path, Symlinks::Follow, &now) {
            Err(error) if error.errno() == Errno::ENOENT => {
                let flags = OpenFlags::WRONLY | OpenFlags::CREAT;
                let fd = files.process.open(At::Cwd, path, flags, 0o666)?;
                files.process.close(fd)
            }
            result => result,
        }
    })
}

pub(super) fn truncate(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let [size, paths @ ..] = args else {
        return Err(Failure::Usage);
    };
    let changes = Changes {
        size: Some(options::size(size).ok_or(Failure::Usage)?),
        ..Changes::default()
    };
    set(files, "truncate", paths, Symlinks::Follow, &changes)
}

fn set(
    files: &mut Files,
    command: &str,
    paths: &[String],
    symlinks: Symlinks,
    changes: &Changes,
) -> Result<u8, Failure> {
    files.each(command, paths, |files, path| {
        files.process.set(At::Cwd, path, symlinks, changes)
    })
}
