//! Waiting: for a slot, and for a reply.
//!
//! Whoever waits for a reply looks at the ring itself, or sleeps until somebody
//! who does has [completed](Slot::complete) the request. A wait ends by the
//! reply; early by a kill or by the deadline of the request's kind, which send
//! INTERRUPT once and then allow the time of grace (S2-08, protocol.md 4.9); and
//! by the end of the device. No lock is held while a thread sleeps here (S0-26,
//! S0-29).

use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::pool::{Class, SlotId};
use super::slot::Slot;
use super::{Connection, State};
use crate::errno::Errno;
use crate::error::{Error, Origin, Result};
use crate::platform::{Platform, Signal};
use crate::sync::park;
use crate::wire::{Opcode, Unique};

/// How long a waiter that polls may rest before it looks at clock and status.
const POLLED_LOOK: Duration = Duration::from_millis(10);

/// How a wait for a reply ended.
pub(super) enum WaitEnd {
    /// The request is back; where it was interrupted, with the reason.
    Back(Option<Error>),
    /// It is an orphan, and this is what its caller gets.
    GivenUp(Error),
}

impl<P: Platform> Connection<P> {
    /// Gets a slot, in turn. Blocks while all are taken.
    pub(super) fn acquire(&self, class: Class) -> Result<SlotId> {
        loop {
            if class != Class::Session {
                self.pass_gate(class)?;
            }
            match self.take_slot(class) {
                Err(error) if self.state().is_interlude() && error.errno() == Errno::EAGAIN => {}
                result => return result,
            }
        }
    }

    /// As [`acquire`](Self::acquire). EAGAIN if a restart begins meanwhile.
    fn take_slot(&self, class: Class) -> Result<SlotId> {
        let allowed = || {
            if class == Class::Session {
                Ok(())
            } else {
                self.check_state()
            }
        };
        allowed()?;
        if !class.is_forced() {
            self.tidy();
        }
        let ticket = match self.pool.take(&self.platform, class) {
            Ok(id) => return Ok(id),
            Err(ticket) => ticket,
        };
        self.counters.slot_waits.add(1);
        let deadlines = &self.config.deadlines;
        let patience = deadlines.metadata.map(|limit| limit + self.config.grace);
        let give_up = patience.map(|patience| self.now() + patience);
        loop {
            // Checked again when the turn comes (S0-27).
            if let Err(error) = allowed() {
                self.pool.leave(&self.platform, ticket);
                return Err(error);
            }
            if let Some(id) = self.pool.redeem(&self.platform, &ticket, class) {
                return Ok(id);
            }
            if self.platform.signal() != Signal::None && !class.is_forced() {
                self.pool.leave(&self.platform, ticket);
                return Err(Error::new(Errno::EINTR, Origin::Platform));
            }
            self.poll();
            // Slots of requests that were given up are free only after that.
            self.tidy();
            if self.device_failed() {
                self.lose_device("it needs a reset");
                continue;
            }
            // Those who wait for a reply end by their own deadlines.
            if give_up.is_some_and(|give_up| self.now() >= give_up) && self.pool.all_given_up() {
                self.lose_device("it returns none of the requests that were given up");
                continue;
            }
            park(
                &*self.platform,
                Some(self.now() + Duration::from_millis(100)),
            );
        }
    }

    /// Looks at every ring where nothing else would. Does not block.
    pub fn poll(&self) {
        self.counters.polls.add(1);
        for queue in &self.queues {
            queue.reap(&self.env());
        }
        self.forgets.reap();
    }

