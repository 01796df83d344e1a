//! Listing: ls, stat.

use alloc::{format, string::String, vec, vec::Vec};

use virtio_fs::{
    Result,
    fs::{At, Metadata, Symlinks},
    wire::{FileType, Mode, Time},
};

use super::{
    Failure, Files,
    context::{Show, join},
    options,
};
use crate::shell::Context;

pub(super) fn ls(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (options, mut paths) = options::split(args, "laR")?;
    let wants = |letter| options.contains(&letter);
    let (long, all, deep) = (wants('l'), wants('a'), wants('R'));
    if paths.is_empty() {
        paths.push(".".into());
    }
    let titled = paths.len() > 1 || deep;
    let mut status = 0;
    let mut dirs = Vec::new();
    // Files first, then what is in the directories.
    for path in &paths {
        match files
            .process
            .stat(At::Cwd, path.as_bytes(), Symlinks::NoFollow)
        {
            Ok(meta) => {
                let followed = !long && files.is_dir(path.as_bytes());
                if meta.file_type() == FileType::Directory || followed {
                    dirs.push(path.as_bytes().to_vec());
                } else {
                    line(
                        files,
                        path.as_bytes(),
                        path.as_bytes(),
                        long.then_some(&meta),
                    );
                }
            }
            Err(error) => {
                files.fail("ls", path.as_bytes(), error);
                status = 1;
            }
        }
    }
    dirs.reverse();
    let mut first = dirs.len() == paths.len();
    while let Some(dir) = dirs.pop() {
        if titled {
            let gap = if core::mem::take(&mut first) {
                ""
            } else {
                "\n"
            };
            files.print(format_args!("{gap}{}:\n", Show(&dir)));
        }
        match list(files, &dir, long, all) {
            Ok(below) if deep => {
                dirs.extend(below.into_iter().rev().map(|name| join(&dir, &name)));
            }
            Ok(_) => {}
            Err(error) => {
                files.fail("ls", &dir, error);
                status = 1;
            }
        }
    }
    Ok(status)
}

/// Lists one directory and returns the directories in it.
fn list(files: &mut Files, dir: &[u8], long: bool, all: bool) -> Result<Vec<Vec<u8>>> {
    let mut names = files.names(dir)?;
    if all {
        let dots = [b".".to_vec(), b"..".to_vec()];
        names.splice(0..0, dots.map(|name| (name, Some(FileType::Directory))));
    } else {
        names.retain(|(name, _)| !name.starts_with(b"."));
    }
    let mut below = Vec::new();
    for (name, kind) in names {
        let path = join(dir, &name);
        let meta = if long || kind.is_none() {
            Some(files.process.stat(At::Cwd, &path, Symlinks::NoFollow)?)
        } else {
            None
        };
        line(files, &path, &name, meta.as_ref().filter(|_| long));
        let kind = kind.or(meta.map(|meta| meta.file_type()));
        if kind == Some(FileType::Directory) && name != b"." && name != b".." {
            below.push(name);
        }
    }
    Ok(below)
}

fn line(files: &mut Files, path: &[u8], name: &[u8], meta: Option<&Metadata>) {
    let Some(meta) = meta else {
        files.print(format_args!("{}\n", Show(name)));
        return;
    };
    let attr = &meta.attr;
    let target = if attr.mode.is_symlink() {
        match files.process.readlink(At::Cwd, path) {
            Ok(target) => format!(" -> {}", Show(&target)),
            Err(_) => " -> ?".into(),
        }
    } else {
        String::new()
    };
    let size = match attr.mode.file_type() {
        FileType::CharDevice | FileType::BlockDevice => {
            format!("{}, {}", attr.rdev.major(), attr.rdev.minor())
        }
        _ => format!("{}", attr.size),
    };
    files.print(format_args!(
        "{} {:>3} {:>5} {:>5} {size:>10} {} {}{target}\n",
        mode_text(attr.mode),
        attr.nlink,
        attr.uid,
        attr.gid,
        date(attr.mtime),
        Show(name),
    ));
}

pub(super) fn stat(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    files.each("stat", args, |files, path| {
        let meta = files.process.stat(At::Cwd, path, Symlinks::NoFollow)?;
        let attr = &meta.attr;
        files.print(format_args!(
            "  File: {}\n  Size: {}  Blocks: {}  IO Block: {}  {:?}\nDevice: {}  Inode: {}  Links: {}\n\
             Access: ({:04o}/{})  Uid: {}  Gid: {}\nAccess: {}.{:09}\nModify: {}.{:09}\nChange: {}.{:09}\n",
            Show(path),
            attr.size,
            attr.blocks,
            attr.blksize(),
            attr.mode.file_type(),
            meta.device,
            attr.ino,
            attr.nlink,
            attr.mode.permissions(),
            mode_text(attr.mode),
            attr.uid,
            attr.gid,
            date(attr.atime),
            attr.atime.nsec,
            date(attr.mtime),
            attr.mtime.nsec,
            date(attr.ctime),
            attr.ctime.nsec,
        ));
        Ok(())
    })
}

/// Shows type and permissions in ten letters, as ls(1) does.
fn mode_text(mode: Mode) -> String {
    let kind = match mode.file_type() {
        FileType::Fifo => 'p',
        FileType::CharDevice => 'c',
        FileType::Directory => 'd',
        FileType::BlockDevice => 'b',
        FileType::Regular => '-',
        FileType::Symlink => 'l',
        FileType::Socket => 's',
    };
    let bits = mode.permissions();
    let mut letters = vec![kind];
    for (shift, special, set, alone) in [
        (6, Mode::SET_UID, 's', 'S'),
        (3, Mode::SET_GID, 's', 'S'),
        (0, Mode::STICKY, 't', 'T'),
    ] {
        letters.push(if bits >> shift & 4 != 0 { 'r' } else { '-' });
        letters.push(if bits >> shift & 2 != 0 { 'w' } else { '-' });
        letters.push(match (bits >> shift & 1 != 0, bits & special != 0) {
            (true, false) => 'x',
            (true, true) => set,
            (false, true) => alone,
            (false, false) => '-',
        });
    }
    letters.into_iter().collect()
}

/// Shows a time in UTC, to the second.
fn date(time: Time) -> String {
    let days = time.sec.div_euclid(86_400);
    let seconds = time.sec.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Turns days since 1970-01-01 into a date of the Gregorian calendar. Years are
/// counted from March, so that the leap day is the last of its year.
fn civil(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097; // days in 400 years
    let days = days + 719_468; // since 0000-03-01
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (sec, text) in [
            (0, "1970-01-01 00:00:00"),
            (-1, "1969-12-31 23:59:59"),
            (951_782_399, "2000-02-28 23:59:59"),
            (951_782_400, "2000-02-29 00:00:00"),
            (4_107_542_400, "2100-03-01 00:00:00"),
            (-2_208_988_800, "1900-01-01 00:00:00"),
            (1_795_200_000, "2026-11-20 18:40:00"),
        ] {
            assert_eq!(date(Time::new(sec, 0)), text);
        }
    }

    #[test]
    fn modes_look_as_in_ls() {
        let text = |kind, bits| mode_text(Mode::new(kind, bits));
        assert_eq!(text(FileType::Regular, 0o644), "-rw-r--r--");
        assert_eq!(text(FileType::Directory, 0o1777), "drwxrwxrwt");
        assert_eq!(text(FileType::Regular, 0o6750), "-rwsr-s---");
        assert_eq!(text(FileType::Symlink, 0o7000), "l--S--S--T");
    }
}
