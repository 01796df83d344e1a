//! A part of a file in the window, held for a copy.

use super::manager::Dax;
use super::range::Pin;
use crate::device::window::{Inside, Outside};
use crate::platform::Platform;

/// A pinned range, and permission to copy. Both end with it.
pub(crate) struct Hold<'a, P: Platform> {
    dax: &'a Dax<P>,
    platform: &'a P,
    pin: Option<Pin>,
    inside: Inside<'a>,
}

impl<'a, P: Platform> Hold<'a, P> {
    pub(super) fn new(dax: &'a Dax<P>, platform: &'a P, pin: Pin, inside: Inside<'a>) -> Self {
        Self {
            dax,
            platform,
            pin: Some(pin),
            inside,
        }
    }

    /// Returns where byte `at` of the chunk lies in the window, if it and the
    /// `len - 1` bytes after it are mapped.
    fn place(&self, at: u32, len: usize) -> Option<u64> {
        let pin = self.pin.as_ref()?;
        let end = u64::from(at).checked_add(len as u64)?;
        if end > pin.mapped_bytes().into() {
            return None;
        }
        self.dax.geometry().window_offset(pin.range(), at)
    }

    /// Returns where the mapped bytes of the chunk begin in the window, and how many
    /// they are.
    pub(crate) fn extent(&self) -> Option<(u64, u32)> {
        let pin = self.pin.as_ref()?;
        let begin = self.dax.geometry().window_offset(pin.range(), 0)?;
        Some((begin, pin.mapped_bytes()))
    }

    /// Copies bytes of the chunk from `at` on.
    ///
    /// # Errors
    ///
    /// [`Outside`] of what is mapped.
    pub(crate) fn read(&self, at: u32, out: &mut [u8]) -> Result<(), Outside> {
        let place = self.place(at, out.len()).ok_or(Outside)?;
        self.inside.read(place, out)
    }

    /// Copies bytes into the chunk from `at` on.
    ///
    /// # Errors
    ///
    /// [`Outside`] of what is mapped.
    pub(crate) fn write(&self, at: u32, data: &[u8]) -> Result<(), Outside> {
        let place = self.place(at, data.len()).ok_or(Outside)?;
        self.inside.write(place, data)
    }
}

impl<P: Platform> Drop for Hold<'_, P> {
    fn drop(&mut self) {
        if let Some(pin) = self.pin.take() {
            let awaited = {
                let state = &mut *self.dax.state.lock();
                state.pool.window_mut().unpin(pin) == 0 && state.waiting > 0
            };
            if awaited {
                self.dax.changed.wake_all(self.platform);
            }
        }
    }
}
