//! Making a session anew: after its server died, its device broke, fell silent
//! or was reset, or because the kernel asks for it (S3-04, S3-05).
//!
//! Whoever finds the session lost resets the device; from then on no memory is
//! the device's, and every request in flight has its fate: it goes back to its
//! caller, who sends it again where that is [safe](super::redo), or gets EIO. New
//! requests wait at a gate. The first thread that comes to the gate, or
//! [`work`](Connection::work), makes the session anew: device, queues, INIT, and
//! then what its user has open (see [`Keeper`]). What is not open is found again
//! when it is used next. Attempts are bounded by [`Restart`](super::Restart); when they are used
//! up the connection is lost as without it.
//!
//! # Who may touch the device
//!
//! The thread that changed the state away from Ready, until it has handed over to
//! [`Recovery`](super::recovery); then the thread that has the turn.
//!
//! # Order
//!
//! A life of the connection ends in this order: state Restarting (nobody new
//! comes), window closed and pages out of page tables, next life in the names
//! (nothing is encoded for the old one), rings retired (nothing encoded for it is
//! added), device reset, rings emptied, requests given back.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::time::Duration;

use super::call::{Notes, Repeat};
use super::names::{Life, Nameless};
use super::open::{
    HIPRIO, MIN_QUEUE_SIZE, NOTIFICATION, OpenError, WINDOW, hiprio_size, negotiate_features,
    queue_size, vector_of,
};
use super::pool::Class;
use super::recovery::Turn;
use super::redo::Redo;
use super::slot::Slot;
use super::state::State;
use super::{Connection, init, notify};
use crate::device::Data;
use crate::device::config::FsConfig;
use crate::device::transport::{DeviceStatus, Transport};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Platform, Signal};
use crate::sync::park;
use crate::wire::{Destroy, FileHandle, HandedOut, Id, NodeId, Opcode, Request, ids};

/// Who uses a connection's ids, and can find again what they stand for.
pub(crate) trait Keeper: Send + Sync {
    /// The device is about to be reset: nothing of its window may be in a page
    /// table any more. Nobody copies.
    fn withdraw(&self);

    /// A session has ended with everything that the server knew of us.
    fn session_lost(&self);

    /// A session has begun: opens again what is open and takes locks again.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// If the session ended meanwhile, or leads to something else.
    fn restore(&self, life: Life) -> Result<(), OpenError>;

    /// Finds one thing again. Blocks.
    ///
    /// # Errors
    ///
    /// ESTALE if it is not there any more. EIO from [`Origin::Device`] if the
    /// session ended meanwhile.
    fn find(&self, life: Life, id: Id) -> Result<()>;

    /// The gate is open again.
    fn restored(&self);
}

/// How long to wait for whoever makes the session anew before looking again.
const LOOK: Duration = Duration::from_millis(100);

impl<P: Platform> Connection<P> {
    /// Ends the session and makes it anew: for a kernel that knows better than the
    /// driver that the server is gone or has hung. Requests in flight have the time
    /// of grace to come back. Blocks until the new session stands.
    ///
    /// # Errors
    ///
    /// ENOTCONN if the connection has ended or ends thereby; ETIMEDOUT and EINTR
    /// as at any wait for a session.
    pub fn restart(&self) -> Result<()> {
        if self.state.change(State::Ready, State::Restarting) {
            self.drain(self.config.grace);
            self.begin_restart();
        }
        self.pass_gate(Class::Normal)
    }

    /// Puts the connection to rest: waits for requests in flight, hands back what
    /// is to be forgotten, tells the server that the session ends, resets the
    /// device. Callers wait until [`thaw`](Self::thaw). Blocks, but not for longer
    /// than the deadline for data allows; what has not come back by then is lost
    /// as in a restart.
    ///
    /// # Errors
    ///
    /// ENOTCONN if there is no session.
    pub fn freeze(&self) -> Result<()> {
        self.tidy();
        self.forgets.flush(self);
        if !self.state.change(State::Ready, State::Frozen) {
            return Err(Error::new(Errno::ENOTCONN, Origin::Connection));
        }
        let patience = self.config.deadlines.data.unwrap_or(LOOK * 600);
        self.drain(patience.saturating_add(self.config.grace));
        self.empty_window();
        if self.load().0 == 0 && !self.device_failed() {
            match self.call(&Destroy, Data::None, Class::Session) {
                Ok(()) => drop(self.window.as_ref().map(|window| window.take_used())),
                Err(error) => log::warn!("virtio-fs: {}: DESTROY: {error}", self.device.tag),
            }
        }
        self.end_session();
        Ok(())
    }

