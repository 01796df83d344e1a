//! The registers that all virtio devices have (virtio 1.3, 4.1.4.3).

use spin::Mutex;
use virtio_drivers::transport::DeviceStatus;

use super::registers::Registers;
use crate::device::transport::{QueueLayout, TransportError};

/// Bytes that every device has; newer ones have more.
pub(super) const COMMON_LEN: u64 = 56;

/// Offsets.
mod at {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0;
    pub(super) const DEVICE_FEATURE: usize = 4;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 8;
    pub(super) const DRIVER_FEATURE: usize = 12;
    pub(super) const CONFIG_MSIX_VECTOR: usize = 16;
    pub(super) const NUM_QUEUES: usize = 18;
    pub(super) const DEVICE_STATUS: usize = 20;
    pub(super) const CONFIG_GENERATION: usize = 21;
    pub(super) const QUEUE_SELECT: usize = 22;
    pub(super) const QUEUE_SIZE: usize = 24;
    pub(super) const QUEUE_MSIX_VECTOR: usize = 26;
    pub(super) const QUEUE_ENABLE: usize = 28;
    pub(super) const QUEUE_NOTIFY_OFF: usize = 30;
    pub(super) const QUEUE_DESC: usize = 32;
    pub(super) const QUEUE_DRIVER: usize = 40;
    pub(super) const QUEUE_DEVICE: usize = 48;
}

/// Stands for "no vector", and for one that the device has no room for.
const NO_VECTOR: u16 = 0xffff;
/// The largest size of a queue (virtio 1.3, 2.7).
const QUEUE_SIZE_MAX: u16 = 1 << 15;

/// The registers, and the lock over the selectors among them.
///
/// # Locking
///
/// `selectors` is held between writing a selector and the last use of the
/// registers that it selects. It is a leaf: nothing else is taken under it.
pub(super) struct Common {
    registers: Registers,
    selectors: Mutex<()>,
}

impl Common {
    pub(super) fn new(registers: Registers) -> Self {
        Self {
            registers,
            selectors: Mutex::new(()),
        }
    }

    pub(super) fn device_features(&self) -> u64 {
        let _selected = self.selectors.lock();
        let half = |n| {
            self.registers.write32(at::DEVICE_FEATURE_SELECT, n);
            u64::from(self.registers.read32(at::DEVICE_FEATURE))
        };
        half(0) | half(1) << 32
    }

    pub(super) fn set_driver_features(&self, features: u64) {
        let _selected = self.selectors.lock();
        for (n, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.registers.write32(at::DRIVER_FEATURE_SELECT, n);
            self.registers.write32(at::DRIVER_FEATURE, half);
        }
    }

    pub(super) fn status(&self) -> DeviceStatus {
        let status = self.registers.read8(at::DEVICE_STATUS);
        DeviceStatus::from_bits_retain(status.into())
    }

    pub(super) fn set_status(&self, status: DeviceStatus) {
        self.registers
            .write8(at::DEVICE_STATUS, status.bits() as u8);
    }

    pub(super) fn config_generation(&self) -> u8 {
        self.registers.read8(at::CONFIG_GENERATION)
    }

    pub(super) fn queues(&self) -> u16 {
        self.registers.read16(at::NUM_QUEUES)
    }

    /// Reads the largest size of a queue; 0 if there is none, or if the answer
    /// is none of a device that is there.
    pub(super) fn max_queue_size(&self, queue: u16) -> u16 {
        let _selected = self.selectors.lock();
        self.select(queue)
    }

    /// Selects a queue and reads its largest size.
    fn select(&self, queue: u16) -> u16 {
        self.registers.write16(at::QUEUE_SELECT, queue);
        match self.registers.read16(at::QUEUE_SIZE) {
            size if size <= QUEUE_SIZE_MAX => size,
            _ => 0,
        }
    }

    /// Sets up a queue and enables it, if `notify` finds a register for the
    /// notification offset that the device gives to the queue.
    pub(super) fn set_queue(
        &self,
        queue: u16,
        layout: &QueueLayout,
        notify: impl FnOnce(u16) -> Option<()>,
    ) -> Result<(), TransportError> {
        let refused = TransportError::Queue(queue);
        let _selected = self.selectors.lock();
        let max = self.select(queue);
        if layout.size == 0 || layout.size > max {
            return Err(refused);
        }
        notify(self.registers.read16(at::QUEUE_NOTIFY_OFF)).ok_or(refused)?;
        self.registers.write16(at::QUEUE_SIZE, layout.size);
        self.set_address(at::QUEUE_DESC, layout.descriptors);
        self.set_address(at::QUEUE_DRIVER, layout.available);
        self.set_address(at::QUEUE_DEVICE, layout.used);
        self.set_vector(at::QUEUE_MSIX_VECTOR, layout.vector)?;
        self.registers.write16(at::QUEUE_ENABLE, 1);
        // A device that is gone reads all ones here.
        match self.registers.read16(at::QUEUE_ENABLE) {
            1 => Ok(()),
            _ => Err(refused),
        }
    }

    pub(super) fn set_config_vector(&self, vector: Option<u16>) -> Result<(), TransportError> {
        self.set_vector(at::CONFIG_MSIX_VECTOR, vector)
    }

    /// Writes a vector and reads it back: a device that has no room for it says
    /// so by another value.
    fn set_vector(&self, register: usize, vector: Option<u16>) -> Result<(), TransportError> {
        self.registers
            .write16(register, vector.unwrap_or(NO_VECTOR));
        match vector {
            None => Ok(()),
            Some(vector) if vector != NO_VECTOR && self.registers.read16(register) == vector => {
                Ok(())
            }
            Some(vector) => Err(TransportError::Vector(vector)),
        }
    }

    /// Writes a 64-bit register, in halves as the specification wants it.
    fn set_address(&self, register: usize, address: u64) {
        self.registers.write32(register, address as u32);
        self.registers.write32(register + 4, (address >> 32) as u32);
    }
}
