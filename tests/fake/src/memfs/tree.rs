//! The tree by path, for tests: setting up, changing behind the client's back,
//! looking at the outcome.
//!
//! Paths start at the root with or without a slash and follow no links.

use super::{Body, Ino, MemFs, New, ROOT, Stat};
use crate::abi::{Errno, fail};

/// Each method fails with the errno that Linux would give.
impl MemFs {
    /// Finds the inode of a path.
    pub fn find(&self, path: &str) -> Result<Ino, Errno> {
        let mut parts = path.split('/').filter(|part| !part.is_empty());
        parts.try_fold(ROOT, |dir, name| self.lookup(dir, name.as_bytes()))
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(Ino, &'a [u8]), Errno> {
        let path = path.trim_matches('/');
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() {
            return fail(libc::EINVAL);
        }
        Ok((self.find(parent)?, name.as_bytes()))
    }

    fn add(&mut self, path: &str, mode: u32, rdev: u32, target: &[u8]) -> Result<Ino, Errno> {
        let (parent, name) = self.parent(path)?;
        self.create(
            parent,
            name,
            &New {
                mode,
                uid: 0,
                gid: 0,
                rdev,
                target,
            },
        )
    }

    /// Makes a file of mode 0644 with this content, or replaces the content.
    pub fn file(&mut self, path: &str, content: impl AsRef<[u8]>) -> Result<Ino, Errno> {
        let ino = match self.find(path) {
            Err(Errno(libc::ENOENT)) => self.add(path, libc::S_IFREG | 0o644, 0, &[])?,
            found => found?,
        };
        self.edit(ino, |file, disk| {
            file.resize(disk, 0)?;
            file.write(disk, 0, content.as_ref())
        })?;
        Ok(ino)
    }

    /// Makes a file of this size that is one hole.
    pub fn sparse(&mut self, path: &str, size: u64) -> Result<Ino, Errno> {
        let ino = self.file(path, "")?;
        self.edit(ino, |file, disk| file.resize(disk, size))?;
        Ok(ino)
    }

    /// Makes a directory of mode 0755.
    pub fn mkdir(&mut self, path: &str) -> Result<Ino, Errno> {
        self.add(path, libc::S_IFDIR | 0o755, 0, &[])
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<Ino, Errno> {
        self.add(path, libc::S_IFLNK | 0o777, 0, target.as_bytes())
    }

    /// Makes a device node, pipe or socket; `mode` has the type.
    pub fn mknod(&mut self, path: &str, mode: u32, rdev: u32) -> Result<Ino, Errno> {
        self.add(path, mode, rdev, &[])
    }

    /// Makes a directory that is the root of another file system. Its inode
    /// numbers start at 1 again.
    pub fn submount(&mut self, path: &str) -> Result<Ino, Errno> {
        let ino = self.mkdir(path)?;
        self.split(ino)?;
        Ok(ino)
    }

    /// Makes `count` empty files `prefix00000`, `prefix00001`, … in a directory.
    pub fn fill(&mut self, dir: &str, prefix: &str, count: usize) -> Result<(), Errno> {
        let parent = self.find(dir)?;
        for n in 0..count {
            let new = New {
                mode: libc::S_IFREG | 0o644,
                uid: 0,
                gid: 0,
                rdev: 0,
                target: &[],
            };
            self.create(parent, format!("{prefix}{n:05}").as_bytes(), &new)?;
        }
        Ok(())
    }

    /// Gives a file one more name.
    pub fn hard_link(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        let (parent, name) = self.parent(new)?;
        let ino = self.find(old)?;
        self.link(ino, parent, name)
    }

    /// Removes a name: of a directory, only an empty one.
    pub fn remove(&mut self, path: &str) -> Result<(), Errno> {
        let (parent, name) = self.parent(path)?;
        match self.unlink(parent, name) {
            Err(Errno(libc::EISDIR)) => self.rmdir(parent, name),
            done => done,
        }
    }

    /// Moves a name, replacing what is there.
    pub fn move_to(&mut self, old: &str, new: &str) -> Result<(), Errno> {
        self.rename(self.parent(old)?, self.parent(new)?, 0)
    }

    /// Replaces the permission bits.
    pub fn chmod(&mut self, path: &str, mode: u32) -> Result<(), Errno> {
        let ino = self.find(path)?;
        let stat = &mut self.inode_mut(ino)?.stat;
        stat.mode = stat.mode & libc::S_IFMT | mode & 0o7777;
        self.changed(ino);
        Ok(())
    }

    /// Replaces owner and group.
    pub fn chown(&mut self, path: &str, uid: u32, gid: u32) -> Result<(), Errno> {
        let ino = self.find(path)?;
        let stat = &mut self.inode_mut(ino)?.stat;
        (stat.uid, stat.gid) = (uid, gid);
        self.changed(ino);
        Ok(())
    }

    /// Changes the size of a file.
    pub fn truncate(&mut self, path: &str, size: u64) -> Result<(), Errno> {
        let ino = self.find(path)?;
        self.edit(ino, |file, disk| file.resize(disk, size))
    }

    /// Overwrites a part of a file.
    pub fn write_at(&mut self, path: &str, offset: u64, data: &[u8]) -> Result<(), Errno> {
        let ino = self.find(path)?;
        self.edit(ino, |file, disk| file.write(disk, offset, data))
    }

    /// Marks a file for the DAX window (`attr.flags`), or not.
    pub fn dax(&mut self, path: &str, on: bool) -> Result<(), Errno> {
        let ino = self.find(path)?;
        self.set_dax(ino, on)
    }

    /// Sets an extended attribute.
    pub fn setxattr(&mut self, path: &str, name: &str, value: &[u8]) -> Result<(), Errno> {
        let ino = self.find(path)?;
        self.inode_mut(ino)?
            .xattrs
            .insert(name.into(), value.to_vec());
        self.changed(ino);
        Ok(())
    }

    /// Returns the value of an extended attribute.
    pub fn getxattr(&self, path: &str, name: &str) -> Result<Vec<u8>, Errno> {
        let inode = self.inode(self.find(path)?)?;
        inode
            .xattrs
            .get(name.as_bytes())
            .cloned()
            .ok_or(Errno(libc::ENODATA))
    }

    /// Returns the whole content of a file.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        self.read_at(path, 0, u64::MAX)
    }

    /// Returns a part of a file, shorter at its end.
    pub fn read_at(&self, path: &str, offset: u64, len: u64) -> Result<Vec<u8>, Errno> {
        self.content(self.find(path)?)?
            .read(&self.disk, offset, len)
    }

    /// Returns the target of a symbolic link.
    pub fn readlink(&self, path: &str) -> Result<Vec<u8>, Errno> {
        match &self.inode(self.find(path)?)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => fail(libc::EINVAL),
        }
    }

    /// Returns the attributes of what the path names.
    pub fn stat(&self, path: &str) -> Result<Stat, Errno> {
        self.getattr(self.find(path)?)
    }

    /// Returns the names in a directory, sorted.
    pub fn names(&self, path: &str) -> Result<Vec<String>, Errno> {
        let names = self.dir(self.find(path)?)?.names();
        Ok(names
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect())
    }

    /// Lists every path below the root with its attributes, sorted: what a test
    /// compares with what the client sees.
    pub fn manifest(&self) -> Vec<(String, Stat)> {
        let mut out = Vec::new();
        let mut todo = vec![(String::new(), ROOT)];
        while let Some((path, ino)) = todo.pop() {
            let Ok(dir) = self.dir(ino) else { continue };
            for name in dir.names() {
                let path = format!("{path}/{}", String::from_utf8_lossy(name));
                if let Some(ino) = dir.get(name)
                    && let Ok(stat) = self.getattr(ino)
                {
                    out.push((path.clone(), stat));
                    todo.push((path, ino));
                }
            }
        }
        out.sort_by(|a, b| a.0.cmp(&b.0));
        out
    }
}
