//! Removing and renaming.

use alloc::sync::Arc;
use core::time::Duration;

use super::Inode;
use super::attr::Stale;
use super::perm::Access;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::{Capabilities, Platform};
use crate::wire::{Name, NameError, Opcode, Rename, Rename2, RenameFlags, Rmdir, Unlink};

impl<P: Platform> Inode<P> {
    /// Removes a name of what is not a directory. The file lives on while it has
    /// other names or is open. Blocks.
    ///
    /// # Errors
    ///
    /// ENOENT, EISDIR or EPERM for a directory, EACCES, EPERM in a sticky
    /// directory, EROFS, and the server's.
    pub fn unlink(self: &Arc<Self>, name: &[u8]) -> Result<()> {
        let name = self.name_to_remove(name, Errno::EISDIR, Errno::EISDIR)?;
        self.may_delete(|| self.lookup_name(name).map(Some))?;
        let victim = self.fs.dentries.peek(self, name);
        let version = self.names_version();
        let result = self.fs.conn.ask(&Unlink {
            parent: self.node,
            name,
        });
        self.removed(name, victim, version, result)
    }

    /// Removes an empty directory. Blocks.
    ///
    /// # Errors
    ///
    /// ENOTEMPTY, ENOTDIR, EINVAL for `.`, ENOTEMPTY for `..`, and as
    /// [`unlink`](Self::unlink).
    pub fn rmdir(self: &Arc<Self>, name: &[u8]) -> Result<()> {
        let name = self.name_to_remove(name, Errno::EINVAL, Errno::ENOTEMPTY)?;
        self.may_delete(|| self.lookup_name(name).map(Some))?;
        let victim = self.fs.dentries.peek(self, name);
        let version = self.names_version();
        let result = self.fs.conn.ask(&Rmdir {
            parent: self.node,
            name,
        });
        self.removed(name, victim, version, result)
    }

