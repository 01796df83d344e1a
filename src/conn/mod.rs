//! The connection: requests and replies between this kernel and one server.
//!
//! It owns the device and its queues, sends INIT, carries requests through the
//! in-flight table, and ends: by unmount, abort, or loss of the device.
//! It knows no names and no paths.
//!
//! # The fate of a request
//!
//! | fate | what the caller gets | who has the memory |
//! |---|---|---|
//! | never sent | ENOTCONN, ECONNREFUSED, ECONNABORTED, EINTR, ETIMEDOUT | the caller |
//! | replied | the reply, or the server's error | the caller |
//! | given up (killed, deadline) | EINTR, ETIMEDOUT | the connection, until the device returns it |
//! | lost in a reset | EIO | the caller |
//!
//! With [`Config::restart`] a session that is lost is made anew: see
//! [`Connection::restart`]. Requests that were never sent then wait for it, those
//! lost in the reset are sent again where nothing is done twice by that (the table
//! is in `redo.rs`), and only the others get EIO.
//!
//! # What a caller gets, by state
//!
//! | [`State`] | a new request | one in flight |
//! |---|---|---|
//! | `Starting` | ENOTCONN: only INIT is sent | |
//! | `Ready` | is sent | its reply |
//! | `Refused` | ECONNREFUSED | |
//! | `Restarting` | waits: ETIMEDOUT after the deadline for metadata, EINTR if signalled | is sent again, or EIO |
//! | `Frozen` | waits as well | was waited for |
//! | `Aborted` | ECONNABORTED | EIO |
//! | `Lost`, `Closed` | ENOTCONN | EIO |
//!
//! A request that carries the caller's own buffers cannot be given up while the
//! device has them; when such a caller is killed, or its deadline passes, the
//! device is reset.
//!
//! # Locks
//!
//! In this order, none held while another thread is waited for:
//! a slot's arguments, the ring of a queue, the line for slots, a slot's waiter,
//! the list of forgets. Interrupt handlers only ever try them.

mod call;
mod config;
mod counters;
mod forget;
mod init;
mod limits;
mod lock;
mod names;
mod notify;
mod open;
mod pages;
mod pool;
mod queue;
mod recovery;
mod redo;
mod restart;
mod slot;
mod state;
mod ticket;
mod wait;
mod window;
mod worker;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU64, fence};
use core::time::Duration;

pub use config::{Attach, Config, DataCache, DaxMode, Deadlines, Offer, Restart};
pub use counters::{Counter, Counters};
pub use init::{FEATURES, Stance};
pub use limits::Limits;
pub use names::Life;
pub use notify::Subscriber;
pub use open::OpenError;
pub(crate) use pages::{NOT_DONE, PageOwner, Piece, Turn};
pub use pool::Class;
pub(crate) use pool::SlotId;
pub(crate) use restart::Keeper;
pub use state::State;
pub use ticket::{Buffer, Ticket};

use crate::device::{Transport, config::FsConfig, transport::DeviceStatus, window::Window};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::sync::{SpinLock, SpinRwLock, WaitQueue};
use forget::Forgets;
use names::Names;
use notify::Notices;
use pool::Pool;
use queue::{Env, Queue};
use recovery::Recovery;
use redo::Changes;
use state::StateCell;

