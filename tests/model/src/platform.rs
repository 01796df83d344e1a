//! A kernel whose threads are loom's, and in which time stands still.

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::Arc;

use loom::sync::{Condvar, Mutex};

use virtio_fs::device::transport::{DeviceStatus, InterruptStatus, QueueLayout};
use virtio_fs::device::{SharedMemory, Transport, TransportError};
pub use virtio_fs::platform::*;

/// The kernel. Whoever sleeps is woken by somebody, or never.
pub struct ModelPlatform;

/// Where a thread sleeps. (loom's own `park` does not bear a wake-up that comes
/// while the thread joins another.)
#[derive(Default)]
pub struct Parker {
    woken: Mutex<bool>,
    wake: Condvar,
}

loom::thread_local! {
    static PARKER: Arc<Parker> = Arc::default();
}

impl Parker {
    /// Returns the running thread's.
    pub fn current() -> Arc<Self> {
        PARKER.with(Arc::clone)
    }

    /// Sleeps until it is woken, or not at all if that happened already.
    pub fn park(&self) {
        let mut woken = self.woken.lock().expect("nobody panicked");
        while !core::mem::take(&mut *woken) {
            woken = self.wake.wait(woken).expect("nobody panicked");
        }
    }

    /// Wakes who sleeps here.
    pub fn unpark(&self) {
        *self.woken.lock().expect("nobody panicked") = true;
        self.wake.notify_one();
    }
}

/// Has no memory: that of the rings is loom's.
pub struct ModelHal;

/// Has no registers.
pub struct ModelTransport;

impl Platform for ModelPlatform {
    type Hal = ModelHal;
    type Transport = ModelTransport;
    type Thread = Arc<Parker>;

    fn now(&self) -> Duration {
        Duration::ZERO
    }

    fn current_thread(&self) -> Self::Thread {
        Parker::current()
    }

    fn park(&self, _: Option<Duration>) {
        Parker::current().park();
    }

    fn unpark(&self, thread: &Self::Thread) {
        thread.unpark();
    }

    fn can_sleep(&self) -> bool {
        true
    }
}

const NOTHING: &str = "the scenarios have no device";

#[expect(unsafe_code, reason = "an unsafe trait of which nothing is used")]
// SAFETY: no method returns.
unsafe impl Hal for ModelHal {
    fn dma_alloc(_: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        unreachable!("{NOTHING}")
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        unreachable!("{NOTHING}")
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("{NOTHING}")
    }

    unsafe fn share(_: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        unreachable!("{NOTHING}")
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {
        unreachable!("{NOTHING}")
    }
}

impl Transport for ModelTransport {
    fn device_features(&self) -> u64 {
        unreachable!("{NOTHING}")
    }

    fn set_driver_features(&self, _: u64) {
        unreachable!("{NOTHING}")
    }

    fn status(&self) -> DeviceStatus {
        unreachable!("{NOTHING}")
    }

    fn set_status(&self, _: DeviceStatus) {
        unreachable!("{NOTHING}")
    }

    fn max_queue_size(&self, _: u16) -> u16 {
        unreachable!("{NOTHING}")
    }

    fn set_queue(&self, _: u16, _: &QueueLayout) -> Result<(), TransportError> {
        unreachable!("{NOTHING}")
    }

    fn set_config_vector(&self, _: Option<u16>) -> Result<(), TransportError> {
        unreachable!("{NOTHING}")
    }

    fn notify(&self, _: u16) {
        unreachable!("{NOTHING}")
    }

    fn take_interrupt(&self) -> InterruptStatus {
        unreachable!("{NOTHING}")
    }

    fn config_generation(&self) -> u32 {
        unreachable!("{NOTHING}")
    }

    fn read_config(&self, _: usize, _: &mut [u8]) -> Result<(), TransportError> {
        unreachable!("{NOTHING}")
    }

    fn shared_memory(&self, _: u8) -> Option<SharedMemory> {
        unreachable!("{NOTHING}")
    }
}
