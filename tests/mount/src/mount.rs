//! `/dev/fuse`, and where it is mounted (mount(2), umount2(2)).
//!
//! Needs root; no helper program is involved.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A mounted file system. Dropping it unmounts, lazily if it is in use.
pub struct Mount {
    device: File,
    path: PathBuf,
    mounted: std::sync::atomic::AtomicBool,
}

impl Mount {
    /// Mounts a file system that shows as `source` at `path`, an existing
    /// directory. Everyone may use it; the kernel checks permissions.
    ///
    /// # Errors
    ///
    /// If `/dev/fuse` cannot be opened or the mount is refused.
    pub fn new(source: &str, path: &Path) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let device = File::options().read(true).write(true).open("/dev/fuse")?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
            device.as_raw_fd()
        );
        let [source, target, options] = [
            source.as_bytes(),
            path.as_os_str().as_bytes(),
            options.as_bytes(),
        ]
        .map(CString::new);
        let (source, target, options) = (source?, target?, options?);
        // SAFETY: all four are C strings that outlive the call.
        let result = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                c"fuse.virtio-fs".as_ptr(),
                0,
                options.as_ptr().cast(),
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            device,
            path,
            mounted: true.into(),
        })
    }

    /// Returns where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts, so that [`serve`](crate::serve()) ends.
    ///
    /// # Errors
    ///
    /// EBUSY if a program uses it, EINVAL if it is not mounted any more.
    pub fn unmount(&self) -> io::Result<()> {
        self.umount(0)
    }

    /// Takes the file system out of the tree at once; it ends when the last
    /// program has left it.
    ///
    /// # Errors
    ///
    /// EINVAL if it is not mounted any more.
    pub fn detach(&self) -> io::Result<()> {
        self.umount(libc::MNT_DETACH)
    }

    fn umount(&self, flags: i32) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        // Once only: something else may be mounted there by the second time.
        if !self.mounted.swap(false, Ordering::AcqRel) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let path = CString::new(self.path.as_os_str().as_bytes())?;
        // SAFETY: the path is a C string that outlives the call.
        if unsafe { libc::umount2(path.as_ptr(), flags) } != 0 {
            let error = io::Error::last_os_error();
            let gone = error.raw_os_error() == Some(libc::EINVAL);
            self.mounted.store(!gone, Ordering::Release);
            return Err(error);
        }
        Ok(())
    }

    /// Makes another descriptor of this connection, which takes requests and
    /// gives answers of its own without a lock shared with the others.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor left.
    pub(crate) fn channel(&self) -> io::Result<Channel> {
        /// FUSE_DEV_IOC_CLONE, `_IOR(229, 0, uint32_t)`.
        const CLONE: libc::c_ulong = 0x8004_e500;
        let clone = File::options().read(true).write(true).open("/dev/fuse")?;
        let original = self.device.as_raw_fd() as u32;
        // SAFETY: the request reads one u32 at the pointer, which is valid.
        if unsafe { libc::ioctl(clone.as_raw_fd(), CLONE, &original) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Channel(clone))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            let _ = self.detach();
        }
    }
}

/// A descriptor on which requests arrive.
pub(crate) struct Channel(File);

impl Channel {
    /// Waits for a request and returns its length. `None` when the file system
    /// is not mounted any more.
    pub(crate) fn receive(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<Option<usize>> {
        use std::io::Read;
        loop {
            match (&self.0).read_vectored(buffers) {
                Ok(len) => return Ok(Some(len)),
                Err(error) => match error.raw_os_error() {
                    Some(libc::ENODEV) => return Ok(None),
                    // Interrupted, or the request was withdrawn meanwhile.
                    Some(libc::EINTR | libc::ENOENT | libc::EAGAIN) => {}
                    _ => return Err(error),
                },
            }
        }
    }

    /// Sends a reply.
    pub(crate) fn reply(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        use std::io::Write;
        match (&self.0).write_vectored(parts) {
            Ok(_) => Ok(()),
            // The request was withdrawn, or the file system unmounted.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Blocks SIGINT and SIGTERM in this thread and those it starts, so that
/// [`Signals::wait`] gets them. Call it first in `main`.
///
/// # Errors
///
/// If the system refuses.
pub fn block_signals() -> io::Result<Signals> {
    // SAFETY: all-zero bytes are a valid `sigset_t` for sigemptyset to fill.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is valid for the calls, and the signal numbers exist.
    let fd = unsafe {
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        libc::signalfd(-1, &set, libc::SFD_CLOEXEC)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: signalfd just returned this descriptor to us alone.
    Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
}

/// The signals that ask the program to end.
pub struct Signals(File);

impl Signals {
    /// Waits for the next one.
    ///
    /// # Errors
    ///
    /// If the system refuses to read.
    pub fn wait(&self) -> io::Result<()> {
        use std::io::Read;
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        (&self.0).read_exact(&mut info)
    }
}
