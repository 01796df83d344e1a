//! What to do about a server's notifications (protocol: FUSE_NOTIFY_*).
//!
//! Whoever reads them, from the notification queue or from elsewhere, hands them
//! to [`FileSystem::notified`]. What they say of nodes or names that are not
//! known here is ignored: a server cannot know what was forgotten meanwhile.

use alloc::sync::Arc;

use super::attr::Stale;
use super::{FileSystem, Inode};
use crate::conn::Class;
use crate::device::Data;
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{InvalKind, InvalRange, Name, NodeId, Notification, NotifyReply};

impl<P: Platform> FileSystem<P> {
    /// Does what a notification of the server's asks for. Blocks only to answer
    /// RETRIEVE, and then only while all places for requests are taken.
    ///
    /// Replies that are under way and were asked for before are used, but not
    /// remembered. STORE goes over the pages that are cached and says that the file
    /// changed; RETRIEVE gets what is cached in one run from where it asks.
    ///
    /// # Errors
    ///
    /// Those of sending the answer to RETRIEVE.
    pub fn notified(self: &Arc<Self>, notification: &Notification<'_>) -> Result<()> {
        // Nodes are the server's of this life here.
        match *notification {
            Notification::Poll(handle) => self.pollers.wake(handle),
            Notification::InvalInode { node, range } => {
                self.inode_is_stale(node);
                if let Some(inode) = self.known(node)
                    && let Some(InvalRange { offset, len }) = range
                {
                    inode.sync_pages()?;
                    inode.drop_bytes(offset, len.unwrap_or(u64::MAX));
                }
            }
            Notification::Store { node, offset, data } => {
                self.inode_is_stale(node);
                if let Some(inode) = self.known(node) {
                    inode.store_pages(offset, data);
                }
            }
            Notification::InvalEntry { parent, name, kind } => {
                self.entry_is_stale(parent, name, kind);
            }
            Notification::Delete {
                parent,
                child,
                name,
            } => self.entry_is_gone(parent, child, name),
            Notification::Retrieve {
                unique,
                node,
                offset,
                size,
            } => {
                let data = self
                    .known(node)
                    .map(|inode| inode.retrieve_pages(offset, size))
                    .unwrap_or_default();
                let reply = NotifyReply {
                    unique,
                    node: self.conn.known_as(node).unwrap_or(NodeId::ROOT),
                    offset,
                    size: data.len() as u32,
                };
                return self
                    .conn
                    .call(&reply, Data::Source(&[&data]), Class::Forced);
            }
            // Requests that a restarted server has lost are not sent again: the
            // session says so by not offering HAS_RESEND.
            Notification::Resend => {}
            Notification::IncEpoch => self.expire_names(),
            Notification::Prune(nodes) => nodes.for_each(|node| self.prune(node)),
        }
        Ok(())
    }

    /// Returns the inode that the server calls `node`.
    fn known(&self, node: NodeId) -> Option<Arc<Inode<P>>> {
        self.inodes.get(self.conn.known_as(node)?)
    }

    fn inode_is_stale(&self, node: NodeId) {
        if let Some(inode) = self.known(node) {
            inode.content_changed();
            inode.attr_changed(Stale::all());
        }
    }

    fn entry_is_stale(&self, parent: NodeId, name: &Name, kind: InvalKind) {
        let Some(parent) = self.known(parent).filter(|dir| dir.is_dir()) else {
            return;
        };
        parent.names_outdated();
        match kind {
            InvalKind::Drop => self.forget_name(&parent, name),
            InvalKind::Expire => self.dentries.expire(&parent, name),
        }
    }

    fn entry_is_gone(&self, parent: NodeId, child: NodeId, name: &Name) {
        let Some(parent) = self.known(parent).filter(|dir| dir.is_dir()) else {
            return;
        };
        parent.names_outdated();
        match self.dentries.peek(&parent, name) {
            // The name was given to another file meanwhile.
            Some(inode) if self.conn.known_as(child) != Some(inode.node) => {}
            _ => self.forget_name(&parent, name),
        }
        if let Some(child) = self.known(child) {
            child.attr_changed(Stale::LINKED);
        }
    }

    /// Makes every name be asked for again.
    fn expire_names(&self) {
        self.inodes.for_each(|inode| {
            if inode.is_dir() {
                inode.names_outdated();
            }
        });
        self.dentries.expire_all();
    }

    /// Drops the name by which a node is known, so that it is forgotten unless
    /// somebody uses it.
    fn prune(&self, node: NodeId) {
        if let Some(place) = self.known(node).and_then(|inode| inode.place()) {
            self.forget_name(&place.parent, &place.name);
        }
    }
}
