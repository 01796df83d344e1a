//! Making files, directories and links.

use alloc::sync::Arc;

use super::attr::Stale;
use super::filesystem::Asked;
use super::handle::{Handle, Opened};
use super::{File, Inode};
use crate::conn::Class;
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::{FileLabel, NewFile, Platform};
use crate::wire::{
    Create, Entry, Extensions, FileType, InitFlags, Link, Mkdir, Mknod, Mode, Name, Opcode,
    OpenFlags, Rdev, Request, SecurityContext, Symlink, Target, Tmpfile, XATTR_VALUE_MAX,
    XattrName,
};

impl<P: Platform> Inode<P> {
    /// Makes a regular file and opens it. Blocks.
    ///
    /// Always exclusive: the server might open an existing file with more rights
    /// than the caller has. Who does not mind an existing file looks it up first,
    /// and again on EEXIST.
    ///
    /// # Errors
    ///
    /// EEXIST, EACCES, ENOTDIR, EROFS, and the server's.
    pub fn create(
        self: &Arc<Self>,
        name: &[u8],
        flags: OpenFlags,
        permissions: u32,
    ) -> Result<Arc<File<P>>> {
        let name = self.new_name(name)?;
        let fs = &self.fs;
        let (permissions, umask) = self.masked(permissions);
        let mode = Mode::new(FileType::Regular, permissions).bits();
        let label = self.label(name, mode);
        let request = Create {
            parent: self.node,
            name,
            flags: fs
                .lazily(flags | OpenFlags::CREAT | OpenFlags::EXCL)
                .for_create()
                .difference(OpenFlags::TRUNC),
            mode,
            umask,
            set_ids: crate::wire::SetIds::Keep,
            extensions: self.extensions(label.as_ref())?,
        };
        let asked = fs.ask_now();
        let version = self.names_version();
        match fs.lacking.unless(Opcode::Create, || fs.conn.ask(&request)) {
            Some(Ok(created)) => {
                let inode = self.adopt(name, &created.entry, asked, version);
                let once = OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::NOCTTY;
                let kept = fs.lazily(flags).difference(once);
                let (node, fh) = (created.entry.node, created.open.fh);
                let inode = inode.inspect_err(|_| fs.conn.release(node, fh, kept))?;
                if inode.file_type() != FileType::Regular {
                    fs.conn.release(node, fh, kept);
                    return Err(Error::protocol());
                }
                let handle = Handle::new(inode, fh, kept, created.open.flags, Opened::File);
                handle.inode.made_here();
                Ok(File::new(handle, flags))
            }
            Some(Err(error)) => Err(self.creation_failed(name, error)),
            None => {
                let inode = self.mknod_named(
                    name,
                    Mode::new(FileType::Regular, permissions),
                    Rdev(0),
                    umask,
                )?;
                inode.open_unchecked(flags.difference(OpenFlags::TRUNC))
            }
        }
    }

    /// Makes a regular file without a name and opens it. Blocks.
    ///
    /// # Errors
    ///
    /// EOPNOTSUPP where the server cannot, and as [`create`](Self::create).
    pub fn tmpfile(self: &Arc<Self>, flags: OpenFlags, permissions: u32) -> Result<Arc<File<P>>> {
        self.may_create()?;
        if !flags.writable() {
            return Err(Error::caller(Errno::EINVAL));
        }
        let fs = &self.fs;
        let (permissions, umask) = self.masked(permissions);
        let mode = Mode::new(FileType::Regular, permissions).bits();
        let label = self.label(b"", mode);
        let sent = fs.lazily(flags);
        let request = Tmpfile {
            parent: self.node,
            name: Name::new(b"tmpfile")?,
            flags: sent.for_open(),
            mode,
            umask,
            extensions: self.extensions(label.as_ref())?,
        };
        let asked = fs.ask_now();
        let created = fs
            .lacking
            .unless(Opcode::Tmpfile, || fs.conn.ask(&request))
            .unwrap_or(Err(Error::caller(Errno::EOPNOTSUPP)))?;
        let (node, fh) = (created.entry.node, created.open.fh);
        let release = |_: &Error| fs.conn.release(node, fh, sent);
        let inode = fs
            .accept(&created.entry, asked, self.device(), None)
            .inspect_err(release)?;
        if inode.file_type() != FileType::Regular {
            let error = Error::protocol();
            release(&error);
            return Err(error);
        }
        Ok(File::new(
            Handle::new(inode, fh, sent, created.open.flags, Opened::File),
            flags,
        ))
    }

