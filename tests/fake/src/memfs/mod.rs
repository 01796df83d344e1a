//! The file system behind the server: an in-memory tree with Linux semantics.
//!
//! It checks what the kernel of a host would check apart from permissions,
//! which a virtio-fs client checks itself (protocol.md 4.13), and is mounted
//! `noatime`. Times come from the device's clock, so a run repeats exactly.
//!
//! Tests set a tree up and look at it with the methods of `tree.rs`, which take
//! paths; the server works with inode numbers.

mod rename;
mod tree;

use core::time::Duration;
use std::collections::BTreeMap;

use crate::abi::{ATTR_DAX, Errno, fail};
use crate::content::Content;
use crate::dir::Dir;
use crate::disk::Disk;

/// Longest name of an entry.
pub const NAME_MAX: usize = 255;

/// Number of an inode in the whole tree. Not what `st_ino` says: see [`Stat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

/// The attributes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Number within the file system `dev`; two file systems share numbers.
    pub ino: u64,
    /// The file system: 0 for the top one, counted up for each submount.
    pub dev: u32,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Length in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Last read, since 1970. Never changes by itself.
    pub atime: Duration,
    /// Last change of the content.
    pub mtime: Duration,
    /// Last change of the attributes.
    pub ctime: Duration,
    /// Creation.
    pub btime: Duration,
    /// `attr.flags`, without `SUBMOUNT`.
    pub flags: u32,
    /// Root of a submount.
    pub submount: bool,
}

#[derive(Debug)]
pub(crate) enum Body {
    File(Content),
    Dir(Dir),
    Symlink(Vec<u8>),
    Special,
}

#[derive(Debug)]
pub(crate) struct Inode {
    pub(crate) stat: Stat,
    pub(crate) body: Body,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// FS_IOC_GETFLAGS.
    pub(crate) ioctl_flags: u32,
    /// Uses by the server that keep it alive without a name.
    pins: usize,
    /// Made without a name: LINK may give it one.
    nameless: bool,
}

/// What a new file is made of.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) rdev: u32,
    pub(crate) target: &'a [u8],
}

/// An in-memory tree with Linux semantics, to be set up and looked at by path.
///
/// It checks what the kernel of a host would check apart from permissions, which a
/// virtio-fs client checks itself, and is mounted `noatime`. Times come from the
/// device's clock.
#[derive(Debug)]
pub struct MemFs {
    inodes: BTreeMap<Ino, Inode>,
    pub(crate) disk: Disk,
    next_ino: u64,
    /// Last inode number given out in each file system.
    counters: Vec<u64>,
    now: Duration,
}

/// The root directory.
pub const ROOT: Ino = Ino(1);

impl Default for MemFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemFs {
    /// Makes a tree of one empty directory of mode 0755, owned by root.
    ///
    /// # Panics
    ///
    /// If the host gives no memory file.
    pub fn new() -> Self {
        let disk = Disk::new().expect("host makes a memfd");
        let now = Duration::from_secs(1_700_000_000);
        let mut fs = Self {
            inodes: BTreeMap::new(),
            disk,
            next_ino: 1,
            counters: vec![0],
            now,
        };
        let new = New {
            mode: libc::S_IFDIR | 0o755,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: &[],
        };
        let root = fs.add_inode(&new, 0, ROOT);
        fs.link_count(root, 2);
        fs
    }

    /// Sets the time that changes from now on are stamped with.
    pub(crate) fn set_now(&mut self, now: Duration) {
        self.now = now;
    }

    pub(crate) fn inode(&self, ino: Ino) -> Result<&Inode, Errno> {
        self.inodes.get(&ino).ok_or(Errno(libc::ESTALE))
    }

