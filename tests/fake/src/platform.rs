//! The kernel around the driver, as far as a test needs one.

use core::cell::Cell;
use core::fmt;
use core::time::Duration;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use virtio_fs::device::SharedMemory;
use virtio_fs::device::window::WindowMemory;
use virtio_fs::platform::{Caller, FileLabel, FilePages, NewFile, Platform, Signal};
use virtio_fs::sync::order::{self, Context, Held};

use crate::hal::FakeHal;
use crate::shared::{Drive, Shared};
use crate::transport::FakeTransport;

/// So many waits in a row without anything happening are a loop without end.
const IDLE_LIMIT: u64 = 1_000_000;
/// How long a thread sleeps that must look for itself.
const POLL: Duration = Duration::from_micros(50);

/// Called at each wait with the number of waits so far.
type ParkHook = Box<dyn FnMut(u64) + Send>;

struct Person {
    caller: Caller,
    groups: Vec<u32>,
    signal: Signal,
    label: Option<FileLabel>,
}

struct Inner {
    shared: Arc<Shared>,
    person: Mutex<Person>,
    hook: Mutex<Option<ParkHook>>,
    can_sleep: bool,
    unmapped: Mutex<Vec<FilePages>>,
    cpu: AtomicUsize,
    parks: AtomicU64,
    idle: AtomicU64,
}

/// Implements [`Platform`] around a fake device. A copy is the same platform.
///
/// In virtual time [`park`](Platform::park) is what makes time pass: it lets
/// the device work; if there was nothing to do it goes on to the moment of the
/// next delayed reply or to the deadline. Only a reset that takes its time and a
/// read of the configuration generation let time pass otherwise, since whoever
/// polls those does not park. A wait that nothing can end panics
/// and says what it waits for, so no test hangs.
///
/// With [`Drive::Threads`], `park` sleeps.
#[derive(Clone)]
pub struct FakePlatform {
    inner: Arc<Inner>,
}

impl fmt::Debug for FakePlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakePlatform").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Parker {
    token: Mutex<bool>,
    wake: Condvar,
}

thread_local! {
    static PARKER: Arc<Parker> = Arc::default();
    static HELD: Held = const { Held::new() };
    static CONTEXT: Cell<Context> = const { Cell::new(Context::Thread) };
}

/// Runs an interrupt handler of the driver's, as one that may wait for nothing.
pub(crate) fn in_interrupt(handler: impl FnOnce()) {
    let before = CONTEXT.replace(Context::Interrupt);
    handler();
    CONTEXT.set(before);
}

/// A thread of the test.
#[derive(Clone)]
pub struct FakeThread(Arc<Parker>);

impl fmt::Debug for FakeThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FakeThread({:p})", Arc::as_ptr(&self.0))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakePlatform {
    pub(crate) fn new(shared: Arc<Shared>, can_sleep: bool) -> Self {
        order::watch(|check| HELD.with(|held| check(held, CONTEXT.get())));
        let person = Person {
            caller: Caller::ROOT,
            groups: Vec::new(),
            signal: Signal::None,
            label: None,
        };
        Self {
            inner: Arc::new(Inner {
                shared,
                person: Mutex::new(person),
                hook: Mutex::default(),
                can_sleep,
                unmapped: Mutex::default(),
                cpu: AtomicUsize::new(0),
                parks: AtomicU64::new(0),
                idle: AtomicU64::new(0),
            }),
        }
    }

    /// Sets on whose behalf calls are made from now on.
    pub fn set_caller(&self, caller: Caller) {
        lock(&self.inner.person).caller = caller;
    }

    /// Sets the supplementary groups of the caller.
    pub fn set_groups(&self, groups: &[u32]) {
        lock(&self.inner.person).groups = groups.to_vec();
    }

    /// Sets the label that new files get from now on; their names are appended to
    /// its value.
    pub fn set_label(&self, label: Option<FileLabel>) {
        lock(&self.inner.person).label = label;
    }

    /// Sets the signal that waits see.
    pub fn set_signal(&self, signal: Signal) {
        lock(&self.inner.person).signal = signal;
    }

    /// Sets the CPU that calls seem to be made on.
    pub fn set_cpu(&self, cpu: usize) {
        self.inner.cpu.store(cpu, Ordering::Relaxed);
    }

    /// Calls `hook` at the beginning of each wait, with the number of waits so
    /// far from 1 on: the place to signal a caller, change the tree or release
    /// a reply *while* a call waits.
    pub fn on_park(&self, hook: impl FnMut(u64) + Send + 'static) {
        *lock(&self.inner.hook) = Some(Box::new(hook));
    }

    pub(crate) fn clear_hook(&self) {
        *lock(&self.inner.hook) = None;
    }

    /// Returns which pages the driver had taken out of page tables since the last
    /// call.
    pub fn take_unmapped(&self) -> Vec<FilePages> {
        core::mem::take(&mut lock(&self.inner.unmapped))
    }

    /// Returns the number of waits so far.
    pub fn parks(&self) -> u64 {
        self.inner.parks.load(Ordering::Relaxed)
    }

    /// Lets virtual time pass, and the device with it.
    ///
    /// # Panics
    ///
    /// If the fake runs on the host's clock.
    pub fn advance(&self, time: Duration) {
        let shared = &self.inner.shared;
        assert_ne!(
            shared.drive,
            Drive::Threads,
            "the host's clock goes by itself"
        );
        let end = shared.clock.now() + time;
        loop {
            shared.step();
            let due = shared.device().next_due();
            match due.filter(|&due| due <= end) {
                Some(due) => shared.clock.advance_to(due),
                None => break,
            }
        }
        shared.clock.advance_to(end);
    }

    fn park_virtual(&self, deadline: Option<Duration>) {
        let shared = &self.inner.shared;
        let now = shared.clock.now();
        let (due, stragglers) = {
            if shared.step() {
                self.inner.idle.store(0, Ordering::Relaxed);
                return;
            }
            let mut device = shared.device();
            (
                device.next_due().filter(|&due| due > now),
                device.finish_stragglers(now),
            )
        };
        if stragglers {
            shared.deliver_interrupts();
            return;
        }
        match (due, deadline) {
            (None, None) => {
                // A driver that polls may wait for what it has done itself
                // meanwhile, but not for ever.
                if self.inner.idle.fetch_add(1, Ordering::Relaxed) < 8 {
                    return;
                }
                let device = shared.device().describe();
                panic!("the driver waits for something that will not happen: {device}");
            }
            (Some(to), None) | (None, Some(to)) => self.sleep_until(to),
            (Some(due), Some(deadline)) => self.sleep_until(due.min(deadline)),
        }
    }

    fn sleep_until(&self, to: Duration) {
        let shared = &self.inner.shared;
        if to > shared.clock.now() {
            shared.clock.advance_to(to);
            shared.step();
            self.inner.idle.store(0, Ordering::Relaxed);
        } else if self.inner.idle.fetch_add(1, Ordering::Relaxed) > IDLE_LIMIT {
            let device = shared.device().describe();
            panic!("the driver waits again and again past its deadline: {device}");
        }
    }
}

