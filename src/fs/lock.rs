//! Advisory locks: fcntl(2) on ranges of a file, flock(2) on a whole one.
//!
//! Where the server keeps locks (POSIX_LOCKS and FLOCK_LOCKS of INIT) it is
//! asked, and other guests see them. Where it does not, or turns out not to know
//! the requests, they are kept [here](super::lock_table), with the same calls.
//!
//! A POSIX lock belongs to a [`LockOwner`], which stands for a process, and goes
//! when that closes any descriptor of the file: [`File::flush`]. A flock belongs
//! to the [`File`] and goes with it.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::lock_table::{Circles, FileKey, LockTable, Outcome, Owned, Ticket};
use super::{File, FileSystem, Inode};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Platform, Signal};
use crate::sync::{Rank, SpinLock, park};
use crate::wire::{
    Getlk, InitFlags, Lock, LockArgs, LockFamily, LockKind, LockOwner, Opcode, SIZE_MAX,
};

/// Whether a lock that is in the way is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockWait {
    /// No: EAGAIN.
    Fail,
    /// Yes, until it goes or the caller is signalled.
    Wait,
}

/// How long a waiter sleeps before it looks at signals again by itself.
const LOOK: Duration = Duration::from_millis(500);

/// Owners are numbered; 0 stands for nobody.
static NEXT_OWNER: AtomicU64 = AtomicU64::new(1);

/// Returns a number under which locks can be held.
pub(super) fn new_owner() -> LockOwner {
    LockOwner(NEXT_OWNER.fetch_add(1, Relaxed))
}

/// The locks that are kept here.
pub(super) struct Locks<P: Platform> {
    posix: SpinLock<LockTable<P::Thread>>,
    flock: SpinLock<LockTable<P::Thread>>,
    /// Those that the server keeps for us, to be taken again after a restart.
    remote_posix: SpinLock<LockTable<P::Thread>>,
    remote_flock: SpinLock<LockTable<P::Thread>>,
}

impl<P: Platform> Default for Locks<P> {
    fn default() -> Self {
        Self {
            remote_posix: SpinLock::new(Rank::Leaf, LockTable::new(Circles::Allowed)),
            remote_flock: SpinLock::new(Rank::Leaf, LockTable::new(Circles::Allowed)),
            posix: SpinLock::new(Rank::Leaf, LockTable::new(Circles::Refused)),
            flock: SpinLock::new(Rank::Leaf, LockTable::new(Circles::Allowed)),
        }
    }
}

impl<P: Platform> Locks<P> {
    fn family(&self, family: LockFamily) -> &SpinLock<LockTable<P::Thread>> {
        match family {
            LockFamily::Posix => &self.posix,
            LockFamily::Flock => &self.flock,
        }
    }

    /// Drops what is left on an inode that is going away.
    pub(super) fn forget(&self, file: FileKey) {
        self.posix.lock().forget(file);
        self.flock.lock().forget(file);
        self.remote_posix.lock().forget(file);
        self.remote_flock.lock().forget(file);
    }

    fn remote(&self, family: LockFamily) -> &SpinLock<LockTable<P::Thread>> {
        match family {
            LockFamily::Posix => &self.remote_posix,
            LockFamily::Flock => &self.remote_flock,
        }
    }

    /// Returns what the server keeps for us. Allocates.
    pub(super) fn kept_remotely(&self, family: LockFamily) -> Vec<(FileKey, Owned)> {
        self.remote(family).lock().held().collect()
    }

    /// Notes that the server granted, or dropped, a lock.
    fn note_remote(&self, family: LockFamily, file: FileKey, owned: Owned) {
        // The server has decided; nothing is in the way here that is not outdated.
        self.remote(family).lock().set(file, owned, |_| ());
    }

    /// Notes that the server dropped all locks of an owner on a file.
    fn drop_remote(&self, family: LockFamily, file: FileKey, owner: LockOwner) {
        self.remote(family).lock().release(file, owner, |_| ());
    }

