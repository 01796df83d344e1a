//! Asking the server for locks, and dropping those that come too late.
//!
//! A caller who gave up leaves a request that the server may grant much later,
//! and then holds a lock that nobody knows of. So what was asked for is noted
//! until the answer came; a lock that is granted to nobody is dropped at once. The
//! range is dropped whole: what its owner held there before goes with it, and the
//! owner, who was killed or told of a timeout, must not count on it. The file
//! stays open on the server until then (as in Linux, where the request holds it).

use super::Connection;
use super::call::ReplyIds;
use super::pool::Class;
use super::slot::{Slot, SlotState};
use crate::device::Data;
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{
    Dialect, FileHandle, Lock, LockArgs, LockKind, Malformed, NodeId, Opcode, Payload, ReplyShape,
    Request, Setlk, Setlkw, Unique, Writer,
};
use core::fmt;
use core::sync::atomic::Ordering::Relaxed;

/// A lock that was asked for.
pub(super) struct Asked {
    /// The request's id; `None` for a lock that was granted to nobody and is still
    /// to be dropped.
    unique: Option<Unique>,
    args: LockArgs,
}

/// SETLK or SETLKW under an id that is known before.
struct Known<R> {
    request: R,
    unique: Unique,
}

impl<R: Request> Request for Known<R> {
    const OPCODE: Opcode = R::OPCODE;
    const REPLY: ReplyShape = R::REPLY;
    type Reply = R::Reply;

    fn node(&self) -> Option<NodeId> {
        self.request.node()
    }

    fn unique(&self) -> Option<Unique> {
        Some(self.unique)
    }

    fn encode(&self, w: &mut Writer<'_>) {
        self.request.encode(w);
    }

    fn decode(payload: Payload<'_>, dialect: &Dialect) -> Result<Self::Reply, Malformed> {
        R::decode(payload, dialect)
    }
}

impl<R: fmt::Display> fmt::Display for Known<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

impl<P: Platform> Connection<P> {
    /// Takes or drops a lock on the server; EAGAIN if another is in the way. Blocks.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub fn set_lock(&self, args: LockArgs) -> Result<()> {
        let class = match args.lock.kind {
            // Others wait for it.
            LockKind::Unlock => Class::Forced,
            LockKind::Read | LockKind::Write => Class::Normal,
        };
        self.ask_lock(Setlk(args), args, class)
    }

    /// Takes a lock on the server when those in the way have gone. Blocks.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call).
    pub fn wait_for_lock(&self, args: LockArgs) -> Result<()> {
        self.ask_lock(Setlkw(args), args, Class::Lock)
    }

    fn ask_lock<R: Request<Reply = ()>>(
        &self,
        request: R,
        args: LockArgs,
        class: Class,
    ) -> Result<()> {
        let unique = self.unique();
        self.locks.lock().push(Asked {
            unique: Some(unique),
            args,
        });
        let result = self.call(&Known { request, unique }, Data::None, class);
        let left = |slot: &Slot<P>| {
            let nobodys = matches!(slot.state(), SlotState::Orphan | SlotState::Returned);
            nobodys && slot.unique.load(Relaxed) == unique.get()
        };
        // Whoever cleans up after a request that was given up does it there.
        if result.is_ok() || !self.pool.iter().any(|(_, slot)| left(slot)) {
            self.answered(unique);
        }
        result
    }

    fn answered(&self, unique: Unique) -> Option<LockArgs> {
        let mut locks = self.locks.lock();
        let at = locks
            .iter()
            .position(|asked| asked.unique == Some(unique))?;
        Some(locks.swap_remove(at).args)
    }

    /// Notes the answer to a request that nobody waited for. Returns the lock that
    /// is to be dropped, if one was granted.
    pub(super) fn stray_lock(&self, slot: &Slot<P>) -> Option<LockArgs> {
        let args = self.answered(Unique::new(slot.unique.load(Relaxed))?)?;
        let taken = args.lock.kind != LockKind::Unlock;
        let reply = self.read_reply::<Setlkw>(slot, Setlkw::REPLY.fixed_area(), ReplyIds::Ours);
        (taken && reply.is_ok()).then_some(args)
    }

    /// Drops a lock that nobody wanted any more. Does not block; without a free
    /// slot it happens later.
    pub(super) fn drop_lock(&self, args: LockArgs) {
        if !self.names.has_handle(args.node, args.fh) {
            return;
        }
        let lock = Lock {
            kind: LockKind::Unlock,
            ..args.lock
        };
        let unlock = LockArgs { lock, ..args };
        let unique = self.unique();
        self.locks.lock().push(Asked {
            unique: Some(unique),
            args: unlock,
        });
        let request = Setlk(unlock);
        if !self.post(&Known { request, unique }) {
            self.answered(unique);
            self.locks.lock().push(Asked { unique: None, args });
        }
    }

    /// Drops what could not be dropped at once.
    pub(super) fn drop_locks(&self) {
        loop {
            let due = {
                let mut locks = self.locks.lock();
                let at = locks.iter().position(|asked| asked.unique.is_none());
                at.map(|at| locks.swap_remove(at).args)
            };
            let Some(args) = due else { return };
            self.drop_lock(args);
            if self.locks.lock().iter().any(|asked| asked.unique.is_none()) {
                return;
            }
        }
    }

    /// Returns whether the server has something to do about a lock through this
    /// handle, which is to be closed.
    pub(super) fn is_locking(&self, node: NodeId, fh: FileHandle) -> bool {
        let locks = self.locks.lock();
        locks
            .iter()
            .any(|asked| asked.args.fh == fh && asked.args.node == node)
    }
}
