//! One line of a manifest:
//!
//! `KIND MODE UID GID LINKS SIZE SECONDS.NANOS HASH PATH[ -> TARGET]`
//!
//! KIND is d, f, l or o; MODE octal; HASH 16 hexadecimal digits, `-` for what has no content.
//! LINKS and SIZE are 0 for directories: host file systems and daemons count those in their own
//! ways. MODE is 777 for links, which have no permissions of their own. Bytes of PATH and TARGET
//! other than printable ASCII, and the backslash and the space, are written `\xHH`, so names of any
//! bytes fit on one line and two of them never look the same.

use crate::{Kind, Stat};
use alloc::{string::String, vec::Vec};
use core::fmt;

/// An entry of a tree, for [`fmt::Display`].
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// The path from the root of the tree; `.` stands for the root itself.
    pub path: &'a [u8],
    /// Its description.
    pub stat: Stat,
    /// The hash of a file's content.
    pub hash: Option<u64>,
    /// The target of a symbolic link.
    pub target: Option<&'a [u8]>,
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stat = &self.stat;
        let (kind, mode, links, size) = match stat.kind {
            Kind::Dir => ('d', stat.mode, 0, 0),
            Kind::File => ('f', stat.mode, stat.links, stat.size),
            Kind::Link => ('l', 0o777, stat.links, stat.size),
            Kind::Other => ('o', stat.mode, stat.links, 0),
        };
        write!(
            f,
            "{kind} {mode:04o} {} {} {links} {size} ",
            stat.uid, stat.gid
        )?;
        write!(f, "{}.{:09} ", stat.mtime.seconds, stat.mtime.nanos)?;
        match self.hash {
            Some(hash) => write!(f, "{hash:016x} ")?,
            None => f.write_str("- ")?,
        }
        f.write_str(&escape(self.path))?;
        match self.target {
            Some(target) => write!(f, " -> {}", escape(target)),
            None => Ok(()),
        }
    }
}

/// Writes a name of any bytes in printable ASCII without spaces.
pub fn escape(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_graphic() && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value & 15)]);
            text.extend(['\\', 'x', digit(byte >> 4), digit(byte)]);
        }
    }
    text
}

/// Reads what [`escape`] wrote; `None` for anything else.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            name.push(*byte);
            continue;
        }
        let [b'x', high, low, after @ ..] = rest else {
            return None;
        };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        name.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = after;
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Time;
    use alloc::string::ToString;

    #[test]
    fn every_byte_survives_and_stays_printable() {
        let name: Vec<u8> = (0..=255).collect();
        let text = escape(&name);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(unescape(&text), Some(name));
        for bad in ["\\", "\\x", "\\x1", "\\y00", "\\xgg"] {
            assert_eq!(unescape(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_line_is_what_the_head_of_this_file_says() {
        let mtime = Time {
            seconds: -1,
            nanos: 5,
        };
        let stat = Stat {
            kind: Kind::File,
            mode: 0o640,
            uid: 1,
            gid: 2,
            links: 3,
            size: 4,
            mtime,
        };
        let entry = Entry {
            path: b"a b",
            stat,
            hash: Some(255),
            target: None,
        };
        assert_eq!(
            entry.to_string(),
            "f 0640 1 2 3 4 -1.000000005 00000000000000ff a\\x20b"
        );
        let stat = Stat {
            kind: Kind::Link,
            ..stat
        };
        let entry = Entry {
            path: b"l",
            stat,
            hash: None,
            target: Some(b"\n"),
        };
        assert_eq!(
            entry.to_string(),
            "l 0777 1 2 3 4 -1.000000005 - l -> \\x0a"
        );
    }
}
