//! File types and modes.

use core::fmt;

use super::Malformed;

/// What kind of file an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FileType {
    /// Named pipe.
    Fifo = 1,
    /// Character device.
    CharDevice = 2,
    /// Directory.
    Directory = 4,
    /// Block device.
    BlockDevice = 6,
    /// Regular file.
    Regular = 8,
    /// Symbolic link.
    Symlink = 10,
    /// Socket.
    Socket = 12,
}

impl FileType {
    /// Finds the type in the number of a directory record, which is bits 12 to
    /// 15 of a mode. `None` for 0 (unknown) and for nonsense.
    pub const fn from_dirent(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Fifo,
            2 => Self::CharDevice,
            4 => Self::Directory,
            6 => Self::BlockDevice,
            8 => Self::Regular,
            10 => Self::Symlink,
            12 => Self::Socket,
            _ => return None,
        })
    }

    /// Returns the number as in a directory record (`DT_*`).
    pub const fn to_dirent(self) -> u32 {
        self as u32
    }

    /// Returns the type bits of a mode (`S_IF*`).
    pub const fn bits(self) -> u32 {
        (self as u32) << 12
    }
}

/// Type and permissions of a file: one of the seven types, and twelve bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode(u16);

impl Mode {
    /// Set-user-id bit.
    pub const SET_UID: u32 = 0o4000;
    /// Set-group-id bit.
    pub const SET_GID: u32 = 0o2000;
    /// Sticky bit.
    pub const STICKY: u32 = 0o1000;

    /// Joins a type and permissions; other bits of `permissions` are dropped.
    pub const fn new(file_type: FileType, permissions: u32) -> Self {
        Self((file_type.bits() | permissions & 0o7777) as u16)
    }

    /// Reads a mode as the server sends it. Bits above 15 are dropped, as Linux
    /// does.
    ///
    /// # Errors
    ///
    /// [`Malformed::Mode`] if the type is none of the seven.
    pub const fn from_wire(mode: u32) -> Result<Self, Malformed> {
        match FileType::from_dirent((mode >> 12) & 0xf) {
            Some(_) => Ok(Self(mode as u16)),
            None => Err(Malformed::Mode(mode)),
        }
    }

    /// Returns type and permissions as in `st_mode`.
    pub const fn bits(self) -> u32 {
        self.0 as u32
    }

    /// Returns the file type.
    pub const fn file_type(self) -> FileType {
        match FileType::from_dirent(self.bits() >> 12) {
            Some(file_type) => file_type,
            // INVARIANT: both constructors admit only the seven types.
            None => FileType::Regular,
        }
    }

    /// Returns the twelve bits of set-ids, sticky, and rwx for owner, group and
    /// others.
    pub const fn permissions(self) -> u32 {
        self.bits() & 0o7777
    }

    /// Returns the same type with other permissions.
    pub const fn with_permissions(self, permissions: u32) -> Self {
        Self::new(self.file_type(), permissions)
    }

    /// Says whether this is a directory.
    pub const fn is_dir(self) -> bool {
        matches!(self.file_type(), FileType::Directory)
    }

    /// Says whether this is a regular file.
    pub const fn is_file(self) -> bool {
        matches!(self.file_type(), FileType::Regular)
    }

    /// Says whether this is a symbolic link.
    pub const fn is_symlink(self) -> bool {
        matches!(self.file_type(), FileType::Symlink)
    }
}

impl fmt::Debug for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:04o}", self.file_type(), self.permissions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_of_sixteen_types_are_accepted() {
        let good: [u32; 7] = [1, 2, 4, 6, 8, 10, 12];
        for number in 0..16 {
            let mode = Mode::from_wire(number << 12 | 0o644);
            if good.contains(&number) {
                let mode = mode.unwrap();
                assert_eq!(mode.file_type().to_dirent(), number);
                assert_eq!(mode.permissions(), 0o644);
                assert_eq!(Mode::new(mode.file_type(), 0o644), mode);
            } else {
                assert_eq!(mode, Err(Malformed::Mode(number << 12 | 0o644)));
            }
        }
    }

    #[test]
    fn bits_above_sixteen_are_dropped() {
        assert_eq!(
            Mode::from_wire(0xffff_0000 | 0o100_755).unwrap().bits(),
            0o100_755
        );
        assert_eq!(Mode::new(FileType::Regular, u32::MAX).bits(), 0o107_777);
    }
}
