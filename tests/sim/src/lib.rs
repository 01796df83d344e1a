//! A trace simulator for reclaim policies of the DAX window.
//!
//! Replays synthetic and recorded traces through the driver's own ledger and
//! pool, with the driver's policy and with others, and compares them with what
//! a clairvoyant could do. Nothing is mapped and no time passes: a cost model
//! adds up what the requests would take. `cargo run --release` prints the
//! tables; RESULTS.md keeps them.

pub mod contest;
pub mod cost;
pub mod optimum;
pub mod random;
pub mod replay;
pub mod report;
pub mod rivals;
pub mod synthetic;
pub mod trace;
