//! Requests that carry pages of a cache.
//!
//! The pages belong to the request until the device returns it: it holds a
//! reference to their memory, so whoever waits may give up at any time, and a
//! page that is dropped from the cache meanwhile is written to in peace. Nobody
//! need wait at all: what came of the request is told to the owners of the pages,
//! in thread context, by whoever cleans up next ([`Connection::work`], any call,
//! or a thread that [waits](Connection::await_pages) for it). The owners only take
//! notes: nothing that a reply sets off waits for another reply (S4-M16).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::call::{ReplyIds, Unfit, push_args, push_reply};
use super::pool::{Class, SlotId};
use super::slot::Cleanup;
use super::{Connection, State};
use crate::device::TableBuilder;
use crate::device::dma::DmaRegion;
use crate::device::table::{Access, Segment};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Hal, Platform, Signal};
use crate::sync::park;
use crate::wire::{Opcode, Read, ReplyShape, Request, Write};

/// Is told what became of its pages.
pub(crate) trait PageOwner: Send + Sync {
    /// The device is done with `len` bytes at `offset` of the owner's memory, of
    /// which it read or wrote as many as `outcome` says, from the front. Thread
    /// context; takes spin locks at most.
    fn done(&self, offset: u32, len: u32, outcome: Result<u32>);
}

/// A part of somebody's memory that goes with a request.
pub(crate) struct Piece<H: Hal> {
    pub(crate) memory: Arc<DmaRegion<H>>,
    pub(crate) owner: Arc<dyn PageOwner>,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

/// What the owners of pages are told of a request that was never sent, or that a
/// restart took away: it may be made again.
pub(crate) const NOT_DONE: Error = Error::new(Errno::EAGAIN, Origin::Connection);

/// Whether to wait for a free slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Somebody waits for the pages: in line.
    Wait,
    /// They may be wanted later: only if nobody else is kept waiting, and within
    /// the server's congestion threshold (S0-12).
    IfFree,
}

/// A request that is being put together. What is dropped is not sent, and the
/// owners of its pages are told so.
pub(crate) struct PageIo<'c, P: Platform> {
    conn: &'c Connection<P>,
    id: SlotId,
    class: Class,
    turn: Turn,
    pieces: Vec<Piece<P::Hal>>,
    bytes: usize,
    sent: bool,
}

