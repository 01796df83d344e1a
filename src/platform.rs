//! What a kernel must give the driver. A porter reads this page first.
//!
//! Memory is virtio-drivers' [`Hal`]: DMA pages, and the address under which
//! the device sees a buffer. Registers are a [`Transport`]. The rest is time,
//! waiting, and who is calling; each method beyond [`now`](Platform::now) has a
//! default that suits the smallest kernel: one CPU, no threads, no interrupts,
//! one all-powerful user, waiting by polling.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::time::Duration;

use bitflags::bitflags;
pub use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::device::{SharedMemory, Transport, window::WindowMemory};

/// The kernel around the driver.
///
/// All methods take `&self` and may be called from every CPU. None is called
/// with a lock of the driver's held, but for [`unpark`](Self::unpark),
/// [`now`](Self::now) and [`cpu`](Self::cpu).
pub trait Platform: Send + Sync + 'static {
    /// DMA memory and address translation.
    type Hal: Hal;
    /// Registers of the virtio device.
    type Transport: Transport;
    /// Names a thread so that another can wake it. `()` where nothing sleeps.
    type Thread: Clone + Send + Sync + 'static;

    /// Virtually contiguous memory that does not cross a multiple of this many
    /// bytes, a power of two, is physically contiguous as well, and is shared
    /// with the device in one piece. A kernel whose heap is a linear map of
    /// memory sets this as large as that map's alignment and saves a call for
    /// each page.
    const SHARE_GRANULE: usize = PAGE_SIZE;

    /// Returns the time since some fixed moment. Never goes back. May be called
    /// in interrupt context; must not block.
    fn now(&self) -> Duration;

    /// Returns the time since 1970-01-01 UTC, for time stamps that the driver
    /// sets itself (write-back caching). `None` leaves them to the server.
    fn realtime(&self) -> Option<Duration> {
        None
    }

    /// Names the calling thread.
    fn current_thread(&self) -> Self::Thread;

    /// Sleeps until somebody unparks this thread, until `deadline` on the clock
    /// of [`now`](Self::now), or for no reason at all. A wake-up that came since
    /// the last `park` of this thread makes it return at once: an unpark is
    /// never lost. The driver re-checks what it waits for after each return.
    ///
    /// The default returns at once, which makes every wait a poll.
    fn park(&self, deadline: Option<Duration>) {
        let _ = deadline;
        core::hint::spin_loop();
    }

    /// Wakes `thread`, or makes its next [`park`](Self::park) return at once.
    /// May be called in interrupt context and with spin locks held; must not
    /// block.
    fn unpark(&self, thread: &Self::Thread) {
        let _ = thread;
    }

    /// Says whether [`park`](Self::park) really sleeps and interrupts are
    /// delivered to the driver, so that a waiter need not look at the ring
    /// itself.
    fn can_sleep(&self) -> bool {
        false
    }

    /// Says whether the calling thread has been signalled, so that a wait
    /// should end early.
    fn signal(&self) -> Signal {
        Signal::None
    }

    /// Returns the number of the calling CPU: a hint for choosing a queue.
    fn cpu(&self) -> usize {
        0
    }

    /// Maps the device's DAX window, for good, write-back cached as memory is.
    /// Called by [`Connection::open`](crate::conn::Connection::open), each time
    /// that a device is opened; the same mapping may serve each time.
    ///
    /// The default maps nothing: file data then go by READ and WRITE.
    fn map_window(&self, region: SharedMemory) -> Option<WindowMemory> {
        let _ = region;
        None
    }

    /// Takes pages of a mapped file out of every page table, and returns when no
    /// CPU can use them any more (TLB shootdown): the host is about to take them
    /// away. Pages that are not in any are fine. Called only for files on which
    /// [`Inode::fault`](crate::fs::Inode::fault) has been called, with no lock of
    /// the driver's held that a fault needs to end; must not call the driver.
    fn unmap_file_pages(&self, pages: &FilePages) {
        let _ = pages;
    }

    /// Says on whose behalf the current call is made.
    fn caller(&self) -> Caller {
        Caller::ROOT
    }

    /// Names the label that a file gets when it is made, as an extended attribute
    /// such as `security.selinux`. `None` leaves it without, or to the server.
    ///
    /// Asked only where [`Offer::security_labels`](crate::conn::Offer) is set and the
    /// server takes labels, before each request that makes a file; the file is never
    /// there without its label.
    fn new_file_label(&self, file: &NewFile<'_>) -> Option<FileLabel> {
        let _ = file;
        None
    }

    /// Says whether the current caller belongs to supplementary group `gid`.
    fn in_group(&self, gid: u32) -> bool {
        let _ = gid;
        false
    }
}

/// A file that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewFile<'a> {
    /// Inode number of the directory.
    pub directory: u64,
    /// Its name there, empty for a file without one.
    pub name: &'a [u8],
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
}

/// A label of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLabel {
    /// Name of the extended attribute, up to 255 bytes without NUL.
    pub name: Cow<'static, [u8]>,
    /// Its value, up to 64 KiB.
    pub value: Vec<u8>,
}

/// Pages of a file that were mapped, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilePages {
    /// The file, by [`Inode::mapping`](crate::fs::Inode::mapping).
    pub mapping: u64,
    /// Where they begin in the file.
    pub offset: u64,
    /// Their length; `u64::MAX` for all behind `offset`.
    pub len: u64,
}

/// A wish to end a wait early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Go on waiting.
    None,
    /// Something wants the thread's attention: interruptible waits end with EINTR.
    Interrupt,
    /// The thread is to die: every wait ends, the uninterruptible ones too.
    Kill,
}

/// The credentials of a caller. Its supplementary groups are asked for one by
/// one with [`Platform::in_group`], so that no call needs a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, for locks and logs.
    pub pid: u32,
    /// Mode bits to clear on creation.
    pub umask: u32,
    /// What the caller may do although mode bits forbid it.
    pub capabilities: Capabilities,
}

impl Caller {
    /// User 0 with an umask of 022 and every capability.
    pub const ROOT: Self = Self {
        uid: 0,
        gid: 0,
        pid: 0,
        umask: 0o022,
        capabilities: Capabilities::all(),
    };
}

bitflags! {
    /// The capabilities of Linux that a file system asks for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Capabilities: u32 {
        /// May change owners (CAP_CHOWN).
        const CHOWN = 1 << 0;
        /// Passes all read, write and directory search checks (CAP_DAC_OVERRIDE).
        const DAC_OVERRIDE = 1 << 1;
        /// Passes all read and directory search checks (CAP_DAC_READ_SEARCH).
        const DAC_READ_SEARCH = 1 << 2;
        /// Counts as owner of every file (CAP_FOWNER).
        const FOWNER = 1 << 3;
        /// Keeps set-id bits on change (CAP_FSETID).
        const FSETID = 1 << 4;
        /// May make device nodes (CAP_MKNOD).
        const MKNOD = 1 << 5;
        /// May set trusted attributes and administer the mount (CAP_SYS_ADMIN).
        const SYS_ADMIN = 1 << 6;
    }
}
