//! Lending a caller's buffers to the device.
//!
//! The second place with unsafe code: [`Hal::share`] takes a pointer, and the
//! device uses the memory behind it until the request is back. The contract is
//! put where it can be kept: [`lend`] is unsafe, and its one caller does not
//! return before the device is done with the request or was reset.

#![expect(unsafe_code, reason = "hands pointers to the device")]

use core::ptr::NonNull;

use super::table::{Access, DescriptorTable, Segment};
use crate::platform::{BufferDirection, Hal, PhysAddr};

/// A caller's data that travels with a request, in one or more buffers.
pub enum Data<'a, 'b> {
    /// There is none.
    None,
    /// Bytes for the server.
    Source(&'b [&'a [u8]]),
    /// Space for bytes from the server.
    Sink(&'b mut [&'a mut [u8]]),
}

impl Data<'_, '_> {
    /// Returns the number of bytes in all buffers.
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Source(buffers) => buffers.iter().map(|b| b.len()).sum(),
            Self::Sink(buffers) => buffers.iter().map(|b| b.len()).sum(),
        }
    }

    /// Returns whether there is not one byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    const fn direction(&self) -> (Access, BufferDirection) {
        match self {
            Self::Sink(_) => (Access::Write, BufferDirection::DeviceToDriver),
            Self::None | Self::Source(_) => (Access::Read, BufferDirection::DriverToDevice),
        }
    }

    /// Calls `each` with the first `bytes` bytes, in pieces that do not cross a
    /// multiple of `granule` in virtual memory, until it returns false.
    fn pieces(
        &mut self,
        bytes: usize,
        granule: usize,
        mut each: impl FnMut(NonNull<[u8]>) -> bool,
    ) {
        let mut left = bytes;
        let mut cut = |base: *mut u8, len: usize| {
            let mut at = 0;
            let len = len.min(left);
            while at < len {
                let address = (base as usize).wrapping_add(at);
                // Distance to the next multiple of the granule.
                let room = granule - (address & (granule - 1));
                let n = room.min(len - at);
                let piece = NonNull::slice_from_raw_parts(
                    // SAFETY: `at < len`, which is inside the buffer.
                    unsafe { NonNull::new_unchecked(base.add(at)) },
                    n,
                );
                if !each(piece) {
                    return false;
                }
                at += n;
            }
            left -= len;
            true
        };
        match self {
            Self::None => {}
            Self::Source(buffers) => {
                for b in buffers.iter() {
                    if !cut(b.as_ptr().cast_mut(), b.len()) {
                        return;
                    }
                }
            }
            Self::Sink(buffers) => {
                for b in buffers.iter_mut() {
                    if !cut(b.as_mut_ptr(), b.len()) {
                        return;
                    }
                }
            }
        }
    }
}

/// Fills a [`DescriptorTable`] from the front, joining neighbours.
pub(crate) struct TableBuilder<'t, H: Hal> {
    table: &'t DescriptorTable<H>,
    limit: u16,
    written: u16,
    last: Option<Segment>,
}

/// The table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFull;

impl<'t, H: Hal> TableBuilder<'t, H> {
    /// Starts at the front of `table`, of which `limit` entries may be used.
    pub(crate) fn new(table: &'t DescriptorTable<H>, limit: u16) -> Self {
        Self {
            table,
            limit: limit.min(table.capacity()),
            written: 0,
            last: None,
        }
    }

    /// Adds a segment that stays apart from its neighbours.
    pub(crate) fn push(&mut self, segment: Segment) -> Result<(), TableFull> {
        if self.written + u16::from(self.last.is_some()) >= self.limit {
            return Err(TableFull);
        }
        if let Some(last) = self.last.replace(segment) {
            self.table.set(self.written, last, true);
            self.written += 1;
        }
        Ok(())
    }

    /// Adds a segment, or lengthens the one before if that ends where it begins.
    pub(crate) fn join(&mut self, segment: Segment) -> Result<(), TableFull> {
        if let Some(last) = &mut self.last
            && last.access == segment.access
            && last.addr + PhysAddr::from(last.len) == segment.addr
            && let Some(len) = last.len.checked_add(segment.len)
        {
            last.len = len;
            return Ok(());
        }
        self.push(segment)
    }

    /// Returns the index that the next segment of its own would get.
    const fn next_index(&self) -> u16 {
        self.written + self.last.is_some() as u16
    }

    /// Ends the list and returns how many segments it has.
    pub(crate) fn finish(self) -> u16 {
        if let Some(last) = self.last {
            self.table.set(self.written, last, false);
            return self.written + 1;
        }
        self.written
    }
}

/// A payload that the device may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lent {
    /// Where its segments begin in the table.
    first: u16,
    bytes: usize,
    granule: usize,
}

