//! What follows the header of a notification.

layout! {
    /// POLL: a file that was polled is ready.
    NotifyPollWakeupOut = "fuse_notify_poll_wakeup_out", 8 {
        kh @ 0: u64,
    }
    /// INVAL_INODE: attributes and a range of data are stale.
    NotifyInvalInodeOut = "fuse_notify_inval_inode_out", 24 {
        ino @ 0: u64, off @ 8: i64, len @ 16: i64,
    }
    /// INVAL_ENTRY: a name is stale. Name and NUL follow.
    NotifyInvalEntryOut = "fuse_notify_inval_entry_out", 16 {
        parent @ 0: u64, namelen @ 8: u32, flags @ 12: u32,
    }
    /// DELETE: a name is gone. Name and NUL follow.
    NotifyDeleteOut = "fuse_notify_delete_out", 24 {
        parent @ 0: u64, child @ 8: u64, namelen @ 16: u32, padding @ 20: u32,
    }
    /// STORE: data for the page cache follow.
    NotifyStoreOut = "fuse_notify_store_out", 24 {
        nodeid @ 0: u64, offset @ 8: u64, size @ 16: u32, padding @ 20: u32,
    }
    /// RETRIEVE: data of the page cache are wanted.
    NotifyRetrieveOut = "fuse_notify_retrieve_out", 32 {
        notify_unique @ 0: u64, nodeid @ 8: u64, offset @ 16: u64,
        size @ 24: u32, padding @ 28: u32,
    }
    /// Arguments of NOTIFY_REPLY, the answer to RETRIEVE; the data follow.
    NotifyRetrieveIn = "fuse_notify_retrieve_in", 40 {
        dummy1 @ 0: u64, offset @ 8: u64, size @ 16: u32, dummy2 @ 20: u32,
        dummy3 @ 24: u64, dummy4 @ 32: u64,
    }
    /// PRUNE: nodes that the server would like to be forgotten (7.45); their
    /// ids follow, 8 bytes each.
    NotifyPruneOut = "fuse_notify_prune_out", 16 {
        count @ 0: u32, padding @ 4: u32, spare @ 8: u64,
    }
}
