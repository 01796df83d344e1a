//! A ring that can be stopped while its requests are in service.
//!
//! vhost-user-backend stops a ring at once: a request that is still in service
//! would then write into memory that the guest has taken back. Here stopping waits
//! until all requests in service are done, except those that wait for the front end
//! themselves: the front end waits for the ring, so these two would wait for each
//! other. Such a request finds out when it returns, and touches nothing any more.
//! vhost-user specification, "Ring states".

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs::File, io};

use log::warn;
use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{DescriptorChain, Error as QueueError, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

/// Guest memory as one request sees it.
pub type Memory = Arc<GuestMemoryMmap>;
type SharedMemory = GuestMemoryAtomic<GuestMemoryMmap>;

/// How long stopping a ring waits for its requests. One that takes longer hangs on
/// the host; the front end cannot be kept for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// A ring and the requests of it that are in service.
#[derive(Clone)]
pub struct Ring {
    vring: VringMutex,
    memory: SharedMemory,
    service: Arc<Service>,
}

#[derive(Default)]
struct Service {
    state: Mutex<Requests>,
    idle: Condvar,
}

/// Invariant: `present` is the number of tickets of this `epoch` that are neither
/// dropped nor away.
#[derive(Default)]
struct Requests {
    epoch: u64,
    present: usize,
}

/// A request in service. Until it is dropped or away its ring does not stop.
pub struct Ticket {
    service: Arc<Service>,
    epoch: u64,
    present: bool,
}

/// A request taken from a ring.
pub struct Request {
    ring: Ring,
    /// Where its buffers are.
    pub chain: DescriptorChain<Memory>,
    /// The memory that they are in.
    pub memory: Memory,
    /// Keeps the ring from stopping.
    pub ticket: Ticket,
}

/// The ring was stopped meanwhile: the request's memory is the guest's again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl Service {
    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(self: &Arc<Self>) -> Ticket {
        let mut state = self.lock();
        state.present += 1;
        Ticket {
            service: self.clone(),
            epoch: state.epoch,
            present: true,
        }
    }

    /// Waits until nobody is present, and tells those who are away not to return.
    fn stop(&self) {
        let state = self.lock();
        let (mut state, waited) = self
            .idle
            .wait_timeout_while(state, PATIENCE, |s| s.present > 0)
            .unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            warn!(
                "{} requests hang on the host while their ring is stopped",
                state.present
            );
        }
        state.epoch += 1;
        state.present = 0;
    }
}

impl Ticket {
    /// Runs `work`, which waits for the front end, without keeping the ring from
    /// stopping.
    ///
    /// # Errors
    /// The ring was stopped before `work` returned.
    pub fn away<T>(&mut self, work: impl FnOnce() -> T) -> Result<T, Stopped> {
        self.leave();
        let result = work();
        let mut state = self.service.lock();
        if state.epoch != self.epoch {
            return Err(Stopped);
        }
        state.present += 1;
        self.present = true;
        Ok(result)
    }

    fn leave(&mut self) {
        let mut state = self.service.lock();
        if self.present && state.epoch == self.epoch {
            state.present -= 1;
            if state.present == 0 {
                self.service.idle.notify_all();
            }
        }
        self.present = false;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Request {
    /// Gives the request back to the guest with `len` bytes written.
    pub fn complete(self, len: u32) {
        let mut vring = self.ring.vring.get_mut();
        if self.ticket.service.lock().epoch != self.ticket.epoch {
            return;
        }
        let head = self.chain.head_index();
        if let Err(e) = vring.add_used(head, len) {
            // Only a ring outside the guest's memory gets here.
            warn!("cannot give request {head} back: {e}");
        } else if vring.needs_notification().unwrap_or(true)
            && let Err(e) = vring.signal_used_queue()
        {
            warn!("cannot notify the guest: {e}");
        }
        drop(vring);
        drop(self.ticket);
    }
}

impl Ring {
    /// Takes the next request, if the ring runs and has one.
    pub fn take(&self) -> Option<Request> {
        let memory = self.memory.memory().into_inner();
        let mut vring = self.vring.get_mut();
        if !vring.is_enabled() || !vring.get_queue().ready() {
            return None;
        }
        let chain = vring.get_queue_mut().iter(memory.clone()).ok()?.next()?;
        let ticket = self.service.enter();
        Some(Request {
            ring: self.clone(),
            chain,
            memory,
            ticket,
        })
    }
}

impl<'a> VringStateGuard<'a, SharedMemory> for Ring {
    type G = MutexGuard<'a, VringState>;
}

impl<'a> VringStateMutGuard<'a, SharedMemory> for Ring {
    type G = MutexGuard<'a, VringState>;
}

impl VringT<SharedMemory> for Ring {
    fn new(memory: SharedMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        let vring = VringMutex::new(memory.clone(), max_queue_size)?;
        Ok(Self {
            vring,
            memory,
            service: Arc::default(),
        })
    }

    fn get_ref(&self) -> MutexGuard<'_, VringState> {
        self.vring.get_ref()
    }

    fn get_mut(&self) -> MutexGuard<'_, VringState> {
        self.vring.get_mut()
    }

