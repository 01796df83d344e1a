//! Files mapped into memory, on the driver's [`Inode::fault`]: what another
//! kernel would write for its own address spaces.
//!
//! | | shared | private |
//! |---|---|---|
//! | load | the file's page in the DAX window, 2 MiB at once where it can be | the same, or a copy if it cannot be mapped |
//! | store | the same page, entered anew to allow it | a copy of the page in a frame of the kernel's |
//! | reclaim, truncation | taken back, with a shootdown; the next access faults | the same, but copies stay |
//!
//! A page fault is served by the thread that ran into it, on its own stack: the
//! processor delivers it on an interrupt stack, because compiled code uses the
//! red zone below its stack pointer, and [`trap`](crate::trap) moves its frame
//! below that at once. From there it is an ordinary call that may block in the
//! driver, be preempted, and go on on another CPU. So every load and store works,
//! with no special accessor; [`Mapping::read`] and [`Mapping::write`] are for
//! who wants an error where the file ends, and not the end of the kernel.
//!
//! | beyond the file's end | where the server maps nothing, and in the last page of a file that ends within it |
//! |---|---|
//! | a refused fault (SIGBUS elsewhere): [`AccessError::BeyondEnd`] | shared: [`Mapping::read`] reads by request; all else is refused, until a page cache has such pages. Private: a copy |
//!
//! A file that the driver does not map at all can be mapped privately only, like
//! ENODEV of mmap(2) (S1-19).
//!
//! # Rules for users
//!
//! - Memory of a mapping is no buffer for the driver's own reads and writes: they
//!   hold locks that a fault needs. Copy through a buffer of your own.
//! - Nobody may use a mapping after [`Mapping`] was dropped.
//! - Copies of a private mapping outlive a truncation of the file.
//!
//! [`Inode::fault`]: virtio_fs::fs::Inode::fault

mod area;
mod backing;
pub mod copy;
mod counters;
mod table;

use alloc::sync::Arc;
use core::{fmt, ptr::NonNull};

use area::{Area, State};
use backing::Backing;
pub use counters::{COUNTERS, Counter, Counters};
pub(crate) use table::take_back;
use virtio_fs::{
    Errno, Error,
    fs::{self, File, PageUse},
    platform::Platform,
};

use crate::{
    memory::{PAGE, paging::MapError},
    sync::IrqMutex,
};

/// Whose stores a mapping shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They go to the file: MAP_SHARED.
    Shared,
    /// They stay here: MAP_PRIVATE.
    Private,
}

/// What a mapping may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads.
    Read,
    /// Loads and stores.
    ReadWrite,
}

/// Why an access to a mapping failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// The mapping is read-only: SIGSEGV elsewhere.
    Protected,
    /// The file ends before: SIGBUS elsewhere.
    BeyondEnd,
    /// The page cannot be shared: SIGBUS elsewhere.
    Unmappable,
    /// The driver failed: SIGBUS elsewhere.
    Failed(Error),
    /// No memory for a page or a page table.
    NoMemory(MapError),
    /// Outside of the mapping, or it is gone.
    Unmapped,
}

impl From<Error> for AccessError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<MapError> for AccessError {
    fn from(error: MapError) -> Self {
        Self::NoMemory(error)
    }
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protected => f.write_str("the mapping is read-only"),
            Self::BeyondEnd => f.write_str("bus error: behind the end of the file"),
            Self::Unmappable => f.write_str("bus error: the page cannot be shared"),
            Self::Failed(error) => write!(f, "bus error: {error}"),
            Self::NoMemory(error) => fmt::Display::fmt(error, f),
            Self::Unmapped => f.write_str("nothing is mapped there"),
        }
    }
}

impl core::error::Error for AccessError {}

/// A mapped file. Dropping it unmaps.
pub struct Mapping {
    area: Arc<Area>,
    /// As asked for: the area is in whole pages.
    len: u64,
}

