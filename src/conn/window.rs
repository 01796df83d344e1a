//! The DAX window at the end of a session.
//!
//! QEMU 11.1 dies of a segmentation fault when a device is reset while mappings
//! are live, and where it does not, whoever copies meets missing memory. So
//! before each reset the window is emptied: of those who copy, by closing it; of
//! pages in page tables, which its user takes out; and of mappings, by DESTROY, on
//! which a server unmaps everything.

use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::Connection;
use super::pool::Class;
use super::slot::Slot;
use crate::device::Transport;
use crate::device::window::Window;
use crate::platform::Platform;
use crate::sync::park;
use crate::wire::{Destroy, Opcode};

impl<P: Platform> Connection<P> {
    /// Waits until nobody copies from or to the window any more, and lets nobody
    /// begin; then has its pages taken out of page tables. Blocks for the length
    /// of a copy.
    pub(super) fn empty_window(&self) {
        if let Some(window) = &self.window {
            self.wait_for_copies(window);
            self.withdraw_pages();
        }
    }

    fn wait_for_copies(&self, window: &Window) {
        let end = self.now() + self.config.grace;
        while !window.close() {
            if self.now() >= end {
                log::error!(
                    "virtio-fs: {}: somebody still copies through the window",
                    self.device.tag
                );
                return;
            }
            park(
                &*self.platform,
                Some(self.now() + Duration::from_micros(100)),
            );
        }
    }

    /// Empties the window before a reset. The server is asked once to unmap what
    /// it has; if it does not answer in the time of grace, so be it.
    pub(super) fn leave_window(&self) {
        self.empty_window();
        let used = self.window.as_ref().is_some_and(|w| w.take_used());
        if !used || self.device_failed() {
            return;
        }
        let end = self.now() + self.config.grace;
        let wait_while = |busy: &dyn Fn() -> bool| {
            while busy() && !self.device_failed() && self.now() < end {
                self.poll();
                park(&*self.platform, Some(self.now() + Duration::from_millis(1)));
            }
        };
        // A mapping that is being made now would survive the DESTROY.
        wait_while(&|| self.has_mapping_request(Slot::is_with_device));
        if let Some(id) = self.post_as(&Destroy, Class::Session) {
            wait_while(&|| self.pool.slot(id).is_with_device());
        }
    }

    /// Returns whether the device still has a request about mappings that was
    /// given up: what it will do to the window is not known before it comes back.
    pub(crate) fn has_stray_mapping(&self) -> bool {
        self.has_mapping_request(Slot::is_orphan)
    }

    /// Reads a register, for the sake of its side effect: a monitor that emulates
    /// it has then finished what it had begun.
    pub(crate) fn touch_device(&self) {
        let _ = self.transport.status();
    }

    fn has_mapping_request(&self, which: impl Fn(&Slot<P>) -> bool) -> bool {
        let about_mappings = |slot: &Slot<P>| {
            let opcode = slot.opcode.load(Relaxed);
            opcode == Opcode::Setupmapping.to_wire() || opcode == Opcode::Removemapping.to_wire()
        };
        self.pool
            .iter()
            .any(|(_, slot)| which(slot) && about_mappings(slot))
    }
}
