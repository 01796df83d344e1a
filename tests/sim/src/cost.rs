//! The cost model. Figures in nanoseconds, from a Linux guest with a DAX window
//! under TCG on one CPU; only their ratios matter.

use virtio_fs::dax::Costs;

/// What each thing costs.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Accesses, requests, and a whole mapping.
    pub costs: Costs,
    /// Of a mapping, the part that one entry of a REMOVEMAPPING costs.
    pub remove_entry: u64,
    /// Of a mapping, the part that one REMOVEMAPPING request costs besides its
    /// entries: a batch pays it once.
    pub remove_request: u64,
}

impl Model {
    /// A READ of 4 KiB takes 202 us, a mapped one 12 us, mapping and unmapping
    /// alone 1,350 us, of which the unmapping is 550 us and its round trip 200 us.
    pub const MEASURED: Self = Self {
        costs: Costs::MEASURED,
        remove_entry: 350_000,
        remove_request: 200_000,
    };

    /// Returns what a SETUPMAPPING costs.
    pub fn setup(&self) -> u64 {
        u64::from(self.costs.map) - self.remove_entry - self.remove_request
    }
}
