//! The driver in this kernel: finding virtio-fs devices, routing their
//! interrupts, mounting.

use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};

use spin::Once;
use virtio_fs::{
    conn::{Config, Connection},
    device::{
        config::{FsConfig, Tag},
        pci::{self, DeviceFunction, MsiMessage, Msix, PciDevice, PciTransport},
    },
    fs::{Mount, MountOptions, Process},
};

use crate::{
    cpu,
    hal::KernelHal,
    interrupts::{self, Interrupt},
    pci::ConfigSpace,
    platform::KernelPlatform,
    thread,
};

/// The driver's platform here.
pub type Host = KernelPlatform<PciTransport>;

/// A virtio-fs device that was found.
pub struct Device {
    /// Where on PCI.
    pub address: DeviceFunction,
    /// Its tag and queues.
    pub config: FsConfig,
    transport: Arc<PciTransport>,
    msix: Option<Msix>,
}

/// Finds every virtio-fs device. One that breaks the rules is logged and left
/// out.
pub fn find() -> Vec<Device> {
    let mut found = Vec::new();
    for address in pci::find(&ConfigSpace, 0..=255) {
        let opened = PciDevice::open::<KernelHal, _>(&mut ConfigSpace, address);
        let device = match opened {
            Ok(device) => device,
            Err(error) => {
                log::error!("virtio-fs at {address}: {error}");
                continue;
            }
        };
        match FsConfig::read(&device.transport) {
            Ok(config) => found.push(Device {
                address,
                config,
                transport: Arc::new(device.transport),
                msix: device.msix,
            }),
            Err(error) => log::error!("virtio-fs at {address}: {error}"),
        }
    }
    found
}

/// A mounted file system with what keeps it going.
pub struct Mounted {
    /// The mount.
    pub mount: Mount<Host>,
    /// The connection, also after the mount has ended.
    pub connection: Arc<Connection<Host>>,
    /// The device's registers, to be opened again.
    pub transport: Arc<PciTransport>,
    interrupts: Vec<Interrupt>,
}

/// Mounts the device with `tag`; the only one there is, if no tag is given.
///
/// # Errors
///
/// What is wrong, in a sentence that names the tags there are.
pub fn mount(tag: Option<&str>, config: Config, options: MountOptions) -> Result<Mounted, String> {
    let mut devices = find();
    let tags = || {
        let mut tags: Vec<String> = find().iter().map(|d| d.config.tag.to_string()).collect();
        tags.sort_unstable();
        tags.join(", ")
    };
    let chosen = match tag {
        Some(tag) => devices
            .iter()
            .position(|d| d.config.tag.as_bytes() == tag.as_bytes()),
        None if devices.len() > 1 => {
            return Err(format!(
                "there are several virtio-fs devices; say tag= one of: {}",
                tags()
            ));
        }
        None => (!devices.is_empty()).then_some(0),
    };
    match chosen {
        Some(index) => devices.swap_remove(index).mount(config, options),
        None if devices.is_empty() => Err("there is no virtio-fs device on this machine".into()),
        None => Err(format!(
            "there is no virtio-fs device with tag {}; the tags are: {}",
            tag.unwrap_or_default(),
            tags()
        )),
    }
}

impl Device {
    /// Returns the tag.
    pub fn tag(&self) -> &Tag {
        &self.config.tag
    }

    /// Opens a session over the device and mounts its root.
    ///
    /// # Errors
    ///
    /// Why it did not work, as a sentence.
    pub fn mount(mut self, mut config: Config, options: MountOptions) -> Result<Mounted, String> {
        // The handlers run before the connection is there to be handed to them.
        let target = Arc::new(Once::<Arc<Connection<Host>>>::new());
        let interrupts = match &mut self.msix {
            Some(msix) => route(msix, &self.config, &target)
                .map_err(|error| format!("interrupts: {error}"))?,
            None => Vec::new(),
        };
        if let (Some(msix), false) = (&mut self.msix, interrupts.is_empty()) {
            msix.enable(&mut ConfigSpace);
        }
        config.vectors = interrupts.len() as u16;
        let platform = Arc::new(Host::new());
        let connection = Connection::open(platform, self.transport.clone(), config)
            .map_err(|error| format!("{}: {error}", self.config.tag))?;
        target.call_once(|| connection.clone());
        let worker = connection.clone();
        if let Err(error) = thread::spawn("virtio-fs", move || worker.run_worker()) {
            log::warn!("no thread for {}: {error}", self.config.tag);
        }
        let mount = Mount::new(connection.clone(), options)
            .map_err(|error| format!("{}: {error}", self.config.tag))?;
        Ok(Mounted {
            mount,
            connection,
            transport: self.transport,
            interrupts,
        })
    }
}

/// Gives each vector in use a handler and a message. CPUs take turns, so that a
/// queue's interrupts go where its requests come from.
fn route(
    msix: &mut Msix,
    config: &FsConfig,
    target: &Arc<Once<Arc<Connection<Host>>>>,
) -> Result<Vec<Interrupt>, String> {
    let wanted = config.request_queues.min(64) as u16 + 2;
    let mut attached = Vec::new();
    for vector in 0..wanted.min(msix.vectors()) {
        let target = target.clone();
        let handler = move || {
            if let Some(connection) = target.get() {
                connection.interrupt(Some(vector));
            }
        };
        let interrupt = interrupts::allocate(handler).map_err(|error| error.to_string())?;
        // Vector 2 serves the first request queue, whose requests come from CPU 0.
        let cpus = cpu::online().count();
        let cpu = usize::from(vector.saturating_sub(2)) % cpus;
        let message = interrupt.message(cpu).map_err(|error| error.to_string())?;
        let message = MsiMessage {
            address: message.addr,
            data: message.data,
        };
        msix.set_message(vector, message)
            .map_err(|error| error.to_string())?;
        attached.push(interrupt);
    }
    Ok(attached)
}

impl Mounted {
    /// Makes a process at the root.
    pub fn process(&self) -> Process<Host> {
        Process::new(&self.mount)
    }

    /// Returns how many interrupt vectors are in use.
    pub fn vectors(&self) -> usize {
        self.interrupts.len()
    }

    /// Unmounts. The device is reset and may be mounted again.
    pub fn unmount(self) -> Arc<PciTransport> {
        self.mount.unmount();
        drop(self.interrupts);
        self.transport
    }
}
