//! Attributes: what is known of them, until when, and how they change.
//!
//! Three things decide whether a cached attribute may be used: the lifetime that
//! the server gave (and the mount's policy), marks of what a change made here
//! has outdated, and versions that keep a late reply from overwriting a newer
//! truth. Owner and permissions do not change when a file is written or a name
//! is made in a directory, so permission checks need no new attributes then.

use alloc::sync::Arc;

use super::Inode;
use super::attr_cache::{AclState, Known, Rights};
pub(super) use super::attr_cache::{AttrCache, Stale};
use super::filesystem::Asked;
use super::moment::Moment;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::wire::{Attr, AttrReply, FileHandle, FileType, Getattr, Mode};

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

impl<P: Platform> Inode<P> {
    /// Returns the attributes, from memory if they are valid. Blocks if they are
    /// not.
    ///
    /// # Errors
    ///
    /// The server's; EIO for a bad inode; ESTALE or ENOENT if it is gone.
    pub fn metadata(self: &Arc<Self>) -> Result<Metadata> {
        self.metadata_at(self.fs.moment())
    }

    /// As [`metadata`](Self::metadata), for who has just looked at the clock.
    pub(super) fn metadata_at(self: &Arc<Self>, now: Moment) -> Result<Metadata> {
        self.check()?;
        self.sync_pages()?;
        Ok(Metadata {
            device: self.device(),
            attr: self.living_or_last(self.fresh_attr_at(now, Stale::all(), None))?,
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
        self.fresh_attr_at(self.fs.moment(), need, fh)
    }

    fn fresh_attr_at(&self, now: Moment, need: Stale, fh: Option<FileHandle>) -> Result<Attr> {
        if let Some(attr) = self.cached_attr_at(now, need) {
            self.fs.counters().attr_hits.add(1);
            return Ok(attr);
        }
        self.fs.counters().attr_misses.add(1);
        self.fetch_attr(fh)
    }

    pub(super) fn cached_attr(&self, need: Stale) -> Option<Attr> {
        self.cached_attr_at(self.fs.moment(), need)
    }

    fn cached_attr_at(&self, now: Moment, need: Stale) -> Option<Attr> {
        let cache = self.attr.read();
        if !cache.valid(now, need) {
            return None;
        }
        let attr = cache.attr;
        let unsure = need.contains(Stale::NLINK)
            && cache.version < self.fs.unknown_unlink()
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

    /// Returns what the next read or write needs to know, if the size is up to date.
    pub(super) fn known(&self) -> Option<Known> {
        self.attr.known(self.fs.moment())
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

    /// As [`permission_attr`](Self::permission_attr), of what is valid at `now`.
    pub(super) fn rights(&self, now: Moment) -> Result<Rights> {
        if let Some(rights) = self.attr.rights(now) {
            return Ok(rights);
        }
        self.fs.counters().attr_misses.add(1);
        self.fetch_attr(None)?;
        Ok(self.last_rights())
    }

    /// Returns what permission checks go by, as last heard.
    pub(super) fn last_rights(&self) -> Rights {
        let cache = self.attr.read();
        Rights {
            mode: cache.attr.mode,
            uid: cache.attr.uid,
            gid: cache.attr.gid,
            acl: cache.acl,
        }
    }

    pub(super) fn fetch_attr(&self, fh: Option<FileHandle>) -> Result<Attr> {
        let asked = self.fs.ask_now();
        let reply = self.fs.conn.ask(&Getattr {
            node: self.node,
            fh,
        })?;
        self.take_attr_reply(reply, asked)
    }

    /// Returns whether a change of data made here explains another mtime than the
    /// one that was known.
    pub(super) fn is_time_ours(&self) -> bool {
        let stale = self.attr.read().stale;
        stale.contains(Stale::TIMES) && !stale.contains(Stale::SIZE)
    }

    /// Marks the inode bad and refuses attributes that say it has another type.
    pub(super) fn check_type(&self, attr: &Attr) -> Result<()> {
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
        // The server does not know yet how long a file is that has data kept back.
        let size = self.own_size().unwrap_or(reply.attr.size);
        Ok(Attr { size, ..reply.attr })
    }

    /// Takes attributes over, unless something changed here since they were
    /// asked for.
    pub(super) fn apply_attr(&self, mut attr: Attr, until: Moment, asked: Asked) {
        let known = self.attr.read();
        if asked.0 < known.version {
            return;
        }
        attr.size = self.own_size().unwrap_or(attr.size);
        if known.attr.mtime != attr.mtime || known.attr.size != attr.size {
            // A change made here had its time set by the server, later or earlier.
            let ours = known.stale.contains(Stale::TIMES) && !known.stale.contains(Stale::SIZE);
            self.content_changed();
            self.data_changed(known.attr.size, attr.size, ours);
        }
        // Questions asked before this answer came may have been answered before
        // what this one tells: their answers are not believed any more.
        self.attr.update(|cache| {
            if asked.0 < cache.version {
                return;
            }
            // It may have grown since.
            if self.mapping_here().is_some_and(|pages| pages.owns_size()) {
                attr.size = cache.attr.size;
            }
            cache.attr = attr;
            cache.asked = asked.0;
            cache.version = self.fs.next_version();
            cache.until = until;
            cache.stale = Stale::empty();
            cache.acl = AclState::Unknown;
        });
    }

    /// Drops what was derived from the content: somebody else changed it.
    pub(super) fn content_changed(&self) {
        if let Some(extra) = &mut *self.extra.write() {
            extra.dir = None;
            extra.target = None;
        }
    }

    /// Notes that a change made here has outdated `stale`.
    pub(super) fn attr_changed(&self, stale: Stale) {
        self.attr.outdate(stale, || self.fs.next_version());
    }

    /// Notes that data were read, which changes the time of access only.
    pub(super) fn read_happened(&self) {
        if !self.attr.read().stale.contains(Stale::READ) {
            self.attr.update(|cache| cache.stale |= Stale::READ);
        }
    }

    /// Notes a change made here, asked for at `asked`, of which the result is
    /// known; unless something else changed meanwhile, for then nobody knows here
    /// which of the two the server did last.
    pub(super) fn attr_became(&self, asked: Asked, stale: Stale, change: impl FnOnce(&mut Attr)) {
        self.attr.update(|cache| {
            let raced = asked.0 < cache.version;
            cache.version = self.fs.next_version();
            cache.stale |= if raced { Stale::all() } else { stale };
            change(&mut cache.attr);
        });
    }

    /// Returns the number of the last change.
    pub(super) fn last_version(&self) -> u64 {
        self.attr.read().version
    }

    /// Makes the next use ask the server.
    pub(super) fn expire_attr(&self) {
        self.attr.update(|cache| cache.until = Moment::PAST);
    }
}
