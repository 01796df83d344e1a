//! What the server calls things today.
//!
//! Whoever uses a connection keeps node ids and file handles for as long as it
//! likes; a server that was started anew has others for the same files. So an id
//! that was handed to the user of the connection stays what it is for ever, and
//! after a restart this table says which id of the server's it stands for. In
//! the first life of a connection the two are the same, and nothing is looked up.
//!
//! A name that is not in the table was not asked for yet in this life: the user
//! of the connection is asked to find it again (see [`Keeper`](super::restart::Keeper)).
//!
//! # Invariants
//!
//! - In life 0 the table is empty and every id is its own name.
//! - `count` of a node is what the server of this life counts for it under that
//!   name. Two names may stand for one node, when a reply crossed a restart.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Release};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::sync::{Rank, SpinRwLock};
use crate::wire::{FileHandle, Id, NodeId};

/// Which of its sessions a connection is in, counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life(pub(super) u32);

impl Life {
    /// Returns the number: 0 before the first restart.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Why an id has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nameless {
    /// It was not looked for in this life.
    Missing(Id),
    /// It was, and is not to be had.
    Gone(Errno),
    /// Another life has begun.
    Past,
}

#[derive(Clone, Copy)]
struct Node {
    server: u64,
    count: u64,
}

/// What became of a handle.
#[derive(Clone, Copy)]
enum Handle {
    Open(u64),
    /// Open, but for closing only.
    Barred(u64, Errno),
    /// Not open.
    Lost(Errno),
}

struct Table {
    life: Life,
    /// `None` for a node that was not found again.
    nodes: HashMap<u64, Option<Node>, FixedState>,
    back: HashMap<u64, u64, FixedState>,
    handles: HashMap<(u64, u64), Handle, FixedState>,
    /// Names that turned out to be those of nodes that had one.
    merged: HashMap<u64, u64, FixedState>,
    /// The next id of our own making.
    next: u64,
}

/// The table, and the life that it is for.
pub(super) struct Names {
    life: AtomicU32,
    table: SpinRwLock<Table>,
}

/// Ids of our own making begin here, where servers' ids hardly are.
const OWN: u64 = 1 << 63;

fn no_memory<T>(_: T) -> Error {
    Error::new(Errno::ENOMEM, Origin::Platform)
}

