//! One place for a request in flight, with all memory it needs.
//!
//! A slot goes round: free → owned by a caller → with the device → done → free.
//! Where the caller gives up, it leaves an orphan: the slot, and all memory that
//! the device may still use, belongs to the connection until the device returns
//! it or is reset (S4-M16, M17, M21).
//!
//! The state is one atomic word, because it is changed by whoever reaps the
//! ring, possibly in interrupt context, and by the caller.

use alloc::vec::Vec;
use core::task::Waker;

use super::pages::Piece;
use crate::device::dma::{DmaRegion, OutOfDma};
use crate::device::table::DescriptorTable;
use crate::platform::{PAGE_SIZE, Platform};
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use crate::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, fence};
use crate::sync::{Rank, SpinLock};

/// Bytes for the reply's header and fixed body at the end of the argument page.
pub(crate) const REPLY_SPACE: usize = 512;
/// Where they begin; before it is room for the request.
pub(crate) const REPLY_OFFSET: usize = PAGE_SIZE - REPLY_SPACE;

/// Whose a slot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum SlotState {
    /// Nobody's.
    Free = 0,
    /// A caller's, who prepares a request or reads its reply.
    Owned = 1,
    /// The device's, and somebody waits for it.
    InFlight = 2,
    /// The device's, and nobody waits: the connection takes it back.
    Orphan = 3,
    /// Back from the device, for the one who waits.
    Done = 4,
    /// Back from the device, for the connection.
    Returned = 5,
}

impl SlotState {
    const fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::Owned,
            2 => Self::InFlight,
            3 => Self::Orphan,
            4 => Self::Done,
            5 => Self::Returned,
            _ => Self::Free,
        }
    }
}

/// Who is to be woken when a request is done.
pub(crate) enum Waiter<P: Platform> {
    Thread(P::Thread),
    Task(Waker),
}

impl<P: Platform> Clone for Waiter<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Thread(t) => Self::Thread(t.clone()),
            Self::Task(w) => Self::Task(w.clone()),
        }
    }
}

/// What to do with the reply to a request that nobody waits for, so that
/// nothing the server handed out in it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Cleanup {
    /// Nothing was handed out.
    None = 0,
    /// The reply holds a node id that counts one lookup: forget it.
    Entry = 1,
    /// The reply holds a file handle: release it.
    Open = 2,
    /// The same for a directory.
    OpenDir = 3,
    /// Both, node id first (CREATE, TMPFILE).
    EntryOpen = 4,
    /// Something was handed back: a file is closed now (RELEASE, RELEASEDIR).
    Closed = 5,
    /// A lock was taken, or dropped (SETLK, SETLKW).
    Lock = 7,
    /// Pages of a cache went with it: their owners are told what came of it.
    Pages = 6,
}

impl Cleanup {
    const fn from_u8(n: u8) -> Self {
        match n {
            1 => Self::Entry,
            2 => Self::Open,
            3 => Self::OpenDir,
            4 => Self::EntryOpen,
            5 => Self::Closed,
            7 => Self::Lock,
            6 => Self::Pages,
            _ => Self::None,
        }
    }
}

/// The memory and the state of one request.
pub(crate) struct Slot<P: Platform> {
    state: AtomicU8,
    cleanup: AtomicU8,
    interrupted: AtomicBool,
    /// The device was reset under the request: no reply will be found.
    lost: AtomicBool,
    /// The device was given the request: it may have been carried out.
    sent: AtomicBool,
    /// The life of the connection that the request was encoded in.
    pub(crate) life: AtomicU32,
    pub(crate) queue: AtomicU16,
    pub(crate) segments: AtomicU16,
    written: AtomicU32,
    pub(crate) opcode: AtomicU32,
    pub(crate) unique: AtomicU64,
    pub(crate) node: AtomicU64,
    waiter: SpinLock<Option<Waiter<P>>>,
    pub(crate) table: DescriptorTable<P::Hal>,
    pub(crate) args: SpinLock<Args<P>>,
}

/// Where a request's arguments and its reply's fixed part lie.
pub(crate) struct Args<P: Platform> {
    /// One page: arguments first, reply at [`REPLY_OFFSET`].
    pub(crate) page: DmaRegion<P::Hal>,
    /// For arguments that are too long for the page (a long symlink target).
    pub(crate) long: Option<DmaRegion<P::Hal>>,
    /// Data of a request that is polled: its own, so that it can be orphaned.
    pub(crate) owned: Option<DmaRegion<P::Hal>>,
    /// Pages of a cache that go with it. Keeps its room from request to request.
    pub(crate) pieces: Vec<Piece<P::Hal>>,
    /// Length of the arguments in bytes.
    pub(crate) len: usize,
}

