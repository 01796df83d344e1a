//! Notifications from the server (protocol.md 2.5).

use super::message::{Args, Body, Stop, malformed};
use super::{Handled, Request, Server};

/// Something that the server tells the client unasked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// A file that was polled is ready.
    Poll {
        /// Handle that POLL came with.
        kh: u64,
    },
    /// Attributes, and data from `off` on, are stale; `off` < 0: attributes only.
    InvalInode {
        /// The node.
        nodeid: u64,
        /// Where the stale data begins.
        off: i64,
        /// Its length; 0 or less: to the end.
        len: i64,
    },
    /// A name is stale.
    InvalEntry {
        /// The directory.
        parent: u64,
        /// The name.
        name: Vec<u8>,
        /// Only its validity ends (`FUSE_EXPIRE_ONLY`).
        flags: u32,
    },
    /// Data to put into the client's cache.
    Store {
        /// The node.
        nodeid: u64,
        /// Where it belongs.
        offset: u64,
        /// The bytes.
        data: Vec<u8>,
    },
    /// A wish for data out of the client's cache, answered with NOTIFY_REPLY.
    Retrieve {
        /// Comes back in the answer.
        notify_unique: u64,
        /// The node.
        nodeid: u64,
        /// Where the data begins.
        offset: u64,
        /// How much of it.
        size: u32,
    },
    /// A name is gone, and the file with it.
    Delete {
        /// The directory.
        parent: u64,
        /// What the name meant.
        child: u64,
        /// The name.
        name: Vec<u8>,
    },
    /// All requests are to be sent again.
    Resend,
    /// All names are stale.
    IncEpoch,
    /// Nodes to drop.
    Prune {
        /// The nodes.
        nodeids: Vec<u64>,
    },
    /// Anything else: code and payload as they are.
    Raw {
        /// `error` of the header.
        code: i32,
        /// What follows it.
        payload: Vec<u8>,
    },
}

impl Notification {
    /// Returns the message with its header.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let body = Body::default();
        let (code, body) = match self {
            Self::Poll { kh } => (1, body.u64(*kh)),
            Self::InvalInode { nodeid, off, len } => {
                (2, body.u64(*nodeid).u64(*off as u64).u64(*len as u64))
            }
            Self::InvalEntry {
                parent,
                name,
                flags,
            } => {
                let body = body.u64(*parent).u32(name.len() as u32).u32(*flags);
                (3, body.raw(name).zeros(1))
            }
            Self::Store {
                nodeid,
                offset,
                data,
            } => {
                let body = body.u64(*nodeid).u64(*offset).u32(data.len() as u32).u32(0);
                (4, body.raw(data))
            }
            Self::Retrieve {
                notify_unique,
                nodeid,
                offset,
                size,
            } => (
                5,
                body.u64(*notify_unique)
                    .u64(*nodeid)
                    .u64(*offset)
                    .u32(*size)
                    .u32(0),
            ),
            Self::Delete {
                parent,
                child,
                name,
            } => {
                let body = body.u64(*parent).u64(*child).u32(name.len() as u32).u32(0);
                (6, body.raw(name).zeros(1))
            }
            Self::Resend => (7, body),
            Self::IncEpoch => (8, body),
            Self::Prune { nodeids } => {
                let body = body.u32(nodeids.len() as u32).zeros(12);
                (9, nodeids.iter().fold(body, |body, &id| body.u64(id)))
            }
            Self::Raw { code, payload } => (*code, body.raw(payload)),
        };
        super::frame(0, code, &body.bytes)
    }
}

impl Server {
    pub(crate) fn notify(&mut self, notification: &Notification) {
        self.outbox.push_back(notification.encode());
    }

    pub(super) fn op_notify_reply(&mut self, request: &Request, mut args: Args) -> Handled {
        args.bytes(16)?;
        let size = args.u32()? as usize;
        args.bytes(20)?;
        let data = args.rest();
        if data.len() != size {
            return malformed(format!("NOTIFY_REPLY of {size} bytes has {}", data.len()));
        }
        self.retrieved.push((request.unique, data.to_vec()));
        Err(Stop::Silent)
    }
}
