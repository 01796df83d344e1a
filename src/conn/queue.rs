//! One virtqueue with those who wait for room in it.

use alloc::collections::VecDeque;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicU16};

use super::counters::Counters;
use super::pool::{Pool, SlotId};
use super::slot::SlotState;
use crate::device::Transport;
use crate::device::dma::OutOfDma;
use crate::device::ring::{Ring, RingError, RingFeatures, RingFull};
use crate::platform::Platform;
use crate::sync::{HandoffLock, Rank};

/// A request queue.
pub(crate) struct Queue<P: Platform> {
    index: u16,
    /// Entries of the ring.
    size: AtomicU16,
    /// Requests that were given to it and did not come back. A hint: it is read
    /// without the lock.
    load: AtomicU16,
    ring: HandoffLock<State<P>>,
    /// The device broke the ring's rules, or is gone.
    failed: AtomicBool,
}

struct State<P: Platform> {
    ring: Ring<P::Hal>,
    /// Slots for which the ring had no room, in order (a full ring is normal).
    parked: VecDeque<SlotId>,
    error: Option<RingError>,
    /// A kick is owed to the device.
    kick: bool,
    /// The life that the ring is for. Requests of another one name nodes that
    /// are others by now, and are not taken.
    life: u32,
}

impl<P: Platform> Queue<P> {
    pub(crate) fn new(
        index: u16,
        size: u16,
        features: RingFeatures,
        slots: usize,
    ) -> Result<Self, OutOfDma> {
        let state = State {
            ring: Ring::new(size, features)?,
            parked: VecDeque::with_capacity(slots),
            error: None,
            kick: false,
            life: 0,
        };
        Ok(Self {
            index,
            size: AtomicU16::new(size),
            load: AtomicU16::new(0),
            ring: HandoffLock::new(Rank::Ring, state),
            failed: AtomicBool::new(false),
        })
    }

    /// Returns the queue's number on the device.
    pub(crate) const fn index(&self) -> u16 {
        self.index
    }

    /// Returns the number of entries.
    pub(crate) fn size(&self) -> u16 {
        self.size.load(Relaxed)
    }

    /// Returns how many requests wait in it or are with the device.
    pub(crate) fn load(&self) -> u16 {
        self.load.load(Relaxed)
    }

    /// Returns how many segments a request may have whose table has so many.
    pub(crate) fn max_segments(&self, table_capacity: u16) -> u16 {
        table_capacity.min(self.size())
    }

    /// Runs `f` on the ring itself, for setting up. Nothing is reaped meanwhile, not
    /// even for an interrupt that comes just then.
    pub(crate) fn with_ring<R>(&self, f: impl FnOnce(&mut Ring<P::Hal>) -> R) -> R {
        self.ring.with(|state| f(&mut state.ring), |_| ())
    }

    /// Returns whether the device broke this queue.
    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Acquire)
    }

    /// Gives the slot's request to the device, now or as soon as there is room.
    /// Thread context. Does not block. Returns false if it belongs to a life that
    /// is over; it was not sent then.
    pub(crate) fn submit(&self, id: SlotId, env: &Env<'_, P>) -> bool {
        let mut taken = true;
        let kick = self.ring.with(
            |state| {
                if env.pool.slot(id).life.load(Relaxed) != state.life {
                    taken = false;
                    return core::mem::take(&mut state.kick);
                }
                self.load.fetch_add(1, Relaxed);
                if !state.parked.is_empty() || state.add(id, env.pool).is_err() {
                    env.counters.queue_full.add(1);
                    state.parked.push_back(id);
                }
                state.ring.publish() | core::mem::take(&mut state.kick)
            },
            |state| self.drain(state, env),
        );
        if kick {
            self.kick(env);
        }
        taken
    }

    /// Takes what the device is done with. Any context; if the ring is in use,
    /// its user does it.
    pub(crate) fn reap(&self, env: &Env<'_, P>) {
        let mut kick = false;
        self.ring.request(|state| {
            self.drain(state, env);
            kick |= core::mem::take(&mut state.kick);
        });
        if kick {
            self.kick(env);
        }
    }

    fn kick(&self, env: &Env<'_, P>) {
        env.counters.kicks.add(1);
        env.transport.notify(self.index);
    }

    fn drain(&self, state: &mut State<P>, env: &Env<'_, P>) {
        loop {
            match state.ring.pop() {
                Ok(Some(used)) => {
                    let id = SlotId(used.token);
                    self.load.fetch_sub(1, Relaxed);
                    if env.pool.slot(id).complete(used.written, env.platform) == SlotState::Returned
                    {
                        env.pool.give_back(env.platform, id);
                    }
                }
                Ok(None) => {
                    if !state.ring.interrupts_enabled() || !state.ring.enable_interrupts() {
                        break;
                    }
                }
                Err(error) => {
                    if state.error.replace(error).is_none() {
                        log::error!(
                            "virtio-fs: queue {}: {error}; the device needs a reset",
                            self.index
                        );
                    }
                    self.failed.store(true, Release);
                    return;
                }
            }
        }
        while let Some(&id) = state.parked.front() {
            if state.add(id, env.pool).is_err() {
                break;
            }
            state.parked.pop_front();
        }
        state.kick |= state.ring.publish();
    }

    /// Turns interrupts on or off.
    pub(crate) fn set_interrupts(&self, on: bool, env: &Env<'_, P>) {
        let set = |state: &mut State<P>| {
            if on {
                return state.ring.enable_interrupts();
            }
            state.ring.disable_interrupts();
            false
        };
        let missed = self.ring.with(set, |state| self.drain(state, env));
        if missed {
            self.reap(env);
        }
    }

    /// Takes no more requests but those of another life, which is to begin.
    pub(crate) fn retire(&self, next: u32) {
        self.ring.with(
            |state| {
                state.life = next;
                // Nothing more goes out.
                self.load.fetch_sub(state.parked.len() as u16, Relaxed);
                state.parked.clear();
                self.load.store(0, Relaxed);
                state.kick = false;
            },
            |_| (),
        );
    }

    /// Gives the queue another ring, where the device that it is for now wants
    /// one. Only after a [`reset`](Self::reset).
    pub(crate) fn refit(&self, size: u16, features: RingFeatures) -> Result<(), OutOfDma> {
        let fits = self.with_ring(|ring| ring.size() == size && ring.features() == features);
        if !fits {
            let new = Ring::new(size, features)?;
            let old = self.with_ring(|ring| core::mem::replace(ring, new));
            drop(old);
            self.size.store(size, Relaxed);
        }
        Ok(())
    }

    /// Empties the queue after the device was reset.
    pub(crate) fn reset(&self) {
        self.ring.with(
            |state| {
                state.ring.reset();
                state.parked.clear();
                self.load.store(0, Relaxed);
                state.error = None;
                state.kick = false;
            },
            |_| (),
        );
        self.failed.store(false, Relaxed);
    }
}

impl<P: Platform> State<P> {
    fn add(&mut self, id: SlotId, pool: &Pool<P>) -> Result<(), RingFull> {
        let slot = pool.slot(id);
        self.ring
            .add(id.0, &slot.table, slot.segments.load(Relaxed))?;
        slot.set_sent();
        Ok(())
    }
}

/// What a queue works with.
pub(crate) struct Env<'a, P: Platform> {
    pub(crate) platform: &'a P,
    pub(crate) transport: &'a P::Transport,
    pub(crate) pool: &'a Pool<P>,
    pub(crate) counters: &'a Counters,
}
