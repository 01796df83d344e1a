//! Volatile access to registers in a BAR: the only unsafe code of this folder.
//!
//! Accesses are checked against the length of the region and for alignment. One
//! that fails the check reads all ones and writes nothing, which is what a
//! device does that is gone; so a wrong number of the device's ends there.

#![expect(unsafe_code, reason = "registers are reached through raw pointers")]

use core::ptr::NonNull;

use virtio_drivers::Hal;

use super::bar::Region;

/// A region of registers, mapped for as long as the program runs.
///
/// # Invariants
///
/// `base` points to `len` bytes of device registers that the kernel mapped, and
/// they are never unmapped. No reference to them exists.
pub(super) struct Registers {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: registers are not bound to a thread, and the pointer is never handed
// out.
unsafe impl Send for Registers {}
// SAFETY: shared access is volatile loads and stores of at most 32 bits. What
// several CPUs at once mean for the device is for the callers to say: they hold
// a lock, or the register is one that the specification lets anybody write.
unsafe impl Sync for Registers {}

macro_rules! access {
    ($read:ident $write:ident $type:ty) => {
        /// Reads a register; all ones if there is none at this offset.
        pub(super) fn $read(&self, offset: usize) -> $type {
            let Some(register) = self.register::<$type>(offset) else {
                return <$type>::MAX;
            };
            // SAFETY: `register` checked that the whole access lies inside the
            // region and is aligned; the region is mapped (invariant).
            unsafe { register.read_volatile() }
        }

        /// Writes a register, if there is one at this offset.
        pub(super) fn $write(&self, offset: usize, value: $type) {
            if let Some(register) = self.register::<$type>(offset) {
                // SAFETY: as for reading; registers are plain numbers, so every
                // value may be written.
                unsafe { register.write_volatile(value) };
                #[cfg(test)]
                super::fake::written(register.as_ptr() as usize);
            }
        }
    };
}

impl Registers {
    /// Maps a region.
    pub(super) fn map<H: Hal>(region: Region) -> Option<Self> {
        let len = usize::try_from(region.len()).ok()?;
        // SAFETY: a `Region` is a range inside a BAR of a device that decodes
        // memory addresses, at the address that firmware or the kernel gave to
        // the BAR: that is a valid MMIO region.
        let base = unsafe { H::mmio_phys_to_virt(region.address(), len) };
        Some(Self { base, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    access!(read8 write8 u8);
    access!(read16 write16 u16);
    access!(read32 write32 u32);

    /// Finds a register that lies in the region as a whole and is aligned.
    fn register<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let end = offset.checked_add(size_of::<T>())?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset` is less than `len`, so the pointer stays inside the
        // mapped region (invariant).
        let register = unsafe { self.base.add(offset) }.cast::<T>();
        register.is_aligned().then_some(register)
    }
}
