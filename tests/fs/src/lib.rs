//! A mount over the fake device, for tests of the driver's file layer.
//!
//! ```
//! use virtio_fs::fs::{At, Symlinks};
//! use virtio_fs_fake::{Fake, MemFs, Op};
//! use virtio_fs_tests::Guest;
//!
//! let mut fs = MemFs::new();
//! fs.file("/hello", "hello")?;
//! let guest = Guest::new(Fake::new().fs(fs));
//! let size = |guest: &Guest| guest.process.stat(At::Cwd, b"hello", Symlinks::Follow).map(|m| m.size());
//! assert_eq!(size(&guest).unwrap(), 5);
//! guest.fake.clear_log();
//! assert_eq!(size(&guest).unwrap(), 5);
//! assert_eq!(guest.fake.count(Op::LOOKUP), 0, "what is known is not asked for again");
//! guest.finish();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::sync::Arc;

use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{Mount, MountOptions, Process};
use virtio_fs::platform::{Caller, Capabilities};
use virtio_fs_fake::{Fake, FakePlatform, Handle};

/// A mounted fake device, and a process on it.
pub struct Guest {
    /// Its calls are those of the tests.
    pub process: Process<FakePlatform>,
    /// The mount.
    pub mount: Mount<FakePlatform>,
    /// The connection below it.
    pub conn: Arc<Connection<FakePlatform>>,
    /// The test's side of the device.
    pub fake: Handle,
}

impl Guest {
    /// Mounts a device with the default settings.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn new(fake: Fake) -> Self {
        Self::with(fake, MountOptions::default())
    }

    /// Mounts a device.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn with(fake: Fake, options: MountOptions) -> Self {
        Self::configured(fake, Config::default(), options)
    }

    /// Mounts a device, the connection configured as well.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn configured(fake: Fake, config: Config, options: MountOptions) -> Self {
        let (transport, fake) = fake.build();
        let platform = Arc::new(fake.platform());
        let conn = Connection::open(platform, Arc::new(transport), config);
        let conn = conn.expect("the connection opens");
        let mount = Mount::new(conn.clone(), options).expect("it is mounted");
        Self {
            process: Process::new(&mount),
            mount,
            conn,
            fake,
        }
    }

    /// Makes calls from now on in the name of an ordinary user.
    pub fn become_user(&self, uid: u32, gid: u32, groups: &[u32]) {
        self.fake.platform().set_caller(Caller {
            uid,
            gid,
            pid: 100 + uid,
            umask: 0o022,
            capabilities: Capabilities::empty(),
        });
        self.fake.platform().set_groups(groups);
    }

    /// Makes calls from now on in the name of root.
    pub fn become_root(&self) {
        self.fake.platform().set_caller(Caller::ROOT);
        self.fake.platform().set_groups(&[]);
    }

    /// Ends the process and the mount, and checks that everything balances:
    /// nothing is open, held or in flight, and no rule was broken.
    ///
    /// # Panics
    ///
    /// If something is left.
    pub fn finish(self) {
        let Self {
            process,
            mount,
            conn,
            fake,
        } = self;
        drop(process);
        mount.file_system().shrink(usize::MAX);
        let wait = core::time::Duration::from_secs(1);
        for _ in 0..4 {
            conn.work();
            fake.platform().advance(wait);
        }
        fake.assert_lookups([]);
        assert!(fake.open_handles().is_empty(), "{:?}", fake.open_handles());
        mount.unmount();
        assert_eq!(conn.load().0, 0, "requests left behind");
        drop(conn);
        fake.assert_clean();
    }
}