    fn name_to_remove<'a>(&self, name: &'a [u8], dot: Errno, dotdot: Errno) -> Result<&'a Name> {
        self.check_dir()?;
        self.check_alive()?;
        match (Name::with_limit(name, self.fs.conn.limits().name_max), name) {
            (Err(NameError::Dots), b".") => Err(Error::caller(dot)),
            (Err(NameError::Dots), _) => Err(Error::caller(dotdot)),
            _ => self.name(name),
        }
    }

    /// Notes what became of a name that was to be removed.
    fn removed(
        self: &Arc<Self>,
        name: &Name,
        victim: Option<Arc<Self>>,
        version: u32,
        result: Result<()>,
    ) -> Result<()> {
        match result {
            Ok(()) => {
                let version = self.change_names(version);
                match victim {
                    Some(victim) => victim.lost_name(),
                    None => self.fs.note_unknown_unlink(),
                }
                self.remember_absent(name, version);
                Ok(())
            }
            Err(error) => {
                let unknown = matches!(
                    error.errno(),
                    Errno::ENOENT | Errno::EINTR | Errno::ETIMEDOUT
                );
                if unknown || error.origin() != crate::error::Origin::Server {
                    self.fs.forget_name(self, name);
                    self.names_changed();
                }
                self.note_stale(error);
                Err(error)
            }
        }
    }

    /// Counts a change of this directory's names. Returns their version now, if
    /// `asked`, that of the time of the request, shows that no other change came
    /// between: else nobody knows here which was the last.
    fn change_names(&self, asked: u32) -> Option<u32> {
        (self.names_changed() == asked).then(|| asked.wrapping_add(1))
    }

    /// Notes that the name does not exist, if the policy lets us.
    fn remember_absent(self: &Arc<Self>, name: &Name, version: Option<u32>) {
        let ttl = self.fs.options.cache.negative_ttl();
        match version {
            Some(version) if !ttl.is_zero() => {
                self.fs.remember(self.place_of(name), None, ttl, version);
            }
            _ => self.fs.forget_name(self, name),
        }
    }

    /// Notes that one of this inode's names is gone.
    fn lost_name(&self) {
        let dir = self.is_dir();
        if dir {
            self.set_dead();
        }
        let now = self.fs.ask_now();
        self.attr_became(now, Stale::TIMES, |attr| {
            attr.nlink = if dir { 0 } else { attr.nlink.saturating_sub(1) };
        });
    }

    /// Moves `name` to `new_name` in `new_parent`, replacing what stands there.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// EINVAL for unknown or contradicting flags and for moving a directory into
    /// itself, EEXIST with NOREPLACE, ENOTEMPTY, EISDIR, ENOTDIR, EXDEV, EBUSY
    /// for `.` and `..`, and as [`unlink`](Self::unlink).
    pub fn rename(
        self: &Arc<Self>,
        name: &[u8],
        new_parent: &Arc<Self>,
        new_name: &[u8],
        flags: RenameFlags,
    ) -> Result<()> {
        check_flags(flags)?;
        let name = self.name_to_remove(name, Errno::EBUSY, Errno::EBUSY)?;
        let new_name = new_parent.name_to_remove(new_name, Errno::EBUSY, Errno::EBUSY)?;
        if !Arc::ptr_eq(&self.fs, &new_parent.fs) || self.device() != new_parent.device() {
            return Err(Error::caller(Errno::EXDEV));
        }
        if Arc::ptr_eq(self, new_parent) && name == new_name {
            return self.rename_to_itself(name, flags);
        }
        if let Err(error) = self.may_rename(name, new_parent, new_name, flags) {
            return self.refused_rename(name, new_parent, new_name, flags, error);
        }
        // What moves must be known, even if its name is not remembered: somebody
        // may hold it, and must find it in its new place.
        let old = match self.fs.dentries.peek(self, name) {
            None => self.lookup_name(name).ok(),
            known => known,
        };
        let loops = match &old {
            Some(moved) => new_parent.refuse_below(moved, Errno::EINVAL),
            None => Ok(()),
        };
        if let Err(error) = loops {
            return self.refused_rename(name, new_parent, new_name, flags, error);
        }
        let until = self.fs.dentries.valid_until(self, name);
        let target = match self.fs.dentries.peek(new_parent, new_name) {
            None if flags.contains(RenameFlags::EXCHANGE) => new_parent.lookup_name(new_name).ok(),
            known => known,
        };
        let (version, new_version) = (self.names_version(), new_parent.names_version());
        let result = self.send_rename(name, new_parent, new_name, flags);
        if let Err(error) = result {
            self.fs.forget_name(self, name);
            self.fs.forget_name(new_parent, new_name);
            self.note_stale(error);
            return Err(error);
        }
        if Arc::ptr_eq(self, new_parent) && name.as_bytes() == new_name.as_bytes() {
            // Nothing moved.
            self.fs.forget_name(self, name);
            return Ok(());
        }
        let version = self.change_names(version);
        let new_version = if Arc::ptr_eq(self, new_parent) {
            version
        } else {
            new_parent.change_names(new_version)
        };
        let ttl = until.map_or(Duration::ZERO, |until| self.fs.moment().until(until));
        if flags.contains(RenameFlags::EXCHANGE) {
            self.moved_here(name, target, Duration::ZERO, version);
            new_parent.moved_here(new_name, old, Duration::ZERO, new_version);
        } else {
            let same = |(old, target): (&Arc<Self>, &Arc<Self>)| Arc::ptr_eq(old, target);
            if old.as_ref().zip(target.as_ref()).is_some_and(same) {
                // Two names of one file, or one name twice: both stay.
                return Ok(());
            }
            // Unless both names may have been the same file's.
            let gone = old
                .as_ref()
                .is_some_and(|old| target.is_some() || old.is_dir() || old.last_attr().nlink == 1);
            if target.is_none() {
                self.fs.note_unknown_unlink();
            }
            if let Some(target) = target {
                target.lost_name();
            }
            new_parent.moved_here(new_name, old, ttl, new_version);
            if gone && !flags.contains(RenameFlags::WHITEOUT) {
                self.remember_absent(name, version);
            } else {
                self.fs.forget_name(self, name);
            }
        }
        Ok(())
    }

    fn may_rename(
        self: &Arc<Self>,
        name: &Name,
        new_parent: &Arc<Self>,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        self.may_delete(|| self.lookup_name(name).map(Some))?;
        new_parent.may_delete(|| match new_parent.lookup_name(new_name) {
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            other => other.map(Some),
        })?;
        let caller = self.fs.caller();
        let checks = self.fs.options.default_permissions
            && !caller.capabilities.contains(Capabilities::DAC_OVERRIDE);
        if Arc::ptr_eq(self, new_parent) || !checks {
            return Ok(());
        }
        // A directory that changes its parent is changed: its `..` is.
        let moves = |dir: &Arc<Self>| match dir.is_dir() {
            true => dir.permission(Access::WRITE),
            false => Ok(()),
        };
        let moved = self.lookup_name(name)?;
        let target = new_parent.lookup_name(new_name).ok();
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if !exchange && moved.is_dir() && target.is_some_and(|target| !target.is_dir()) {
            return Err(Error::caller(Errno::ENOTDIR));
        }
        moves(&moved)?;
        if exchange {
            moves(&new_parent.lookup_name(new_name)?)?;
        }
        Ok(())
    }

    /// What is there, or is not, is told before who may not. Two names of one file
    /// stay as they are, and anybody may ask for that.
    fn refused_rename(
        self: &Arc<Self>,
        name: &Name,
        new_parent: &Arc<Self>,
        new_name: &Name,
        flags: RenameFlags,
        error: Error,
    ) -> Result<()> {
        let old = self.lookup(name)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let new = match new_parent.lookup(new_name) {
            Ok(_) if flags.contains(RenameFlags::NOREPLACE) => {
                return Err(Error::caller(Errno::EEXIST));
            }
            Ok(new) if Arc::ptr_eq(&old, &new) => return Ok(()),
            Ok(new) => Some(new),
            Err(absent) if !exchange && absent.errno() == Errno::ENOENT => None,
            Err(other) => return Err(other),
        };
        new_parent.refuse_below(&old, Errno::EINVAL)?;
        if let Some(new) = new {
            let full = if exchange {
                Errno::EINVAL
            } else {
                Errno::ENOTEMPTY
            };
            self.refuse_below(&new, full)?;
        }
        Err(error)
    }

    /// A name that is renamed to itself is there or not, and stays.
    fn rename_to_itself(self: &Arc<Self>, name: &Name, flags: RenameFlags) -> Result<()> {
        self.fs.check_writable()?;
        self.lookup(name)?;
        if flags.contains(RenameFlags::NOREPLACE) {
            Err(Error::caller(Errno::EEXIST))
        } else {
            Ok(())
        }
    }

    /// Refuses a directory that is above this one, or this one itself: it cannot go
    /// into itself, nor be replaced by what is in it. The server would say so as
    /// well, but our own tree must never be in doubt.
    fn refuse_below(self: &Arc<Self>, moved: &Arc<Self>, errno: Errno) -> Result<()> {
        if self.is_below(moved) {
            return Err(Error::caller(errno));
        }
        Ok(())
    }

    /// Notes that `name` in this directory stands for `inode` from now on, as far
    /// as that is known: see [`change_names`](Self::change_names).
    fn moved_here(
        self: &Arc<Self>,
        name: &Name,
        inode: Option<Arc<Self>>,
        ttl: Duration,
        version: Option<u32>,
    ) {
        let (Some(inode), Some(version)) = (inode, version) else {
            self.fs.forget_name(self, name);
            return;
        };
        inode.attr_changed(Stale::TIMES);
        let place = self.place_of(name);
        if !inode.is_dir() {
            drop(inode.set_place(Some(place.clone())));
        } else if self.fs.put_in_place(&inode, &place).is_err() {
            self.fs.forget_name(self, name);
            return;
        }
        self.fs.remember(place, Some(inode), ttl, version);
    }

    fn send_rename(
        &self,
        name: &Name,
        new_parent: &Self,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let (parent, new_parent) = (self.node, new_parent.node);
        if flags.is_empty() {
            return self.fs.conn.ask(&Rename {
                parent,
                name,
                new_parent,
                new_name,
            });
        }
        let request = Rename2 {
            parent,
            name,
            new_parent,
            new_name,
            flags,
        };
        self.fs
            .lacking
            .unless(Opcode::Rename2, || self.fs.conn.ask(&request))
            .unwrap_or(Err(Error::caller(Errno::EINVAL)))
    }
}

/// Servers drop flags that they do not know, and rename all the same.
pub(super) fn check_flags(flags: RenameFlags) -> Result<()> {
    let known = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE | RenameFlags::WHITEOUT;
    let exclusive = RenameFlags::NOREPLACE | RenameFlags::WHITEOUT;
    let both = flags.contains(RenameFlags::EXCHANGE) && flags.intersects(exclusive);
    if known.contains(flags) && !both {
        Ok(())
    } else {
        Err(Error::caller(Errno::EINVAL))
    }
}