    /// Makes a directory. Blocks.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); EMLINK.
    pub fn mkdir(self: &Arc<Self>, name: &[u8], permissions: u32) -> Result<Arc<Self>> {
        let name = self.new_name(name)?;
        let (mode, umask) = self.masked(permissions);
        let label = self.label(name, Mode::new(FileType::Directory, mode).bits());
        let request = Mkdir {
            parent: self.node,
            name,
            mode,
            umask,
            extensions: self.extensions(label.as_ref())?,
        };
        self.make(name, FileType::Directory, &request)
    }

    /// Makes a file of any type but directory and symbolic link. Blocks.
    ///
    /// # Errors
    ///
    /// EPERM for device nodes without the capability, EINVAL for a directory or
    /// symbolic link, and as [`create`](Self::create).
    pub fn mknod(self: &Arc<Self>, name: &[u8], mode: Mode, rdev: Rdev) -> Result<Arc<Self>> {
        use crate::platform::Capabilities;
        let name = self.new_name(name)?;
        match mode.file_type() {
            FileType::Directory | FileType::Symlink => return Err(Error::caller(Errno::EINVAL)),
            FileType::CharDevice | FileType::BlockDevice
                if !self.fs.caller().capabilities.contains(Capabilities::MKNOD) =>
            {
                return Err(self.not_made(name.as_bytes(), Error::caller(Errno::EPERM)));
            }
            _ => {}
        }
        let (permissions, umask) = self.masked(mode.permissions());
        self.mknod_named(name, mode.with_permissions(permissions), rdev, umask)
    }

    fn mknod_named(
        self: &Arc<Self>,
        name: &Name,
        mode: Mode,
        rdev: Rdev,
        umask: u32,
    ) -> Result<Arc<Self>> {
        let label = self.label(name, mode.bits());
        let request = Mknod {
            parent: self.node,
            name,
            mode,
            rdev,
            umask,
            extensions: self.extensions(label.as_ref())?,
        };
        self.make(name, mode.file_type(), &request)
    }

    /// Makes a symbolic link to `target`, which may be any bytes without NUL.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// ENOENT for an empty target, ENAMETOOLONG, and as [`create`](Self::create).
    pub fn symlink(self: &Arc<Self>, name: &[u8], target: &[u8]) -> Result<Arc<Self>> {
        let name = self.new_name(name)?;
        let target = link_target(target)?;
        let label = self.label(name, Mode::new(FileType::Symlink, 0o777).bits());
        let request = Symlink {
            parent: self.node,
            name,
            target,
            extensions: self.extensions(label.as_ref())?,
        };
        self.make(name, FileType::Symlink, &request)
    }

    /// Gives `inode` one more name in this directory. Blocks.
    ///
    /// # Errors
    ///
    /// EPERM for a directory or where the server has no links, EXDEV for another
    /// file system, EMLINK, and as [`create`](Self::create).
    pub fn link(self: &Arc<Self>, name: &[u8], inode: &Arc<Self>) -> Result<()> {
        let name = self.new_name(name)?;
        inode.check()?;
        if inode.is_dir() {
            return Err(Error::caller(Errno::EPERM));
        }
        if !Arc::ptr_eq(&self.fs, &inode.fs) || self.device() != inode.device() {
            return Err(Error::caller(Errno::EXDEV));
        }
        let request = Link {
            node: inode.node,
            new_parent: self.node,
            new_name: name,
        };
        let asked = self.fs.ask_now();
        let version = self.names_version();
        let reply = self
            .fs
            .lacking
            .unless(Opcode::Link, || self.fs.conn.ask(&request))
            .unwrap_or(Err(Error::caller(Errno::EPERM)));
        let entry = reply.map_err(|error| self.creation_failed(name, error))?;
        // The reply counts a lookup of an inode that we have.
        let linked = self.adopt(name, &entry, asked, version)?;
        if !Arc::ptr_eq(&linked, inode) {
            inode.attr_changed(Stale::LINKED);
        }
        Ok(())
    }

