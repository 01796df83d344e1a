//! Whole trees: find, du, rm, cp. None of them recurses: trees can be deeper
//! than stacks.

use alloc::{string::String, vec, vec::Vec};

use virtio_fs::{
    Errno, Error, Result,
    fs::{At, Changes, Symlinks},
    wire::{FileType, OpenFlags},
};

use super::{
    Failure, Files,
    context::{CHUNK, Show, base_name, join},
    names::sources_and_target,
    options,
};
use crate::shell::Context;

pub(super) fn find(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (mut paths, mut name, mut kind) = (Vec::new(), None, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "-name" => name = Some(rest.next().ok_or(Failure::Usage)?.as_bytes()),
            "-type" => {
                kind = Some(match rest.next().map(String::as_str) {
                    Some("f") => FileType::Regular,
                    Some("d") => FileType::Directory,
                    Some("l") => FileType::Symlink,
                    _ => return Err(Failure::Usage),
                });
            }
            option if option.starts_with('-') => return Err(Failure::Usage),
            _ => paths.push(arg.clone()),
        }
    }
    if paths.is_empty() {
        paths.push(".".into());
    }
    files.each("find", &paths, |files, path| {
        let meta = files.process.stat(At::Cwd, path, Symlinks::NoFollow)?;
        let mut todo = vec![(path.to_vec(), meta.file_type())];
        while let Some((path, found)) = todo.pop() {
            let wanted = name.is_none_or(|pattern| matches(pattern, base_name(&path)))
                && kind.is_none_or(|kind| kind == found);
            if wanted {
                files.print(format_args!("{}\n", Show(&path)));
            }
            if found == FileType::Directory {
                for (name, kind) in files.names(&path)?.into_iter().rev() {
                    let below = join(&path, &name);
                    let kind = match kind {
                        Some(kind) => kind,
                        None => files
                            .process
                            .stat(At::Cwd, &below, Symlinks::NoFollow)?
                            .file_type(),
                    };
                    todo.push((below, kind));
                }
            }
        }
        Ok(())
    })
}

/// Says whether `name` fits a pattern of letters, `?` and `*`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            // Let the last star take one more letter.
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

pub(super) fn du(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (options, mut paths) = options::split(args, "s")?;
    let total_only = !options.is_empty();
    if paths.is_empty() {
        paths.push(".".into());
    }
    files.each("du", &paths, |files, path| {
        // Each directory is met twice: before and after what is in it.
        let mut todo = vec![(path.to_vec(), None)];
        let mut sums: Vec<u64> = vec![0];
        while let Some((path, below)) = todo.pop() {
            if let Some(depth) = below {
                let sum = sums.pop().unwrap_or_default();
                if !total_only || depth == 0 {
                    files.print(format_args!("{}\t{}\n", sum.div_ceil(2), Show(&path)));
                }
                if let Some(above) = sums.last_mut() {
                    *above += sum;
                }
                continue;
            }
            let meta = files.process.stat(At::Cwd, &path, Symlinks::NoFollow)?;
            if meta.file_type() == FileType::Directory {
                let depth = sums.len() - 1;
                todo.push((path.clone(), Some(depth)));
                sums.push(meta.attr.blocks);
                for (name, _) in files.names(&path)?.into_iter().rev() {
                    todo.push((join(&path, &name), None));
                }
            } else if sums.len() == 1 {
                let kib = meta.attr.blocks.div_ceil(2);
                files.print(format_args!("{kib}\t{}\n", Show(&path)));
            } else if let Some(sum) = sums.last_mut() {
                *sum += meta.attr.blocks;
            }
        }
        Ok(())
    })
}

pub(super) fn rm(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (options, paths) = options::split(args, "rf")?;
    let (deep, force) = (options.contains(&'r'), options.contains(&'f'));
    if paths.is_empty() && force {
        return Ok(0);
    }
    files.each("rm", &paths, |files, path| {
        match remove(files, path, deep) {
            Err(error) if force && error.errno() == Errno::ENOENT => Ok(()),
            result => result,
        }
    })
}

