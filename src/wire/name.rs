//! Bytes that may stand as a name in a request.
//!
//! Servers are careless with names: one accepts `a/b` and `..`, one cuts at a
//! NUL, one exits. So nothing reaches them that was not proved first.

use alloc::boxed::Box;
use core::borrow::Borrow;
use core::fmt;
use core::ops::Deref;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, transmute_ref};

use crate::errno::Errno;

/// The longest name of a directory entry that FUSE always allows, in bytes.
pub const NAME_MAX: usize = 1024;
/// The longest name when requests of more than one page were negotiated.
pub const NAME_MAX_LONG: usize = 4095;
/// The longest target of a symbolic link, in bytes.
pub const TARGET_MAX: usize = 4095;
/// The longest name of an extended attribute, in bytes.
pub const XATTR_NAME_MAX: usize = 255;
/// The largest value of an extended attribute, in bytes.
pub const XATTR_VALUE_MAX: usize = 65536;

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// There are none.
    Empty,
    /// There are more than allowed.
    TooLong,
    /// One of them is NUL.
    Nul,
    /// One of them is `/`.
    Slash,
    /// It is `.` or `..`.
    Dots,
}

impl NameError {
    /// Returns the error number for the caller.
    pub const fn errno(self) -> Errno {
        match self {
            Self::TooLong => Errno::ENAMETOOLONG,
            Self::Empty | Self::Nul | Self::Slash | Self::Dots => Errno::EINVAL,
        }
    }
}

impl From<NameError> for Errno {
    fn from(error: NameError) -> Self {
        error.errno()
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "name is empty",
            Self::TooLong => "name is too long",
            Self::Nul => "name has a NUL in it",
            Self::Slash => "name has a slash in it",
            Self::Dots => "name is . or ..",
        })
    }
}

impl core::error::Error for NameError {}

/// Refuses what is empty, longer than `limit`, or has a NUL in it.
fn check_bytes(bytes: &[u8], limit: usize) -> Result<(), NameError> {
    if bytes.is_empty() {
        Err(NameError::Empty)
    } else if bytes.len() > limit {
        Err(NameError::TooLong)
    } else if bytes.contains(&0) {
        Err(NameError::Nul)
    } else {
        Ok(())
    }
}

/// Makes an unsized newtype of bytes that were checked.
macro_rules! checked_bytes {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// It is made by its constructors alone. zerocopy's traits are
        /// implemented for the cast inside them; a value made through those
        /// directly proves nothing.
        #[derive(PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name([u8]);

        impl $name {
            fn cast(checked: &[u8]) -> &Self {
                transmute_ref!(checked)
            }

            /// Returns the bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }
        }

        impl Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                quote(&self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                quote(&self.0, f)
            }
        }
    )*};
}

/// Prints bytes between quotes; what is not printable ASCII is escaped.
fn quote(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "\"{}\"", bytes.escape_ascii())
}

checked_bytes! {
    /// One component of a path: 1 to [`NAME_MAX`] bytes (or a limit given at
    /// construction) without `/` and NUL, not `.` and not `..`.
    ///
    /// Holding one proves that it may be sent as the name in a request. It says
    /// nothing about whether such a file exists, and the bytes need not be
    /// UTF-8.
    Name;
    /// What a symbolic link points to: 1 to [`TARGET_MAX`] bytes without NUL.
    Target;
    /// The name of an extended attribute: 1 to [`XATTR_NAME_MAX`] bytes without
    /// NUL.
    XattrName;
}

impl Name {
    /// Checks that `bytes` may be sent as a name, up to [`NAME_MAX`] of them.
    ///
    /// # Errors
    ///
    /// The first [`NameError`] that applies.
    pub fn new(bytes: &[u8]) -> Result<&Self, NameError> {
        Self::with_limit(bytes, NAME_MAX)
    }

    /// Checks that `bytes` may be sent as a name, up to `limit` of them.
    ///
    /// # Errors
    ///
    /// The first [`NameError`] that applies.
    pub fn with_limit(bytes: &[u8], limit: usize) -> Result<&Self, NameError> {
        check_bytes(bytes, limit)?;
        if bytes.contains(&b'/') {
            Err(NameError::Slash)
        } else if bytes == b"." || bytes == b".." {
            Err(NameError::Dots)
        } else {
            Ok(Self::cast(bytes))
        }
    }

    /// Copies the name, to the heap if it is long. Use [`NameBuf::as_name`] to get
    /// it back without another check.
    pub fn to_buf(&self) -> NameBuf {
        let mut bytes = [0; SHORT];
        NameBuf(match bytes.get_mut(..self.len()) {
            Some(room) => {
                room.copy_from_slice(self);
                Bytes::Short(self.len() as u8, bytes)
            }
            None => Bytes::Long(Box::from(self.as_bytes())),
        })
    }
}

