//! Reading directories.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::Inode;
use super::handle::{Handle, Opened};
use super::perm::Access;
use crate::conn::{Class, Life};
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Platform, Signal};
use crate::wire::abi;
use crate::wire::{
    DirCookie, Dirent, DirentPlus, Dirents, DirentsPlus, EntryName, FileHandle, FileType,
    FopenFlags, FsyncFlags, Fsyncdir, InitFlags, Malformed, Opcode, OpenFlags, Opendir, Readdir,
    Readdirplus,
};

/// Bytes asked for at once. Much larger than a page, so that a directory of ten
/// thousand names takes ten requests and not a hundred.
const BUFFER: usize = 64 << 10;
/// The largest directory whose entries are kept, in bytes.
const CACHE_MAX: usize = 1 << 20;
/// Cookies of the driver's own: behind `.`, and behind `..`. The server's are 63
/// bits wide.
const BEHIND_DOT: DirCookie = DirCookie(1 << 63 | 1);
const BEHIND_DOTDOT: DirCookie = DirCookie(1 << 63 | 2);
/// Bytes of a record before its name.
const DIRENT_HEAD: usize = size_of::<abi::Dirent>();
const DIRENTPLUS_HEAD: usize = size_of::<abi::Direntplus>();

/// A directory that somebody reads.
///
/// It has a position, which is what a `DIR *` has: [`read`](Self::read) goes on
/// where the last one stopped. The server is asked when the first entry is
/// wanted, and not at all where the entries are kept from an earlier reading.
pub struct Dir<P: Platform> {
    inode: Arc<Inode<P>>,
    handle: Option<Arc<Handle<P>>>,
    /// What comes next.
    cookie: DirCookie,
    /// Records from the server, of which `at..filled` are not consumed.
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    /// Where the server was asked to begin when it last gave records.
    filled_from: Option<DirCookie>,
    plus: bool,
    source: Source,
    /// The records as they come, to be kept if all of them do.
    gathered: Option<Gathered>,
}

#[derive(Clone)]
enum Source {
    /// Not decided: nothing was read since the position was set.
    None,
    Server,
    Cache(Arc<DirCache>),
}

/// All entries of a directory, as READDIR returns them.
pub(super) struct DirCache {
    /// Of the directory's names when it was read.
    version: u32,
    records: Vec<u8>,
}

struct Gathered {
    version: u32,
    records: Vec<u8>,
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name; `.` and `..` come first.
    pub name: &'a [u8],
    /// Its inode number, `st_ino` as far as the server says so.
    pub ino: u64,
    /// What it is, where the server says so.
    pub file_type: Option<FileType>,
    /// Where to go on reading behind it. Opaque.
    pub next: DirCookie,
}

impl<P: Platform> Inode<P> {
    /// Opens the directory for reading. Does not block but for permissions.
    ///
    /// # Errors
    ///
    /// ENOTDIR, EACCES.
    pub fn open_dir(self: &Arc<Self>) -> Result<Dir<P>> {
        self.check_dir()?;
        self.permission(Access::READ)?;
        Ok(Dir {
            inode: self.clone(),
            handle: None,
            cookie: DirCookie::START,
            buffer: Vec::new(),
            at: 0,
            filled: 0,
            filled_from: None,
            plus: false,
            source: Source::None,
            gathered: None,
        })
    }

    fn open_dir_handle(self: &Arc<Self>) -> Result<Arc<Handle<P>>> {
        let fs = &self.fs;
        let flags = OpenFlags::DIRECTORY;
        let request = Opendir {
            node: self.node,
            flags,
        };
        let opened = if fs.conn.limits().has(InitFlags::NO_OPENDIR_SUPPORT) {
            fs.lacking.unless(Opcode::Opendir, || fs.conn.ask(&request))
        } else {
            Some(fs.conn.ask(&request))
        };
        match opened {
            None => {
                let kept = FopenFlags::KEEP_CACHE | FopenFlags::CACHE_DIR;
                Ok(Handle::new(
                    self.clone(),
                    FileHandle(0),
                    flags,
                    kept,
                    Opened::Nothing,
                ))
            }
            Some(Ok(reply)) => Ok(Handle::new(
                self.clone(),
                reply.fh,
                flags,
                reply.flags,
                Opened::Directory,
            )),
            Some(Err(error)) => {
                self.note_stale(error);
                Err(error)
            }
        }
    }

