//! What the driver needs of a virtio transport (virtio 1.3, chapter 4).
//!
//! virtio-drivers has a `Transport` trait too. It is not used, for four
//! reasons: it cannot express device 26 (its `DeviceType` ends at 25), shared
//! memory regions or interrupt vectors; every call takes `&mut self`, so two
//! CPUs could not ring two queues at once; its `read_consistent` loops for as
//! long as a device changes its generation; and its `begin_init` does not read
//! FEATURES_OK back. Its status and interrupt words are used here.

use core::fmt;

use virtio_drivers::PhysAddr;
pub use virtio_drivers::transport::{DeviceStatus, InterruptStatus};

/// Register access to one virtio device.
///
/// The driver calls every method but [`notify`](Self::notify) and
/// [`take_interrupt`](Self::take_interrupt) from one context at a time, while
/// it sets the device up or resets it. Those two are called from any CPU at
/// any time. No method may block or allocate.
///
/// # Implementer's duties
///
/// A method must not panic whatever the device answers: all ones from a device
/// that is gone are an answer like any other.
pub trait Transport: Send + Sync + 'static {
    /// Reads the feature bits that the device offers.
    fn device_features(&self) -> u64;

    /// Writes the feature bits that the driver accepts.
    fn set_driver_features(&self, features: u64);

    /// Reads the device status field.
    fn status(&self) -> DeviceStatus;

    /// Writes the device status field. Empty asks for a reset, which is done
    /// once [`status`](Self::status) reads back as empty.
    fn set_status(&self, status: DeviceStatus);

    /// Returns the largest size of `queue` that the device takes, 0 if it has
    /// no such queue.
    fn max_queue_size(&self, queue: u16) -> u16;

    /// Tells the device where `queue` lies and enables it.
    ///
    /// # Errors
    ///
    /// [`TransportError::Vector`] if the device has no room for the interrupt
    /// vector, [`TransportError::Queue`] if it refuses the queue.
    fn set_queue(&self, queue: u16, layout: &QueueLayout) -> Result<(), TransportError>;

    /// Routes configuration change interrupts to `vector`; `None` for none.
    ///
    /// # Errors
    ///
    /// [`TransportError::Vector`] if the device has no room for it.
    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), TransportError>;

    /// Tells the device that `queue` has new requests. Any CPU, any time, also
    /// two CPUs at once.
    fn notify(&self, queue: u16);

    /// Reads, and thereby acknowledges, what a shared interrupt line stands
    /// for. Empty where interrupts come as messages. Any CPU, any time.
    fn take_interrupt(&self) -> InterruptStatus;

    /// Reads a number that changes whenever the configuration space does.
    fn config_generation(&self) -> u32;

    /// Reads `out.len()` bytes of the device's configuration space at `offset`.
    ///
    /// # Errors
    ///
    /// [`TransportError::Config`] if the space ends before.
    fn read_config(&self, offset: usize, out: &mut [u8]) -> Result<(), TransportError>;

    /// Returns shared memory region `id` if the device has it. The region was
    /// checked: not empty, and inside its BAR.
    fn shared_memory(&self, id: u8) -> Option<SharedMemory>;
}

/// Where a split virtqueue lies, as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// Number of entries, a power of two.
    pub size: u16,
    /// Address of the descriptor table.
    pub descriptors: PhysAddr,
    /// Address of the available ring.
    pub available: PhysAddr,
    /// Address of the used ring.
    pub used: PhysAddr,
    /// Interrupt vector for used buffers; `None` if the queue is polled or the
    /// device has only an interrupt line.
    pub vector: Option<u16>,
}

/// A region of memory that the device shares with the driver (virtio 1.3, 2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// Physical address of its first byte.
    pub addr: PhysAddr,
    /// Length in bytes, not 0.
    pub len: u64,
}

/// Why a transport refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransportError {
    /// The device does not have this queue or would not enable it.
    Queue(u16),
    /// The device would not take this interrupt vector.
    Vector(u16),
    /// The configuration space ends before this offset.
    Config(usize),
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue(n) => write!(f, "device refuses virtqueue {n}"),
            Self::Vector(n) => write!(f, "device refuses interrupt vector {n}"),
            Self::Config(at) => write!(f, "device configuration space ends before byte {at}"),
        }
    }
}

impl core::error::Error for TransportError {}
