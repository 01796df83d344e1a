//! Finding a name in a directory.

use alloc::sync::Arc;

use super::Inode;
use super::dentry::Lookup;
use super::inode::Place;
use super::perm::Access;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::Platform;
use crate::wire::{self, Found, Name, NameError};

const ENOENT: Error = Error::caller(Errno::ENOENT);

impl<P: Platform> Inode<P> {
    /// Checks that `name` may name something in this file system.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG, EINVAL, ENOENT for an empty one.
    pub(super) fn name<'a>(&self, name: &'a [u8]) -> Result<&'a Name> {
        let limit = self.fs.conn.limits().name_max;
        Name::with_limit(name, limit).map_err(|error| match error {
            NameError::Empty => ENOENT,
            error => error.into(),
        })
    }

    /// Finds `name` in this directory: in memory if what is known is valid,
    /// else by asking. Blocks if it must ask.
    ///
    /// Symbolic links are returned as they are. `.` and `..` are not names; see
    /// [`parent`](Self::parent).
    ///
    /// # Errors
    ///
    /// ENOENT, ENOTDIR, EACCES, ENAMETOOLONG, EINVAL, and the server's.
    pub fn lookup(self: &Arc<Self>, name: &[u8]) -> Result<Arc<Self>> {
        self.check_dir()?;
        self.permission(Access::EXEC)?;
        self.lookup_name(self.name(name)?)
    }

    /// As [`lookup`](Self::lookup), of a checked name, without permission.
    pub(super) fn lookup_name(self: &Arc<Self>, name: &Name) -> Result<Arc<Self>> {
        self.check_alive()?;
        self.advise_plus();
        let place = match self.fs.dentries.get(self, name, self.fs.now()) {
            Lookup::Found(inode) if !inode.is_bad() => {
                self.fs.counters().dentry_hits.add(1);
                return Ok(inode);
            }
            Lookup::Absent => {
                self.fs.counters().negative_hits.add(1);
                return Err(ENOENT);
            }
            Lookup::Expired(place) => Some(place),
            Lookup::Found(_) | Lookup::Unknown => None,
        };
        self.fs.counters().dentry_misses.add(1);
        self.ask_for(name, place)
    }

    /// Asks the server for a name and remembers the answer.
    fn ask_for(self: &Arc<Self>, name: &Name, place: Option<Arc<Place<P>>>) -> Result<Arc<Self>> {
        let fs = &self.fs;
        let version = self.names_version();
        let asked = fs.ask_now();
        let answer = fs.conn.ask(&wire::Lookup {
            parent: self.node,
            name,
        });
        // What was under way while a name changed here may be older than that.
        let current = || self.names_version() == version;
        match answer {
            Ok(Found::Entry(entry)) => {
                let place = place.unwrap_or_else(|| self.place_of(name));
                let inode = fs.accept(&entry, asked, self.device(), Some(&place))?;
                let ttl = fs.options.cache.ttl(entry.entry_valid);
                if current() {
                    fs.remember(place, Some(inode.clone()), ttl);
                }
                Ok(inode)
            }
            Ok(Found::Negative(ttl)) => {
                if current() {
                    fs.remember(
                        place.unwrap_or_else(|| self.place_of(name)),
                        None,
                        fs.options.cache.ttl(ttl),
                    );
                }
                Err(ENOENT)
            }
            Err(error) if error.errno() == Errno::ENOENT => {
                let ttl = fs.options.cache.negative_ttl();
                if ttl.is_zero() {
                    fs.forget_name(self, name);
                } else if current() {
                    fs.remember(place.unwrap_or_else(|| self.place_of(name)), None, ttl);
                }
                Err(error)
            }
            Err(error) => {
                self.note_stale(error);
                Err(error)
            }
        }
    }

    pub(super) fn place_of(self: &Arc<Self>, name: &Name) -> Arc<Place<P>> {
        Arc::new(Place {
            parent: self.clone(),
            name: name.to_buf(),
        })
    }

    /// Forgets how this inode was found if the server does not know it any more,
    /// so that the next walk asks afresh. Both ESTALE and, from servers that
    /// restarted, EBADF mean that.
    pub(super) fn note_stale(&self, error: Error) {
        if error.origin() == Origin::Server && matches!(error.errno(), Errno::ESTALE | Errno::EBADF)
        {
            if let Some(place) = self.place() {
                self.fs.forget_name(&place.parent, &place.name);
            }
            self.expire_attr();
        }
    }
}
