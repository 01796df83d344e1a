//! renameat2(2) on the tree.

use super::{Body, Ino, MemFs, New};
use crate::abi::{Errno, fail};

impl MemFs {
    /// Renames as renameat2(2) does.
    pub(crate) fn rename(
        &mut self,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        flags: u32,
    ) -> Result<(), Errno> {
        const KNOWN: u32 = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE | libc::RENAME_WHITEOUT;
        let has = |flag| flags & flag != 0;
        if flags & !KNOWN != 0
            || has(libc::RENAME_EXCHANGE) && has(libc::RENAME_NOREPLACE | libc::RENAME_WHITEOUT)
        {
            return fail(libc::EINVAL);
        }
        let moved = self.lookup(from.0, from.1)?;
        let target = match self.lookup(to.0, to.1) {
            Ok(ino) => Some(ino),
            Err(Errno(libc::ENOENT)) if self.inode(to.0)?.stat.nlink > 0 => None,
            Err(error) => return Err(error),
        };
        if self.inode(from.0)?.stat.dev != self.inode(to.0)?.stat.dev {
            return fail(libc::EXDEV);
        }
        if self.is_ancestor(moved, to.0)? {
            return fail(libc::EINVAL);
        }
        if let Some(target) = target {
            if has(libc::RENAME_NOREPLACE) {
                return fail(libc::EEXIST);
            }
            if has(libc::RENAME_EXCHANGE) && self.is_ancestor(target, from.0)? {
                return fail(libc::EINVAL);
            }
        } else if has(libc::RENAME_EXCHANGE) {
            return fail(libc::ENOENT);
        }
        if target == Some(moved) {
            return Ok(());
        }
        if has(libc::RENAME_EXCHANGE) {
            let target = target.unwrap_or(moved);
            self.dir_mut(from.0)?.replace(from.1, target);
            self.dir_mut(to.0)?.replace(to.1, moved);
            self.adopt(target, to.0, from.0)?;
        } else {
            if let Some(target) = target {
                self.check_replace(moved, target)?;
                if let Ok(dir) = self.dir(target) {
                    debug_assert!(dir.is_empty());
                    self.link_count(to.0, -1);
                }
                self.dir_mut(to.0)?.remove(to.1);
                self.drop_name(target)?;
            }
            self.dir_mut(from.0)?.remove(from.1);
            self.dir_mut(to.0)?.insert(to.1, moved);
            if has(libc::RENAME_WHITEOUT) {
                let new = New {
                    mode: libc::S_IFCHR,
                    uid: 0,
                    gid: 0,
                    rdev: 0,
                    target: &[],
                };
                self.create(from.0, from.1, &new)?;
            }
        }
        self.adopt(moved, from.0, to.0)?;
        self.touch(from.0);
        self.touch(to.0);
        Ok(())
    }

    fn check_replace(&self, moved: Ino, target: Ino) -> Result<(), Errno> {
        match (&self.inode(moved)?.body, &self.inode(target)?.body) {
            (Body::Dir(_), Body::Dir(dir)) if !dir.is_empty() => fail(libc::ENOTEMPTY),
            (Body::Dir(_), Body::Dir(_)) => Ok(()),
            (Body::Dir(_), _) => fail(libc::ENOTDIR),
            (_, Body::Dir(_)) => fail(libc::EISDIR),
            _ => Ok(()),
        }
    }

    /// Says whether `ino` is `dir` or lies above it.
    fn is_ancestor(&self, ino: Ino, mut dir: Ino) -> Result<bool, Errno> {
        loop {
            if dir == ino {
                return Ok(true);
            }
            let parent = self.dir(dir)?.parent;
            if parent == dir {
                return Ok(false);
            }
            dir = parent;
        }
    }

    /// Completes the move of `ino` from one parent to another.
    fn adopt(&mut self, ino: Ino, old: Ino, new: Ino) -> Result<(), Errno> {
        let now = self.now;
        let inode = self.inode_mut(ino)?;
        inode.stat.ctime = now;
        if let Body::Dir(dir) = &mut inode.body {
            dir.parent = new;
            self.link_count(old, -1);
            self.link_count(new, 1);
        }
        Ok(())
    }
}
