//! The dentry cache: which name in which directory stands for which inode, or
//! for none, and until when.
//!
//! A hit takes a shared lock on one shard out of many and changes one flag, so
//! hits on different CPUs do not wait for each other. The bound is kept by the
//! clock algorithm: a hand goes round, spares what was used since it last came
//! by, and evicts the rest.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hash::{BuildHasher, Hasher};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU64};
use core::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::Inode;
use super::inode::Place;
use crate::platform::Platform;
use crate::sync::SpinRwLock;
use crate::wire::Name;

const SHARDS: usize = 16;

/// What the cache knows of a name.
pub(super) enum Lookup<P: Platform> {
    /// It stands for this inode.
    Found(Arc<Inode<P>>),
    /// It does not exist.
    Absent,
    /// It did stand for an inode; whether it still does must be asked.
    Expired(Arc<Place<P>>),
    /// Nothing.
    Unknown,
}

struct Dentry<P: Platform> {
    place: Arc<Place<P>>,
    inode: Option<Arc<Inode<P>>>,
    /// Nanoseconds on the platform's clock.
    valid_until: AtomicU64,
    used: AtomicBool,
}

struct Shard<P: Platform> {
    /// Indices into `entries` by hash.
    index: HashTable<u32>,
    entries: Vec<Option<Dentry<P>>>,
    free: Vec<u32>,
    hand: usize,
}

pub(super) struct DentryCache<P: Platform> {
    shards: [SpinRwLock<Shard<P>>; SHARDS],
    hasher: FixedState,
    /// Entries that one shard may hold.
    bound: usize,
}

/// What fell out of the cache, to be dropped outside of its locks.
#[must_use = "dropped outside of the cache's locks"]
pub(super) struct Evicted<P: Platform>(Option<Dentry<P>>);

impl<P: Platform> Evicted<P> {
    /// Returns whether anything fell out.
    pub(super) fn any(&self) -> bool {
        self.0.is_some()
    }
}

impl<P: Platform> DentryCache<P> {
    pub(super) fn new(max: usize, seed: u64) -> Self {
        let shard = || Shard {
            index: HashTable::new(),
            entries: Vec::new(),
            free: Vec::new(),
            hand: 0,
        };
        Self {
            shards: core::array::from_fn(|_| SpinRwLock::new(shard())),
            hasher: FixedState::with_seed(seed),
            bound: (max / SHARDS).max(1),
        }
    }

    fn hash(&self, parent: &Inode<P>, name: &Name) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // The parent is pinned by every entry below it, so its address is its
        // name for as long as that matters.
        hasher.write_usize(core::ptr::from_ref(parent) as usize);
        hasher.write(name);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> &SpinRwLock<Shard<P>> {
        &self.shards[(hash >> 32) as usize % SHARDS]
    }

    /// Looks `name` in `parent` up. Sends nothing, allocates nothing.
    pub(super) fn get(&self, parent: &Inode<P>, name: &Name, now: Duration) -> Lookup<P> {
        let hash = self.hash(parent, name);
        let shard = self.shard(hash).read();
        let Some(dentry) = shard.find(hash, parent, name) else {
            return Lookup::Unknown;
        };
        if dentry.valid_until.load(Relaxed) <= now.as_nanos() as u64 {
            return Lookup::Expired(dentry.place.clone());
        }
        if !dentry.used.load(Relaxed) {
            dentry.used.store(true, Relaxed);
        }
        dentry.inode.clone().map_or(Lookup::Absent, Lookup::Found)
    }

    /// Remembers that `place` stands for `inode`, or for none, until
    /// `valid_until`, if the parent's names have this version; else forgets the
    /// name. Returns what had to go.
    ///
    /// Whoever changes a name counts the version up first and comes here then, so
    /// that an answer from before the change cannot stay.
    pub(super) fn insert(
        &self,
        place: Arc<Place<P>>,
        inode: Option<Arc<Inode<P>>>,
        valid_until: Duration,
        version: u32,
    ) -> Evicted<P> {
        let hash = self.hash(&place.parent, &place.name);
        let mut guard = self.shard(hash).write();
        let shard = &mut *guard;
        let valid_until = AtomicU64::new(valid_until.as_nanos() as u64);
        let old = shard.position(hash, &place.parent, &place.name);
        if place.parent.names_version() != version {
            let old = old.and_then(|at| shard.take(hash, at));
            drop(guard);
            return Evicted(old);
        }
        let dentry = Dentry {
            place,
            inode,
            valid_until,
            used: AtomicBool::new(true),
        };
        if let Some(at) = old {
            let old = shard.entries[at as usize].replace(dentry);
            drop(guard);
            return Evicted(old);
        }
        let mut evicted = None;
        if shard.index.len() >= self.bound {
            evicted = shard.evict(|d| self.hash(&d.place.parent, &d.place.name));
        }
        let at = match shard.free.pop() {
            Some(at) => at,
            None => {
                shard.entries.push(None);
                (shard.entries.len() - 1) as u32
            }
        };
        shard.entries[at as usize] = Some(dentry);
        let entries = &shard.entries;
        shard.index.insert_unique(hash, at, |&at| {
            // INVARIANT: the index names occupied entries only.
            entries[at as usize]
                .as_ref()
                .map_or(0, |d| self.hash(&d.place.parent, &d.place.name))
        });
        drop(guard);
        Evicted(evicted)
    }

