//! What Linux pays for having user space, which a test inside of a kernel does
//! not: an empty system call for each call, and for each read or write what a read
//! of as much from a tmpfs file takes beyond the copy itself.

use crate::results::{Results, Workload};

/// The measured costs, in ns.
pub(crate) struct Border {
    /// One system call that does nothing.
    pub(crate) call: f64,
    /// A data call of 1 MiB, without the copy.
    pub(crate) mib: f64,
    /// A data call of 4 KiB, without the copy.
    pub(crate) page: f64,
}

impl Border {
    /// The costs that a run measured.
    pub(crate) fn measured(results: &Results) -> Option<Self> {
        let each = |name: &str| {
            let side = &results.get(name)?.linux;
            Some(side.median()? / side.ops.max(1) as f64)
        };
        let call = each("base_syscall")?;
        let data = |size: &str| {
            let read = each(&format!("base_tmpfs_{size}"))?;
            let copy = each(&format!("base_copy_{size}"))?;
            // It is a call at least.
            Some((read - copy).max(call))
        };
        Some(Self {
            call,
            mib: data("1m")?,
            page: data("4k")?,
        })
    }

    /// What of a workload's time in Linux is that.
    pub(crate) fn of(&self, workload: &Workload) -> f64 {
        let ops = workload.linux.ops as f64;
        let name = workload.name.as_str();
        if workload.set == "base" || name.starts_with("readdir_2k") || name.starts_with("mmap") {
            return 0.0;
        }
        let data = workload.linux.bytes as f64 / ops.max(1.0);
        if data > 4096.0 {
            ops * self.mib
        } else if data > 0.0 {
            let others = match name {
                "open_read_close" | "write_small" => 2.0,
                _ => 0.0,
            };
            ops * (self.page + others * self.call)
        } else if name == "create_close" {
            ops * 2.0 * self.call
        } else {
            ops * self.call
        }
    }

    /// Our time as a part of Linux's without it.
    pub(crate) fn ratio(&self, workload: &Workload) -> Option<f64> {
        let linux = workload.linux.median()? - self.of(workload);
        (linux > 0.0).then_some(workload.ours.median()? / linux)
    }
}
