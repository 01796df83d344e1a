//! Any policy, with reads until they have cost a mapping (ski rental): shows how
//! much admission alone is worth.

use std::collections::HashMap;

use virtio_fs::dax::{Access, Admission, Costs, InodeKey, Policy, RangeId};

use super::{Key, key};

/// The wrapper.
#[derive(Debug)]
pub struct Frugal<P> {
    inner: P,
    costs: Costs,
    paid: HashMap<Key, u64>,
}

impl<P> Frugal<P> {
    /// Reads by `costs` before it lets `inner` map.
    pub fn new(inner: P, costs: Costs) -> Self {
        Self {
            inner,
            costs,
            paid: HashMap::new(),
        }
    }
}

impl<P: Policy> Policy for Frugal<P> {
    fn hit(&mut self, range: RangeId, access: &Access) {
        self.inner.hit(range, access);
    }

    fn admit(&mut self, access: &Access, free: usize) -> Admission {
        let paid = self.paid.entry(key(access)).or_default();
        *paid += self.costs.saving(access);
        if *paid < self.costs.map.into() {
            return Admission::Request;
        }
        *paid = 0;
        self.inner.admit(access, free)
    }

    fn mapped(&mut self, range: RangeId, access: &Access) {
        self.inner.mapped(range, access);
    }

    fn unmapped(&mut self, range: RangeId) {
        self.inner.unmapped(range);
    }

    fn victim(
        &mut self,
        wanted: Option<InodeKey>,
        may: &mut dyn FnMut(RangeId) -> bool,
    ) -> Option<RangeId> {
        self.inner.victim(wanted, may)
    }

    fn surplus(&self, free: usize) -> usize {
        self.inner.surplus(free)
    }

    fn reset(&mut self) {
        self.inner.reset();
    }
}
