//! Directory records and lists of extended attributes.

extern crate std;

use core::time::Duration;
use std::vec;
use std::vec::Vec;

use super::*;

fn dirent(ino: u64, next: u64, kind: u32, name: &str) -> Bytes {
    let padding = name.len().next_multiple_of(8) - name.len();
    Bytes::new()
        .u64(ino)
        .u64(next)
        .u32(name.len() as u32)
        .u32(kind)
        .str(name)
        .zeros(padding)
}

/// A record of READDIRPLUS whose attributes are those of a regular file.
fn direntplus(node: u64, mode: u32, name: &str) -> Bytes {
    let attr = Bytes::new().zeros(60).u32(mode).zeros(24);
    let entry = Bytes::new()
        .u64(node)
        .u64(0)
        .u64(1)
        .u64(2)
        .u64(0)
        .join(&attr);
    assert_eq!(entry.0.len(), 128);
    entry.join(&dirent(9, 10, 8, name))
}

fn read(bytes: &[u8]) -> Vec<Result<Dirent<'_>, Malformed>> {
    Dirents::new(bytes, NAME_MAX).collect()
}

fn read_plus(bytes: &[u8]) -> Vec<Result<DirentPlus<'_>, Malformed>> {
    DirentsPlus::new(bytes, NAME_MAX).collect()
}

#[test]
fn records_follow_one_another_with_padding() {
    let bytes = dirent(5, 100, 4, ".")
        .join(&dirent(1, 7, 4, ".."))
        .join(&dirent(6, u64::MAX, 8, "12345678"))
        .join(&dirent(7, 0, 0, "123456789"))
        .join(&dirent(8, 3, 99, "\u{e4}"));
    let entries: Vec<_> = read(&bytes.0).into_iter().map(Result::unwrap).collect();
    let seen: Vec<_> = entries
        .iter()
        .map(|e| (e.ino, e.next.0, e.file_type, e.name.as_bytes()))
        .collect();
    assert_eq!(
        seen,
        [
            (5, 100, Some(FileType::Directory), &b"."[..]),
            (1, 7, Some(FileType::Directory), b".."),
            (6, u64::MAX, Some(FileType::Regular), b"12345678"),
            (7, 0, None, b"123456789"),
            (8, 3, None, "\u{e4}".as_bytes()),
        ]
    );
    assert_eq!(entries[0].name, EntryName::Dot);
    assert_eq!(entries[1].name, EntryName::DotDot);
}

#[test]
fn nothing_is_the_end_and_no_error() {
    assert!(read(&[]).is_empty());
    assert!(read_plus(&[]).is_empty());
}

#[test]
fn a_list_cut_anywhere_yields_its_whole_records_and_one_error() {
    let record = dirent(5, 1, 8, "first");
    let bytes = record.clone().join(&dirent(6, 2, 8, "second")).0;
    for len in 0..=bytes.len() {
        let entries = read(&bytes[..len]);
        let whole = len / record.0.len();
        let cut = usize::from(!len.is_multiple_of(record.0.len()));
        assert_eq!(entries.iter().filter(|e| e.is_ok()).count(), whole, "{len}");
        assert_eq!(entries.len(), whole + cut, "{len}");
        if cut == 1 {
            assert_eq!(entries[whole], Err(Malformed::Truncated), "{len}");
        }
    }
    let bytes = direntplus(3, 0o100_644, "first").0;
    for len in 1..bytes.len() {
        assert_eq!(
            read_plus(&bytes[..len]),
            [Err(Malformed::Truncated)],
            "{len}"
        );
    }
}

#[test]
fn names_that_cannot_be_are_refused_and_end_the_list() {
    let good = dirent(6, 2, 8, "good");
    for (name, why) in [
        ("a/b", Malformed::NameByte),
        ("a\0b", Malformed::NameByte),
        ("/", Malformed::NameByte),
        ("", Malformed::NameLen(0)),
    ] {
        let bytes = good.clone().join(&dirent(5, 1, 8, name)).join(&good);
        let entries = read(&bytes.0);
        assert_eq!(entries.len(), 2, "{name:?}");
        assert_eq!(entries[1], Err(why), "{name:?}");
    }
}

#[test]
fn name_lengths_are_held_against_the_limit_and_the_reply() {
    for len in [1025, 0x7fff_ffff, 0xffff_fff8, u32::MAX] {
        let mut bytes = Bytes::new().u64(5).u64(1).u32(len).u32(8).0;
        bytes.resize(4096, b'x');
        assert_eq!(read(&bytes), [Err(Malformed::NameLen(len))]);
        // Without the limit the reply itself is too short for all but one.
        let unlimited = Dirents::new(&bytes, usize::MAX).next().unwrap();
        assert_eq!(unlimited.is_ok(), len == 1025, "{len}");
    }
    let longest = "x".repeat(1024);
    assert!(read(&dirent(5, 1, 8, &longest).0)[0].is_ok());
    let short = Dirents::new(&dirent(5, 1, 8, "12345").0, 4)
        .next()
        .map(|e| e.is_err());
    assert_eq!(short, Some(true));
}

#[test]
fn plus_records_bring_the_entry_that_was_counted() {
    let bytes = direntplus(3, 0o100_644, "file")
        .join(&direntplus(4, 0, "bad"))
        .join(&direntplus(0, 0o100_644, "unknown"))
        .join(&direntplus(5, 0o040_755, "."))
        .join(&direntplus(0, 0, ".."))
        .join(&direntplus(1, 0o040_755, "root"));
    let entries: Vec<_> = read_plus(&bytes.0)
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let file = entries[0].entry.unwrap();
    assert_eq!(file.node, node(3));
    assert_eq!(file.entry_valid, Duration::from_secs(1));
    assert_eq!(file.attr_valid, Duration::from_secs(2));
    assert_eq!(file.attr.unwrap().mode.bits(), 0o100_644);
    assert_eq!(entries[0].dirent.name.as_bytes(), b"file");
    let bad = entries[1].entry.unwrap();
    assert_eq!((bad.node, bad.attr), (node(4), Err(Malformed::Mode(0))));
    for uncounted in &entries[2..] {
        assert_eq!(uncounted.entry, None, "{:?}", uncounted.dirent.name);
    }
}

#[test]
fn xattr_names_are_separated_by_nul() {
    let names = |bytes: &'static [u8]| -> Vec<Result<&'static [u8], Malformed>> {
        XattrList::new(bytes)
            .map(|name| name.map(XattrName::as_bytes))
            .collect()
    };
    assert_eq!(names(b""), vec![]);
    assert_eq!(
        names(b"user.a\0security.b\0"),
        [Ok(&b"user.a"[..]), Ok(b"security.b")]
    );
    assert_eq!(
        names(b"user.a\0user"),
        [Ok(&b"user.a"[..]), Err(Malformed::Truncated)]
    );
    assert_eq!(
        names(b"user.a\0\0user.b\0"),
        [Ok(&b"user.a"[..]), Err(Malformed::NameLen(0))]
    );
    assert_eq!(names(b"\0"), [Err(Malformed::NameLen(0))]);
    let long = vec![b'x'; 256].into_iter().chain([0]).collect::<Vec<_>>();
    assert_eq!(
        XattrList::new(&long).next(),
        Some(Err(Malformed::NameLen(256)))
    );
}
