//! The machine: the one place that writes QEMU's command line.
//!
//! What it is made of and why: `q35`, because its ECAM window is what the test kernel uses; memory
//! from a shared memfd, because vhost-user daemons map it; no default devices, a serial port on
//! standard input and output; `isa-debug-exit` for a status; `-no-reboot`, so that a triple fault
//! ends QEMU. The kernel goes in by `-kernel` and the PVH entry.
//!
//! A guest ends with a status s from 0 to 126 by writing s + 1 to port 0xf4. The device makes QEMU
//! exit with 2v + 1 for a written v, so a guest's status arrives as an odd number from 3 to 255;
//! 1 is QEMU's own failure, and 0 a machine that was reset or switched off without a status.

use crate::{Accel, CommandLine, Error, Outcome, Running, Share, daemon, image, tools::Tools};
use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

/// What becomes of the guest's serial port, besides being kept for the [`Outcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Console {
    /// Nothing more.
    #[default]
    Capture,
    /// Its output goes to standard output as it comes.
    Echo,
    /// As `Echo`, each line behind `guest: `.
    Prefixed,
    /// It is joined with the terminal, which is in raw mode meanwhile: every key, Ctrl-C too,
    /// reaches the guest, and Ctrl-A X ends the run.
    Terminal,
}

/// Who hears what the daemons and QEMU write to their standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chatter {
    /// Nobody; the last lines come with an error.
    #[default]
    Quiet,
    /// It goes to standard error, line by line, with the commands before it.
    Shown,
}

/// A machine to run a guest in. All fields may be set; [`Machine::new`] gives usual values.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The kernel image.
    pub kernel: PathBuf,
    /// An initial ramdisk, for a Linux guest.
    pub initrd: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: CommandLine,
    /// The directories to share, each a device.
    pub shares: Vec<Share>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Processors.
    pub smp: u16,
    /// The accelerator.
    pub accel: Accel,
    /// The processor model, if not the one that fits the accelerator.
    pub cpu: Option<String>,
    /// After how long everything is killed.
    pub timeout: Option<Duration>,
    /// Where the serial port goes.
    pub console: Console,
    /// Where messages of the daemons and of QEMU go.
    pub chatter: Chatter,
    /// Patterns of QEMU's trace events to switch on; they come on QEMU's standard error.
    pub trace: Vec<String>,
    /// Further arguments for QEMU.
    pub qemu_args: Vec<OsString>,
    /// Where the programs are.
    pub tools: Tools,
}

impl Machine {
    /// A machine with one processor and 512 MiB for the test kernel of the build tree, and no share.
    pub fn new() -> Self {
        let tools = Tools::default();
        Self {
            kernel: tools.kernel(),
            initrd: None,
            cmdline: CommandLine::default(),
            shares: Vec::new(),
            memory_mib: 512,
            smp: 1,
            accel: Accel::default(),
            cpu: None,
            timeout: None,
            console: Console::default(),
            chatter: Chatter::default(),
            trace: Vec::new(),
            qemu_args: Vec::new(),
            tools,
        }
    }

    /// Runs the guest to its end. Blocks so long; bounded by `timeout` if there is one.
    pub fn run(&self) -> Outcome {
        let begun = Instant::now();
        match self.start() {
            Ok(running) => running.wait(),
            Err(error) => Outcome {
                status: Err(error),
                serial: String::new(),
                duration: begun.elapsed(),
            },
        }
    }

    /// Starts the daemons and QEMU, and leaves them running; dropping the handle kills them.
    ///
    /// # Errors
    /// What is wrong with the machine, or could not be started.
    pub fn start(&self) -> Result<Running, Error> {
        Running::start(self)
    }

