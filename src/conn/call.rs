//! Sending a request and reading its reply. The waiting in between is in
//! `wait.rs`.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::fence;

use super::names::Life;
use super::pool::{Class, SlotId};
use super::redo::{Mark, Redo, Span, redo, span};
use super::slot::{Args, Cleanup, REPLY_OFFSET, REPLY_SPACE, Slot, SlotState, Waiter};
use super::wait::WaitEnd;
use super::{Connection, State};
use crate::device::dma::DmaRegion;
use crate::device::table::{Access, Segment};
use crate::device::{Data, Lent, TableBuilder, lend, reclaim};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{PAGE_SIZE, Platform};
use crate::wire::{
    self, Credentials, Expected, Id, Opcode, REPLY_HEADER, ReplyError, ReplyShape, Request,
    Silence, Unique,
};

/// The most a reply's fixed part may hold.
const FIXED_MAX: usize = REPLY_SPACE - REPLY_HEADER;

/// Why a request came to nothing.
pub(super) enum Unfit {
    /// The data are in more pieces than the descriptor table has room for.
    Table,
    /// It names something that must be found again first.
    Missing(Id),
    /// The session ended before it was sent.
    Past,
    /// The session ended after that; it may be sent again, or not.
    Lost(Repeat),
    Failed(Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Whether a request that was sent may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    Allowed,
    Refused,
}

/// What is remembered of a request while it is with the device.
pub(super) struct Notes {
    pub(super) redo: Redo,
    /// What it changes, and its place among all changes.
    change: Option<(Span, Mark)>,
}

impl Notes {
    /// Returns the request's place among all changes.
    pub(super) fn mark(&self) -> Option<Mark> {
        self.change.map(|(_, mark)| mark)
    }
}

/// How often the same request may turn out to name something that is missing.
const MAX_FINDS: u32 = 16;

impl<P: Platform> Connection<P> {
    /// Sends `request` without data and returns its reply. Blocks.
    ///
    /// # Errors
    ///
    /// The server's, or as the [module](super) describes.
    pub fn ask<R: Request>(&self, request: &R) -> Result<R::Reply> {
        self.call(request, Data::None, Class::Normal)
    }

    /// Sends `request` with `data` and returns its reply. Blocks.
    ///
    /// The buffers must hold at least as much as the request says it sends or
    /// has room for; only so much of them is used.
    ///
    /// # Errors
    ///
    /// The server's, or as the [module](super) describes. E2BIG if the data are
    /// in more pieces than the queue can take at once, or more than a server takes
    /// that is there since a restart: [`fitting`](Self::fitting) and the
    /// [limits](Self::limits) say how much would do.
    pub fn call<R: Request>(
        &self,
        request: &R,
        data: Data<'_, '_>,
        class: Class,
    ) -> Result<R::Reply> {
        Ok(self.call_through(request, data, class)?.0)
    }

    /// As [`call`](Self::call), with the life that the reply is of, for ids among
    /// the data.
    pub(crate) fn call_with_life<R: Request>(
        &self,
        request: &R,
        data: Data<'_, '_>,
        class: Class,
    ) -> Result<(R::Reply, Life)> {
        self.call_through(request, data, class)
    }

    /// Sends a request that belongs to one life of the connection, for finding
    /// again what was known before. Ids in its reply are the server's own. Blocks.
    ///
    /// # Errors
    ///
    /// EIO if that life is over, ESTALE if it names what is not there any more,
    /// and the server's.
    pub(crate) fn ask_in<R: Request>(&self, life: Life, request: &R) -> Result<R::Reply> {
        let id = self.acquire(Class::Session)?;
        let flight = Flight {
            conn: self,
            id,
            class: Class::Session,
            only: Some(life),
            lent: None,
            data: &mut Data::None,
        };
        flight
            .run(request)
            .map(|(reply, _)| reply)
            .map_err(|unfit| match unfit {
                Unfit::Failed(error) => error,
                Unfit::Missing(_) => Error::new(Errno::ESTALE, Origin::Connection),
                Unfit::Table => Error::caller(Errno::E2BIG),
                Unfit::Past | Unfit::Lost(_) => Error::new(Errno::EIO, Origin::Device),
            })
    }

