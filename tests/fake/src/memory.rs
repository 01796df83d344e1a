//! Guest memory as the device sees it.
//!
//! "Physical" addresses have bit 62 set and count pages that were never handed
//! out before, so a driver that passes a pointer, forgets to share a buffer or
//! uses an address after it was unshared is noticed at the device's first
//! access. Every access of the device is looked up among what is shared *now*;
//! what it finds wrong is recorded as a violation, never acted on.
//!
//! `Hal` is static. Its state is a [`Memory`] per fake device, and a thread
//! allocates from the one it is attached to. [`FakePlatform`](crate::FakePlatform)
//! and [`FakeTransport`](crate::FakeTransport) attach the calling thread in each
//! of their methods, and the driver calls one of them before it shares
//! anything, so tests run in parallel and need not care; a thread that calls
//! [`FakeHal`](crate::FakeHal) without them calls [`Memory::attach`] first.
//!
//! # Invariants
//!
//! - Regions of one memory do not touch each other: a page is left out between
//!   any two, so running over an end is always noticed.
//! - A region's host pointer is valid while the region is in the map; the
//!   device touches it only with the map locked.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::alloc::{Layout, alloc_zeroed};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use virtio_drivers::{BufferDirection, PAGE_SIZE, PhysAddr};

/// Set in every physical address, clear in every user space pointer.
const MARK: u64 = 1 << 62;
/// Each memory has this many bits of address space of its own.
const SPACE_BITS: u32 = 40;
/// Pages in half a space: shares take the lower half, DMA pages the upper.
const HALF_PAGES: u64 = 1 << (SPACE_BITS - 1 - 12);

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static MEMORIES: RwLock<BTreeMap<u64, Weak<Memory>>> = RwLock::new(BTreeMap::new());

thread_local! {
    static CURRENT: RefCell<Option<Arc<Memory>>> = const { RefCell::new(None) };
}

/// How shared buffers lie in physical memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Placement {
    /// A buffer is contiguous however long it is.
    #[default]
    Contiguous,
    /// Each page lies somewhere else, so a buffer that is shared in one piece
    /// across a page boundary is a violation.
    Scattered,
}

/// Whether the device works on the driver's buffer itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// It does.
    #[default]
    Direct,
    /// It works on a copy that `unshare` copies back, as behind an IOMMU that
    /// needs bounce buffers. A driver that reads a reply before it unshared the
    /// buffer then reads nothing.
    Bounced,
}

/// What is shared and allocated at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Buffers shared with the device.
    pub shares: usize,
    /// DMA pages allocated.
    pub dma_pages: usize,
    /// Most buffers that were ever shared at once.
    pub peak_shares: usize,
    /// Most DMA pages that were ever allocated at once.
    pub peak_dma_pages: usize,
    /// Calls of `dma_alloc`, failed ones included.
    pub allocations: u64,
}

#[derive(Debug)]
enum Kind {
    Dma {
        pages: usize,
    },
    Share {
        direction: BufferDirection,
        original: NonNull<u8>,
        bounce: Option<Box<[u8]>>,
    },
}

#[derive(Debug)]
struct Region {
    len: usize,
    host: NonNull<u8>,
    kind: Kind,
}

/// Register space, such as the DAX window.
#[derive(Debug)]
struct Mmio {
    start: PhysAddr,
    len: usize,
    host: NonNull<u8>,
}

#[derive(Debug, Default)]
struct State {
    regions: BTreeMap<PhysAddr, Region>,
    /// Ranges that the device owns, with how often.
    claims: BTreeMap<(PhysAddr, usize), usize>,
    mmio: Vec<Mmio>,
    next_share: u64,
    next_dma: u64,
    fail_at: Option<u64>,
    usage: Usage,
    violations: Vec<String>,
}

// SAFETY: the pointers are plain addresses here. They are followed only under
// the lock around `State`, and only while the owner has promised by `share` or
// `dma_alloc` that other threads may.
unsafe impl Send for State {}

/// The guest memory of one fake device.
///
/// `Hal` is static, so a thread allocates from the memory that it is attached to.
/// Every method of [`FakePlatform`](crate::FakePlatform) and
/// [`FakeTransport`](crate::FakeTransport) that the driver calls on its way to share
/// something attaches the calling thread; only a thread that calls
/// [`FakeHal`](crate::FakeHal) without them calls [`attach`](Self::attach) itself.
#[derive(Debug)]
pub struct Memory {
    id: u64,
    placement: Placement,
    sharing: Sharing,
    state: Mutex<State>,
}

