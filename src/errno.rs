//! Error numbers: Linux's, because FUSE servers answer with them.
//!
//! One table for the whole driver. Servers send `-errno` in the reply header;
//! [`Errno::from_wire`] says which of those are believed. The numbers are those
//! of `asm-generic/errno.h`, which x86, Arm, RISC-V and LoongArch share.

use core::fmt;
use core::num::NonZeroU16;

/// An error number, from 1 to 511. A server's error passes through as it is,
/// also one that has no name here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(NonZeroU16);

/// The largest error number that a server may send: those from 512 on are
/// internal to the Linux kernel (restart a system call, and the like).
const MAX: u16 = 511;

impl Errno {
    /// Makes an error number from its positive value. `None` outside of 1..=511.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(n) if number <= MAX => Some(Self(n)),
            _ => None,
        }
    }

    /// Reads the `error` field of a reply header: 0 is success, −1 to −511 is
    /// that error.
    ///
    /// # Errors
    ///
    /// `Err(None)` for anything else, which no honest server sends.
    pub const fn from_wire(error: i32) -> Result<(), Option<Self>> {
        if error == 0 {
            return Ok(());
        }
        if error > 0 || error < -(MAX as i32) {
            return Err(None);
        }
        Err(Self::new(error.unsigned_abs() as u16))
    }

    /// Returns the positive number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Returns the number as it stands in a reply header and as system calls
    /// return it: negative.
    pub const fn to_wire(self) -> i32 {
        -(self.0.get() as i32)
    }

    /// Returns the symbolic name, "ENOENT". `None` for numbers without one.
    pub fn name(self) -> Option<&'static str> {
        Some(self.lookup()?.0)
    }

    /// Returns what the number means in a few words. `None` for numbers without
    /// a name.
    pub fn description(self) -> Option<&'static str> {
        Some(self.lookup()?.1)
    }

    fn lookup(self) -> Option<(&'static str, &'static str)> {
        let at = TABLE
            .binary_search_by_key(&self.get(), |entry| entry.0)
            .ok()?;
        let (_, name, description) = TABLE.get(at)?;
        Some((name, description))
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lookup() {
            Some((name, description)) => write!(f, "{name} ({description})"),
            None => write!(f, "errno {}", self.0),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lookup() {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "Errno({})", self.0),
        }
    }
}

impl core::error::Error for Errno {}

macro_rules! errnos {
    ($($name:ident = $number:literal, $description:literal;)*) => {
        impl Errno {
            $(
                #[doc = concat!("Error ", $number, ": ", $description, ".")]
                pub const $name: Self = match Self::new($number) {
                    Some(errno) => errno,
                    None => panic!("errno out of range"),
                };
            )*
            /// Another name of [`EAGAIN`](Self::EAGAIN).
            pub const EWOULDBLOCK: Self = Self::EAGAIN;
            /// Another name of [`EDEADLK`](Self::EDEADLK).
            pub const EDEADLOCK: Self = Self::EDEADLK;
            /// Another name of [`EOPNOTSUPP`](Self::EOPNOTSUPP).
            pub const ENOTSUP: Self = Self::EOPNOTSUPP;
        }

        /// Number, name and meaning, in ascending order of numbers.
        static TABLE: &[(u16, &str, &str)] = &[$(($number, stringify!($name), $description)),*];
    };
}

