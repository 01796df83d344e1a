//! Where ranges lie in the window and which part of a file each can show.
//!
//! Pure arithmetic over the window's length and INIT's `map_alignment`
//! (S4-M13). Follows fs/fuse/dax.c for the 2 MiB granule; the length of a
//! mapping follows QEMU, which refuses one that reaches past the end of the
//! file.

/// Names an inode to the window. The caller picks the number: it must be
/// unique among the inodes that have ranges, and is never sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeKey(pub u64);

/// A piece of a file as long as a range: file offset divided by range size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Chunk(pub u64);

/// Names a range of one window. Holding one proves that the window has it, not
/// what state it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(u32);

impl RangeId {
    /// Names the range at `index` for a table that is laid out like the
    /// window; the window itself refuses an id that it does not have.
    pub const fn from_index(index: u32) -> Self {
        Self(index)
    }

    /// Returns the position of the range in the window, counted in ranges.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a mapping allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rights {
    /// Loads only.
    ReadOnly,
    /// Loads and stores.
    Writable,
}

/// Why a window cannot be cut into ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The window is shorter than one range.
    TooSmall,
    /// The alignment asked for exceeds [`Geometry::MAX_RANGE`].
    Alignment,
}

/// The cut of a window into ranges. Holding one proves that there is at least
/// one range and that every range lies inside the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    range_shift: u32,
    granule_shift: u32,
    count: u32,
}

impl Geometry {
    /// The smallest range, in bytes: one huge page.
    pub const MIN_RANGE: u64 = 1 << 21;
    /// The largest range, in bytes.
    pub const MAX_RANGE: u64 = 1 << 30;
    /// The most ranges that one window is cut into; the rest stays unused.
    pub const MAX_COUNT: u64 = 1 << 20;
    /// The smallest unit of a mapping's length, in bytes.
    pub const PAGE: u64 = 4096;

    /// Cuts a window of `window_len` bytes. `map_alignment` is INIT's field: the
    /// binary logarithm of what offsets and lengths must be multiples of, 0 if
    /// the server states nothing.
    ///
    /// # Errors
    /// The window holds no range, or the alignment is absurd. Both mean a mount
    /// without DAX.
    pub fn new(window_len: u64, map_alignment: u16) -> Result<Self, GeometryError> {
        let alignment = u32::from(map_alignment);
        if alignment > Self::MAX_RANGE.trailing_zeros() {
            return Err(GeometryError::Alignment);
        }
        let range_shift = alignment.max(Self::MIN_RANGE.trailing_zeros());
        let count = (window_len >> range_shift).min(Self::MAX_COUNT) as u32;
        if count == 0 {
            return Err(GeometryError::TooSmall);
        }
        Ok(Self {
            range_shift,
            granule_shift: alignment.max(Self::PAGE.trailing_zeros()),
            count,
        })
    }

    /// Returns the number of ranges, at least one.
    pub const fn count(&self) -> usize {
        self.count as usize
    }

    /// Returns the length of a range in bytes, a power of two.
    pub const fn range_size(&self) -> u64 {
        1 << self.range_shift
    }

    /// Returns what the length of a mapping must be a multiple of, in bytes.
    pub const fn granule(&self) -> u64 {
        1 << self.granule_shift
    }

    /// Returns every range in window order.
    pub fn ranges(&self) -> impl Iterator<Item = RangeId> + use<> {
        (0..self.count).map(RangeId)
    }

    /// Splits a file offset into its chunk and the offset within it.
    #[inline]
    pub const fn locate(&self, file_offset: u64) -> (Chunk, u32) {
        let within = file_offset & (self.range_size() - 1);
        (Chunk(file_offset >> self.range_shift), within as u32)
    }

    /// Returns the file offset at which `chunk` begins, or `None` if no file
    /// is that long.
    pub const fn file_offset(&self, chunk: Chunk) -> Option<u64> {
        if chunk.0 > (i64::MAX as u64) >> self.range_shift {
            return None;
        }
        Some(chunk.0 << self.range_shift)
    }

