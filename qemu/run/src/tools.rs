//! Where the programs are: those of the build tree's `target/tools` (see `qemu/tools.sh`), or those
//! that the environment names (QEMU, VIRTIOFSD, DAXD), or those on PATH.

use crate::{DaemonKind, Error};
use std::{
    env, io,
    path::{Path, PathBuf},
};

/// Finds programs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The folder of build results.
    pub target: PathBuf,
    /// Whether the environment may name others.
    pub named: Named,
}

/// Whether programs that the environment names come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// QEMU, VIRTIOFSD and DAXD do.
    First,
    /// They do not count.
    Never,
}

impl Default for Tools {
    /// The build tree that this program was built in, or CARGO_TARGET_DIR.
    fn default() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let root = root.canonicalize().unwrap_or(root);
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Self {
            target,
            named: Named::First,
        }
    }
}

impl Tools {
    /// QEMU.
    ///
    /// # Errors
    /// [`Error::Tool`] if there is none.
    pub fn qemu(&self) -> Result<PathBuf, Error> {
        self.find("QEMU", "qemu-system-x86_64", &["tools/bin"], "make tools")
    }

    /// A host daemon.
    ///
    /// # Errors
    /// [`Error::Tool`] if there is none.
    pub fn daemon(&self, kind: DaemonKind) -> Result<PathBuf, Error> {
        match kind {
            DaemonKind::Virtiofsd => {
                self.find("VIRTIOFSD", "virtiofsd", &["tools/bin"], "make tools")
            }
            DaemonKind::Dax => {
                let remedy = "cargo build --release --package virtio-fs-daxd";
                self.find("DAXD", "virtio-fs-daxd", &["release", "debug"], remedy)
            }
        }
    }

    /// The test kernel.
    pub fn kernel(&self) -> PathBuf {
        self.target.join("kernel/kernel")
    }

    fn find(
        &self,
        variable: &str,
        name: &str,
        folders: &[&str],
        remedy: &str,
    ) -> Result<PathBuf, Error> {
        let named = env::var_os(variable).filter(|value| !value.is_empty());
        if let (Some(named), Named::First) = (named, self.named) {
            return Ok(named.into());
        }
        let built = folders
            .iter()
            .map(|folder| self.target.join(folder).join(name));
        let path = env::var_os("PATH").unwrap_or_default();
        let on_path = env::split_paths(&path).map(|folder| folder.join(name));
        built
            .chain(on_path)
            .find(|file| file.is_file())
            .ok_or_else(|| Error::Tool {
                name: name.into(),
                why: format!(
                    "found neither in {} nor on PATH",
                    self.target.join(folders[0]).display()
                ),
                remedy: format!("{remedy}    or name it: {variable}=/path/to/{name}"),
            })
    }

    /// The error for a program that was found and does not start.
    pub(crate) fn broken(program: &Path, error: &io::Error) -> Error {
        Error::Tool {
            name: program.display().to_string(),
            why: format!("does not start: {error}"),
            remedy: "make tools    or name another one in the environment: QEMU, VIRTIOFSD, DAXD"
                .into(),
        }
    }
}
