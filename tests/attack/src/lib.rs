//! What the tests of the whole driver on the fake device have in common: a
//! mount, the end of a mount with everything counted, the log.

mod lines;
mod rng;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use lines::Lines;
pub use rng::Rng;
use virtio_fs::conn::{Config, Connection, OpenError};
use virtio_fs::error::Result;
use virtio_fs::fs::{At, Inode, Metadata, Mount, MountOptions, Process, Symlinks};
use virtio_fs::wire::OpenFlags;
use virtio_fs_fake::{Fake, FakePlatform, FakeTransport, Handle, MemFs};

/// The driver's connection on the fake platform.
pub type Conn = Connection<FakePlatform>;

/// A mount on a fake device.
pub struct Guest {
    /// Works with paths.
    pub process: Process<FakePlatform>,
    /// The mount.
    pub mount: Mount<FakePlatform>,
    /// Its connection.
    pub conn: Arc<Conn>,
    /// The kernel around it.
    pub platform: FakePlatform,
    /// The device's registers.
    pub transport: Arc<FakeTransport>,
    /// The other side.
    pub fake: Handle,
}

/// What the file `/witness` of [`tree`] holds.
pub const WITNESS: &[u8] = b"still here";
/// Length of `/dir/file` of [`tree`].
pub const FILE_LEN: usize = 10_000;

/// Makes the tree that most tests begin with.
pub fn tree() -> MemFs {
    let mut fs = MemFs::new();
    let made = (|| {
        fs.file("/witness", WITNESS)?;
        fs.mkdir("/dir")?;
        fs.file("/dir/file", vec![7; FILE_LEN])?;
        fs.file("/dir/other", "other")?;
        fs.symlink("/dir/link", "file")?;
        fs.mkdir("/dir/sub")?;
        fs.file("/dir/sub/leaf", "leaf")?;
        fs.mkdir("/empty")
    })();
    made.expect("a fresh tree takes these names");
    fs
}

impl Guest {
    /// Mounts [`tree`] on the default device.
    pub fn new() -> Self {
        Self::on(Fake::new().fs(tree()))
    }

    /// Mounts a device.
    pub fn on(fake: Fake) -> Self {
        Self::with(fake, Config::default(), MountOptions::default())
    }

    /// Mounts a device with settings.
    pub fn with(fake: Fake, config: Config, options: MountOptions) -> Self {
        Self::try_with(fake, config, options)
            .expect("the device opens")
            .0
    }

    /// As [`with`](Self::with), for devices that may not open. The mount's own
    /// failure panics.
    pub fn try_with(
        fake: Fake,
        config: Config,
        options: MountOptions,
    ) -> core::result::Result<(Self,), (OpenError, Handle)> {
        lines::install();
        let (transport, fake) = fake.build();
        let (platform, transport) = (fake.platform(), Arc::new(transport));
        let conn = match Conn::open(Arc::new(platform.clone()), transport.clone(), config) {
            Ok(conn) => conn,
            Err(error) => return Err((error, fake)),
        };
        let mount = Mount::new(conn.clone(), options).expect("mounts");
        let process = Process::new(&mount);
        Ok((Self {
            process,
            mount,
            conn,
            platform,
            transport,
            fake,
        },))
    }

    /// The inode that a path leads to.
    pub fn inode(&self, path: &str) -> Arc<Inode<FakePlatform>> {
        self.process
            .lookup(At::Cwd, path.as_bytes(), Symlinks::NoFollow)
            .expect("the path exists")
    }

    /// stat(2).
    pub fn stat(&self, path: &str) -> Result<Metadata> {
        self.process
            .stat(At::Cwd, path.as_bytes(), Symlinks::NoFollow)
    }

    /// Opens, reads up to a page, closes.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let fd = self
            .process
            .open(At::Cwd, path.as_bytes(), OpenFlags::RDONLY, 0)?;
        let mut buf = vec![0; 4096];
        let read = self.process.read(fd, &mut buf);
        self.process.close(fd)?;
        buf.truncate(read?);
        Ok(buf)
    }

    /// The names in a directory, `.` and `..` included.
    pub fn names(&self, path: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut dir = self
            .process
            .lookup(At::Cwd, path.as_bytes(), Symlinks::Follow)?
            .open_dir()?;
        dir.read(|entry| {
            names.push(String::from_utf8_lossy(entry.name).into_owned());
            true
        })?;
        Ok(names)
    }

    /// Checks that the mount still does what it is there for.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub fn assert_works(&self) {
        self.fake.clear_faults();
        self.mount.file_system().revalidate_all();
        let size = self.stat("/witness").expect("stat works").size();
        assert_eq!(size, WITNESS.len() as u64);
        assert_eq!(self.read("/witness").expect("read works"), WITNESS);
    }

    /// Sends every forget that is due.
    ///
    /// # Panics
    ///
    /// If they do not all go out.
    pub fn settle(&self) {
        // Buffers for notifications stay with the device.
        let idle = if self.conn.has_notifications() { 16 } else { 0 };
        for _ in 0..10_000 {
            self.conn.work();
            self.conn.flush_forgets();
            self.fake.step();
            if self.conn.pending_forgets() == 0 && self.fake.in_flight() == idle {
                return;
            }
        }
        panic!("{} forgets do not go out", self.conn.pending_forgets());
    }

    /// Checks that driver and server count the same lookups of each node.
    ///
    /// # Panics
    ///
    /// If they do not.
    pub fn assert_balanced(&self) {
        self.settle();
        let mut ours = BTreeMap::new();
        self.mount.file_system().audit(|node, lookups| {
            if node.get() != virtio_fs_fake::ROOT_ID {
                assert!(ours.insert(node.get(), lookups).is_none(), "{node} twice");
            }
        });
        self.fake.assert_lookups(ours);
    }

    /// Ends the mount and checks that nothing is left of it: no lookups, no
    /// handles, no requests, no memory.
    ///
    /// # Panics
    ///
    /// If something is.
    pub fn finish(self) {
        self.assert_balanced();
        let Self {
            process,
            mount,
            conn,
            fake,
            transport,
            ..
        } = self;
        drop(process);
        mount.file_system().shrink(usize::MAX);
        for _ in 0..100 {
            conn.work();
            // What is mapped is unmapped before it is forgotten.
            mount.file_system().work();
            conn.flush_forgets();
            fake.step();
        }
        let handles = fake.open_handles();
        assert!(handles.is_empty(), "open on the server: {handles:?}");
        fake.assert_lookups([]);
        mount.unmount();
        assert_eq!(conn.load(), (0, 0), "requests left behind");
        drop(conn);
        drop(transport);
        assert_gone(&fake);
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

/// Checks that the driver gave all memory back and broke no rule.
///
/// # Panics
///
/// If it did not.
pub fn assert_gone(fake: &Handle) {
    let usage = fake.usage();
    assert_eq!(
        (usage.dma_pages, usage.shares),
        (0, 0),
        "memory left behind"
    );
    fake.assert_clean();
}
