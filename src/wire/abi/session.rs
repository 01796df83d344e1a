//! Headers, INIT, INTERRUPT, STATFS, SYNCFS, and the extension blocks.

layout! {
    /// Opens every request.
    InHeader = "fuse_in_header", 40 {
        len @ 0: u32, opcode @ 4: u32, unique @ 8: u64, nodeid @ 16: u64,
        uid @ 24: u32, gid @ 28: u32, pid @ 32: u32,
        total_extlen @ 36: u16, padding @ 38: u16,
    }
    /// Opens every reply and every notification.
    OutHeader = "fuse_out_header", 16 {
        len @ 0: u32, error @ 4: i32, unique @ 8: u64,
    }
    /// Arguments of INIT. Before 7.36 only the first 16 bytes.
    InitIn = "fuse_init_in", 64 {
        major @ 0: u32, minor @ 4: u32, max_readahead @ 8: u32, flags @ 12: u32,
        flags2 @ 16: u32, unused @ 20: [u32; 11],
    }
    /// Reply to INIT. 8 bytes from servers before 7.5, 24 before 7.23.
    InitOut = "fuse_init_out", 64 {
        major @ 0: u32, minor @ 4: u32, max_readahead @ 8: u32, flags @ 12: u32,
        max_background @ 16: u16, congestion_threshold @ 18: u16,
        max_write @ 20: u32, time_gran @ 24: u32,
        max_pages @ 28: u16, map_alignment @ 30: u16,
        flags2 @ 32: u32, max_stack_depth @ 36: u32,
        request_timeout @ 40: u16, unused @ 42: [u16; 11],
    }
    /// Arguments of INTERRUPT.
    InterruptIn = "fuse_interrupt_in", 8 {
        unique @ 0: u64,
    }
    /// Reply to STATFS. 48 bytes from servers before 7.4.
    StatfsOut = "fuse_statfs_out", 80 {
        blocks @ 0: u64, bfree @ 8: u64, bavail @ 16: u64, files @ 24: u64,
        ffree @ 32: u64, bsize @ 40: u32, namelen @ 44: u32, frsize @ 48: u32,
        padding @ 52: u32, spare @ 56: [u32; 6],
    }
    /// Arguments of SYNCFS.
    SyncfsIn = "fuse_syncfs_in", 8 {
        padding @ 0: u64,
    }
    /// Opens an extension block.
    ExtHeader = "fuse_ext_header", 8 {
        size @ 0: u32, kind @ 4: u32,
    }
    /// Opens a block of security contexts: the same 8 bytes, with the number of
    /// contexts in place of the type.
    SecctxHeader = "fuse_secctx_header", 8 {
        size @ 0: u32, nr_secctx @ 4: u32,
    }
    /// Opens one security context; name, NUL and value follow.
    Secctx = "fuse_secctx", 8 {
        size @ 0: u32, padding @ 4: u32,
    }
}
