//! Kernel threads: spawn, park and unpark, sleep, preemption; any thread on any
//! CPU, one queue for all.
//!
//! Kept small: one lock (the scheduler's) guards the ready queue, the sleepers
//! and every thread's state. A switch happens with that lock held; whoever
//! comes out of the switch releases it. Round robin, 4 ms a turn, and the timer
//! runs only while somebody sleeps or waits for a turn. An idle CPU halts.
//!
//! Lock order: a [`WaitQueue`], then the scheduler, then the heap.

use alloc::{boxed::Box, collections::VecDeque, string::String, sync::Arc, vec::Vec};
use core::{
    arch::naked_asm,
    cell::UnsafeCell,
    fmt,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use virtio_fs::sync::order::Held;

use crate::{
    apic, clock, cpu, interrupts,
    memory::stack::Stack,
    sync::{IrqMutex, disable_interrupts, restore_interrupts, without_interrupts},
    wait::WaitQueue,
};

/// How long a thread runs while others wait for a turn.
const TURN: Duration = Duration::from_millis(4);

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Nanoseconds that CPUs spent without a thread to run.
static IDLE: AtomicU64 = AtomicU64::new(0);

static SCHEDULER: IrqMutex<Scheduler> = IrqMutex::new(Scheduler {
    ready: VecDeque::new(),
    sleepers: Vec::new(),
    threads: 0,
    idle: 0,
});

/// A thread, or the idle loop of a CPU.
pub struct Thread {
    id: u64,
    name: String,
    /// Held for its memory; `None` for the boot stack.
    _stack: Option<Stack>,
    /// The saved stack pointer while it does not run. Scheduler's lock.
    rsp: UnsafeCell<u64>,
    /// Scheduler's lock.
    state: UnsafeCell<State>,
    /// What it runs; taken when it starts.
    entry: IrqMutex<Option<Box<dyn FnOnce() + Send>>>,
    permit: AtomicBool,
    /// What the driver's check of lock order keeps.
    held: Held,
}

// SAFETY: the cells are only touched with the scheduler's lock held.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Running, or in the ready queue.
    Ready,
    Parked,
    Exited,
}

impl Thread {
    /// Returns the thread's number, never used twice.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the name it was spawned with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the locks of the driver that it holds.
    pub(crate) fn held(&self) -> &Held {
        &self.held
    }

    /// Wakes the thread from [`park`], or makes its next one return at once. May
    /// be called anywhere, in interrupt handlers too; does not allocate.
    pub fn unpark(self: &Arc<Self>) {
        let mut scheduler = SCHEDULER.lock();
        self.permit.store(true, Ordering::Relaxed);
        scheduler.wake(self);
    }
}

impl fmt::Debug for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} ({})", self.id, self.name)
    }
}

struct Scheduler {
    ready: VecDeque<Arc<Thread>>,
    sleepers: Vec<(Duration, Arc<Thread>)>,
    threads: usize,
    /// CPUs that are halted, as bits.
    idle: u32,
}

impl Scheduler {
    /// Makes `thread` ready if it is parked.
    fn wake(&mut self, thread: &Arc<Thread>) {
        // SAFETY: the scheduler's lock is held.
        let state = unsafe { &mut *thread.state.get() };
        if *state != State::Parked {
            return;
        }
        *state = State::Ready;
        if let Some(at) = self
            .sleepers
            .iter()
            .position(|(_, t)| Arc::ptr_eq(t, thread))
        {
            self.sleepers.swap_remove(at);
        }
        self.push(thread.clone());
    }

    /// Puts a thread in the ready queue and sees to it that a CPU looks there.
    fn push(&mut self, thread: Arc<Thread>) {
        self.ready.push_back(thread);
        let me = cpu::current();
        let idle = self.idle & !(1 << me.id());
        if idle != 0 && self.idle & 1 << me.id() == 0 {
            let id = idle.trailing_zeros() as usize;
            self.idle &= !(1 << id);
            if let Some(cpu) = cpu::get(id) {
                apic::send(cpu.apic_id(), interrupts::RESCHEDULE);
                return;
            }
        }
        // The running thread gets one more turn from now at most.
        self.arm();
    }

