//! Permission checks, as Linux makes them for its own file systems
//! (`generic_permission`, `setattr_prepare`, `may_delete`).
//!
//! virtio-fs servers do most of what they do as their own user, so this is where
//! the guest's users are kept apart. The checks go by attributes that are valid;
//! before refusing on ones that were not fresh, they are asked for once more.

use alloc::sync::Arc;

use bitflags::bitflags;

use super::attr_cache::{AclState, Rights};
use super::filesystem::Asker;
use super::{Changes, Inode, SetTime};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::{Caller, Capabilities, Platform};
use crate::wire::{self, AccessMask, FileType, Mode, Opcode};

bitflags! {
    /// What somebody wants to do with a file.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// Execute it, or look a name up in it.
        const EXEC = 1;
        /// Change its content.
        const WRITE = 2;
        /// Read its content.
        const READ = 4;
    }
}

/// What mode bits and capabilities say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Refused,
    /// This, unless there is an access control list.
    Unless(bool),
}

const EPERM: Error = Error::caller(Errno::EPERM);
const EACCES: Error = Error::caller(Errno::EACCES);

impl<P: Platform> Inode<P> {
    /// Checks that the caller may do `wanted`. Blocks if attributes must be asked
    /// for. Passes without default permissions.
    ///
    /// # Errors
    ///
    /// EACCES; EROFS for writing on a read-only mount.
    pub fn permission(&self, wanted: Access) -> Result<()> {
        self.check()?;
        if wanted.contains(Access::WRITE)
            && matches!(
                self.file_type(),
                FileType::Regular | FileType::Directory | FileType::Symlink
            )
        {
            self.fs.check_writable()?;
        }
        if !self.fs.options.default_permissions {
            return Ok(());
        }
        let asker = self.fs.asker();
        let mode = Mode::new(FileType::Directory, 0);
        if self.is_dir() && self.overrides(mode, &asker.caller, wanted) {
            // Whatever its mode is: it need not be asked for.
            return Ok(());
        }
        let rights = self.rights(asker.now)?;
        if self.allows(&rights, &asker, wanted)? {
            return Ok(());
        }
        // They may have changed on the host: the refusal must be up to date.
        self.fetch_attr(None)?;
        if self.allows(&self.last_rights(), &asker, wanted)? {
            Ok(())
        } else {
            Err(EACCES)
        }
    }

    /// Returns whether names of this directory may be looked up, as far as what
    /// is known and valid tells. If not, [`permission`](Self::permission) finds
    /// out. Sends nothing, takes no lock.
    #[inline]
    pub(super) fn surely_searchable(&self, asker: &Asker) -> bool {
        if asker.searches_all {
            return true;
        }
        self.attr.rights(asker.now).is_some_and(|rights| {
            let verdict = self.by_mode(&rights, &asker.caller, Access::EXEC);
            match verdict {
                Verdict::Allowed => true,
                Verdict::Unless(otherwise) => rights.acl == AclState::None && otherwise,
                Verdict::Refused => false,
            }
        })
    }

    /// Asks capabilities before an access control list, which may have to be
    /// fetched.
    fn allows(&self, rights: &Rights, asker: &Asker, wanted: Access) -> Result<bool> {
        let caller = &asker.caller;
        match self.by_mode(rights, caller, wanted) {
            Verdict::Allowed => Ok(true),
            Verdict::Refused => Ok(false),
            Verdict::Unless(otherwise) => {
                let belongs = |gid| caller.gid == gid || self.fs.platform().in_group(gid);
                Ok(self.acl(asker.now)?.map_or(otherwise, |acl| {
                    acl.allows(wanted, caller.uid, rights.gid, belongs)
                }))
            }
        }
    }

    #[inline]
    fn by_mode(&self, rights: &Rights, caller: &Caller, wanted: Access) -> Verdict {
        let mode = rights.mode.permissions();
        let class = |shift: u32| Access::from_bits_truncate(mode >> shift).contains(wanted);
        let owner = caller.uid == rights.uid;
        if owner && class(6) || self.overrides(rights.mode, caller, wanted) {
            return Verdict::Allowed;
        }
        if owner {
            return Verdict::Refused;
        }
        let belongs = caller.gid == rights.gid || self.fs.platform().in_group(rights.gid);
        let allowed = class(if belongs { 3 } else { 0 });
        // The group bits are the list's mask: without any it grants nothing but
        // what the bits for others do, and those only to whom it does not name.
        match allowed {
            _ if self.fs.posix_acl && (mode & 0o070 != 0 || class(0)) => Verdict::Unless(allowed),
            true => Verdict::Allowed,
            false => Verdict::Refused,
        }
    }

    /// Returns whether a capability stands in for the permission.
    fn overrides(&self, mode: Mode, caller: &Caller, wanted: Access) -> bool {
        let has = |c| caller.capabilities.contains(c);
        let searchable = Access::READ | Access::EXEC;
        if mode.is_dir() {
            return has(Capabilities::DAC_OVERRIDE)
                || has(Capabilities::DAC_READ_SEARCH) && searchable.contains(wanted);
        }
        // Nobody executes what nobody may execute.
        if wanted.contains(Access::EXEC) && mode.permissions() & 0o111 == 0 {
            return false;
        }
        has(Capabilities::DAC_OVERRIDE)
            || has(Capabilities::DAC_READ_SEARCH) && wanted == Access::READ
    }

