//! Path walk, as path_resolution(7) has it.
//!
//! Limits: a path has up to [`PATH_MAX`] bytes, a walk follows up to [`LINK_MAX`]
//! symbolic links, a name is as long as the connection allows. Errors: ENOENT
//! (also for an empty path), ENOTDIR, EACCES, ELOOP, ENAMETOOLONG.
//!
//! No request is sent for a part of the path that is known and valid, and none
//! of the steps allocates.

use alloc::sync::Arc;
use core::ops::Range;

use smallvec::SmallVec;

use super::dentry::Lookup;
use super::filesystem::Asked;
use super::moment::Moment;
use super::perm::Access;
use super::{Inode, Metadata};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;

/// The longest path in bytes.
pub const PATH_MAX: usize = 4096;
/// Symbolic links that one walk follows.
pub const LINK_MAX: u32 = 40;

/// How deep links within links go, each with more path behind it, before a walk allocates.
const NESTED: usize = 3;

/// What to do when the path ends with a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// Go where it points.
    Follow,
    /// Take the link itself, unless a slash follows.
    NoFollow,
}

/// Whether what is known may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// While it is valid.
    Cache,
    /// No: ask for each part, because the server did not know what we knew.
    Nothing,
}

/// Finds the next part of `text` from `at` on, slashes skipped; `None` if there is
/// none.
fn next_part(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = skip_slashes(text, at);
    (start < text.len()).then(|| start..part_end(text, start))
}

/// Returns where the slashes at `at` end.
fn skip_slashes(text: &[u8], at: usize) -> usize {
    let slashes = text[at..].iter().take_while(|&&b| b == b'/').count();
    at + slashes
}

/// Returns where the part that begins at `at` ends.
fn part_end(text: &[u8], at: usize) -> usize {
    let len = text[at..].iter().take_while(|&&b| b != b'/').count();
    at + len
}

/// A path whose last part was not looked up.
pub(super) struct Parent<'p, P: Platform> {
    /// The directory that it is in.
    pub(super) dir: Arc<Inode<P>>,
    last: Part<'p>,
    /// A slash follows: only a directory is meant.
    pub(super) slash: bool,
    links: u32,
}

impl<P: Platform> Parent<'_, P> {
    /// Returns the last part: a name, `.`, `..`, or nothing for the root.
    pub(super) fn name(&self) -> &[u8] {
        self.last.bytes()
    }
}

/// A piece of the path or of a link's target.
#[derive(Clone)]
struct Part<'p> {
    text: Text<'p>,
    start: usize,
    end: usize,
}

#[derive(Clone)]
enum Text<'p> {
    Path(&'p [u8]),
    Target(Arc<[u8]>),
}

impl Part<'_> {
    fn text(&self) -> &[u8] {
        match &self.text {
            Text::Path(path) => path,
            Text::Target(target) => target,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.text()[self.start..self.end]
    }
}

/// Where a walk ended.
pub(super) struct Arrival<P: Platform> {
    pub(super) inode: Arc<Inode<P>>,
    /// When it was asked for, if it was.
    asked: Option<Asked>,
    /// When the walk looked at the clock last.
    now: Moment,
}

impl<P: Platform> Arrival<P> {
    /// Returns the attributes. Blocks if they are neither valid nor came with the
    /// answer that named the inode.
    pub(super) fn metadata(&self) -> Result<Metadata> {
        self.inode.metadata_since(self.asked, self.now)
    }
}

/// A walk under way.
pub(super) struct Walk<'p, P: Platform> {
    root: &'p Arc<Inode<P>>,
    dir: Arc<Inode<P>>,
    /// What is still to go: the path, and the rests of links on top of it.
    rest: Part<'p>,
    below: SmallVec<[Part<'p>; NESTED]>,
    links: u32,
    trust: Trust,
}

