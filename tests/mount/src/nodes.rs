//! Which inode of the driver's the kernel means by a node id.
//!
//! The numbers are this table's own and are never used twice, so a late request
//! for a forgotten node finds nothing rather than another file. The kernel's
//! lookups are counted apart from the server's, which the driver counts: an
//! inode stays as long as the kernel has one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_fs::fs::Inode;
use virtio_fs_host::HostPlatform;

use crate::value::{Answer, Errno};

type Node = Arc<Inode<HostPlatform>>;

/// The node id of the root (FUSE_ROOT_ID). The kernel never forgets it.
const ROOT: u64 = 1;

/// The nodes that the kernel knows.
pub(crate) struct Nodes(Mutex<Table>);

struct Table {
    next: u64,
    by_id: HashMap<u64, Known>,
    /// By the address of the inode, which the other table keeps in place.
    by_inode: HashMap<usize, u64>,
}

struct Known {
    inode: Node,
    lookups: u64,
}

impl Nodes {
    pub(crate) fn new(root: Node) -> Self {
        let table = Table {
            next: ROOT + 1,
            by_inode: HashMap::from([(address(&root), ROOT)]),
            by_id: HashMap::from([(
                ROOT,
                Known {
                    inode: root,
                    lookups: 1,
                },
            )]),
        };
        Self(Mutex::new(table))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the inode that the kernel calls `id`.
    pub(crate) fn get(&self, id: u64) -> Answer<Node> {
        self.table()
            .by_id
            .get(&id)
            .map(|known| known.inode.clone())
            .ok_or(Errno(libc::ESTALE))
    }

    /// Returns the node id of `inode`; the kernel looked it up once more.
    pub(crate) fn enter(&self, inode: Node) -> u64 {
        let mut table = self.table();
        let fresh = table.next;
        let id = *table.by_inode.entry(address(&inode)).or_insert(fresh);
        if id == fresh {
            table.next += 1;
        }
        let known = Known { inode, lookups: 0 };
        table.by_id.entry(id).or_insert(known).lookups += 1;
        id
    }

    /// Takes `lookups` of a node back, and drops it with the last.
    pub(crate) fn forget(&self, id: u64, lookups: u64) {
        let mut table = self.table();
        let Some(known) = table.by_id.get_mut(&id).filter(|_| id != ROOT) else {
            return;
        };
        known.lookups = known.lookups.saturating_sub(lookups);
        if known.lookups > 0 {
            return;
        }
        let gone = table.by_id.remove(&id);
        if let Some(known) = &gone {
            table.by_inode.remove(&address(&known.inode));
        }
        // Outside of the lock: it may send a request.
        drop(table);
        drop(gone);
    }

    /// Drops all nodes: the kernel forgets them with the mount.
    pub(crate) fn clear(&self) {
        let mut table = self.table();
        table.by_inode.clear();
        let gone = std::mem::take(&mut table.by_id);
        drop(table);
        drop(gone);
    }
}

fn address(inode: &Node) -> usize {
    Arc::as_ptr(inode) as usize
}
