//! Requests that somebody polls instead of waiting: for executors.
//!
//! A [`Ticket`] stands for one request with the device. It is a future; it can
//! be waited for as well; and it can be dropped at any time: then the connection
//! keeps all memory of the request until the device returns it, and hands back
//! what the reply hands out. That is why the data of such a request are owned by
//! it, in DMA memory, and not borrowed.

use alloc::sync::Arc;
use core::future::Future;
use core::marker::PhantomData;
use core::pin::Pin;
use core::sync::atomic::Ordering::Relaxed;
use core::task::{Context, Poll};

use super::Connection;
use super::call::{ReplyIds, Unfit, cleanup_of, push_args, push_reply};
use super::pool::{Class, SlotId};
use super::slot::Waiter;
use super::wait::WaitEnd;
use crate::device::TableBuilder;
use crate::device::dma::DmaRegion;
use crate::device::table::{Access, Segment};
use crate::errno::Errno;
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::wire::{Opcode, Request};

/// Memory for the data of a request that is polled.
pub type Buffer<P> = DmaRegion<<P as Platform>::Hal>;

/// A request under way. Yields the reply and the buffer that went with it.
#[must_use = "a ticket that is dropped gives the request up"]
pub struct Ticket<P: Platform, R: Request> {
    conn: Arc<Connection<P>>,
    id: Option<SlotId>,
    capacity: usize,
    reply: PhantomData<fn() -> R>,
}

impl<P: Platform> Connection<P> {
    /// Sends `request` with the data in `buffer`, or with room for the data
    /// there, and returns at once; it blocks only while every slot is taken,
    /// and while a session is made anew. One that is lost with its session is not sent
    /// again: EIO.
    ///
    /// # Errors
    ///
    /// As for requests that were never sent; EINVAL if the buffer is too small,
    /// or for READDIRPLUS, whose reply nobody could hand back.
    pub fn submit<R: Request>(
        self: &Arc<Self>,
        request: &R,
        buffer: Option<Buffer<P>>,
    ) -> Result<Ticket<P, R>> {
        let (out, room) = (request.data_out(), request.data_in());
        let size = buffer.as_ref().map_or(0, DmaRegion::len);
        if size < out.max(room) || R::OPCODE == Opcode::Readdirplus {
            return Err(Error::caller(Errno::EINVAL));
        }
        let id = loop {
            let id = self.acquire(Class::Normal)?;
            let unfit = match self.encode(self.pool.slot(id), request, Class::Normal, None) {
                Ok(_) => break id,
                Err(unfit) => unfit,
            };
            self.pool.put(&self.platform, id);
            match unfit {
                Unfit::Missing(missing) => self.find_again(missing)?,
                Unfit::Past => {}
                Unfit::Failed(error) => return Err(error),
                Unfit::Table | Unfit::Lost(_) => return Err(Error::caller(Errno::E2BIG)),
            }
        };
        let slot = self.pool.slot(id);
        {
            let mut args = slot.args.lock();
            let mut builder = TableBuilder::new(&slot.table, u16::MAX);
            let data = |len: usize, access| {
                let addr = buffer.as_ref().map_or(0, |buffer| buffer.paddr(0));
                (len > 0).then_some(Segment {
                    addr,
                    len: len as u32,
                    access,
                })
            };
            // A table has room for at least four segments.
            let _ = push_args::<P>(&args, &mut builder);
            let _ = data(out, Access::Read).map(|segment| builder.push(segment));
            let _ = push_reply::<P>(&args, R::REPLY, &mut builder);
            let _ = data(room, Access::Write).map(|segment| builder.push(segment));
            slot.segments.store(builder.finish(), Relaxed);
            args.owned = buffer;
        }
        let waiter = Waiter::Thread(self.platform.current_thread());
        slot.arm(cleanup_of(R::OPCODE), Some(waiter));
        self.submit_slot(id, slot);
        self.counters.bytes_sent.add(out as u64);
        let capacity = R::REPLY.fixed_area() + room;
        Ok(Ticket {
            conn: self.clone(),
            id: Some(id),
            capacity,
            reply: PhantomData,
        })
    }
}

impl<P: Platform, R: Request> Ticket<P, R> {
    /// Waits for the reply. Blocks.
    ///
    /// # Errors
    ///
    /// As [`Connection::call`].
    pub fn wait(mut self) -> Result<(R::Reply, Option<Buffer<P>>)> {
        let Some(id) = self.id else {
            return Err(Error::caller(Errno::EINVAL));
        };
        let slot = self.conn.pool.slot(id);
        slot.set_waiter(Waiter::Thread(self.conn.platform.current_thread()));
        if let WaitEnd::GivenUp(error) = self.conn.wait(id, R::OPCODE, false) {
            // It is an orphan already.
            self.id = None;
            return Err(error);
        }
        self.finish(id)
    }

    fn finish(&mut self, id: SlotId) -> Result<(R::Reply, Option<Buffer<P>>)> {
        let conn = self.conn.clone();
        let slot = conn.pool.slot(id);
        let reply = conn.read_reply::<R>(slot, self.capacity, ReplyIds::Ours);
        let buffer = slot.args.lock().owned.take();
        self.id = None;
        conn.pool.put(&conn.platform, id);
        reply.map(|reply| (reply, buffer))
    }
}

impl<P: Platform, R: Request> Future for Ticket<P, R> {
    type Output = Result<(R::Reply, Option<Buffer<P>>)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else {
            // Polled after it was ready, which nobody should do.
            return Poll::Ready(Err(Error::caller(Errno::EINVAL)));
        };
        let slot = self.conn.pool.slot(id);
        slot.set_waiter(Waiter::Task(cx.waker().clone()));
        if !slot.is_back() {
            if !self.conn.has_interrupts() {
                // Nobody else looks at the ring; come again soon.
                self.conn.poll();
                cx.waker().wake_by_ref();
            }
            if self.conn.device_failed() {
                self.conn.lose_device("it needs a reset");
            }
        }
        if slot.is_back() {
            Poll::Ready(self.finish(id))
        } else {
            Poll::Pending
        }
    }
}

impl<P: Platform, R: Request> Drop for Ticket<P, R> {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let slot = self.conn.pool.slot(id);
        if slot.orphan() {
            self.conn.counters.orphans.add(1);
            return;
        }
        // It is back already: the connection cleans up as after an orphan.
        slot.set_state(super::slot::SlotState::Returned);
        self.conn.pool.give_back(&self.conn.platform, id);
    }
}
