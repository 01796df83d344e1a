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
//!   [`Platform`](crate::platform::Platform).

mod handoff;
mod rw;
mod seq;
mod sleep;
mod wait;

pub use handoff::HandoffLock;
pub use rw::{ExclusiveGuard, SharedGuard, SleepRwLock};
pub use seq::SeqWords;
pub use sleep::{SleepGuard, SleepLock};
pub use wait::{WaitEnd, WaitQueue};

/// Guards a short section. See the module's text.
pub type SpinLock<T> = spin::Mutex<T>;
/// Guards a short section with many readers. See the module's text.
pub type SpinRwLock<T> = spin::RwLock<T>;
