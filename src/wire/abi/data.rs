//! Contents of files: reading, writing, mapping, locking, device control.

layout! {
    /// Arguments of READ, READDIR and READDIRPLUS.
    ReadIn = "fuse_read_in", 40 {
        fh @ 0: u64, offset @ 8: u64, size @ 16: u32, read_flags @ 20: u32,
        lock_owner @ 24: u64, flags @ 32: u32, padding @ 36: u32,
    }
    /// Arguments of WRITE; the data follow. Only the first 24 bytes before 7.9.
    WriteIn = "fuse_write_in", 40 {
        fh @ 0: u64, offset @ 8: u64, size @ 16: u32, write_flags @ 20: u32,
        lock_owner @ 24: u64, flags @ 32: u32, padding @ 36: u32,
    }
    /// Reply to WRITE and COPY_FILE_RANGE.
    WriteOut = "fuse_write_out", 8 {
        size @ 0: u32, padding @ 4: u32,
    }
    /// Arguments of FALLOCATE.
    FallocateIn = "fuse_fallocate_in", 32 {
        fh @ 0: u64, offset @ 8: u64, length @ 16: u64, mode @ 24: u32, padding @ 28: u32,
    }
    /// Arguments of LSEEK.
    LseekIn = "fuse_lseek_in", 24 {
        fh @ 0: u64, offset @ 8: u64, whence @ 16: u32, padding @ 20: u32,
    }
    /// Reply to LSEEK.
    LseekOut = "fuse_lseek_out", 8 {
        offset @ 0: u64,
    }
    /// Arguments of COPY_FILE_RANGE and COPY_FILE_RANGE_64.
    CopyFileRangeIn = "fuse_copy_file_range_in", 56 {
        fh_in @ 0: u64, off_in @ 8: u64, nodeid_out @ 16: u64, fh_out @ 24: u64,
        off_out @ 32: u64, len @ 40: u64, flags @ 48: u64,
    }
    /// Reply to COPY_FILE_RANGE_64 (7.45).
    CopyFileRangeOut = "fuse_copy_file_range_out", 8 {
        bytes_copied @ 0: u64,
    }
    /// Arguments of SETUPMAPPING.
    SetupmappingIn = "fuse_setupmapping_in", 40 {
        fh @ 0: u64, foffset @ 8: u64, len @ 16: u64, flags @ 24: u64, moffset @ 32: u64,
    }
    /// Opens the arguments of REMOVEMAPPING. The entries follow at byte 4, so
    /// they are not aligned.
    RemovemappingIn = "fuse_removemapping_in", 4 {
        count @ 0: u32,
    }
    /// One mapping to remove.
    RemovemappingOne = "fuse_removemapping_one", 16 {
        moffset @ 0: u64, len @ 8: u64,
    }
    /// A range of a file with its lock.
    FileLock = "fuse_file_lock", 24 {
        start @ 0: u64, end @ 8: u64, kind @ 16: u32, pid @ 20: u32,
    }
    /// Arguments of GETLK, SETLK and SETLKW.
    LkIn = "fuse_lk_in", 48 {
        fh @ 0: u64, owner @ 8: u64, lk @ 16: FileLock, lk_flags @ 40: u32, padding @ 44: u32,
    }
    /// Reply to GETLK.
    LkOut = "fuse_lk_out", 24 {
        lk @ 0: FileLock,
    }
    /// Arguments of BMAP.
    BmapIn = "fuse_bmap_in", 16 {
        block @ 0: u64, blocksize @ 8: u32, padding @ 12: u32,
    }
    /// Reply to BMAP.
    BmapOut = "fuse_bmap_out", 8 {
        block @ 0: u64,
    }
    /// Arguments of IOCTL; the data follow.
    IoctlIn = "fuse_ioctl_in", 32 {
        fh @ 0: u64, flags @ 8: u32, cmd @ 12: u32, arg @ 16: u64,
        in_size @ 24: u32, out_size @ 28: u32,
    }
    /// A buffer that a server asks for in a retried IOCTL.
    IoctlIovec = "fuse_ioctl_iovec", 16 {
        base @ 0: u64, len @ 8: u64,
    }
    /// Reply to IOCTL; the data follow.
    IoctlOut = "fuse_ioctl_out", 16 {
        result @ 0: i32, flags @ 4: u32, in_iovs @ 8: u32, out_iovs @ 12: u32,
    }
    /// Arguments of POLL.
    PollIn = "fuse_poll_in", 24 {
        fh @ 0: u64, kh @ 8: u64, flags @ 16: u32, events @ 20: u32,
    }
    /// Reply to POLL.
    PollOut = "fuse_poll_out", 8 {
        revents @ 0: u32, padding @ 4: u32,
    }
}
