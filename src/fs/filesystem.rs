//! What all mounts over one connection share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use super::Inode;
use super::attr::AttrCache;
use super::dentry::DentryCache;
use super::handle::Handles;
use super::inode::Place;
use super::lock::Locks;
use super::moment::Moment;
use super::nosys::Lacking;
use super::options::MountOptions;
use super::poll::Pollers;
use super::restore::Restarts;
use super::table::InodeTable;
use super::writeback::DirtyFiles;
use crate::cache::Store;
use crate::conn::{Connection, Counters, DataCache};
use crate::dax::Dax;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Caller, Capabilities, Platform};
use crate::sync::{Rank, SpinLock, park};
use crate::wire::{Attr, AttrFlags, Entry, InitFlags, Name, NodeId};

/// The inodes and names of one connection.
pub struct FileSystem<P: Platform> {
    pub(super) conn: Arc<Connection<P>>,
    pub(super) options: MountOptions,
    pub(super) inodes: InodeTable<P>,
    pub(super) dentries: DentryCache<P>,
    pub(super) lacking: Lacking,
    pub(super) dax: Option<Dax<P>>,
    /// Memory of cached pages, where data are cached.
    pub(super) pages: Option<Arc<Store<P::Hal>>>,
    pub(super) dirty: SpinLock<DirtyFiles<P>>,
    /// Those that the server does not keep.
    pub(super) locks: Locks<P>,
    /// Who waits for a file to be ready.
    pub(super) pollers: Pollers,
    /// What is open on the server.
    pub(super) handles: Handles<P>,
    /// What became of everything when a session was made anew.
    pub(super) restarts: Restarts,
    /// Orders attributes by when they were asked for (S0-04): each change made
    /// here takes the next number, and a reply to an older question is not
    /// believed.
    attr_version: AtomicU64,
    /// The number for the next submount.
    next_device: AtomicU64,
    /// The latest change that an inode had seen that is gone now. Attributes
    /// asked for before it may belong to an inode made anew, and be older.
    evicted_version: AtomicU64,
    /// The last time that a name of an unknown file was removed: of any file with
    /// several names, perhaps.
    unknown_unlink: AtomicU64,
    /// Access control lists were negotiated: permission checks ask for them.
    pub(super) posix_acl: bool,
    /// Held while a directory that is known already is put in its place.
    places: SpinLock<()>,
    /// The mount is gone: names are not kept any more.
    ended: AtomicBool,
}

/// Who asks, and when: found out once for all steps of a walk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) caller: Caller,
    /// No directory is closed to him, whatever its mode says.
    pub(super) searches_all: bool,
    pub(super) now: Moment,
}

/// When a question was asked, to be compared with what changed meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(pub(super) u64);

impl<P: Platform> FileSystem<P> {
    pub(super) fn new(conn: Arc<Connection<P>>, mut options: MountOptions) -> Self {
        let posix_acl = conn.limits().has(InitFlags::POSIX_ACL);
        // Who leaves ACLs to us leaves all permission checks to us.
        options.default_permissions |= posix_acl;
        let seed = conn.platform().now().as_nanos() as u64;
        Self {
            dentries: DentryCache::new(options.max_dentries, seed),
            inodes: InodeTable::new(seed ^ 0x5bd1_e995),
            next_device: AtomicU64::new(options.device + 1),
            dax: Dax::new(&conn, options.dax_costs),
            posix_acl,
            pages: (conn.config().data_cache != DataCache::None
                && options.cache.keeps_data()
                && options.page_cache > 0)
                .then(|| Store::new(options.page_cache)),
            dirty: SpinLock::new(Rank::Leaf, DirtyFiles::default()),
            conn,
            options,
            lacking: Lacking::default(),
            locks: Locks::default(),
            pollers: Pollers::default(),
            handles: Handles::default(),
            restarts: Restarts::default(),
            attr_version: AtomicU64::new(1),
            evicted_version: AtomicU64::new(0),
            unknown_unlink: AtomicU64::new(0),
            places: SpinLock::new(Rank::Places, ()),
            ended: AtomicBool::new(false),
        }
    }

    /// Returns the connection.
    pub fn connection(&self) -> &Arc<Connection<P>> {
        &self.conn
    }

    /// Returns the settings.
    pub fn options(&self) -> &MountOptions {
        &self.options
    }

    /// Returns the number of inodes in memory.
    pub fn inode_count(&self) -> usize {
        self.inodes.len()
    }

    /// Returns the number of names in the cache, absent ones included.
    pub fn dentry_count(&self) -> usize {
        self.dentries.len()
    }

