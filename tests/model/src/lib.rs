//! The driver's state machines, on a model checker's atomics.
//!
//! The modules here that are named as the driver's *are* the driver's: the same
//! files, compiled once more. Only what they import differs: `sync::atomic` and
//! the memory of rings ([`device::dma`]) come from loom, which runs a scenario
//! again and again, each time in another order of threads and with other values
//! that a load may legally see, until it has tried all (up to a number of
//! preemptions). A lost wake-up shows as threads that all sleep, because time
//! does not pass in the [kernel](platform) here and a deadline wakes nobody.
//!
//! [`scenarios`] are what is checked; tests/model.rs runs them.
//!
//! # What is modelled, and what is not
//!
//! Modelled: the lock that interrupt handlers share, sleeping and waking, the
//! locks that are held across requests, the states of a slot, the line for
//! slots, the ring and both its suppressions of notifications, each with two
//! or three threads and one or two requests. An interrupt is a thread of its own,
//! which covers more orders than a CPU that serves it does. Not modelled:
//! deadlines, INTERRUPT, the recovery of a session, forgets, everything above the
//! connection; these run in the tests on the fake device. loom takes
//! `SeqCst` operations for acquire and release ones, and knows no loads from
//! the future, so it judges neither of these; the driver relies on fences.

extern crate alloc;

pub mod conn;
pub mod device;
pub mod platform;
pub mod scenarios;
pub mod sync;

pub use virtio_fs::{errno, error};
