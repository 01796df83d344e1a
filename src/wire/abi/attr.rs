//! Attributes: GETATTR, SETATTR, STATX, and the entry that lookups return.

layout! {
    /// Attributes of an inode.
    Attr = "fuse_attr", 88 {
        ino @ 0: u64, size @ 8: u64, blocks @ 16: u64,
        atime @ 24: u64, mtime @ 32: u64, ctime @ 40: u64,
        atimensec @ 48: u32, mtimensec @ 52: u32, ctimensec @ 56: u32,
        mode @ 60: u32, nlink @ 64: u32, uid @ 68: u32, gid @ 72: u32,
        rdev @ 76: u32, blksize @ 80: u32, flags @ 84: u32,
    }
    /// Reply to LOOKUP and to everything that makes a name. 120 bytes from
    /// servers before 7.9.
    EntryOut = "fuse_entry_out", 128 {
        nodeid @ 0: u64, generation @ 8: u64,
        entry_valid @ 16: u64, attr_valid @ 24: u64,
        entry_valid_nsec @ 32: u32, attr_valid_nsec @ 36: u32,
        attr @ 40: Attr,
    }
    /// Arguments of GETATTR.
    GetattrIn = "fuse_getattr_in", 16 {
        getattr_flags @ 0: u32, dummy @ 4: u32, fh @ 8: u64,
    }
    /// Reply to GETATTR and SETATTR. 96 bytes from servers before 7.9.
    AttrOut = "fuse_attr_out", 104 {
        attr_valid @ 0: u64, attr_valid_nsec @ 8: u32, dummy @ 12: u32,
        attr @ 16: Attr,
    }
    /// Arguments of SETATTR.
    SetattrIn = "fuse_setattr_in", 88 {
        valid @ 0: u32, padding @ 4: u32, fh @ 8: u64, size @ 16: u64,
        lock_owner @ 24: u64, atime @ 32: u64, mtime @ 40: u64, ctime @ 48: u64,
        atimensec @ 56: u32, mtimensec @ 60: u32, ctimensec @ 64: u32,
        mode @ 68: u32, unused4 @ 72: u32, uid @ 76: u32, gid @ 80: u32,
        unused5 @ 84: u32,
    }
    /// Arguments of STATX (7.39).
    StatxIn = "fuse_statx_in", 24 {
        getattr_flags @ 0: u32, reserved @ 4: u32, fh @ 8: u64,
        sx_flags @ 16: u32, sx_mask @ 20: u32,
    }
    /// A time in the reply to STATX.
    SxTime = "fuse_sx_time", 16 {
        tv_sec @ 0: i64, tv_nsec @ 8: u32, __reserved @ 12: i32,
    }
    /// Extended attributes of an inode.
    Statx = "fuse_statx", 256 {
        mask @ 0: u32, blksize @ 4: u32, attributes @ 8: u64,
        nlink @ 16: u32, uid @ 20: u32, gid @ 24: u32,
        mode @ 28: u16, __spare0 @ 30: [u16; 1],
        ino @ 32: u64, size @ 40: u64, blocks @ 48: u64, attributes_mask @ 56: u64,
        atime @ 64: SxTime, btime @ 80: SxTime, ctime @ 96: SxTime, mtime @ 112: SxTime,
        rdev_major @ 128: u32, rdev_minor @ 132: u32,
        dev_major @ 136: u32, dev_minor @ 140: u32, __spare2 @ 144: [u64; 14],
    }
    /// Reply to STATX.
    StatxOut = "fuse_statx_out", 288 {
        attr_valid @ 0: u64, attr_valid_nsec @ 8: u32, flags @ 12: u32,
        spare @ 16: [u64; 2], stat @ 32: Statx,
    }
}