errnos! {
    EPERM = 1, "operation not permitted";
    ENOENT = 2, "no such file or directory";
    ESRCH = 3, "no such process";
    EINTR = 4, "interrupted system call";
    EIO = 5, "input/output error";
    ENXIO = 6, "no such device or address";
    E2BIG = 7, "argument list too long";
    ENOEXEC = 8, "exec format error";
    EBADF = 9, "bad file descriptor";
    ECHILD = 10, "no child processes";
    EAGAIN = 11, "resource temporarily unavailable";
    ENOMEM = 12, "cannot allocate memory";
    EACCES = 13, "permission denied";
    EFAULT = 14, "bad address";
    ENOTBLK = 15, "block device required";
    EBUSY = 16, "device or resource busy";
    EEXIST = 17, "file exists";
    EXDEV = 18, "invalid cross-device link";
    ENODEV = 19, "no such device";
    ENOTDIR = 20, "not a directory";
    EISDIR = 21, "is a directory";
    EINVAL = 22, "invalid argument";
    ENFILE = 23, "too many open files in system";
    EMFILE = 24, "too many open files";
    ENOTTY = 25, "inappropriate ioctl for device";
    ETXTBSY = 26, "text file busy";
    EFBIG = 27, "file too large";
    ENOSPC = 28, "no space left on device";
    ESPIPE = 29, "illegal seek";
    EROFS = 30, "read-only file system";
    EMLINK = 31, "too many links";
    EPIPE = 32, "broken pipe";
    EDOM = 33, "numerical argument out of domain";
    ERANGE = 34, "numerical result out of range";
    EDEADLK = 35, "resource deadlock avoided";
    ENAMETOOLONG = 36, "file name too long";
    ENOLCK = 37, "no locks available";
    ENOSYS = 38, "function not implemented";
    ENOTEMPTY = 39, "directory not empty";
    ELOOP = 40, "too many levels of symbolic links";
    ENOMSG = 42, "no message of desired type";
    EIDRM = 43, "identifier removed";
    ECHRNG = 44, "channel number out of range";
    EL2NSYNC = 45, "level 2 not synchronized";
    EL3HLT = 46, "level 3 halted";
    EL3RST = 47, "level 3 reset";
    ELNRNG = 48, "link number out of range";
    EUNATCH = 49, "protocol driver not attached";
    ENOCSI = 50, "no CSI structure available";
    EL2HLT = 51, "level 2 halted";
    EBADE = 52, "invalid exchange";
    EBADR = 53, "invalid request descriptor";
    EXFULL = 54, "exchange full";
    ENOANO = 55, "no anode";
    EBADRQC = 56, "invalid request code";
    EBADSLT = 57, "invalid slot";
    EBFONT = 59, "bad font file format";
    ENOSTR = 60, "device not a stream";
    ENODATA = 61, "no data available";
    ETIME = 62, "timer expired";
    ENOSR = 63, "out of streams resources";
    ENONET = 64, "machine is not on the network";
    ENOPKG = 65, "package not installed";
    EREMOTE = 66, "object is remote";
    ENOLINK = 67, "link has been severed";
    EADV = 68, "advertise error";
    ESRMNT = 69, "srmount error";
    ECOMM = 70, "communication error on send";
    EPROTO = 71, "protocol error";
    EMULTIHOP = 72, "multihop attempted";
    EDOTDOT = 73, "RFS specific error";
    EBADMSG = 74, "bad message";
    EOVERFLOW = 75, "value too large for defined data type";
    ENOTUNIQ = 76, "name not unique on network";
    EBADFD = 77, "file descriptor in bad state";
    EREMCHG = 78, "remote address changed";
    ELIBACC = 79, "can not access a needed shared library";
    ELIBBAD = 80, "corrupted shared library";
    ELIBSCN = 81, "corrupted .lib section in a.out";
    ELIBMAX = 82, "attempting to link in too many shared libraries";
    ELIBEXEC = 83, "cannot exec a shared library directly";
    EILSEQ = 84, "invalid or incomplete multibyte or wide character";
    ERESTART = 85, "interrupted system call should be restarted";
    ESTRPIPE = 86, "streams pipe error";
    EUSERS = 87, "too many users";
    ENOTSOCK = 88, "socket operation on non-socket";
    EDESTADDRREQ = 89, "destination address required";
    EMSGSIZE = 90, "message too long";
    EPROTOTYPE = 91, "protocol wrong type for socket";
    ENOPROTOOPT = 92, "protocol not available";
    EPROTONOSUPPORT = 93, "protocol not supported";
    ESOCKTNOSUPPORT = 94, "socket type not supported";
    EOPNOTSUPP = 95, "operation not supported";
    EPFNOSUPPORT = 96, "protocol family not supported";
    EAFNOSUPPORT = 97, "address family not supported by protocol";
    EADDRINUSE = 98, "address already in use";
    EADDRNOTAVAIL = 99, "cannot assign requested address";
    ENETDOWN = 100, "network is down";
    ENETUNREACH = 101, "network is unreachable";
    ENETRESET = 102, "network dropped connection on reset";
    ECONNABORTED = 103, "software caused connection abort";
    ECONNRESET = 104, "connection reset by peer";
    ENOBUFS = 105, "no buffer space available";
    EISCONN = 106, "transport endpoint is already connected";
    ENOTCONN = 107, "transport endpoint is not connected";
    ESHUTDOWN = 108, "cannot send after transport endpoint shutdown";
    ETOOMANYREFS = 109, "too many references: cannot splice";
    ETIMEDOUT = 110, "connection timed out";
    ECONNREFUSED = 111, "connection refused";
    EHOSTDOWN = 112, "host is down";
    EHOSTUNREACH = 113, "no route to host";
    EALREADY = 114, "operation already in progress";
    EINPROGRESS = 115, "operation now in progress";
    ESTALE = 116, "stale file handle";
    EUCLEAN = 117, "structure needs cleaning";
    ENOTNAM = 118, "not a XENIX named type file";
    ENAVAIL = 119, "no XENIX semaphores available";
    EISNAM = 120, "is a named type file";
    EREMOTEIO = 121, "remote I/O error";
    EDQUOT = 122, "disk quota exceeded";
    ENOMEDIUM = 123, "no medium found";
    EMEDIUMTYPE = 124, "wrong medium type";
    ECANCELED = 125, "operation canceled";
    ENOKEY = 126, "required key not available";
    EKEYEXPIRED = 127, "key has expired";
    EKEYREVOKED = 128, "key has been revoked";
    EKEYREJECTED = 129, "key was rejected by service";
    EOWNERDEAD = 130, "owner died";
    ENOTRECOVERABLE = 131, "state not recoverable";
    ERFKILL = 132, "disabled by RF-kill";
    EHWPOISON = 133, "memory page has hardware error";
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn table_is_sorted_and_holds_all_but_the_two_unused_numbers() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for number in 1..=133 {
            let named = Errno::new(number).unwrap().name().is_some();
            assert_eq!(named, !matches!(number, 41 | 58), "errno {number}");
        }
    }

    #[test]
    fn wire_errors_are_negative_and_below_the_kernel_internal_ones() {
        assert_eq!(Errno::from_wire(0), Ok(()));
        assert_eq!(Errno::from_wire(-2), Err(Some(Errno::ENOENT)));
        assert_eq!(Errno::from_wire(-511), Err(Errno::new(511)));
        for nonsense in [1, 2, i32::MAX, -512, -513, i32::MIN, i32::MIN + 1] {
            assert_eq!(Errno::from_wire(nonsense), Err(None), "{nonsense}");
        }
        assert_eq!(Errno::EIO.to_wire(), -5);
    }

    #[test]
    fn prints_name_and_meaning_or_the_bare_number() {
        assert_eq!(
            Errno::ENOENT.to_string(),
            "ENOENT (no such file or directory)"
        );
        assert_eq!(Errno::new(500).unwrap().to_string(), "errno 500");
        assert_eq!(Errno::new(0), None);
        assert_eq!(Errno::new(512), None);
    }
}