    /// Returns how many bytes of scattered data one request surely can carry by
    /// the bound of the queue, with each page apart.
    pub fn fitting(&self) -> usize {
        let table = self.queues[0].max_segments(self.pool.slot(SlotId(0)).table.capacity());
        // Arguments, reply, and one more where the data begin inside a page.
        usize::from(table.saturating_sub(3)) * PAGE_SIZE
    }

    /// Sends a request whose reply nobody needs, if there is a free slot. Does not
    /// block. Returns whether it was sent.
    pub(super) fn post<R: Request>(&self, request: &R) -> bool {
        self.post_as(request, Class::Forced).is_some()
    }

    /// As [`post`](Self::post). Returns the slot that the request has until it
    /// comes back.
    pub(super) fn post_as<R: Request>(&self, request: &R, class: Class) -> Option<SlotId> {
        debug_assert!(
            request.data_in() == 0 && request.data_out() == 0,
            "a posted request has no data"
        );
        let id = match self.pool.take(&self.platform, class) {
            Ok(id) => id,
            Err(ticket) => {
                self.pool.leave(&self.platform, ticket);
                return None;
            }
        };
        let slot = self.pool.slot(id);
        if self.encode(slot, request, class, None).is_err() {
            self.pool.put(&self.platform, id);
            return None;
        }
        let args = slot.args.lock();
        let mut builder = TableBuilder::new(&slot.table, u16::MAX);
        let described =
            push_args::<P>(&args, &mut builder).and(push_reply::<P>(&args, R::REPLY, &mut builder));
        debug_assert!(described.is_ok(), "a table holds at least four segments");
        slot.segments.store(builder.finish(), Relaxed);
        drop(args);
        slot.arm(cleanup_of(R::OPCODE), None);
        self.submit_slot(id, slot);
        Some(id)
    }

    /// Sends a request, and again where a restart came in between and it may be.
    fn call_through<R: Request>(
        &self,
        request: &R,
        mut data: Data<'_, '_>,
        class: Class,
    ) -> Result<(R::Reply, Life)> {
        let (mut resends, mut finds) = (0, 0);
        loop {
            let id = self.acquire(class)?;
            if self.names.life() != Life::default() && self.is_too_long(request) {
                self.pool.put(&self.platform, id);
                return Err(Error::caller(Errno::E2BIG));
            }
            let flight = Flight {
                conn: self,
                id,
                class,
                only: None,
                lent: None,
                data: &mut data,
            };
            let lost = match flight.run(request) {
                Ok((reply, life)) => return Ok((reply, life)),
                Err(Unfit::Failed(error)) => return Err(error),
                Err(Unfit::Table) => return Err(Error::caller(Errno::E2BIG)),
                Err(Unfit::Missing(missing)) if finds < MAX_FINDS => {
                    finds += 1;
                    self.find_again(missing)?;
                    continue;
                }
                Err(Unfit::Missing(_)) => Repeat::Refused,
                // Never sent: whether it may be now is decided where it waits.
                Err(Unfit::Past) => continue,
                Err(Unfit::Lost(repeat)) => {
                    resends += 1;
                    repeat
                }
            };
            let lives = self.state() == State::Ready || self.state().is_interlude();
            let policy = self.config.restart.unwrap_or_default();
            // After an end that was not to be, the next turn says why there is no
            // session; otherwise the end itself is the answer.
            let goes_on = lives || self.config.restart.is_some();
            if !goes_on
                || class == Class::Session
                || lost == Repeat::Refused
                || resends > policy.resends
            {
                if goes_on && class != Class::Session {
                    self.counters.requests_lost.add(1);
                    log::warn!("virtio-fs: {request}: lost with its session");
                }
                return Err(Error::new(Errno::EIO, Origin::Device));
            }
            self.counters.requests_resent.add(1);
        }
    }

    /// Returns whether a request carries more than the server of this life takes:
    /// it may have been measured by the limits of another.
    fn is_too_long<R: Request>(&self, request: &R) -> bool {
        let limits = self.limits.read();
        match R::OPCODE {
            Opcode::Write => request.data_out() > limits.max_write as usize,
            Opcode::Read => request.data_in() > limits.max_read as usize,
            _ => false,
        }
    }

