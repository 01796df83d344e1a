//! Which accelerator a run gets.
//!
//! `/dev/kvm` may exist and still not run an unmodified guest (nested or paravirtual KVM). The processor flags say
//! whether hardware virtualization is really there.

use std::{fmt, fs, str::FromStr};

/// The choice of an accelerator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accel {
    /// KVM where it works, otherwise TCG.
    #[default]
    Auto,
    /// QEMU's translator.
    Tcg,
    /// Hardware virtualization; an error where it does not work.
    Kvm,
}

impl Accel {
    /// Settles `Auto`.
    ///
    /// # Errors
    /// Why KVM does not work here, if it was asked for by name.
    pub fn resolve(self) -> Result<Self, String> {
        match (self, kvm()) {
            (Self::Auto, Ok(())) => Ok(Self::Kvm),
            (Self::Auto, Err(_)) => Ok(Self::Tcg),
            (Self::Kvm, Err(why)) => Err(format!(
                "ACCEL=kvm does not work here: {why}; use tcg or auto"
            )),
            (chosen, _) => Ok(chosen),
        }
    }

    /// The processor model that goes with it. Under TCG `qemu64`: a model with ERMS makes guests copy with
    /// `rep movsb`, which TCG runs a byte at a time.
    pub fn cpu(self) -> &'static str {
        if self == Self::Kvm { "host" } else { "qemu64" }
    }
}

/// Whether KVM can run a guest here, or why not.
fn kvm() -> Result<(), String> {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    if !flags
        .split_whitespace()
        .any(|flag| flag == "vmx" || flag == "svm")
    {
        return Err("the processor shows neither vmx nor svm".into());
    }
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    Ok(())
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        })
    }
}

impl FromStr for Accel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "tcg" => Ok(Self::Tcg),
            "kvm" => Ok(Self::Kvm),
            _ => Err(format!("accelerator \"{text}\" is none of auto, tcg, kvm")),
        }
    }
}
