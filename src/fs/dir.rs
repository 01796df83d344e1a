//! Directories that somebody reads: positions, and entries from wherever they come.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Inode;
use super::dir_cache::{DIRENT_HEAD, DirCache, Gathered, record_len};
use super::dir_server::malformed;
use super::handle::Handle;
use super::perm::Access;
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::abi;
use crate::wire::{DirCookie, DirentPlus, Dirents, DirentsPlus, EntryName, FileType, Malformed};

const DIRENTPLUS_HEAD: usize = size_of::<abi::Direntplus>();
/// Cookies of the driver's own, behind `.` and behind `..`: at the upper end of
/// what an off_t can tell, where no file system known has cookies. One that has
/// them is read in order all the same; only seeking to these two means ours.
const BEHIND_DOT: DirCookie = DirCookie(i64::MAX as u64 - 2);
const BEHIND_DOTDOT: DirCookie = DirCookie(i64::MAX as u64 - 1);

/// A position in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Start,
    BehindDot,
    /// Behind the entry that named this cookie of the server's; its
    /// [`START`](DirCookie::START) is behind `..`.
    Server(DirCookie),
}

impl Position {
    fn cookie(self) -> DirCookie {
        match self {
            Self::Start => DirCookie::START,
            Self::BehindDot => BEHIND_DOT,
            Self::Server(DirCookie::START) => BEHIND_DOTDOT,
            Self::Server(cookie) => cookie,
        }
    }

    fn at(cookie: DirCookie) -> Self {
        match cookie {
            DirCookie::START => Self::Start,
            BEHIND_DOT => Self::BehindDot,
            BEHIND_DOTDOT => Self::Server(DirCookie::START),
            cookie => Self::Server(cookie),
        }
    }
}

/// A directory that somebody reads.
///
/// It has a position, which is what a `DIR *` has: [`read`](Self::read) goes on
/// where the last one stopped. The server is asked when the first entry is
/// wanted, and not at all where the entries are kept from an earlier reading.
pub struct Dir<P: Platform> {
    pub(super) inode: Arc<Inode<P>>,
    pub(super) handle: Option<Arc<Handle<P>>>,
    /// What comes next.
    position: Position,
    /// Records from the server, of which `at..filled` are not consumed.
    pub(super) buffer: Vec<u8>,
    pub(super) at: usize,
    pub(super) filled: usize,
    /// Where the server was asked to begin when it last gave records.
    pub(super) filled_from: Option<DirCookie>,
    pub(super) plus: bool,
    source: Source,
    /// The records as they come, to be kept if all of them do.
    pub(super) gathered: Option<Gathered>,
}

#[derive(Clone)]
enum Source {
    /// Not decided: nothing was read since the position was set.
    None,
    Server,
    Cache(Arc<DirCache>),
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
            position: Position::Start,
            buffer: Vec::new(),
            at: 0,
            filled: 0,
            filled_from: None,
            plus: false,
            source: Source::None,
            gathered: None,
        })
    }
}

impl<P: Platform> Dir<P> {
    /// Returns the directory.
    pub fn inode(&self) -> &Arc<Inode<P>> {
        &self.inode
    }

    /// Returns the position: what telldir(3) does.
    pub fn position(&self) -> DirCookie {
        self.position.cookie()
    }

    /// Goes to a position that an entry of this directory named, or to
    /// [`DirCookie::START`], where the directory is read afresh.
    pub fn seek(&mut self, to: DirCookie) {
        let to = Position::at(to);
        if to == self.position && to != Position::Start {
            return;
        }
        self.position = to;
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
        if self.position == Position::Start {
            let ino = self.inode.last_attr().ino;
            if !each(DirEntry {
                name: b".",
                ino,
                file_type: dir,
                next: BEHIND_DOT,
            }) {
                return Ok(false);
            }
            self.position = Position::BehindDot;
        }
        if self.position == Position::BehindDot {
            let ino = self.inode.parent().last_attr().ino;
            if !each(DirEntry {
                name: b"..",
                ino,
                file_type: dir,
                next: BEHIND_DOTDOT,
            }) {
                return Ok(false);
            }
            self.position = Position::Server(DirCookie::START);
        }
        Ok(true)
    }

    /// The position as the server counts it.
    pub(super) fn server_cookie(&self) -> DirCookie {
        match self.position {
            Position::Start | Position::BehindDot => DirCookie::START,
            Position::Server(cookie) => cookie,
        }
    }

    fn choose_source(&mut self) {
        let Some(cache) = self.inode.cached_dir() else {
            self.source = Source::Server;
            if self.server_cookie() == DirCookie::START {
                self.gathered = Some(Gathered::new(self.inode.names_version()));
            }
            return;
        };
        let wanted = self.server_cookie();
        if wanted != DirCookie::START {
            match cache.find(wanted) {
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
            self.position = Position::Server(record.next);
        }
        Ok(true)
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
        self.position = Position::Server(next);
        Ok(true)
    }
}
