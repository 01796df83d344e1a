//! What a side must be able to do with its file system. All paths are relative to the root of the
//! tree, without a leading slash; the empty one is the root. No call follows a link in the last
//! component, but for `read` and `write`, which only meet regular files.

use alloc::vec::Vec;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// A device, a fifo or a socket.
    Other,
}

/// A point in time: seconds since 1970, negative before it, and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What stat(2) says, as far as a manifest holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The kind of file.
    pub kind: Kind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Names of the file.
    pub links: u64,
    /// Bytes of content.
    pub size: u64,
    /// Last change of the content.
    pub mtime: Time,
}

/// A tree of files.
pub trait Fs {
    /// Why a call failed; mostly an errno.
    type Error;

    /// Describes a file.
    ///
    /// # Errors
    /// The file system's. So with all other calls.
    fn stat(&mut self, path: &[u8]) -> Result<Stat, Self::Error>;
    /// Names in a directory but `.` and `..`, in any order.
    fn list(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Self::Error>;
    /// The target of a symbolic link.
    fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>, Self::Error>;
    /// Hands out the content of a file from its start to its end, in pieces of any size.
    fn read(&mut self, path: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), Self::Error>;
    /// Makes a new empty file, which must not exist, with these permissions whatever the umask.
    fn create(&mut self, path: &[u8], mode: u32) -> Result<(), Self::Error>;
    /// Writes all of `data` at an offset, which may lie past the end.
    fn write(&mut self, path: &[u8], offset: u64, data: &[u8]) -> Result<(), Self::Error>;
    /// Sets the size.
    fn truncate(&mut self, path: &[u8], size: u64) -> Result<(), Self::Error>;
    /// Renames, replacing a file.
    fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Self::Error>;
    /// Gives a file one more name.
    fn link(&mut self, from: &[u8], to: &[u8]) -> Result<(), Self::Error>;
    /// Makes a symbolic link.
    fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<(), Self::Error>;
    /// Removes a name of a file that is no directory.
    fn unlink(&mut self, path: &[u8]) -> Result<(), Self::Error>;
    /// Makes a directory with these permissions whatever the umask.
    fn mkdir(&mut self, path: &[u8], mode: u32) -> Result<(), Self::Error>;
    /// Removes an empty directory.
    fn rmdir(&mut self, path: &[u8]) -> Result<(), Self::Error>;
    /// Sets the permission bits of a file or directory.
    fn chmod(&mut self, path: &[u8], mode: u32) -> Result<(), Self::Error>;
    /// Sets the time of the last change, and the time of the last access to the same.
    fn set_mtime(&mut self, path: &[u8], mtime: Time) -> Result<(), Self::Error>;
}