    /// Ends [`freeze`](Self::freeze): makes the session anew, with the same server
    /// process or another one. Blocks until it stands.
    ///
    /// # Errors
    ///
    /// ENOTCONN if it does not come to stand; ETIMEDOUT and EINTR as at any wait
    /// for a session.
    pub fn thaw(&self) -> Result<()> {
        if self.state.change(State::Frozen, State::Restarting) {
            self.recovery.lock().lost(self.now());
        }
        self.pass_gate(Class::Normal)
    }

    /// Returns in which of its lives the connection is: how often a session ended.
    pub fn life(&self) -> Life {
        self.names.life()
    }

    /// Has `keeper` find again what the session's ids stand for.
    pub(crate) fn keep(&self, keeper: Arc<dyn Keeper>) {
        drop(self.keeper.lock().replace(keeper));
    }

    fn keeper(&self) -> Option<Arc<dyn Keeper>> {
        self.keeper.lock().clone()
    }

    /// Waits until no request is in flight, at most for `patience`.
    fn drain(&self, patience: Duration) {
        let end = self.now() + patience;
        let busy = || self.load().0 > 0 || self.forgets.in_flight() > 0;
        while busy() && self.now() < end && !self.device_failed() {
            self.poll();
            if busy() {
                park(&*self.platform, Some(self.now() + Duration::from_millis(1)));
            }
        }
    }

    /// Ends the session for a restart; to be called by who changed the state.
    pub(super) fn begin_restart(&self) {
        self.end_session();
        let mut recovery = self.recovery.lock();
        if self.progressed.swap(false, Relaxed) {
            recovery.progress();
        }
        recovery.lost(self.now());
        drop(recovery);
        self.gate.wake_all(&self.platform);
        self.pool.wake_all(&self.platform);
    }

    /// Ends a life; see the order at the top.
    fn end_session(&self) {
        self.leave_window();
        let next = self.names.next_life();
        for queue in &self.queues {
            queue.retire(next.0);
        }
        self.forgets.retire(next);
        self.reset_device();
        self.take_back();
        let releases = core::mem::take(&mut *self.releases.lock());
        drop(releases);
        if let Some(keeper) = self.keeper() {
            keeper.session_lost();
        }
    }

    /// Has pages of the window taken out of page tables.
    pub(super) fn withdraw_pages(&self) {
        if let Some(keeper) = self.keeper() {
            keeper.withdraw();
        }
    }

    /// Ends the session that is being made, because a request of it will not be
    /// answered. In a restart only the thread that makes the session has requests
    /// in flight, so `slot` is its own if it is not back.
    pub(super) fn end_attempt(&self, slot: &Slot<P>) {
        let ours = self.recovering.load(Acquire) && self.state() != State::Ready;
        if ours && !slot.is_back() && slot.is_with_device() {
            self.end_session();
        }
    }

    /// Notes that a caller's request was answered.
    pub(super) fn note_progress(&self) {
        if !self.progressed.load(Relaxed) {
            self.progressed.store(true, Relaxed);
        }
    }

    /// Waits until there is a session. Blocks for as long as the deadline for
    /// metadata allows; whoever waits may be the one who makes it.
    pub(super) fn pass_gate(&self, class: Class) -> Result<()> {
        if !self.state().is_interlude() {
            return self.check_state();
        }
        let give_up = self
            .config
            .deadlines
            .metadata
            .map(|limit| self.now() + limit);
        loop {
            let state = self.state();
            if !state.is_interlude() {
                return self.check_state();
            }
            let now = self.now();
            let wake = match state {
                State::Restarting => self.recover().unwrap_or(now),
                _ => now + LOOK,
            };
            if self.state() != state {
                continue;
            }
            match self.platform.signal() {
                Signal::Kill => return Err(Error::new(Errno::EINTR, Origin::Platform)),
                Signal::Interrupt if !class.is_forced() => {
                    return Err(Error::new(Errno::EINTR, Origin::Platform));
                }
                Signal::Interrupt | Signal::None => {}
            }
            let now = self.now();
            if give_up.is_some_and(|give_up| now >= give_up) {
                return Err(Error::new(Errno::ETIMEDOUT, Origin::Connection));
            }
            let wake = wake.clamp(now, now + LOOK);
            let wake = give_up.map_or(wake, |give_up| give_up.min(wake));
            // Either the session stands, or the time for a look has come.
            self.gate.wait(&self.platform, Some(wake), || {
                (self.state() != state).then_some(())
            });
        }
    }

