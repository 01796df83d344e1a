//! An ordered map from a chunk of a file to a slot number that never allocates
//! after it is made.
//!
//! One red-black tree serves all inodes: its keys sort by inode first, so the
//! ranges of one inode are neighbours in file order. Lookups stay O(log n)
//! whatever node ids the server hands out, which a hash table would not.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeLink, intrusive_adapter};

use super::geometry::{Chunk, InodeKey};

/// A chunk of one file.
pub(super) type FileChunk = (InodeKey, Chunk);

struct Node {
    link: RBTreeLink,
    key: FileChunk,
    slot: u32,
}

intrusive_adapter!(NodeAdapter = Box<Node>: Node { link => RBTreeLink });

impl<'a> KeyAdapter<'a> for NodeAdapter {
    type Key = FileChunk;

    fn get_key(&self, node: &'a Node) -> FileChunk {
        node.key
    }
}

/// The map. Holds at most the number of entries it was made for.
pub(super) struct KeyMap {
    tree: RBTree<NodeAdapter>,
    // The boxes move between here and the tree; a plain Vec<Node> could not link them.
    #[expect(clippy::vec_box, reason = "the tree takes and returns boxes")]
    spare: Vec<Box<Node>>,
}

impl KeyMap {
    /// Bytes that one entry takes.
    pub(super) const ENTRY_BYTES: usize = size_of::<Node>() + size_of::<Box<Node>>();

    pub(super) fn new(capacity: usize) -> Self {
        let node = || Node {
            link: RBTreeLink::new(),
            key: (InodeKey(0), Chunk(0)),
            slot: 0,
        };
        Self {
            tree: RBTree::new(NodeAdapter::new()),
            spare: (0..capacity).map(|_| Box::new(node())).collect(),
        }
    }

    pub(super) fn get(&self, key: FileChunk) -> Option<u32> {
        self.tree.find(&key).get().map(|node| node.slot)
    }

    /// Adds an entry; says whether there was room. `key` must be new.
    pub(super) fn insert(&mut self, key: FileChunk, slot: u32) -> bool {
        debug_assert!(self.get(key).is_none());
        let Some(mut node) = self.spare.pop() else {
            return false;
        };
        node.key = key;
        node.slot = slot;
        self.tree.insert(node);
        true
    }

    pub(super) fn remove(&mut self, key: FileChunk) -> Option<u32> {
        let node = self.tree.find_mut(&key).remove()?;
        let slot = node.slot;
        self.spare.push(node);
        Some(slot)
    }

    pub(super) fn clear(&mut self) {
        let mut cursor = self.tree.front_mut();
        while let Some(node) = cursor.remove() {
            self.spare.push(node);
        }
    }

    /// Returns the entries of `inode` from chunk `from` on, in file order.
    pub(super) fn of_inode(
        &self,
        inode: InodeKey,
        from: Chunk,
    ) -> impl Iterator<Item = (Chunk, u32)> + '_ {
        let mut cursor = self.tree.lower_bound(Bound::Included(&(inode, from)));
        core::iter::from_fn(move || {
            let node = cursor.get().filter(|node| node.key.0 == inode)?;
            let entry = (node.key.1, node.slot);
            cursor.move_next();
            Some(entry)
        })
    }

    /// Counts the entries by walking them.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.tree.iter().count()
    }
}

impl fmt::Debug for KeyMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.tree.iter().map(|node| (node.key, node.slot)))
            .finish()
    }
}
