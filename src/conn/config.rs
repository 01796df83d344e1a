//! What the kernel decides about a connection.

use core::time::Duration;

use crate::wire::Silence;

/// Settings of a connection, fixed when it is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// Requests that may be with the device at once; more callers wait in line.
    /// Each costs three pages of DMA memory (two with queues up to 256 entries).
    pub max_active: u16,
    /// The largest queue to use, a power of two. The device may offer less.
    pub max_queue_size: u16,
    /// Request queues to use at most. The device may offer fewer.
    pub max_request_queues: u16,
    /// Interrupt vectors that the kernel has routed to
    /// [`Connection::interrupt`](super::Connection::interrupt): vector 0 for
    /// changes of the configuration, 1 and on for the queues in turn. With one
    /// vector it serves all; with none, the device has an interrupt line or is
    /// polled.
    pub vectors: u16,
    /// Interrupts reach the driver over the device's interrupt line.
    pub interrupt_line: bool,
    /// How often a waiter looks at the ring itself before it sleeps. Only where
    /// [`Platform::can_sleep`](crate::platform::Platform::can_sleep).
    pub spins: u32,
    /// How long requests may take.
    pub deadlines: Deadlines,
    /// How long to go on waiting after an interrupted request before it is given
    /// up, and for a reset to take effect.
    pub grace: Duration,
    /// What to make of a device that says it wrote nothing.
    pub silence: Silence,
    /// Largest read-ahead to ask the server for, in bytes.
    pub max_readahead: u32,
    /// Protocol features to offer beyond those that are always there.
    pub offer: Offer,
    /// Which files are used through the DAX window, where there is one.
    pub dax: DaxMode,
    /// How data of files are cached where they do not go through a window. A
    /// setting of the connection, because INIT tells the server.
    pub data_cache: DataCache,
    /// Whether a device that somebody drives already is reset and taken over.
    pub attach: Attach,
    /// Names forgotten together in one message, at most.
    pub forget_batch: usize,
    /// Whether a session that is lost with its device or server is made anew.
    /// `None`: the connection ends then.
    pub restart: Option<Restart>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_active: 64,
            max_queue_size: 1024,
            max_request_queues: u16::MAX,
            vectors: 0,
            interrupt_line: false,
            spins: 0,
            deadlines: Deadlines::default(),
            grace: Duration::from_secs(1),
            silence: Silence::TrustHeader,
            max_readahead: 8 << 20,
            offer: Offer::default(),
            dax: DaxMode::Always,
            data_cache: DataCache::WriteThrough,
            attach: Attach::IfIdle,
            forget_batch: 64,
            restart: None,
        }
    }
}

/// How long each kind of request may take before it is interrupted and, after
/// the [grace](Config::grace), given up with ETIMEDOUT. `None`: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Names, attributes, opening and closing.
    pub metadata: Option<Duration>,
    /// Reading, writing, copying, allocating.
    pub data: Option<Duration>,
    /// Waiting for a lock.
    pub lock: Option<Duration>,
    /// Making durable.
    pub sync: Option<Duration>,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            metadata: Some(Duration::from_secs(30)),
            data: Some(Duration::from_secs(60)),
            lock: None,
            sync: Some(Duration::from_secs(300)),
        }
    }
}

/// How a lost session is made anew; see [`Connection::restart`](super::Connection::restart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Attempts one after the other, without a caller's request answered in
    /// between, before the connection ends.
    pub attempts: u32,
    /// How long to wait after the first attempt that failed; then twice as long
    /// each time.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// How often one request is sent again, at most: one that kills each server
    /// shall not kill them for ever.
    pub resends: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            attempts: 20,
            pause: Duration::from_millis(10),
            longest_pause: Duration::from_secs(1),
            resends: 3,
        }
    }
}

/// Protocol features that depend on the kernel around the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The server keeps POSIX and BSD locks, shared with other guests.
    pub remote_locks: bool,
    /// POSIX access control lists are checked here.
    pub posix_acl: bool,
    /// Directories where another host file system begins get a device number of
    /// their own.
    pub submounts: bool,
    /// A cache of file data of the kernel's own stands above the driver, so that the
    /// server's word on what to drop matters. It does anyway with a
    /// [`DataCache`].
    pub data_cache: bool,
    /// [`Platform::new_file_label`](crate::platform::Platform::new_file_label) names
    /// labels for new files, which they are to have from the moment that they are
    /// made.
    pub security_labels: bool,
}

impl Default for Offer {
    fn default() -> Self {
        Self {
            remote_locks: true,
            posix_acl: true,
            submounts: true,
            data_cache: false,
            security_labels: false,
        }
    }
}

/// Which files are used through the DAX window. A setting of the connection,
/// because INIT tells the server.
///
/// A device without a window, and a kernel that does not map it, are no error in
/// any mode: what cannot be mapped goes by READ and WRITE, and that may be a
/// whole mount as well as the tail of a file. So the default needs no knowledge
/// of the device: [`Always`](Self::Always).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaxMode {
    /// None.
    Never,
    /// All regular files.
    Always,
    /// Those that the server marks (`FUSE_ATTR_DAX`) when their inode comes into
    /// memory.
    Inode,
}

/// How data of files are cached. Memory and lifetime are settings of the
/// [mount](crate::fs::MountOptions).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCache {
    /// Not at all: each read and write is a request.
    None,
    /// What was read is kept; what is written is with the server when the call
    /// returns.
    WriteThrough,
    /// What is written is kept, too, and brought to the server when a descriptor is
    /// closed, on fsync, for want of memory, or when it is some seconds old. For
    /// files that nobody else writes to. Where the server does not take part
    /// (WRITEBACK_CACHE) it is as [`WriteThrough`](Self::WriteThrough).
    WriteBack,
}

/// What to do with a device that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// Refuse it (S0-17).
    IfIdle,
    /// Reset it and take it, for a kernel that was started by another one.
    TakeOver,
}
