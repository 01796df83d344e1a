//! Numbers that must not be mistaken for one another.

use core::fmt;
use core::num::NonZeroU64;

/// The server's name for an inode, never 0.
///
/// Unique among the inodes that the client has not forgotten; only together with
/// its [`Generation`] does it identify a file over time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NonZeroU64);

impl NodeId {
    /// The root of the file system. It has no lookup count and is never
    /// forgotten.
    pub const ROOT: Self = Self(NonZeroU64::MIN);

    /// Makes a node id. `None` for 0, which stands for "no such file".
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// The id of a request: not 0, and different among the requests in flight.
///
/// Ids of ordinary requests are even, as in Linux. The odd number after one is
/// the id of its INTERRUPT.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unique(NonZeroU64);

/// How many ids of ordinary requests there are: the even ones below 2⁶³ but 0.
const NTH: u64 = (1 << 62) - 1;

impl Unique {
    /// Makes the id of the `n`th request of a session, counted from 0. After
    /// 2⁶² requests, which takes centuries, the ids begin anew; bit 63, which
    /// marks a request that is sent again, stays clear.
    pub const fn nth(n: u64) -> Self {
        match NonZeroU64::new(((n % NTH) + 1) << 1) {
            Some(id) => Self(id),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Makes an id from its number. `None` for 0, which stands for a
    /// notification.
    pub const fn new(id: u64) -> Option<Self> {
        match NonZeroU64::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Returns the id of the INTERRUPT for this request.
    pub const fn interrupt(self) -> Self {
        Self(self.0.saturating_add(1 - (self.0.get() & 1)))
    }

    /// Returns the number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// Makes a newtype of a `u64` of which every value is possible.
macro_rules! number {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    )*};
}

number! {
    /// Distinguishes the files that had the same [`NodeId`] one after the other.
    Generation;
    /// The server's name for an open file. Every value is valid, 0 as well.
    FileHandle;
    /// A position in a directory: opaque, without order, not to be computed
    /// with.
    DirCookie;
    /// Whose locks these are: a number that stands for a table of open files.
    LockOwner;
    /// The client's name for a file that it polls.
    PollHandle;
}

impl FileHandle {
    /// Stands for "no handle" in SETUPMAPPING, where the node alone counts.
    pub const NONE: Self = Self(u64::MAX);
}

impl DirCookie {
    /// The beginning of a directory.
    pub const START: Self = Self(0);
}

/// Prints node ids and request ids as plain numbers.
macro_rules! print_nonzero {
    ($($name:ident)*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

print_nonzero! { NodeId Unique }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_even_not_zero_and_keep_bit_63_clear() {
        for n in [0, 1, 2, 1 << 40, u64::MAX >> 2, u64::MAX >> 1, u64::MAX] {
            let id = Unique::nth(n).get();
            assert!(
                id != 0 && id.is_multiple_of(2) && id >> 63 == 0,
                "{n}: {id}"
            );
        }
        assert_eq!(Unique::nth(0).get(), 2);
        assert_eq!(Unique::nth(1).get(), 4);
        assert_eq!(Unique::nth(NTH), Unique::nth(0));
    }

    #[test]
    fn interrupt_id_differs_from_its_request_in_bit_0() {
        let request = Unique::nth(20);
        assert_eq!(request.interrupt().get(), request.get() | 1);
        assert_eq!(request.interrupt().interrupt(), request.interrupt());
    }

    #[test]
    fn node_zero_does_not_exist() {
        assert_eq!(NodeId::new(0), None);
        assert_eq!(NodeId::new(1), Some(NodeId::ROOT));
    }
}