    /// Calls `each` with every inode in memory and the number of lookups that
    /// the server should count for it: what an audit compares with the server's
    /// view, by the ids that it uses in this life of the connection. Allocates.
    pub fn audit(&self, mut each: impl FnMut(NodeId, u64)) {
        let mut known = |node, lookups| {
            // What was not asked for since a restart the server does not count.
            if let Some(node) = self.conn.server_node(node) {
                each(node, lookups);
            }
        };
        self.inodes
            .for_each(|inode| known(inode.node, inode.lookups()));
        if let Some(dax) = &self.dax {
            dax.each_orphan(known);
        }
    }

    /// Does what is due for the connection and the DAX window; a kernel with
    /// threads runs this in one, instead of [`Connection::work`]. Blocks for the
    /// requests that it takes. Returns when it wants to be called again, at the
    /// latest; `None` once the connection has ended.
    pub fn work(&self) -> Option<Duration> {
        let next = self.conn.work()?;
        let due = self.dax.as_ref().and_then(|dax| dax.work(&self.conn));
        let next = due.map_or(next, |due| due.min(next));
        let due = self.write_out_old();
        Some(due.map_or(next, |due| due.min(next)))
    }

    /// Runs [`work`](Self::work) until the connection ends. Blocks.
    pub fn run_worker(&self) {
        while let Some(next) = self.work() {
            park(self.platform(), Some(next));
        }
    }

    /// Drops up to `count` names that were not used lately, and with them their
    /// inodes: for a kernel short of memory. Returns how many went. Sends
    /// nothing but forgets.
    pub fn shrink(&self, count: usize) -> usize {
        self.dentries.shrink(count)
    }

    pub(super) fn platform(&self) -> &P {
        self.conn.platform()
    }

    pub(super) fn counters(&self) -> &Counters {
        self.conn.counters()
    }

    pub(super) fn now(&self) -> Duration {
        self.platform().now()
    }

    pub(super) fn caller(&self) -> Caller {
        self.platform().caller()
    }

    /// To be called before asking for attributes.
    pub(super) fn ask_now(&self) -> Asked {
        Asked(self.attr_version.load(Acquire))
    }

    /// Returns the number of a change that is made now.
    pub(super) fn next_version(&self) -> u64 {
        self.attr_version.fetch_add(1, AcqRel) + 1
    }

    pub(super) fn moment(&self) -> Moment {
        Moment::new(self.now())
    }

    /// Returns who asks, and when.
    pub(super) fn asker(&self) -> Asker {
        let caller = if self.options.default_permissions {
            self.caller()
        } else {
            Caller::ROOT
        };
        let search = Capabilities::DAC_OVERRIDE | Capabilities::DAC_READ_SEARCH;
        Asker {
            caller,
            searches_all: caller.capabilities.intersects(search),
            now: self.moment(),
        }
    }

    /// Until when attributes are valid that the server gave this lifetime.
    pub(super) fn attr_until(&self, ttl: Duration) -> Moment {
        self.moment().after(self.options.cache.ttl(ttl))
    }

