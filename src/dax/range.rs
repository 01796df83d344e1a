//! The states of a range, and the tokens and pins that move it between them.
//!
//! ```text
//!            begin_map            commit_map
//!   Free ───────────────▶ Mapping ──────────▶ Mapped ◀──────────┐ cancel_unmap
//!    ▲ ▲     abort_map      │ │ ▲               │  begin_unmap   │
//!    │ └────────────────────┘ │ │ remap         └──────────▶ Unmapping
//!    │                        │ └───────────────────────────────┤ │
//!    │ commit_repair          │ lose_map          lose_unmap    │ │
//!    ├───────── Repairing ◀── Unknown ◀──────────────────────────┘ │
//!    └──────────────────────────────────────────── commit_unmap ───┘
//! ```
//!
//! A token stands for a request on its way to the server. It cannot be copied,
//! and one dropped unused leaves its range busy until the session is reset:
//! that is the safe side, for nobody knows what became of the request. After a
//! reset the tokens of the old session are stale and change nothing.

use core::num::NonZeroU64;

use super::geometry::{Chunk, InodeKey, RangeId, Rights};

/// What a range shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The file.
    pub inode: InodeKey,
    /// The piece of the file.
    pub chunk: Chunk,
    /// Bytes mapped from the start of the chunk: the length sent to the server,
    /// and the one that the unmapping must name.
    pub len: u32,
    /// What the mapping allows.
    pub rights: Rights,
}

/// The state of one range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeState {
    /// Nothing mapped, ready for use.
    Free,
    /// SETUPMAPPING is under way. `over` is the length of a mapping of unknown
    /// fate that may still be there.
    Mapping {
        /// What will be shown.
        mapping: Mapping,
        /// What may be in the way.
        over: Option<u32>,
    },
    /// In use or ready to be used.
    Mapped(Mapping),
    /// REMOVEMAPPING is under way.
    Unmapping(Mapping),
    /// The host may still map this many bytes here, or none. Retired.
    Unknown(u32),
    /// An exact REMOVEMAPPING of a range of unknown fate is under way.
    Repairing(u32),
    /// The device was reset, which removed the mapping, while somebody held a
    /// pin. Free once the last pin is gone: until then its holder could write
    /// into whatever came next.
    Orphaned,
}

/// Arguments of a SETUPMAPPING, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// Offset in the file.
    pub file_offset: u64,
    /// Offset in the window.
    pub window_offset: u64,
    /// Length.
    pub len: u32,
    /// READ, or READ and WRITE.
    pub rights: Rights,
}

/// Arguments of one entry of a REMOVEMAPPING, in bytes. Names exactly one whole
/// mapping, as QEMU wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmapRequest {
    /// Offset in the window.
    pub window_offset: u64,
    /// Length that was mapped.
    pub len: u32,
}

/// Ties a token to one step of one range; never used twice in a window.
pub(super) type Serial = NonZeroU64;

/// A mapping under way. Ends in `commit_map`, `abort_map` or `lose_map`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the range stays busy until the token is handed back"]
pub struct MapToken {
    pub(super) range: RangeId,
    pub(super) serial: Serial,
    pub(super) request: MapRequest,
}

impl MapToken {
    /// Returns what to ask of the server.
    pub const fn request(&self) -> MapRequest {
        self.request
    }

    /// Returns the range to be mapped.
    pub const fn range(&self) -> RangeId {
        self.range
    }
}

/// An unmapping under way. Ends in `commit_unmap`, `remap`, `lose_unmap`, or in
/// `cancel_unmap` if it was never sent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the range stays busy until the token is handed back"]
pub struct UnmapToken {
    pub(super) range: RangeId,
    pub(super) serial: Serial,
    pub(super) request: UnmapRequest,
    pub(super) mapping: Mapping,
}

impl UnmapToken {
    /// Returns what to ask of the server.
    pub const fn request(&self) -> UnmapRequest {
        self.request
    }

    /// Returns what the range shows until the request is sent, so that its pages
    /// can be taken out of page tables first.
    pub const fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Returns the range to be unmapped.
    pub const fn range(&self) -> RangeId {
        self.range
    }
}

/// A repair under way. Ends in `commit_repair` or `fail_repair`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the range stays retired until the token is handed back"]
pub struct RepairToken {
    pub(super) range: RangeId,
    pub(super) serial: Serial,
    pub(super) request: UnmapRequest,
}

impl RepairToken {
    /// Returns what to ask of the server.
    pub const fn request(&self) -> UnmapRequest {
        self.request
    }

    /// Returns the range under repair.
    pub const fn range(&self) -> RangeId {
        self.range
    }
}

/// A hold on a mapped range: it is not unmapped before the pin is given back
/// with `unpin`. The glue wraps it in a guard.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is not given back keeps its range for ever"]
pub struct Pin {
    pub(super) range: RangeId,
    pub(super) len: u32,
    pub(super) rights: Rights,
}

impl Pin {
    /// Returns the pinned range.
    pub const fn range(&self) -> RangeId {
        self.range
    }

    /// Returns the mapped bytes, counted from the start of the range. Nothing
    /// beyond them may be touched.
    pub const fn mapped_bytes(&self) -> u32 {
        self.len
    }

    /// Returns what may be done through the range.
    pub const fn rights(&self) -> Rights {
        self.rights
    }
}

/// What became of an attempt to pin.
#[derive(Debug, PartialEq, Eq)]
pub enum Pinning {
    /// Done.
    Pinned(Pin),
    /// The chunk is not mapped.
    Absent,
    /// The chunk is being mapped or unmapped: wait for that, or go without.
    Busy(RangeId),
    /// The mapping ends before the bytes that are wanted: the file has grown.
    /// Unmap, then [`remap`](super::Window::remap).
    TooShort(RangeId),
    /// The mapping is read-only. Unmap, then [`remap`](super::Window::remap).
    ReadOnly(RangeId),
}

/// Why a step was refused. A refused step changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No range is free.
    NoFreeRange,
    /// The chunk already has this range.
    Present(RangeId),
    /// Length zero, not in whole granules, longer than a range, or not the
    /// length that a range of unknown fate asks for.
    Length,
    /// No file reaches this chunk.
    Offset,
    /// The window has no such range.
    NoSuchRange,
    /// The range is not in a state that allows the step.
    State,
    /// The range is pinned.
    Pinned,
}

/// The token belongs to a session that is over; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// Why a [`Window::remap`](super::Window::remap) did not begin.
#[derive(Debug, PartialEq, Eq)]
pub enum RemapError {
    /// The length is impossible. The range is still to be unmapped.
    Length(UnmapToken),
    /// The session was reset meanwhile.
    Stale,
}
