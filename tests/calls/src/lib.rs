//! Calls on a file system as values: who runs them on the driver and on something else can compare
//! what they return, call by call.
//!
//! A [`Source`] chooses: [`Random`] by a seed, a fuzzer by its input. [`Driver`] runs a call on the
//! driver's paths and descriptors. Without `std`, so that the test kernel can run them as well.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod call;
mod driver;
mod source;

pub use call::{Bytes, Call, Moment, OPEN_MAX, Outcome, groups, privileges, stat_bytes};
pub use driver::Driver;
pub use source::{Random, Source};
