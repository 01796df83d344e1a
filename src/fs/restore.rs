//! A file system over the restarts of its session.
//!
//! The inodes, names and handles of a mount stay what they are; the
//! [connection](crate::conn) knows what the server of the day calls them. When a
//! session was lost, everything that was learnt from the server is asked for
//! again: names, attributes, directories, what it lacks. When the next one
//! stands, what is open is opened again at once, parents first, before anybody
//! else gets through, and locks that the server kept are taken again. Everything
//! else is found again when it is used.
//!
//! # Finding again
//!
//! An inode is looked for where it was seen last: by its name in its directory,
//! which is found first. It is the same file if it has the same inode number
//! (`st_ino`) and type, begins a submount if it did, and, where it has the same
//! node id as before, the same generation (S1-05). What is not found, or is another file, is stale: every call on it gets ESTALE, and
//! so does every call on what was opened of it, for as long as this session
//! lasts. That is the fate of files that had lost their last name.
//!
//! A file that is met under another name before (a hard link), is recognised by
//! its inode number and looked for at its own place, so that it does not become
//! two inodes.
//!
//! # Locks
//!
//! A lock that is refused was given to somebody else in between: what it
//! protected may have changed. All that is open of that file (of that open file,
//! for flock(2)) gets EIO from then on, as with NFS; opening it anew heals.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::time::Duration;

use super::handle::Handle;
use super::inode::Place;
use super::lock_table::{FileKey, Owned};
use super::{FileSystem, Inode};
use crate::conn::{Keeper, Life, OpenError};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::sync::SpinLock;
use crate::wire::{
    Attr, AttrFlags, Entry, FileHandle, Found, Getattr, Id, InitFlags, LockArgs, LockFamily,
    LockKind, Lookup, NodeId, Opcode, Open, Opendir, SetIds, Setlk,
};

/// Paths that a report names.
const PATHS: usize = 8;

/// What became of a mount when its session was made anew. Inodes that are not
/// open count when they are used next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often the session was lost so far.
    pub life: u32,
    /// Open files and directories that were opened again.
    pub handles: u32,
    /// Those that could not be.
    pub lost_handles: u32,
    /// Inodes found again.
    pub inodes: u32,
    /// Inodes that are stale now.
    pub stale: u32,
    /// Locks taken again.
    pub locks: u32,
    /// Locks that were refused.
    pub lost_locks: u32,
    /// Paths, as far as they are known, of the first files of which something was
    /// lost.
    pub lost_paths: Vec<Vec<u8>>,
    /// How long callers waited, from the end of one session to the beginning of
    /// the next.
    pub took: Duration,
}

impl Report {
    /// Returns whether nothing was lost.
    pub const fn is_complete(&self) -> bool {
        self.lost_handles == 0 && self.stale == 0 && self.lost_locks == 0
    }
}

/// Is told when a session stands again. Called in thread context, with no lock
/// held; may block.
pub type RestartHook = Box<dyn Fn(&Report) + Send + Sync>;

/// What is remembered for and of restarts.
#[derive(Default)]
pub(super) struct Restarts {
    report: SpinLock<Report>,
    lost_at: SpinLock<Option<Duration>>,
    /// Inodes that were not found again yet, by inode number.
    pending: SpinLock<BTreeSet<(u64, NodeId)>>,
    hook: SpinLock<Option<Arc<RestartHook>>>,
}

/// An inode and where it was seen last.
type Seen<P> = (Arc<Inode<P>>, Arc<Place<P>>);

/// The connection's way to the file system, which it must not keep alive.
struct Way<P: Platform>(Weak<FileSystem<P>>);

impl<P: Platform> Keeper for Way<P> {
    fn withdraw(&self) {
        if let Some(fs) = self.0.upgrade()
            && let Some(dax) = &fs.dax
        {
            dax.withdraw(fs.platform());
        }
    }

    fn session_lost(&self) {
        if let Some(fs) = self.0.upgrade() {
            fs.session_lost();
        }
    }