impl Names {
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            life: AtomicU32::new(0),
            table: SpinRwLock::new(
                Rank::Leaf,
                Table {
                    life: Life(0),
                    nodes: HashMap::with_hasher(FixedState::with_seed(seed)),
                    back: HashMap::with_hasher(FixedState::with_seed(seed ^ 0x79b9)),
                    handles: HashMap::with_hasher(FixedState::with_seed(seed ^ 0x7f4a)),
                    merged: HashMap::with_hasher(FixedState::with_seed(seed ^ 0x3c6e)),
                    next: OWN,
                },
            ),
        }
    }

    pub(super) fn life(&self) -> Life {
        Life(self.life.load(Acquire))
    }

    /// Begins the next life, in which nothing has a name but the root. Returns
    /// which it is.
    pub(super) fn next_life(&self) -> Life {
        let mut table = self.table.write();
        let life = Life(table.life.0.saturating_add(1));
        table.life = life;
        let old = (
            core::mem::take(&mut table.nodes),
            core::mem::take(&mut table.back),
            core::mem::take(&mut table.handles),
            core::mem::take(&mut table.merged),
        );
        self.life.store(life.0, Release);
        drop(table);
        drop(old);
        life
    }

    /// Returns what the server calls `id` in this life.
    /// For what closes a handle, those count as well that are barred otherwise.
    pub(super) fn find(&self, life: Life, id: Id, closes: bool) -> Result<u64, Nameless> {
        let table = self.table.read();
        if table.life != life {
            return Err(Nameless::Past);
        }
        if life == Life(0) {
            return Ok(match id {
                Id::Node(node) => node.get(),
                Id::Handle(_, fh) => fh.0,
            });
        }
        let known = match id {
            Id::Node(NodeId::ROOT) => return Ok(NodeId::ROOT.get()),
            Id::Node(node) => table
                .nodes
                .get(&node.get())
                .map(|node| node.map(|node| node.server).ok_or(Errno::ESTALE)),
            Id::Handle(node, fh) => {
                table
                    .handles
                    .get(&(node.get(), fh.0))
                    .map(|handle| match *handle {
                        Handle::Open(server) => Ok(server),
                        Handle::Barred(server, _) if closes => Ok(server),
                        Handle::Barred(_, why) | Handle::Lost(why) => Err(why),
                    })
            }
        };
        match known {
            Some(Ok(name)) => Ok(name),
            Some(Err(why)) => Err(Nameless::Gone(why)),
            None => Err(Nameless::Missing(id)),
        }
    }

    /// Returns what the user of the connection calls a node of the server's, one
    /// lookup of which was just counted: a new id if it is new.
    pub(super) fn adopt(&self, life: Life, server: NodeId) -> Result<NodeId> {
        if life == Life(0) || server == NodeId::ROOT {
            return Ok(server);
        }
        let mut table = self.table.write();
        if table.life != life {
            // The reply crossed a restart: what it names must be found again.
            return Ok(table.fresh());
        }
        let server = server.get();
        if let Some(&ours) = table.back.get(&server)
            && let Some(Some(node)) = table.nodes.get_mut(&ours)
        {
            node.count += 1;
            return NodeId::new(ours).ok_or_else(Error::protocol);
        }
        table.nodes.try_reserve(1).map_err(no_memory)?;
        table.back.try_reserve(1).map_err(no_memory)?;
        let ours = table.fresh();
        table
            .nodes
            .insert(ours.get(), Some(Node { server, count: 1 }));
        table.back.insert(server, ours.get());
        Ok(ours)
    }

    /// As [`adopt`](Self::adopt), for a handle.
    pub(super) fn adopt_handle(
        &self,
        life: Life,
        node: NodeId,
        server: FileHandle,
    ) -> Result<FileHandle> {
        if life == Life(0) {
            return Ok(server);
        }
        let mut table = self.table.write();
        let ours = table.fresh().get();
        if table.life == life {
            table.handles.try_reserve(1).map_err(no_memory)?;
            table
                .handles
                .insert((node.get(), ours), Handle::Open(server.0));
        }
        Ok(FileHandle(ours))
    }

    /// Returns by which id the user knows a node of the server's, if it does.
    pub(super) fn known_as(&self, server: NodeId) -> Option<NodeId> {
        let table = self.table.read();
        if table.life == Life(0) || server == NodeId::ROOT {
            return Some(server);
        }
        NodeId::new(*table.back.get(&server.get())?)
    }

    /// Notes that `node` was found again, and that the server counts one lookup
    /// more. Returns false if that was in another life.
    pub(super) fn bind(&self, life: Life, node: NodeId, server: NodeId) -> Result<bool> {
        let mut table = self.table.write();
        if table.life != life {
            return Ok(false);
        }
        table.nodes.try_reserve(1).map_err(no_memory)?;
        table.back.try_reserve(1).map_err(no_memory)?;
        let (ours, server) = (node.get(), server.get());
        match table.nodes.get_mut(&ours) {
            Some(Some(known)) if known.server == server => known.count += 1,
            _ => {
                table.nodes.insert(ours, Some(Node { server, count: 1 }));
            }
        }
        table.back.entry(server).or_insert(ours);
        Ok(true)
    }

    /// Notes that an open file was opened again, or could not be.
    pub(super) fn bind_handle(
        &self,
        life: Life,
        node: NodeId,
        fh: FileHandle,
        server: Result<FileHandle, Errno>,
    ) -> Result<bool> {
        let mut table = self.table.write();
        if table.life != life {
            return Ok(false);
        }
        table.handles.try_reserve(1).map_err(no_memory)?;
        let handle = server.map_or_else(Handle::Lost, |fh| Handle::Open(fh.0));
        table.handles.insert((node.get(), fh.0), handle);
        Ok(true)
    }

    /// Notes that the node that was taken for a new one, `new`, is one that was
    /// known as `old`. Its lookups are counted there.
    pub(super) fn merge(&self, life: Life, new: NodeId, old: NodeId) -> Result<bool> {
        let mut table = self.table.write();
        if table.life != life {
            return Ok(false);
        }
        table.nodes.try_reserve(1).map_err(no_memory)?;
        table.merged.try_reserve(1).map_err(no_memory)?;
        let Some(Some(from)) = table.nodes.remove(&new.get()) else {
            return Ok(false);
        };
        let counted = match table.nodes.get(&old.get()) {
            Some(Some(known)) => known.count,
            _ => 0,
        };
        let node = Node {
            server: from.server,
            count: from.count + counted,
        };
        table.nodes.insert(old.get(), Some(node));
        table.back.insert(from.server, old.get());
        table.merged.insert(new.get(), old.get());
        Ok(true)
    }

    /// Returns which node an id was [merged](Self::merge) into.
    pub(super) fn merged(&self, node: NodeId) -> NodeId {
        let table = self.table.read();
        let into = table.merged.get(&node.get()).copied();
        into.and_then(NodeId::new).unwrap_or(node)
    }

    /// Notes that `node` was not found again. It is asked for no more in this
    /// life.
    pub(super) fn lose(&self, life: Life, node: NodeId) {
        let mut table = self.table.write();
        if table.life == life && table.nodes.try_reserve(1).is_ok() {
            table.nodes.insert(node.get(), None);
        }
    }

    /// Takes back up to `lookups` counts of a node. Returns its name, and how many
    /// the server is to be told; `None` if it knows none.
    pub(super) fn uncount(&self, life: Life, node: NodeId, lookups: u64) -> Option<(NodeId, u64)> {
        if life == Life(0) && self.life() == life {
            return Some((node, lookups));
        }
        let mut table = self.table.write();
        if table.life != life {
            return None;
        }
        let ours = node.get();
        let Some(known) = table.nodes.get_mut(&ours)? else {
            table.nodes.remove(&ours);
            return None;
        };
        let told = lookups.min(known.count);
        known.count -= told;
        let (server, left) = (known.server, known.count);
        if left == 0 {
            table.nodes.remove(&ours);
            if table.back.get(&server) == Some(&ours) {
                table.back.remove(&server);
            }
        }
        Some((NodeId::new(server)?, told)).filter(|_| told > 0)
    }

    /// Forgets that a node was lost: nobody has it any more.
    pub(super) fn drop_lost(&self, node: NodeId) {
        if self.life() == Life(0) {
            return;
        }
        let mut table = self.table.write();
        if let Some(None) = table.nodes.get(&node.get()) {
            table.nodes.remove(&node.get());
        }
    }

    /// Returns whether the server of this life has this handle.
    pub(super) fn has_handle(&self, node: NodeId, fh: FileHandle) -> bool {
        let life = self.life();
        life == Life(0) || self.find(life, Id::Handle(node, fh), true).is_ok()
    }

    /// Lets nobody use a handle any more, but for closing it.
    pub(super) fn bar(&self, life: Life, node: NodeId, fh: FileHandle, why: Errno) {
        let mut table = self.table.write();
        if table.life == life
            && let Some(handle) = table.handles.get_mut(&(node.get(), fh.0))
            && let Handle::Open(server) = *handle
        {
            *handle = Handle::Barred(server, why);
        }
    }

    /// Returns whether callers may use a handle.
    pub(super) fn is_usable(&self, node: NodeId, fh: FileHandle) -> bool {
        let life = self.life();
        life == Life(0) || self.find(life, Id::Handle(node, fh), false).is_ok()
    }

    /// Forgets a handle that was released.
    pub(super) fn drop_handle(&self, node: NodeId, fh: FileHandle) {
        if self.life() != Life(0) {
            self.table.write().handles.remove(&(node.get(), fh.0));
        }
    }
}

