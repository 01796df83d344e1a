//! The DAX window: ranges and their reclaim.
pub mod geometry;
mod keymap;
#[cfg(test)]
mod model;
pub mod range;
pub mod refset;
#[cfg(test)]
mod testing;
pub mod window;
pub use geometry::{Chunk, Geometry, GeometryError, InodeKey, RangeId, Rights};
pub use range::{
    MapRequest, MapToken, Mapping, Pin, Pinning, RangeState, Refusal, RepairToken, Stale,
    UnmapRequest, UnmapToken,
};
pub use window::{Totals, Window};
mod ghost;
mod heap;
mod learn;
mod list;
pub mod policy;
pub mod pool;
pub mod reclaim;
mod score;
pub use policy::{Access, Admission, Costs, Kind, Policy, Stream};
pub use pool::{Counters, Pool, Step};
pub use reclaim::Reclaim;