    /// Checks all values, the image and the directories.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |why: String| Err(Error::Option(why));
        if !(1..=255).contains(&self.smp) {
            return bad(format!("{} processors: 1 to 255 are possible", self.smp));
        }
        if !(16..=1 << 20).contains(&self.memory_mib) {
            return bad(format!(
                "{} MiB of memory: 16M to 1024G are possible",
                self.memory_mib
            ));
        }
        for (index, share) in self.shares.iter().enumerate() {
            if self.shares[..index]
                .iter()
                .any(|other| other.tag == share.tag)
            {
                return bad(format!(
                    "two shares with the tag \"{}\": give each its own (DIR:TAG)",
                    share.tag
                ));
            }
            share.check()?;
        }
        image::check(&self.kernel)
    }

    /// The arguments for QEMU. `socket` gives the address part of the chardev of the share with
    /// that index.
    pub(crate) fn qemu(&self, socket: impl Fn(usize) -> String) -> Result<Vec<OsString>, Error> {
        let accel = self.accel.resolve().map_err(Error::Option)?;
        let mut args: Vec<OsString> = Vec::new();
        let mut add = |name: &str, value: &str| args.extend([name.into(), value.into()]);
        let memory = format!("{}M", self.memory_mib);
        add("-machine", "q35,memory-backend=mem");
        add(
            "-object",
            &format!("memory-backend-memfd,id=mem,size={memory},share=on"),
        );
        add("-accel", &accel.to_string());
        add("-cpu", self.cpu.as_deref().unwrap_or(accel.cpu()));
        add("-smp", &self.smp.to_string());
        add("-m", &memory);
        add("-display", "none");
        add("-chardev", "stdio,id=serial,signal=off");
        add("-serial", "chardev:serial");
        add("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
        for (index, share) in self.shares.iter().enumerate() {
            let id = format!("fs{index}");
            add("-chardev", &format!("socket,id={id},{}", socket(index)));
            add("-device", &share.device_line(&id));
        }
        for pattern in &self.trace {
            add("-trace", pattern);
        }
        args.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        args.extend([OsString::from("-kernel"), self.kernel.clone().into()]);
        if let Some(initrd) = &self.initrd {
            args.extend([OsString::from("-initrd"), initrd.clone().into()]);
        }
        if !self.cmdline.as_str().is_empty() {
            args.extend(["-append".into(), self.cmdline.as_str().into()]);
        }
        args.extend(self.qemu_args.iter().cloned());
        Ok(args)
    }

    /// The commands that do by hand what a run does, one for each line, to be typed in the folder
    /// of the sockets' choice.
    ///
    /// # Errors
    /// A program that is missing, or an accelerator that does not work.
    pub fn commands(&self) -> Result<String, Error> {
        let path = |index: usize| format!("/tmp/virtio-fs-{index}.sock");
        let mut lines = String::new();
        for (index, share) in self.shares.iter().enumerate() {
            let program = self.tools.daemon(share.daemon)?.into();
            lines += &quote(&daemon::by_hand(share, program, &path(index)));
            lines += " &\n";
        }
        let mut words = vec![self.tools.qemu()?.into()];
        words.extend(self.qemu(|index| format!("path={}", path(index)))?);
        lines += &quote(&words);
        lines.push('\n');
        Ok(lines)
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

/// Words as a shell takes them.
pub(crate) fn quote(words: &[OsString]) -> String {
    let quoted = words.iter().map(|word| {
        let word = word.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,:/+@%=".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_becomes_a_socket_and_a_device() {
        let mut machine = Machine::new();
        machine.accel = Accel::Tcg;
        machine.shares = vec![Share::new("/", "one"), Share::new("/", "two")];
        let args = quote(
            &machine
                .qemu(|index| format!("path=s{index},abstract=on"))
                .unwrap(),
        );
        assert!(args.contains("-chardev socket,id=fs0,path=s0,abstract=on -device vhost-user-fs-pci,chardev=fs0,tag=one"));
        assert!(args.contains("-chardev socket,id=fs1,path=s1,abstract=on -device"));
    }

    #[test]
    fn words_survive_a_shell() {
        let words = ["a b", "it's", "", "plain", "$x`;"].map(OsString::from);
        let script = format!("printf '%s\\n' {}", quote(&words));
        let out = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(out.stdout).unwrap(),
            "a b\nit's\n\nplain\n$x`;\n"
        );
    }

    #[test]
    fn one_tag_serves_one_share() {
        let mut machine = Machine::new();
        machine.shares = vec![Share::new("/", "same"), Share::new("/", "same")];
        assert!(
            machine
                .check()
                .unwrap_err()
                .to_string()
                .contains("two shares")
        );
    }
}