    /// Sees to it that this CPU's timer goes off when the first sleeper's time
    /// comes, or the turn ends. It may go off sooner: each write to the timer leaves
    /// a virtual machine, so one that was set for something that is over by now is
    /// left alone, and set anew when it goes off. A thread that waits for a reply
    /// with a deadline then costs no write at all.
    fn arm(&self) {
        let sleeper = self.sleepers.iter().map(|(deadline, _)| *deadline).min();
        let local = &cpu::current().threads;
        let turn = (!self.ready.is_empty()).then(|| local.turn_end());
        let Some(next) = sleeper.into_iter().chain(turn).min() else {
            return;
        };
        // SAFETY: this CPU's own cell, with the scheduler's lock held and so with
        // interrupts off.
        let armed = unsafe { &mut *local.armed.get() };
        if armed.is_some_and(|armed| armed <= next) {
            return;
        }
        *armed = Some(next);
        apic::arm_timer(next.saturating_sub(clock::now()));
    }

    /// Switches to the next ready thread, or to the idle loop. The lock is
    /// released by whoever comes out; returns when this thread's turn comes.
    fn switch(mut guard: lock_api::MutexGuard<'_, crate::sync::RawIrqLock, Self>) {
        let local = &cpu::current().threads;
        // SAFETY: the lock is held and interrupts are off, so this CPU's cells
        // are ours; the cells of both threads are guarded by the lock, which
        // stays held across the switch.
        unsafe {
            let idle = (*local.idle.get())
                .as_ref()
                .expect("the CPU has an idle loop");
            let next = guard.ready.pop_front().unwrap_or_else(|| idle.clone());
            let now = clock::now();
            *local.turn_end.get() = now + TURN;
            if Arc::ptr_eq(&next, idle) {
                *local.idle_since.get() = now;
            } else if (*local.current.get())
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, idle))
            {
                let idle = now.saturating_sub(*local.idle_since.get());
                IDLE.fetch_add(idle.as_nanos() as u64, Ordering::Relaxed);
            }
            guard.idle &= !(1 << cpu::current().id());
            guard.arm();
            let to = *next.rsp.get();
            let previous = (*local.current.get()).replace(next).expect("a thread runs");
            let from = previous.rsp.get();
            *local.previous.get() = Some(previous);
            core::mem::forget(guard);
            swap_stacks(from, to);
        }
        finish_switch();
    }
}

/// What each CPU keeps of its own threads. Touched by itself only, interrupts off.
pub(crate) struct PerCpu {
    current: UnsafeCell<Option<Arc<Thread>>>,
    /// What ran before, between a switch and its end.
    previous: UnsafeCell<Option<Arc<Thread>>>,
    idle: UnsafeCell<Option<Arc<Thread>>>,
    turn_end: UnsafeCell<Duration>,
    /// When the idle loop was switched to last.
    idle_since: UnsafeCell<Duration>,
    /// When the timer will go off; `None` if it will not.
    armed: UnsafeCell<Option<Duration>>,
}

impl PerCpu {
    pub(crate) const fn new() -> Self {
        Self {
            current: UnsafeCell::new(None),
            previous: UnsafeCell::new(None),
            idle: UnsafeCell::new(None),
            turn_end: UnsafeCell::new(Duration::ZERO),
            idle_since: UnsafeCell::new(Duration::ZERO),
            armed: UnsafeCell::new(None),
        }
    }

    fn turn_end(&self) -> Duration {
        // SAFETY: this CPU's own cell, with the scheduler's lock held and so
        // with interrupts off.
        unsafe { *self.turn_end.get() }
    }
}

/// Releases the lock that the switch was made with and lets go of the thread
/// that ran before. The first thing every thread does when its turn comes.
fn finish_switch() {
    // SAFETY: interrupts are off, so this is still the CPU of the switch, and
    // its cells are ours. The lock is held by the switch, whose guard was
    // forgotten.
    let previous = unsafe {
        let previous = (*cpu::current().threads.previous.get()).take();
        SCHEDULER.force_unlock();
        previous
    };
    // Frees the stack of a thread that has ended.
    drop(previous);
}

