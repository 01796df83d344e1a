//! The driver's ring, in memory that loom watches.

#[path = "../../../src/device/ring.rs"]
#[expect(dead_code, reason = "the scenarios use the part that the device sees")]
pub mod ring;
#[path = "../../../src/device/table.rs"]
#[expect(dead_code, reason = "as above")]
pub mod table;

pub use virtio_fs::device::transport;

pub mod dma {
    //! DMA memory of loom's atomics. Each word is always used with one width.

    use core::marker::PhantomData;
    use std::cell::RefCell;
    use std::sync::Arc;

    use loom::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};
    use virtio_fs::platform::PhysAddr;

    /// There is always memory.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OutOfDma;

    struct Word {
        u16: AtomicU16,
        u32: AtomicU32,
        u64: AtomicU64,
    }

    thread_local! {
        /// A scenario runs in one thread of the host, whatever threads it has.
        static LATEST: RefCell<Arc<[Word]>> = RefCell::default();
    }

    /// Memory that driver and device share.
    pub struct DmaRegion<H> {
        words: Arc<[Word]>,
        hal: PhantomData<fn() -> H>,
    }

    /// Takes the region that was made last, as the device reaches it.
    pub fn latest<H>() -> DmaRegion<H> {
        DmaRegion {
            words: LATEST.take(),
            hal: PhantomData,
        }
    }

    impl<H> DmaRegion<H> {
        /// Makes `len` bytes of zeros.
        ///
        /// # Errors
        ///
        /// None.
        pub fn new(len: usize) -> Result<Self, OutOfDma> {
            let words: Arc<[Word]> = (0..len.div_ceil(2))
                .map(|_| Word {
                    u16: AtomicU16::new(0),
                    u32: AtomicU32::new(0),
                    u64: AtomicU64::new(0),
                })
                .collect();
            LATEST.set(words.clone());
            Ok(Self {
                words,
                hal: PhantomData,
            })
        }

        /// Returns an address that no scenario uses.
        pub const fn paddr(&self, offset: usize) -> PhysAddr {
            offset as PhysAddr
        }

        /// Returns the 16-bit word at `offset`.
        pub fn u16(&self, offset: usize) -> &AtomicU16 {
            &self.words[offset / 2].u16
        }

        /// Returns the 32-bit word at `offset`.
        pub fn u32(&self, offset: usize) -> &AtomicU32 {
            &self.words[offset / 2].u32
        }

        /// Returns the 64-bit word at `offset`.
        pub fn u64(&self, offset: usize) -> &AtomicU64 {
            &self.words[offset / 2].u64
        }

        /// Returns the number of bytes.
        pub fn len(&self) -> usize {
            2 * self.words.len()
        }

        /// Returns whether there are none.
        pub fn is_empty(&self) -> bool {
            self.words.is_empty()
        }

        /// No scenario leaks.
        pub fn leak(&mut self) {
            unreachable!("no scenario leaks memory")
        }
    }
}
