//! The registers, as the driver reaches them.

use core::time::Duration;
use std::sync::Arc;

use virtio_drivers::transport::{DeviceStatus, InterruptStatus};
use virtio_fs::device::{QueueLayout, SharedMemory, Transport, TransportError};

use crate::shared::{Drive, Shared};

/// Implements [`Transport`] on the fake device.
///
/// Attaches each calling thread to the device's [`Memory`](crate::Memory).
#[derive(Debug)]
pub struct FakeTransport {
    pub(crate) shared: Arc<Shared>,
}

impl Transport for FakeTransport {
    fn device_features(&self) -> u64 {
        self.shared.device().features()
    }

    fn set_driver_features(&self, features: u64) {
        self.shared.device().set_features(features);
    }

    fn status(&self) -> DeviceStatus {
        let mut device = self.shared.device();
        let status = device.status();
        if device.is_resetting() {
            // Whoever waits for a reset looks at the clock and does not park.
            self.shared.clock.advance(Duration::from_millis(1));
        }
        status
    }

    fn set_status(&self, status: DeviceStatus) {
        self.shared.device().set_status(status);
    }

    fn max_queue_size(&self, queue: u16) -> u16 {
        self.shared.device().max_queue_size(queue)
    }

    fn set_queue(&self, queue: u16, layout: &QueueLayout) -> Result<(), TransportError> {
        self.shared.device().set_queue(queue, layout)
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), TransportError> {
        self.shared.device().set_config_vector(vector)
    }

    fn notify(&self, queue: u16) {
        let mut device = self.shared.device();
        device.kick(queue);
        match self.shared.drive {
            Drive::Immediate => {
                device.run(self.shared.clock.now());
            }
            Drive::Manual => (),
            Drive::Threads => self.shared.wake.notify_all(),
        }
    }

    fn take_interrupt(&self) -> InterruptStatus {
        InterruptStatus::from_bits_retain(self.shared.device().take_isr())
    }

    fn config_generation(&self) -> u32 {
        // As with a reset: a loop around a restless space sees time pass.
        self.shared.clock.advance(Duration::from_micros(1));
        self.shared.device().generation()
    }

    fn read_config(&self, offset: usize, out: &mut [u8]) -> Result<(), TransportError> {
        self.shared.device().read_config(offset, out)
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        let device = self.shared.device();
        self.shared
            .window
            .filter(|_| id == 0 && device.window_present())
    }
}
