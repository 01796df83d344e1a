//! Making, linking, renaming and forgetting.

layout! {
    /// Arguments of FORGET.
    ForgetIn = "fuse_forget_in", 8 {
        nlookup @ 0: u64,
    }
    /// Opens the arguments of BATCH_FORGET.
    BatchForgetIn = "fuse_batch_forget_in", 8 {
        count @ 0: u32, dummy @ 4: u32,
    }
    /// One node of a BATCH_FORGET.
    ForgetOne = "fuse_forget_one", 16 {
        nodeid @ 0: u64, nlookup @ 8: u64,
    }
    /// Arguments of MKNOD; the name follows. Only the first 8 bytes before 7.12.
    MknodIn = "fuse_mknod_in", 16 {
        mode @ 0: u32, rdev @ 4: u32, umask @ 8: u32, padding @ 12: u32,
    }
    /// Arguments of MKDIR; the name follows.
    MkdirIn = "fuse_mkdir_in", 8 {
        mode @ 0: u32, umask @ 4: u32,
    }
    /// Arguments of RENAME; the old and the new name follow.
    RenameIn = "fuse_rename_in", 8 {
        newdir @ 0: u64,
    }
    /// Arguments of RENAME2; the old and the new name follow.
    Rename2In = "fuse_rename2_in", 16 {
        newdir @ 0: u64, flags @ 8: u32, padding @ 12: u32,
    }
    /// Arguments of LINK; the new name follows.
    LinkIn = "fuse_link_in", 8 {
        oldnodeid @ 0: u64,
    }
    /// Arguments of ACCESS.
    AccessIn = "fuse_access_in", 8 {
        mask @ 0: u32, padding @ 4: u32,
    }
    /// Arguments of CREATE and TMPFILE; the name follows. Only the first 8
    /// bytes before 7.12.
    CreateIn = "fuse_create_in", 16 {
        flags @ 0: u32, mode @ 4: u32, umask @ 8: u32, open_flags @ 12: u32,
    }
    /// Arguments of OPEN and OPENDIR.
    OpenIn = "fuse_open_in", 8 {
        flags @ 0: u32, open_flags @ 4: u32,
    }
    /// Reply to OPEN and OPENDIR, and the end of the reply to CREATE.
    ///
    /// The last field is `backing_id` since 7.40; it has no use over virtio.
    OpenOut = "fuse_open_out", 16 {
        fh @ 0: u64, open_flags @ 8: u32, padding @ 12: u32,
    }
    /// Arguments of RELEASE and RELEASEDIR.
    ReleaseIn = "fuse_release_in", 24 {
        fh @ 0: u64, flags @ 8: u32, release_flags @ 12: u32, lock_owner @ 16: u64,
    }
    /// Arguments of FLUSH.
    FlushIn = "fuse_flush_in", 24 {
        fh @ 0: u64, unused @ 8: u32, padding @ 12: u32, lock_owner @ 16: u64,
    }
    /// Arguments of FSYNC and FSYNCDIR.
    FsyncIn = "fuse_fsync_in", 16 {
        fh @ 0: u64, fsync_flags @ 8: u32, padding @ 12: u32,
    }
    /// Arguments of SETXATTR; name and value follow. Only the first 8 bytes
    /// unless SETXATTR_EXT was negotiated.
    SetxattrIn = "fuse_setxattr_in", 16 {
        size @ 0: u32, flags @ 4: u32, setxattr_flags @ 8: u32, padding @ 12: u32,
    }
    /// Arguments of GETXATTR and LISTXATTR.
    GetxattrIn = "fuse_getxattr_in", 8 {
        size @ 0: u32, padding @ 4: u32,
    }
    /// Reply to GETXATTR and LISTXATTR of size 0.
    GetxattrOut = "fuse_getxattr_out", 8 {
        size @ 0: u32, padding @ 4: u32,
    }
}