impl<P: Platform> Connection<P> {
    /// Begins a request. `None` if it is nobody's turn to wait. Blocks while every
    /// slot is taken, if it may.
    pub(crate) fn begin_pages(&self, class: Class, turn: Turn) -> Result<Option<PageIo<'_, P>>> {
        let id = match turn {
            Turn::Wait => self.acquire(class)?,
            Turn::IfFree => {
                self.check_state()?;
                self.tidy();
                let most = self.limits.read().congestion;
                match self.pool.try_take(&self.platform, class, most) {
                    Some(id) => id,
                    None => return Ok(None),
                }
            }
        };
        let pieces = core::mem::take(&mut self.pool.slot(id).args.lock().pieces);
        Ok(Some(PageIo {
            conn: self,
            id,
            class,
            turn,
            pieces,
            bytes: 0,
            sent: false,
        }))
    }

    /// Returns how many pieces of memory one request can carry.
    pub(crate) fn max_pieces(&self) -> usize {
        let table = self.queues[0].max_segments(self.pool.slot(SlotId(0)).table.capacity());
        usize::from(table.saturating_sub(2)).max(1)
    }

    /// Waits until `done` returns something: what the request in slot `id`, or
    /// whatever took its place, brings. Blocks.
    ///
    /// # Errors
    ///
    /// EINTR if the caller is killed, ETIMEDOUT after the deadline for data, and
    /// what a new request would get once the connection has ended. The pages stay
    /// the request's.
    pub(crate) fn await_pages<T>(
        &self,
        id: Option<SlotId>,
        mut done: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        if let Some(value) = done() {
            return Ok(value);
        }
        let sleeps = self.has_interrupts();
        let queue = id.map(|id| &self.queues[usize::from(self.pool.slot(id).queue.load(Relaxed))]);
        let mut spins = if sleeps { self.config.spins } else { 64 };
        let ticket = id.map(|id| self.pool.watch(&self.platform, id));
        let mut give_up = None;
        let mut heard = self.counters.replies.get();
        let limit = self.config.deadlines.data;
        let result = loop {
            if !sleeps || spins > 0 {
                match queue {
                    Some(queue) => {
                        self.counters.polls.add(1);
                        queue.reap(&self.env());
                    }
                    None => self.poll(),
                }
            }
            self.clean_returned();
            if let Some(value) = done() {
                break Ok(value);
            }
            if spins > 0 {
                spins -= 1;
                core::hint::spin_loop();
                continue;
            }
            let now = self.now();
            let end = *give_up.get_or_insert_with(|| limit.map(|limit| now + limit));
            if self.device_failed() {
                self.lose_device("it needs a reset");
                continue;
            }
            if let Err(error) = self.check_state()
                && !self.state().is_interlude()
            {
                break Err(error);
            }
            if self.platform.signal() == Signal::Kill {
                break Err(Error::new(Errno::EINTR, Origin::Platform));
            }
            if end.is_some_and(|end| now >= end) {
                let silent = self.counters.replies.get() == heard;
                if silent && self.config.restart.is_some() && self.state() == State::Ready {
                    // Nothing at all came back since: a new session may answer.
                    self.lose_device("it has fallen silent");
                    (give_up, heard) = (None, u64::MAX);
                    continue;
                }
                self.counters.timeouts.add(1);
                log::error!(
                    "virtio-fs: pages did not come back in {:?}",
                    limit.unwrap_or_default()
                );
                break Err(Error::new(Errno::ETIMEDOUT, Origin::Device));
            }
            // A lost interrupt is found in time, and so is somebody who does in
            // memory what no request stands for.
            let rest = match (id, sleeps) {
                (Some(_), true) => Duration::from_millis(500),
                _ => Duration::from_millis(1),
            };
            let look = now + rest;
            park(&*self.platform, Some(end.map_or(look, |end| end.min(look))));
            if sleeps && self.now() >= look {
                self.poll();
            }
            if !sleeps {
                spins = 64;
            }
        };
        if let Some(ticket) = ticket {
            self.pool.unwatch(&self.platform, ticket);
        }
        result
    }

    /// Tells the owners of pages what became of them, and whoever waits.
    fn clean_returned(&self) {
        while let Some(id) = self.pool.next_to_clean(&self.platform) {
            self.clean_up(id);
        }
    }

    pub(super) fn finish_pages(&self, id: SlotId) {
        let slot = self.pool.slot(id);
        let mut pieces = core::mem::take(&mut slot.args.lock().pieces);
        let len: usize = pieces.iter().map(|piece| piece.len as usize).sum();
        // What was under way when a session ended is asked for, or sent, again: by
        // whoever wants it.
        let again = slot.is_lost() && self.config.restart.is_some();
        if !slot.is_lost() {
            self.counters.replies.add(1);
            self.note_progress();
        }
        let outcome = match slot.opcode.load(Relaxed) {
            _ if again => Err(NOT_DONE),
            op if op == Opcode::Read.to_wire() => {
                self.read_reply::<Read>(slot, Read::REPLY.fixed_area() + len, ReplyIds::Ours)
            }
            _ => self
                .read_reply::<Write>(slot, Write::REPLY.fixed_area(), ReplyIds::Ours)
                .and_then(|count| {
                    count.progress_of(len as u64).map_err(|why| {
                        self.counters.malformed_replies.add(1);
                        log::error!("virtio-fs: WRITE of {len} bytes from the cache: {why}");
                        Error::protocol()
                    })
                })
                .map(|n| n as usize),
        };
        self.tell(&mut pieces, outcome);
        slot.args.lock().pieces = pieces;
        self.pool.put(&self.platform, id);
        self.pool.wake_watchers(&self.platform, id);
    }

    fn tell(&self, pieces: &mut Vec<Piece<P::Hal>>, outcome: Result<usize>) {
        let mut left = outcome;
        for piece in pieces.iter() {
            let part = left.map(|n| n.min(piece.len as usize) as u32);
            left = left.map(|n| n - n.min(piece.len as usize));
            piece.owner.done(piece.offset, piece.len, part);
        }
        if self.stuck.load(Relaxed) {
            // The device may write there for ever.
            core::mem::take(pieces).into_iter().for_each(|piece| {
                core::mem::forget(piece.memory);
            });
        }
        pieces.clear();
    }
}

