//! Pages of files for page tables: what a kernel's mmap stands on.
//!
//! The kernel calls [`Inode::fault`] in its page fault handler, enters the page
//! into its page table, and drops the [`PinnedPage`]. Later, when the page is
//! about to go, the driver calls
//! [`Platform::unmap_file_pages`], and the next access faults
//! again. In between the page is the file's own memory: stores show on the host
//! and in other guests at once.
//!
//! Memory that pages are entered into is no buffer for calls of the driver:
//! they share the layout of the file while they copy, and a fault in the middle
//! would want it once more. Linux has the same trouble, and faults in the pages
//! of a buffer before it takes its locks.
//!
//! A fault never takes pages out of page tables while it shares the layout of
//! the file (S4-M10): it lets go, unmaps something or waits, and starts again.

use super::Inode;
use super::attr::Stale;
use crate::dax::policy::Kind;
use crate::dax::{Detour, Hold, Rights, Wish};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::{PAGE_SIZE, PhysAddr, Platform};
use crate::sync::SharedGuard;

/// What a page is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageUse {
    /// Loads: reading, executing, being copied for a private mapping.
    Load,
    /// Stores, in a shared mapping.
    Store,
}

/// The answer to a page fault.
pub enum Fault<'a, P: Platform> {
    /// The page, in the window.
    Page(PinnedPage<'a, P>),
    /// This page cannot be mapped: the file does not use the window, the server
    /// refused, or it is the last page of a file that ends within it. A private
    /// mapping gets a page of the kernel's own, filled by reading; a shared one
    /// that is written cannot be had.
    Unmappable,
}

/// A page of a file in the window, held until it is in a page table.
pub struct PinnedPage<'a, P: Platform> {
    // Dropped in this order: the pin before the layout.
    _hold: Hold<'a, P>,
    _layout: SharedGuard<'a, P>,
    addr: PhysAddr,
    run: Run,
}

/// The mapped surroundings of a page, in bytes: at least the page, at most a
/// range of the window. Where it is aligned for it, a kernel may enter a large page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it begins in the file.
    pub offset: u64,
    /// Where it begins in physical memory.
    pub addr: PhysAddr,
    /// Its length.
    pub len: u64,
}

impl<P: Platform> PinnedPage<'_, P> {
    /// Returns the page's physical address.
    pub fn addr(&self) -> PhysAddr {
        self.addr
    }

    /// Returns what else is mapped around it. All of it may be entered into page
    /// tables before this is dropped, and goes with one call of
    /// [`Platform::unmap_file_pages`].
    pub fn run(&self) -> Run {
        self.run
    }
}

impl<P: Platform> Inode<P> {
    /// Returns the name under which [`Platform::unmap_file_pages`] speaks of this
    /// file. `None` if it never does, because the file does not use the window.
    pub fn mapping(&self) -> Option<u64> {
        self.owner.as_ref().map(|owner| owner.mapping())
    }

    /// Finds the page that holds byte `offset` of the file, mapping it if need be.
    /// Blocks.
    ///
    /// Calls [`Platform::unmap_file_pages`] when another page must go first: the
    /// caller holds no lock that this takes. The caller has asked
    /// [`File::may_map`](super::File::may_map) when the file was mapped.
    ///
    /// # Errors
    ///
    /// EFAULT behind the end of the file (SIGBUS), EINTR if the caller is killed,
    /// and the server's if it must be asked for the size.
    pub fn fault(&self, offset: u64, want: PageUse) -> Result<Fault<'_, P>> {
        self.check()?;
        let (Some(owner), Some(dax)) = (&self.owner, &self.fs.dax) else {
            return Ok(Fault::Unmappable);
        };
        if want == PageUse::Store {
            self.fs.check_writable()?;
        }
        let conn = &*self.fs.conn;
        let page = offset & !(PAGE_SIZE as u64 - 1);
        let rights = match want {
            PageUse::Load => Rights::ReadOnly,
            PageUse::Store => Rights::Writable,
        };
        loop {
            let layout = owner.layout().share(self.fs.platform())?;
            let size = self.fresh_attr(Stale::SIZE, None)?.size;
            if offset >= size {
                return Err(Error::caller(Errno::EFAULT));
            }
            let (chunk, at) = dax.geometry().locate(page);
            if u64::from(at) + PAGE_SIZE as u64 > dax.geometry().mappable(chunk, size).into() {
                return Ok(Fault::Unmappable);
            }
            // Before the page can be entered, so that no truncation misses it.
            owner.set_faulted(true);
            let wish = Wish {
                offset: page,
                len: PAGE_SIZE as u32,
                size,
                need: rights,
                want: rights,
                kind: Kind::Fault,
                run: 0,
            };
            match dax.find(conn, owner, &wish) {
                Ok(hold) => {
                    if want == PageUse::Store {
                        // Later stores are not noticed.
                        owner.set_stored(true);
                        self.attr_changed(Stale::WRITTEN);
                    }
                    let (Some((begin, len)), Some(window)) = (hold.extent(), conn.window()) else {
                        return Ok(Fault::Unmappable);
                    };
                    let run = Run {
                        offset: page - u64::from(at),
                        addr: window.phys(begin),
                        len: len.into(),
                    };
                    return Ok(Fault::Page(PinnedPage {
                        _hold: hold,
                        _layout: layout,
                        addr: run.addr + u64::from(at),
                        run,
                    }));
                }
                // The window is closed while a session is made anew.
                Err(Detour::Request) if conn.state().is_interlude() => {
                    drop(layout);
                    conn.wait_for_session()?;
                }
                Err(Detour::Request) => return Ok(Fault::Unmappable),
                Err(detour) => {
                    drop(layout);
                    dax.make_room(conn, detour)?;
                }
            }
        }
    }
}