    /// Writes header and arguments into the slot's page, with the names that
    /// nodes and handles have in this life, or `only` in that one.
    pub(super) fn encode<R: Request>(
        &self,
        slot: &Slot<P>,
        request: &R,
        class: Class,
        only: Option<Life>,
    ) -> Result<Notes, Unfit> {
        let life = self.names.life();
        // In this order: a session that stands is that of the life just read.
        let between = only.is_none() && class != Class::Session && self.state().is_interlude();
        if between || only.is_some_and(|only| only != life) {
            return Err(Unfit::Past);
        }
        let unique = request.unique().unwrap_or_else(|| self.unique());
        let limits = self.limits();
        let credentials = if class.is_forced() {
            Credentials::DRIVER
        } else {
            let caller = self.platform.caller();
            Credentials {
                uid: caller.uid,
                gid: caller.gid,
                pid: caller.pid,
            }
        };
        log::trace!("virtio-fs: > {} {request}", unique.get());
        let mut args = slot.args.lock();
        let args = &mut *args;
        args.long = None;
        args.owned = None;
        let page = &mut args.page.bytes_mut()[..REPLY_OFFSET];
        let encoded = match wire::encode(request, unique, credentials, limits.dialect, page) {
            Ok(encoded) => encoded,
            Err(too_long) => {
                self.counters.long_requests.add(1);
                let no_memory = |_| Error::new(Errno::ENOMEM, Origin::Platform);
                let long = args
                    .long
                    .insert(DmaRegion::new(too_long.needed).map_err(no_memory)?);
                wire::encode(
                    request,
                    unique,
                    credentials,
                    limits.dialect,
                    long.bytes_mut(),
                )
                .map_err(|_| Error::caller(Errno::E2BIG))?
            }
        };
        args.len = encoded.args;
        let mut notes = Notes {
            redo: Redo::No,
            change: None,
        };
        if self.config.restart.is_some() || life != Life::default() {
            let bytes = match &mut args.long {
                Some(long) => long.bytes_mut(),
                None => args.page.bytes_mut(),
            };
            let bytes = &mut bytes[..encoded.args];
            if let Some(node) = request.node() {
                notes.redo = redo(R::OPCODE, node, bytes);
                notes.change = span(R::OPCODE, node, bytes).map(|span| {
                    let mark = self.changes.note(span);
                    (span, mark)
                });
            }
            if life != Life::default() {
                self.rename(life, R::OPCODE, bytes)?;
            }
        }
        slot.life.store(life.0, Relaxed);
        args.page.bytes_mut()[REPLY_OFFSET..REPLY_OFFSET + REPLY_HEADER].fill(0);
        slot.unique.store(unique.get(), Relaxed);
        slot.opcode.store(R::OPCODE.to_wire(), Relaxed);
        slot.node
            .store(request.node().map_or(0, wire::NodeId::get), Relaxed);
        self.counters.request(R::OPCODE.to_wire());
        Ok(notes)
    }

    /// Gives an armed slot to the device.
    pub(super) fn submit_slot(&self, id: SlotId, slot: &Slot<P>) {
        let index = self.place();
        slot.queue.store(index as u16, Relaxed);
        if !self.queues[index].submit(id, &self.env())
            && slot.lose(&self.platform) == SlotState::Returned
        {
            self.pool.give_back(&self.platform, id);
        }
        // The device may have been reset since the connection was checked, by
        // somebody who did not see this request. While it is not, the request is
        // the device's. Pairs with the fence in `stop_device`: either that sees
        // the slot in flight, or this sees the device stopped.
        fence(SeqCst);
        if self.stopped.load(Relaxed)
            && slot.is_with_device()
            && slot.lose(&self.platform) == SlotState::Returned
        {
            self.pool.give_back(&self.platform, id);
        }
    }

    /// Chooses a queue: that of the CPU, whose caches know it and whose interrupts
    /// come back here; when it is full, the one with the fewest requests, so that
    /// none is idle while requests wait in another.
    fn place(&self) -> usize {
        let n = self.queues.len();
        let own = if n == 1 { 0 } else { self.platform.cpu() % n };
        let queue = &self.queues[own];
        if n == 1 || queue.load() < queue.size() {
            return own;
        }
        (0..n).min_by_key(|&n| self.queues[n].load()).unwrap_or(own)
    }
}

/// A slot on its way through one call. Whatever happens, the caller's buffers
/// are taken back before it ends.
struct Flight<'f, 'a, 'b, P: Platform> {
    conn: &'f Connection<P>,
    id: SlotId,
    class: Class,
    /// The only life that the request may be sent in. Its reply then keeps the
    /// server's own ids.
    only: Option<Life>,
    lent: Option<Lent>,
    data: &'f mut Data<'a, 'b>,
}

