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
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::Inode;
use super::inode::Place;
use super::moment::Moment;
use crate::platform::Platform;
use crate::sync::{Rank, SpinRwLock};
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
    /// Until when it is valid, and [`USED`].
    state: AtomicU64,
}

/// The name was used since the hand came by.
const USED: u64 = 1 << 63;

impl<P: Platform> Dentry<P> {
    fn valid_until(&self) -> Moment {
        Moment::from_bits(self.state.load(Relaxed) & !USED)
    }

    fn expire(&self) {
        self.state.fetch_and(USED, Relaxed);
    }
}

struct Shard<P: Platform> {
    /// Indices into `entries` by hash.
    index: HashTable<u32>,
    entries: Vec<Option<Dentry<P>>>,
    free: Vec<u32>,
    hand: usize,
}

/// On cache lines of its own, so that hits on one shard do not slow those on
/// another down.
#[repr(align(64))]
struct Aligned<P: Platform>(SpinRwLock<Shard<P>>);

pub(super) struct DentryCache<P: Platform> {
    shards: [Aligned<P>; SHARDS],
    hasher: FixedState,
    /// Entries that one shard may hold.
    bound: usize,
}

/// What left the cache, to be dropped outside of its locks.
#[must_use = "dropped outside of the cache's locks"]
pub(super) struct Gone<P: Platform> {
    _dentry: Option<Dentry<P>>,
    made_room: bool,
}

impl<P: Platform> Gone<P> {
    /// What was known of the same name before, if anything.
    fn same(dentry: Option<Dentry<P>>) -> Self {
        Self {
            _dentry: dentry,
            made_room: false,
        }
    }

    /// Returns whether another name was dropped to make room.
    pub(super) fn made_room(&self) -> bool {
        self.made_room
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
            shards: core::array::from_fn(|_| Aligned(SpinRwLock::new(Rank::Dentries, shard()))),
            hasher: FixedState::with_seed(seed),
            bound: (max / SHARDS).max(1),
        }
    }

    fn hash(&self, parent: &Inode<P>, name: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        // The parent is pinned by every entry below it, so its address is its
        // name for as long as that matters.
        hasher.write_usize(core::ptr::from_ref(parent) as usize);
        hasher.write(name);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> &SpinRwLock<Shard<P>> {
        &self.shards[(hash >> 32) as usize % SHARDS].0
    }

    /// Looks `name` in `parent` up: any bytes, for only legal names are found.
    /// Sends nothing, allocates nothing.
    pub(super) fn get(&self, parent: &Inode<P>, name: &[u8], now: Moment) -> Lookup<P> {
        let hash = self.hash(parent, name);
        let shard = self.shard(hash).read();
        let Some(dentry) = shard.find(hash, parent, name) else {
            return Lookup::Unknown;
        };
        let state = dentry.state.load(Relaxed);
        if Moment::from_bits(state & !USED) <= now {
            return Lookup::Expired(dentry.place.clone());
        }
        if state & USED == 0 {
            dentry.state.fetch_or(USED, Relaxed);
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
        valid_until: Moment,
        version: u32,
    ) -> Gone<P> {
        let hash = self.hash(&place.parent, &place.name);
        let mut guard = self.shard(hash).write();
        let shard = &mut *guard;
        let old = shard.position(hash, &place.parent, &place.name);
        if place.parent.names_version() != version {
            let old = old.and_then(|at| shard.take(hash, at));
            drop(guard);
            return Gone::same(old);
        }
        let dentry = Dentry {
            place,
            inode,
            state: AtomicU64::new(valid_until.to_bits() | USED),
        };
        if let Some(at) = old {
            let old = shard.entries[at as usize].replace(dentry);
            drop(guard);
            return Gone::same(old);
        }
        let mut evicted = None;
        if shard.index.len() >= self.bound {
            evicted = shard.evict(|d| self.hash(&d.place.parent, &d.place.name));
        }
        let at = match shard.free.pop() {
            Some(at) => at,
            None => {
                shard.grow();
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
        Gone {
            made_room: evicted.is_some(),
            _dentry: evicted,
        }
    }

    /// Forgets `name` in `parent`.
    pub(super) fn remove(&self, parent: &Inode<P>, name: &Name) -> Gone<P> {
        let hash = self.hash(parent, name);
        let mut shard = self.shard(hash).write();
        let removed = shard
            .position(hash, parent, name)
            .and_then(|at| shard.take(hash, at));
        drop(shard);
        Gone::same(removed)
    }

    /// Makes `name` in `parent` be asked for again, without forgetting it.
    pub(super) fn expire(&self, parent: &Inode<P>, name: &Name) {
        let hash = self.hash(parent, name);
        if let Some(dentry) = self.shard(hash).read().find(hash, parent, name) {
            dentry.expire();
        }
    }

    /// Makes every name be asked for again.
    pub(super) fn expire_all(&self) {
        for shard in &self.shards {
            for dentry in shard.0.read().entries.iter().flatten() {
                dentry.expire();
            }
        }
    }

    /// Returns until when `name` in `parent` is known, if it stands for an inode.
    pub(super) fn valid_until(&self, parent: &Inode<P>, name: &Name) -> Option<Moment> {
        let hash = self.hash(parent, name);
        let shard = self.shard(hash).read();
        let dentry = shard
            .find(hash, parent, name)
            .filter(|d| d.inode.is_some())?;
        Some(dentry.valid_until())
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
            .map(|shard| shard.0.read().index.len())
            .sum()
    }

    /// Drops up to `count` names that were not used lately, all of them in the
    /// end. Returns how many.
    pub(super) fn shrink(&self, count: usize) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            while dropped < count {
                let evicted = shard
                    .0
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
    /// Makes room for one more entry: an eighth more than there are, where a
    /// vector by itself would double and leave half of it empty.
    fn grow(&mut self) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact((self.entries.len() / 8).max(8));
        }
    }

    #[inline]
    fn position(&self, hash: u64, parent: &Inode<P>, name: &[u8]) -> Option<u32> {
        let same = |&at: &u32| {
            self.entries[at as usize].as_ref().is_some_and(|d| {
                core::ptr::eq(&*d.place.parent, parent) && d.place.name.as_bytes() == name
            })
        };
        self.index.find(hash, same).copied()
    }

    #[inline]
    fn find(&self, hash: u64, parent: &Inode<P>, name: &[u8]) -> Option<&Dentry<P>> {
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
                && dentry.state.fetch_and(!USED, Relaxed) & USED == 0
            {
                let hash = hash(dentry);
                return self.take(hash, at as u32);
            }
        }
        None
    }
}
