//! Directory entries and positions as the kernel wants them.

use virtio_fs::fs::DirEntry as DriverEntry;

use crate::value::DirEntry;

pub(crate) fn record<'a>(entry: &DriverEntry<'a>) -> DirEntry<'a> {
    DirEntry {
        ino: entry.ino,
        next: entry.next.0,
        kind: entry.file_type.map_or(0, |kind| kind.to_dirent()),
        name: entry.name,
    }
}