impl<P: Platform> PageIo<'_, P> {
    /// Returns the slot that the request will have, by which to wait for it.
    pub(crate) fn id(&self) -> SlotId {
        self.id
    }

    /// Returns how many bytes it carries so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns how many pieces it has.
    pub(crate) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Adds a piece behind the others.
    pub(crate) fn push(&mut self, piece: Piece<P::Hal>) {
        self.bytes += piece.len as usize;
        self.pieces.push(piece);
    }

    /// Sends it. The sum of the pieces is what `request` says that it carries.
    /// After a restart it may come to nothing the first time: the pages are as
    /// before then, and what it names is found again, if somebody waits.
    ///
    /// # Errors
    ///
    /// E2BIG for more pieces than [`max_pieces`](Connection::max_pieces), ENOMEM;
    /// the owners are told then.
    pub(crate) fn send<R: Request>(mut self, request: &R) -> Result<()> {
        let conn = self.conn;
        let slot = conn.pool.slot(self.id);
        let turn = self.turn;
        if let Err(unfit) = conn.encode(slot, request, self.class, None) {
            // Not with this slot, which whoever finds it may need.
            drop(self);
            return match unfit {
                Unfit::Missing(_) if turn == Turn::IfFree => Ok(()),
                Unfit::Missing(missing) => conn.find_again(missing),
                Unfit::Past | Unfit::Lost(_) => Ok(()),
                Unfit::Table => Err(Error::caller(Errno::E2BIG)),
                Unfit::Failed(error) => Err(error),
            };
        }
        let out = request.data_out();
        debug_assert_eq!(
            out.max(request.data_in()),
            self.bytes,
            "pages that the request does not speak of"
        );
        {
            let limit = conn.queues[0].max_segments(slot.table.capacity());
            let mut args = slot.args.lock();
            let mut builder = TableBuilder::new(&slot.table, limit);
            let access = if out > 0 { Access::Read } else { Access::Write };
            let described = (|| {
                push_args::<P>(&args, &mut builder)?;
                if out == 0 {
                    push_reply::<P>(&args, R::REPLY, &mut builder)?;
                }
                let mut apart = true;
                for piece in &self.pieces {
                    let segment = Segment {
                        addr: piece.memory.paddr(piece.offset as usize),
                        len: piece.len,
                        access,
                    };
                    if core::mem::take(&mut apart) {
                        builder.push(segment)?;
                    } else {
                        builder.join(segment)?;
                    }
                }
                if out > 0 {
                    push_reply::<P>(&args, R::REPLY, &mut builder)?;
                }
                Ok::<(), crate::device::TableFull>(())
            })();
            if described.is_err() {
                return Err(Error::caller(Errno::E2BIG));
            }
            slot.segments.store(builder.finish(), Relaxed);
            args.pieces = core::mem::take(&mut self.pieces);
        }
        self.sent = true;
        conn.counters.bytes_sent.add(out as u64);
        slot.arm(Cleanup::Pages, None);
        conn.submit_slot(self.id, slot);
        Ok(())
    }
}

impl<P: Platform> Drop for PageIo<'_, P> {
    fn drop(&mut self) {
        if self.sent {
            return;
        }
        let conn = self.conn;
        let mut pieces = core::mem::take(&mut self.pieces);
        for piece in &pieces {
            piece.owner.done(piece.offset, piece.len, Err(NOT_DONE));
        }
        pieces.clear();
        conn.pool.slot(self.id).args.lock().pieces = pieces;
        conn.pool.put(&conn.platform, self.id);
        conn.pool.wake_watchers(&conn.platform, self.id);
    }
}

/// READ answers with data, WRITE with their number.
const _: () = assert!(matches!(Read::REPLY, ReplyShape::Data));