/// A session with a server, over one virtio-fs device.
///
/// Shared by every mount and inode that belongs to it.
pub struct Connection<P: Platform> {
    platform: Arc<P>,
    transport: Arc<P::Transport>,
    config: Config,
    device: FsConfig,
    /// The DAX window, where it is to be used.
    window: Option<Window>,
    state: StateCell,
    /// The device was reset for good: it has no request any more.
    stopped: AtomicBool,
    /// The device did not finish its reset: it may still write.
    stuck: AtomicBool,
    limits: SpinRwLock<Limits>,
    counters: Counters,
    pool: Pool<P>,
    queues: Box<[Queue<P>]>,
    forgets: Forgets<P>,
    notices: Option<Notices<P>>,
    /// Locks that are asked for, by the id of the request.
    locks: SpinLock<Vec<lock::Asked>>,
    /// Handles that could not be released at once.
    releases: SpinLock<Vec<worker::PendingRelease>>,
    next_unique: AtomicU64,
    /// What the server calls nodes and handles today.
    names: Names,
    /// The latest changes of file data.
    changes: Changes,
    recovery: SpinLock<Recovery>,
    /// A thread makes the session anew, and is the only one to touch the device.
    recovering: AtomicBool,
    /// A caller's request was answered since the last restart.
    progressed: AtomicBool,
    /// Who waits for a session.
    gate: WaitQueue<P>,
    /// Who knows what the session's ids stand for.
    keeper: SpinLock<Option<Arc<dyn Keeper>>>,
}

impl<P: Platform> Connection<P> {
    /// Returns the kernel that the connection runs in.
    pub fn platform(&self) -> &P {
        &self.platform
    }

    /// Returns the settings it was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the device's tag and queues.
    pub fn device(&self) -> &FsConfig {
        &self.device
    }

    /// Returns the device's registers.
    pub fn transport(&self) -> &P::Transport {
        &self.transport
    }

    /// Returns the DAX window, where there is one to be used.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// Returns which files are used through the window: none where there is
    /// none.
    pub fn dax_mode(&self) -> DaxMode {
        match self.window {
            Some(_) => self.config.dax,
            None => DaxMode::Never,
        }
    }

    /// Returns what INIT settled.
    pub fn limits(&self) -> Limits {
        *self.limits.read()
    }

    /// Returns the counts so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns where the connection stands.
    pub fn state(&self) -> State {
        self.state.get()
    }

    /// Returns how many requests are with the device or being prepared, and how
    /// many callers wait to send one (S0-11).
    pub fn load(&self) -> (usize, usize) {
        self.pool.load(&self.platform)
    }

    /// Returns the number of request queues in use.
    pub fn request_queues(&self) -> usize {
        self.queues.len()
    }

    /// Returns the size of the first request queue in entries.
    pub fn queue_size(&self) -> u16 {
        self.queues[0].size()
    }

    /// Serves an interrupt. Any context; does not block.
    ///
    /// `vector` is the number that [`Config::vectors`] gave a meaning, or
    /// `None` for the interrupt line, which is acknowledged here. Returns whether
    /// the device had asked for attention: where a line is shared, false says
    /// that somebody else did.
    pub fn interrupt(&self, vector: Option<u16>) -> bool {
        let (queues, config) = match vector {
            None => {
                use crate::device::transport::InterruptStatus as S;
                let status = self.transport.take_interrupt();
                if status.is_empty() {
                    return false;
                }
                (true, status.contains(S::DEVICE_CONFIGURATION_INTERRUPT))
            }
            Some(vector) => (vector != 0 || self.config.vectors == 1, vector == 0),
        };
        self.counters.interrupts.add(1);
        if queues {
            for queue in &self.queues {
                let theirs = open::vector_of(queue.index(), self.config.vectors);
                if vector.is_none() || vector == theirs {
                    queue.reap(&self.env());
                }
            }
            self.forgets.reap();
            if let Some(notices) = &self.notices {
                notices.reap();
            }
        }
        if config && self.device_failed() {
            // Whoever waits finds out, in thread context, and resets the device.
            for (_, slot) in self.pool.iter().filter(|(_, slot)| slot.is_with_device()) {
                slot.wake(&self.platform);
            }
        }
        true
    }

    /// Cuts the connection off: requests with the device are lost, new ones get
    /// ECONNABORTED. For an administrator, or a kernel that shuts down while a
    /// server hangs. Blocks for the time of a device reset.
    pub fn abort(&self) {
        // A session may come to stand, or be lost, between the two.
        while matches!(self.state(), State::Ready | State::Starting) || self.state().is_interlude()
        {
            if self.state.change(State::Ready, State::Aborted)
                || self.state.change(State::Starting, State::Aborted)
            {
                self.stop_device();
            } else if self.end_interlude(State::Aborted) {
                return;
            }
        }
    }

