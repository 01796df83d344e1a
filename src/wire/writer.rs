//! Writing the arguments of a request into a buffer of the caller's.

use core::fmt;

use zerocopy::{Immutable, IntoBytes};

use super::Dialect;

/// The buffer is too small for a request, or the request is too long for its
/// header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong {
    /// How many bytes the buffer would need.
    pub needed: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request of {} bytes is too long", self.needed)
    }
}

impl core::error::Error for TooLong {}

/// Appends to a buffer and never panics: what does not fit is counted and
/// reported in the end.
#[derive(Debug)]
pub struct Writer<'a> {
    buf: &'a mut [u8],
    len: usize,
    extensions: usize,
    dialect: Dialect,
}

impl<'a> Writer<'a> {
    /// Starts at the beginning of `buf`. Bytes after what is written keep their
    /// values.
    pub fn new(buf: &'a mut [u8], dialect: Dialect) -> Self {
        Self {
            buf,
            len: 0,
            extensions: 0,
            dialect,
        }
    }

    /// Returns the dialect to write in.
    pub fn dialect(&self) -> &Dialect {
        &self.dialect
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let end = self.len.saturating_add(bytes.len());
        if let Some(place) = self.buf.get_mut(self.len..end) {
            place.copy_from_slice(bytes);
        }
        self.len = end;
    }

    /// Appends a struct or a slice of them.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) {
        self.bytes(value.as_bytes());
    }

    /// Appends the first `len` bytes of a struct, for a peer that knows only
    /// those.
    pub fn put_prefix<T: IntoBytes + Immutable>(&mut self, value: &T, len: usize) {
        let bytes = value.as_bytes();
        self.bytes(bytes.get(..len).unwrap_or(bytes));
    }

    /// Appends bytes and a NUL.
    pub fn terminated(&mut self, bytes: &[u8]) {
        self.bytes(bytes);
        self.bytes(&[0]);
    }

    /// Runs `write` and counts what it appends as extensions, padded to a
    /// multiple of 8 bytes.
    pub(super) fn extension(&mut self, write: impl FnOnce(&mut Self)) {
        let start = self.len;
        write(self);
        let odd = self.len.wrapping_sub(start) % 8;
        if odd != 0 {
            self.bytes(&[0; 8][odd..]);
        }
        let block = self.len.saturating_sub(start);
        self.extensions = self.extensions.saturating_add(block);
    }

    /// Returns how many bytes were appended, those that did not fit included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Says whether nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes written and how many of them are extensions.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if the buffer ended before.
    pub fn finish(self) -> Result<Written, TooLong> {
        if self.len > self.buf.len() {
            return Err(TooLong { needed: self.len });
        }
        Ok(Written {
            len: self.len,
            extensions: self.extensions,
        })
    }
}

/// What a [`Writer`] wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// All bytes.
    pub len: usize,
    /// The bytes of extension blocks among them, a multiple of 8.
    pub extensions: usize,
}