    /// Checks that the caller may make `name` here. Who may not is told first if
    /// it is there already.
    fn new_name<'a>(self: &Arc<Self>, name: &'a [u8]) -> Result<&'a Name> {
        self.check_dir()?;
        self.check_alive()?;
        let checked = self.name(name)?;
        let Err(error) = self.may_create() else {
            return Ok(checked);
        };
        if !matches!(error.errno(), Errno::EACCES | Errno::EROFS) {
            return Err(error);
        }
        Err(self.not_made(name, error))
    }

    /// Returns why a name is not made here: `error`, unless it is there already or
    /// cannot be looked up, which comes first.
    fn not_made(self: &Arc<Self>, name: &[u8], error: Error) -> Error {
        match self.lookup(name) {
            Ok(_) => Error::caller(Errno::EEXIST),
            Err(lookup) if lookup.errno() == Errno::ENOENT => error,
            Err(lookup) => lookup,
        }
    }

    /// Sends a request that makes a name and takes the new inode.
    fn make<R: Request<Reply = Entry>>(
        self: &Arc<Self>,
        name: &Name,
        kind: FileType,
        request: &R,
    ) -> Result<Arc<Self>> {
        let asked = self.fs.ask_now();
        let version = self.names_version();
        let reply = self.fs.conn.call(request, Data::None, Class::Normal);
        let entry = reply.map_err(|error| self.creation_failed(name, error))?;
        let inode = self.adopt(name, &entry, asked, version)?;
        if inode.file_type() == kind {
            Ok(inode)
        } else {
            Err(Error::protocol())
        }
    }

    /// Takes the inode of a name that was just made here. `version` is that of
    /// the names when it was asked for.
    fn adopt(
        self: &Arc<Self>,
        name: &Name,
        entry: &Entry,
        asked: Asked,
        version: u32,
    ) -> Result<Arc<Self>> {
        let before = self.names_changed();
        let place = self.place_of(name);
        let inode = self
            .fs
            .accept(entry, asked, self.device(), Some(&place))
            .inspect_err(|_| {
                self.fs.forget_name(self, name);
            })?;
        if before == version {
            let ttl = self.fs.options.cache.ttl(entry.entry_valid);
            self.fs
                .remember(place, Some(inode.clone()), ttl, before.wrapping_add(1));
        } else {
            // Another change came between: which was the last?
            self.fs.forget_name(self, name);
        }
        Ok(inode)
    }

    /// After a failure what the name stands for is not known any more.
    fn creation_failed(&self, name: &Name, error: Error) -> Error {
        if error.errno() == Errno::EEXIST || error.origin() != crate::error::Origin::Server {
            self.fs.forget_name(self, name);
        }
        self.note_stale(error);
        error
    }

    /// Returns the permissions to ask for, and the umask to send: who applies it
    /// was settled by INIT.
    fn masked(&self, permissions: u32) -> (u32, u32) {
        let umask = self.fs.caller().umask & 0o777;
        let permissions = permissions & 0o7777;
        if self.fs.conn.limits().has(InitFlags::DONT_MASK) {
            (permissions, umask)
        } else {
            (permissions & !umask, umask)
        }
    }

    /// Asks the platform for the label of a new file, where the server takes one.
    fn label(&self, name: &[u8], mode: u32) -> Option<FileLabel> {
        let takes = self.fs.conn.limits().has(InitFlags::SECURITY_CTX);
        takes.then(|| {
            self.fs.platform().new_file_label(&NewFile {
                directory: self.last_attr().ino,
                name,
                mode,
            })
        })?
    }

    /// Tells the server the label of the new file, and the one supplementary group
    /// that can matter: that of the directory, if the caller is a member and has
    /// another primary one. What was not negotiated is not sent.
    ///
    /// # Errors
    ///
    /// EINVAL for a label that is no extended attribute.
    fn extensions<'a>(&self, label: Option<&'a FileLabel>) -> Result<Extensions<'a>> {
        let context = match label {
            Some(FileLabel { name, value }) if value.len() <= XATTR_VALUE_MAX => {
                let name = XattrName::new(name)?;
                Some(SecurityContext { name, value })
            }
            Some(_) => return Err(Error::caller(Errno::EINVAL)),
            None => None,
        };
        let gid = self.last_attr().gid;
        let member = || self.fs.caller().gid != gid && self.fs.platform().in_group(gid);
        let takes_group = self.fs.conn.limits().has(InitFlags::CREATE_SUPP_GROUP);
        let group = (takes_group && member()).then_some(gid);
        Ok(Extensions { context, group })
    }
}

/// Checks what a symbolic link is to point to.
pub(super) fn link_target(target: &[u8]) -> Result<&Target> {
    Target::new(target).map_err(|error| match error {
        crate::wire::NameError::Empty => Error::caller(Errno::ENOENT),
        error => error.into(),
    })
}