    fn add_used(&self, head: u16, len: u32) -> Result<(), QueueError> {
        self.vring.add_used(head, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.vring.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.vring.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.vring.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.vring.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.vring.set_enabled(enabled);
        if !enabled {
            self.service.stop();
        }
    }

    fn set_queue_info(&self, descriptors: u64, avail: u64, used: u64) -> Result<(), QueueError> {
        self.vring.set_queue_info(descriptors, avail, used)
    }

    fn queue_next_avail(&self) -> u16 {
        self.vring.queue_next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.vring.set_queue_next_avail(base);
    }

    fn set_queue_next_used(&self, idx: u16) {
        self.vring.set_queue_next_used(idx);
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.vring.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.vring.set_queue_size(num);
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.vring.set_queue_event_idx(enabled);
    }

    fn set_queue_ready(&self, ready: bool) {
        if ready {
            return self.vring.set_queue_ready(true);
        }
        // No new request is taken, those in service still complete; then the queue
        // is reset, which `complete` would not survive.
        let was_enabled = self.vring.get_ref().is_enabled();
        self.vring.set_enabled(false);
        self.service.stop();
        self.vring.set_queue_ready(false);
        self.vring.set_enabled(was_enabled);
    }

    fn set_kick(&self, file: Option<File>) {
        self.vring.set_kick(file);
    }

    fn read_kick(&self) -> io::Result<bool> {
        match self.vring.read_kick() {
            // The ring was stopped between the event and now: an error here would
            // end the thread.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            other => other,
        }
    }

    fn set_call(&self, file: Option<File>) {
        self.vring.set_call(file);
    }

    fn set_err(&self, file: Option<File>) {
        self.vring.set_err(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::thread;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(5);

    fn stopping(service: &Arc<Service>) -> mpsc::Receiver<()> {
        let (done, stopped) = mpsc::channel();
        let service = service.clone();
        thread::spawn(move || {
            service.stop();
            let _ = done.send(());
        });
        stopped
    }

    #[test]
    fn stopping_waits_for_requests_in_service() {
        let service = Arc::new(Service::default());
        let ticket = service.enter();
        let stopped = stopping(&service);
        assert!(
            stopped.recv_timeout(SHORT).is_err(),
            "a request is still in service"
        );
        drop(ticket);
        stopped.recv_timeout(LONG).expect("nothing is in service");
    }

    #[test]
    fn stopping_does_not_wait_for_one_that_waits_for_the_front_end() {
        let service = Arc::new(Service::default());
        let mut ticket = service.enter();
        let result = ticket.away(|| {
            stopping(&service)
                .recv_timeout(LONG)
                .expect("it must not wait")
        });
        assert_eq!(result, Err(Stopped));
        drop(ticket);
        assert_eq!(service.lock().present, 0);
    }

    #[test]
    fn one_that_comes_back_in_time_keeps_the_ring_again() {
        let service = Arc::new(Service::default());
        let mut ticket = service.enter();
        assert_eq!(ticket.away(|| 7), Ok(7));
        let stopped = stopping(&service);
        assert!(stopped.recv_timeout(SHORT).is_err());
        drop(ticket);
        stopped.recv_timeout(LONG).expect("nothing is in service");
    }

    #[test]
    fn a_request_of_before_does_not_count_after() {
        let service = Arc::new(Service::default());
        let mut old = service.enter();
        assert_eq!(old.away(|| service.stop()), Err(Stopped));
        let new = service.enter();
        drop(old);
        assert_eq!(service.lock().present, 1);
        drop(new);
        assert_eq!(service.lock().present, 0);
    }
}
