//! The order of locks, checked at run time while debug assertions are on.
//!
//! Every lock of the driver has a [`Rank`]. A thread may wait for a lock only if
//! all that it holds already come before it, so no circle of waiters can arise;
//! it may sleep only if none of them is a [spin lock](Rank::is_spin); and an
//! interrupt handler waits for none. Whoever breaks a rule panics at once, on
//! the first run that takes that path, whether another thread is in the way or
//! not. Locks that are only tried wait for nobody: they are noted, not judged.
//!
//! What a thread holds is kept by the kernel, in a [`Held`] for each thread, and
//! found through a function that it [registers](watch). Until it does, and
//! without debug assertions, nothing is checked and nothing is kept.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use spin::Once;

macro_rules! ranks {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// A kind of lock. A thread takes them from the first to the last.
        ///
        /// The table in the [crate's text](crate#lock-order) says what they guard.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Rank {
            $($(#[$doc])* $name,)*
        }

        impl Rank {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

ranks! {
    /// The position of a descriptor.
    Position,
    /// The layout of a file.
    Layout,
    /// A shard of the dentry cache.
    Dentries,
    /// Where inodes stand in the tree.
    Places,
    /// A shard of the inode table.
    Inodes,
    /// What only few inodes have.
    Extra,
    /// An inode's attributes.
    Attributes,
    /// The pages of a file.
    Pages,
    /// The state of a folio.
    Folio,
    /// The accounts of the DAX window.
    Window,
    /// A request's arguments.
    Arguments,
    /// The ring of a queue.
    Ring,
    /// The line for slots.
    Line,
    /// What is to be forgotten.
    Forgets,
    /// Everything else: a few fields, and no other lock meanwhile.
    Leaf,
}

/// Bits for the count of each rank in [`Held`]. A thread never holds more of a
/// rank than one that it waited for and some that it tried.
const BITS: u32 = 4;
const _: () = assert!(Rank::ALL.len() * BITS as usize <= u64::BITS as usize);

impl Rank {
    /// Returns whether nobody may sleep while holding it.
    pub const fn is_spin(self) -> bool {
        self as u8 > Self::Layout as u8
    }

    const fn one(self) -> u64 {
        1 << (self as u32 * BITS)
    }
}

/// The locks of the driver that a thread holds. One for each thread of the
/// kernel's, used by that thread and by the interrupts on top of it.
#[derive(Debug, Default)]
pub struct Held(AtomicU64);

impl Held {
    /// Makes one for a thread that holds nothing.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Returns the last of the ranks that are held.
    fn last(&self) -> Option<Rank> {
        let highest = self.0.load(Relaxed).checked_ilog2()?;
        Rank::ALL.get((highest / BITS) as usize).copied()
    }
}

/// What runs when a lock is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// A thread.
    Thread,
    /// An interrupt handler, on top of a thread.
    Interrupt,
}

/// Calls its argument with the locks of the running thread. Any context; must
/// take no lock of the driver's.
pub type Watcher = fn(&mut dyn FnMut(&Held, Context));

static WATCHER: Once<Watcher> = Once::new();

/// Has the order of locks checked from now on, by what `watcher` knows of
/// threads. The first one counts. Without debug assertions it does nothing.
pub fn watch(watcher: Watcher) {
    if cfg!(debug_assertions) {
        WATCHER.call_once(|| watcher);
    }
}

fn with(mut f: impl FnMut(&Held, Context)) {
    if let Some(watcher) = WATCHER.get() {
        watcher(&mut f);
    }
}

/// Notes that a lock is held, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(super) struct Note {
    #[cfg(debug_assertions)]
    rank: Rank,
}

impl Note {
    /// Checks that a lock may be waited for, before that is done.
    ///
    /// # Panics
    ///
    /// With debug assertions, if it may not.
    pub(super) fn wait(rank: Rank) -> Self {
        #[cfg(debug_assertions)]
        with(|held, context| {
            assert!(
                context == Context::Thread || !rank.is_spin(),
                "lock order: an interrupt handler waits for {rank:?}"
            );
            if let Some(last) = held.last() {
                assert!(last < rank, "lock order: {rank:?} is taken under {last:?}");
            }
        });
        Self::tried(rank)
    }

    /// Notes a lock that was had without waiting.
    pub(super) fn tried(rank: Rank) -> Self {
        #[cfg(debug_assertions)]
        with(|held, _| {
            held.0.fetch_add(rank.one(), Relaxed);
        });
        #[cfg(not(debug_assertions))]
        let _ = rank;
        Self {
            #[cfg(debug_assertions)]
            rank,
        }
    }
}

#[cfg(debug_assertions)]
impl Drop for Note {
    fn drop(&mut self) {
        let one = self.rank.one();
        with(|held, _| {
            // What was taken before `watch` is not known here.
            let some = ((1 << BITS) - 1) * one;
            let less = |now: u64| (now & some != 0).then(|| now - one);
            let _ = held.0.fetch_update(Relaxed, Relaxed, less);
        });
    }
}

/// Checks that the running thread may sleep.
///
/// # Panics
///
/// With debug assertions, if it holds a spin lock, or is no thread.
pub(super) fn check_sleep() {
    if cfg!(debug_assertions) {
        with(|held, context| {
            assert!(
                context == Context::Thread,
                "lock order: an interrupt handler sleeps"
            );
            if let Some(last) = held.last() {
                assert!(
                    !last.is_spin(),
                    "lock order: a thread sleeps holding {last:?}"
                );
            }
        });
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::cell::Cell;
    use std::vec::Vec;

    use super::*;
    use crate::sync::{HandoffLock, SpinLock, SpinRwLock};

    std::thread_local! {
        static HELD: Held = const { Held::new() };
        static CONTEXT: Cell<Context> = const { Cell::new(Context::Thread) };
    }

    fn watched() {
        watch(|f| HELD.with(|held| f(held, CONTEXT.get())));
    }

    fn message(f: impl FnOnce()) -> std::string::String {
        let f = std::panic::AssertUnwindSafe(f);
        let panic = std::panic::catch_unwind(f).expect_err("nobody objects");
        panic.downcast_ref::<std::string::String>().unwrap().clone()
    }

    #[test]
    fn the_table_in_the_crates_text_has_the_ranks_in_their_order() {
        let text = include_str!("../lib.rs");
        let rows = text
            .lines()
            .filter_map(|line| line.strip_prefix("//! | [`"));
        let ranks = rows
            .filter_map(|row| row.split_once("`](sync::Rank::"))
            .map(|(name, _)| name);
        let wanted = Rank::ALL.iter().map(|rank| std::format!("{rank:?}"));
        assert_eq!(ranks.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
    }

    #[test]
    fn locks_in_their_order_are_taken() {
        watched();
        let (ring, line) = (
            SpinLock::new(Rank::Ring, ()),
            SpinRwLock::new(Rank::Line, ()),
        );
        for _ in 0..2 {
            let first = ring.lock();
            let second = line.read();
            drop(first);
            drop(second);
        }
        HELD.with(|held| assert_eq!(held.last(), None));
    }

    #[test]
    fn a_wrong_order_is_caught_without_anybody_in_the_way() {
        watched();
        let said = message(|| {
            let (ring, line) = (
                SpinLock::new(Rank::Ring, ()),
                SpinRwLock::new(Rank::Line, ()),
            );
            let _line = line.write();
            let _ring = ring.lock();
        });
        assert_eq!(said, "lock order: Ring is taken under Line");
        HELD.with(|held| assert_eq!(held.last(), None, "the panic released both"));
    }

    #[test]
    fn two_locks_of_a_kind_are_not_held_at_once() {
        watched();
        let said = message(|| {
            let rings = [(), ()].map(|()| SpinLock::new(Rank::Ring, ()));
            let _first = rings[0].lock();
            let _second = rings[1].lock();
        });
        assert_eq!(said, "lock order: Ring is taken under Ring");
    }

    #[test]
    fn a_lock_that_is_only_tried_may_come_out_of_order() {
        watched();
        let (ring, line) = (SpinLock::new(Rank::Ring, ()), SpinLock::new(Rank::Line, ()));
        let _line = line.lock();
        let _ring = ring.try_lock().expect("it is free");
    }

    #[test]
    fn sleeping_with_a_spin_lock_is_caught() {
        watched();
        let said = message(|| {
            let lock = SpinLock::new(Rank::Attributes, ());
            let _guard = lock.lock();
            check_sleep();
        });
        assert_eq!(said, "lock order: a thread sleeps holding Attributes");
    }

    #[test]
    fn an_interrupt_handler_may_request_but_not_wait() {
        watched();
        let lock = HandoffLock::new(Rank::Ring, 0);
        lock.with(
            |_| {
                CONTEXT.set(Context::Interrupt);
                lock.request(|n| *n += 1);
                CONTEXT.set(Context::Thread);
            },
            |n| *n += 10,
        );
        CONTEXT.set(Context::Interrupt);
        let said = message(|| lock.with(|n| assert_eq!(*n, 10), |_| ()));
        CONTEXT.set(Context::Thread);
        assert_eq!(said, "lock order: an interrupt handler waits for Ring");
    }
}
