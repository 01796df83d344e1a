//! A directory to share: which daemon serves it, and through which device of the machine.

use crate::Error;
use std::{ffi::OsString, fmt, path::PathBuf, str::FromStr};

/// Which host daemon serves a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DaemonKind {
    /// `virtiofsd`: everything but a DAX window.
    #[default]
    Virtiofsd,
    /// `virtio-fs-daxd` of this project: a DAX window and any number of queues.
    Dax,
}

/// Which device of QEMU's carries a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// What fits the daemon: the generic one for a window, otherwise `vhost-user-fs-pci`.
    #[default]
    Auto,
    /// `vhost-user-fs-pci`. QEMU answers the config space.
    Fs,
    /// `vhost-user-test-device-pci`, QEMU's device for any virtio id (QEMU 11.1). The daemon answers
    /// the config space, and there may be a window.
    Generic,
}

/// What becomes of the run when the daemon goes away.
///
/// QEMU 11.1 takes no second daemon: `vhost-user-fs-pci` does not notice the loss, and does not set
/// up a new connection; the generic device notices, forgets its backend, and fails an assertion
/// (`hdev->vhost_ops` in `vhost_dev_start`) as soon as a new one connects. With `reconnect-ms` on
/// the socket neither device starts at all, because QEMU then connects too late for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLoss {
    /// It ends with an error.
    #[default]
    Fail,
    /// The guest goes on with a device that has fallen silent.
    GoOn,
    /// Another daemon takes its place, behind a relay that keeps QEMU's connection; the
    /// driver finds its rings broken and starts anew. For a guest that can
    /// (`restart=1` on the test kernel's command line).
    Restart,
}

/// A directory of the host's that the guest sees as one virtio-fs device.
#[derive(Debug, Clone)]
pub struct Share {
    /// The directory.
    pub dir: PathBuf,
    /// The tag by which the guest chooses it: 1 to 36 bytes.
    pub tag: String,
    /// Who serves it.
    pub daemon: DaemonKind,
    /// By which device.
    pub device: Device,
    /// The daemon's cache policy, passed on as `--cache`.
    pub cache: Option<String>,
    /// Entries of each queue: a power of two up to 1024.
    pub queue_size: u16,
    /// Request queues. virtiofsd has one.
    pub queues: u16,
    /// The size of the DAX window in MiB, for [`DaemonKind::Dax`]: a power of two.
    pub window_mib: u32,
    /// Further arguments for the daemon.
    pub args: Vec<OsString>,
    /// A file for all that the daemon writes to its standard error.
    pub log: Option<PathBuf>,
    /// What to do when the daemon goes away.
    pub on_loss: OnLoss,
}

impl Share {
    /// The tag of a share that was given none.
    pub const TAG: &str = "myfs";

    /// Shares `dir` under a tag by virtiofsd, with one request queue of 1024 entries.
    pub fn new(dir: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        Self {
            dir: dir.into(),
            tag: tag.into(),
            daemon: DaemonKind::default(),
            device: Device::default(),
            cache: None,
            queue_size: 1024,
            queues: 1,
            window_mib: 64,
            args: Vec::new(),
            log: None,
            on_loss: OnLoss::default(),
        }
    }

    /// The device that [`Device::Auto`] stands for here.
    pub fn device(&self) -> Device {
        match (self.device, self.daemon) {
            (Device::Auto, DaemonKind::Dax) => Device::Generic,
            (Device::Auto, DaemonKind::Virtiofsd) => Device::Fs,
            (chosen, _) => chosen,
        }
    }

