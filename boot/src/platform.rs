//! The driver's [`Platform`] on this kernel's threads and clock.

use alloc::sync::Arc;
use core::{marker::PhantomData, time::Duration};

use virtio_fs::{device::Transport, platform::Platform};

use crate::{clock, cpu, hal::KernelHal, thread};

/// This kernel, for a driver on transport `T`.
#[derive(Debug)]
pub struct KernelPlatform<T>(PhantomData<fn() -> T>);

impl<T> KernelPlatform<T> {
    /// Makes one; it holds nothing.
    pub const fn new() -> Self {
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

    fn cpu(&self) -> usize {
        cpu::current().id()
    }
}
