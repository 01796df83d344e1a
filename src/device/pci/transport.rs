//! The transport: the registers of one virtio-fs device on PCI.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering};

use log::warn;
use virtio_drivers::Hal;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction};

use super::bar::{Bars, Region, read_bars};
use super::capability::{Capabilities, Multiplier};
use super::common::{COMMON_LEN, Common};
use super::function::Function;
use super::registers::Registers;
use super::{Msix, PciError, Structure};
use crate::device::transport::{
    DeviceStatus, InterruptStatus, QueueLayout, SharedMemory, Transport, TransportError,
};

/// Queues beyond this many are not used.
const QUEUES_MAX: u16 = 1024;
/// No more of the notification area is mapped: a page for each queue.
const NOTIFY_MAX: u64 = QUEUES_MAX as u64 * 4096;
/// No more of the device's configuration space is mapped; virtio-fs has 44 bytes.
const CONFIG_MAX: u64 = 4096;
/// In place of the offset of a register that is not known: there is none.
const UNKNOWN: usize = usize::MAX;

/// A virtio-fs device that was found on PCI.
#[derive(Debug)]
pub struct PciDevice {
    /// Its registers.
    pub transport: PciTransport,
    /// Its message-signalled interrupts; `None` if it has none that work.
    pub msix: Option<Msix>,
    /// Its interrupt line; `None` if it has none.
    pub intx: Option<Intx>,
}

/// The interrupt line of a device. Several devices may share one; ask
/// [`take_interrupt`](Transport::take_interrupt) which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intx {
    /// The pin, 1 for INTA to 4 for INTD.
    pub pin: u8,
    /// What firmware noted about where the pin leads.
    pub line: u8,
}

impl PciDevice {
    /// Looks a device over, maps its registers and lets it decode addresses and
    /// reach memory. Does not reset it.
    ///
    /// Nothing else may use the function's configuration space meanwhile: BARs
    /// are sized by writing to them.
    ///
    /// # Errors
    ///
    /// [`PciError`] if it is no virtio-fs device or breaks the rules. Shared
    /// memory or MSI-X that break them are left out with a warning: the driver
    /// works without either.
    pub fn open<H: Hal, C: ConfigurationAccess>(
        config: &mut C,
        address: DeviceFunction,
    ) -> Result<Self, PciError> {
        let mut function = Function::new(config, address);
        function.check_id()?;
        let bars = read_bars(&mut function);
        let usable = |bar| bars.get(usize::from(bar)).is_some_and(Option::is_some);
        let found = Capabilities::read(&function, usable)?;
        let command = function.command();
        function.set_command(command | Command::MEMORY_SPACE);
        let transport = PciTransport::new::<H>(&found, &bars)?;
        let msix = found.msix.as_ref().and_then(|capability| {
            Msix::new::<H>(capability, &bars, address)
                .inspect_err(|error| warn!("{address}: no MSI-X: {error}"))
                .ok()
        });
        let intx = match function.interrupt() {
            (pin @ 1..=4, line) => Some(Intx { pin, line }),
            _ => None,
        };
        function.set_command(command | Command::MEMORY_SPACE | Command::BUS_MASTER);
        Ok(Self {
            transport,
            msix,
            intx,
        })
    }
}

/// Register access to a virtio-fs device on PCI.
pub struct PciTransport {
    common: Common,
    isr: Registers,
    config: Registers,
    notify: Registers,
    multiplier: u32,
    /// For each queue the offset of its register in `notify`.
    doorbells: Box<[AtomicUsize]>,
    shared: Vec<(u8, SharedMemory)>,
}

impl PciTransport {
    fn new<H: Hal>(found: &Capabilities, bars: &Bars) -> Result<Self, PciError> {
        let region = |place: Option<super::bar::Place>, what, min, align| {
            place
                .ok_or(PciError::Missing(what))?
                .resolve(bars, what, min, align)
        };
        let (notify, multiplier) = found.notify.unzip();
        let Multiplier(multiplier) = multiplier.ok_or(PciError::Missing(Structure::Notify))?;
        if !multiplier.is_multiple_of(2) {
            return Err(PciError::NotifyMultiplier(multiplier));
        }
        let common = region(found.common, Structure::Common, COMMON_LEN, 4)?;
        let notify = region(notify, Structure::Notify, 2, 2)?;
        let isr = region(found.isr, Structure::Isr, 1, 1)?;
        let config = region(found.device, Structure::Device, 1, 4)?;

        let common = Common::new(map::<H>(common, COMMON_LEN, Structure::Common)?);
        let queues = common.queues().min(QUEUES_MAX);
        Ok(Self {
            common,
            isr: map::<H>(isr, 1, Structure::Isr)?,
            config: map::<H>(config, CONFIG_MAX, Structure::Device)?,
            notify: map::<H>(notify, NOTIFY_MAX, Structure::Notify)?,
            multiplier,
            doorbells: (0..queues).map(|_| AtomicUsize::new(UNKNOWN)).collect(),
            shared: shared_memory(found, bars),
        })
    }