impl Platform for FakePlatform {
    type Hal = FakeHal;
    type Transport = FakeTransport;
    type Thread = FakeThread;

    fn now(&self) -> Duration {
        self.inner.shared.clock.now()
    }

    fn realtime(&self) -> Option<Duration> {
        Some(Duration::from_secs(1_700_000_000) + self.now())
    }

    fn current_thread(&self) -> FakeThread {
        self.inner.shared.memory.attach();
        PARKER.with(|parker| FakeThread(parker.clone()))
    }

    fn park(&self, deadline: Option<Duration>) {
        self.inner.shared.memory.attach();
        let n = self.inner.parks.fetch_add(1, Ordering::Relaxed) + 1;
        // Taken out while it runs, so that it may set another.
        let hook = lock(&self.inner.hook).take();
        if let Some(mut hook) = hook {
            hook(n);
            lock(&self.inner.hook).get_or_insert(hook);
        }
        let parker = PARKER.with(Clone::clone);
        let mut token = lock(&parker.token);
        if core::mem::take(&mut *token) {
            return;
        }
        if self.inner.shared.drive != Drive::Threads {
            drop(token);
            return self.park_virtual(deadline);
        }
        let mut time = deadline.map(|deadline| deadline.saturating_sub(self.now()));
        if !self.inner.can_sleep {
            time = Some(time.map_or(POLL, |time| time.min(POLL)));
        }
        token = match time {
            Some(time) => {
                let woken = parker.wake.wait_timeout(token, time);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
            None => parker
                .wake
                .wait(token)
                .unwrap_or_else(PoisonError::into_inner),
        };
        *token = false;
    }

    fn unpark(&self, thread: &FakeThread) {
        *lock(&thread.0.token) = true;
        thread.0.wake.notify_one();
    }

    fn can_sleep(&self) -> bool {
        self.inner.can_sleep
    }

    fn map_window(&self, region: SharedMemory) -> Option<WindowMemory> {
        let memory = &self.inner.shared.memory;
        let base = memory.mmio(region.addr, usize::try_from(region.len).ok()?)?;
        // SAFETY: the range is reserved for the window's mappings alone for as long
        // as the fake lives, which a test keeps longer than the driver; nothing
        // refers to bytes in it.
        Some(unsafe { WindowMemory::new(base, region.len) })
    }

    fn unmap_file_pages(&self, pages: &FilePages) {
        lock(&self.inner.unmapped).push(*pages);
    }

    fn signal(&self) -> Signal {
        lock(&self.inner.person).signal
    }

    fn cpu(&self) -> usize {
        self.inner.shared.memory.attach();
        self.inner.cpu.load(Ordering::Relaxed)
    }

    fn caller(&self) -> Caller {
        self.inner.shared.memory.attach();
        lock(&self.inner.person).caller
    }

    fn new_file_label(&self, file: &NewFile<'_>) -> Option<FileLabel> {
        let mut label = lock(&self.inner.person).label.clone()?;
        label.value.extend_from_slice(file.name);
        Some(label)
    }

    fn in_group(&self, gid: u32) -> bool {
        lock(&self.inner.person).groups.contains(&gid)
    }
}
