//! What the model checker plays through. Each function is one scenario from its
//! beginning to its end, and panics if a promise is broken.

use std::sync::Arc;

use loom::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicBool, AtomicU32, fence};
use loom::thread;
use virtio_fs::sync::Rank;

use crate::conn::pool::{Class, Pool, SlotId};
use crate::conn::slot::{Cleanup, Slot, SlotState, Waiter};
use crate::device::dma::{self, DmaRegion};
use crate::device::ring::{Ring, RingFeatures};
use crate::device::table::DescriptorTable;
use crate::platform::{ModelHal, ModelPlatform, Parker};
use crate::sync::{HandoffLock, SeqWords, SleepLock, SleepRwLock, WaitEnd, WaitQueue, park};

const KERNEL: &ModelPlatform = &ModelPlatform;

/// Somebody asks for work while another holds the lock: it is done, and the work
/// sees what there was when it was asked for.
pub fn handoff_does_what_was_asked() {
    let lock = Arc::new(HandoffLock::new(Rank::Leaf, 0));
    let fact = Arc::new(AtomicU32::new(0));
    let asking = {
        let (lock, fact) = (lock.clone(), fact.clone());
        thread::spawn(move || {
            fact.store(1, Relaxed);
            lock.request(|seen| *seen = fact.load(Relaxed));
        })
    };
    lock.with(|_| (), |seen| *seen = fact.load(Relaxed));
    asking.join().unwrap();
    lock.with(|seen| assert_eq!(*seen, 1), |_| ());
}

/// Two ask, one holds the lock.
pub fn handoff_serves_two_who_ask() {
    let lock = Arc::new(HandoffLock::new(Rank::Leaf, [0, 0]));
    let facts = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
    let look = |facts: &[AtomicU32; 2], seen: &mut [u32; 2]| {
        for (seen, fact) in seen.iter_mut().zip(facts) {
            *seen = fact.load(Relaxed);
        }
    };
    let asking = [0, 1].map(|n| {
        let (lock, facts) = (lock.clone(), facts.clone());
        thread::spawn(move || {
            facts[n].store(1, Relaxed);
            lock.request(|seen| look(&facts, seen));
        })
    });
    lock.with(|_| (), |seen| look(&facts, seen));
    for thread in asking {
        thread.join().unwrap();
    }
    lock.with(|seen| assert_eq!(*seen, [1, 1]), |_| ());
}

/// Two change words that a third reads: it sees a change whole, and none is lost.
pub fn words_change_together() {
    let words = Arc::new(SeqWords::new([0, 0]));
    let changing = [(); 2].map(|()| {
        let words = words.clone();
        thread::spawn(move || words.update(|words| words.iter_mut().for_each(|w| *w += 1)))
    });
    let [first, second] = words.read();
    assert_eq!(first, second);
    for thread in changing {
        thread.join().unwrap();
    }
    assert_eq!(words.read(), [2, 2]);
}

/// A wake-up is not lost, however it meets the one who goes to sleep.
pub fn a_waiter_is_woken() {
    let queue = Arc::new(WaitQueue::<ModelPlatform>::new());
    let ready = Arc::new(AtomicBool::new(false));
    let waiting = {
        let (queue, ready) = (queue.clone(), ready.clone());
        thread::spawn(move || {
            let end = queue.wait(KERNEL, None, || ready.load(Acquire).then_some(()));
            assert_eq!(end, WaitEnd::Ready(()));
        })
    };
    ready.store(true, Release);
    queue.wake_one(KERNEL);
    waiting.join().unwrap();
    assert!(queue.is_empty());
}

/// Two take the same lock in turn; both get it, one at a time.
pub fn a_sleep_lock_changes_hands() {
    sleep_lock::<1>();
}

/// Three take the same lock.
pub fn a_sleep_lock_goes_round() {
    sleep_lock::<2>();
}

fn sleep_lock<const OTHERS: usize>() {
    let lock = Arc::new(SleepLock::<ModelPlatform, u32>::new(0));
    let add = |lock: &SleepLock<ModelPlatform, u32>| *lock.lock(KERNEL).unwrap() += 1;
    let others = [(); OTHERS].map(|()| {
        let lock = lock.clone();
        thread::spawn(move || add(&lock))
    });
    add(&lock);
    for thread in others {
        thread.join().unwrap();
    }
    assert_eq!(*lock.lock(KERNEL).unwrap() as usize, OTHERS + 1);
}

/// One shares the lock, one wants it alone: neither waits for ever, and nobody
/// shares while one is alone.
pub fn sharing_and_being_alone_exclude_each_other() {
    share_and_take::<1>();
}