    /// Checks the values and looks at the directory.
    ///
    /// # Errors
    /// [`Error::Option`] and [`Error::Share`].
    pub fn check(&self) -> Result<(), Error> {
        let bad = |why: String| Err(Error::Option(why));
        if self.tag.is_empty() || self.tag.len() > 36 || self.tag.contains(['\0', ',', '=']) {
            return bad(format!(
                "tag \"{}\" is not 1 to 36 bytes without , and =",
                self.tag
            ));
        }
        if !self.queue_size.is_power_of_two() || !(2..=1024).contains(&self.queue_size) {
            return bad(format!(
                "queue size {} is no power of two from 2 to 1024",
                self.queue_size
            ));
        }
        if !(1..=63).contains(&self.queues) {
            return bad(format!(
                "{} request queues: 1 to 63 are possible",
                self.queues
            ));
        }
        if self.daemon == DaemonKind::Virtiofsd && self.queues > 1 {
            return bad(format!(
                "virtiofsd has one request queue, not {}; DAEMON=dax has more",
                self.queues
            ));
        }
        if self.daemon == DaemonKind::Dax
            && (!self.window_mib.is_power_of_two() || self.window_mib < 2)
        {
            return bad(format!(
                "a window of {} MiB: the size must be a power of two from 2",
                self.window_mib
            ));
        }
        if self.daemon == DaemonKind::Dax && self.on_loss == OnLoss::Restart {
            return bad(
                "the daemon with a DAX window cannot be restarted: QEMU does not survive it".into(),
            );
        }
        if self.daemon == DaemonKind::Dax && self.device() == Device::Fs {
            return bad("vhost-user-fs-pci has no DAX window".into());
        }
        let share = |why: String| {
            Err(Error::Share {
                dir: self.dir.clone(),
                why,
            })
        };
        match std::fs::read_dir(&self.dir) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                share("there is no such directory".into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
                share("is not a directory".into())
            }
            Err(error) => share(error.to_string()),
        }
    }

    /// The daemon's arguments but for the socket.
    pub(crate) fn daemon_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--shared-dir".into(), self.dir.clone().into()];
        let given = |name: &str| {
            self.args
                .iter()
                .any(|arg| arg.to_string_lossy().starts_with(name))
        };
        match self.daemon {
            DaemonKind::Virtiofsd => {
                if !given("--sandbox") {
                    // Its other modes need privileges or id maps; a test guest gets no more than
                    // this user may do anyway.
                    args.extend(["--sandbox".into(), "none".into()]);
                }
                args.extend([
                    "--cache".into(),
                    self.cache.as_deref().unwrap_or("auto").into(),
                ]);
                if self.device() == Device::Generic {
                    args.extend(["--tag".into(), self.tag.as_str().into()]);
                }
            }
            DaemonKind::Dax => {
                args.extend(["--tag".into(), self.tag.as_str().into()]);
                args.extend(["--window".into(), format!("{}M", self.window_mib).into()]);
                args.extend(["--queues".into(), self.queues.to_string().into()]);
                if let Some(cache) = &self.cache {
                    args.extend(["--cache".into(), cache.into()]);
                }
            }
        }
        args.extend(self.args.iter().cloned());
        args
    }

    /// QEMU's device line; `id` names the socket's chardev.
    pub(crate) fn device_line(&self, id: &str) -> String {
        let Self {
            tag,
            queue_size,
            queues,
            ..
        } = self;
        match self.device() {
            // The first queue is hiprio.
            Device::Generic => format!(
                "vhost-user-test-device-pci,chardev={id},virtio-id=26,num_vqs={},vq_size={queue_size},config_size=44",
                queues + 1
            ),
            _ => format!(
                "vhost-user-fs-pci,chardev={id},tag={tag},queue-size={queue_size},num-request-queues={queues}"
            ),
        }
    }
}

impl FromStr for DaemonKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "virtiofsd" => Ok(Self::Virtiofsd),
            "dax" => Ok(Self::Dax),
            _ => Err(format!("daemon \"{text}\" is none of virtiofsd, dax")),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "fs" => Ok(Self::Fs),
            "generic" => Ok(Self::Generic),
            _ => Err(format!("device \"{text}\" is none of auto, fs, generic")),
        }
    }
}

impl fmt::Display for DaemonKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtiofsd => "virtiofsd",
            Self::Dax => "virtio-fs-daxd",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_values_are_refused_by_name() {
        let refused = |change: fn(&mut Share), word: &str| {
            let mut share = Share::new("/", "t");
            change(&mut share);
            let message = share.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        };
        assert!(Share::new("/", "t").check().is_ok());
        refused(|share| share.tag.clear(), "tag");
        refused(|share| share.tag = "x".repeat(37), "tag");
        refused(|share| share.queue_size = 100, "queue size");
        refused(|share| share.queues = 2, "one request queue");
        refused(
            |share| share.dir = "/nonexistent".into(),
            "no such directory",
        );
        refused(
            |share| share.dir = "/proc/self/stat".into(),
            "not a directory",
        );
        refused(
            |share| (share.daemon, share.window_mib) = (DaemonKind::Dax, 3),
            "power of two",
        );
        refused(
            |share| (share.daemon, share.device) = (DaemonKind::Dax, Device::Fs),
            "window",
        );
    }
}
