//! What all operations have in common.

use core::fmt;

use super::{Dialect, Malformed, NodeId, Opcode, Payload, ReplyShape, Unique, Writer};

/// One operation: its opcode, its arguments, the shape of its reply, and how to
/// parse that.
///
/// Prints as one readable line: `LOOKUP node=1 "hello.txt"`.
pub trait Request: fmt::Display {
    /// Number of the operation.
    const OPCODE: Opcode;
    /// What a successful reply consists of.
    const REPLY: ReplyShape;
    /// What a successful reply means.
    type Reply;

    /// Returns the node that the request is about, `None` for the few that are
    /// about none.
    fn node(&self) -> Option<NodeId>;

    /// Returns the id to send it under, where the server has chosen one.
    fn unique(&self) -> Option<Unique> {
        None
    }

    /// Appends what stands between the header and the outgoing data.
    fn encode(&self, w: &mut Writer<'_>);

    /// Returns how many bytes of outgoing data follow the arguments, in
    /// segments of the caller's.
    fn data_out(&self) -> usize {
        0
    }

    /// Returns how many bytes of incoming data there must be room for behind
    /// the fixed part of the reply, in segments of the caller's. Exactly as
    /// many: servers fail or answer short if there are more or fewer.
    fn data_in(&self) -> usize {
        0
    }

    /// Parses the payload of a reply that [`check_reply`](super::check_reply)
    /// let pass. Data are counted, not touched.
    ///
    /// # Errors
    ///
    /// What is wrong with it; the caller of the operation gets EIO.
    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Self::Reply, Malformed>;
}
