//! Extended attributes: getxattr(2), setxattr(2), listxattr(2), removexattr(2),
//! with the permissions of xattr(7) (Linux: `xattr_permission`,
//! `cap_inode_setxattr`).
//!
//! A server without them says ENOSYS once to each of the four requests, and the
//! caller gets EOPNOTSUPP from then on.

use alloc::sync::Arc;
use core::num::NonZeroU32;

use super::Inode;
use super::acl::{self, Acl};
use super::attr::Stale;
use super::perm::Access;
use crate::conn::Class;
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::{Capabilities, Platform};
use crate::wire::{
    FileType, Getxattr, GetxattrSize, InitFlags, Listxattr, ListxattrSize, Malformed, Mode, Opcode,
    Removexattr, Setxattr, SetxattrFlags, XATTR_VALUE_MAX, XattrFlags, XattrList, XattrName,
};

const EPERM: Error = Error::caller(Errno::EPERM);
const EOPNOTSUPP: Error = Error::caller(Errno::EOPNOTSUPP);

/// The longest list of names (XATTR_LIST_MAX of Linux).
const LIST_MAX: usize = 65536;

/// What a name says about who may use the attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namespace {
    /// `system.posix_acl_access`.
    AccessAcl,
    /// `system.posix_acl_default`.
    DefaultAcl,
    /// `security.` and the rest of `system.`.
    Kernel,
    /// `trusted.`
    Trusted,
    /// `user.`
    User,
    /// Anything else: for the server to know.
    Other,
}

impl Namespace {
    fn of(name: &XattrName) -> Self {
        match name.as_bytes() {
            acl::ACCESS => Self::AccessAcl,
            acl::DEFAULT => Self::DefaultAcl,
            name if name.starts_with(b"security.") || name.starts_with(b"system.") => Self::Kernel,
            name if name.starts_with(b"trusted.") => Self::Trusted,
            name if name.starts_with(b"user.") => Self::User,
            _ => Self::Other,
        }
    }
}

impl<P: Platform> Inode<P> {
    /// Copies the value of an extended attribute to `value` and returns its
    /// length; with an empty `value`, the length alone. Blocks.
    ///
    /// # Errors
    ///
    /// ENODATA if there is none of this name (or for `user.` on what is neither
    /// file nor directory, and `trusted.` without the capability), ERANGE if
    /// `value` is too small or the name too long or empty, EOPNOTSUPP where the
    /// server has none, EACCES, and the server's.
    pub fn get_xattr(self: &Arc<Self>, name: &[u8], value: &mut [u8]) -> Result<usize> {
        self.check()?;
        let name = checked(name)?;
        self.may_get_xattr(name)?;
        self.fetch_xattr(name, value)
    }

    /// As [`get_xattr`](Self::get_xattr), of a checked name, without permission.
    pub(super) fn fetch_xattr(&self, name: &XattrName, value: &mut [u8]) -> Result<usize> {
        let (fs, node) = (&self.fs, self.node);
        let len = value.len().min(XATTR_VALUE_MAX);
        let ask = || match NonZeroU32::new(len as u32) {
            Some(size) => fs.conn.call(
                &Getxattr { node, name, size },
                Data::Sink(&mut [&mut value[..len]]),
                Class::Normal,
            ),
            None => size_of_answer(fs.conn.ask(&GetxattrSize { node, name })?, XATTR_VALUE_MAX),
        };
        fs.lacking
            .unless(Opcode::Getxattr, ask)
            .unwrap_or(Err(EOPNOTSUPP))
    }