/// What the device wants to do with memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// The device could not access memory. The violation was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BusError;

impl Memory {
    /// Makes an empty memory.
    pub fn new(placement: Placement, sharing: Sharing) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let memory = Arc::new(Self {
            id,
            placement,
            sharing,
            state: Mutex::default(),
        });
        let mut memories = MEMORIES.write().unwrap_or_else(PoisonError::into_inner);
        memories.insert(id, Arc::downgrade(&memory));
        memory
    }

    /// Makes the calling thread allocate and share here from now on.
    pub fn attach(self: &Arc<Self>) {
        CURRENT.with_borrow_mut(|current| {
            if !current.as_ref().is_some_and(|c| Arc::ptr_eq(c, self)) {
                *current = Some(self.clone());
            }
        });
    }

    /// Makes the `n`-th call of `dma_alloc` from now fail; 1 is the next one.
    pub fn fail_allocation(&self, n: u64) {
        let mut state = self.lock();
        state.fail_at = Some(state.usage.allocations + n);
    }

    /// Returns what is shared and allocated.
    pub fn usage(&self) -> Usage {
        self.lock().usage
    }

    /// Returns what went wrong so far.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Returns what went wrong so far and forgets it.
    pub fn take_violations(&self) -> Vec<String> {
        core::mem::take(&mut self.lock().violations)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn base(&self) -> PhysAddr {
        MARK | self.id << SPACE_BITS
    }

    /// Makes `len` bytes at `host` reachable through `mmio_phys_to_virt`.
    pub(crate) fn add_mmio(&self, host: NonNull<u8>, len: usize) -> PhysAddr {
        let mut state = self.lock();
        let pages = len.div_ceil(PAGE_SIZE) as u64;
        let start = self.base() + (HALF_PAGES + state.next_dma) * PAGE_SIZE as u64;
        state.next_dma += pages + 1;
        state.mmio.push(Mmio { start, len, host });
        start
    }

    /// Copies from shared memory.
    pub(crate) fn read(&self, at: PhysAddr, out: &mut [u8]) -> Result<(), BusError> {
        let mut state = self.lock();
        let len = out.len();
        let host = state.find(at, len, Access::Read)?;
        // SAFETY: `find` checked that `len` bytes from `host` lie in a
        // live region, which stays live while the map is locked. `out` is a
        // buffer of the device and so no part of it.
        unsafe { host.copy_to_nonoverlapping(NonNull::from(out).cast(), len) };
        Ok(())
    }

    /// Copies into shared memory.
    pub(crate) fn write(&self, at: PhysAddr, data: &[u8]) -> Result<(), BusError> {
        let mut state = self.lock();
        let host = state.find(at, data.len(), Access::Write)?;
        // SAFETY: as in `read`; the region's direction lets the device write.
        unsafe { host.copy_from_nonoverlapping(NonNull::from(data).cast(), data.len()) };
        Ok(())
    }

    /// Loads a ring index, before everything that follows.
    pub(crate) fn load_u16(&self, at: PhysAddr) -> Result<u16, BusError> {
        let mut state = self.lock();
        let host = state.find(at, 2, Access::Read)?;
        if !host.cast::<u16>().is_aligned() {
            state
                .violations
                .push(format!("ring index at {at:#x} is not aligned"));
            return Err(BusError);
        }
        // SAFETY: two live bytes by `find`, aligned as just checked; the driver
        // accesses ring indices atomically as well.
        let value = unsafe { AtomicU16::from_ptr(host.cast().as_ptr()) }.load(Ordering::SeqCst);
        Ok(u16::from_le(value))
    }

    /// Stores a ring index, after everything that came before.
    pub(crate) fn store_u16(&self, at: PhysAddr, value: u16) -> Result<(), BusError> {
        let mut state = self.lock();
        let host = state.find(at, 2, Access::Write)?;
        if !host.cast::<u16>().is_aligned() {
            state
                .violations
                .push(format!("ring index at {at:#x} is not aligned"));
            return Err(BusError);
        }
        // SAFETY: as in `load_u16`.
        unsafe { AtomicU16::from_ptr(host.cast().as_ptr()) }.store(value.to_le(), Ordering::SeqCst);
        Ok(())
    }

    /// Checks that the device may access `len` bytes at `at` without doing so.
    pub(crate) fn probe(&self, at: PhysAddr, len: usize, access: Access) -> Result<(), BusError> {
        self.lock().find(at, len, access).map(drop)
    }

    /// Notes that the device owns a range: to free it is a violation.
    pub(crate) fn claim(&self, at: PhysAddr, len: usize) {
        *self.lock().claims.entry((at, len)).or_default() += 1;
    }

    /// Ends one [`claim`](Self::claim).
    pub(crate) fn release(&self, at: PhysAddr, len: usize) {
        let mut state = self.lock();
        if let Some(count) = state.claims.get_mut(&(at, len)) {
            *count -= 1;
            if *count == 0 {
                state.claims.remove(&(at, len));
            }
        }
    }

    /// Ends all claims: the device was reset or is gone.
    pub(crate) fn release_all(&self) {
        self.lock().claims.clear();
    }

    pub(crate) fn alloc(&self, pages: usize) -> Option<(PhysAddr, NonNull<u8>)> {
        let mut state = self.lock();
        state.usage.allocations += 1;
        if state.fail_at == Some(state.usage.allocations) || pages == 0 {
            return None;
        }
        let layout = Layout::from_size_align(pages.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok()?;
        // SAFETY: the size is not 0, `pages` is not.
        let host = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let start = self.base() + (HALF_PAGES + state.next_dma) * PAGE_SIZE as u64;
        state.next_dma += pages as u64 + 1;
        let region = Region {
            len: layout.size(),
            host,
            kind: Kind::Dma { pages },
        };
        state.regions.insert(start, region);
        state.usage.dma_pages += pages;
        state.usage.peak_dma_pages = state.usage.peak_dma_pages.max(state.usage.dma_pages);
        Some((start, host))
    }

    /// Forgets a DMA allocation and says whether its memory may be freed.
    pub(crate) fn dealloc(&self, at: PhysAddr, host: NonNull<u8>, pages: usize) -> bool {
        let mut state = self.lock();
        let fits = state.regions.get(&at).is_some_and(|r| {
            r.host == host && matches!(r.kind, Kind::Dma { pages: p } if p == pages)
        });
        if !fits {
            let text = format!("dma_dealloc({at:#x}, {host:?}, {pages}) was never allocated so");
            state.violations.push(text);
            return false;
        }
        state.check_unclaimed("dma_dealloc", at, pages * PAGE_SIZE);
        state.regions.remove(&at);
        state.usage.dma_pages -= pages;
        true
    }

    pub(crate) fn share(&self, buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let mut state = self.lock();
        let original = buffer.cast::<u8>();
        let offset = original.as_ptr() as usize % PAGE_SIZE;
        let len = buffer.len();
        if len == 0 {
            state.violations.push("an empty buffer was shared".into());
        }
        let pages = (offset + len).div_ceil(PAGE_SIZE).max(1) as u64;
        let page = match self.placement {
            Placement::Scattered if pages == 1 => {
                // An odd factor permutes the even page numbers of this space's
                // lower quarter; the odd ones stay free as guards.
                let quarter = HALF_PAGES / 2;
                let n = state.next_share;
                state.next_share += 1;
                2 * (n.wrapping_mul(0x9E37_79B1) % (quarter / 2))
            }
            placement => {
                if placement == Placement::Scattered {
                    let text = format!("a buffer of {len} bytes was shared across {pages} pages");
                    state.violations.push(text);
                }
                let n = state.next_share;
                state.next_share += pages + 1;
                HALF_PAGES / 2 + n % (HALF_PAGES / 2 - pages)
            }
        };
        let at = self.base() + page * PAGE_SIZE as u64 + offset as u64;
        let mut bounce = match self.sharing {
            Sharing::Direct => None,
            // What the driver did not mean to show is not there.
            Sharing::Bounced => Some(vec![0xB5_u8; len].into_boxed_slice()),
        };
        if let (Some(copy), BufferDirection::DriverToDevice | BufferDirection::Both) =
            (&mut bounce, direction)
        {
            // SAFETY: the caller of `share` promises `len` valid bytes that no
            // other thread accesses during the call; `copy` is fresh and as long.
            unsafe { original.copy_to_nonoverlapping(NonNull::from(&mut **copy).cast(), len) };
        }
        let host = bounce
            .as_mut()
            .map_or(original, |copy| NonNull::from(&mut **copy).cast());
        let kind = Kind::Share {
            direction,
            original,
            bounce,
        };
        state.regions.insert(at, Region { len, host, kind });
        state.usage.shares += 1;
        state.usage.peak_shares = state.usage.peak_shares.max(state.usage.shares);
        at
    }

    pub(crate) fn unshare(&self, at: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let mut state = self.lock();
        let fits = state.regions.get(&at).is_some_and(|r| {
            r.len == buffer.len()
                && matches!(&r.kind, Kind::Share { direction: d, original, .. }
                    if *d == direction && *original == buffer.cast())
        });
        if !fits {
            let text = format!("unshare({at:#x}, {buffer:?}, {direction:?}) was not shared so");
            state.violations.push(text);
            return;
        }
        state.check_unclaimed("unshare", at, buffer.len());
        state.usage.shares -= 1;
        let Some(Region {
            kind: Kind::Share {
                bounce: Some(copy), ..
            },
            len,
            ..
        }) = state.regions.remove(&at)
        else {
            return;
        };
        if direction != BufferDirection::DriverToDevice {
            // SAFETY: as in `share`: the caller promises `len` bytes to itself.
            unsafe {
                buffer
                    .cast::<u8>()
                    .copy_from_nonoverlapping(NonNull::from(&*copy).cast(), len)
            };
        }
    }

    pub(crate) fn mmio(&self, at: PhysAddr, len: usize) -> Option<NonNull<u8>> {
        let state = self.lock();
        let mmio = state
            .mmio
            .iter()
            .find(|m| at >= m.start && at - m.start < m.len as u64)?;
        let offset = (at - mmio.start) as usize;
        if mmio.len - offset < len {
            return None;
        }
        // SAFETY: `offset` is within the mapping of `mmio.len` bytes.
        Some(unsafe { mmio.host.add(offset) })
    }
}

impl State {
    /// Finds the host address of a range that lies in one live region and that
    /// the device may access so.
    fn find(&mut self, at: PhysAddr, len: usize, access: Access) -> Result<NonNull<u8>, BusError> {
        let why = match self.regions.range(..=at).next_back() {
            Some((start, region)) if at - start < region.len.max(1) as u64 => {
                let offset = (at - start) as usize;
                if region.len - offset < len {
                    format!("{} bytes past the end", len - (region.len - offset))
                } else {
                    match (&region.kind, access) {
                        (
                            Kind::Share {
                                direction: BufferDirection::DriverToDevice,
                                ..
                            },
                            Access::Write,
                        ) => "shared for the device to read only".into(),
                        (
                            Kind::Share {
                                direction: BufferDirection::DeviceToDriver,
                                ..
                            },
                            Access::Read,
                        ) => "shared for the device to write only".into(),
                        // SAFETY: `offset` lies inside the region's `len` bytes.
                        _ => return Ok(unsafe { region.host.add(offset) }),
                    }
                }
            }
            _ => "nothing is shared there".into(),
        };
        self.violations.push(format!(
            "device {access:?} of {len} bytes at {at:#x}: {why}"
        ));
        Err(BusError)
    }

    fn check_unclaimed(&mut self, call: &str, at: PhysAddr, len: usize) {
        let end = at + len as u64;
        let owned = self
            .claims
            .keys()
            .find(|(start, l)| *start < end && start + *l as u64 > at);
        if let Some((start, owned)) = owned {
            let text = format!(
                "{call} of {len} bytes at {at:#x}: the device owns {owned} bytes at {start:#x}"
            );
            self.violations.push(text);
        }
    }
}

/// Finds the memory that an address belongs to.
pub(crate) fn memory_of(at: PhysAddr) -> Option<Arc<Memory>> {
    let id = (at & !MARK) >> SPACE_BITS;
    let memories = MEMORIES.read().unwrap_or_else(PoisonError::into_inner);
    memories.get(&id)?.upgrade()
}

/// The memory that the calling thread is attached to.
pub(crate) fn current() -> Option<Arc<Memory>> {
    CURRENT.with_borrow(Clone::clone)
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut memories = MEMORIES.write().unwrap_or_else(PoisonError::into_inner);
        memories.remove(&self.id);
        // DMA pages that are still allocated belong to a driver that may yet
        // touch them: they are left to leak rather than pulled away.
    }
}
