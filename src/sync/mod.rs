//! Locks and wait queues.
//!
//! Told apart by who may hold them and for how long:
//!
//! - [`SpinLock`] and [`SpinRwLock`]: short sections in thread context, never
//!   across a request, never in interrupt context.
//! - [`HandoffLock`]: a spin lock that interrupt handlers may reach for as well.
//!   They never wait for it: where it is held, the holder does their work.
//! - [`SeqWords`]: a few words that readers get without a lock.
//! - [`SleepLock`] and [`SleepRwLock`]: held across requests.
//! - [`WaitQueue`]: where threads sleep, through the
//!   [`Platform`].
//!
//! Each has a [`Rank`], and debug builds check that they are taken in
//! [order]. All that is atomic in the driver's state machines comes from
//! `atomic`, so that a model checker can put its own in their place: it
//! compiles these very files (tests/model).

mod handoff;
pub mod order;
mod rw;
mod seq;
mod sleep;
mod spin;
mod wait;

/// Atomics, fences, and what a thread does that spins.
pub(crate) mod atomic {
    pub(crate) use core::hint::spin_loop;
    pub(crate) use core::sync::atomic::{
        AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence,
    };
}

use core::time::Duration;

use crate::platform::Platform;
pub use handoff::HandoffLock;
pub use order::Rank;
pub use rw::{ExclusiveGuard, SharedGuard, SleepRwLock};
pub use seq::SeqWords;
pub use sleep::{SleepGuard, SleepLock};
pub use spin::{Noted, ReadGuard, SpinGuard, SpinLock, SpinRwLock, WriteGuard};
pub use wait::{WaitEnd, WaitQueue};

/// Sleeps as [`Platform::park`] does, with no spin lock held: every wait of the
/// driver's goes through here.
pub(crate) fn park<P: Platform>(platform: &P, deadline: Option<Duration>) {
    order::check_sleep();
    platform.park(deadline);
}
