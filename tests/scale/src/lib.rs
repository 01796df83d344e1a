//! The driver on the fake device at sizes that no real share has: `make scale`
//! prints what operations and memory cost as something grows and draws it, and the
//! test `bounds` asserts what does not depend on a clock.

pub mod chart;
pub mod memory;
pub mod names;
pub mod random;
pub mod threads;
pub mod window;

use std::sync::Arc;

use virtio_fs::conn::{Config, Connection};
use virtio_fs::fs::{Mount, MountOptions, Process};
use virtio_fs_fake::{Fake, FakePlatform, Handle};

/// A mounted fake device, and a process on it.
pub struct Guest {
    /// Works with paths.
    pub process: Process<FakePlatform>,
    /// The mount.
    pub mount: Mount<FakePlatform>,
    /// The connection below it.
    pub conn: Arc<Connection<FakePlatform>>,
    /// The other side.
    pub fake: Handle,
}

impl Guest {
    /// Mounts a device.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn on(fake: Fake, options: MountOptions) -> Self {
        let (transport, fake) = fake.build();
        let platform = Arc::new(fake.platform());
        let conn = Connection::open(platform, Arc::new(transport), Config::default());
        let conn = conn.expect("the connection opens");
        let mount = Mount::new(conn.clone(), options).expect("it is mounted");
        Self {
            process: Process::new(&mount),
            mount,
            conn,
            fake,
        }
    }
}