    fn restore(&self, life: Life) -> Result<(), OpenError> {
        self.0.upgrade().map_or(Ok(()), |fs| fs.restore(life))
    }

    fn find(&self, life: Life, id: Id) -> Result<()> {
        let fs = self.0.upgrade().ok_or(STALE)?;
        match id {
            Id::Node(node) => {
                let inode = fs.inodes.get(node).ok_or(STALE)?;
                fs.find_inode(life, &inode)
            }
            Id::Handle(node, fh) => {
                let same = |handle: &Arc<Handle<P>>| handle.fh() == fh && handle.inode.node == node;
                let handle = fs.handles.all().into_iter().find(same).ok_or(STALE)?;
                fs.reopen(life, &handle)
            }
        }
    }

    fn restored(&self) {
        let Some(fs) = self.0.upgrade() else { return };
        let report = fs.restarts.report.lock().clone();
        fs.log_report(&report);
        let hook = fs.restarts.hook.lock().clone();
        if let Some(hook) = hook {
            hook(&report);
        }
    }
}

const STALE: Error = Error::new(Errno::ESTALE, Origin::Connection);

/// Returns whether the session ended, so that what was asked says nothing.
fn is_cut(error: Error) -> bool {
    matches!(error.origin(), Origin::Device | Origin::Platform)
}

impl<P: Platform> FileSystem<P> {
    /// Has `hook` told each time that a session stands again after a restart, in
    /// place of whoever was told before.
    pub fn on_restart(&self, hook: RestartHook) {
        drop(self.restarts.hook.lock().replace(Arc::new(hook)));
    }

    /// Returns what became of everything at the last restart, and since. `None`
    /// if there was none.
    pub fn last_restart(&self) -> Option<Report> {
        let report = self.restarts.report.lock().clone();
        (report.life > 0).then_some(report)
    }

    /// Lets the connection find again what it lost.
    pub(super) fn keep_over_restarts(self: &Arc<Self>) {
        self.conn.keep(Arc::new(Way(Arc::downgrade(self))));
    }

    fn log_report(&self, report: &Report) {
        let tag = self.conn.device().tag;
        log::info!(
            "virtio-fs: {tag}: after {:?}: {} open again, {} locks, {} inodes found",
            report.took,
            report.handles,
            report.locks,
            report.inodes
        );
        if !report.is_complete() {
            log::error!(
                "virtio-fs: {tag}: lost: {} open, {} locks, {} inodes",
                report.lost_handles,
                report.lost_locks,
                report.stale
            );
        }
    }

    /// Forgets what is true of the session that ended only.
    fn session_lost(&self) {
        let restarts = &self.restarts;
        restarts.lost_at.lock().get_or_insert(self.now());
        *restarts.report.lock() = Report {
            life: self.conn.life().get(),
            ..Report::default()
        };
        let mut pending = BTreeSet::new();
        self.inodes.for_each(|inode| {
            inode.reset_lookups();
            inode.expire_attr();
            inode.content_changed();
            inode.drop_pages(&super::cached::ALL);
            if let Some(owner) = &inode.owner {
                owner.set_bare(false);
            }
            if inode.node != NodeId::ROOT {
                pending.insert((inode.last_attr().ino, inode.node));
            }
        });
        let old = core::mem::replace(&mut *restarts.pending.lock(), pending);
        drop(old);
        self.dentries.expire_all();
        self.lacking.clear();
        if let Some(dax) = &self.dax {
            dax.session_lost(self.platform());
        }
    }

    /// Opens again what is open.
    fn restore(self: &Arc<Self>, life: Life) -> Result<(), OpenError> {
        self.check_root(life)?;
        if let Some(dax) = &self.dax {
            dax.session_began(&self.conn);
        }
        for handle in self.handles.all() {
            match self.reopen(life, &handle) {
                Err(error) if is_cut(error) => return Err(OpenError::CutShort),
                // It is in the report.
                Ok(()) | Err(_) => {}
            }
        }
        for family in [LockFamily::Posix, LockFamily::Flock] {
            for (file, owned) in self.locks.kept_remotely(family) {
                self.lock_again(life, family, file, owned)?;
            }
        }
        let lost_at = self.restarts.lost_at.lock().take();
        if let Some(lost_at) = lost_at {
            self.restarts.report.lock().took = self.now().saturating_sub(lost_at);
        }
        Ok(())
    }

