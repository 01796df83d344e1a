//! Directory records. The name follows each, padded to 8 bytes.

use super::EntryOut;

layout! {
    /// A record of READDIR without its name.
    Dirent = "fuse_dirent", 24 {
        ino @ 0: u64, off @ 8: u64, namelen @ 16: u32, kind @ 20: u32,
    }
    /// A record of READDIRPLUS without its name.
    Direntplus = "fuse_direntplus", 152 {
        entry_out @ 0: EntryOut, dirent @ 128: Dirent,
    }
}
