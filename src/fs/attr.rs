//! Attributes: what is known of them, until when, and how they change.
//!
//! Three things decide whether a cached attribute may be used: the lifetime that
//! the server gave (and the mount's policy), marks of what a change made here
//! has outdated, and versions that keep a late reply from overwriting a newer
//! truth. Owner and permissions do not change when a file is written or a name
//! is made in a directory, so permission checks need no new attributes then.

use alloc::sync::Arc;
use core::time::Duration;

use bitflags::bitflags;

use super::Inode;
use super::acl::Acl;
use super::filesystem::Asked;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
pub use crate::wire::SetTime;
use crate::wire::{
    Attr, AttrReply, FileHandle, FileType, Getattr, InitFlags, LockOwner, Mode, NodeId, SetIds,
    Setattr, Time,
};

bitflags! {
    /// Attributes that a change made here has outdated.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Stale: u8 {
        const SIZE = 1 << 0;
        const BLOCKS = 1 << 1;
        const TIMES = 1 << 2;
        const NLINK = 1 << 3;
        const MODE = 1 << 4;
        const ATIME = 1 << 5;

        /// After a name in the directory changed.
        const DIRECTORY = Self::SIZE.bits() | Self::BLOCKS.bits() | Self::TIMES.bits() | Self::NLINK.bits();
        /// After data changed; the size is known.
        const WRITTEN = Self::BLOCKS.bits() | Self::TIMES.bits();
        /// After a link to it was made or removed.
        const LINKED = Self::NLINK.bits() | Self::TIMES.bits();
        /// What reading changes. Nobody but stat asks for it.
        const READ = Self::ATIME.bits();
    }
}

/// The attributes of an inode as last heard.
pub(super) struct AttrCache {
    pub(super) attr: Attr,
    /// Nanoseconds on the platform's clock.
    until: u64,
    /// Number of the last change made here.
    version: u64,
    /// When the question was asked whose answer the attributes are.
    asked: u64,
    stale: Stale,
    /// The access control list, `Some(None)` for none, `None` if not known. It
    /// holds as long as the attributes do.
    acl: Option<Option<Arc<Acl>>>,
}

/// Tells whether attributes were replaced or changed in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    until: u64,
    version: u64,
}

impl AttrCache {
    pub(super) fn new(attr: Attr, until: Duration, asked: Asked) -> Self {
        Self {
            attr,
            until: until.as_nanos() as u64,
            version: asked.0,
            asked: asked.0,
            stale: Stale::empty(),
            acl: None,
        }
    }

    fn valid(&self, now: Duration, need: Stale) -> bool {
        now.as_nanos() < u128::from(self.until) && !self.stale.intersects(need)
    }

    /// Returns the access control list if it is known.
    pub(super) fn acl(&self, now: Duration) -> Option<Option<Arc<Acl>>> {
        self.acl.clone().filter(|_| self.valid(now, Stale::MODE))
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            until: self.until,
            version: self.version,
        }
    }

    /// Keeps an access control list that was asked for at `stamp`.
    pub(super) fn keep_acl(&mut self, stamp: Stamp, acl: Option<Arc<Acl>>) {
        if self.stamp() == stamp {
            self.acl = Some(acl);
        }
    }
}

/// All that stat(2) returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Number of the file system (`st_dev`).
    pub device: u64,
    /// The attributes.
    pub attr: Attr,
}

impl Metadata {
    /// Returns the type.
    pub fn file_type(&self) -> FileType {
        self.attr.mode.file_type()
    }

