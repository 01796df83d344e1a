//! Advisory locks kept here: who holds which bytes, and who waits for them.
//!
//! Pure accounting: it knows files by number, threads by whatever wakes them, and
//! never sleeps. [`lock`](super::lock) does that. Ranges are split, merged and
//! converted as fcntl(2) says; a lock that had to wait is given by whoever makes
//! room for it, so a wake-up is never lost.
//!
//! # Fairness
//!
//! Locks are given in the order in which they were asked for. Who asks anew
//! waits behind those who wait for the same bytes already, unless he holds a lock
//! somewhere: others may wait for him then, and to wait out of mere politeness
//! could be for ever.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::wire::{Lock, LockKind, LockOwner};

/// Names a file in the table.
pub(super) type FileKey = usize;

/// A lock that somebody holds or wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) owner: LockOwner,
    pub(super) lock: Lock,
}

impl Owned {
    fn conflicts(&self, other: &Self) -> bool {
        let in_the_way = matches!(
            (self.lock.kind, other.lock.kind),
            (LockKind::Write, LockKind::Write | LockKind::Read) | (LockKind::Read, LockKind::Write)
        );
        in_the_way && self.owner != other.owner && self.overlaps(other)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.lock.start <= other.lock.end && other.lock.start <= self.lock.end
    }

    /// Whether both are one range if they are of one kind.
    fn touches(&self, other: &Self) -> bool {
        self.lock.start <= other.lock.end.saturating_add(1)
            && other.lock.start <= self.lock.end.saturating_add(1)
    }
}

/// The locks that are held on one file. No owner has two on one byte, nor two of
/// one kind that touch.
#[derive(Debug, Default)]
struct Held(Vec<Owned>);

impl Held {
    /// Returns the first lock in the way of `wanted`.
    fn conflict(&self, wanted: &Owned) -> Option<&Owned> {
        self.0
            .iter()
            .filter(|held| held.conflicts(wanted))
            .min_by_key(|held| held.lock.start)
    }

    /// Gives `owned` to its owner, in place of what he had there.
    fn set(&mut self, mut owned: Owned) {
        let mut at = 0;
        while let Some(&old) = self.0.get(at) {
            if old.owner != owned.owner {
                at += 1;
            } else if old.lock.kind == owned.lock.kind && old.touches(&owned) {
                owned.lock.start = owned.lock.start.min(old.lock.start);
                owned.lock.end = owned.lock.end.max(old.lock.end);
                self.0.swap_remove(at);
            } else if old.overlaps(&owned) {
                self.0.swap_remove(at);
                self.0.extend(rests(&old, &owned));
            } else {
                at += 1;
            }
        }
        if owned.lock.kind != LockKind::Unlock {
            self.0.push(owned);
        }
    }
}

/// Returns what is left of `old` on both sides of `cut`.
fn rests(old: &Owned, cut: &Owned) -> impl Iterator<Item = Owned> {
    let part = |start, end| Owned {
        lock: Lock {
            start,
            end,
            ..old.lock
        },
        ..*old
    };
    let before =
        (old.lock.start < cut.lock.start).then(|| part(old.lock.start, cut.lock.start - 1));
    let behind = (old.lock.end > cut.lock.end).then(|| part(cut.lock.end + 1, old.lock.end));
    before.into_iter().chain(behind)
}

/// Somebody who waits for a lock.
struct Waiter<T> {
    ticket: Ticket,
    file: FileKey,
    wanted: Owned,
    thread: T,
    granted: bool,
}

/// Names a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// What became of a wish for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is held.
    Granted,
    /// Another one is in the way, and is to be waited for.
    Waits(Ticket),
    /// To wait would be for ever: each waits for the next in a circle.
    Deadlock,
}

/// Whether circles of waiting owners are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Circles {
    /// Yes: owners are processes (fcntl).
    Refused,
    /// No: an open file may be unlocked by anybody who has it (flock).
    Allowed,
}

/// All locks of one family.
pub(super) struct LockTable<T> {
    files: BTreeMap<FileKey, Held>,
    /// In the order they came.
    waiting: Vec<Waiter<T>>,
    next_ticket: u64,
    circles: Circles,
}

impl<T> LockTable<T> {
    pub(super) const fn new(circles: Circles) -> Self {
        Self {
            files: BTreeMap::new(),
            waiting: Vec::new(),
            next_ticket: 0,
            circles,
        }
    }

    /// Returns the lock that is in the way of `wanted`.
    pub(super) fn conflict(&self, file: FileKey, wanted: &Owned) -> Option<Lock> {
        Some(self.files.get(&file)?.conflict(wanted)?.lock)
    }

    /// Returns a lock that `owner` holds on `file`.
    pub(super) fn held_by(&self, file: FileKey, owner: LockOwner) -> Option<Lock> {
        let held = &self.files.get(&file)?.0;
        Some(held.iter().find(|held| held.owner == owner)?.lock)
    }