    /// Forgets `name` in `parent`.
    pub(super) fn remove(&self, parent: &Inode<P>, name: &Name) -> Evicted<P> {
        let hash = self.hash(parent, name);
        let mut shard = self.shard(hash).write();
        let removed = shard
            .position(hash, parent, name)
            .and_then(|at| shard.take(hash, at));
        drop(shard);
        Evicted(removed)
    }

    /// Makes `name` in `parent` be asked for again, without forgetting it.
    pub(super) fn expire(&self, parent: &Inode<P>, name: &Name) {
        let hash = self.hash(parent, name);
        if let Some(dentry) = self.shard(hash).read().find(hash, parent, name) {
            dentry.valid_until.store(0, Relaxed);
        }
    }

    /// Makes every name be asked for again.
    pub(super) fn expire_all(&self) {
        for shard in &self.shards {
            for dentry in shard.read().entries.iter().flatten() {
                dentry.valid_until.store(0, Relaxed);
            }
        }
    }

    /// Returns until when `name` in `parent` is known, if it stands for an inode.
    pub(super) fn valid_until(&self, parent: &Inode<P>, name: &Name) -> Option<Duration> {
        let hash = self.hash(parent, name);
        let shard = self.shard(hash).read();
        let dentry = shard
            .find(hash, parent, name)
            .filter(|d| d.inode.is_some())?;
        Some(Duration::from_nanos(dentry.valid_until.load(Relaxed)))
    }

    /// Returns the inode that `name` in `parent` last stood for, valid or not.
    pub(super) fn peek(&self, parent: &Inode<P>, name: &Name) -> Option<Arc<Inode<P>>> {
        let hash = self.hash(parent, name);
        self.shard(hash)
            .read()
            .find(hash, parent, name)?
            .inode
            .clone()
    }

    /// Returns the number of names.
    pub(super) fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.read().index.len())
            .sum()
    }

    /// Drops up to `count` names that were not used lately, all of them in the
    /// end. Returns how many.
    pub(super) fn shrink(&self, count: usize) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            while dropped < count {
                let evicted = shard
                    .write()
                    .evict(|d| self.hash(&d.place.parent, &d.place.name));
                if evicted.is_none() {
                    break;
                }
                dropped += 1;
            }
        }
        dropped
    }
}

impl<P: Platform> Shard<P> {
    fn position(&self, hash: u64, parent: &Inode<P>, name: &Name) -> Option<u32> {
        let same = |&at: &u32| {
            self.entries[at as usize].as_ref().is_some_and(|d| {
                core::ptr::eq(&*d.place.parent, parent)
                    && d.place.name.as_bytes() == name.as_bytes()
            })
        };
        self.index.find(hash, same).copied()
    }

    fn find(&self, hash: u64, parent: &Inode<P>, name: &Name) -> Option<&Dentry<P>> {
        self.entries[self.position(hash, parent, name)? as usize].as_ref()
    }

    fn take(&mut self, hash: u64, at: u32) -> Option<Dentry<P>> {
        if let Ok(entry) = self.index.find_entry(hash, |&i| i == at) {
            entry.remove();
        }
        self.free.push(at);
        self.entries[at as usize].take()
    }

    /// Moves the hand to the next entry that was not used since it came by last.
    fn evict(&mut self, hash: impl Fn(&Dentry<P>) -> u64) -> Option<Dentry<P>> {
        // Twice round at most: the first time clears the flags.
        for _ in 0..2 * self.entries.len() {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.entries.len();
            if let Some(dentry) = &self.entries[at]
                && !dentry.used.swap(false, Relaxed)
            {
                let hash = hash(dentry);
                return self.take(hash, at as u32);
            }
        }
        None
    }
}