    /// Makes the session anew if that is due and nobody else does. Blocks then.
    /// Returns when to come again at the latest, `None` if the connection has
    /// ended.
    pub(super) fn recover(&self) -> Option<Duration> {
        let policy = self.config.restart.unwrap_or_default();
        let now = self.now();
        let turn = self.recovery.lock().turn(now, &policy);
        match turn {
            Turn::Go => self.attempt(),
            Turn::Wait(until) => return Some(until),
            Turn::Busy => return Some(now + LOOK),
            Turn::None if self.recovery.lock().is_over() => {
                log::error!("virtio-fs: {}: restarts given up", self.device.tag);
                self.end_interlude(State::Lost);
                return None;
            }
            Turn::None => return Some(now + LOOK),
        }
        Some(self.now())
    }

    fn attempt(&self) {
        self.recovering.store(true, Release);
        let life = self.names.life();
        let result = self.revive(life);
        let now = self.now();
        let tag = self.device.tag;
        let up = match result {
            Ok(()) => self.state.change(State::Restarting, State::Ready),
            Err(error) => {
                let mut recovery = self.recovery.lock();
                if self.platform.signal() == Signal::Kill {
                    recovery.left(now);
                } else if error.is_final() {
                    recovery.give_up();
                } else {
                    recovery.failed(now);
                }
                drop(recovery);
                log::warn!("virtio-fs: {tag}: session not made anew: {error}");
                false
            }
        };
        if up {
            self.counters.restarts.add(1);
            log::info!("virtio-fs: {tag}: session made anew");
            self.recovering.store(false, Release);
            self.recovery.lock().succeeded();
            self.gate.wake_all(&self.platform);
            if let Some(keeper) = self.keeper() {
                keeper.restored();
            }
            return;
        }
        if self.state() == State::Restarting {
            self.end_session();
            self.recovering.store(false, Release);
        } else {
            // Aborted or unmounted meanwhile, by somebody who left this to us.
            self.stop_device();
            self.recovering.store(false, Release);
        }
        self.gate.wake_all(&self.platform);
    }

    /// Device, queues, INIT, and what is open.
    fn revive(&self, life: Life) -> Result<(), OpenError> {
        if self.stuck.load(Relaxed) {
            return Err(OpenError::ResetStuck);
        }
        self.bring_up()?;
        let before = self.limits();
        let limits = init::renegotiate(self, &before)?;
        *self.limits.write() = limits;
        self.pool
            .set_max_background(&self.platform, limits.max_background);
        if let Some(keeper) = self.keeper() {
            keeper.restore(life)?;
        }
        if let Some(window) = &self.window
            && self.has_same_window()
        {
            window.open();
        }
        if self.names.life() == life && self.state() == State::Restarting {
            Ok(())
        } else {
            Err(OpenError::CutShort)
        }
    }

    /// Returns whether the device has the window that was mapped.
    pub(crate) fn has_same_window(&self) -> bool {
        let Some(window) = &self.window else {
            return false;
        };
        self.transport
            .shared_memory(WINDOW)
            .is_some_and(|region| region.addr == window.phys(0) && region.len >= window.len())
    }

