//! POSIX access control lists (acl(5), POSIX.1e draft 17), where POSIX_ACL was
//! negotiated.
//!
//! The server keeps them, as extended attributes, and changes them with the mode;
//! it also gives new files the default list of their directory (DONT_MASK). Here
//! the access list is fetched, kept for as long as the attributes hold, and
//! asked.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::Inode;
use super::attr_cache::{AclState, Stale, Stamp};
use super::moment::Moment;
use super::perm::Access;
use crate::errno::Errno;
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{Malformed, XattrName};

/// Name of the list that is checked.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";
/// Name of the list that new files in a directory get.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The one version of the format.
const VERSION: u32 = 2;
/// Room for a list: 63 named users and groups without another allocation.
const ROOM: usize = 4 + 8 * 67;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An entry as it stands in the attribute.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Raw {
    tag: U16,
    permissions: U16,
    id: U32,
}

/// An access control list that makes sense: one entry each for owner, group and
/// others, a mask if anybody is named, and in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Acl {
    users: Vec<(u32, Access)>,
    group: Access,
    groups: Vec<(u32, Access)>,
    /// `None` where nobody is named.
    mask: Option<Access>,
    other: Access,
}

impl Acl {
    /// Reads the value of an attribute, strictly.
    pub(super) fn parse(value: &[u8]) -> Result<Self, Malformed> {
        let (version, entries) =
            U32::read_from_prefix(value).map_err(|_| Malformed::PayloadLen(value.len()))?;
        if version != VERSION || entries.len() % size_of::<Raw>() != 0 {
            return Err(Malformed::PayloadLen(value.len()));
        }
        let entries =
            <[Raw]>::ref_from_bytes(entries).map_err(|_| Malformed::PayloadLen(value.len()))?;
        let mut acl = Self {
            users: Vec::new(),
            group: Access::empty(),
            groups: Vec::new(),
            mask: None,
            other: Access::empty(),
        };
        // Tags ascend, and only names may come twice.
        let mut last = 0;
        let mut present = 0;
        for entry in entries {
            let (tag, bits) = (entry.tag.get(), u32::from(entry.permissions.get()));
            let malformed = Malformed::Mode(bits | u32::from(tag) << 16);
            let access = Access::from_bits(bits).ok_or(malformed)?;
            let named = matches!(tag, USER | GROUP);
            if tag < last || tag == last && !named {
                return Err(malformed);
            }
            (last, present) = (tag, present | tag);
            match tag {
                USER_OBJ => {}
                USER => acl.users.push((entry.id.get(), access)),
                GROUP_OBJ => acl.group = access,
                GROUP => acl.groups.push((entry.id.get(), access)),
                MASK => acl.mask = Some(access),
                OTHER => acl.other = access,
                _ => return Err(malformed),
            }
        }
        let needed = if present & (USER | GROUP) == 0 {
            USER_OBJ | GROUP_OBJ | OTHER
        } else {
            USER_OBJ | GROUP_OBJ | OTHER | MASK
        };
        if present & needed == needed {
            Ok(acl)
        } else {
            Err(Malformed::PayloadLen(value.len()))
        }
    }

    /// Returns whether somebody who is not the owner may do `wanted`. `belongs`
    /// says whether he is in a group, `group` is the file's.
    pub(super) fn allows(
        &self,
        wanted: Access,
        uid: u32,
        group: u32,
        belongs: impl Fn(u32) -> bool,
    ) -> bool {
        let masked = |access: Access| self.mask.map_or(access, |mask| access & mask);
        if let Some((_, access)) = self.users.iter().find(|(user, _)| *user == uid) {
            return masked(*access).contains(wanted);
        }
        let own = (group, self.group);
        let groups = core::iter::once(&own).chain(&self.groups);
        let mut member = false;
        for (_, access) in groups.filter(|(gid, _)| belongs(*gid)) {
            // One of his groups must allow all of it.
            if masked(*access).contains(wanted) {
                return true;
            }
            member = true;
        }
        !member && self.other.contains(wanted)
    }
}

impl<P: Platform> Inode<P> {
    /// Returns the access list, if there is one and the server leaves checking
    /// to us. Blocks unless it is known.
    ///
    /// # Errors
    ///
    /// EIO for a list that makes no sense, and the server's.
    pub(super) fn acl(&self, now: Moment) -> Result<Option<Arc<Acl>>> {
        if !self.fs.posix_acl {
            return Ok(None);
        }
        let cache = self.attr.read();
        if cache.valid(now, Stale::MODE) {
            let kept = || self.extra.read().as_ref()?.acl.clone();
            match cache.acl {
                AclState::None => return Ok(None),
                AclState::Kept => {
                    if let Some(acl) = kept() {
                        return Ok(Some(acl));
                    }
                }
                AclState::Unknown => {}
            }
        }
        let acl = self.fetch_acl()?.map(Arc::new);
        self.keep_acl(cache.stamp(), acl.clone());
        Ok(acl)
    }

