//! Spin locks that know their place in the [order](super::order).

use core::fmt;
use core::ops::{Deref, DerefMut};

use super::order::{Note, Rank};

/// Guards a short section. Thread context; interrupt handlers may only
/// [try](Self::try_lock).
pub struct SpinLock<T> {
    lock: spin::Mutex<T>,
    #[cfg(debug_assertions)]
    rank: Rank,
}

/// Guards a short section that many may read at once. Thread context.
pub struct SpinRwLock<T> {
    lock: spin::RwLock<T>,
    #[cfg(debug_assertions)]
    rank: Rank,
}

/// Holds what it was made from, until it is dropped. The lock goes first, so
/// that the note never says less than the truth.
pub struct Noted<G> {
    guard: G,
    _note: Note,
}

/// Holds a [`SpinLock`].
pub type SpinGuard<'a, T> = Noted<spin::MutexGuard<'a, T>>;
/// Holds a [`SpinRwLock`] with others.
pub type ReadGuard<'a, T> = Noted<spin::RwLockReadGuard<'a, T>>;
/// Holds a [`SpinRwLock`] alone.
pub type WriteGuard<'a, T> = Noted<spin::RwLockWriteGuard<'a, T>>;

impl<T> SpinLock<T> {
    /// Wraps `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = rank;
        Self {
            lock: spin::Mutex::new(value),
            #[cfg(debug_assertions)]
            rank,
        }
    }

    /// Takes the lock. Spins while another has it.
    pub fn lock(&self) -> SpinGuard<'_, T> {
        let _note = Note::wait(self.rank());
        Noted {
            guard: self.lock.lock(),
            _note,
        }
    }

    /// Takes the lock if nobody has it. Any context.
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let guard = self.lock.try_lock()?;
        let _note = Note::tried(self.rank());
        Some(Noted { guard, _note })
    }

    /// Returns the value, which nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }

    /// Returns the value.
    pub fn into_inner(self) -> T {
        self.lock.into_inner()
    }

    const fn rank(&self) -> Rank {
        #[cfg(debug_assertions)]
        return self.rank;
        #[cfg(not(debug_assertions))]
        return Rank::Leaf;
    }
}

/// A [leaf](Rank::Leaf).
impl<T: Default> Default for SpinLock<T> {
    fn default() -> Self {
        Self::new(Rank::Leaf, T::default())
    }
}

impl<T> SpinRwLock<T> {
    /// Wraps `value`.
    pub const fn new(rank: Rank, value: T) -> Self {
        #[cfg(not(debug_assertions))]
        let _ = rank;
        Self {
            lock: spin::RwLock::new(value),
            #[cfg(debug_assertions)]
            rank,
        }
    }

    /// Shares the lock with other readers. Spins while somebody writes.
    pub fn read(&self) -> ReadGuard<'_, T> {
        let _note = Note::wait(self.rank());
        Noted {
            guard: self.lock.read(),
            _note,
        }
    }

    /// Takes the lock alone. Spins while others have it.
    pub fn write(&self) -> WriteGuard<'_, T> {
        let _note = Note::wait(self.rank());
        Noted {
            guard: self.lock.write(),
            _note,
        }
    }

    /// Returns the value, which nobody else can reach.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }

    const fn rank(&self) -> Rank {
        #[cfg(debug_assertions)]
        return self.rank;
        #[cfg(not(debug_assertions))]
        return Rank::Leaf;
    }
}

impl<G: Deref> Deref for Noted<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Noted<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

impl<G: fmt::Debug> fmt::Debug for Noted<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.guard.fmt(f)
    }
}
