//! Finding a name in a directory.

use alloc::sync::Arc;

use super::dentry::Lookup;
use super::filesystem::Asked;
use super::inode::Place;
use super::moment::Moment;
use super::perm::Access;
use super::{Inode, Metadata};
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

    /// As [`lookup`](Self::lookup), with the attributes, which the server's answer
    /// brings along: one request where nothing is known or may be kept, instead
    /// of two. Blocks if it must ask.
    ///
    /// # Errors
    ///
    /// As there, and those of [`metadata`](Self::metadata).
    pub fn lookup_with_metadata(self: &Arc<Self>, name: &[u8]) -> Result<(Arc<Self>, Metadata)> {
        self.check_dir()?;
        self.permission(Access::EXEC)?;
        let (inode, asked) = self.find_name(self.name(name)?)?;
        let metadata = inode.metadata_since(asked, self.fs.moment())?;
        Ok((inode, metadata))
    }

    /// Returns the attributes of an inode that was just looked up: those that the
    /// answer brought, if the server was asked, or what is valid at `now`.
    pub(super) fn metadata_since(
        self: &Arc<Self>,
        asked: Option<Asked>,
        now: Moment,
    ) -> Result<Metadata> {
        match asked.and_then(|asked| self.attr_since(asked)) {
            Some(attr) => Ok(Metadata {
                device: self.device(),
                attr,
            }),
            None => self.metadata_at(now),
        }
    }

    /// As [`lookup`](Self::lookup), of a checked name, without permission.
    pub(super) fn lookup_name(self: &Arc<Self>, name: &Name) -> Result<Arc<Self>> {
        Ok(self.find_name(name)?.0)
    }

    /// Finds a name, and says since when its attributes are known if the server
    /// was asked.
    pub(super) fn find_name(self: &Arc<Self>, name: &Name) -> Result<(Arc<Self>, Option<Asked>)> {
        self.check_alive()?;
        self.advise_plus();
        let place = match self.fs.dentries.get(self, name, self.fs.moment()) {
            Lookup::Found(inode) if !inode.is_bad() => {
                self.fs.counters().dentry_hits.add(1);
                return Ok((inode, None));
            }
            Lookup::Absent => {
                self.fs.counters().negative_hits.add(1);
                return Err(ENOENT);
            }
            Lookup::Expired(place) => Some(place),
            Lookup::Found(_) | Lookup::Unknown => None,
        };
        self.fs.counters().dentry_misses.add(1);
        let asked = self.fs.ask_now();
        let inode = self.ask_for(name, place, asked)?;
        Ok((inode, Some(asked)))
    }

    /// Asks the server for a name and remembers the answer.
    fn ask_for(
        self: &Arc<Self>,
        name: &Name,
        place: Option<Arc<Place<P>>>,
        asked: Asked,
    ) -> Result<Arc<Self>> {
        let fs = &self.fs;
        // What is under way while a name changes here may be older than that.
        let version = self.names_version();
        let answer = fs.conn.ask(&wire::Lookup {
            parent: self.node,
            name,
        });
        match answer {
            Ok(Found::Entry(entry)) => {
                let place = place.unwrap_or_else(|| self.place_of(name));
                let inode = fs.accept(&entry, asked, self.device(), Some(&place))?;
                let ttl = fs.options.cache.ttl(entry.entry_valid);
                fs.remember(place, Some(inode.clone()), ttl, version);
                Ok(inode)
            }
            Ok(Found::Negative(ttl)) => {
                fs.remember(
                    place.unwrap_or_else(|| self.place_of(name)),
                    None,
                    fs.options.cache.ttl(ttl),
                    version,
                );
                Err(ENOENT)
            }
            Err(error) if error.errno() == Errno::ENOENT => {
                let ttl = fs.options.cache.negative_ttl();
                if ttl.is_zero() {
                    fs.forget_name(self, name);
                } else {
                    let place = place.unwrap_or_else(|| self.place_of(name));
                    fs.remember(place, None, ttl, version);
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