    /// Returns whether the device says, or shows, that it does not work any more.
    fn device_failed(&self) -> bool {
        let status = self.transport.status();
        status.contains(DeviceStatus::DEVICE_NEEDS_RESET)
            || is_gone(status)
            || self.queues.iter().any(Queue::failed)
            || self.forgets.failed()
            || self.notices.as_ref().is_some_and(Notices::failed)
    }

    /// Ends the session because its device failed, and the connection with it if
    /// it is not to be restarted. Blocks for a reset.
    fn lose_device(&self, why: &str) {
        if self.config.restart.is_some() && self.state.change(State::Ready, State::Restarting) {
            log::warn!("virtio-fs: {}: session lost: {why}", self.device.tag);
            self.begin_restart();
            return;
        }
        if self.state.change(State::Ready, State::Lost)
            || self.state.change(State::Starting, State::Lost)
        {
            log::error!(
                "virtio-fs: lost the device with tag {}: {why}",
                self.device.tag
            );
            self.stop_device();
        }
    }

    /// Resets the device and takes back everything it had. Afterwards no memory
    /// is the device's, so every waiter may go.
    fn stop_device(&self) {
        self.leave_window();
        self.reset_device();
        self.stopped.store(true, Relaxed);
        self.take_back();
    }

    fn reset_device(&self) {
        self.counters.resets.add(1);
        if let Err(error) = open::reset(&*self.transport, &*self.platform, self.config.grace) {
            log::error!("virtio-fs: {error}; its memory is not used again");
            self.stuck.store(true, Relaxed);
        }
    }

    /// Takes back what the device had before it was reset.
    fn take_back(&self) {
        // Pairs with the fence in `submit`.
        fence(SeqCst);
        for queue in &self.queues {
            queue.reset();
        }
        self.forgets.reset();
        if let Some(notices) = &self.notices {
            notices.reset();
        }
        for (id, slot) in self.pool.iter() {
            if slot.is_with_device() && slot.lose(&self.platform) == slot::SlotState::Returned {
                self.pool.give_back(&self.platform, id);
            }
        }
        while let Some(id) = self.pool.next_to_clean(&self.platform) {
            self.clean_up(id);
        }
        self.pool.wake_all(&self.platform);
        self.gate.wake_all(&self.platform);
    }

    /// Returns whether a waiter may sleep because an interrupt will wake it.
    fn has_interrupts(&self) -> bool {
        self.platform.can_sleep() && (self.config.vectors > 0 || self.config.interrupt_line)
    }

    fn env(&self) -> Env<'_, P> {
        Env {
            platform: &self.platform,
            transport: &self.transport,
            pool: &self.pool,
            counters: &self.counters,
        }
    }

    /// Returns what a new request would get.
    fn check_state(&self) -> Result<()> {
        self.state.get().refusal().map_or(Ok(()), Err::<(), Error>)
    }

    fn now(&self) -> Duration {
        self.platform.now()
    }

    fn unique(&self) -> crate::wire::Unique {
        crate::wire::Unique::nth(self.next_unique.fetch_add(1, Relaxed))
    }
}

/// Returns whether a status is all ones: nothing answers at that address any
/// more.
fn is_gone(status: DeviceStatus) -> bool {
    status.bits() & 0xff == 0xff
}

impl<P: Platform> Drop for Connection<P> {
    fn drop(&mut self) {
        // The device must not write into memory that goes away now. Orderly ends
        // have reset it already; a reset is no request, and bounded.
        if !*self.stopped.get_mut() {
            self.stop_device();
        }
        if *self.stuck.get_mut() {
            // What the device may still write to is never given back.
            self.pool.leak();
            self.forgets.leak();
            core::mem::forget(self.notices.take());
            core::mem::forget(core::mem::take(&mut self.queues));
        }
    }
}