    /// Notes that a lock could not be taken again.
    pub(super) fn lose_remote(&self, family: LockFamily, file: FileKey, owned: Owned) {
        let lock = Lock {
            kind: LockKind::Unlock,
            ..owned.lock
        };
        self.note_remote(family, file, Owned { lock, ..owned });
    }
}

/// The lock that a flock(2) is: on the whole file.
fn whole(kind: LockKind, pid: u32) -> Lock {
    Lock {
        start: 0,
        end: Lock::END,
        kind,
        pid,
    }
}

impl<P: Platform> FileSystem<P> {
    /// Returns whether the server keeps the locks of a family.
    pub(super) fn locks_remotely(&self, family: LockFamily) -> bool {
        let flag = match family {
            LockFamily::Posix => InitFlags::POSIX_LOCKS,
            LockFamily::Flock => InitFlags::FLOCK_LOCKS,
        };
        self.conn.limits().has(flag) && !self.lacking.has(Opcode::Setlk)
    }
}

impl<P: Platform> Inode<P> {
    /// Names the inode in the tables, which hold no locks for one that is gone.
    pub(super) fn lock_key(&self) -> FileKey {
        core::ptr::from_ref(self) as FileKey
    }

    fn table(&self, family: LockFamily) -> &SpinLock<LockTable<P::Thread>> {
        self.fs.locks.family(family)
    }

    /// Takes or drops a lock that is kept here. Blocks if it waits.
    pub(super) fn lock_here(&self, family: LockFamily, owned: Owned, wait: LockWait) -> Result<()> {
        let platform = self.fs.platform();
        let wake = |thread: &P::Thread| platform.unpark(thread);
        let key = self.lock_key();
        self.set_locked();
        let mut table = self.table(family).lock();
        if wait == LockWait::Fail || owned.lock.kind == LockKind::Unlock {
            return match table.set(key, owned, wake) {
                true => Ok(()),
                false => Err(Error::caller(Errno::EAGAIN)),
            };
        }
        let outcome = table.set_or_wait(key, owned, platform.current_thread(), wake);
        drop(table);
        match outcome {
            Outcome::Granted => Ok(()),
            Outcome::Deadlock => Err(Error::caller(Errno::EDEADLK)),
            Outcome::Waits(ticket) => self.wait_in_line(family, ticket),
        }
    }

    /// Sleeps until the lock is given, the caller is signalled, or the deadline
    /// for locks passes.
    fn wait_in_line(&self, family: LockFamily, ticket: Ticket) -> Result<()> {
        let platform = self.fs.platform();
        let limit = self.fs.conn.config().deadlines.lock;
        let deadline = limit.map(|limit| self.fs.now() + limit);
        loop {
            if self.table(family).lock().redeem(ticket) {
                return Ok(());
            }
            let now = self.fs.now();
            let why = if platform.signal() != Signal::None {
                Some(Errno::EINTR)
            } else if deadline.is_some_and(|deadline| now >= deadline) {
                Some(Errno::ETIMEDOUT)
            } else {
                None
            };
            if let Some(errno) = why {
                let wake = |thread: &P::Thread| platform.unpark(thread);
                let left = self.table(family).lock().leave(ticket, wake);
                return match left {
                    true => Err(Error::new(errno, Origin::Platform)),
                    false => Ok(()),
                };
            }
            let look = now + LOOK;
            park(
                platform,
                Some(deadline.map_or(look, |deadline| deadline.min(look))),
            );
        }
    }

    /// Drops the locks of an owner that are kept here.
    pub(super) fn unlock_here(&self, family: LockFamily, owner: LockOwner) {
        if self.was_locked() {
            self.fs.locks.drop_remote(family, self.lock_key(), owner);
            let platform = self.fs.platform();
            let wake = |thread: &P::Thread| platform.unpark(thread);
            self.table(family)
                .lock()
                .release(self.lock_key(), owner, wake);
        }
    }

