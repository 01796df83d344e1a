//! What the end of a path may be for each call, and which error is told first:
//! dots, slashes, names that are there (Linux: `filename_create`,
//! `do_renameat2`).

use alloc::sync::Arc;

use super::Inode;
use super::walk::Parent;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::RenameFlags;

/// Returns the directory for a new name, unless the path ends in what exists
/// anyway.
pub(super) fn new_in<'a, P: Platform>(parent: &'a Parent<'_, P>) -> Result<&'a Arc<Inode<P>>> {
    match parent.name() {
        b"" | b"." | b".." => Err(Error::caller(Errno::EEXIST)),
        _ => Ok(&parent.dir),
    }
}

/// Checks the last parts of the paths of a rename, in the order of Linux.
pub(super) fn check_rename_ends<P: Platform>(
    from: &Parent<'_, P>,
    to: &Parent<'_, P>,
    flags: RenameFlags,
) -> Result<()> {
    let ordinary = |parent: &Parent<'_, P>| !matches!(parent.name(), b"" | b"." | b"..");
    if !ordinary(from) {
        return Err(Error::caller(Errno::EBUSY));
    }
    if !ordinary(to) {
        let exclusive = flags.contains(RenameFlags::NOREPLACE);
        return Err(Error::caller(if exclusive {
            Errno::EEXIST
        } else {
            Errno::EBUSY
        }));
    }
    if !from.slash && !to.slash {
        return Ok(());
    }
    let moved = from.dir.lookup(from.name())?;
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let target = match to.dir.lookup(to.name()) {
        Ok(_) if flags.contains(RenameFlags::NOREPLACE) => {
            return Err(Error::caller(Errno::EEXIST));
        }
        Ok(target) => Some(target),
        Err(error) if error.errno() == Errno::ENOENT && !exchange => None,
        Err(error) => return Err(error),
    };
    let target_is_dir = target.is_some_and(|target| target.is_dir());
    if exchange && to.slash && !target_is_dir
        || !moved.is_dir() && (from.slash || !exchange && to.slash)
    {
        return Err(Error::caller(Errno::ENOTDIR));
    }
    Ok(())
}

/// Says that a name is there, or why it cannot be.
pub(super) fn refuse_existing<P: Platform>(dir: &Arc<Inode<P>>, name: &[u8]) -> Result<()> {
    match dir.lookup(name) {
        Ok(_) => Err(Error::caller(Errno::EEXIST)),
        Err(error) if error.errno() == Errno::ENOENT => Ok(()),
        Err(error) => Err(error),
    }
}

/// Only a directory may be named with a slash behind.
pub(super) fn refuse_slash<P: Platform>(parent: &Parent<'_, P>) -> Result<()> {
    if !parent.slash {
        return Ok(());
    }
    match parent.dir.lookup(parent.name()) {
        Ok(_) => Err(Error::caller(Errno::EEXIST)),
        Err(_) => Err(Error::caller(Errno::ENOENT)),
    }
}