impl<P: Platform> Flight<'_, '_, '_, P> {
    #[expect(unsafe_code, reason = "lends the caller's buffers to the device")]
    fn run<R: Request>(mut self, request: &R) -> Result<(R::Reply, Life), Unfit> {
        let conn = self.conn;
        let slot = conn.pool.slot(self.id);
        let notes = conn.encode(slot, request, self.class, self.only)?;
        let (data_out, data_in) = (request.data_out(), request.data_in());
        let limit = conn.queues[0].max_segments(slot.table.capacity());
        {
            let args = slot.args.lock();
            let mut builder = TableBuilder::new(&slot.table, limit);
            let full = |_| Unfit::Table;
            push_args::<P>(&args, &mut builder).map_err(full)?;
            if data_out > 0 {
                // SAFETY: `self` borrows the buffers and takes them back in its
                // `drop`, after the device has returned the request.
                let lent = unsafe { lend(self.data, data_out, P::SHARE_GRANULE, &mut builder) };
                self.lent = Some(lent.map_err(|_| Unfit::Table)?);
            }
            push_reply::<P>(&args, R::REPLY, &mut builder).map_err(full)?;
            if data_in > 0 {
                // SAFETY: as above.
                let lent = unsafe { lend(self.data, data_in, P::SHARE_GRANULE, &mut builder) };
                self.lent = Some(lent.map_err(|_| Unfit::Table)?);
            }
            slot.segments.store(builder.finish(), Relaxed);
        }
        slot.arm(
            cleanup_of(R::OPCODE),
            Some(Waiter::Thread(conn.platform.current_thread())),
        );
        conn.submit_slot(self.id, slot);
        let cut_short = match conn.wait(self.id, R::OPCODE, self.lent.is_some()) {
            WaitEnd::Back(why) => why,
            WaitEnd::GivenUp(error) => {
                // The slot is an orphan now: it comes back by itself.
                core::mem::forget(self);
                return Err(Unfit::Failed(error));
            }
        };
        let capacity = R::REPLY.fixed_area() + data_in;
        self.take_back();
        if slot.is_lost() {
            return Err(match cut_short {
                Some(why) if why.errno() == Errno::EINTR => Unfit::Failed(why),
                _ => Unfit::Lost(conn.repeat(slot, &notes)),
            });
        }
        conn.counters.replies.add(1);
        conn.counters.bytes_sent.add(data_out as u64);
        if let Some((span, _)) = notes.change {
            conn.changes.note(span);
        }
        if conn.is_past::<R>(slot) {
            return Err(Unfit::Lost(Repeat::Allowed));
        }
        if self.only.is_none() && self.class != Class::Session {
            conn.note_progress();
        }
        let names = match self.only {
            Some(_) => ReplyIds::Servers,
            None => ReplyIds::Ours,
        };
        let life = Life(slot.life.load(Relaxed));
        let reply = conn.read_reply::<R>(slot, capacity, names);
        reply
            .map(|reply| (reply, life))
            .map_err(|error| match cut_short {
                // The server's answer to our INTERRUPT. Only a caller who was
                // signalled may be told of a signal.
                Some(why) if error.errno() == Errno::EINTR => Unfit::Failed(why),
                _ => Unfit::Failed(error),
            })
    }

    #[expect(
        unsafe_code,
        reason = "takes the caller's buffers back from the device"
    )]
    fn take_back(&mut self) {
        if let Some(lent) = self.lent.take() {
            let slot = self.conn.pool.slot(self.id);
            debug_assert!(
                !slot.is_with_device(),
                "buffers taken back from under the device"
            );
            // SAFETY: `lent` was made for this data and this slot's table, and
            // the device has returned the request, was reset, or never got it.
            unsafe { reclaim(self.data, lent, &slot.table) };
        }
    }
}

impl<P: Platform> Drop for Flight<'_, '_, '_, P> {
    fn drop(&mut self) {
        let slot = self.conn.pool.slot(self.id);
        while slot.is_with_device() {
            // Only a panic of the platform's gets here. The buffers are about to
            // go away, so the device must be done with them.
            self.conn
                .lose_device("a caller left in the middle of a request");
            self.conn.end_attempt(slot);
        }
        self.take_back();
        self.conn.pool.put(&self.conn.platform, self.id);
    }
}