impl Table {
    /// Makes an id that the user of the connection does not know yet.
    fn fresh(&mut self) -> NodeId {
        loop {
            let id = self.next;
            self.next = self.next.checked_add(1).unwrap_or(OWN);
            let taken = self.nodes.contains_key(&id);
            if let (Some(id), false) = (NodeId::new(id), taken) {
                return id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeId {
        NodeId::new(id).unwrap()
    }

    #[test]
    fn in_the_first_life_every_id_is_its_own_name() {
        let names = Names::new(1);
        let life = names.life();
        assert_eq!(names.adopt(life, node(7)).unwrap(), node(7));
        assert_eq!(names.find(life, Id::Node(node(7)), false), Ok(7));
        let handle = Id::Handle(node(7), FileHandle(3));
        assert_eq!(names.find(life, handle, false), Ok(3));
        assert_eq!(names.uncount(life, node(7), 5), Some((node(7), 5)));
    }

    #[test]
    fn after_a_restart_an_id_stands_for_what_it_was_bound_to() {
        let names = Names::new(1);
        let old = names.life();
        let life = names.next_life();
        let id = Id::Node(node(7));
        assert_eq!(names.find(old, id, false), Err(Nameless::Past));
        assert_eq!(names.find(life, id, false), Err(Nameless::Missing(id)));
        assert_eq!(names.find(life, Id::Node(NodeId::ROOT), false), Ok(1));
        assert!(names.bind(life, node(7), node(2)).unwrap());
        assert!(!names.bind(old, node(7), node(9)).unwrap());
        assert_eq!(names.find(life, id, false), Ok(2));
        // The same node of the server's comes with the same id, counted.
        assert_eq!(names.adopt(life, node(2)).unwrap(), node(7));
        // One that has the number of an old one is not mistaken for it.
        let new = names.adopt(life, node(7)).unwrap();
        assert_ne!(new, node(7));
        assert_eq!(names.find(life, Id::Node(new), false), Ok(7));
        assert_eq!(names.known_as(node(2)), Some(node(7)));
        assert_eq!(names.uncount(life, node(7), 9), Some((node(2), 2)));
        assert_eq!(names.find(life, id, false), Err(Nameless::Missing(id)));
        assert_eq!(names.known_as(node(2)), None);
    }

    #[test]
    fn what_is_lost_stays_lost_until_nobody_has_it() {
        let names = Names::new(1);
        let life = names.next_life();
        names.lose(life, node(5));
        let gone = Err(Nameless::Gone(Errno::ESTALE));
        assert_eq!(names.find(life, Id::Node(node(5)), false), gone);
        names.drop_lost(node(5));
        let id = Id::Node(node(5));
        assert_eq!(names.find(life, id, false), Err(Nameless::Missing(id)));
        assert_eq!(names.uncount(life, node(5), 1), None);
    }

    #[test]
    fn a_node_that_was_known_before_takes_its_old_id_back_with_all_lookups() {
        let names = Names::new(1);
        let life = names.next_life();
        let new = names.adopt(life, node(2)).unwrap();
        assert_eq!(names.adopt(life, node(2)).unwrap(), new);
        assert!(names.merge(life, new, node(7)).unwrap());
        assert_eq!(names.merged(new), node(7));
        assert_eq!(names.adopt(life, node(2)).unwrap(), node(7));
        assert_eq!(names.uncount(life, node(7), 3), Some((node(2), 3)));
        assert!(!names.merge(life, new, node(7)).unwrap());
    }

    #[test]
    fn handles_belong_to_their_nodes() {
        let names = Names::new(1);
        let life = names.next_life();
        let (a, b) = (node(3), node(4));
        assert!(
            names
                .bind_handle(life, a, FileHandle(0), Ok(FileHandle(9)))
                .unwrap()
        );
        let lost = names.bind_handle(life, b, FileHandle(0), Err(Errno::EIO));
        assert!(lost.unwrap());
        assert_eq!(names.find(life, Id::Handle(a, FileHandle(0)), false), Ok(9));
        let lost = Id::Handle(b, FileHandle(0));
        assert_eq!(
            names.find(life, lost, false),
            Err(Nameless::Gone(Errno::EIO))
        );
        names.drop_handle(a, FileHandle(0));
        let gone = Id::Handle(a, FileHandle(0));
        assert_eq!(names.find(life, gone, false), Err(Nameless::Missing(gone)));
    }

    #[test]
    fn a_reply_that_crossed_a_restart_names_nothing_yet() {
        let names = Names::new(1);
        let old = names.next_life();
        let life = names.next_life();
        let id = names.adopt(old, node(2)).unwrap();
        let handle = names.adopt_handle(old, id, FileHandle(1)).unwrap();
        assert!(names.find(life, Id::Node(id), false).is_err());
        assert!(names.find(life, Id::Handle(id, handle), false).is_err());
    }
}