impl<P: Platform> Slot<P> {
    pub(crate) fn new(max_segments: u16) -> Result<Self, OutOfDma> {
        Ok(Self {
            state: AtomicU8::new(SlotState::Free as u8),
            cleanup: AtomicU8::new(0),
            interrupted: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            sent: AtomicBool::new(false),
            life: AtomicU32::new(0),
            queue: AtomicU16::new(0),
            segments: AtomicU16::new(0),
            written: AtomicU32::new(0),
            opcode: AtomicU32::new(0),
            unique: AtomicU64::new(0),
            node: AtomicU64::new(0),
            waiter: SpinLock::new(Rank::Leaf, None),
            table: DescriptorTable::new(max_segments)?,
            args: SpinLock::new(
                Rank::Arguments,
                Args {
                    page: DmaRegion::new(PAGE_SIZE)?,
                    long: None,
                    owned: None,
                    pieces: Vec::new(),
                    len: 0,
                },
            ),
        })
    }

    pub(crate) fn state(&self) -> SlotState {
        SlotState::from_u8(self.state.load(Acquire))
    }

    /// Takes a free slot, or gives one back. The caller owns it.
    pub(crate) fn set_state(&self, state: SlotState) {
        self.state.store(state as u8, Release);
    }

    /// Prepares the slot to go to the device, for somebody who waits.
    pub(crate) fn arm(&self, cleanup: Cleanup, waiter: Option<Waiter<P>>) {
        self.cleanup.store(cleanup as u8, Relaxed);
        self.interrupted.store(false, Relaxed);
        self.lost.store(false, Relaxed);
        self.sent.store(false, Relaxed);
        let state = if waiter.is_some() {
            SlotState::InFlight
        } else {
            SlotState::Orphan
        };
        *self.waiter.lock() = waiter;
        self.set_state(state);
    }

    /// Replaces who is woken. Look at the state afterwards: the request may have
    /// come back meanwhile without waking anybody.
    pub(crate) fn set_waiter(&self, waiter: Waiter<P>) {
        *self.waiter.lock() = Some(waiter);
        // Pairs with the fence in `complete`.
        fence(SeqCst);
    }

    /// Records that the device is done with the request. Any context. Returns
    /// the new state: `Returned` means that the connection must take it back.
    pub(crate) fn complete(&self, written: u32, platform: &P) -> SlotState {
        self.written.store(written, Relaxed);
        let mut old = self.state.load(Acquire);
        let new = loop {
            let new = match SlotState::from_u8(old) {
                SlotState::InFlight => SlotState::Done,
                SlotState::Orphan => SlotState::Returned,
                other => return other,
            };
            match self
                .state
                .compare_exchange_weak(old, new as u8, AcqRel, Acquire)
            {
                Ok(_) => break new,
                Err(now) => old = now,
            }
        };
        if new == SlotState::Done {
            fence(SeqCst);
            self.wake(platform);
        }
        new
    }

    /// Wakes who waits for the request, to look again. Any context.
    pub(crate) fn wake(&self, platform: &P) {
        // If the lock is held, its holder changes the waiter and looks at the
        // state right after. A waiter of a later request may be woken for
        // nothing, which it must bear.
        match self.waiter.try_lock().and_then(|waiter| waiter.clone()) {
            Some(Waiter::Thread(thread)) => platform.unpark(&thread),
            Some(Waiter::Task(waker)) => waker.wake(),
            None => {}
        }
    }

    /// Records that the device was reset while it had the request.
    pub(crate) fn lose(&self, platform: &P) -> SlotState {
        self.lost.store(true, Relaxed);
        self.complete(0, platform)
    }

    /// Gives the request up. Returns false if it is done already.
    pub(crate) fn orphan(&self) -> bool {
        let change = self.state.compare_exchange(
            SlotState::InFlight as u8,
            SlotState::Orphan as u8,
            AcqRel,
            Acquire,
        );
        change.is_ok()
    }

    /// Returns whether the request is back from the device.
    pub(crate) fn is_back(&self) -> bool {
        matches!(self.state(), SlotState::Done | SlotState::Returned)
    }

    /// Returns whether the device has the request and nobody waits for it.
    pub(crate) fn is_orphan(&self) -> bool {
        self.state() == SlotState::Orphan
    }

    /// Returns whether the device has the request.
    pub(crate) fn is_with_device(&self) -> bool {
        matches!(self.state(), SlotState::InFlight | SlotState::Orphan)
    }

    /// Returns what the device says it wrote.
    pub(crate) fn written(&self) -> u32 {
        self.written.load(Relaxed)
    }

    /// Returns whether the reply was lost in a reset.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// Notes that the device is about to see the request.
    pub(crate) fn set_sent(&self) {
        self.sent.store(true, Relaxed);
    }

    /// Returns whether the device may have seen it.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent.load(Relaxed)
    }

    pub(crate) fn cleanup(&self) -> Cleanup {
        Cleanup::from_u8(self.cleanup.load(Relaxed))
    }

    /// Notes that an INTERRUPT goes out. True the first time only: one request
    /// is interrupted at most once (S2-08).
    pub(crate) fn interrupt_once(&self) -> bool {
        !self.interrupted.swap(true, Relaxed)
    }
}