    /// Refuses a server with another root: nothing of ours would be there.
    fn check_root(&self, life: Life) -> Result<(), OpenError> {
        let Some(root) = self.inodes.get(NodeId::ROOT) else {
            return Ok(());
        };
        let asked = self.ask_now();
        let question = Getattr {
            node: NodeId::ROOT,
            fh: None,
        };
        let reply = self.conn.ask_in(life, &question).map_err(|error| {
            if is_cut(error) {
                OpenError::CutShort
            } else {
                OpenError::Init(error)
            }
        })?;
        if !reply.attr.mode.is_dir() || reply.attr.ino != root.last_attr().ino {
            return Err(OpenError::Another);
        }
        root.apply_attr(reply.attr, self.attr_until(reply.valid), asked);
        Ok(())
    }

    /// Finds an inode again, and the directories above it that were not found
    /// yet, from the top down.
    ///
    /// # Errors
    ///
    /// ESTALE; EIO from the device if the session ended meanwhile; the server's.
    fn find_inode(self: &Arc<Self>, life: Life, inode: &Arc<Inode<P>>) -> Result<()> {
        let mut chain: Vec<Seen<P>> = Vec::new();
        let mut at = inode.clone();
        while at.node != NodeId::ROOT && self.conn.server_node(at.node).is_none() {
            let Some(place) = at.place() else {
                self.lose(life, &at);
                return Err(STALE);
            };
            let parent = place.parent.clone();
            chain.push((at, place));
            at = parent;
        }
        while let Some((inode, place)) = chain.pop() {
            if let Err(error) = self.find_at(life, &inode, &place) {
                // Nothing below it is there either.
                if !is_cut(error) {
                    chain.iter().for_each(|(below, _)| self.lose(life, below));
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Looks for one inode where it was, in a directory that was found.
    fn find_at(
        self: &Arc<Self>,
        life: Life,
        inode: &Arc<Inode<P>>,
        place: &Place<P>,
    ) -> Result<()> {
        let asked = self.ask_now();
        let parent = &place.parent;
        let question = Lookup {
            parent: parent.node,
            name: &place.name,
        };
        let entry = match self.conn.ask_in(life, &question) {
            Ok(Found::Entry(entry)) => entry,
            Ok(Found::Negative(_)) => {
                self.lose(life, inode);
                return Err(STALE);
            }
            Err(error) if is_cut(error) => return Err(error),
            Err(error) if gone(error) => {
                self.lose(life, inode);
                return Err(STALE);
            }
            // The server has a trouble of its own: asked again at the next use.
            Err(error) => return Err(error),
        };
        let same = match &entry.attr {
            Ok(attr) => self.is_same(inode, parent.device(), &entry, attr),
            Err(_) => false,
        };
        if let (true, Ok(attr)) = (same, entry.attr) {
            if self.conn.bind_node(life, inode.node, entry.node)? {
                inode.count_lookup();
                inode.set_generation(entry.generation);
                inode.apply_attr(attr, self.attr_until(entry.attr_valid), asked);
                self.restarts.report.lock().inodes += 1;
                self.settle(inode);
                return Ok(());
            }
            return Err(Error::new(Errno::EIO, Origin::Device));
        }
        // The server counts a lookup of that other file.
        if let Some(other) = self.conn.adopt_node(life, entry.node) {
            self.conn.forget_unkept(other);
        }
        self.lose(life, inode);
        Err(STALE)
    }

    /// Returns whether an entry in a directory of `parent_device` is of this inode.
    fn is_same(&self, inode: &Inode<P>, parent_device: u64, entry: &Entry, attr: &Attr) -> bool {
        let begins = inode.device() != parent_device;
        let submounts = self.conn.limits().has(InitFlags::SUBMOUNTS);
        attr.ino == inode.last_attr().ino
            && attr.mode.file_type() == inode.file_type()
            && (entry.node != inode.node || entry.generation == inode.generation())
            && (!submounts || begins == attr.flags.contains(AttrFlags::SUBMOUNT))
    }

    /// Returns the id of the inode that an entry is of: another than it says, if it
    /// seems new in this session but was known before. Blocks if that is not plain.
    pub(super) fn recognise(
        self: &Arc<Self>,
        entry: &Entry,
        attr: &Attr,
        place: Option<&Arc<Place<P>>>,
    ) -> NodeId {
        let life = self.conn.life();
        if life == Life::default() || self.inodes.get(entry.node).is_some() {
            return entry.node;
        }
        let merged = self.conn.merged_node(entry.node);
        if merged != entry.node {
            return merged;
        }
        for node in self.candidates(attr.ino) {
            let Some(inode) = self.inodes.get(node) else {
                self.restarts.pending.lock().remove(&(attr.ino, node));
                continue;
            };
            let Some(at) = inode.place() else { continue };
            if !self.is_same(&inode, at.parent.device(), entry, attr) {
                continue;
            }
            let here = place.is_some_and(|place| {
                Arc::ptr_eq(&place.parent, &at.parent)
                    && place.name.as_bytes() == at.name.as_bytes()
            });
            let it = here
                || self.find_inode(life, &inode).is_ok()
                    && self.conn.server_node(inode.node) == self.conn.server_node(entry.node);
            if it && matches!(self.conn.merge_nodes(life, entry.node, node), Ok(true)) {
                if here {
                    self.restarts.report.lock().inodes += 1;
                }
                inode.set_generation(entry.generation);
                self.settle(&inode);
                return node;
            }
        }
        entry.node
    }

    fn candidates(&self, ino: u64) -> Vec<NodeId> {
        let pending = self.restarts.pending.lock();
        let all = (ino, NodeId::ROOT)..;
        pending
            .range(all)
            .take_while(|(other, _)| *other == ino)
            .map(|(_, node)| *node)
            .collect()
    }

    /// Notes that nobody need look for an inode any more.
    fn settle(&self, inode: &Inode<P>) {
        let mut pending = self.restarts.pending.lock();
        pending.remove(&(inode.last_attr().ino, inode.node));
    }

    fn lose(&self, life: Life, inode: &Arc<Inode<P>>) {
        self.conn.lose_node(life, inode.node);
        self.settle(inode);
        let path = path_of(inode);
        log::warn!(
            "virtio-fs: stale since the restart: {}",
            path.escape_ascii()
        );
        let mut report = self.restarts.report.lock();
        report.stale += 1;
        report.name(path);
    }

    /// Opens again what a handle stands for.
    fn reopen(self: &Arc<Self>, life: Life, handle: &Handle<P>) -> Result<()> {
        let inode = &handle.inode;
        let result = self
            .find_inode(life, inode)
            .and_then(|()| self.open_again(life, handle));
        let (outcome, error) = match result {
            Ok(fh) => (Ok(fh), None),
            Err(error) if is_cut(error) => return Err(error),
            Err(error) => (Err(Errno::ESTALE), Some(error)),
        };
        let bound = self
            .conn
            .bind_handle(life, inode.node, handle.fh(), outcome)?;
        if !bound {
            return Err(Error::new(Errno::EIO, Origin::Device));
        }
        let Some(error) = error else {
            self.restarts.report.lock().handles += 1;
            return Ok(());
        };
        let path = path_of(inode);
        let mut report = self.restarts.report.lock();
        report.lost_handles += 1;
        report.name(path);
        Err(error)
    }

    fn open_again(&self, life: Life, handle: &Handle<P>) -> Result<FileHandle> {
        let node = handle.inode.node;
        let flags = handle.flags.for_open();
        let opened = if handle.is_dir() {
            let request = Opendir { node, flags };
            self.lacking
                .unless(Opcode::Opendir, || self.conn.ask_in(life, &request))
        } else {
            let request = Open {
                node,
                flags,
                set_ids: SetIds::Keep,
            };
            self.lacking
                .unless(Opcode::Open, || self.conn.ask_in(life, &request))
        };
        // A server that opens nothing takes any handle.
        opened.map_or(Ok(FileHandle(0)), |reply| reply.map(|reply| reply.fh))
    }

    /// Takes a lock again that the server kept.
    fn lock_again(
        &self,
        life: Life,
        family: LockFamily,
        file: FileKey,
        owned: Owned,
    ) -> Result<(), OpenError> {
        let theirs = |handle: &Arc<Handle<P>>| {
            handle.inode.lock_key() == file
                && (family == LockFamily::Posix || handle.flock_owner() == Some(owned.owner))
        };
        let handles: Vec<_> = self.handles.all().into_iter().filter(theirs).collect();
        let fits = |handle: &&Arc<Handle<P>>| {
            let flags = handle.flags;
            let access = match (family, owned.lock.kind) {
                (LockFamily::Flock, _) => true,
                (_, LockKind::Write) => flags.writable(),
                _ => flags.readable(),
            };
            access && self.conn.has_handle(handle.inode.node, handle.fh())
        };
        let result = match handles.iter().find(fits) {
            Some(handle) if self.locks_remotely(family) => self.conn.ask_in(
                life,
                &Setlk(LockArgs {
                    node: handle.inode.node,
                    fh: handle.fh(),
                    owner: owned.owner,
                    lock: owned.lock,
                    family,
                }),
            ),
            _ => Err(STALE),
        };
        match result {
            Ok(()) => {
                self.restarts.report.lock().locks += 1;
                return Ok(());
            }
            Err(error) if is_cut(error) => return Err(OpenError::CutShort),
            Err(error) => log::warn!("virtio-fs: lock not taken again: {error}"),
        }
        self.locks.lose_remote(family, file, owned);
        for handle in &handles {
            self.conn
                .bar_handle(life, handle.inode.node, handle.fh(), Errno::EIO);
        }
        let path = handles.first().map(|handle| path_of(&handle.inode));
        let mut report = self.restarts.report.lock();
        report.lost_locks += 1;
        if let Some(path) = path {
            report.name(path);
        }
        Ok(())
    }

    /// Ends the session in an orderly way and lets the device rest: everything is
    /// made durable and forgotten that is to be, nothing is in flight or mapped
    /// after it. Callers wait until [`thaw`](Self::thaw). Blocks.
    ///
    /// # Errors
    ///
    /// Those of [`sync`](Self::sync), with everything as before; ENOTCONN if there
    /// is no session.
    pub fn freeze(&self) -> Result<()> {
        self.sync()?;
        self.settle_window();
        self.conn.freeze()
    }

    /// Ends [`freeze`](Self::freeze): makes a session anew, with the same server
    /// process or another one. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Connection::thaw`](crate::conn::Connection::thaw).
    pub fn thaw(&self) -> Result<Report> {
        self.conn.thaw()?;
        Ok(self.restarts.report.lock().clone())
    }
}

/// Returns whether an error says that a name is not there.
fn gone(error: Error) -> bool {
    let errno = error.errno();
    errno == Errno::ENOENT || errno == Errno::ENOTDIR || errno == Errno::ESTALE
}

impl Report {
    fn name(&mut self, path: Vec<u8>) {
        if self.lost_paths.len() < PATHS && !self.lost_paths.contains(&path) {
            self.lost_paths.push(path);
        }
    }
}

/// Returns the path of an inode from the root, as far as it is known.
pub(super) fn path_of<P: Platform>(inode: &Arc<Inode<P>>) -> Vec<u8> {
    let mut reversed: Vec<u8> = Vec::new();
    let mut at = inode.clone();
    while let Some(place) = at.place() {
        reversed.extend(place.name.iter().rev());
        reversed.push(b'/');
        at = place.parent.clone();
    }
    if reversed.is_empty() {
        reversed.push(if inode.node == NodeId::ROOT {
            b'/'
        } else {
            b'?'
        });
    }
    reversed.reverse();
    reversed
}