    /// Takes, converts or drops a lock on a range, kept here.
    pub(super) fn lock_range_here(
        &self,
        owner: LockOwner,
        lock: Lock,
        wait: LockWait,
    ) -> Result<()> {
        check_range(&lock)?;
        let pid = self.fs.caller().pid;
        let lock = Lock { pid, ..lock };
        self.lock_here(LockFamily::Posix, Owned { owner, lock }, wait)
    }

    /// Returns the lock kept here that is in the way of `lock`.
    pub(super) fn test_lock_here(&self, owner: LockOwner, lock: Lock) -> Result<Option<Lock>> {
        check_range(&lock)?;
        if lock.kind == LockKind::Unlock {
            return Err(Error::caller(Errno::EINVAL));
        }
        let table = self.table(LockFamily::Posix).lock();
        Ok(table.conflict(self.lock_key(), &Owned { owner, lock }))
    }

    /// Takes, converts or drops a flock for an open directory or file. A flock
    /// that is converted is dropped first, as flock(2) warns: two who convert at
    /// once would wait for each other otherwise.
    pub(super) fn flock_here(
        &self,
        owner: LockOwner,
        kind: LockKind,
        wait: LockWait,
    ) -> Result<()> {
        let owned = Owned {
            owner,
            lock: whole(kind, self.fs.caller().pid),
        };
        if kind != LockKind::Unlock {
            let same = |held: Lock| held.kind == kind;
            let held = self.table(LockFamily::Flock).lock();
            let unchanged = held.held_by(self.lock_key(), owner).is_some_and(same);
            drop(held);
            if unchanged {
                return Ok(());
            }
            self.unlock_here(LockFamily::Flock, owner);
        }
        self.lock_here(LockFamily::Flock, owned, wait)
    }
}

impl<P: Platform> File<P> {
    /// Returns a lock of another owner's that is in the way of `wanted`: F_GETLK
    /// of fcntl(2). Blocks where the server keeps the locks.
    ///
    /// # Errors
    ///
    /// EINVAL for a range that ends before it begins or for an unlocking,
    /// EOVERFLOW beyond `i64::MAX`, and the server's.
    pub fn get_lock(&self, owner: LockOwner, wanted: Lock) -> Result<Option<Lock>> {
        let inode = self.inode();
        inode.check()?;
        check_range(&wanted)?;
        if wanted.kind == LockKind::Unlock {
            return Err(Error::caller(Errno::EINVAL));
        }
        if inode.fs.locks_remotely(LockFamily::Posix) {
            let args = self.lock_args(owner, wanted, LockFamily::Posix);
            let ask = || inode.fs.conn.ask(&Getlk(args));
            match self.remote(ask) {
                Some(Ok(lock)) => return Ok((lock.kind != LockKind::Unlock).then_some(lock)),
                Some(Err(error)) => return Err(error),
                None => {}
            }
        }
        inode.test_lock_here(owner, wanted)
    }

    /// Takes, converts or drops a lock on a range: F_SETLK and F_SETLKW of
    /// fcntl(2). Blocks where the server keeps the locks, and if it waits.
    ///
    /// What `owner` held in the range before is replaced, the rest of it stays.
    ///
    /// # Errors
    ///
    /// EAGAIN if a lock is in the way and not waited for, EDEADLK if the wait
    /// would close a circle, EINTR if the caller is signalled, EBADF if the file
    /// is not open for what the lock is for, EINVAL and EOVERFLOW as
    /// [`get_lock`](Self::get_lock), and the server's.
    pub fn set_lock(&self, owner: LockOwner, lock: Lock, wait: LockWait) -> Result<()> {
        let inode = self.inode();
        inode.check()?;
        check_range(&lock)?;
        let open_for_it = match lock.kind {
            LockKind::Read => self.flags.readable(),
            LockKind::Write => self.flags.writable(),
            LockKind::Unlock => true,
        };
        if !open_for_it {
            return Err(Error::caller(Errno::EBADF));
        }
        if inode.fs.locks_remotely(LockFamily::Posix) {
            let args = self.lock_args(owner, lock, LockFamily::Posix);
            if let Some(result) = self.lock_remotely(args, wait) {
                return result;
            }
        }
        inode.lock_range_here(owner, lock, wait)
    }