    pub(crate) fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&ino).ok_or(Errno(libc::ESTALE))
    }

    pub(crate) fn dir(&self, ino: Ino) -> Result<&Dir, Errno> {
        match &self.inode(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => fail(libc::ENOTDIR),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> Result<&mut Dir, Errno> {
        match &mut self.inode_mut(ino)?.body {
            Body::Dir(dir) => Ok(dir),
            _ => fail(libc::ENOTDIR),
        }
    }

    pub(crate) fn content(&self, ino: Ino) -> Result<&Content, Errno> {
        match &self.inode(ino)?.body {
            Body::File(content) => Ok(content),
            Body::Dir(_) => fail(libc::EISDIR),
            _ => fail(libc::EINVAL),
        }
    }

    /// Runs `edit` on a file's content and the disk, and stamps the change.
    pub(crate) fn edit<T>(
        &mut self,
        ino: Ino,
        edit: impl FnOnce(&mut Content, &mut Disk) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let now = self.now;
        let inode = self.inodes.get_mut(&ino).ok_or(Errno(libc::ESTALE))?;
        match &mut inode.body {
            Body::File(content) => {
                let value = edit(content, &mut self.disk)?;
                inode.stat.mtime = now;
                inode.stat.ctime = now;
                Ok(value)
            }
            Body::Dir(_) => fail(libc::EISDIR),
            _ => fail(libc::EINVAL),
        }
    }

    /// Returns the attributes.
    pub(crate) fn getattr(&self, ino: Ino) -> Result<Stat, Errno> {
        let inode = self.inode(ino)?;
        let mut stat = inode.stat;
        match &inode.body {
            Body::File(content) => {
                stat.size = content.size();
                stat.blocks = content.blocks(&self.disk)?;
            }
            Body::Dir(_) => stat.size = 4096,
            Body::Symlink(target) => stat.size = target.len() as u64,
            Body::Special => (),
        }
        Ok(stat)
    }

    /// Looks a name up, `.` and `..` included.
    pub(crate) fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Ino, Errno> {
        let dir = self.dir(parent)?;
        match name {
            b"." => Ok(parent),
            b".." => Ok(dir.parent),
            _ if name.len() > NAME_MAX => fail(libc::ENAMETOOLONG),
            _ => dir.get(name).ok_or(Errno(libc::ENOENT)),
        }
    }

    /// Makes a file of any type under a name that is free.
    pub(crate) fn create(&mut self, parent: Ino, name: &[u8], new: &New) -> Result<Ino, Errno> {
        self.check_free(parent, name)?;
        let ino = self.make(parent, new)?;
        let is_dir = matches!(self.inode(ino)?.body, Body::Dir(_));
        self.link_count(ino, if is_dir { 2 } else { 1 });
        self.dir_mut(parent)?.insert(name, ino);
        if is_dir {
            self.link_count(parent, 1);
        }
        self.touch(parent);
        Ok(ino)
    }

    /// Makes a regular file without a name.
    pub(crate) fn create_nameless(&mut self, parent: Ino, new: &New) -> Result<Ino, Errno> {
        self.dir(parent)?;
        let ino = self.make(parent, new)?;
        self.inode_mut(ino)?.nameless = true;
        Ok(ino)
    }

    fn make(&mut self, parent: Ino, new: &New) -> Result<Ino, Errno> {
        let of = self.inode(parent)?.stat;
        let mut new = New { ..*new };
        if of.mode & libc::S_ISGID != 0 {
            new.gid = of.gid;
            if new.mode & libc::S_IFMT == libc::S_IFDIR {
                new.mode |= libc::S_ISGID;
            }
        }
        Ok(self.add_inode(&new, of.dev, parent))
    }

    fn add_inode(&mut self, new: &New, dev: u32, parent: Ino) -> Ino {
        let ino = Ino(self.next_ino);
        self.next_ino += 1;
        self.counters[dev as usize] += 1;
        let body = match new.mode & libc::S_IFMT {
            libc::S_IFREG => Body::File(Content::default()),
            libc::S_IFDIR => Body::Dir(Dir::new(ino, parent)),
            libc::S_IFLNK => Body::Symlink(new.target.to_vec()),
            _ => Body::Special,
        };
        let stat = Stat {
            ino: self.counters[dev as usize],
            dev,
            mode: new.mode,
            nlink: 0,
            uid: new.uid,
            gid: new.gid,
            rdev: new.rdev,
            size: 0,
            blocks: 0,
            atime: self.now,
            mtime: self.now,
            ctime: self.now,
            btime: self.now,
            flags: 0,
            submount: false,
        };
        let inode = Inode {
            stat,
            body,
            xattrs: BTreeMap::new(),
            ioctl_flags: 0,
            pins: 0,
            nameless: false,
        };
        self.inodes.insert(ino, inode);
        ino
    }

    fn check_free(&self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        match self.lookup(parent, name) {
            Ok(_) => fail(libc::EEXIST),
            Err(Errno(libc::ENOENT)) if self.inode(parent)?.stat.nlink == 0 => fail(libc::ENOENT),
            Err(Errno(libc::ENOENT)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives an inode one more name.
    pub(crate) fn link(&mut self, ino: Ino, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let inode = self.inode(ino)?;
        if matches!(inode.body, Body::Dir(_)) {
            return fail(libc::EPERM);
        }
        if inode.stat.nlink == 0 && !inode.nameless {
            return fail(libc::ENOENT);
        }
        if inode.stat.dev != self.inode(parent)?.stat.dev {
            return fail(libc::EXDEV);
        }
        self.check_free(parent, name)?;
        self.inode_mut(ino)?.nameless = false;
        self.link_count(ino, 1);
        self.dir_mut(parent)?.insert(name, ino);
        self.touch(parent);
        Ok(())
    }

    /// Removes a name that is not a directory's.
    pub(crate) fn unlink(&mut self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        let ino = self.lookup(parent, name)?;
        if matches!(self.inode(ino)?.body, Body::Dir(_)) {
            return fail(libc::EISDIR);
        }
        self.dir_mut(parent)?.remove(name);
        self.touch(parent);
        self.drop_name(ino)
    }

    /// Removes an empty directory.
    pub(crate) fn rmdir(&mut self, parent: Ino, name: &[u8]) -> Result<(), Errno> {
        match name {
            b"." => return fail(libc::EINVAL),
            b".." => return fail(libc::ENOTEMPTY),
            _ => (),
        }
        let ino = self.lookup(parent, name)?;
        if !self.dir(ino)?.is_empty() {
            return fail(libc::ENOTEMPTY);
        }
        if self.inode(ino)?.stat.submount {
            return fail(libc::EBUSY);
        }
        self.dir_mut(parent)?.remove(name);
        self.touch(parent);
        self.link_count(parent, -1);
        self.drop_name(ino)
    }

    fn drop_name(&mut self, ino: Ino) -> Result<(), Errno> {
        let is_dir = matches!(self.inode(ino)?.body, Body::Dir(_));
        self.link_count(ino, if is_dir { -2 } else { -1 });
        self.reap(ino)
    }

    fn link_count(&mut self, ino: Ino, change: i32) {
        let now = self.now;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.stat.nlink = inode.stat.nlink.saturating_add_signed(change);
            inode.stat.ctime = now;
        }
    }

    /// Stamps a change of a directory's entries.
    fn touch(&mut self, ino: Ino) {
        let now = self.now;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.stat.mtime = now;
            inode.stat.ctime = now;
        }
    }

    /// Stamps a change of attributes.
    pub(crate) fn changed(&mut self, ino: Ino) {
        let now = self.now;
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.stat.ctime = now;
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Keeps an inode alive without a name.
    pub(crate) fn pin(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.pins += 1;
        }
    }

    /// Ends one [`pin`](Self::pin).
    pub(crate) fn unpin(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.pins -= 1;
            // The disk refused to free a chunk: it stays allocated, no harm.
            let _ = self.reap(ino);
        }
    }

    fn reap(&mut self, ino: Ino) -> Result<(), Errno> {
        if self
            .inodes
            .get(&ino)
            .is_some_and(|i| i.stat.nlink == 0 && i.pins == 0)
            && let Some(Inode {
                body: Body::File(mut content),
                ..
            }) = self.inodes.remove(&ino)
        {
            content.clear(&mut self.disk)?;
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.inodes.len() as u64
    }

    pub(crate) fn set_dax(&mut self, ino: Ino, on: bool) -> Result<(), Errno> {
        let flags = &mut self.inode_mut(ino)?.stat.flags;
        *flags = if on {
            *flags | ATTR_DAX
        } else {
            *flags & !ATTR_DAX
        };
        Ok(())
    }

    /// Makes a directory the root of another file system.
    pub(crate) fn split(&mut self, ino: Ino) -> Result<(), Errno> {
        if !self.dir(ino)?.is_empty() {
            return fail(libc::ENOTEMPTY);
        }
        let dev = self.counters.len() as u32;
        // Numbers start over, so a client that confuses devices meets twins.
        self.counters.push(1);
        let stat = &mut self.inode_mut(ino)?.stat;
        (stat.dev, stat.ino, stat.submount) = (dev, 1, true);
        Ok(())
    }
}
