//! The DAX window: file data in place, in a window smaller than the files.
//!
//! The books are pure: they send nothing, wait for nothing, have no clock and no
//! unsafe code, and allocate only when they are made (but for [`RefSet`]). The
//! [`manager`] joins them with a server: it holds one short spin lock around each
//! call, sends the requests that tokens describe with the lock released, and
//! turns pins into guards.
//!
//! | module | holds |
//! |---|---|
//! | [`geometry`] | the cut of the window into ranges, and what of a file can be mapped |
//! | [`range`] | states of a range, tokens for steps under way, pins |
//! | [`window`] | the ledger: which range shows what |
//! | `repair` | the way back for ranges of unknown fate |
//! | [`refset`] | reference counts over byte ranges, for pages in page tables |
//! | [`policy`] | what a reclaim policy is told and decides |
//! | [`reclaim`] | our policy |
//! | [`pool`] | ledger and policy together: what the manager calls |
//! | [`manager`] | who gets what of the window, and what it takes |
//! | `map` | SETUPMAPPING, and what becomes of failures |
//! | [`owner`] | a file as the window knows it, with the lock on its layout |
//! | `hold` | the guard around a pin, through which bytes are copied |
//! | `evict` | unmapping, and layouts broken |
//! | `mend` | work that nobody waits for |
//! | `restart` | the end of a session and the next |
//!
//! The policy in one sentence: a chunk is mapped when that is expected to save
//! more than it costs, counting what is lost with the range it displaces, and
//! moved by READ and WRITE otherwise; see [`reclaim`]. How it compares with
//! others, and with what a clairvoyant could do, is in `tests/sim/RESULTS.md`.
//!
//! Follows requirements S2-19 to S2-23 and S4-M10 to S4-M14; differences between
//! QEMU and the specification are handled in [`geometry`] (nothing past the end
//! of the file), [`range`] (exact unmapping) and [`window`] (no mapping over
//! another, a limited number of live ones).

#[cfg(test)]
mod check;
#[cfg(test)]
mod churn;
mod evict;
pub mod geometry;
mod hold;
mod keymap;
pub mod manager;
mod map;
mod mend;
#[cfg(test)]
mod model;
pub mod owner;
pub mod policy;
pub mod pool;
pub mod range;
pub mod reclaim;
pub mod refset;
mod repair;
mod restart;
#[cfg(test)]
mod sequences;
#[cfg(test)]
mod testing;
mod totals;
pub mod window;

pub use geometry::{Chunk, Geometry, GeometryError, InodeKey, RangeId, Rights};
pub(crate) use hold::Hold;
pub use manager::Dax;
pub(crate) use manager::{Detour, Wish};
pub use owner::Owner;
pub use policy::{Access, Admission, Costs, Kind, Policy, Stream};
pub use pool::{Counters, Pool, Step};
pub use range::{
    MapRequest, MapToken, Mapping, Pin, Pinning, RangeState, Refusal, RemapError, RepairToken,
    Stale, UnmapRequest, UnmapToken,
};
pub use reclaim::Reclaim;
pub use refset::{RefError, RefSet};
pub use totals::Totals;
pub use window::Window;