    /// Returns the offset in `notify` of the register for a notification offset
    /// of the device's, if it is there.
    fn doorbell(&self, notify_off: u16) -> Option<usize> {
        let offset = u64::from(notify_off).checked_mul(self.multiplier.into())?;
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(size_of::<u16>())?;
        (end <= self.notify.len()).then_some(offset)
    }
}

/// Maps at most `max` bytes of a region.
fn map<H: Hal>(region: Region, max: u64, what: Structure) -> Result<Registers, PciError> {
    let region = region.at_most(max);
    Registers::map::<H>(region).ok_or(PciError::TooShort(what, region.len()))
}

/// Lists the regions that lie inside their BARs. One of length 0 is absent, and
/// that is how devices say so.
fn shared_memory(found: &Capabilities, bars: &Bars) -> Vec<(u8, SharedMemory)> {
    found
        .shared
        .iter()
        .filter(|(_, place)| place.len != 0)
        .filter_map(|&(id, place)| {
            let region = place
                .resolve(bars, Structure::SharedMemory(id), 1, 1)
                .inspect_err(|error| warn!("not used: {error}"))
                .ok()?;
            Some((
                id,
                SharedMemory {
                    addr: region.address(),
                    len: region.len(),
                },
            ))
        })
        .collect()
}

impl Transport for PciTransport {
    fn device_features(&self) -> u64 {
        self.common.device_features()
    }

    fn set_driver_features(&self, features: u64) {
        self.common.set_driver_features(features);
    }

    fn status(&self) -> DeviceStatus {
        self.common.status()
    }

    fn set_status(&self, status: DeviceStatus) {
        self.common.set_status(status);
    }

    fn max_queue_size(&self, queue: u16) -> u16 {
        match self.doorbells.get(usize::from(queue)) {
            Some(_) => self.common.max_queue_size(queue),
            None => 0,
        }
    }

    fn set_queue(&self, queue: u16, layout: &QueueLayout) -> Result<(), TransportError> {
        let doorbell = self
            .doorbells
            .get(usize::from(queue))
            .ok_or(TransportError::Queue(queue))?;
        self.common.set_queue(queue, layout, |notify_off| {
            // Whoever rings the queue got to know of it after this call, so
            // there is nothing to order.
            doorbell.store(self.doorbell(notify_off)?, Ordering::Relaxed);
            Some(())
        })
    }

    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), TransportError> {
        self.common.set_config_vector(vector)
    }

    fn notify(&self, queue: u16) {
        if let Some(doorbell) = self.doorbells.get(usize::from(queue)) {
            self.notify.write16(doorbell.load(Ordering::Relaxed), queue);
        }
    }

    fn take_interrupt(&self) -> InterruptStatus {
        InterruptStatus::from_bits_truncate(self.isr.read8(0).into())
    }

    fn config_generation(&self) -> u32 {
        self.common.config_generation().into()
    }

    /// Numbers of 2, 4 and 8 bytes at their natural alignment are read as such
    /// (8 bytes in halves), everything else byte by byte, as the specification
    /// asks (virtio 1.3, 4.1.3.1).
    fn read_config(&self, offset: usize, out: &mut [u8]) -> Result<(), TransportError> {
        match offset.checked_add(out.len()) {
            Some(end) if end <= self.config.len() => {}
            _ => return Err(TransportError::Config(offset)),
        }
        let width = match out.len() {
            len @ (2 | 4 | 8) if offset.is_multiple_of(len) => len.min(4),
            _ => 1,
        };
        for (n, field) in out.chunks_exact_mut(width).enumerate() {
            let at = offset + n * width;
            match width {
                4 => field.copy_from_slice(&self.config.read32(at).to_le_bytes()),
                2 => field.copy_from_slice(&self.config.read16(at).to_le_bytes()),
                _ => field.fill(self.config.read8(at)),
            }
        }
        Ok(())
    }

    fn shared_memory(&self, id: u8) -> Option<SharedMemory> {
        self.shared
            .iter()
            .find(|(other, _)| *other == id)
            .map(|&(_, region)| region)
    }
}

impl fmt::Debug for PciTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PciTransport")
            .field("queues", &self.doorbells.len())
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