    /// Returns the window offset of byte `within` of `range`, or `None` if
    /// either does not exist. The only place that computes a window address.
    #[inline]
    pub const fn window_offset(&self, range: RangeId, within: u32) -> Option<u64> {
        if range.0 >= self.count || within as u64 >= self.range_size() {
            return None;
        }
        Some(((range.0 as u64) << self.range_shift) + within as u64)
    }

    /// Returns how many bytes of `chunk` can be mapped in a file of `size`
    /// bytes: whole granules only, so that the mapping never reaches past the
    /// end of the file. The rest goes by READ and WRITE.
    #[inline]
    pub const fn mappable(&self, chunk: Chunk, size: u64) -> u32 {
        let Some(begin) = self.file_offset(chunk) else {
            return 0;
        };
        let rest = size.saturating_sub(begin);
        let whole = if rest < self.range_size() {
            rest
        } else {
            self.range_size()
        };
        (whole & !(self.granule() - 1)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn cut_follows_alignment() {
        let cut = |len, align| {
            Geometry::new(len, align).map(|g| (g.count(), g.range_size(), g.granule()))
        };
        assert_eq!(cut(64 * MIB, 0), Ok((32, 2 * MIB, 4096)));
        assert_eq!(cut(64 * MIB, 16), Ok((32, 2 * MIB, 65536)));
        assert_eq!(cut(64 * MIB, 22), Ok((16, 4 * MIB, 4 * MIB)));
        assert_eq!(cut(2 * MIB, 12), Ok((1, 2 * MIB, 4096)));
        assert_eq!(cut(64 << 30, 0), Ok((32768, 2 * MIB, 4096)));
        assert_eq!(cut(u64::MAX, 0).map(|c| c.0), Ok(1 << 20));
        assert_eq!(cut(2 * MIB - 1, 0), Err(GeometryError::TooSmall));
        assert_eq!(cut(2 * MIB, 22), Err(GeometryError::TooSmall));
        assert_eq!(cut(64 * MIB, 31), Err(GeometryError::Alignment));
        assert_eq!(cut(64 * MIB, u16::MAX), Err(GeometryError::Alignment));
    }

    #[test]
    fn window_addresses_stop_at_range_borders() {
        let g = Geometry::new(6 * MIB + 4096, 0).expect("three ranges");
        let last = RangeId(2);
        assert_eq!(g.window_offset(RangeId(0), 0), Some(0));
        assert_eq!(g.window_offset(RangeId(0), 0x1f_ffff), Some(2 * MIB - 1));
        assert_eq!(g.window_offset(RangeId(0), 0x20_0000), None);
        assert_eq!(g.window_offset(last, 0x1f_ffff), Some(6 * MIB - 1));
        assert_eq!(g.window_offset(RangeId(3), 0), None);
    }

    #[test]
    fn mapping_stops_at_last_whole_granule() {
        let g = Geometry::new(64 * MIB, 0).expect("32 ranges");
        assert_eq!(g.mappable(Chunk(0), 0), 0);
        assert_eq!(g.mappable(Chunk(0), 4095), 0);
        assert_eq!(g.mappable(Chunk(0), 4096), 4096);
        assert_eq!(g.mappable(Chunk(0), 2 * MIB + 1), 2 << 20);
        assert_eq!(g.mappable(Chunk(1), 2 * MIB + 8191), 4096);
        assert_eq!(g.mappable(Chunk(2), 2 * MIB), 0);
        assert_eq!(g.mappable(Chunk(u64::MAX), u64::MAX), 0);
        let coarse = Geometry::new(64 * MIB, 22).expect("16 ranges");
        assert_eq!(coarse.mappable(Chunk(0), 4 * MIB - 1), 0);
        assert_eq!(coarse.mappable(Chunk(0), 4 * MIB), 4 << 20);
    }
}