    /// Locks or unlocks the whole file for this open file: flock(2). Blocks where
    /// the server keeps the locks, and if it waits.
    ///
    /// # Errors
    ///
    /// EAGAIN if a lock is in the way and not waited for, EINTR if the caller is
    /// signalled, and the server's. A lock that was to be converted may be lost
    /// then.
    pub fn flock(&self, kind: LockKind, wait: LockWait) -> Result<()> {
        let inode = self.inode();
        inode.check()?;
        let owner = self.flock_owner();
        // Without a handle nothing would tell the server that this file is gone.
        if inode.fs.locks_remotely(LockFamily::Flock) && self.handle.is_released() {
            self.handle.set_flock_owner(owner);
            let lock = whole(kind, inode.fs.caller().pid);
            let args = self.lock_args(owner, lock, LockFamily::Flock);
            if let Some(result) = self.lock_remotely(args, wait) {
                return result;
            }
        }
        inode.flock_here(owner, kind, wait)
    }

    /// Returns the owner of this file's flock.
    fn flock_owner(&self) -> LockOwner {
        let now = self.flock.load(Relaxed);
        if now != 0 {
            return LockOwner(now);
        }
        let new = new_owner();
        match self.flock.compare_exchange(0, new.0, Relaxed, Relaxed) {
            Ok(_) => new,
            Err(other) => LockOwner(other),
        }
    }

    fn lock_args(&self, owner: LockOwner, lock: Lock, family: LockFamily) -> LockArgs {
        LockArgs {
            node: self.inode().node,
            fh: self.handle.fh(),
            owner,
            lock: Lock {
                pid: self.inode().fs.caller().pid,
                ..lock
            },
            family,
        }
    }

    /// `None` if the server turns out to keep no locks.
    fn lock_remotely(&self, args: LockArgs, wait: LockWait) -> Option<Result<()>> {
        let conn = &self.inode().fs.conn;
        // Also if it fails: it may be held all the same, after an interruption.
        if args.family == LockFamily::Posix {
            self.inode().set_locked();
        }
        let result = if wait == LockWait::Wait && args.lock.kind != LockKind::Unlock {
            self.remote(|| conn.wait_for_lock(args))
        } else {
            self.remote(|| conn.set_lock(args))
        };
        if let Some(Ok(())) = result {
            let (owner, lock) = (args.owner, args.lock);
            let key = self.inode().lock_key();
            let locks = &self.inode().fs.locks;
            locks.note_remote(args.family, key, Owned { owner, lock });
        }
        result
    }

    /// Who does not know one of the three requests keeps no locks.
    fn remote<T>(&self, ask: impl FnOnce() -> Result<T>) -> Option<Result<T>> {
        self.inode().fs.lacking.unless(Opcode::Setlk, ask)
    }

    /// Drops the POSIX locks of `owner` on the server, where no FLUSH does.
    /// Blocks.
    pub(super) fn unlock_remotely(&self, owner: LockOwner) -> Result<()> {
        let lock = whole(LockKind::Unlock, 0);
        let args = self.lock_args(owner, lock, LockFamily::Posix);
        let conn = &self.inode().fs.conn;
        self.remote(|| conn.set_lock(args)).unwrap_or(Ok(()))
    }
}

impl<P: Platform> Drop for File<P> {
    fn drop(&mut self) {
        let owner = core::mem::take(self.flock.get_mut());
        if owner != 0 {
            let (key, owner) = (self.inode().lock_key(), LockOwner(owner));
            let locks = &self.inode().fs.locks;
            locks.drop_remote(LockFamily::Flock, key, owner);
            let owner = owner.0;
            self.inode()
                .unlock_here(LockFamily::Flock, LockOwner(owner));
        }
        self.stop_polling();
    }
}

fn check_range(lock: &Lock) -> Result<()> {
    if lock.start > lock.end {
        return Err(Error::caller(Errno::EINVAL));
    }
    if lock.end > SIZE_MAX {
        return Err(Error::caller(Errno::EOVERFLOW));
    }
    Ok(())
}
