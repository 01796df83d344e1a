//! Hosts that copy a file up when it is first opened for writing (S1-10).
//!
//! On an overlay file system a file opened for reading is that of the lower layer,
//! and stays so when the first open for writing has copied the file up: who reads
//! through the old handle never sees what is written. So the handles for reading
//! are opened anew then, and take the place of the old ones. Which handle a
//! request carries is nothing that callers see, so nobody keeps the old one (S1-09).

use alloc::sync::Arc;

use super::Inode;
use super::handle::Handle;
use crate::platform::Platform;
use crate::wire::{FileType, FopenFlags, Open, OpenFlags, SetIds};

impl<P: Platform> Inode<P> {
    /// Returns whether an open for writing, now, may copy the file up.
    pub(super) fn may_copy_up(&self) -> bool {
        self.fs.options.copy_up && self.file_type() == FileType::Regular && !self.was_written()
    }

    /// Notes a handle that was opened for reading while the file
    /// [might be copied up](Self::may_copy_up). Blocks if it was meanwhile.
    pub(super) fn opened_for_reading(self: &Arc<Self>, handle: &Arc<Handle<P>>) {
        self.with_extra(|extra| {
            extra.readers.retain(|reader| reader.strong_count() > 0);
            extra.readers.push(Arc::downgrade(handle));
        });
        if self.was_written() {
            self.reopen_readers();
        }
    }

    /// Notes that the file was opened for writing. The first time that brings what
    /// was opened for reading up to date. Blocks then.
    pub(super) fn opened_for_writing(self: &Arc<Self>) {
        if !self.may_copy_up() || self.set_written() {
            return;
        }
        self.reopen_readers();
        // Cached data are the same in the copy; the window shows the file that was
        // mapped.
        if let Err(error) = self.break_layout(0) {
            log::warn!("virtio-fs: {self:?} may be mapped as it was before: {error}");
        }
    }

    fn reopen_readers(&self) {
        let readers = self.with_extra(|extra| core::mem::take(&mut extra.readers));
        for handle in readers.iter().filter_map(|reader| reader.upgrade()) {
            self.reopen(&handle);
        }
    }

    /// Opens a handle anew. If the new one is not as good, the old one stays.
    fn reopen(&self, handle: &Handle<P>) {
        if !handle.is_released() {
            return;
        }
        let keep = |why: &dyn core::fmt::Display| {
            log::warn!("virtio-fs: {self:?} stays open as it was before it was written: {why}");
        };
        if handle.flock_owner().is_some() {
            return keep(&"a lock was taken through it");
        }
        let flags = handle.flags.difference(OpenFlags::TRUNC);
        let request = Open {
            node: self.node,
            flags,
            set_ids: SetIds::Keep,
        };
        match self.fs.conn.ask(&request) {
            Ok(reply) => {
                let differs = reply.flags.symmetric_difference(handle.fopen);
                if differs.difference(FopenFlags::KEEP_CACHE).is_empty() {
                    handle.substitute(reply.fh);
                } else {
                    self.fs.conn.release(self.node, reply.fh, flags);
                    keep(&"the server wants it used otherwise now");
                }
            }
            Err(error) => keep(&error),
        }
    }
}
