//! The configuration space of a virtio-fs device (virtio 1.3, 5.11.4).

use core::fmt;

use super::transport::{Transport, TransportError};

/// Length of the tag field in bytes.
pub const TAG_LEN: usize = 36;
/// How often a space that changes under the reader is read again.
const ATTEMPTS: u32 = 16;

/// What the device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsConfig {
    /// Names the file system.
    pub tag: Tag,
    /// Request queues that it has, at least 1.
    pub request_queues: u32,
}

/// The name of a file system: 1 to 36 bytes, UTF-8 by intention only.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    bytes: [u8; TAG_LEN],
    len: u8,
}

impl Tag {
    /// Reads the field: padded with NUL, but not ended by one when all 36 bytes
    /// are used.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Tag`] if it is empty or holds a newline, as Linux has it.
    pub fn from_field(bytes: [u8; TAG_LEN]) -> Result<Self, ConfigError> {
        let len = bytes.iter().position(|&b| b == 0).unwrap_or(TAG_LEN);
        if len == 0 || bytes[..len].contains(&b'\n') {
            return Err(ConfigError::Tag);
        }
        let mut clean = [0; TAG_LEN];
        clean[..len].copy_from_slice(&bytes[..len]);
        Ok(Self {
            bytes: clean,
            len: len as u8,
        })
    }

    /// Returns the bytes without padding.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match core::str::from_utf8(self.as_bytes()) {
            Ok(tag) => f.write_str(tag),
            Err(_) => self.as_bytes().escape_ascii().fmt(f),
        }
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// What is wrong with a configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// It is too short.
    Transport(TransportError),
    /// The tag is empty or holds a newline.
    Tag,
    /// The device has no request queue.
    NoQueues,
    /// It changed each time it was read.
    Unstable,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(e) => e.fmt(f),
            Self::Tag => f.write_str("device has an empty tag or one with a newline"),
            Self::NoQueues => f.write_str("device has no request queue"),
            Self::Unstable => f.write_str("device changes its configuration all the time"),
        }
    }
}

impl core::error::Error for ConfigError {}

impl From<TransportError> for ConfigError {
    fn from(error: TransportError) -> Self {
        Self::Transport(error)
    }
}

impl FsConfig {
    /// Reads the space, and again if it changed meanwhile. Does not block.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn read<T: Transport>(transport: &T) -> Result<Self, ConfigError> {
        for _ in 0..ATTEMPTS {
            let before = transport.config_generation();
            let (mut tag, mut queues) = ([0; TAG_LEN], [0; 4]);
            transport.read_config(0, &mut tag)?;
            transport.read_config(TAG_LEN, &mut queues)?;
            if transport.config_generation() != before {
                continue;
            }
            let request_queues = u32::from_le_bytes(queues);
            if request_queues == 0 {
                return Err(ConfigError::NoQueues);
            }
            return Ok(Self {
                tag: Tag::from_field(tag)?,
                request_queues,
            });
        }
        Err(ConfigError::Unstable)
    }

    /// Reads the least size of a notification buffer in bytes, a field that
    /// devices with a notification queue have.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Transport`] if the space ends before.
    pub fn notify_buffer_size<T: Transport>(transport: &T) -> Result<u32, ConfigError> {
        let mut size = [0; 4];
        transport.read_config(TAG_LEN + 4, &mut size)?;
        Ok(u32::from_le_bytes(size))
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    fn tag(text: &[u8]) -> Result<Tag, ConfigError> {
        let mut field = [0; TAG_LEN];
        field[..text.len()].copy_from_slice(text);
        Tag::from_field(field)
    }

    #[test]
    fn a_tag_of_36_bytes_has_no_nul() {
        let text = [b'x'; TAG_LEN];
        assert_eq!(tag(&text).unwrap().as_bytes(), text);
    }

    #[test]
    fn what_follows_the_nul_is_not_part_of_the_tag() {
        assert_eq!(tag(b"one\0two").unwrap(), tag(b"one").unwrap());
    }

    #[test]
    fn odd_bytes_print_escaped() {
        assert_eq!(tag(b"a\xffb").unwrap().to_string(), "a\\xffb");
    }

    #[test]
    fn empty_tags_and_newlines_are_refused() {
        assert_eq!(tag(b""), Err(ConfigError::Tag));
        assert_eq!(tag(b"a\nb"), Err(ConfigError::Tag));
    }
}
