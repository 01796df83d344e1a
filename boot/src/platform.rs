//! The driver's [`Platform`] on this kernel's threads and clock.

use alloc::{sync::Arc, vec::Vec};
use core::{marker::PhantomData, ptr::NonNull, sync::atomic::Ordering, time::Duration};

use spin::Mutex;
use virtio_fs::{
    device::{SharedMemory, Transport, window::WindowMemory},
    platform::{FilePages, Platform},
    sync::order::{self, Context},
};

use crate::{
    clock, cpu,
    hal::KernelHal,
    memory::{CacheMode, map_mmio},
    mmap,
    sync::without_interrupts,
    thread,
};

/// This kernel, for a driver on transport `T`.
#[derive(Debug)]
pub struct KernelPlatform<T>(PhantomData<fn() -> T>);

impl<T> KernelPlatform<T> {
    /// Makes one; it holds nothing. From the first on, the driver's lock order is
    /// checked.
    pub fn new() -> Self {
        order::watch(|check| {
            let in_handler = || cpu::current().in_handler.load(Ordering::Relaxed);
            let context = match without_interrupts(in_handler) {
                true => Context::Interrupt,
                false => Context::Thread,
            };
            check(thread::current().held(), context);
        });
        Self(PhantomData)
    }
}

impl<T> Default for KernelPlatform<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Transport> Platform for KernelPlatform<T> {
    type Hal = KernelHal;
    type Transport = T;
    type Thread = Arc<thread::Thread>;

    /// Everything that may be lent to the device is one physical run for as long as
    /// it is one virtual run: the linear map, a thread's stack, the kernel's image.
    /// (Mapped files are not, and are no buffers: see [`mmap`].) So a buffer is one
    /// descriptor.
    const SHARE_GRANULE: usize = 1 << 30;

    fn now(&self) -> Duration {
        clock::now()
    }

    fn realtime(&self) -> Option<Duration> {
        clock::realtime()
    }

    fn current_thread(&self) -> Self::Thread {
        thread::current()
    }

    fn park(&self, deadline: Option<Duration>) {
        thread::park(deadline);
    }

    fn unpark(&self, thread: &Self::Thread) {
        thread.unpark();
    }

    fn can_sleep(&self) -> bool {
        true
    }

    fn map_window(&self, region: SharedMemory) -> Option<WindowMemory> {
        /// Where windows were mapped before: for good, so once is enough.
        static WINDOWS: Mutex<Vec<(SharedMemory, usize)>> = Mutex::new(Vec::new());
        let mut windows = WINDOWS.lock();
        let base = match windows.iter().find(|(known, _)| *known == region) {
            Some(&(_, base)) => base as *mut u8,
            None => {
                let base = map_mmio(region.addr, region.len, CacheMode::WriteBack)
                    .inspect_err(|error| log::warn!("DAX window at {:#x}: {error}", region.addr))
                    .ok()?;
                windows.push((region, base as usize));
                base
            }
        };
        // SAFETY: the range was mapped for good, over memory of the device's, for
        // this purpose alone; nothing here refers to bytes in it.
        Some(unsafe { WindowMemory::new(NonNull::new(base)?, region.len) })
    }

    fn unmap_file_pages(&self, pages: &FilePages) {
        mmap::take_back(pages);
    }

    fn cpu(&self) -> usize {
        cpu::current().id()
    }
}