    /// Keeps a list that was asked for at `stamp`, unless something changed since.
    fn keep_acl(&self, stamp: Stamp, acl: Option<Arc<Acl>>) {
        let state = match acl {
            Some(_) => AclState::Kept,
            None => AclState::None,
        };
        let mut extra = self.extra.write();
        let current = self.attr.update(|cache| {
            let current = cache.stamp() == stamp;
            if current {
                cache.acl = state;
            }
            current
        });
        if current && acl.is_some() {
            extra.get_or_insert_with(Box::default).acl = acl;
        }
    }

    fn fetch_acl(&self) -> Result<Option<Acl>> {
        let name = XattrName::new(ACCESS)?;
        let mut room = [0; ROOM];
        let parse = |value: &[u8]| {
            if value.is_empty() {
                return Ok(None);
            }
            Acl::parse(value)
                .map(Some)
                .map_err(|why| self.malformed_xattr(why))
        };
        let error = match self.fetch_xattr(name, &mut room) {
            Ok(len) => return parse(&room[..len]),
            Err(error) => error,
        };
        match error.errno() {
            Errno::ENODATA | Errno::EOPNOTSUPP => Ok(None),
            Errno::ERANGE => {
                let mut room = alloc::vec![0; crate::wire::XATTR_VALUE_MAX];
                let len = self.fetch_xattr(name, &mut room)?;
                parse(&room[..len])
            }
            _ => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permissions.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    const NOBODY: u32 = u32::MAX;

    #[test]
    fn a_named_user_is_asked_before_groups_and_the_mask_limits_all_but_others() {
        let acl = Acl::parse(&value(&[
            (USER_OBJ, 7, NOBODY),
            (USER, 7, 10),
            (USER, 0, 11),
            (GROUP_OBJ, 4, NOBODY),
            (GROUP, 2, 20),
            (GROUP, 4, 21),
            (MASK, 6, NOBODY),
            (OTHER, 1, NOBODY),
        ]))
        .unwrap();
        let may = |uid, groups: &[u32], wanted| {
            let wanted = Access::from_bits_truncate(wanted);
            acl.allows(wanted, uid, 5, |gid| groups.contains(&gid))
        };
        assert!(
            may(10, &[], 6) && !may(10, &[], 1),
            "the mask takes execution"
        );
        assert!(!may(11, &[5, 20, 21], 4), "named, and refused");
        assert!(may(12, &[5], 4) && !may(12, &[5], 2), "the file's group");
        assert!(may(12, &[20], 2) && may(12, &[20, 21], 4));
        assert!(!may(12, &[20, 21], 6), "no single group allows both");
        assert!(may(12, &[], 1) && !may(12, &[], 4), "others, unmasked");
        assert!(!may(12, &[20], 1), "a member is no other");
    }

    #[test]
    fn a_list_without_names_needs_no_mask() {
        let acl = Acl::parse(&value(&[
            (USER_OBJ, 6, NOBODY),
            (GROUP_OBJ, 4, NOBODY),
            (OTHER, 0, NOBODY),
        ]))
        .unwrap();
        assert!(acl.allows(Access::READ, 1, 5, |gid| gid == 5));
        assert!(!acl.allows(Access::READ, 1, 5, |_| false));
    }

    #[test]
    fn lists_that_make_no_sense_are_refused() {
        let (u, g, o) = (
            (USER_OBJ, 6, NOBODY),
            (GROUP_OBJ, 4, NOBODY),
            (OTHER, 4, NOBODY),
        );
        let m = (MASK, 7, NOBODY);
        for entries in [
            vec![],
            vec![u, g],
            vec![u, o],
            vec![g, o],
            vec![u, o, g],
            vec![u, u, g, o],
            vec![u, g, o, o],
            vec![u, (USER, 4, 1), g, o],
            vec![u, g, (GROUP, 4, 1), o],
            vec![u, g, (USER, 4, 1), m, o],
            vec![u, g, m, m, o],
            vec![u, g, o, (0x40, 4, 0)],
            vec![u, g, (OTHER, 8, 0)],
            vec![(0, 0, 0), u, g, o],
        ] {
            assert!(Acl::parse(&value(&entries)).is_err(), "{entries:?}");
        }
        let good = value(&[u, (USER, 4, 1), (USER, 4, 2), g, m, o]);
        assert!(Acl::parse(&good).is_ok());
        for cut in 0..good.len() {
            assert!(Acl::parse(&good[..cut]).is_err(), "{cut}");
        }
        let mut other_version = good;
        other_version[0] = 1;
        assert!(Acl::parse(&other_version).is_err());
    }
}