/// Two share the lock, one wants it alone.
pub fn two_who_share_let_one_be_alone() {
    share_and_take::<2>();
}

fn share_and_take<const SHARING: usize>() {
    let lock = Arc::new(SleepRwLock::<ModelPlatform>::new());
    let alone = Arc::new(AtomicBool::new(false));
    let sharing = [(); SHARING].map(|()| {
        let (lock, alone) = (lock.clone(), alone.clone());
        thread::spawn(move || {
            let _guard = lock.share(KERNEL).unwrap();
            assert!(!alone.load(Relaxed), "somebody is alone");
        })
    });
    {
        let _guard = lock.take(KERNEL).unwrap();
        alone.store(true, Relaxed);
        alone.store(false, Relaxed);
    }
    for thread in sharing {
        thread.join().unwrap();
    }
}

fn slot() -> Slot<ModelPlatform> {
    Slot::new(1).expect("there is memory")
}

/// The reply comes while its caller goes to sleep.
pub fn a_reply_wakes_its_caller() {
    let slot = Arc::new(slot());
    slot.set_state(SlotState::Owned);
    slot.arm(Cleanup::None, Some(Waiter::Thread(Parker::current())));
    let device = {
        let slot = slot.clone();
        thread::spawn(move || assert_eq!(slot.complete(16, KERNEL), SlotState::Done))
    };
    while !slot.is_back() {
        park(KERNEL, None);
    }
    assert_eq!(slot.written(), 16, "the reply's length came with it");
    device.join().unwrap();
}

/// The reply comes while a task that polls names who is to be woken.
pub fn a_reply_meets_a_new_waiter() {
    let slot = Arc::new(slot());
    slot.set_state(SlotState::Owned);
    // Whoever submitted is not the one who waits.
    slot.arm(Cleanup::None, Some(Waiter::Thread(Arc::default())));
    let device = {
        let slot = slot.clone();
        thread::spawn(move || assert_eq!(slot.complete(16, KERNEL), SlotState::Done))
    };
    slot.set_waiter(Waiter::Thread(Parker::current()));
    while !slot.is_back() {
        park(KERNEL, None);
    }
    device.join().unwrap();
}

/// A caller gives up while the reply comes, or the device is reset, or both:
/// exactly one of them ends the request, and the slot comes back once.
pub fn a_request_ends_once() {
    let slot = Arc::new(slot());
    let returned = Arc::new(AtomicU32::new(0));
    slot.set_state(SlotState::Owned);
    slot.arm(Cleanup::None, Some(Waiter::Thread(Parker::current())));
    let give_back = |slot: &Slot<ModelPlatform>, count: &AtomicU32, by: SlotState| {
        if by == SlotState::Returned {
            count.fetch_add(1, AcqRel);
            assert!(!slot.is_with_device());
        }
    };
    let device = {
        let (slot, returned) = (slot.clone(), returned.clone());
        thread::spawn(move || give_back(&slot, &returned, slot.complete(16, KERNEL)))
    };
    let given_up = slot.orphan();
    device.join().unwrap();
    // The same whether the device's reset comes on top or not.
    let state = slot.state();
    match given_up {
        true => assert_eq!((state, returned.load(Acquire)), (SlotState::Returned, 1)),
        false => assert_eq!((state, returned.load(Acquire)), (SlotState::Done, 0)),
    }
}

fn pool() -> Arc<Pool<ModelPlatform>> {
    // One slot for callers, and the reserved ones.
    Arc::new(Pool::new(1, 1).expect("there is memory"))
}

/// Waits in line as callers do, and returns the slot.
fn acquire(pool: &Pool<ModelPlatform>, class: Class) -> SlotId {
    match pool.take(KERNEL, class) {
        Ok(id) => id,
        Err(ticket) => loop {
            if let Some(id) = pool.redeem(KERNEL, &ticket, class) {
                break id;
            }
            park(KERNEL, None);
        },
    }
}

/// Two callers want the one slot: each gets it, alone.
pub fn the_line_serves_both() {
    line::<1>();
}

/// Three callers want the one slot.
pub fn the_line_serves_all() {
    line::<2>();
}

fn line<const OTHERS: usize>() {
    let pool = pool();
    let users = Arc::new(AtomicU32::new(0));
    let turn = |pool: &Pool<ModelPlatform>, users: &AtomicU32| {
        let id = acquire(pool, Class::Normal);
        assert_eq!(users.fetch_add(1, AcqRel), 0, "two have the slot");
        users.fetch_sub(1, AcqRel);
        pool.put(KERNEL, id);
    };
    let others = [(); OTHERS].map(|()| {
        let (pool, users) = (pool.clone(), users.clone());
        thread::spawn(move || turn(&pool, &users))
    });
    turn(&pool, &users);
    for thread in others {
        thread.join().unwrap();
    }
    assert_eq!(pool.load(KERNEL), (0, 0));
}