/// Saves the registers that calls keep, stores the stack pointer to `from`, and
/// goes on at the point where the thread with stack pointer `to` did the same.
///
/// # Safety
///
/// `to` was saved by this function or laid out by [`spawn`]; the scheduler's lock is held.
#[unsafe(naked)]
unsafe extern "C" fn swap_stacks(from: *mut u64, to: u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov [rdi], rsp",
        "mov rsp, rsi",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Where a new thread begins.
extern "C" fn begin() -> ! {
    finish_switch();
    x86_64::instructions::interrupts::enable();
    let entry = current().entry.lock().take();
    if let Some(entry) = entry {
        entry();
    }
    exit()
}

fn exit() -> ! {
    disable_interrupts();
    let mut scheduler = SCHEDULER.lock();
    scheduler.threads -= 1;
    // SAFETY: the lock is held, and this thread is the current one.
    unsafe {
        *(*cpu::current().threads.current.get())
            .as_ref()
            .expect("a thread runs")
            .state
            .get() = State::Exited
    };
    Scheduler::switch(scheduler);
    unreachable!("a thread that has ended was given a turn");
}

/// Why a thread cannot be had: no memory for its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStack;

impl fmt::Display for NoStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory for a stack")
    }
}

impl core::error::Error for NoStack {}

/// Starts a thread that runs `f`.
///
/// # Errors
///
/// [`NoStack`].
pub fn spawn<T: Send + 'static>(
    name: &str,
    f: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, NoStack> {
    let result = Arc::new(Packet {
        value: IrqMutex::new(None),
        done: WaitQueue::new(),
    });
    let packet = result.clone();
    let stack = Stack::new().ok_or(NoStack)?;
    // From the top: a zero return address to end backtraces (and to align the
    // stack as at a function's entry), the address of `begin`, six registers.
    let top = stack.top() - 16;
    // SAFETY: the top of a fresh stack that nobody else knows; 16 + 56 bytes.
    let rsp = unsafe {
        let words = [0, 0, 0, 0, 0, 0, begin as *const () as u64, 0];
        let at = (top - 48) as *mut [u64; 8];
        at.write(words);
        at as u64
    };
    let thread = Arc::new(Thread {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        name: name.into(),
        _stack: Some(stack),
        rsp: UnsafeCell::new(rsp),
        state: UnsafeCell::new(State::Ready),
        entry: IrqMutex::new(Some(Box::new(move || {
            let value = f();
            *packet.value.lock() = Some(value);
            packet.done.wake_all();
        }))),
        permit: AtomicBool::new(false),
        held: Held::new(),
    });
    let mut scheduler = SCHEDULER.lock();
    scheduler.threads += 1;
    // Room for every thread in both, so that waking and sleeping never allocate.
    let threads = scheduler.threads;
    let (ready, sleepers) = (scheduler.ready.len(), scheduler.sleepers.len());
    scheduler.ready.reserve(threads - ready.min(threads));
    scheduler.sleepers.reserve(threads - sleepers.min(threads));
    scheduler.push(thread.clone());
    drop(scheduler);
    Ok(JoinHandle { thread, result })
}

struct Packet<T> {
    value: IrqMutex<Option<T>>,
    done: WaitQueue,
}

/// The right to wait for a thread and take its result. Dropping it lets the
/// thread run on its own.
pub struct JoinHandle<T> {
    thread: Arc<Thread>,
    result: Arc<Packet<T>>,
}

impl<T> JoinHandle<T> {
    /// Returns the thread.
    pub fn thread(&self) -> &Arc<Thread> {
        &self.thread
    }

    /// Blocks until the thread has ended and returns its result.
    pub fn join(self) -> T {
        loop {
            if let Some(value) = self
                .result
                .done
                .wait_for(None, || self.result.value.lock().take())
            {
                return value;
            }
        }
    }
}

/// Returns how long CPUs had no thread to run, summed up. What goes on at this
/// moment counts when it ends.
pub fn idle_time() -> Duration {
    Duration::from_nanos(IDLE.load(Ordering::Relaxed))
}

/// Returns the running thread.
pub fn current() -> Arc<Thread> {
    without_interrupts(|| {
        // SAFETY: interrupts are off, so the CPU's own cell is ours.
        unsafe { (*cpu::current().threads.current.get()).clone() }.expect("threads are up")
    })
}

