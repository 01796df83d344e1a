//! Mounting and unmounting.

use alloc::boxed::Box;
use alloc::sync::Arc;

use super::attr::AttrCache;
use super::{FileSystem, Inode, MountOptions};
use crate::conn::Connection;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{Generation, Getattr, NodeId, Opcode, Statfs, StatfsReply, Syncfs};

/// A mounted file system: its root, and the way to end it.
///
/// One connection carries one mount; directories on other host file systems show
/// as submounts with device numbers of their own. Unmount it with
/// [`unmount`](Self::unmount); a mount that is merely dropped lets go of its
/// names, and the device is reset when the last file is closed.
pub struct Mount<P: Platform> {
    fs: Arc<FileSystem<P>>,
    root: Arc<Inode<P>>,
}

impl<P: Platform> Mount<P> {
    /// Mounts what `conn` leads to. Blocks.
    ///
    /// # Errors
    ///
    /// The server's, to the question for the root's attributes; EIO if it is no
    /// directory.
    pub fn new(conn: Arc<Connection<P>>, options: MountOptions) -> Result<Self> {
        let fs = Arc::new(FileSystem::new(conn, options));
        let asked = fs.ask_now();
        let reply = fs.conn.ask(&Getattr {
            node: NodeId::ROOT,
            fh: None,
        })?;
        if !reply.attr.mode.is_dir() {
            log::error!(
                "virtio-fs: the root is no directory but {:?}",
                reply.attr.mode.file_type()
            );
            return Err(Error::protocol());
        }
        let cache = AttrCache::new(reply.attr, fs.attr_until(reply.valid), asked);
        let device = fs.options.device;
        let root = Inode::new(fs.clone(), NodeId::ROOT, Generation(0), device, cache);
        let (root, _) = fs.inodes.insert(Arc::new(root), |_| false);
        // The connection must not keep alive what keeps it alive.
        let told = Arc::downgrade(&fs);
        fs.conn.subscribe(Box::new(move |notification| {
            if let Some(fs) = told.upgrade()
                && let Err(error) = fs.notified(notification)
            {
                log::warn!("virtio-fs: answering a notification: {error}");
            }
        }));
        fs.keep_over_restarts();
        Ok(Self { fs, root })
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Arc<Inode<P>> {
        &self.root
    }

    /// Returns what is shared by everything in it.
    pub fn file_system(&self) -> &Arc<FileSystem<P>> {
        &self.fs
    }

    /// Returns the connection.
    pub fn connection(&self) -> &Arc<Connection<P>> {
        &self.fs.conn
    }

    /// As [`FileSystem::reclaim`].
    pub fn reclaim(&self, bytes: usize) -> usize {
        self.fs.reclaim(bytes)
    }

    /// Ends the mount: lets go of all names, tells the server, and resets the
    /// device, which may then be opened anew. Files that are still open get
    /// errors from now on. Blocks, but not for longer than the deadlines allow.
    pub fn unmount(self) {
        self.fs.write_out_all();
        self.fs.end();
        if let Some(dax) = &self.fs.dax {
            dax.shut_down(&self.fs.conn);
        }
        self.fs.conn.close();
    }
}

impl<P: Platform> Drop for Mount<P> {
    fn drop(&mut self) {
        self.fs.end();
    }
}

impl<P: Platform> Inode<P> {
    /// Returns space and inode counts of the host file system that this inode is
    /// on. Blocks.
    ///
    /// # Errors
    ///
    /// The server's.
    pub fn statfs(&self) -> Result<StatfsReply> {
        self.check()?;
        self.fs.conn.ask(&Statfs { node: self.node })
    }
}

impl<P: Platform> FileSystem<P> {
    /// Makes everything durable, submounts included: sync(2). Blocks.
    ///
    /// # Errors
    ///
    /// The first of the server's.
    pub fn sync(&self) -> Result<()> {
        self.write_out_all();
        let sync = |node| {
            self.lacking
                .unless(Opcode::Syncfs, || self.conn.ask(&Syncfs { node }))
                .unwrap_or(Ok(()))
        };
        let mut result = sync(NodeId::ROOT);
        for node in self.submounts() {
            result = result.and(sync(node));
        }
        result
    }

    /// Makes everything that is known be asked for again: for a caller who knows
    /// of a change on the host. Does not block.
    pub fn revalidate_all(&self) {
        self.shrink(usize::MAX);
        self.inodes.for_each(|inode| {
            inode.expire_attr();
            inode.names_changed();
            inode.drop_pages(&super::cached::ALL);
        });
    }
}
