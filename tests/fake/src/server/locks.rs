//! POSIX record locks and BSD locks on the server.

use std::collections::BTreeMap;

use super::message::{Args, Body, Stop, frame, malformed};
use super::{Handled, Outcome, Request, Server};
use crate::abi::{Op, fail, init};
use crate::memfs::Ino;

const FLOCK: u32 = 1;
const RDLCK: u32 = libc::F_RDLCK as u32;
const WRLCK: u32 = libc::F_WRLCK as u32;
const UNLCK: u32 = libc::F_UNLCK as u32;

/// A lock that is held or wanted. `end` is part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Who: opaque, of the client's making.
    pub owner: u64,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// `F_RDLCK`, `F_WRLCK` or `F_UNLCK`.
    pub kind: u32,
    /// Process that GETLK names.
    pub pid: u32,
    /// A lock of flock(2); those do not meet record locks.
    pub flock: bool,
}

impl Lock {
    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner
            && self.flock == other.flock
            && self.start <= other.end
            && other.start <= self.end
            && (self.kind == WRLCK || other.kind == WRLCK)
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    unique: u64,
    ino: Ino,
    lock: Lock,
}

#[derive(Debug, Default)]
pub(super) struct Locks {
    held: BTreeMap<Ino, Vec<Lock>>,
    waiting: Vec<Waiter>,
}

impl Locks {
    fn conflict(&self, ino: Ino, lock: &Lock) -> Option<Lock> {
        self.held
            .get(&ino)?
            .iter()
            .find(|held| held.conflicts(lock))
            .copied()
    }

    /// Puts a lock over what its owner holds there.
    fn set(&mut self, ino: Ino, lock: Lock) {
        let held = self.held.entry(ino).or_default();
        let mut kept = Vec::new();
        for old in held.drain(..) {
            let other = old.owner != lock.owner || old.flock != lock.flock;
            if other || old.end < lock.start || old.start > lock.end {
                kept.push(old);
                continue;
            }
            if old.start < lock.start {
                kept.push(Lock {
                    end: lock.start - 1,
                    ..old
                });
            }
            if old.end > lock.end {
                kept.push(Lock {
                    start: lock.end + 1,
                    ..old
                });
            }
        }
        if lock.kind != UNLCK {
            kept.push(lock);
        }
        if kept.is_empty() {
            self.held.remove(&ino);
        } else {
            self.held.insert(ino, kept);
        }
    }

    /// Says whether `owner` waiting for `on` closes a circle.
    fn deadlocks(&self, owner: u64, on: u64) -> bool {
        let mut seen = vec![on];
        let mut next = 0;
        while let Some(&holder) = seen.get(next) {
            next += 1;
            if holder == owner {
                return true;
            }
            for waiter in self.waiting.iter().filter(|w| w.lock.owner == holder) {
                let held = self.held.get(&waiter.ino).into_iter().flatten();
                for lock in held.filter(|held| held.conflicts(&waiter.lock)) {
                    if !seen.contains(&lock.owner) {
                        seen.push(lock.owner);
                    }
                }
            }
        }
        false
    }

    pub(super) fn stop_waiting(&mut self, unique: u64) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiter| waiter.unique != unique);
        self.waiting.len() < before
    }
}

impl Server {
    fn lock_args(&mut self, request: &Request, mut args: Args) -> Result<(Ino, Lock), Stop> {
        let (fh, owner, start, end) = (args.u64()?, args.u64()?, args.u64()?, args.u64()?);
        let (kind, pid, flags) = (args.u32()?, args.u32()?, args.u32()?);
        args.reserved(4)?;
        args.end()?;
        let flock = flags & FLOCK != 0;
        let needed = if flock {
            init::FLOCK_LOCKS
        } else {
            init::POSIX_LOCKS
        };
        if flags & !FLOCK != 0 || kind > 2 || start > end || !self.has(needed) {
            return malformed(format!(
                "lock of type {kind}, {start} to {end}, flags {flags:#x}, not negotiated: {}",
                !self.has(needed)
            ));
        }
        let ino = self.handle_of(request.nodeid, fh)?.ino;
        Ok((
            ino,
            Lock {
                owner,
                start,
                end,
                kind,
                pid,
                flock,
            },
        ))
    }

    pub(super) fn op_getlk(&mut self, request: &Request, args: Args) -> Handled {
        let (ino, lock) = self.lock_args(request, args)?;
        let body = Body::default();
        Ok(match self.locks.conflict(ino, &lock) {
            Some(held) => body
                .u64(held.start)
                .u64(held.end)
                .u32(held.kind)
                .u32(held.pid),
            None => body.u64(lock.start).u64(lock.end).u32(UNLCK).u32(0),
        })
    }

    pub(super) fn op_setlk(&mut self, request: &Request, args: Args) -> Handled {
        let (ino, lock) = self.lock_args(request, args)?;
        debug_assert!(matches!(lock.kind, RDLCK | WRLCK | UNLCK));
        if lock.kind != UNLCK
            && let Some(held) = self.locks.conflict(ino, &lock)
        {
            if request.op == Op::SETLK {
                return Ok(fail(libc::EAGAIN)?);
            }
            if !lock.flock && self.locks.deadlocks(lock.owner, held.owner) {
                return Ok(fail(libc::EDEADLK)?);
            }
            self.locks.waiting.push(Waiter {
                unique: request.unique,
                ino,
                lock,
            });
            return Err(Stop::Park);
        }
        self.locks.set(ino, lock);
        self.grant_waiting();
        Ok(Body::default())
    }

    /// Gives those who wait what is free now, in the order they came.
    fn grant_waiting(&mut self) {
        let mut i = 0;
        while let Some(&Waiter { unique, ino, lock }) = self.locks.waiting.get(i) {
            if self.locks.conflict(ino, &lock).is_some() {
                i += 1;
                continue;
            }
            self.locks.waiting.remove(i);
            self.locks.set(ino, lock);
            let bytes = frame(unique, 0, &[]);
            self.ready.push((
                unique,
                Outcome::Reply {
                    bytes,
                    grants: Vec::new(),
                },
            ));
        }
    }

    fn drop_locks(&mut self, ino: Ino, owner: u64, flock: bool) {
        let all = Lock {
            owner,
            start: 0,
            end: u64::MAX,
            kind: UNLCK,
            pid: 0,
            flock,
        };
        self.locks.set(ino, all);
        self.grant_waiting();
    }

    pub(super) fn drop_posix_locks(&mut self, ino: Ino, owner: u64) {
        self.drop_locks(ino, owner, false);
    }

    pub(super) fn drop_flocks(&mut self, ino: Ino, owner: u64) {
        self.drop_locks(ino, owner, true);
    }

    pub(crate) fn held_locks(&self, ino: Ino) -> Vec<Lock> {
        self.locks.held.get(&ino).cloned().unwrap_or_default()
    }
}