/// Blocks until somebody calls [`Thread::unpark`], or until `deadline` on
/// [`clock::now`]. Returns at once if that happened since the last call.
pub fn park(deadline: Option<Duration>) {
    let enabled = disable_interrupts();
    let thread = current();
    let mut scheduler = SCHEDULER.lock();
    let expired = deadline.is_some_and(|deadline| deadline <= clock::now());
    if !thread.permit.swap(false, Ordering::Relaxed) && !expired {
        // SAFETY: the lock is held.
        unsafe { *thread.state.get() = State::Parked };
        if let Some(deadline) = deadline {
            scheduler.sleepers.push((deadline, thread.clone()));
        }
        Scheduler::switch(scheduler);
        thread.permit.store(false, Ordering::Relaxed);
    } else {
        drop(scheduler);
    }
    restore_interrupts(enabled);
}

/// Blocks for `time` at least.
pub fn sleep(time: Duration) {
    let end = clock::now() + time;
    while clock::now() < end {
        park(Some(end));
    }
}

/// Gives the rest of the turn to whoever waits for one.
pub fn yield_now() {
    let enabled = disable_interrupts();
    reschedule(SCHEDULER.lock());
    restore_interrupts(enabled);
}

/// Puts the running thread at the end of the ready queue, if it is not empty.
fn reschedule(mut scheduler: lock_api::MutexGuard<'_, crate::sync::RawIrqLock, Scheduler>) {
    if scheduler.ready.is_empty() {
        return;
    }
    let local = &cpu::current().threads;
    // SAFETY: interrupts are off, so the CPU's own cells are ours.
    let (thread, idle) = unsafe { ((*local.current.get()).clone(), &*local.idle.get()) };
    let (Some(thread), Some(idle)) = (thread, idle) else {
        return;
    };
    if !Arc::ptr_eq(&thread, idle) {
        scheduler.ready.push_back(thread);
    } else {
        drop(thread);
    }
    Scheduler::switch(scheduler);
}

/// Serves the timer: wakes sleepers whose time has come.
pub(crate) fn timer() {
    let mut scheduler = SCHEDULER.lock();
    // SAFETY: this CPU's own cell, with the scheduler's lock held and so with
    // interrupts off.
    unsafe { *cpu::current().threads.armed.get() = None };
    let now = clock::now();
    while let Some(at) = scheduler
        .sleepers
        .iter()
        .position(|(deadline, _)| *deadline <= now)
    {
        let thread = scheduler.sleepers[at].1.clone();
        scheduler.wake(&thread);
    }
    scheduler.arm();
}

/// After each interrupt: gives the CPU to somebody else if the turn is over, or
/// if it was idle.
pub(crate) fn preempt() {
    let local = &cpu::current().threads;
    // SAFETY: interrupts are off, so the CPU's own cells are ours.
    let (current, idle) = unsafe { (&*local.current.get(), &*local.idle.get()) };
    let (Some(current), Some(idle)) = (current, idle) else {
        return;
    };
    if Arc::ptr_eq(current, idle) || clock::now() >= local.turn_end() {
        reschedule(SCHEDULER.lock());
    }
}

/// Makes the code that calls this the idle loop of its CPU.
pub(crate) fn init_cpu() {
    let idle = Arc::new(Thread {
        id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
        name: String::from("idle"),
        _stack: None,
        rsp: UnsafeCell::new(0),
        state: UnsafeCell::new(State::Ready),
        entry: IrqMutex::new(None),
        permit: AtomicBool::new(false),
        held: Held::new(),
    });
    let local = &cpu::current().threads;
    without_interrupts(|| {
        // SAFETY: interrupts are off, so the CPU's own cells are ours.
        unsafe {
            *local.current.get() = Some(idle.clone());
            *local.idle.get() = Some(idle);
        }
    });
}

/// Halts whenever nobody is ready, for ever.
pub(crate) fn idle() -> ! {
    loop {
        disable_interrupts();
        let mut scheduler = SCHEDULER.lock();
        let bit = 1 << cpu::current().id();
        if scheduler.ready.is_empty() {
            scheduler.idle |= bit;
            scheduler.arm();
            drop(scheduler);
            // An interrupt that came since the lock was taken ends the halt.
            x86_64::instructions::interrupts::enable_and_hlt();
            disable_interrupts();
            SCHEDULER.lock().idle &= !bit;
        } else {
            scheduler.idle &= !bit;
            Scheduler::switch(scheduler);
        }
        x86_64::instructions::interrupts::enable();
    }
}
