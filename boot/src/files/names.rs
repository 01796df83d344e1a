//! Names: cd, pwd, mkdir, rmdir, mv, ln.

use alloc::{string::String, vec::Vec};

use virtio_fs::{
    Errno,
    fs::{At, Symlinks},
    wire::RenameFlags,
};

use super::{
    Failure, Files,
    context::{Show, base_name, join},
    options,
};
use crate::shell::Context;

pub(super) fn cd(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let path = match args {
        [] => "/",
        [path] => path,
        _ => return Err(Failure::Usage),
    };
    let changed = files.process.chdir(At::Cwd, path.as_bytes());
    changed.map_err(|error| files.fail("cd", path.as_bytes(), error))?;
    Ok(0)
}

pub(super) fn pwd(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    let path = files
        .process
        .getcwd()
        .map_err(|error| files.fail("pwd", b".", error))?;
    files.print(format_args!("{}\n", Show(&path)));
    Ok(0)
}

pub(super) fn mkdir(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let (options, paths) = options::split(args, "p")?;
    let parents = !options.is_empty();
    files.each("mkdir", &paths, |files, path| {
        if parents {
            // Every directory on the way, the last one included.
            for (at, _) in path
                .iter()
                .enumerate()
                .filter(|(at, b)| **b == b'/' && *at > 0)
            {
                match files.process.mkdir(At::Cwd, &path[..at], 0o777) {
                    Err(error) if error.errno() != Errno::EEXIST => return Err(error),
                    _ => {}
                }
            }
        }
        match files.process.mkdir(At::Cwd, path, 0o777) {
            Err(error) if parents && error.errno() == Errno::EEXIST && files.is_dir(path) => Ok(()),
            result => result,
        }
    })
}

pub(super) fn rmdir(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    files.each("rmdir", args, |files, path| {
        files.process.rmdir(At::Cwd, path)
    })
}

/// Splits `FROM... TO` and says where each source goes.
pub(super) fn sources_and_target(
    args: &[String],
    files: &Files,
) -> Result<(Vec<String>, Target), Failure> {
    let Some((to, from)) = args.split_last().filter(|(_, from)| !from.is_empty()) else {
        return Err(Failure::Usage);
    };
    let into = files.is_dir(to.as_bytes());
    if from.len() > 1 && !into {
        return Err(Failure::Usage);
    }
    let target = Target {
        to: to.clone().into_bytes(),
        into,
    };
    Ok((from.to_vec(), target))
}

/// Where sources go: to one name, or each under its own into a directory.
pub(super) struct Target {
    to: Vec<u8>,
    into: bool,
}

impl Target {
    /// Returns where `from` goes.
    pub(super) fn of(&self, from: &[u8]) -> Vec<u8> {
        if self.into {
            join(&self.to, base_name(from))
        } else {
            self.to.clone()
        }
    }
}

pub(super) fn mv(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let (from, target) = sources_and_target(args, files)?;
    files.each("mv", &from, |files, path| {
        files.process.rename(
            At::Cwd,
            path,
            At::Cwd,
            &target.of(path),
            RenameFlags::empty(),
        )
    })
}

pub(super) fn ln(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let (options, names) = options::split(args, "s")?;
    let [target, name] = &names[..] else {
        return Err(Failure::Usage);
    };
    let place = if files.is_dir(name.as_bytes()) {
        join(name.as_bytes(), base_name(target.as_bytes()))
    } else {
        name.clone().into_bytes()
    };
    let made = if options.is_empty() {
        let process = &files.process;
        process.link(
            At::Cwd,
            target.as_bytes(),
            Symlinks::NoFollow,
            At::Cwd,
            &place,
        )
    } else {
        files.process.symlink(target.as_bytes(), At::Cwd, &place)
    };
    made.map_err(|error| files.fail("ln", &place, error))?;
    Ok(0)
}