    /// As at [`open`](Self::open), with the memory that is there already.
    fn bring_up(&self) -> Result<(), OpenError> {
        let transport = &*self.transport;
        super::open::reset(transport, &*self.platform, self.config.grace)?;
        if super::is_gone(transport.status()) {
            return Err(OpenError::Gone);
        }
        transport.set_status(DeviceStatus::ACKNOWLEDGE);
        transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
        let device = FsConfig::read(transport)?;
        let optional = match &self.notices {
            Some(_) => NOTIFICATION,
            None => 0,
        };
        let (features, found) = negotiate_features(transport, optional)?;
        if device.tag != self.device.tag || found != optional {
            return Err(OpenError::Another);
        }
        for queue in &self.queues {
            let max = transport.max_queue_size(queue.index());
            if max < MIN_QUEUE_SIZE {
                return Err(OpenError::Queue(queue.index()));
            }
            queue.refit(queue_size(max, &self.config), features)?;
        }
        let max = transport.max_queue_size(HIPRIO);
        if max < MIN_QUEUE_SIZE {
            return Err(OpenError::Queue(HIPRIO));
        }
        // There are messages for the size that it had at first.
        let size = hiprio_size(max).min(self.forgets.size());
        self.forgets.refit(size, features)?;
        let vectors = self.config.vectors;
        if vectors > 0 {
            transport.set_config_vector(Some(0))?;
        }
        transport.set_queue(HIPRIO, &self.forgets.layout(vector_of(HIPRIO, vectors)))?;
        if let Some(notices) = &self.notices {
            let max = transport.max_queue_size(notify::INDEX);
            if max == 0 {
                return Err(OpenError::Queue(notify::INDEX));
            }
            notices.refit(max, features)?;
            let vector = vector_of(notify::INDEX, vectors);
            transport.set_queue(notify::INDEX, &notices.layout(vector))?;
        }
        for queue in &self.queues {
            let vector = vector_of(queue.index(), vectors);
            let layout = queue.with_ring(|ring| ring.layout(vector));
            transport.set_queue(queue.index(), &layout)?;
        }
        transport.set_status(
            DeviceStatus::ACKNOWLEDGE
                | DeviceStatus::DRIVER
                | DeviceStatus::FEATURES_OK
                | DeviceStatus::DRIVER_OK,
        );
        let wants_interrupts = self.has_interrupts();
        for queue in &self.queues {
            queue.set_interrupts(wants_interrupts, &self.env());
        }
        if let Some(notices) = &self.notices {
            notices.start(transport, wants_interrupts);
        }
        Ok(())
    }

    /// Ends a connection that has no session, for good. Blocks until whoever makes
    /// one has let go of the device. Returns false if it was not so.
    pub(super) fn end_interlude(&self, to: State) -> bool {
        let ended =
            self.state.change(State::Restarting, to) || self.state.change(State::Frozen, to);
        if !ended {
            return false;
        }
        // Who makes the session resets the device when it finds the state changed.
        let running = !matches!(to, State::Lost) && !self.seize();
        if !running {
            self.stop_device();
            return true;
        }
        let end = self.now() + self.config.grace * 2;
        while self.recovering.load(Acquire) && self.now() < end {
            park(&*self.platform, Some(self.now() + Duration::from_millis(1)));
        }
        true
    }

    /// Keeps anybody from making the session anew. Returns false if somebody does.
    fn seize(&self) -> bool {
        let mut recovery = self.recovery.lock();
        recovery.seize()
    }

    /// Replaces the ids in an encoded request by the server's of this life.
    pub(super) fn rename(
        &self,
        life: Life,
        opcode: Opcode,
        request: &mut [u8],
    ) -> Result<(), super::call::Unfit> {
        use super::call::Unfit;
        let mut why = None;
        // What is barred for callers can be closed all the same.
        let closes = matches!(opcode, Opcode::Release | Opcode::Releasedir | Opcode::Flush);
        let renamed = crate::wire::replace_in_request(opcode, request, |id| {
            self.names
                .find(life, id, closes)
                .map_err(|nameless| why = Some(nameless))
                .ok()
        });
        match (renamed, why) {
            (Ok(()), _) => Ok(()),
            (Err(_), Some(Nameless::Past)) => Err(Unfit::Past),
            (Err(_), Some(Nameless::Gone(why))) => {
                Err(Unfit::Failed(Error::new(why, Origin::Connection)))
            }
            (Err(id), _) => Err(Unfit::Missing(id)),
        }
    }

    /// Replaces the ids that a reply hands out by those that its reader is to use.
    pub(super) fn take_over(&self, slot: &Slot<P>, opcode: Opcode, body: &mut [u8]) -> Result<()> {
        let handed = HandedOut::by(opcode);
        if handed.is_empty() {
            return Ok(());
        }
        let life = Life(slot.life.load(Relaxed));
        let mut node = NodeId::new(slot.node.load(Relaxed));
        if let Some(at) = handed.node {
            let server = ids::get(body, at).and_then(NodeId::new);
            node = server
                .map(|server| self.names.adopt(life, server))
                .transpose()?;
            ids::put(body, at, node.map_or(0, NodeId::get));
        }
        if let (Some(at), Some(node)) = (handed.handle, node)
            && let Some(fh) = ids::get(body, at)
        {
            let fh = self.names.adopt_handle(life, node, FileHandle(fh))?;
            ids::put(body, at, fh.0);
        }
        Ok(())
    }

