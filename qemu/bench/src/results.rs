//! What was measured, as it is written to JSON and read again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The results of one run of the benchmark.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    /// What it ran on: programs, versions, settings.
    pub(crate) setting: BTreeMap<String, String>,
    /// The workloads in their order.
    pub(crate) workloads: Vec<Workload>,
}

/// A workload on both guests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Workload {
    pub(crate) name: String,
    /// The set that it belongs to: base, posix or dax.
    pub(crate) set: String,
    pub(crate) ours: Side,
    pub(crate) linux: Side,
}

/// A workload on one guest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Side {
    pub(crate) ops: u64,
    pub(crate) bytes: u64,
    /// Elapsed time of each boot's last pass.
    pub(crate) ns: Vec<u64>,
    /// Of its first pass, in which the translator still has most to do.
    pub(crate) first_ns: Vec<u64>,
    /// Time without a thread to run.
    pub(crate) idle_ns: Vec<u64>,
    /// Interrupts of the device.
    pub(crate) irqs: Vec<u64>,
    /// Why it did not run: errno and call.
    pub(crate) skipped: Option<String>,
    /// What the daemon received, from a boot of its own.
    pub(crate) requests: Option<Requests>,
    /// What the guest executed, from a boot of its own.
    pub(crate) instructions: Option<Instructions>,
    /// Counters of the driver, of the last timed boot.
    pub(crate) counts: BTreeMap<String, u64>,
}

/// Requests and notifications between two marks, counted by the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) by_name: BTreeMap<String, u64>,
    pub(crate) kicks: u64,
}

impl Requests {
    pub(crate) fn total(&self) -> u64 {
        self.by_name.values().sum()
    }
}

/// Instructions between two marks, counted by QEMU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Instructions {
    pub(crate) kernel: u64,
    pub(crate) user: u64,
    /// Accesses to device memory.
    pub(crate) io: u64,
}

impl Instructions {
    pub(crate) fn total(&self) -> u64 {
        self.kernel + self.user
    }
}

impl Side {
    /// The median of the elapsed times in ns, if there are any.
    pub(crate) fn median(&self) -> Option<f64> {
        median(&self.ns)
    }
}

/// The median of numbers in any order.
pub(crate) fn median(of: &[u64]) -> Option<f64> {
    let mut sorted = of.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    Some((sorted[last / 2] as f64 + sorted[last.div_ceil(2)] as f64) / 2.0)
}

impl Workload {
    /// Our time as a part of Linux's.
    pub(crate) fn ratio(&self) -> Option<f64> {
        Some(self.ours.median()? / self.linux.median()?)
    }

    /// The part of Linux's time that is aimed at (issue 7's targets): less on names
    /// and small files than on bulk data. What is there for comparison has none.
    pub(crate) fn target(&self) -> Option<f64> {
        const DATA: [&str; 4] = ["read_", "reread_", "write_", "mmap_"];
        match self.set.as_str() {
            "base" => None,
            "dax" => Some(0.8),
            _ if ["open_read_close", "write_small"].contains(&self.name.as_str()) => Some(0.5),
            _ if DATA.iter().any(|part| self.name.contains(part)) => Some(0.8),
            _ => Some(0.5),
        }
    }
}

impl Results {
    /// Returns the workload with that name, which is new at the end if it must be.
    pub(crate) fn entry(&mut self, set: &str, name: &str) -> &mut Workload {
        let at = self.workloads.iter().position(|w| w.name == name);
        let at = at.unwrap_or_else(|| {
            self.workloads.push(Workload {
                name: name.into(),
                set: set.into(),
                ..Workload::default()
            });
            self.workloads.len() - 1
        });
        &mut self.workloads[at]
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Workload> {
        self.workloads.iter().find(|w| w.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3]), Some(3.0));
        assert_eq!(median(&[9, 1, 5]), Some(5.0));
        assert_eq!(median(&[4, 1, 9, 6]), Some(5.0));
    }

    #[test]
    fn targets_tell_names_from_bulk_data() {
        let target = |set: &str, name: &str| {
            Workload {
                name: name.into(),
                set: set.into(),
                ..Workload::default()
            }
            .target()
        };
        assert_eq!(target("base", "base_copy_1m"), None);
        assert_eq!(target("posix", "seqread_1m_direct"), Some(0.8));
        assert_eq!(target("posix", "randwrite_4k"), Some(0.8));
        assert_eq!(target("posix", "open_read_close"), Some(0.5));
        assert_eq!(target("posix", "write_small"), Some(0.5));
        assert_eq!(target("posix", "readdir_2k"), Some(0.5));
        assert_eq!(target("dax", "mmap_read"), Some(0.8));
    }
}
