//! The driver in this kernel: finding virtio-fs devices, routing their
//! interrupts, mounting.

use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};

use spin::Once;
use virtio_fs::{
    conn::{Config, Connection, OpenError, Restart},
    device::{
        Transport,
        config::{FsConfig, Tag},
        pci::{self, DeviceFunction, MsiMessage, Msix, PciDevice, PciTransport},
        transport::DeviceStatus,
    },
    fs::{Mount, MountOptions, Process},
};

use crate::{
    Kernel,
    cmdline::Key,
    cpu,
    hal::KernelHal,
    interrupts::{self, Interrupt},
    pci::ConfigSpace,
    platform::KernelPlatform,
    thread,
};

/// The driver's platform here.
pub type Host = KernelPlatform<PciTransport>;

/// The word of the command line that has sessions made anew.
pub const RESTART: Key = Key {
    name: "restart",
    help: "1 makes a session anew that was lost with its daemon",
    valid: |word| matches!(word, "0" | "1"),
};

/// Returns the driver's settings by the command line.
pub fn config(kernel: &Kernel) -> Config {
    let restart = kernel.arguments.get("restart") == Some("1");
    Config {
        restart: restart.then(Restart::default),
        ..Config::default()
    }
}

/// A virtio-fs device that was found.
pub struct Device {
    /// Where on PCI.
    pub address: DeviceFunction,
    /// Its tag and queues.
    pub config: FsConfig,
    transport: Arc<PciTransport>,
    msix: spin::Mutex<Option<Msix>>,
}

/// Returns every virtio-fs device of the machine.
///
/// They are looked for once, at the first call: to find out how large its
/// registers are means to move them, which nobody may do to a device in use. One
/// that breaks the rules is logged and left out.
pub fn devices() -> &'static [Device] {
    static DEVICES: Once<Vec<Device>> = Once::new();
    DEVICES.call_once(|| pci::find(&ConfigSpace, 0..=255).filter_map(open).collect())
}

fn open(address: DeviceFunction) -> Option<Device> {
    let refused = |error: &dyn core::fmt::Display| log::error!("virtio-fs at {address}: {error}");
    let device = PciDevice::open::<KernelHal, _>(&mut ConfigSpace, address)
        .inspect_err(|error| refused(error))
        .ok()?;
    let config = FsConfig::read(&device.transport)
        .inspect_err(|error| refused(error))
        .ok()?;
    Some(Device {
        address,
        config,
        transport: Arc::new(device.transport),
        msix: spin::Mutex::new(device.msix),
    })
}

/// A mounted file system with what keeps it going.
pub struct Mounted {
    /// The mount.
    pub mount: Mount<Host>,
    /// The connection, also after the mount has ended.
    pub connection: Arc<Connection<Host>>,
    interrupts: Vec<Interrupt>,
}

/// Mounts the device with `tag`; the only one there is, if no tag is given.
///
/// # Errors
///
/// What is wrong, in a sentence that names the tags there are.
pub fn mount(tag: Option<&str>, config: Config, options: MountOptions) -> Result<Mounted, String> {
    let devices = devices();
    let tags = || {
        let mut tags: Vec<String> = devices.iter().map(|d| d.config.tag.to_string()).collect();
        tags.sort_unstable();
        tags.join(", ")
    };
    let device = match (tag, devices) {
        (_, []) => return Err("there is no virtio-fs device on this machine".into()),
        (None, [device]) => device,
        (None, _) => {
            return Err(format!(
                "there are several virtio-fs devices; say tag= one of: {}",
                tags()
            ));
        }
        (Some(tag), _) => devices
            .iter()
            .find(|device| device.tag().as_bytes() == tag.as_bytes())
            .ok_or_else(|| {
                format!(
                    "there is no virtio-fs device with tag {tag}; the tags are: {}",
                    tags()
                )
            })?,
    };
    device.mount(config, options)
}

impl Device {
    /// Returns the tag.
    pub fn tag(&self) -> &Tag {
        &self.config.tag
    }

    /// Returns its registers.
    pub fn transport(&self) -> &PciTransport {
        &self.transport
    }

    /// Opens a session over the device and mounts its root.
    ///
    /// # Errors
    ///
    /// Why it did not work, as a sentence.
    pub fn mount(&self, mut config: Config, options: MountOptions) -> Result<Mounted, String> {
        // Its interrupts belong to whoever drives it.
        if self.transport.status().contains(DeviceStatus::DRIVER_OK) {
            return Err(format!("{}: {}", self.config.tag, OpenError::Busy));
        }
        // The handlers run before the connection is there to be handed to them.
        let target = Arc::new(Once::<Arc<Connection<Host>>>::new());
        let interrupts = match &mut *self.msix.lock() {
            Some(msix) => {
                let interrupts = route(msix, &self.config, &target)
                    .map_err(|error| format!("interrupts: {error}"))?;
                msix.enable(&mut ConfigSpace);
                interrupts
            }
            None => Vec::new(),
        };
        config.vectors = interrupts.len() as u16;
        let platform = Arc::new(Host::new());
        let connection = Connection::open(platform, self.transport.clone(), config)
            .map_err(|error| format!("{}: {error}", self.config.tag))?;
        target.call_once(|| connection.clone());
        let mount = Mount::new(connection.clone(), options)
            .map_err(|error| format!("{}: {error}", self.config.tag))?;
        let worker = mount.file_system().clone();
        if let Err(error) = thread::spawn("virtio-fs", move || worker.run_worker()) {
            log::warn!("no thread for {}: {error}", self.config.tag);
        }
        Ok(Mounted {
            mount,
            connection,
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
    pub fn unmount(self) {
        self.mount.unmount();
    }
}