    /// Returns the entries if they are kept and nothing changed since.
    fn cached_dir(&self) -> Option<Arc<DirCache>> {
        let cache = self.extra.read().as_ref()?.dir.clone()?;
        let valid = cache.version == self.names_version()
            && self
                .cached_attr(super::attr::Stale::TIMES | super::attr::Stale::SIZE)
                .is_some();
        valid.then_some(cache)
    }
}

impl<P: Platform> Dir<P> {
    /// Returns the directory.
    pub fn inode(&self) -> &Arc<Inode<P>> {
        &self.inode
    }

    /// Returns the position: what telldir(3) does.
    pub fn position(&self) -> DirCookie {
        self.cookie
    }

    /// Goes to a position that an entry of this directory named, or to
    /// [`DirCookie::START`], where the directory is read afresh.
    pub fn seek(&mut self, to: DirCookie) {
        if to == self.cookie && to != DirCookie::START {
            return;
        }
        self.cookie = to;
        (self.at, self.filled) = (0, 0);
        self.filled_from = None;
        self.source = Source::None;
        self.gathered = None;
    }

    /// Calls `each` with the entries from the position on, until it returns
    /// false or there are no more. An entry for which it returns false is not
    /// consumed: it comes again. Returns whether the end was reached. Blocks
    /// where it must ask the server.
    ///
    /// # Errors
    ///
    /// The server's; EIO for records that make no sense, ENOENT for a directory
    /// that was removed.
    pub fn read(&mut self, mut each: impl FnMut(DirEntry<'_>) -> bool) -> Result<bool> {
        self.inode.check()?;
        self.inode.check_alive()?;
        if !self.read_dots(&mut each)? {
            return Ok(false);
        }
        if matches!(self.source, Source::None) {
            self.choose_source();
        }
        if let Source::Cache(cache) = self.source.clone() {
            return self.read_cache(&cache, &mut each);
        }
        loop {
            while self.at < self.filled {
                if !self.consume(&mut each)? {
                    return Ok(false);
                }
            }
            if !self.fill()? {
                self.keep_gathered();
                return Ok(true);
            }
        }
    }

    /// `.` and `..` come from here, because not every server has them.
    fn read_dots(&mut self, each: &mut impl FnMut(DirEntry<'_>) -> bool) -> Result<bool> {
        let dir = Some(FileType::Directory);
        if self.cookie == DirCookie::START {
            let ino = self.inode.last_attr().ino;
            if !each(DirEntry {
                name: b".",
                ino,
                file_type: dir,
                next: BEHIND_DOT,
            }) {
                return Ok(false);
            }
            self.cookie = BEHIND_DOT;
        }
        if self.cookie == BEHIND_DOT {
            let ino = self.inode.parent().last_attr().ino;
            if !each(DirEntry {
                name: b"..",
                ino,
                file_type: dir,
                next: BEHIND_DOTDOT,
            }) {
                return Ok(false);
            }
            self.cookie = BEHIND_DOTDOT;
        }
        Ok(true)
    }

    /// The position as the server counts it.
    fn server_cookie(&self) -> DirCookie {
        if self.cookie == BEHIND_DOTDOT {
            DirCookie::START
        } else {
            self.cookie
        }
    }

    fn choose_source(&mut self) {
        let Some(cache) = self.inode.cached_dir() else {
            self.source = Source::Server;
            if self.server_cookie() == DirCookie::START {
                let version = self.inode.names_version();
                self.gathered = Some(Gathered {
                    version,
                    records: Vec::new(),
                });
            }
            return;
        };
        let wanted = self.server_cookie();
        if wanted != DirCookie::START {
            // Find the record behind the one that names this position.
            let mut at = 0;
            let found = Dirents::new(&cache.records, usize::MAX)
                .flatten()
                .find_map(|record| {
                    at += record_len(DIRENT_HEAD, &record);
                    (record.next == wanted).then_some(at)
                });
            match found {
                Some(at) => self.at = at,
                None => {
                    self.source = Source::Server;
                    return;
                }
            }
        }
        self.source = Source::Cache(cache);
    }

    fn read_cache(
        &mut self,
        cache: &DirCache,
        each: &mut impl FnMut(DirEntry<'_>) -> bool,
    ) -> Result<bool> {
        if self.at == 0 {
            self.inode.fs.counters().dir_hits.add(1);
        }
        let records = cache.records.get(self.at..).unwrap_or_default();
        for record in Dirents::new(records, usize::MAX) {
            let Ok(record) = record else { break };
            if let EntryName::Name(name) = record.name {
                let entry = DirEntry {
                    name,
                    ino: record.ino,
                    file_type: record.file_type,
                    next: record.next,
                };
                if !each(entry) {
                    return Ok(false);
                }
            }
            self.at += record_len(DIRENT_HEAD, &record);
            self.cookie = record.next;
        }
        Ok(true)
    }

    /// Gets the next records from the server. Returns false at the end.
    fn fill(&mut self) -> Result<bool> {
        let handle = self.server_handle()?;
        let conn = self.inode.fs.conn.clone();
        let limits = conn.limits();
        let size = BUFFER.min(limits.max_read as usize).min(conn.fitting());
        if self.buffer.len() != size {
            self.buffer = vec![0; size];
        }
        let cookie = self.server_cookie();
        if self.filled_from == Some(cookie) {
            // The last record led back to where this began: a server's mistake
            // must not keep a caller here for ever.
            return Err(malformed(&self.inode, Malformed::Offset(cookie.0)));
        }
        if self.inode.fs.platform().signal() == Signal::Kill {
            return Err(Error::new(Errno::EINTR, Origin::Platform));
        }
        self.plus = self.wants_plus(cookie);
        let (node, fh, flags) = (self.inode.node, handle.fh, handle.flags);
        let size = size as u32;
        let asked = self.inode.fs.ask_now();
        let version = self.inode.names_version();
        let buffer = Data::Sink(&mut [&mut self.buffer[..]]);
        let result = if self.plus {
            let request = Readdirplus {
                node,
                fh,
                cookie,
                size,
                flags,
            };
            let answer = self.inode.fs.lacking.unless(Opcode::Readdirplus, || {
                conn.call_with_life(&request, buffer, Class::Normal)
            });
            match answer {
                Some(answer) => answer,
                None => return self.fill(),
            }
        } else {
            conn.call_with_life(
                &Readdir {
                    node,
                    fh,
                    cookie,
                    size,
                    flags,
                },
                buffer,
                Class::Normal,
            )
        };
        self.at = 0;
        self.filled = 0;
        let (filled, life) = result.inspect_err(|error| self.inode.note_stale(*error))?;
        self.inode.read_happened();
        self.filled = filled;
        self.filled_from = (filled > 0).then_some(cookie);
        if self.plus {
            self.take_lookups(asked, version, life);
        }
        Ok(filled > 0)
    }

    /// READDIRPLUS costs the server a stat and us an inode for each entry, so it
    /// is for directories whose names are looked up: at the first read there is
    /// hope, later there must have been a lookup since (as Linux does).
    fn wants_plus(&self, cookie: DirCookie) -> bool {
        let fs = &self.inode.fs;
        let limits = fs.conn.limits();
        if !limits.has(InitFlags::DO_READDIRPLUS) || fs.lacking.has(Opcode::Readdirplus) {
            return false;
        }
        if !limits.has(InitFlags::READDIRPLUS_AUTO) {
            return true;
        }
        let advised = self.inode.take_plus_advice();
        cookie == DirCookie::START || advised
    }

    /// Takes over, or gives back, each lookup that the server counted in the
    /// buffer, whether its entry is wanted or not.
    fn take_lookups(&mut self, asked: super::filesystem::Asked, version: u32, life: Life) {
        let fs = &self.inode.fs;
        let limit = fs.conn.limits().name_max;
        for record in DirentsPlus::new(&self.buffer[..self.filled], limit) {
            // A malformed record is reported when its turn comes.
            let Ok(DirentPlus { dirent, entry }) = record else {
                break;
            };
            let (EntryName::Name(name), Some(mut entry)) = (dirent.name, entry) else {
                continue;
            };
            match fs.conn.adopt_node(life, entry.node) {
                Some(node) => entry.node = node,
                None => continue,
            }
            let place = self.inode.place_of(name);
            let Ok(inode) = fs.accept(&entry, asked, self.inode.device(), Some(&place)) else {
                continue;
            };
            let ttl = fs.options.cache.ttl(entry.entry_valid);
            fs.remember(place, Some(inode), ttl, version);
        }
    }

    /// Passes one record on. Returns false if it was not wanted.
    fn consume(&mut self, each: &mut impl FnMut(DirEntry<'_>) -> bool) -> Result<bool> {
        let limit = self.inode.fs.conn.limits().name_max;
        let bytes = &self.buffer[self.at..self.filled];
        let (record, ino) = if self.plus {
            let record = DirentsPlus::new(bytes, limit)
                .next()
                .unwrap_or(Err(Malformed::Truncated));
            let DirentPlus { dirent, entry } = record.map_err(|why| malformed(&self.inode, why))?;
            let ino = entry
                .and_then(|entry| entry.attr.ok())
                .map_or(dirent.ino, |attr| attr.ino);
            (dirent, ino)
        } else {
            let record = Dirents::new(bytes, limit)
                .next()
                .unwrap_or(Err(Malformed::Truncated));
            let dirent = record.map_err(|why| malformed(&self.inode, why))?;
            (dirent, dirent.ino)
        };
        if record.next.0 >> 63 != 0 {
            return Err(malformed(&self.inode, Malformed::Offset(record.next.0)));
        }
        if let EntryName::Name(name) = record.name {
            let file_type = record.file_type;
            if !each(DirEntry {
                name,
                ino,
                file_type,
                next: record.next,
            }) {
                return Ok(false);
            }
        }
        if let Some(gathered) = &mut self.gathered {
            gathered.add(&record, ino);
        }
        let next = record.next;
        let head = if self.plus {
            DIRENTPLUS_HEAD
        } else {
            DIRENT_HEAD
        };
        self.at += record_len(head, &record);
        self.cookie = next;
        Ok(true)
    }

    /// Keeps the entries if they are complete and the server and the policy let
    /// us.
    fn keep_gathered(&mut self) {
        let Some(gathered) = self.gathered.take() else {
            return;
        };
        let allowed = self.inode.fs.options.cache.keeps_all()
            || self
                .handle
                .as_ref()
                .is_some_and(|h| h.fopen.contains(FopenFlags::CACHE_DIR));
        let wanted = self.inode.fs.options.cache != super::CachePolicy::None;
        let current = gathered.version == self.inode.names_version();
        if allowed && wanted && current && gathered.records.len() <= CACHE_MAX {
            let mut records = gathered.records;
            records.shrink_to_fit();
            let cache = Arc::new(DirCache {
                version: gathered.version,
                records,
            });
            self.inode.with_extra(|extra| extra.dir = Some(cache));
        }
    }

    /// Returns the server's handle, opening one if there is none yet.
    pub(super) fn server_handle(&mut self) -> Result<Arc<Handle<P>>> {
        if let Some(handle) = &self.handle {
            return Ok(handle.clone());
        }
        let handle = self.inode.open_dir_handle()?;
        Ok(self.handle.insert(handle).clone())
    }

    /// Makes the names in the directory durable. Blocks.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn sync(&mut self) -> Result<()> {
        if self.handle.is_none() && self.inode.check_alive().is_err() {
            // It was removed, and servers do not open it any more: no name is left.
            return Ok(());
        }
        let handle = self.server_handle()?;
        let request = Fsyncdir {
            node: self.inode.node,
            fh: handle.fh,
            flags: FsyncFlags::empty(),
        };
        let fs = &self.inode.fs;
        fs.lacking
            .unless(Opcode::Fsyncdir, || fs.conn.ask(&request))
            .unwrap_or(Ok(()))
    }
}

impl Gathered {
    /// Adds a record in the form that READDIR has, whatever form it came in.
    fn add(&mut self, record: &Dirent<'_>, ino: u64) {
        let name = record.name.as_bytes();
        if self.records.len() > CACHE_MAX {
            return;
        }
        self.records.extend_from_slice(&ino.to_le_bytes());
        self.records.extend_from_slice(&record.next.0.to_le_bytes());
        self.records
            .extend_from_slice(&(name.len() as u32).to_le_bytes());
        let kind = record.file_type.map_or(0, FileType::to_dirent);
        self.records.extend_from_slice(&kind.to_le_bytes());
        self.records.extend_from_slice(name);
        self.records
            .resize(self.records.len().next_multiple_of(8), 0);
    }
}

/// Returns the length of a record whose head has `head` bytes: names are padded
/// to 8 bytes.
fn record_len(head: usize, record: &Dirent<'_>) -> usize {
    head + record.name.as_bytes().len().next_multiple_of(8)
}

fn malformed<P: Platform>(inode: &Inode<P>, why: Malformed) -> Error {
    inode.fs.counters().malformed_replies.add(1);
    log::error!(
        "virtio-fs: malformed entry in directory {}: {why}",
        inode.node
    );
    Error::new(Errno::EIO, Origin::Protocol)
}
