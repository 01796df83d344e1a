//! Node ids with their lookup counts, and open handles.

use std::collections::BTreeMap;

use super::{NodeIds, Server};
use crate::abi::{Errno, ROOT_ID};
use crate::memfs::{Ino, MemFs, ROOT};

#[derive(Clone, Copy, Debug)]
struct Node {
    ino: Ino,
    lookups: u64,
    generation: u64,
}

/// What the client knows. Each node keeps its inode alive.
#[derive(Debug)]
pub(super) struct Nodes {
    nodes: BTreeMap<u64, Node>,
    by_ino: BTreeMap<Ino, u64>,
    next: u64,
    /// Generations of ids that were given back.
    spent: BTreeMap<u64, u64>,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let root = Node {
            ino: ROOT,
            lookups: 0,
            generation: 0,
        };
        Self {
            nodes: BTreeMap::from([(ROOT_ID, root)]),
            by_ino: BTreeMap::from([(ROOT, ROOT_ID)]),
            next: 2,
            spent: BTreeMap::new(),
        }
    }

    pub(super) fn ino(&self, nodeid: u64) -> Option<Ino> {
        self.nodes.get(&nodeid).map(|node| node.ino)
    }

    /// Counts one lookup of an inode and returns its id and generation.
    pub(super) fn get(&mut self, fs: &mut MemFs, ino: Ino, ids: NodeIds) -> (u64, u64) {
        let nodeid = match self.by_ino.get(&ino) {
            Some(&nodeid) => nodeid,
            None => {
                let (nodeid, generation) = match ids {
                    NodeIds::Counter => (self.next, 0),
                    NodeIds::Stable => (1000 + ino.0, 0),
                    NodeIds::Recycled => match self.spent.pop_first() {
                        Some((nodeid, generation)) => (nodeid, generation + 1),
                        None => (self.next, 0),
                    },
                };
                self.next = self.next.max(nodeid + 1);
                self.by_ino.insert(ino, nodeid);
                self.nodes.insert(
                    nodeid,
                    Node {
                        ino,
                        lookups: 0,
                        generation,
                    },
                );
                fs.pin(ino);
                nodeid
            }
        };
        let mut generation = 0;
        if let Some(node) = self.nodes.get_mut(&nodeid) {
            node.lookups += 1;
            generation = node.generation;
        }
        (nodeid, generation)
    }

    /// Takes counts back, at most those that there are.
    pub(super) fn put(&mut self, fs: &mut MemFs, nodeid: u64, n: u64) {
        let Some(node) = self.nodes.get_mut(&nodeid) else {
            return;
        };
        node.lookups = node.lookups.saturating_sub(n);
        if node.lookups == 0 && nodeid != ROOT_ID {
            let Node {
                ino, generation, ..
            } = *node;
            self.nodes.remove(&nodeid);
            self.by_ino.remove(&ino);
            self.spent.insert(nodeid, generation);
            fs.unpin(ino);
        }
    }

    pub(super) fn lookups(&self, nodeid: u64) -> u64 {
        self.nodes.get(&nodeid).map_or(0, |node| node.lookups)
    }

    /// Every id but the root's, with its count.
    pub(super) fn all(&self) -> BTreeMap<u64, u64> {
        let known = self.nodes.iter().filter(|&(&id, _)| id != ROOT_ID);
        known.map(|(&id, node)| (id, node.lookups)).collect()
    }

    /// Drops everything; ids go on counting, as in virtiofsd.
    pub(super) fn clear(&mut self, fs: &mut MemFs) {
        for nodeid in self.all().into_keys() {
            self.put(fs, nodeid, u64::MAX);
        }
        if let Some(root) = self.nodes.get_mut(&ROOT_ID) {
            root.lookups = 0;
        }
    }

    /// Begins anew with ids, as a new process does. Nothing is known to anybody.
    pub(super) fn start_over(&mut self) {
        self.next = 2;
        self.spent.clear();
    }
}

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHandle {
    /// Node that was opened.
    pub nodeid: u64,
    /// Its inode.
    pub ino: Ino,
    /// Flags of OPEN or CREATE; 0 for a directory.
    pub flags: u32,
    /// Opened with OPENDIR.
    pub is_dir: bool,
}

