//! The tree that the guest finds: some 2,200 entries, every kind of file and name that a host's file
//! system takes, the same on every run.

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::geteuid,
};
use std::{io, path::Path};
use virtio_fs_manifest::{Fs, Time};

use crate::HostFs;

/// Fills an empty directory, and returns how many entries it made.
pub(super) fn make(dir: &Path) -> io::Result<usize> {
    let mut tree = Tree {
        fs: HostFs::new(dir),
        made: 0,
    };
    tree.many()?;
    tree.deep()?;
    tree.sizes()?;
    tree.names()?;
    tree.links()?;
    tree.modes()?;
    mknodat(
        CWD,
        dir.join("fifo"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )?;
    tree.made += 1;
    tree.times()?; // last: it must not be disturbed
    Ok(tree.made)
}

struct Tree {
    fs: HostFs,
    made: usize,
}

impl Tree {
    fn dir(&mut self, path: impl AsRef<[u8]>) -> io::Result<()> {
        self.made += 1;
        self.fs.mkdir(path.as_ref(), 0o755)
    }

    fn file(&mut self, path: impl AsRef<[u8]>, content: &[u8]) -> io::Result<()> {
        self.made += 1;
        self.fs.create(path.as_ref(), 0o644)?;
        self.fs.write(path.as_ref(), 0, content)
    }

    fn link(&mut self, target: impl AsRef<[u8]>, path: &str) -> io::Result<()> {
        self.made += 1;
        self.fs.symlink(target.as_ref(), path.as_bytes())
    }

    /// One large directory, many small ones, and empty ones.
    fn many(&mut self) -> io::Result<()> {
        self.dir("wide")?;
        for n in 0..1200 {
            self.file(
                format!("wide/file-{n:04}"),
                format!("{n}\n").repeat(n % 7).as_bytes(),
            )?;
        }
        self.dir("many")?;
        for d in 0..20 {
            self.dir(format!("many/{d}"))?;
            for n in 0..35 {
                self.file(
                    format!("many/{d}/{n}"),
                    &noise(d * 100 + n, 50 * n as usize),
                )?;
            }
        }
        self.dir("empty")?;
        (0..10).try_for_each(|n| self.dir(format!("empty/{n}")))
    }

    /// Eighty levels, a file on each.
    fn deep(&mut self) -> io::Result<()> {
        let mut path = String::from("deep");
        for level in 0..80 {
            self.dir(&path)?;
            self.file(
                format!("{path}/file"),
                format!("level {level}\n").as_bytes(),
            )?;
            path += "/level";
        }
        Ok(())
    }

    /// Sizes around pages, requests and rings; one file above 64 MiB; holes.
    fn sizes(&mut self) -> io::Result<()> {
        self.dir("sizes")?;
        for edge in [
            0usize,
            1,
            512,
            4096,
            8192,
            65536,
            128 << 10,
            1 << 20,
            (1 << 20) + 4096,
        ] {
            for size in [edge.saturating_sub(1), edge, edge + 1] {
                let path = format!("sizes/{edge}-{size}");
                if !(edge == 0 && size == 0 && self.fs.stat(path.as_bytes()).is_ok()) {
                    self.file(path, &noise(size as u64, size))?;
                }
            }
        }
        self.dir("large")?;
        self.file("large/66M", b"")?;
        for mib in 0..66 {
            self.fs
                .write(b"large/66M", mib << 20, &noise(mib, 1 << 20))?;
        }
        self.fs.write(b"large/66M", 66 << 20, b"and a tail")?;
        self.dir("sparse")?;
        self.file("sparse/hole-at-the-end", b"head")?;
        self.fs.truncate(b"sparse/hole-at-the-end", 10_000_001)?;
        self.file("sparse/islands", b"")?;
        for at in [1 << 20, (5 << 20) + 1, (9 << 20) - 1] {
            self.fs.write(b"sparse/islands", at, b"land")?;
        }
        self.file("sparse/only-hole", b"")?;
        self.fs.truncate(b"sparse/only-hole", 3 << 20)
    }

    /// Names that break what was not made for them.
    fn names(&mut self) -> io::Result<()> {
        self.dir("odd")?;
        let names: [&[u8]; 22] = [
            b" ",
            b"  two  spaces ",
            b"\n",
            b"line\nbreak",
            b"\t",
            b"tab\there",
            b"\\",
            b"back\\slash",
            b"\"quoted\"",
            b"it's",
            b"$(reboot)",
            b"*",
            b"?",
            b"-rf",
            b"...",
            b"..hidden",
            b"\x01\x7f",
            b"\xff",
            b"\xc3\x28",
            "Stra\u{df}e".as_bytes(),
            "e\u{301}".as_bytes(),
            "\u{e9}".as_bytes(),
        ];
        for name in names {
            self.file([b"odd/", name].concat(), name)?;
        }
        for length in [254, 255] {
            self.file([&b"odd/"[..], &vec![b'n'; length]].concat(), b"long")?;
            self.dir([&b"odd/"[..], &vec![b'd'; length]].concat())?;
        }
        self.file([&b"odd/"[..], &[0xfe; 255]].concat(), b"long and no UTF-8")
    }

    /// Symbolic links of every fate, and hard links.
    fn links(&mut self) -> io::Result<()> {
        self.dir("links")?;
        self.link("../wide/file-0001", "links/relative")?;
        self.link("/etc/hostname", "links/absolute")?;
        self.link("nowhere", "links/dangling")?;
        self.link("loop-b", "links/loop-a")?;
        self.link("loop-a", "links/loop-b")?;
        self.link("self", "links/self")?;
        self.link(".", "links/here")?;
        self.link("../many", "links/directory")?;
        self.link([b"odd", &[0xff; 5][..], b"\n"].concat(), "links/odd-target")?;
        self.link(vec![b'x'; 4000], "links/long-target")?;
        self.file("links/first-name", b"one file, three names\n")?;
        for name in [&b"links/second-name"[..], b"many/third-name"] {
            self.made += 1;
            self.fs.link(b"links/first-name", name)?;
        }
        Ok(())
    }

    /// All permission bits once. Without root, a file that its owner may not read could not be
    /// compared.
    fn modes(&mut self) -> io::Result<()> {
        self.dir("modes")?;
        let least = if geteuid().is_root() { 0 } else { 0o400 };
        for mode in [
            0o000, 0o400, 0o444, 0o600, 0o644, 0o666, 0o711, 0o755, 0o777, 0o4755, 0o2755, 0o1644,
            0o7777,
        ] {
            self.file(format!("modes/{mode:04o}"), b"x")?;
            self.fs
                .chmod(format!("modes/{mode:04o}").as_bytes(), mode | least)?;
        }
        for mode in [0o700, 0o1777, 0o2775] {
            self.dir(format!("modes/d{mode:04o}"))?;
            self.fs
                .chmod(format!("modes/d{mode:04o}").as_bytes(), mode)?;
        }
        Ok(())
    }

    /// Times with nanoseconds, before 1970 and after 2038, on files, directories and links.
    fn times(&mut self) -> io::Result<()> {
        self.dir("times")?;
        let times = [
            (0, 0),
            (0, 1),
            (-1, 999_999_999),
            (-1_000_000_000, 5),
            (1, 123_456_789),
            (i64::from(i32::MAX), 0),
        ];
        let late = (1 << 32) + 7;
        for (n, (seconds, nanos)) in times.into_iter().chain([(late, 250)]).enumerate() {
            let time = Time { seconds, nanos };
            self.file(format!("times/file-{n}"), b"x")?;
            self.dir(format!("times/dir-{n}"))?;
            self.link("x", &format!("times/link-{n}"))?;
            for kind in ["file", "dir", "link"] {
                self.fs
                    .set_mtime(format!("times/{kind}-{n}").as_bytes(), time)?;
            }
        }
        Ok(())
    }
}

/// Bytes that look random, the same for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