    /// Copies the names of the extended attributes to `list`, each with a NUL
    /// behind it, and returns their length; with an empty `list`, the length
    /// alone. [`XattrList`] takes them apart. Blocks.
    ///
    /// # Errors
    ///
    /// ERANGE if `list` is too small, EOPNOTSUPP where the server has none, EIO
    /// for a list that makes no sense, and the server's.
    pub fn list_xattr(self: &Arc<Self>, list: &mut [u8]) -> Result<usize> {
        self.check()?;
        let (fs, node) = (&self.fs, self.node);
        let len = list.len().min(LIST_MAX);
        let filled = fs
            .lacking
            .unless(Opcode::Listxattr, || match NonZeroU32::new(len as u32) {
                Some(size) => fs.conn.call(
                    &Listxattr { node, size },
                    Data::Sink(&mut [&mut list[..len]]),
                    Class::Normal,
                ),
                None => size_of_answer(fs.conn.ask(&ListxattrSize { node })?, LIST_MAX),
            });
        let filled = filled.unwrap_or(Err(EOPNOTSUPP))?;
        if len > 0
            && let Some(why) = XattrList::new(&list[..filled]).find_map(|name| name.err())
        {
            return Err(self.malformed_xattr(why));
        }
        Ok(filled)
    }

    /// Sets an extended attribute. Blocks.
    ///
    /// # Errors
    ///
    /// EEXIST with CREATE, ENODATA with REPLACE, E2BIG for a value beyond 64 KiB,
    /// ERANGE for a name that is too long or empty, EINVAL for a malformed ACL,
    /// EOPNOTSUPP where the server has none, EPERM, EACCES, EROFS, and the
    /// server's.
    pub fn set_xattr(self: &Arc<Self>, name: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        self.check()?;
        let name = check_new(name, value, flags)?;
        self.fs.check_writable()?;
        self.may_set_xattr(name, Some(value))?;
        self.may_have_privileges();
        let request = Setxattr {
            node: self.node,
            name,
            size: value.len() as u32,
            flags,
            ext_flags: self.acl_flags(name)?,
        };
        let set = || {
            let conn = &self.fs.conn;
            conn.call(&request, Data::Source(&[value]), Class::Normal)
        };
        let result = self.fs.lacking.unless(Opcode::Setxattr, set);
        self.xattr_changed(name, result.unwrap_or(Err(EOPNOTSUPP)))
    }

    /// Removes an extended attribute. Blocks.
    ///
    /// # Errors
    ///
    /// ENODATA if there is none of this name, and as
    /// [`set_xattr`](Self::set_xattr).
    pub fn remove_xattr(self: &Arc<Self>, name: &[u8]) -> Result<()> {
        self.check()?;
        let name = checked(name)?;
        self.fs.check_writable()?;
        self.may_set_xattr(name, None)?;
        let request = Removexattr {
            node: self.node,
            name,
        };
        let remove = || self.fs.conn.ask(&request);
        let result = self.fs.lacking.unless(Opcode::Removexattr, remove);
        self.xattr_changed(name, result.unwrap_or(Err(EOPNOTSUPP)))
    }

    /// Notes what a change of an attribute has outdated.
    fn xattr_changed(&self, name: &XattrName, result: Result<()>) -> Result<()> {
        let stale = match Namespace::of(name) {
            // The mode's group bits are the ACL's mask.
            Namespace::AccessAcl => Stale::TIMES | Stale::MODE,
            _ => Stale::TIMES,
        };
        match result {
            Ok(()) => {
                self.set_unsynced();
                self.attr_changed(stale);
            }
            Err(error) if error.origin() == crate::error::Origin::Caller => {}
            Err(error) => {
                self.attr_changed(stale);
                self.note_stale(error);
            }
        }
        result
    }

    fn may_get_xattr(&self, name: &XattrName) -> Result<()> {
        let absent = Error::caller(Errno::ENODATA);
        match Namespace::of(name) {
            Namespace::AccessAcl | Namespace::DefaultAcl => {
                if self.file_type() == FileType::Symlink {
                    return Err(EOPNOTSUPP);
                }
                return Ok(());
            }
            Namespace::Kernel => return Ok(()),
            Namespace::Trusted if !self.is_trusted() => return Err(absent),
            Namespace::User if !self.has_user_xattrs() => return Err(absent),
            _ => {}
        }
        self.permission(Access::READ)
    }

