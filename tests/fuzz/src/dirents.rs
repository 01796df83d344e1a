//! Directory records: whatever the bytes are, both iterators end, yield what a second, naive reader
//! yields, and nothing that a name may not be.

use virtio_fs::wire::{Dirents, DirentsPlus, EntryName, NAME_MAX};
use virtio_fs_calls::Source;

use crate::input::Input;

/// Reads the bytes as READDIR's and as READDIRPLUS's reply.
///
/// # Panics
///
/// On a finding.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limit = input.of(&[255, NAME_MAX, 1, 8]);
    let bytes = input.take(usize::MAX);

    let plain: Vec<_> = Dirents::new(bytes, limit).collect();
    let names: Vec<_> = plain.iter().flatten().map(|d| d.name.as_bytes()).collect();
    assert_eq!(names, naive(bytes, 0, limit), "READDIR");
    check(
        bytes,
        limit,
        plain.iter().map(|r| r.as_ref().ok().map(|d| d.name)),
    );

    let plus: Vec<_> = DirentsPlus::new(bytes, limit).collect();
    let names = plus.iter().flatten().map(|p| p.dirent.name.as_bytes());
    let expected = naive(bytes, 128, limit);
    // An entry that is nonsense ends the list earlier.
    assert!(names.clone().count() <= expected.len());
    assert!(names.zip(expected).all(|(a, b)| a == b), "READDIRPLUS");
    for entry in plus.iter().flatten().filter_map(|p| p.entry.as_ref()) {
        super::wire::check_entry(entry);
    }
    check(
        bytes,
        limit,
        plus.iter().map(|r| r.as_ref().ok().map(|p| p.dirent.name)),
    );
}

/// Only the last item may be an error, and each good one takes at least 32 bytes.
fn check<'a>(
    bytes: &[u8],
    limit: usize,
    items: impl ExactSizeIterator<Item = Option<EntryName<'a>>>,
) {
    let count = items.len();
    assert!(count <= bytes.len() / 32 + 1, "{count} records");
    for (at, item) in items.enumerate() {
        match item {
            None => assert_eq!(at + 1, count, "records behind an error"),
            Some(EntryName::Dot | EntryName::DotDot) => (),
            Some(EntryName::Name(name)) => {
                let name = name.as_bytes();
                assert!(!name.is_empty() && name.len() <= limit);
                assert!(!name.contains(&0) && !name.contains(&b'/'));
                assert!(name != b"." && name != b"..");
            }
        }
    }
}

/// The names of the records, by `struct fuse_dirent` and nothing else, up to the first that is wrong.
fn naive(bytes: &[u8], head: usize, limit: usize) -> Vec<&[u8]> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some(len) = bytes.get(at + head + 16..at + head + 20) else {
            break;
        };
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        let begin = at + head + 24;
        let (Some(name), true) = (bytes.get(begin..begin.saturating_add(len)), len <= limit) else {
            break;
        };
        let next = begin + len.div_ceil(8) * 8;
        if name.is_empty() || name.contains(&0) || name.contains(&b'/') || next > bytes.len() {
            break;
        }
        names.push(name);
        at = next;
    }
    names
}
