//! Changing attributes: chmod(2), chown(2), truncate(2), utimensat(2), and the
//! set-id bits that a change takes off (S4-M02).

use alloc::sync::Arc;

use super::attr_cache::{AclState, Stale};
use super::filesystem::Asked;
use super::moment::Moment;
use super::{Inode, Metadata};
use crate::error::Result;
use crate::platform::{Capabilities, Platform};
pub use crate::wire::SetTime;
use crate::wire::{
    AttrReply, FileHandle, FileType, InitFlags, LockOwner, Mode, NodeId, SetIds, Setattr, Time,
};

/// What to change about an inode. `None` leaves it as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Permissions, set-id and sticky bits.
    pub permissions: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: SetTime,
    /// Time of last change of data.
    pub mtime: SetTime,
}

impl Changes {
    /// Returns whether nothing is to change.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl<P: Platform> Inode<P> {
    /// Changes attributes. Blocks.
    ///
    /// Sends nothing if nothing is to change (S1-14, S1-23).
    ///
    /// # Errors
    ///
    /// EPERM, EACCES (checked here with default permissions), EROFS, EISDIR for
    /// a directory's size, EINVAL, EFBIG, and the server's.
    pub fn set_metadata(self: &Arc<Self>, changes: &Changes) -> Result<Metadata> {
        self.set_attr(changes, None)
    }

    pub(super) fn set_attr(
        self: &Arc<Self>,
        changes: &Changes,
        handle: Option<(FileHandle, LockOwner)>,
    ) -> Result<Metadata> {
        self.check()?;
        if changes.is_empty() {
            return self.metadata();
        }
        self.fs.check_writable()?;
        self.may_change(changes, handle.is_some())?;
        let mut request = self.setattr_request(changes)?;
        request.fh = handle.map(|(fh, _)| fh);
        request.lock_owner = handle
            .filter(|_| changes.size.is_some())
            .map(|(_, owner)| owner);
        // Until the new size is known.
        let layout = match changes.size {
            Some(size) => self.break_layout(size)?,
            None => None,
        };
        // What was written before comes before, with its times and privileges.
        let _gate = self.close_gate()?;
        if changes.permissions.is_some() {
            self.may_have_privileges();
        }
        let asked = self.fs.ask_now();
        let reply = self.fs.conn.ask(&request);
        self.set_unsynced();
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                // Part of it may be done: SETATTR is not atomic on the server.
                self.attr_changed(Stale::all());
                return Err(error);
            }
        };
        self.check_type(&reply.attr)?;
        let before = self.last_attr();
        if changes.size.is_some() {
            self.resize_pages(before.size, reply.attr.size);
        } else if changes.mtime == SetTime::Keep && reply.attr.mtime != before.mtime {
            let ours = self.is_time_ours();
            self.data_changed(before.size, reply.attr.size, ours);
        }
        self.settle_change(&reply, asked);
        drop(layout);
        if changes.size.is_some() {
            self.opened_for_writing();
        }
        Ok(Metadata {
            device: self.device(),
            attr: reply.attr,
        })
    }

    /// Takes over the attributes after a change of ours. If others changed
    /// meanwhile, they are used once and asked for again.
    fn settle_change(&self, reply: &AttrReply, asked: Asked) {
        let until = self.fs.attr_until(reply.valid);
        self.attr.update(|cache| {
            let raced = asked.0 < cache.version;
            cache.attr = reply.attr;
            cache.version = self.fs.next_version();
            cache.stale = Stale::empty();
            cache.acl = AclState::Unknown;
            cache.until = if raced { Moment::PAST } else { until };
        });
    }

    /// Builds the request, set-id bits considered (S4-M02).
    fn setattr_request(&self, changes: &Changes) -> Result<Setattr> {
        let mut request = Setattr::new(NodeId::ROOT);
        request.node = self.node;
        request.mode = changes.permissions.map(|p| p & 0o7777);
        request.uid = changes.uid;
        request.gid = changes.gid;
        request.size = changes.size;
        request.atime = changes.atime;
        request.mtime = changes.mtime;
        if request.mode.is_some() {
            request.mode = request
                .mode
                .map(|mode| self.allowed_mode(mode, changes.gid))
                .transpose()?;
        }
        let owner = changes.uid.is_some() || changes.gid.is_some();
        if changes.size.is_some() || owner {
            request.set_ids = self.set_ids_on_change();
            if request.mode.is_none() && !self.server_clears_set_ids() {
                request.mode = self.mode_without_set_ids(owner)?;
            }
        }
        Ok(request)
    }

    /// Says whether the server takes care of set-id bits.
    pub(super) fn server_clears_set_ids(&self) -> bool {
        let limits = self.fs.conn.limits();
        limits.has(InitFlags::HANDLE_KILLPRIV) || limits.has(InitFlags::HANDLE_KILLPRIV_V2)
    }

    /// Returns what to tell a server of V2 when data change.
    pub(super) fn set_ids_on_change(&self) -> SetIds {
        if self.fs.conn.limits().has(InitFlags::HANDLE_KILLPRIV_V2)
            && !self.fs.caller().capabilities.contains(Capabilities::FSETID)
        {
            SetIds::Clear
        } else {
            SetIds::Keep
        }
    }

    /// Returns the mode to set when the server does not clear set-id bits itself
    /// and there are some to clear.
    pub(super) fn mode_without_set_ids(&self, owner_changes: bool) -> Result<Option<u32>> {
        if self.file_type() != FileType::Regular {
            return Ok(None);
        }
        let mode = self.permission_attr()?.mode.permissions();
        let mut clear = Mode::SET_UID;
        // Without group execution the bit means mandatory locking, not set-id.
        if mode & 0o010 != 0 {
            clear |= Mode::SET_GID;
        }
        let privileged =
            self.fs.caller().capabilities.contains(Capabilities::FSETID) && !owner_changes;
        Ok((mode & clear != 0 && !privileged).then_some(mode & !clear))
    }

    /// Notes that set-id bits or capabilities may be given to the file now, which
    /// the next change of its data must take off.
    pub(super) fn may_have_privileges(&self) {
        if let Some(owner) = &self.owner {
            owner.set_bare(false);
        }
        if let Some(pages) = self.pages.get() {
            pages.set_bare(false);
        }
    }

    /// Returns what a change of data outdates: the mode as well, where there are
    /// set-id bits for the server to clear.
    pub(super) fn written(&self) -> Stale {
        let set_ids = self.last_attr().mode.permissions() & (Mode::SET_UID | Mode::SET_GID);
        if set_ids != 0 && self.server_clears_set_ids() {
            Stale::WRITTEN | Stale::MODE
        } else {
            Stale::WRITTEN
        }
    }

    /// Returns whether the file had set-id bits when it was last asked for.
    pub(super) fn has_set_ids(&self) -> bool {
        self.last_attr().mode.permissions() & (Mode::SET_UID | Mode::SET_GID) != 0
    }

    /// Clears set-id bits before data are written, where nobody else does.
    pub(super) fn clear_set_ids(self: &Arc<Self>) -> Result<()> {
        if !self.has_set_ids() || self.server_clears_set_ids() {
            return Ok(());
        }
        if let Some(mode) = self.mode_without_set_ids(false)? {
            let mut request = Setattr::new(self.node);
            request.mode = Some(mode);
            let asked = self.fs.ask_now();
            let reply = self.fs.conn.ask(&request)?;
            self.take_attr_reply(reply, asked)?;
        }
        Ok(())
    }
}

/// Makes an explicit time for [`Changes`].
impl From<Time> for SetTime {
    fn from(time: Time) -> Self {
        Self::To(time)
    }
}