impl<P: Platform> Connection<P> {
    /// Checks and parses the reply in a slot.
    pub(super) fn read_reply<R: Request>(
        &self,
        slot: &Slot<P>,
        capacity: usize,
        ids: ReplyIds,
    ) -> Result<R::Reply> {
        if slot.is_lost() {
            return Err(Error::new(Errno::EIO, Origin::Device));
        }
        let mut area = [0u8; REPLY_SPACE];
        let fixed = R::REPLY.fixed_area().min(REPLY_SPACE);
        slot.args.lock().page.read(REPLY_OFFSET, &mut area[..fixed]);
        let (header, body) = area
            .split_first_chunk_mut::<REPLY_HEADER>()
            .expect("512 bytes hold a header");
        let header = &*header;
        let unique = slot.unique.load(Relaxed);
        let silence = if R::OPCODE == Opcode::Destroy {
            Silence::Accept
        } else {
            self.config.silence
        };
        let expected = Expected {
            unique: Unique::new(unique).unwrap_or(Unique::nth(0)),
            shape: R::REPLY,
            capacity,
            silence,
        };
        let dialect = self.limits.read().dialect;
        let reply = wire::check_reply(header, slot.written(), &expected).and_then(|len| {
            let body = &mut body[..FIXED_MAX];
            if ids == ReplyIds::Ours && self.names.life() != Life::default() {
                // Without memory to remember them the ids are not to be had.
                self.take_over(slot, R::OPCODE, &mut body[..len.min(FIXED_MAX)])
                    .map_err(|error| ReplyError::Server(error.errno()))?;
            }
            let payload = wire::Payload::split(R::REPLY, body, len)?;
            self.counters.bytes_received.add(payload.data as u64);
            Ok(R::decode(payload, &dialect)?)
        });
        match reply {
            Ok(reply) => {
                log::trace!("virtio-fs: < {unique}");
                Ok(reply)
            }
            Err(ReplyError::Server(errno)) => {
                log::trace!("virtio-fs: < {unique} {errno}");
                Err(Error::new(errno, Origin::Server))
            }
            Err(ReplyError::Malformed(why)) => {
                self.counters.malformed_replies.add(1);
                let node = slot.node.load(Relaxed);
                log::error!(
                    "virtio-fs: malformed reply to {} of node {node}: {why}",
                    R::OPCODE
                );
                Err(Error::new(why.errno(), Origin::Protocol))
            }
        }
    }
}

/// Which ids a reply is to carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyIds {
    /// Those by which the user of the connection knows things.
    Ours,
    /// Those that the server wrote.
    Servers,
}

pub(super) fn push_args<P: Platform>(
    args: &Args<P>,
    builder: &mut TableBuilder<'_, P::Hal>,
) -> Result<(), crate::device::TableFull> {
    let addr = args
        .long
        .as_ref()
        .map_or(args.page.paddr(0), |long| long.paddr(0));
    builder.push(Segment {
        addr,
        len: args.len as u32,
        access: Access::Read,
    })
}

pub(super) fn push_reply<P: Platform>(
    args: &Args<P>,
    shape: ReplyShape,
    builder: &mut TableBuilder<'_, P::Hal>,
) -> Result<(), crate::device::TableFull> {
    let len = shape.fixed_area();
    assert!(len <= REPLY_SPACE, "reply longer than its space");
    if len == 0 {
        return Ok(());
    }
    builder.push(Segment {
        addr: args.page.paddr(REPLY_OFFSET),
        len: len as u32,
        access: Access::Write,
    })
}

/// Says what a reply hands out that must be handed back if nobody takes it.
pub(super) const fn cleanup_of(opcode: Opcode) -> Cleanup {
    match opcode {
        Opcode::Lookup | Opcode::Mknod | Opcode::Mkdir | Opcode::Symlink | Opcode::Link => {
            Cleanup::Entry
        }
        Opcode::Open => Cleanup::Open,
        Opcode::Opendir => Cleanup::OpenDir,
        Opcode::Create | Opcode::Tmpfile => Cleanup::EntryOpen,
        Opcode::Release | Opcode::Releasedir => Cleanup::Closed,
        Opcode::Setlk | Opcode::Setlkw => Cleanup::Lock,
        _ => Cleanup::None,
    }
}