/// Maps `len` bytes of `file` from byte `offset` on, which is a multiple of
/// [`PAGE`]. The file may be shorter, and may be closed.
///
/// # Errors
///
/// EINVAL for an empty or unaligned range, EACCES if the file is not open for
/// what is wanted, ENODEV if its pages cannot be shared, ENOMEM if there are no
/// addresses left.
pub fn map<P: Platform>(
    file: &Arc<File<P>>,
    offset: u64,
    len: u64,
    sharing: Sharing,
    access: Access,
) -> Result<Mapping, Error> {
    let fits = offset
        .checked_add(len)
        .is_some_and(|end| end <= i64::MAX as u64);
    if len == 0 || !offset.is_multiple_of(PAGE) || !fits {
        return Err(Errno::EINVAL.into());
    }
    let wanted = match access {
        Access::Read => fs::Access::READ,
        Access::ReadWrite => fs::Access::READ | fs::Access::WRITE,
    };
    file.may_map(
        wanted,
        match sharing {
            Sharing::Shared => fs::Sharing::Shared,
            Sharing::Private => fs::Sharing::Private,
        },
    )?;
    let backing: Arc<dyn Backing> = file.clone();
    let mapping = backing.mapping();
    if sharing == Sharing::Shared && mapping.is_none() {
        return Err(Errno::ENODEV.into());
    }
    let pages = len.next_multiple_of(PAGE);
    let area = table::insert(offset, pages, |start| Area {
        start,
        len: pages,
        offset,
        sharing,
        access,
        backing,
        mapping,
        state: IrqMutex::new(State::default()),
    });
    Ok(Mapping {
        area: area.ok_or(Errno::ENOMEM)?,
        len,
    })
}

impl Mapping {
    /// Returns where it begins, for loads and stores: those before
    /// [`len`](Self::len), and before the end of the file.
    pub fn as_ptr(&self) -> NonNull<u8> {
        NonNull::new(self.area.start as *mut u8).expect("mappings begin above address 0")
    }

    /// Returns its length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Copies bytes from `at` on into `buf`. Blocks.
    ///
    /// # Errors
    ///
    /// As [`AccessError`] says; some bytes may have been copied.
    pub fn read(&self, at: u64, buf: &mut [u8]) -> Result<(), AccessError> {
        self.each_page(at, buf.len(), |addr, range| {
            // SAFETY: `each_page` stays within the area.
            let n = unsafe { copy::load(&mut buf[range.clone()], addr) };
            if n == range.len() {
                return Ok(n);
            }
            match self.retry(addr, n, PageUse::Load) {
                Err(AccessError::Unmappable) => {
                    let offset = self.area.offset + at + range.start as u64;
                    let len = range.len();
                    if self.area.backing.read(offset, &mut buf[range])? < len {
                        return Err(AccessError::BeyondEnd);
                    }
                    Ok(len)
                }
                result => result.map(|()| n),
            }
        })
    }

    /// Copies `data` to the bytes from `at` on. Blocks.
    ///
    /// # Errors
    ///
    /// As [`AccessError`] says; some bytes may have been copied.
    pub fn write(&self, at: u64, data: &[u8]) -> Result<(), AccessError> {
        self.each_page(at, data.len(), |addr, range| {
            // SAFETY: `each_page` stays within the area.
            let n = unsafe { copy::store(addr, &data[range.clone()]) };
            if n == range.len() {
                return Ok(n);
            }
            self.retry(addr, n, PageUse::Store).map(|()| n)
        })
    }

    /// Calls `each` with the pieces of `at..at + len` that lie in one page each;
    /// it says how many bytes it got done.
    fn each_page(
        &self,
        at: u64,
        len: usize,
        mut each: impl FnMut(NonNull<u8>, core::ops::Range<usize>) -> Result<usize, AccessError>,
    ) -> Result<(), AccessError> {
        let end = at.checked_add(len as u64);
        if end.is_none_or(|end| end > self.len) {
            return Err(AccessError::Unmapped);
        }
        let mut done = 0;
        while done < len {
            let from = at + done as u64;
            let here = ((PAGE - from % PAGE) as usize).min(len - done);
            // SAFETY: within the area, as checked above.
            let addr = unsafe { self.as_ptr().add(from as usize) };
            done += each(addr, done..done + here)?;
        }
        Ok(())
    }

    /// Finds out why a copy stopped after `done` bytes. Ok if it was for nothing:
    /// then there is a page by now.
    fn retry(&self, addr: NonNull<u8>, done: usize, want: PageUse) -> Result<(), AccessError> {
        self.area.resolve(addr.as_ptr() as u64 + done as u64, want)
    }

    /// Makes what was stored durable: msync(2) with MS_SYNC. Returns how many
    /// pages, of both sizes, had been written through this mapping. Blocks.
    ///
    /// # Errors
    ///
    /// Those of [`File::sync`].
    pub fn sync(&self) -> Result<u64, Error> {
        self.area.sync()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.area.close();
        // Not before: its addresses may be given to another then.
        table::remove(&self.area);
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let area = &self.area;
        write!(
            f,
            "{:?} {:?} mapping of {} bytes at {:#x}",
            area.sharing, area.access, self.len, area.start
        )
    }
}
