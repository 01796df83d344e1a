//! Path walk, as path_resolution(7) has it.
//!
//! Limits: a path has up to [`PATH_MAX`] bytes, a walk follows up to [`LINK_MAX`]
//! symbolic links, a name is as long as the connection allows. Errors: ENOENT
//! (also for an empty path), ENOTDIR, EACCES, ELOOP, ENAMETOOLONG.
//!
//! No request is sent for a part of the path that is known and valid, and none
//! of the steps allocates but for a symbolic link.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Inode;
use super::perm::Access;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::FileType;

/// The longest path in bytes.
pub const PATH_MAX: usize = 4096;
/// Symbolic links that one walk follows.
pub const LINK_MAX: u32 = 40;

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

/// A walk under way.
pub(super) struct Walk<'p, P: Platform> {
    root: Arc<Inode<P>>,
    dir: Arc<Inode<P>>,
    /// What is still to go: the path, and the rests of links on top of it.
    rest: Part<'p>,
    below: Vec<Part<'p>>,
    links: u32,
    trust: Trust,
}

impl<'p, P: Platform> Walk<'p, P> {
    /// Starts at `start`, or at `root` if the path begins with a slash.
    pub(super) fn new(
        root: &Arc<Inode<P>>,
        start: &Arc<Inode<P>>,
        path: &'p [u8],
        trust: Trust,
    ) -> Result<Self> {
        if path.is_empty() {
            return Err(Error::caller(Errno::ENOENT));
        }
        if path.len() >= PATH_MAX {
            return Err(Error::caller(Errno::ENAMETOOLONG));
        }
        let dir = if path[0] == b'/' { root } else { start };
        let rest = Part {
            text: Text::Path(path),
            start: 0,
            end: path.len(),
        };
        Ok(Self {
            root: root.clone(),
            dir: dir.clone(),
            rest,
            below: Vec::new(),
            links: 0,
            trust,
        })
    }

    /// Walks to the end. Blocks where it must ask.
    pub(super) fn find(mut self, last: Last) -> Result<Arc<Inode<P>>> {
        loop {
            let Some(part) = self.next_part() else {
                return Ok(self.dir);
            };
            let (ends, slash) = (self.at_end(), self.slash_follows());
            let follow = !ends || slash || last == Last::Follow;
            let inode = self.step(part.bytes())?;
            if inode.file_type() == FileType::Symlink && follow {
                self.follow(&inode)?;
                continue;
            }
            if ends && !slash {
                return Ok(inode);
            }
            inode.check_dir()?;
            self.dir = inode;
        }
    }

    /// Walks to the directory of the last part.
    pub(super) fn parent(mut self) -> Result<Parent<'p, P>> {
        loop {
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
            let inode = self.step(part.bytes())?;
            if inode.file_type() == FileType::Symlink {
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
        root: &Arc<Inode<P>>,
        trust: Trust,
    ) -> Result<Parent<'p, P>> {
        let rest = Part {
            text: Text::Path(b""),
            start: 0,
            end: 0,
        };
        let mut walk = Self {
            root: root.clone(),
            dir: parent.dir,
            rest,
            below: Vec::new(),
            links: parent.links,
            trust,
        };
        walk.follow(link)?;
        walk.parent()
    }

    /// Takes one part in the current directory.
    fn step(&mut self, name: &[u8]) -> Result<Arc<Inode<P>>> {
        self.dir.check_dir()?;
        self.dir.permission(Access::EXEC)?;
        match name {
            b"." => Ok(self.dir.clone()),
            b".." if Arc::ptr_eq(&self.dir, &self.root) => Ok(self.dir.clone()),
            b".." => Ok(self.dir.parent()),
            name => {
                let name = self.dir.name(name)?;
                if self.trust == Trust::Nothing {
                    self.dir.fs.dentries.expire(&self.dir, name);
                }
                self.dir.lookup_name(name)
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
            let text = self.rest.text();
            let start = (self.rest.start..self.rest.end).find(|&i| text[i] != b'/');
            if let Some(start) = start {
                let end = (start..self.rest.end)
                    .find(|&i| text[i] == b'/')
                    .unwrap_or(self.rest.end);
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