/// Shares the first `bytes` bytes of `payload` with the device and describes
/// them in `builder`. The payload's own first segment starts a descriptor of
/// its own: servers fill whole descriptors (protocol: READ needs exactly 16 +
/// size writable bytes, ending there).
///
/// # Errors
///
/// The number of bytes for which the table had room, at least one page's worth
/// less than asked; nothing is shared then.
///
/// # Safety
///
/// Until [`reclaim`] is called with the result, the payload's memory must stay
/// valid and must not be used. [`reclaim`] must not be called before the device
/// has given the request back or was reset.
pub(crate) unsafe fn lend<H: Hal>(
    payload: &mut Data<'_, '_>,
    bytes: usize,
    granule: usize,
    builder: &mut TableBuilder<'_, H>,
) -> Result<Lent, usize> {
    assert!(
        bytes <= payload.len() && granule.is_power_of_two(),
        "payload shorter than its request says"
    );
    let first = builder.next_index();
    let (access, direction) = payload.direction();
    let mut done = 0;
    let mut apart = true;
    payload.pieces(bytes, granule, |piece| {
        // SAFETY: the piece lies in a buffer that the caller of `lend` lends.
        let addr = unsafe { H::share(piece, direction) };
        let segment = Segment {
            addr,
            len: piece.len() as u32,
            access,
        };
        let fits = if core::mem::take(&mut apart) {
            builder.push(segment)
        } else {
            builder.join(segment)
        };
        if fits.is_err() {
            // SAFETY: shared just above with the same arguments.
            unsafe { H::unshare(addr, piece, direction) };
            return false;
        }
        done += piece.len();
        true
    });
    let lent = Lent {
        first,
        bytes: done,
        granule,
    };
    if done < bytes {
        // The last segment is still in the builder; write it out to be found.
        if let Some(last) = builder.last {
            builder.table.set(builder.written, last, false);
        }
        // SAFETY: nothing was given to the device yet.
        unsafe { reclaim(payload, lent, builder.table) };
        return Err(done);
    }
    Ok(lent)
}

/// Takes a payload back from the device.
///
/// # Safety
///
/// `lent` must come from [`lend`] with the same payload and table, once, and the
/// device must not use the memory any more.
pub(crate) unsafe fn reclaim<H: Hal>(
    payload: &mut Data<'_, '_>,
    lent: Lent,
    table: &DescriptorTable<H>,
) {
    let (_, direction) = payload.direction();
    let mut index = lent.first;
    let mut used = 0;
    payload.pieces(lent.bytes, lent.granule, |piece| {
        // The same cuts in the same order: a piece begins in the current
        // segment, or at the start of the next one.
        let mut segment = table.get(index);
        if used == segment.len {
            index += 1;
            used = 0;
            segment = table.get(index);
        }
        let addr = segment.addr + PhysAddr::from(used);
        used += piece.len() as u32;
        // SAFETY: `addr` is what `share` returned for this piece.
        unsafe { H::unshare(addr, piece, direction) };
        true
    });
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::platform::PAGE_SIZE;
    use crate::testing::TestHal;
    use std::vec;
    use std::vec::Vec;

    fn segments(table: &DescriptorTable<TestHal>, n: u16) -> Vec<Segment> {
        (0..n).map(|i| table.get(i)).collect()
    }

    #[test]
    fn contiguous_pages_become_one_segment() {
        let table = DescriptorTable::<TestHal>::new(64).unwrap();
        let data = vec![7u8; 10 * PAGE_SIZE + 100];
        let mut builder = TableBuilder::new(&table, 64);
        let list: &[&[u8]] = &[&data[3..]];
        let mut payload = Data::Source(list);
        // SAFETY: `data` lives to the end of the test, and no device exists.
        let lent = unsafe { lend(&mut payload, data.len() - 3, PAGE_SIZE, &mut builder) }.unwrap();
        assert_eq!(builder.finish(), 1);
        assert_eq!(table.get(0).len as usize, data.len() - 3);
        // SAFETY: as above.
        unsafe { reclaim(&mut payload, lent, &table) };
    }

    #[test]
    fn a_short_table_reports_what_fits_and_keeps_nothing() {
        let table = DescriptorTable::<TestHal>::new(8).unwrap();
        let parts: Vec<Vec<u8>> = (0..20).map(|_| vec![1u8; 100]).collect();
        let list: Vec<&[u8]> = parts.iter().map(|p| &p[..50]).collect();
        let mut builder = TableBuilder::new(&table, 3);
        builder
            .push(Segment {
                addr: 1,
                len: 1,
                access: Access::Read,
            })
            .unwrap();
        let mut payload = Data::Source(&list);
        // SAFETY: as above.
        let fits = unsafe { lend(&mut payload, 1000, PAGE_SIZE, &mut builder) };
        assert!(
            matches!(fits, Err(100..150)),
            "two buffers of 50 bytes, perhaps split by a page: {fits:?}"
        );
    }

    #[test]
    fn the_payload_never_joins_the_segment_before_it() {
        let table = DescriptorTable::<TestHal>::new(8).unwrap();
        let mut data = [0u8; 64];
        let addr = data.as_ptr() as u64 + 0x7000_0000_0000_0000;
        let mut builder = TableBuilder::new(&table, 8);
        builder
            .push(Segment {
                addr: addr - 16,
                len: 16,
                access: Access::Write,
            })
            .unwrap();
        let mut list = [&mut data[..]];
        let mut payload = Data::Sink(&mut list);
        // SAFETY: as above.
        let lent = unsafe { lend(&mut payload, 64, PAGE_SIZE, &mut builder) }.unwrap();
        let n = builder.finish();
        assert_eq!(
            segments(&table, n)
                .iter()
                .map(|s| s.len as usize)
                .sum::<usize>(),
            80
        );
        assert_eq!(table.get(0).len, 16);
        // SAFETY: as above.
        unsafe { reclaim(&mut payload, lent, &table) };
    }
}