    /// Waits until the device has given the request back, or until it may be
    /// given up.
    pub(super) fn wait(&self, id: SlotId, opcode: Opcode, lent: bool) -> WaitEnd {
        let slot = self.pool.slot(id);
        let queue = &self.queues[usize::from(slot.queue.load(Relaxed))];
        // Nobody routes interrupts to a connection that is not open yet.
        let sleeps = self.has_interrupts() && self.state() != State::Starting;
        let env = self.env();
        let limit = self.deadline_of(opcode);
        let why_ended = |ending: &Option<(Error, Duration)>| ending.map(|(error, _)| error);
        let mut deadline = None;
        let mut ending: Option<(Error, Duration)> = None;
        let mut spins = if sleeps { self.config.spins } else { u32::MAX };
        let mut turns = 0u32;
        let mut look = None;
        let mut heard = None;
        loop {
            if slot.is_back() {
                return WaitEnd::Back(why_ended(&ending));
            }
            if !sleeps || spins > 0 {
                self.counters.polls.add(1);
                queue.reap(&env);
                if slot.is_back() {
                    return WaitEnd::Back(why_ended(&ending));
                }
            }
            turns = turns.wrapping_add(1);
            if sleeps && spins > 0 {
                spins -= 1;
                core::hint::spin_loop();
                continue;
            }
            // A poll is cheap; the clock and the device's status are not.
            if !sleeps && !turns.is_multiple_of(64) {
                if self.platform.can_sleep() {
                    core::hint::spin_loop();
                } else {
                    let look = *look.get_or_insert_with(|| self.now() + POLLED_LOOK);
                    park(&*self.platform, Some(look));
                }
                continue;
            }
            let now = self.now();
            look = Some(now + POLLED_LOOK);
            let heard = *heard.get_or_insert_with(|| self.counters.replies.get());
            let deadline = *deadline.get_or_insert_with(|| limit.map(|limit| now + limit));
            if self.device_failed() {
                self.lose_device("it needs a reset");
                self.end_attempt(slot);
                // A connection that is ending is not lost again, and whoever ends
                // it waits for this very request.
                if self.state().is_interlude() {
                    // Whoever ends the session gives this request back.
                    if !slot.is_back() {
                        park(&*self.platform, Some(now + Duration::from_millis(1)));
                    }
                } else if !lent && !slot.is_back() && slot.orphan() {
                    return WaitEnd::GivenUp(Error::new(Errno::EIO, Origin::Device));
                }
                continue;
            }
            if ending.is_none() {
                if self.platform.signal() == Signal::Kill {
                    // With the caller's buffers at the device, only the deadline
                    // justifies a reset.
                    let patience = if lent {
                        limit.unwrap_or(self.config.grace)
                    } else {
                        self.config.grace
                    };
                    ending = Some((Error::new(Errno::EINTR, Origin::Platform), now + patience));
                    self.interrupt_request(slot);
                } else if deadline.is_some_and(|deadline| now >= deadline) {
                    self.counters.timeouts.add(1);
                    log::error!(
                        "virtio-fs: {opcode} did not come back in {:?}",
                        limit.unwrap_or_default()
                    );
                    ending = Some((
                        Error::new(Errno::ETIMEDOUT, Origin::Device),
                        now + self.config.grace,
                    ));
                    self.interrupt_request(slot);
                } else if self.platform.signal() == Signal::Interrupt && opcode == Opcode::Setlkw {
                    self.interrupt_request(slot);
                }
            }
            let wake = match &ending {
                Some((error, give_up)) if now >= *give_up => {
                    if lent {
                        // The device has the caller's memory: only a reset gets
                        // it back.
                        self.lose_device("a request with a caller's buffers did not come back");
                        self.end_attempt(slot);
                        continue;
                    }
                    // Nothing at all came back since: a new session may answer.
                    if self.config.restart.is_some()
                        && error.errno() == Errno::ETIMEDOUT
                        && self.counters.replies.get() == heard
                        && self.state() == State::Ready
                    {
                        self.lose_device("it has fallen silent");
                        continue;
                    }
                    if slot.orphan() {
                        self.counters.orphans.add(1);
                        return WaitEnd::GivenUp(*error);
                    }
                    continue;
                }
                Some((_, give_up)) => Some(*give_up),
                None => deadline,
            };
            if self.state() == State::Aborted {
                self.end_attempt(slot);
            }
            if !sleeps {
                continue;
            }
            // A lost interrupt or a silent death of the device is found in time.
            let look = now + Duration::from_millis(500);
            park(
                &*self.platform,
                Some(wake.map_or(look, |wake| wake.min(look))),
            );
            if sleeps && self.now() >= look {
                queue.reap(&env);
            }
        }
    }

    fn deadline_of(&self, opcode: Opcode) -> Option<Duration> {
        let ours = match opcode {
            Opcode::Read
            | Opcode::Write
            | Opcode::CopyFileRange
            | Opcode::CopyFileRange64
            | Opcode::Fallocate
            | Opcode::Ioctl => self.config.deadlines.data,
            Opcode::Setlkw => return self.config.deadlines.lock,
            Opcode::Fsync | Opcode::Fsyncdir | Opcode::Syncfs | Opcode::Flush => {
                self.config.deadlines.sync
            }
            _ => self.config.deadlines.metadata,
        };
        match (ours, self.limits.read().request_timeout) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        }
    }

    /// Asks the server to hurry with a request, once (S2-08).
    fn interrupt_request(&self, slot: &Slot<P>) {
        if slot.interrupt_once()
            && let Some(unique) = Unique::new(slot.unique.load(Relaxed))
        {
            self.counters.interrupts_sent.add(1);
            self.forgets.interrupt(self, unique);
        }
    }
}