impl<'p, P: Platform> Walk<'p, P> {
    /// Starts at `start`, or at `root` if the path begins with a slash.
    pub(super) fn new(
        root: &'p Arc<Inode<P>>,
        start: Arc<Inode<P>>,
        path: &'p [u8],
        trust: Trust,
    ) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::caller(Errno::ENOENT));
        }
        if path.len() >= PATH_MAX {
            return Err(Error::caller(Errno::ENAMETOOLONG));
        }
        let dir = if path[0] == b'/' { root.clone() } else { start };
        let rest = Part {
            text: Text::Path(path),
            start: 0,
            end: path.len(),
        };
        Ok(Self {
            root,
            dir,
            rest,
            below: SmallVec::new(),
            links: 0,
            trust,
        })
    }

    /// Walks to the end. Blocks where it must ask.
    pub(super) fn find(mut self, last: Last) -> Result<Arrival<P>> {
        loop {
            if let Some(arrival) = self.through_cache(Some(last))? {
                return Ok(arrival);
            }
            let Some(part) = self.next_part() else {
                return Ok(Arrival {
                    asked: None,
                    now: self.root.fs.moment(),
                    inode: self.dir,
                });
            };
            let (ends, slash) = (self.at_end(), self.slash_follows());
            let follow = !ends || slash || last == Last::Follow;
            let (inode, asked) = self.step(part.bytes())?;
            if inode.is_link() && follow {
                self.follow(&inode)?;
                continue;
            }
            if ends && !slash {
                return Ok(Arrival {
                    asked,
                    now: inode.fs.moment(),
                    inode,
                });
            }
            inode.check_dir()?;
            self.dir = inode;
        }
    }

    /// Goes on through names that are known, valid, and plainly allowed, with one
    /// look at the clock and at the caller for all of them; stops before anything
    /// else, and before the last part if there is no `last`. Returns where the
    /// path ends if it got there.
    ///
    /// # Locking
    ///
    /// For each part a shard of the dentry cache, shared; no other lock.
    fn through_cache(&mut self, last: Option<Last>) -> Result<Option<Arrival<P>>> {
        if self.trust == Trust::Nothing {
            return Ok(None);
        }
        let fs = &self.root.fs;
        let asker = fs.asker();
        let below_ends = self.below.iter().all(Self::only_slashes);
        let text = &self.rest.text()[..self.rest.end];
        let mut at = skip_slashes(text, self.rest.start);
        let mut hits = 0;
        let arrival = loop {
            let end = part_end(text, at);
            let name = &text[at..end];
            let next = skip_slashes(text, end);
            let ends = next == text.len() && below_ends;
            let slash = end < text.len() || !self.below.is_empty();
            if name.is_empty()
                || ends && last.is_none()
                || matches!(name, b"." | b"..")
                || !self.dir.is_living_dir()
                || !self.dir.surely_searchable(&asker)
            {
                break Ok(None);
            }
            self.dir.advise_plus();
            let inode = match fs.dentries.get(&self.dir, name, asker.now) {
                Lookup::Found(inode) if !inode.is_bad() => inode,
                Lookup::Absent => {
                    fs.counters().negative_hits.add(1);
                    break Err(Error::caller(Errno::ENOENT));
                }
                _ => break Ok(None),
            };
            if ends && !slash && (last == Some(Last::NoFollow) || !inode.is_link()) {
                hits += 1;
                break Ok(Some(Arrival {
                    inode,
                    asked: None,
                    now: asker.now,
                }));
            }
            if !inode.is_dir() {
                break Ok(None);
            }
            hits += 1;
            self.dir = inode;
            at = next;
        };
        self.rest.start = at;
        if hits > 0 {
            fs.counters().dentry_hits.add(hits);
        }
        arrival
    }

    /// Walks to the directory of the last part.
    pub(super) fn parent(mut self) -> Result<Parent<'p, P>> {
        loop {
            self.through_cache(None)?;
            let Some(part) = self.next_part() else {
                let last = Part {
                    text: Text::Path(b""),
                    start: 0,
                    end: 0,
                };
                return Ok(Parent {
                    dir: self.dir,
                    last,
                    slash: true,
                    links: self.links,
                });
            };
            if self.at_end() {
                self.dir.check_dir()?;
                self.dir.permission(Access::EXEC)?;
                let slash = self.slash_follows();
                return Ok(Parent {
                    dir: self.dir,
                    last: part,
                    slash,
                    links: self.links,
                });
            }
            let (inode, _) = self.step(part.bytes())?;
            if inode.is_link() {
                self.follow(&inode)?;
                continue;
            }
            inode.check_dir()?;
            self.dir = inode;
        }
    }

    /// Goes on from a last part that turned out to be a symbolic link.
    pub(super) fn onward(
        parent: Parent<'p, P>,
        link: &Arc<Inode<P>>,
        root: &'p Arc<Inode<P>>,
        trust: Trust,
    ) -> Result<Parent<'p, P>> {
        let rest = Part {
            text: Text::Path(b""),
            start: 0,
            end: 0,
        };
        let mut walk = Self {
            root,
            dir: parent.dir,
            rest,
            below: SmallVec::new(),
            links: parent.links,
            trust,
        };
        walk.follow(link)?;
        walk.parent()
    }

    /// Takes one part in the current directory.
    fn step(&mut self, name: &[u8]) -> Result<(Arc<Inode<P>>, Option<Asked>)> {
        self.dir.check_dir()?;
        self.dir.permission(Access::EXEC)?;
        match name {
            b"." => Ok((self.dir.clone(), None)),
            b".." if Arc::ptr_eq(&self.dir, self.root) => Ok((self.dir.clone(), None)),
            b".." => Ok((self.dir.parent(), None)),
            name => {
                let name = self.dir.name(name)?;
                if self.trust == Trust::Nothing {
                    self.dir.fs.dentries.expire(&self.dir, name);
                }
                self.dir.find_name(name)
            }
        }
    }

    fn follow(&mut self, link: &Arc<Inode<P>>) -> Result<()> {
        self.links += 1;
        if self.links > LINK_MAX {
            return Err(Error::caller(Errno::ELOOP));
        }
        let target = link.read_link()?;
        if target.first() == Some(&b'/') {
            self.dir = self.root.clone();
        }
        let end = target.len();
        let target = Part {
            text: Text::Target(target),
            start: 0,
            end,
        };
        let rest = core::mem::replace(&mut self.rest, target);
        if rest.start < rest.end {
            self.below.push(rest);
        }
        Ok(())
    }

    /// Takes the next part off what is still to go; `None` at the end.
    fn next_part(&mut self) -> Option<Part<'p>> {
        loop {
            let text = &self.rest.text()[..self.rest.end];
            if let Some(Range { start, end }) = next_part(text, self.rest.start) {
                let part = Part {
                    text: self.rest.text.clone(),
                    start,
                    end,
                };
                self.rest.start = end;
                return Some(part);
            }
            self.rest = self.below.pop()?;
        }
    }

    fn only_slashes(part: &Part<'_>) -> bool {
        part.bytes().iter().all(|&b| b == b'/')
    }

    fn at_end(&self) -> bool {
        Self::only_slashes(&self.rest) && self.below.iter().all(Self::only_slashes)
    }

    fn slash_follows(&self) -> bool {
        self.rest.start < self.rest.end || !self.below.is_empty()
    }
}
