//! The entries of one directory, found by name and listed by cookie.
//!
//! A cookie is a hash of the name: opaque, in no order that means anything,
//! the same for as long as the entry exists, so a listing may be continued
//! after any entry however the directory changed meanwhile.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::memfs::Ino;

#[derive(Debug)]
pub(crate) struct Dir {
    pub(crate) parent: Ino,
    by_name: BTreeMap<Vec<u8>, u64>,
    by_cookie: BTreeMap<u64, (Vec<u8>, Ino)>,
}

impl Dir {
    pub(crate) fn new(own: Ino, parent: Ino) -> Self {
        let mut dir = Self {
            parent,
            by_name: BTreeMap::new(),
            by_cookie: BTreeMap::new(),
        };
        for name in [&b"."[..], b".."] {
            let cookie = dir.cookie(name);
            // `..` is answered from `parent`, which a rename changes.
            dir.by_cookie.insert(cookie, (name.to_vec(), own));
        }
        dir
    }

    fn cookie(&self, name: &[u8]) -> u64 {
        // FNV-1a, then mixed so that the upper bits depend on the last byte.
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for &byte in name {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        hash ^= hash >> 29;
        let mut cookie = hash.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 1;
        while cookie == 0 || self.by_cookie.contains_key(&cookie) {
            cookie = (cookie + 1) & i64::MAX as u64;
        }
        cookie
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<Ino> {
        let cookie = self.by_name.get(name)?;
        self.by_cookie.get(cookie).map(|&(_, ino)| ino)
    }

    /// Adds a name that is not there.
    pub(crate) fn insert(&mut self, name: &[u8], ino: Ino) {
        let cookie = self.cookie(name);
        self.by_name.insert(name.to_vec(), cookie);
        self.by_cookie.insert(cookie, (name.to_vec(), ino));
    }

    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Ino> {
        let cookie = self.by_name.remove(name)?;
        self.by_cookie.remove(&cookie).map(|(_, ino)| ino)
    }

    /// Lets a name that is there mean another inode.
    pub(crate) fn replace(&mut self, name: &[u8], ino: Ino) {
        if let Some(entry) = self
            .by_name
            .get(name)
            .and_then(|c| self.by_cookie.get_mut(c))
        {
            entry.1 = ino;
        }
    }

    /// Lists names with their cookies, `.` and `..` among them.
    pub(crate) fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &[u8], Ino)> {
        let from = if cookie == 0 {
            Bound::Unbounded
        } else {
            Bound::Excluded(cookie)
        };
        self.by_cookie
            .range((from, Bound::Unbounded))
            .map(|(&cookie, (name, ino))| {
                let ino = if name == b".." { self.parent } else { *ino };
                (cookie, name.as_slice(), ino)
            })
    }

    /// Lists the names without `.` and `..`, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.by_name.keys().map(Vec::as_slice)
    }
}
