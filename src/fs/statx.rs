//! statx(2): attributes with the time of creation.

use alloc::sync::Arc;

use super::{Inode, Metadata};
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{self, AttrReply, Opcode, StatxFlags, StatxMask, Time};

/// All that statx(2) returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statx {
    /// What stat(2) has.
    pub metadata: Metadata,
    /// Time of creation, where the server knows it.
    pub btime: Option<Time>,
    /// Properties of the file (`STATX_ATTR_*`) that the server supports.
    pub attributes: u64,
    /// Which properties it supports.
    pub attributes_mask: u64,
}

impl<P: Platform> Inode<P> {
    /// Returns the attributes and, if the server can say, when the inode was
    /// made: statx(2). Blocks: only GETATTR's part is kept.
    ///
    /// A server without STATX is asked for the attributes alone.
    ///
    /// # Errors
    ///
    /// As [`metadata`](Self::metadata).
    pub fn statx(self: &Arc<Self>) -> Result<Statx> {
        self.check()?;
        let fs = &self.fs;
        let request = wire::Statx {
            node: self.node,
            fh: None,
            flags: StatxFlags::empty(),
            mask: StatxMask::BASIC_STATS | StatxMask::BTIME,
        };
        let asked = fs.ask_now();
        let Some(reply) = fs.lacking.unless(Opcode::Statx, || fs.conn.ask(&request)) else {
            return Ok(Statx {
                metadata: self.metadata()?,
                btime: None,
                attributes: 0,
                attributes_mask: 0,
            });
        };
        let reply = reply.inspect_err(|error| self.note_stale(*error))?;
        let metadata = match reply.attr {
            Some(mut attr) => {
                // They are no part of this reply, and do not change.
                attr.flags = self.last_attr().flags;
                let valid = reply.valid;
                Metadata {
                    device: self.device(),
                    attr: self.take_attr_reply(AttrReply { valid, attr }, asked)?,
                }
            }
            None => self.metadata()?,
        };
        Ok(Statx {
            metadata,
            btime: reply.btime,
            attributes: reply.attributes,
            attributes_mask: reply.attributes_mask,
        })
    }
}
