//! Operations that the server turned out not to know.
//!
//! ENOSYS means "never ask again", one bit for each operation and session; any
//! other error belongs to the one call (protocol: `fuse_conn`'s `no_*` bits).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::error::{Error, Result};
use crate::wire::Opcode;

/// What a server lacks.
#[derive(Debug, Default)]
pub(super) struct Lacking(AtomicU64);

impl Lacking {
    /// Returns whether the server is known not to know `opcode`.
    pub(super) fn has(&self, opcode: Opcode) -> bool {
        self.0.load(Relaxed) & bit(opcode) != 0
    }

    /// Notes that it does not.
    pub(super) fn add(&self, opcode: Opcode) {
        if self.0.fetch_or(bit(opcode), Relaxed) & bit(opcode) == 0 {
            log::info!("virtio-fs: server does not know {opcode}");
        }
    }

    /// Forgets what was learnt: another server is there.
    pub(super) fn clear(&self) {
        self.0.store(0, Relaxed);
    }

    /// Sends a request with `send` unless the server is known to lack it, and
    /// learns from the answer. `None` if it lacks it.
    pub(super) fn unless<T>(
        &self,
        opcode: Opcode,
        send: impl FnOnce() -> Result<T>,
    ) -> Option<Result<T>> {
        if self.has(opcode) {
            return None;
        }
        match send() {
            Err(error) if Error::is_nosys(error) => {
                self.add(opcode);
                None
            }
            result => Some(result),
        }
    }
}

/// All opcodes for which this matters are below 64.
const fn bit(opcode: Opcode) -> u64 {
    1 << (opcode.to_wire() & 63)
}