fn remove(files: &Files, path: &[u8], deep: bool) -> Result<()> {
    let meta = files.process.stat(At::Cwd, path, Symlinks::NoFollow)?;
    if meta.file_type() != FileType::Directory || !deep {
        return files.process.unlink(At::Cwd, path);
    }
    let mut todo = vec![(path.to_vec(), false)];
    while let Some((path, emptied)) = todo.pop() {
        if emptied {
            files.process.rmdir(At::Cwd, &path)?;
            continue;
        }
        todo.push((path.clone(), true));
        for (name, kind) in files.names(&path)? {
            let below = join(&path, &name);
            let dir = match kind {
                Some(kind) => kind == FileType::Directory,
                None => {
                    let meta = files.process.stat(At::Cwd, &below, Symlinks::NoFollow)?;
                    meta.file_type() == FileType::Directory
                }
            };
            if dir {
                todo.push((below, false));
            } else {
                files.process.unlink(At::Cwd, &below)?;
            }
        }
    }
    Ok(())
}

pub(super) fn cp(args: &[String], files: &mut Files) -> core::result::Result<u8, Failure> {
    let (options, rest) = options::split(args, "r")?;
    let deep = !options.is_empty();
    let (from, target) = sources_and_target(&rest, files)?;
    files.each("cp", &from, |files, path| {
        copy(files, path, &target.of(path), deep)
    })
}

fn copy(files: &mut Files, from: &[u8], to: &[u8], deep: bool) -> Result<()> {
    let mut todo = vec![(from.to_vec(), to.to_vec())];
    while let Some((from, to)) = todo.pop() {
        let symlinks = if deep {
            Symlinks::NoFollow
        } else {
            Symlinks::Follow
        };
        let meta = files.process.stat(At::Cwd, &from, symlinks)?;
        match meta.file_type() {
            FileType::Directory if deep => {
                match files.process.mkdir(At::Cwd, &to, 0o777) {
                    Err(error) if error.errno() != Errno::EEXIST => return Err(error),
                    _ => {}
                }
                for (name, _) in files.names(&from)? {
                    todo.push((join(&from, &name), join(&to, &name)));
                }
                let changes = Changes {
                    permissions: Some(meta.mode().permissions()),
                    ..Changes::default()
                };
                files
                    .process
                    .set(At::Cwd, &to, Symlinks::Follow, &changes)?;
            }
            FileType::Directory => return Err(Error::caller(Errno::EISDIR)),
            FileType::Symlink => {
                let target = files.process.readlink(At::Cwd, &from)?;
                files.process.symlink(&target, At::Cwd, &to)?;
            }
            FileType::Regular => copy_file(files, &from, &to, meta.mode().permissions())?,
            _ => return Err(Error::caller(Errno::EOPNOTSUPP)),
        }
    }
    Ok(())
}

fn copy_file(files: &Files, from: &[u8], to: &[u8], permissions: u32) -> Result<()> {
    let process = &files.process;
    let source = process.open(At::Cwd, from, OpenFlags::RDONLY, 0)?;
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::TRUNC;
    let copied = process
        .open(At::Cwd, to, flags, permissions)
        .and_then(|target| {
            let copy = || {
                let (source, target) = (process.file(source)?, process.file(target)?);
                let mut at = 0;
                // On the server if it can: no byte passes through the guest then.
                loop {
                    match source.copy_to(at, &target, at, CHUNK as u64 * 64)? {
                        0 => return Ok(()),
                        n => at += n,
                    }
                }
            };
            let result = copy();
            result.and(process.close(target))
        });
    copied.and(process.close(source))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*.rs", "lib.rs", true),
            ("*.rs", "lib.rst", false),
            ("a?c*", "abcdef", true),
            ("a*b*c", "aXXbYYbZZc", true),
            ("a*b*c", "aXXbYYbZZ", false),
            ("", "x", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                fits,
                "{pattern} {name}"
            );
        }
    }
}
