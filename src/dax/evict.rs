//! Taking mappings away: pages out of page tables, REMOVEMAPPING in batches, and
//! layouts broken for truncation, eviction and the end of a mount.

use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use super::geometry::{Chunk, InodeKey};
use super::manager::Dax;
use super::map::{Fate, says_nothing_there};
use super::owner::Owner;
use super::range::{RangeState, UnmapToken};
use crate::conn::{Class, Connection};
use crate::device::Data;
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{FilePages, Platform};
use crate::sync::WaitEnd;
use crate::wire::{Mapping, Removemapping};

/// Ranges that one REMOVEMAPPING names at most.
const BATCH: usize = 64;

impl<P: Platform> Dax<P> {
    /// Has the kernel take pages out of page tables that are about to go.
    fn unmap_pages(&self, conn: &Connection<P>, tokens: &[UnmapToken]) {
        for token in tokens {
            let index = token.range().index();
            if core::mem::take(&mut self.state.lock().faulted[index]) {
                let mapping = token.mapping();
                let offset = self.geometry.file_offset(mapping.chunk);
                conn.platform().unmap_file_pages(&FilePages {
                    mapping: mapping.inode.0,
                    offset: offset.unwrap_or(0),
                    len: self.geometry.range_size(),
                });
            }
        }
    }

    /// Sends REMOVEMAPPING for `tokens`, which show files of one node or several:
    /// the header names the first, the entries say all.
    pub(super) fn remove(&self, conn: &Connection<P>, tokens: &[UnmapToken]) -> Fate {
        let Some(first) = tokens.first() else {
            return Fate::Done;
        };
        self.unmap_pages(conn, tokens);
        let node = self.state.lock().nodes[first.range().index()];
        let mut entries = [const {
            Mapping {
                window_offset: 0,
                len: 0,
            }
        }; BATCH];
        let entries = &mut entries[..tokens.len()];
        for (entry, token) in entries.iter_mut().zip(tokens) {
            let ask = token.request();
            *entry = Mapping {
                window_offset: ask.window_offset,
                len: ask.len.into(),
            };
        }
        let (request, _) = Removemapping::split(node, entries);
        let fate = match Fate::of(conn.call(&request, Data::None, Class::Forced)) {
            // Of several nobody knows which it was.
            Fate::Refused(error) if tokens.len() == 1 && says_nothing_there(&error) => Fate::Done,
            fate => fate,
        };
        match &fate {
            Fate::Done => conn.counters().dax_unmaps.add(tokens.len() as u64),
            other => log::warn!("virtio-fs: {request}: {other:?}"),
        }
        fate
    }

    /// Unmaps what `tokens` stand for, at most [`BATCH`] of them. Blocks.
    pub(super) fn unmap(&self, conn: &Connection<P>, tokens: &mut Vec<UnmapToken>) {
        let fate = self.remove(conn, tokens);
        {
            let state = &mut *self.state.lock();
            // From the back, so that the first one is the first to be repaired.
            while let Some(token) = tokens.pop() {
                // Stale only after a reset, when nothing is mapped.
                let _ = match fate {
                    Fate::Done => state.pool.window_mut().commit_unmap(token),
                    Fate::Refused(_) | Fate::Unknown => {
                        conn.counters().dax_lost.add(1);
                        state.hurry(token.range());
                        state.pool.window_mut().lose_unmap(token)
                    }
                };
            }
        }
        self.changed.wake_all(conn.platform());
    }

    /// Unmaps everything of `owner` that reaches beyond byte `end` of the file.
    /// Waits until nobody holds it. Blocks.
    ///
    /// The caller has the owner's layout alone, or is the last to know the owner.
    ///
    /// # Errors
    ///
    /// EINTR if the caller is killed meanwhile.
    pub(crate) fn clear(&self, conn: &Connection<P>, owner: &Owner<P>, end: u64) -> Result<()> {
        self.clear_key(conn, owner.key, end)
    }

    fn clear_key(&self, conn: &Connection<P>, key: InodeKey, end: u64) -> Result<()> {
        let (from, _) = self.geometry.locate(end);
        let mut tokens = Vec::new();
        loop {
            let busy = self.collect(key, from, end, &mut tokens);
            if !tokens.is_empty() {
                self.unmap(conn, &mut tokens);
            } else if !busy {
                return Ok(());
            } else {
                let ready = || {
                    let busy = self.collect(key, from, end, &mut tokens);
                    (!busy || !tokens.is_empty()).then_some(())
                };
                self.state.lock().waiting += 1;
                let end = self.changed.wait(conn.platform(), None, ready);
                self.state.lock().waiting -= 1;
                if !matches!(end, WaitEnd::Ready(())) {
                    return Err(Error::new(Errno::EINTR, Origin::Platform));
                }
                if !tokens.is_empty() {
                    self.unmap(conn, &mut tokens);
                }
            }
        }
    }

    /// Begins to unmap what is idle, up to a batch, and returns whether there is
    /// something that is not.
    fn collect(&self, key: InodeKey, from: Chunk, end: u64, tokens: &mut Vec<UnmapToken>) -> bool {
        let pool = &mut self.state.lock().pool;
        let mut busy = false;
        let mut next = from;
        while tokens.len() < BATCH {
            let Some((chunk, range)) = pool.window().of_inode(key, next).next() else {
                break;
            };
            next = Chunk(chunk.0 + 1);
            let begin = self.geometry.file_offset(chunk).unwrap_or(u64::MAX);
            let reaches = match pool.window().state(range) {
                Some(RangeState::Mapped(mapping) | RangeState::Unmapping(mapping)) => {
                    begin.saturating_add(mapping.len.into()) > end
                }
                _ => true,
            };
            if reaches {
                match pool.begin_unmap(range) {
                    Some(token) => tokens.push(token),
                    None => busy = true,
                }
            }
        }
        busy
    }

    /// Maps nothing any more and unmaps everything there is. Blocks; for the end
    /// of a mount.
    pub(crate) fn shut_down(&self, conn: &Connection<P>) {
        self.off.store(true, Relaxed);
        self.settle_orphans(conn);
        let mut tokens = Vec::new();
        loop {
            {
                let pool = &mut self.state.lock().pool;
                for range in self.geometry.ranges() {
                    if tokens.len() == BATCH {
                        break;
                    }
                    tokens.extend(pool.begin_unmap(range));
                }
            }
            if tokens.is_empty() {
                return;
            }
            self.unmap(conn, &mut tokens);
        }
    }
}