    /// Refuses changes on a read-only mount.
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.options.read_only {
            Err(Error::caller(Errno::EROFS))
        } else {
            Ok(())
        }
    }

    /// Takes the inode that an entry names, making it if it is new. From here on
    /// the entry's lookup is accounted for, whatever comes out.
    ///
    /// # Errors
    ///
    /// EIO if its attributes make no sense, ENOMEM.
    pub(super) fn accept(
        self: &Arc<Self>,
        entry: &Entry,
        asked: Asked,
        device: u64,
        place: Option<&Arc<Place<P>>>,
    ) -> Result<Arc<Inode<P>>> {
        let attr = match entry.attr {
            Ok(attr) => attr,
            Err(why) => {
                self.counters().malformed_replies.add(1);
                log::error!("virtio-fs: bad attributes of node {}: {why}", entry.node);
                self.conn.forget_unkept(entry.node);
                return Err(Error::protocol());
            }
        };
        let until = self.attr_until(entry.attr_valid);
        let kind = attr.mode.file_type();
        let same = |inode: &Inode<P>| {
            let generation = inode.generation();
            generation == entry.generation && inode.file_type() == kind && !inode.is_bad()
        };
        let known = Entry {
            node: self.recognise(entry, &attr, place),
            ..*entry
        };
        let entry = &known;
        let inode = match self.inodes.get(entry.node).filter(|inode| same(inode)) {
            Some(inode) => {
                inode.apply_attr(attr, until, asked);
                inode
            }
            None => self.make_inode(entry, attr, until, asked, device, same)?,
        };
        inode.count_lookup();
        if let Some(place) = place {
            self.put_in_place(&inode, place)?;
        }
        Ok(inode)
    }

    /// Notes where an inode was found: a directory anew each time, for it has
    /// one name; another file the first time.
    ///
    /// # Errors
    ///
    /// ELOOP for a directory that would be its own ancestor. A server may say so
    /// in good faith, when directories were moved between two answers.
    pub(super) fn put_in_place(&self, inode: &Arc<Inode<P>>, place: &Arc<Place<P>>) -> Result<()> {
        let old = {
            let _places = self.places.lock();
            let before = inode.place();
            if !inode.is_dir() && before.is_some() {
                return Ok(());
            }
            // One that was nowhere yet has nothing in it.
            let moves = before.is_some_and(|old| !Arc::ptr_eq(&old.parent, &place.parent));
            if moves && place.parent.is_below(inode) {
                None
            } else {
                Some(inode.set_place(Some(place.clone())))
            }
        };
        match old {
            // Dropped outside of the lock.
            Some(_) => Ok(()),
            None => {
                log::error!(
                    "virtio-fs: directory {} was found inside itself",
                    inode.node
                );
                Err(Error::new(Errno::ELOOP, Origin::Protocol))
            }
        }
    }

    fn make_inode(
        self: &Arc<Self>,
        entry: &Entry,
        attr: Attr,
        until: Moment,
        asked: Asked,
        parent_device: u64,
        same: impl Fn(&Inode<P>) -> bool,
    ) -> Result<Arc<Inode<P>>> {
        self.settle_window();
        if let Err(error) = self.conn.reserve_forget() {
            self.conn.forget_unkept(entry.node);
            return Err(error);
        }
        let device = self.device_of(&attr, parent_device);
        let raced = asked.0 < self.evicted_version.load(Acquire);
        let lifetime = if raced { Moment::PAST } else { until };
        let cache = AttrCache::new(attr, lifetime, asked);
        let inode = Arc::new(Inode::new(
            self.clone(),
            entry.node,
            entry.generation,
            device,
            cache,
        ));
        let made = Arc::as_ptr(&inode);
        let (inode, old) = self.inodes.insert(inode, same);
        if Arc::as_ptr(&inode) != made {
            inode.apply_attr(attr, until, asked);
        }
        if let Some(old) = old {
            // Another file has its node id now (S4-M01): its users keep what they
            // have, and get errors.
            old.mark_bad("its node id was given to another file");
        }
        Ok(inode)
    }

    /// Returns the device number of a new inode: its directory's, or one of its
    /// own where another host file system begins (S4-M05).
    fn device_of(&self, attr: &Attr, parent_device: u64) -> u64 {
        let begins = attr.flags.contains(AttrFlags::SUBMOUNT)
            && attr.mode.is_dir()
            && self.conn.limits().has(InitFlags::SUBMOUNTS);
        if !begins {
            return parent_device;
        }
        self.next_device.fetch_add(1, Relaxed)
    }

    /// Returns the roots of all submounts in memory. Allocates.
    pub(super) fn submounts(&self) -> Vec<NodeId> {
        let mut roots = Vec::new();
        self.inodes.for_each(|inode| {
            if inode
                .place()
                .is_some_and(|place| place.parent.device() != inode.device())
            {
                roots.push(inode.node);
            }
        });
        roots
    }

    /// Notes that a name was removed here, and nobody knows of which file.
    pub(super) fn note_unknown_unlink(&self) {
        let version = self.next_version();
        self.unknown_unlink.fetch_max(version, AcqRel);
    }

    /// Returns when that was last.
    pub(super) fn unknown_unlink(&self) -> u64 {
        self.unknown_unlink.load(Acquire)
    }

    /// Notes that an inode is gone whose last change had this number.
    pub(super) fn note_eviction(&self, version: u64) {
        self.evicted_version.fetch_max(version, AcqRel);
    }

    /// Remembers that `place` stands for `inode`, or for no file, for `ttl`, if
    /// the directory's names still have this version. If they changed meanwhile,
    /// nobody knows here which came first, and the name is forgotten.
    pub(super) fn remember(
        &self,
        place: Arc<Place<P>>,
        inode: Option<Arc<Inode<P>>>,
        ttl: Duration,
        version: u32,
    ) {
        if ttl.is_zero() {
            // Not worth keeping only to be asked for again (S4-M22).
            drop(self.dentries.remove(&place.parent, &place.name));
            return;
        }
        let until = self.moment().after(ttl);
        let inserted = place.clone();
        if self
            .dentries
            .insert(place, inode, until, version)
            .made_room()
        {
            self.counters().dentries_evicted.add(1);
        }
        if self.ended.load(Acquire) {
            drop(self.dentries.remove(&inserted.parent, &inserted.name));
        }
    }

    /// Lets go of all names, and keeps none from now on: names hold inodes, and
    /// those hold what holds the names.
    pub(super) fn end(&self) {
        self.ended.store(true, Release);
        self.give_up_dirty();
        self.dentries.shrink(usize::MAX);
    }

    /// Forgets what a name stands for.
    pub(super) fn forget_name(&self, parent: &Inode<P>, name: &Name) {
        drop(self.dentries.remove(parent, name));
    }
}