/// Names up to this length need no heap.
const SHORT: usize = 22;

/// A [`Name`] that owns its bytes. One lives in each cached dentry, and most names
/// are short.
#[derive(Clone)]
pub struct NameBuf(Bytes);

#[derive(Clone)]
enum Bytes {
    /// So many of these.
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<NameBuf>() <= 24);

impl NameBuf {
    /// Returns the name; it was checked when it was made.
    #[inline]
    pub fn as_name(&self) -> &Name {
        Name::cast(match &self.0 {
            // INVARIANT: the length is at most SHORT.
            Bytes::Short(len, bytes) => &bytes[..usize::from(*len)],
            Bytes::Long(bytes) => bytes,
        })
    }
}

impl PartialEq for NameBuf {
    fn eq(&self, other: &Self) -> bool {
        self.as_name() == other.as_name()
    }
}

impl Eq for NameBuf {}

impl PartialOrd for NameBuf {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NameBuf {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.as_name().cmp(other.as_name())
    }
}

impl core::hash::Hash for NameBuf {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.as_name().hash(state);
    }
}

impl Deref for NameBuf {
    type Target = Name;

    fn deref(&self) -> &Name {
        self.as_name()
    }
}

impl Borrow<Name> for NameBuf {
    fn borrow(&self) -> &Name {
        self.as_name()
    }
}

impl fmt::Debug for NameBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        quote(self.as_name(), f)
    }
}

impl Target {
    /// Checks that `bytes` may be the target of a symbolic link.
    ///
    /// # Errors
    ///
    /// The first [`NameError`] that applies; [`NameError::Empty`] becomes
    /// ENOENT in symlink(2), which is the caller's to know.
    pub fn new(bytes: &[u8]) -> Result<&Self, NameError> {
        check_bytes(bytes, TARGET_MAX)?;
        Ok(Self::cast(bytes))
    }
}

impl XattrName {
    /// Checks that `bytes` may be sent as the name of an extended attribute.
    ///
    /// # Errors
    ///
    /// The first [`NameError`] that applies.
    pub fn new(bytes: &[u8]) -> Result<&Self, NameError> {
        check_bytes(bytes, XATTR_NAME_MAX)?;
        Ok(Self::cast(bytes))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;
    use std::vec;

    #[test]
    fn names_that_servers_mishandle_are_refused() {
        for (bytes, why) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::Slash),
            (b"/", NameError::Slash),
            (b"a\0", NameError::Nul),
            (b"\0", NameError::Nul),
        ] {
            assert_eq!(Name::new(bytes), Err(why), "{}", bytes.escape_ascii());
            assert_eq!(why.errno(), Errno::EINVAL);
        }
        for good in [&b"a"[..], b"...", b".hidden", b"a b", b"\xff\xfe", b"\n"] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn length_limits_are_inclusive() {
        let long = vec![b'x'; 5000];
        for (limit, makes) in [
            (
                NAME_MAX,
                (|b| Name::new(b).map(|_| ())) as fn(&[u8]) -> Result<(), NameError>,
            ),
            (NAME_MAX_LONG, |b| {
                Name::with_limit(b, NAME_MAX_LONG).map(|_| ())
            }),
            (TARGET_MAX, |b| Target::new(b).map(|_| ())),
            (XATTR_NAME_MAX, |b| XattrName::new(b).map(|_| ())),
        ] {
            assert_eq!(makes(&long[..limit]), Ok(()));
            assert_eq!(makes(&long[..limit + 1]), Err(NameError::TooLong));
        }
        assert_eq!(NameError::TooLong.errno(), Errno::ENAMETOOLONG);
    }

    #[test]
    fn a_target_may_have_slashes_and_dots_but_no_nul() {
        assert_eq!(Target::new(b"../a").unwrap().as_bytes(), b"../a");
        assert_eq!(Target::new(b"a\0b"), Err(NameError::Nul));
        assert_eq!(XattrName::new(b"user.a/b").unwrap().as_bytes(), b"user.a/b");
    }

    #[test]
    fn an_owned_name_is_the_same_name() {
        let name = Name::new(b"hello\x01").unwrap();
        assert_eq!(name.to_buf().as_name(), name);
        assert_eq!(name.to_string(), "\"hello\\x01\"");
        for len in [1, SHORT - 1, SHORT, SHORT + 1, NAME_MAX] {
            let bytes = vec![b'x'; len];
            let name = Name::new(&bytes).unwrap();
            assert_eq!(name.to_buf().as_name(), name);
            assert_eq!(name.to_buf(), name.to_buf().clone());
        }
    }
}