    /// Checks that the caller may make a name in this directory.
    pub(super) fn may_create(&self) -> Result<()> {
        self.check_dir()?;
        self.permission(Access::WRITE | Access::EXEC)
    }

    /// Checks that the caller may remove the name of `victim` from this
    /// directory. `victim` is asked for only if the directory is sticky, or if
    /// the caller may not: what is not there is told first.
    pub(super) fn may_delete(
        &self,
        victim: impl FnOnce() -> Result<Option<Arc<Self>>>,
    ) -> Result<()> {
        self.check_dir()?;
        if let Err(error) = self.permission(Access::WRITE | Access::EXEC) {
            if error.errno() == Errno::EACCES && self.permission(Access::EXEC).is_ok() {
                victim()?;
            }
            return Err(error);
        }
        if !self.fs.options.default_permissions {
            return Ok(());
        }
        let dir = self.permission_attr()?;
        let caller = self.fs.caller();
        let free = dir.mode.permissions() & Mode::STICKY == 0
            || caller.uid == dir.uid
            || caller.capabilities.contains(Capabilities::FOWNER);
        if free {
            return Ok(());
        }
        match victim()? {
            Some(victim) if victim.permission_attr()?.uid != caller.uid => Err(EPERM),
            // His own, or nothing that needs protection.
            _ => Ok(()),
        }
    }

    /// Checks that the caller may make these changes. `open` says that they are
    /// made through a file that is open for writing.
    pub(super) fn may_change(&self, changes: &Changes, open: bool) -> Result<()> {
        if let Some(size) = changes.size {
            match self.file_type() {
                FileType::Regular => {}
                FileType::Directory => return Err(Error::caller(Errno::EISDIR)),
                _ => return Err(Error::caller(Errno::EINVAL)),
            }
            if size > crate::wire::SIZE_MAX {
                return Err(Error::caller(Errno::EFBIG));
            }
            if !open {
                self.permission(Access::WRITE)?;
            }
        }
        if !self.fs.options.default_permissions {
            return Ok(());
        }
        let caller = self.fs.caller();
        let attr = self.permission_attr()?;
        let owner = caller.uid == attr.uid || caller.capabilities.contains(Capabilities::FOWNER);
        let may_chown = caller.capabilities.contains(Capabilities::CHOWN);
        if let Some(uid) = changes.uid
            && !(may_chown || caller.uid == attr.uid && uid == attr.uid)
        {
            return Err(EPERM);
        }
        if let Some(gid) = changes.gid {
            let member = gid == attr.gid || gid == caller.gid || self.fs.platform().in_group(gid);
            if !(may_chown || caller.uid == attr.uid && member) {
                return Err(EPERM);
            }
        }
        if changes.permissions.is_some() && !owner {
            return Err(EPERM);
        }
        match [changes.atime, changes.mtime] {
            [SetTime::Keep, SetTime::Keep] => {}
            _ if owner => {}
            // Who may write may touch; anything else is the owner's.
            [SetTime::Now, SetTime::Now] => self.permission(Access::WRITE)?,
            _ => return Err(EPERM),
        }
        Ok(())
    }

    /// Returns the permissions that a chmod sets: the set-group-id bit is not for
    /// those outside the group, which may change with it.
    pub(super) fn allowed_mode(&self, mode: u32, gid: Option<u32>) -> Result<u32> {
        if !self.fs.options.default_permissions || mode & Mode::SET_GID == 0 {
            return Ok(mode);
        }
        let gid = gid.map_or_else(|| self.permission_attr().map(|attr| attr.gid), Ok)?;
        let keep = self.keeps_set_gid(gid);
        Ok(if keep { mode } else { mode & !Mode::SET_GID })
    }

    /// Returns whether the caller may set the set-group-id bit for a group.
    pub(super) fn keeps_set_gid(&self, gid: u32) -> bool {
        let caller = self.fs.caller();
        caller.gid == gid
            || caller.capabilities.contains(Capabilities::FSETID)
            || self.fs.platform().in_group(gid)
    }

    /// Returns whether the caller counts as the owner.
    pub(super) fn owned_by_caller(&self) -> Result<bool> {
        let caller = self.fs.caller();
        Ok(!self.fs.options.default_permissions
            || caller.capabilities.contains(Capabilities::FOWNER)
            || caller.uid == self.permission_attr()?.uid)
    }

    /// Checks whether the caller may use a file: access(2). As
    /// [`permission`](Self::permission), but the server is asked where
    /// permissions are its business. Blocks.
    ///
    /// # Errors
    ///
    /// As there, and the server's.
    pub fn access(&self, wanted: Access) -> Result<()> {
        self.permission(wanted)?;
        if self.fs.options.default_permissions {
            return Ok(());
        }
        let request = wire::Access {
            node: self.node,
            mask: AccessMask::from_bits_truncate(wanted.bits()),
        };
        // A server that does not know leaves it to the operations to fail.
        self.fs
            .lacking
            .unless(Opcode::Access, || self.fs.conn.ask(&request))
            .unwrap_or(Ok(()))
    }
}
