//! The inode table: every live inode of a connection, by node id.
//!
//! It keeps nobody alive. An inode that is being dropped may still stand in it;
//! then the table hands out nothing and takes a new inode in its place, whose
//! lookups are counted anew: the server adds and subtracts, so both sums are
//! right whichever comes first.

use alloc::sync::{Arc, Weak};
use core::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::Inode;
use crate::platform::Platform;
use crate::sync::{Rank, SpinRwLock};
use crate::wire::NodeId;

const SHARDS: usize = 16;

type Shard<P> = HashTable<(NodeId, Weak<Inode<P>>)>;

pub(super) struct InodeTable<P: Platform> {
    shards: [SpinRwLock<Shard<P>>; SHARDS],
    hasher: FixedState,
}

impl<P: Platform> InodeTable<P> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            shards: core::array::from_fn(|_| SpinRwLock::new(Rank::Inodes, HashTable::new())),
            hasher: FixedState::with_seed(seed),
        }
    }

    fn hash(&self, node: NodeId) -> u64 {
        self.hasher.hash_one(node.get())
    }

    fn shard(&self, hash: u64) -> &SpinRwLock<Shard<P>> {
        // The table itself uses the low and the top bits.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Returns the inode with this node id.
    pub(super) fn get(&self, node: NodeId) -> Option<Arc<Inode<P>>> {
        let hash = self.hash(node);
        self.shard(hash)
            .read()
            .find(hash, |(id, _)| *id == node)?
            .1
            .upgrade()
    }

    /// Puts `inode` in, unless another one is there that `keep` accepts. Returns
    /// the one that is in the table now, and the one that had to go.
    pub(super) fn insert(
        &self,
        inode: Arc<Inode<P>>,
        keep: impl Fn(&Inode<P>) -> bool,
    ) -> (Arc<Inode<P>>, Option<Arc<Inode<P>>>) {
        let hash = self.hash(inode.node);
        let mut shard = self.shard(hash).write();
        let mut old = None;
        if let Some((_, weak)) = shard.find_mut(hash, |(id, _)| *id == inode.node) {
            if let Some(there) = weak.upgrade() {
                if keep(&there) {
                    drop(shard);
                    return (there, None);
                }
                old = Some(there);
            }
            *weak = Arc::downgrade(&inode);
        } else {
            shard.insert_unique(hash, (inode.node, Arc::downgrade(&inode)), |(id, _)| {
                self.hasher.hash_one(id.get())
            });
        }
        drop(shard);
        (inode, old)
    }

    /// Takes an inode that is being dropped out, unless another has its place. The
    /// one that is dropped may have been moved, so its address says nothing; that
    /// nobody can get at what is in the table does.
    pub(super) fn remove(&self, inode: &Inode<P>) {
        let hash = self.hash(inode.node);
        let mut shard = self.shard(hash).write();
        let ours =
            |(id, weak): &(NodeId, Weak<Inode<P>>)| *id == inode.node && weak.strong_count() == 0;
        let weak = shard
            .find_entry(hash, ours)
            .ok()
            .map(|entry| entry.remove().0);
        drop(shard);
        drop(weak);
    }

    /// Takes `inode` out if the caller has the last reference to it. Then nobody
    /// can get another one, and the caller may take it apart.
    pub(super) fn retire(&self, inode: &Arc<Inode<P>>) -> bool {
        let hash = self.hash(inode.node);
        let mut shard = self.shard(hash).write();
        // Only the table has weak references, and upgrades them under its lock.
        if Arc::strong_count(inode) > 1 {
            return false;
        }
        let ours =
            |entry: &(NodeId, Weak<Inode<P>>)| core::ptr::eq(entry.1.as_ptr(), Arc::as_ptr(inode));
        let weak = shard
            .find_entry(hash, ours)
            .ok()
            .map(|entry| entry.remove().0);
        drop(shard);
        drop(weak);
        true
    }

    /// Returns the number of inodes.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Calls `each` with every live inode, shard by shard.
    pub(super) fn for_each(&self, mut each: impl FnMut(&Arc<Inode<P>>)) {
        for shard in &self.shards {
            let inodes: alloc::vec::Vec<_> = shard
                .read()
                .iter()
                .filter_map(|(_, weak)| weak.upgrade())
                .collect();
            inodes.iter().for_each(&mut each);
        }
    }
}