/// A caller waits in line while the last slot comes back by itself, from a
/// request that was given up.
pub fn a_returned_slot_serves_the_line() {
    let pool = pool();
    let id = acquire(&pool, Class::Normal);
    pool.slot(id).arm(Cleanup::None, None);
    let device = {
        let pool = pool.clone();
        thread::spawn(move || {
            if pool.slot(id).complete(16, KERNEL) == SlotState::Returned {
                pool.give_back(KERNEL, id);
            }
        })
    };
    let again = acquire(&pool, Class::Normal);
    pool.put(KERNEL, again);
    device.join().unwrap();
    assert_eq!(pool.load(KERNEL), (0, 0));
}

/// Parts of a ring of two entries, as bytes from its beginning.
const AVAIL: usize = 2 * 16;
const USED_EVENT: usize = AVAIL + 4 + 2 * 2;
const USED: usize = (USED_EVENT + 2).next_multiple_of(64);
const AVAIL_EVENT: usize = USED + 4 + 8 * 2;

/// Serves what is there, asks to be notified of the next, and looks once more.
/// Returns whether an interrupt is due (virtio 1.3, 2.7.8 and 2.7.10).
fn serve(memory: &DmaRegion<ModelHal>, seen: &mut u16) -> bool {
    let mut interrupt = false;
    loop {
        while memory.u16(AVAIL + 2).load(Acquire) != *seen {
            let slot = usize::from(*seen % 2);
            let head = memory.u16(AVAIL + 4 + 2 * slot).load(Relaxed);
            memory.u32(USED + 4 + 8 * slot).store(head.into(), Relaxed);
            memory.u32(USED + 8 + 8 * slot).store(16, Relaxed);
            memory.u16(USED + 2).store(*seen + 1, Release);
            fence(SeqCst);
            interrupt |= memory.u16(USED_EVENT).load(Relaxed) == *seen;
            *seen += 1;
        }
        memory.u16(AVAIL_EVENT).store(*seen, Relaxed);
        fence(SeqCst);
        if memory.u16(AVAIL + 2).load(Acquire) == *seen {
            return interrupt;
        }
    }
}

/// Takes what the device is done with, and has interrupts on afterwards.
fn reap(ring: &mut Ring<ModelHal>, done: &AtomicU32) {
    loop {
        while ring.pop().expect("the device obeys").is_some() {
            done.fetch_add(1, Release);
        }
        if !ring.enable_interrupts() {
            return;
        }
    }
}

/// Requests go to a device that sleeps unless it was notified, and come back to
/// a driver that sleeps unless it was interrupted; both suppress what they need
/// not hear (event index).
fn requests_on_a_ring(requests: u16) {
    let features = RingFeatures {
        indirect: true,
        event_idx: true,
    };
    let tables = [(); 2].map(|()| DescriptorTable::<ModelHal>::new(1).expect("memory"));
    let mut ring = Ring::<ModelHal>::new(2, features).expect("memory");
    let memory = dma::latest::<ModelHal>();
    assert!(!ring.enable_interrupts());
    let ring = Arc::new(HandoffLock::new(Rank::Ring, ring));
    let done = Arc::new(AtomicU32::new(0));
    let (driver, waiting) = (Parker::current(), Parker::current());
    let sleeping = Arc::new(Parker::default());
    let device = {
        let (ring, done, sleeping) = (ring.clone(), done.clone(), sleeping.clone());
        thread::spawn(move || {
            let mut seen = 0;
            while seen < requests {
                if serve(&memory, &mut seen) {
                    // The interrupt handler.
                    ring.request(|ring| reap(ring, &done));
                    driver.unpark();
                }
                if seen < requests {
                    sleeping.park();
                }
            }
        })
    };
    for n in 0..requests {
        let kick = ring.with(
            |ring| {
                ring.add(n, &tables[usize::from(n)], 1)
                    .expect("there is room");
                ring.publish()
            },
            |ring| reap(ring, &done),
        );
        if kick {
            sleeping.unpark();
        }
    }
    while done.load(Acquire) < u32::from(requests) {
        waiting.park();
    }
    device.join().unwrap();
}

/// One request, there and back.
pub fn a_request_goes_round_the_ring() {
    requests_on_a_ring(1);
}

/// Two requests, the second while the device may be about to sleep.
pub fn two_requests_go_round_the_ring() {
    requests_on_a_ring(2);
}