#[derive(Debug)]
pub(super) struct Handles {
    pub(super) open: BTreeMap<u64, OpenHandle>,
    next: u64,
}

impl Handles {
    pub(super) fn new(first: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            next: first,
        }
    }

    pub(super) fn add(&mut self, handle: OpenHandle) -> u64 {
        let fh = self.next;
        // Handles may be any number, so the first may be the highest.
        self.next = self.next.wrapping_add(1);
        self.open.insert(fh, handle);
        fh
    }
}

impl Server {
    /// Finds the inode of a node that the client should know.
    pub(super) fn ino(&mut self, nodeid: u64) -> Result<Ino, Errno> {
        self.nodes.ino(nodeid).ok_or_else(|| {
            self.violations.push(format!("node {nodeid} is not known"));
            Errno(libc::EBADF)
        })
    }

    /// Finds an open handle of a node that the client should hold.
    pub(super) fn handle_of(&mut self, nodeid: u64, fh: u64) -> Result<OpenHandle, Errno> {
        match self.handles.open.get(&fh) {
            Some(handle) if handle.nodeid == nodeid => Ok(*handle),
            _ if self.opens_nothing() => {
                let ino = self.ino(nodeid)?;
                let is_dir = self.fs.dir(ino).is_ok();
                Ok(OpenHandle {
                    nodeid,
                    ino,
                    flags: libc::O_RDWR as u32,
                    is_dir,
                })
            }
            _ => {
                self.violations
                    .push(format!("handle {fh} is not open on node {nodeid}"));
                Err(Errno(libc::EBADF))
            }
        }
    }

    pub(super) fn close(&mut self, fh: u64) {
        self.lower.remove(&fh);
        if let Some(handle) = self.handles.open.remove(&fh) {
            self.fs.unpin(handle.ino);
        }
    }

    pub(crate) fn lookups(&self, nodeid: u64) -> u64 {
        self.nodes.lookups(nodeid)
    }

    pub(crate) fn known_nodes(&self) -> BTreeMap<u64, u64> {
        self.nodes.all()
    }

    pub(crate) fn open_handles(&self) -> BTreeMap<u64, OpenHandle> {
        self.handles.open.clone()
    }

    pub(crate) fn node_of(&self, ino: Ino) -> Option<u64> {
        self.nodes.by_ino.get(&ino).copied()
    }

    pub(crate) fn generation(&self, nodeid: u64) -> Option<u64> {
        self.nodes.nodes.get(&nodeid).map(|node| node.generation)
    }

    /// Forgets the client: a new session starts, or the device was reset.
    pub(crate) fn end_session(&mut self) {
        for fh in self.open_handles().into_keys() {
            self.close(fh);
        }
        self.nodes.clear(&mut self.fs);
        self.locks = super::Locks::default();
        self.poll_waiters.clear();
        self.outbox.clear();
        self.ready.clear();
        self.session = None;
        if let Some(window) = &mut self.window {
            window.clear();
        }
        self.pin_maps();
    }

    /// The process dies and another takes its place: it hands out the ids again
    /// that the old one did.
    pub(crate) fn start_over(&mut self) {
        self.end_session();
        self.nodes.start_over();
        self.handles = super::Handles::new(self.config.first_fh);
    }

    pub(super) fn forget(&mut self, nodeid: u64, n: u64) {
        let known = self.nodes.lookups(nodeid);
        if nodeid == ROOT_ID {
            self.violations.push("FORGET of the root".into());
            return;
        }
        if n == 0 || n > known {
            self.violations.push(format!(
                "FORGET of {n} lookups of node {nodeid}, it has {known}"
            ));
        }
        let last = known > 0 && n >= known;
        if last && self.handles.open.values().any(|h| h.nodeid == nodeid) {
            self.violations
                .push(format!("FORGET of node {nodeid}, which is open"));
        }
        self.nodes.put(&mut self.fs, nodeid, n);
    }
}