    fn may_set_xattr(&self, name: &XattrName, value: Option<&[u8]>) -> Result<()> {
        match Namespace::of(name) {
            namespace @ (Namespace::AccessAcl | Namespace::DefaultAcl) => {
                return self.may_set_acl(namespace == Namespace::DefaultAcl, value);
            }
            Namespace::Kernel if !name.starts_with(b"security.") || self.is_trusted() => {
                return Ok(());
            }
            Namespace::Kernel => return Err(EPERM),
            Namespace::Trusted if !self.is_trusted() => return Err(EPERM),
            Namespace::User if !self.has_user_xattrs() => return Err(EPERM),
            Namespace::User if self.is_dir() && self.fs.options.default_permissions => {
                let sticky = self.permission_attr()?.mode.permissions() & Mode::STICKY != 0;
                if sticky && !self.owned_by_caller()? {
                    return Err(EPERM);
                }
            }
            _ => {}
        }
        self.permission(Access::WRITE)
    }

    /// Checks that the caller may set, or remove, an ACL, and that it is one.
    fn may_set_acl(&self, default: bool, value: Option<&[u8]>) -> Result<()> {
        if self.file_type() == FileType::Symlink {
            return Err(EOPNOTSUPP);
        }
        if default && !self.is_dir() && value.is_some() {
            return Err(Error::caller(Errno::EACCES));
        }
        if !self.owned_by_caller()? {
            return Err(EPERM);
        }
        // An empty one removes it, and is for the server to understand.
        match value.filter(|value| !value.is_empty()).map(Acl::parse) {
            Some(Err(_)) => Err(Error::caller(Errno::EINVAL)),
            _ => Ok(()),
        }
    }

    /// Tells a server that understands it that the set-group-id bit goes, where
    /// the caller does not belong to the group.
    fn acl_flags(&self, name: &XattrName) -> Result<SetxattrFlags> {
        let limits = self.fs.conn.limits();
        let tells = limits.has(InitFlags::POSIX_ACL) && limits.has(InitFlags::SETXATTR_EXT);
        if !tells || Namespace::of(name) != Namespace::AccessAcl {
            return Ok(SetxattrFlags::empty());
        }
        let kept = self.keeps_set_gid(self.permission_attr()?.gid);
        Ok(if kept {
            SetxattrFlags::empty()
        } else {
            SetxattrFlags::ACL_KILL_SGID
        })
    }

    fn is_trusted(&self) -> bool {
        !self.fs.options.default_permissions
            || self
                .fs
                .caller()
                .capabilities
                .contains(Capabilities::SYS_ADMIN)
    }

    fn has_user_xattrs(&self) -> bool {
        matches!(self.file_type(), FileType::Regular | FileType::Directory)
    }

    pub(super) fn malformed_xattr(&self, why: Malformed) -> Error {
        self.fs.counters().malformed_replies.add(1);
        log::error!(
            "virtio-fs: malformed extended attributes of node {}: {why}",
            self.node
        );
        Error::protocol()
    }
}

/// Linux takes lengths that cannot be for the largest that can.
fn size_of_answer(size: u32, max: usize) -> Result<usize> {
    Ok((size as usize).min(max))
}

/// Checks what there is to set, whatever it is to be set on.
pub(super) fn check_new<'a>(
    name: &'a [u8],
    value: &[u8],
    flags: XattrFlags,
) -> Result<&'a XattrName> {
    if !XattrFlags::all().contains(flags) {
        return Err(Error::caller(Errno::EINVAL));
    }
    let name = checked(name)?;
    if value.len() > XATTR_VALUE_MAX {
        return Err(Error::caller(Errno::E2BIG));
    }
    Ok(name)
}

pub(super) fn checked(name: &[u8]) -> Result<&XattrName> {
    use crate::wire::NameError;
    XattrName::new(name).map_err(|error| match error {
        NameError::Empty | NameError::TooLong => Error::caller(Errno::ERANGE),
        error => error.into(),
    })
}