    /// Returns type and permissions.
    pub fn mode(&self) -> Mode {
        self.attr.mode
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.attr.size
    }
}

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
    /// Returns the attributes, from memory if they are valid. Blocks if they are
    /// not.
    ///
    /// # Errors
    ///
    /// The server's; EIO for a bad inode; ESTALE or ENOENT if it is gone.
    pub fn metadata(self: &Arc<Self>) -> Result<Metadata> {
        self.check()?;
        Ok(Metadata {
            device: self.device(),
            attr: self.living_or_last(self.fresh_attr(Stale::all(), None))?,
        })
    }

    /// A server may not find again what has no name any more. Who has it open
    /// gets what was known when its last name went.
    fn living_or_last(&self, result: Result<Attr>) -> Result<Attr> {
        let gone =
            |error: Error| error.origin() == Origin::Server && error.errno() == Errno::ESTALE;
        let last = self.last_attr();
        result.or_else(|error| match gone(error) && last.nlink == 0 {
            true => Ok(last),
            false => Err(error),
        })
    }

    /// As [`metadata`](Self::metadata), asked of the server in any case.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn revalidate(self: &Arc<Self>) -> Result<Metadata> {
        self.check()?;
        Ok(Metadata {
            device: self.device(),
            attr: self.fetch_attr(None)?,
        })
    }

    /// Returns attributes of which those in `need` are up to date.
    pub(super) fn fresh_attr(&self, need: Stale, fh: Option<FileHandle>) -> Result<Attr> {
        if let Some(attr) = self.cached_attr(need) {
            self.fs.counters().attr_hits.add(1);
            return Ok(attr);
        }
        self.fs.counters().attr_misses.add(1);
        self.fetch_attr(fh)
    }

    pub(super) fn cached_attr(&self, need: Stale) -> Option<Attr> {
        let (attr, version) = {
            let cache = self.attr.read();
            let valid = cache.valid(self.fs.now(), need);
            valid.then_some((cache.attr, cache.version))?
        };
        let unsure = need.contains(Stale::NLINK)
            && version < self.fs.unknown_unlink()
            && !self.is_dir()
            && (attr.nlink > 1 || !self.is_named());
        (!unsure).then_some(attr)
    }

    /// Returns whether a name of the inode is known here, so that its removal
    /// would be noticed.
    fn is_named(&self) -> bool {
        let named = self
            .place()
            .and_then(|place| self.fs.dentries.peek(&place.parent, &place.name));
        named.is_some_and(|inode| core::ptr::eq(&*inode, self))
    }

    /// Returns the attributes as the answer to a question brought them, or a later
    /// one; nothing if something changed here since. Whether they may be kept
    /// does not matter.
    pub(super) fn attr_since(&self, asked: Asked) -> Option<Attr> {
        let cache = self.attr.read();
        (cache.asked >= asked.0 && cache.stale.is_empty()).then_some(cache.attr)
    }

    /// Returns the attributes as last heard, valid or not.
    pub(super) fn last_attr(&self) -> Attr {
        self.attr.read().attr
    }

    /// Returns what permission checks go by. Blocks if it must be asked.
    pub(super) fn permission_attr(&self) -> Result<Attr> {
        self.fresh_attr(Stale::MODE, None)
    }

    pub(super) fn fetch_attr(&self, fh: Option<FileHandle>) -> Result<Attr> {
        let asked = self.fs.ask_now();
        let reply = self.fs.conn.ask(&Getattr {
            node: self.node,
            fh,
        })?;
        self.take_attr_reply(reply, asked)
    }

    /// Marks the inode bad and refuses attributes that say it has another type.
    fn check_type(&self, attr: &Attr) -> Result<()> {
        if attr.mode.file_type() == self.file_type() {
            return Ok(());
        }
        self.mark_bad("its type changed");
        self.check()
    }

    /// Believes a reply unless it contradicts what cannot change.
    pub(super) fn take_attr_reply(&self, reply: AttrReply, asked: Asked) -> Result<Attr> {
        self.check_type(&reply.attr)?;
        self.apply_attr(reply.attr, self.fs.attr_until(reply.valid), asked);
        Ok(reply.attr)
    }

    /// Takes attributes over, unless something changed here since they were
    /// asked for.
    pub(super) fn apply_attr(&self, attr: Attr, until: Duration, asked: Asked) {
        let mut cache = self.attr.write();
        if asked.0 < cache.version {
            return;
        }
        if cache.attr.mtime != attr.mtime || cache.attr.size != attr.size {
            drop(cache);
            self.content_changed();
            cache = self.attr.write();
            if asked.0 < cache.version {
                return;
            }
        }
        cache.attr = attr;
        cache.asked = asked.0;
        // Questions asked before this answer came may have been answered before
        // what this one tells: their answers are not believed any more.
        cache.version = self.fs.next_version();
        cache.until = until.as_nanos() as u64;
        cache.stale = Stale::empty();
        cache.acl = None;
    }

    /// Drops what was derived from the content: somebody else changed it.
    pub(super) fn content_changed(&self) {
        if let Some(extra) = &mut *self.extra.lock() {
            extra.dir = None;
            extra.target = None;
        }
    }

    /// Notes that a change made here has outdated `stale`.
    pub(super) fn attr_changed(&self, stale: Stale) {
        let version = self.fs.next_version();
        let mut cache = self.attr.write();
        cache.version = version;
        cache.stale |= stale;
    }

    /// Notes that data were read, which changes the time of access only.
    pub(super) fn read_happened(&self) {
        if !self.attr.read().stale.contains(Stale::READ) {
            self.attr.write().stale |= Stale::READ;
        }
    }

    /// Notes a change made here, asked for at `asked`, of which the result is
    /// known; unless something else changed meanwhile, for then nobody knows here
    /// which of the two the server did last.
    pub(super) fn attr_became(&self, asked: Asked, stale: Stale, change: impl FnOnce(&mut Attr)) {
        let version = self.fs.next_version();
        let mut cache = self.attr.write();
        let raced = asked.0 < cache.version;
        cache.version = version;
        cache.stale |= if raced { Stale::all() } else { stale };
        change(&mut cache.attr);
    }

    /// Returns the number of the last change, when nobody else has the inode.
    pub(super) fn last_version(&mut self) -> u64 {
        self.attr.get_mut().version
    }

    /// Makes the next use ask the server.
    pub(super) fn expire_attr(&self) {
        let mut cache = self.attr.write();
        cache.until = 0;
    }

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
        let _layout = match changes.size {
            Some(size) => {
                self.set_unsynced();
                self.break_layout(size)?
            }
            None => None,
        };
        if changes.permissions.is_some() {
            self.may_have_privileges();
        }
        let asked = self.fs.ask_now();
        let reply = match self.fs.conn.ask(&request) {
            Ok(reply) => reply,
            Err(error) => {
                // Part of it may be done: SETATTR is not atomic on the server.
                self.attr_changed(Stale::all());
                return Err(error);
            }
        };
        self.check_type(&reply.attr)?;
        self.settle_change(&reply, asked);
        Ok(Metadata {
            device: self.device(),
            attr: reply.attr,
        })
    }

    /// Takes over the attributes after a change of ours. If others changed
    /// meanwhile, they are used once and asked for again.
    fn settle_change(&self, reply: &AttrReply, asked: Asked) {
        let version = self.fs.next_version();
        let until = self.fs.attr_until(reply.valid);
        let mut cache = self.attr.write();
        let raced = asked.0 < cache.version;
        cache.attr = reply.attr;
        cache.version = version;
        cache.stale = Stale::empty();
        cache.acl = None;
        cache.until = if raced { 0 } else { until.as_nanos() as u64 };
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
        use crate::platform::Capabilities;
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
        use crate::platform::Capabilities;
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

    /// Clears set-id bits before data are written, where nobody else does.
    pub(super) fn clear_set_ids(self: &Arc<Self>) -> Result<()> {
        let suspicious = self.last_attr().mode.permissions() & (Mode::SET_UID | Mode::SET_GID) != 0;
        if !suspicious || self.server_clears_set_ids() {
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