    /// Sets or drops a lock if nothing is in the way. Returns whether it did;
    /// wakes who can go on then.
    pub(super) fn set(&mut self, file: FileKey, owned: Owned, wake: impl FnMut(&T)) -> bool {
        if self.conflict(file, &owned).is_some() {
            return false;
        }
        let held = self.files.entry(file).or_default();
        held.set(owned);
        if held.0.is_empty() {
            self.files.remove(&file);
        }
        // A lock may have been dropped in part, or become a weaker one.
        self.grant(file, wake);
        true
    }

    /// Sets a lock, or puts `thread` in line for it.
    pub(super) fn set_or_wait(
        &mut self,
        file: FileKey,
        owned: Owned,
        thread: T,
        wake: impl FnMut(&T),
    ) -> Outcome {
        let polite =
            || self.waits_behind(file, &owned, self.waiting.len()) && !self.holds_any(owned.owner);
        let free = self.conflict(file, &owned).is_none();
        if free && !polite() {
            self.set(file, owned, wake);
            return Outcome::Granted;
        }
        if self.circles == Circles::Refused && self.closes_circle(file, &owned) {
            return Outcome::Deadlock;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiting.push(Waiter {
            ticket,
            file,
            wanted: owned,
            thread,
            granted: false,
        });
        Outcome::Waits(ticket)
    }

    /// Returns whether the lock was given; the ticket is used up then.
    pub(super) fn redeem(&mut self, ticket: Ticket) -> bool {
        let at = self
            .waiting
            .iter()
            .position(|w| w.ticket == ticket && w.granted);
        at.map(|at| self.waiting.remove(at)).is_some()
    }

    /// Leaves the line. Returns false if the lock was given meanwhile.
    pub(super) fn leave(&mut self, ticket: Ticket, wake: impl FnMut(&T)) -> bool {
        let Some(at) = self.waiting.iter().position(|w| w.ticket == ticket) else {
            return true;
        };
        let waiter = self.waiting.remove(at);
        // Somebody may have waited behind this one only.
        self.grant(waiter.file, wake);
        !waiter.granted
    }

    /// Drops all locks of an owner on a file.
    pub(super) fn release(&mut self, file: FileKey, owner: LockOwner, wake: impl FnMut(&T)) {
        let lock = Lock {
            start: 0,
            end: Lock::END,
            kind: LockKind::Unlock,
            pid: 0,
        };
        if self.files.contains_key(&file) {
            self.set(file, Owned { owner, lock }, wake);
        }
    }

    /// Returns every lock that is held.
    pub(super) fn held(&self) -> impl Iterator<Item = (FileKey, Owned)> + '_ {
        self.files
            .iter()
            .flat_map(|(file, held)| held.0.iter().map(|owned| (*file, *owned)))
    }

    /// Drops all locks on a file that is going away: nobody waits for it.
    pub(super) fn forget(&mut self, file: FileKey) {
        self.files.remove(&file);
    }

    /// Gives to those in line for `file` what is free now.
    fn grant(&mut self, file: FileKey, mut wake: impl FnMut(&T)) {
        // What is given may replace a stronger lock of the same owner's, and so
        // make room for somebody who came before.
        while self.grant_once(file, &mut wake) {}
    }

    /// Returns whether anybody got his lock.
    fn grant_once(&mut self, file: FileKey, mut wake: impl FnMut(&T)) -> bool {
        let mut any = false;
        for at in 0..self.waiting.len() {
            let Waiter {
                file: theirs,
                wanted,
                granted,
                ..
            } = self.waiting[at];
            if theirs != file || granted || self.conflict(file, &wanted).is_some() {
                continue;
            }
            if self.waits_behind(file, &wanted, at) && !self.holds_any(wanted.owner) {
                continue;
            }
            self.files.entry(file).or_default().set(wanted);
            self.waiting[at].granted = true;
            wake(&self.waiting[at].thread);
            any = true;
        }
        any
    }

    /// Returns whether one of the first `place` in line wants what conflicts.
    fn waits_behind(&self, file: FileKey, wanted: &Owned, place: usize) -> bool {
        self.waiting[..place]
            .iter()
            .any(|w| w.file == file && !w.granted && w.wanted.conflicts(wanted))
    }

    fn holds_any(&self, owner: LockOwner) -> bool {
        let owns = |held: &Held| held.0.iter().any(|held| held.owner == owner);
        self.files.values().any(owns)
    }

    /// Returns whether somebody who is in the way of `wanted` waits, through
    /// however many others, for its owner.
    fn closes_circle(&self, file: FileKey, wanted: &Owned) -> bool {
        let mut seen: Vec<LockOwner> = Vec::new();
        let mut next: Vec<(FileKey, Owned)> = alloc::vec![(file, *wanted)];
        while let Some((file, wish)) = next.pop() {
            let holders = self.files.get(&file).into_iter().flat_map(|held| &held.0);
            for holder in holders.filter(|held| held.conflicts(&wish)) {
                if holder.owner == wanted.owner {
                    return true;
                }
                if seen.contains(&holder.owner) {
                    continue;
                }
                seen.push(holder.owner);
                let theirs = |w: &&Waiter<T>| !w.granted && w.wanted.owner == holder.owner;
                next.extend(
                    self.waiting
                        .iter()
                        .filter(theirs)
                        .map(|w| (w.file, w.wanted)),
                );
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "lock_table_tests.rs"]
mod tests;
