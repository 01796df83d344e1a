//! The Linux guest's initial ramdisk: one program, a console, and places to mount
//! on. The format is cpio's "newc" (Linux: Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{fs, io, path::Path};

/// Writes a ramdisk with `program` as the first process to `to`.
pub(crate) fn write(program: &Path, to: &Path) -> io::Result<()> {
    let program = fs::read(program)?;
    let mut archive = Archive::default();
    for dir in ["dev", "proc", "mnt", "tmp"] {
        archive.add(dir, 0o40_755, (0, 0), &[]);
    }
    archive.add("dev/console", 0o20_600, (5, 1), &[]);
    archive.add("init", 0o100_755, (0, 0), &program);
    archive.add("TRAILER!!!", 0, (0, 0), &[]);
    fs::write(to, archive.bytes)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) {
        self.entries += 1;
        // Inode, mode, owner, group, links, time, size, device, device node, name's
        // length, checksum: each eight hexadecimal digits.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            data.len() as u32,
            0,
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_header_of_110_bytes_a_name_and_data_padded_to_four() {
        let mut archive = Archive::default();
        archive.add("init", 0o100_755, (0, 0), b"abcde");
        let text = String::from_utf8(archive.bytes).unwrap();
        assert!(text.starts_with("07070100000001000081ed"), "{text}");
        assert_eq!(&text[54..62], "00000005", "the size");
        assert_eq!(&text[94..102], "00000005", "the name's length");
        assert_eq!(&text[110..116], "init\0\0");
        assert_eq!(&text[116..], "abcde\0\0\0");
    }
}