    /// Returns by which id its reader knows a node that came with data of a reply,
    /// one lookup of which was just counted; `None` without memory to remember it.
    pub(crate) fn adopt_node(&self, life: Life, server: NodeId) -> Option<NodeId> {
        self.names.adopt(life, server).ok()
    }

    /// Returns by which id a node of the server's is known, if it is.
    pub(crate) fn known_as(&self, server: NodeId) -> Option<NodeId> {
        self.names.known_as(server)
    }

    /// Returns what the server calls a node, where it knows it.
    pub(crate) fn server_node(&self, node: NodeId) -> Option<NodeId> {
        let name = self
            .names
            .find(self.names.life(), Id::Node(node), false)
            .ok()?;
        NodeId::new(name)
    }

    /// Returns whether callers may use a handle in this life.
    pub(crate) fn has_handle(&self, node: NodeId, fh: FileHandle) -> bool {
        self.names.is_usable(node, fh)
    }

    /// Notes what a node is called in this life. Returns false if that is over.
    pub(crate) fn bind_node(&self, life: Life, node: NodeId, server: NodeId) -> Result<bool> {
        self.names.bind(life, node, server)
    }

    /// Notes what a handle is called in this life, or that it could not be opened
    /// again. Returns false if that life is over.
    pub(crate) fn bind_handle(
        &self,
        life: Life,
        node: NodeId,
        fh: FileHandle,
        server: Result<FileHandle, Errno>,
    ) -> Result<bool> {
        self.names.bind_handle(life, node, fh, server)
    }

    /// Lets nobody use a handle any more, but for closing it.
    pub(crate) fn bar_handle(&self, life: Life, node: NodeId, fh: FileHandle, why: Errno) {
        self.names.bar(life, node, fh, why);
    }

    /// Notes that a node that seemed new is one that was known before.
    pub(crate) fn merge_nodes(&self, life: Life, new: NodeId, old: NodeId) -> Result<bool> {
        self.names.merge(life, new, old)
    }

    /// Returns which node an id turned out to be.
    pub(crate) fn merged_node(&self, node: NodeId) -> NodeId {
        self.names.merged(node)
    }

    /// Waits until there is a session, if one is being made. Blocks.
    pub(crate) fn wait_for_session(&self) -> Result<()> {
        self.pass_gate(Class::Normal)
    }

    /// Notes that a node was not found again.
    pub(crate) fn lose_node(&self, life: Life, node: NodeId) {
        self.names.lose(life, node);
    }

    /// Has something found again. Blocks.
    pub(super) fn find_again(&self, missing: Id) -> Result<()> {
        let life = self.names.life();
        // In this order: a session that stands is that of the life just read.
        if self.state() != State::Ready {
            return Ok(());
        }
        let Some(keeper) = self.keeper() else {
            return Err(STALE);
        };
        match keeper.find(life, missing) {
            // Whoever asked waits for the next session.
            Err(error) if error.origin() == Origin::Device && self.names.life() != life => Ok(()),
            result => result,
        }
    }

    /// Says whether a request that was lost may be sent again.
    pub(super) fn repeat(&self, slot: &Slot<P>, notes: &Notes) -> Repeat {
        let again = !slot.was_sent()
            || match notes.redo {
                Redo::Yes => true,
                Redo::No => false,
                Redo::Unless(span) => notes
                    .mark()
                    .is_some_and(|mark| !self.changes.touched(mark, &span)),
            };
        if again {
            Repeat::Allowed
        } else {
            Repeat::Refused
        }
    }

    /// Returns whether a reply is from a session that is over, and hands out what
    /// is of no use then.
    pub(super) fn is_past<R: Request>(&self, slot: &Slot<P>) -> bool {
        let of_no_use = matches!(
            R::OPCODE,
            Opcode::Lookup | Opcode::Open | Opcode::Opendir | Opcode::Readdirplus
        );
        of_no_use && slot.life.load(Relaxed) != self.names.life().0
    }
}

/// What is said of what is not there any more.
pub(super) const STALE: Error = Error::new(Errno::ESTALE, Origin::Connection);
