//! The test's side of a fake device: looking inside, and making things happen.

use core::ops::Deref;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};

use crate::abi::Op;
use crate::device::{DeviceStats, Interrupt};
use crate::faults::Rule;
use crate::memfs::{Ino, MemFs};
use crate::memory::{Memory, Usage};
use crate::platform::FakePlatform;
use crate::server::{Lock, Notification, OpenHandle, Record, ServerConfig};
use crate::shared::Shared;
use crate::window::Mapping;

/// The test's end of a fake device; all that it can do is in [`Control`].
///
/// When it is dropped, the device's threads end, and violations that nobody
/// took with [`take_violations`](Control::take_violations) panic.
#[derive(Debug)]
pub struct Handle {
    control: Control,
    threads: Vec<JoinHandle<()>>,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>, threads: Vec<JoinHandle<()>>, can_sleep: bool) -> Self {
        let platform = FakePlatform::new(shared.clone(), can_sleep);
        let control = Control { shared, platform };
        Self { control, threads }
    }
}

impl Deref for Handle {
    type Target = Control;

    fn deref(&self) -> &Control {
        &self.control
    }
}

/// Looks inside a fake device and makes things happen. A copy controls the same
/// device, so hooks and threads can have one.
#[derive(Clone, Debug)]
pub struct Control {
    shared: Arc<Shared>,
    platform: FakePlatform,
}

impl Control {
    /// Returns a copy for a hook or another thread.
    pub fn control(&self) -> Self {
        self.clone()
    }

    /// Returns the platform to give to the driver.
    pub fn platform(&self) -> FakePlatform {
        self.platform.clone()
    }

    /// Returns the guest's memory.
    pub fn memory(&self) -> Arc<Memory> {
        self.shared.memory.clone()
    }

    /// Calls `handler` for every interrupt: inside `park` and
    /// [`step`](Self::step), or on the device's threads; never inside `notify`.
    pub fn on_interrupt(&self, handler: impl Fn(Interrupt) + Send + Sync + 'static) {
        let mut slot = self
            .shared
            .handler
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::new(handler));
    }

    // Looking.

    /// Returns how many requests of a kind the server has seen.
    pub fn count(&self, op: Op) -> u64 {
        self.shared
            .device()
            .server
            .counts
            .get(&op)
            .copied()
            .unwrap_or(0)
    }

    /// Returns how many requests of each kind the server has seen.
    pub fn counts(&self) -> BTreeMap<Op, u64> {
        self.shared.device().server.counts.clone()
    }

    /// Returns the last requests, oldest first.
    pub fn log(&self) -> Vec<Record> {
        self.shared.device().server.log.iter().cloned().collect()
    }

    /// Forgets the log and the counts.
    pub fn clear_log(&self) {
        let server = &mut self.shared.device().server;
        server.log.clear();
        server.counts.clear();
    }

    /// Returns the server's lookup count of a node, 0 if it knows none.
    pub fn lookups(&self, nodeid: u64) -> u64 {
        self.shared.device().server.lookups(nodeid)
    }

    /// Returns every node that the server keeps for the client with its lookup
    /// count, but for the root.
    pub fn nodes(&self) -> BTreeMap<u64, u64> {
        self.shared.device().server.known_nodes()
    }

    /// Checks that the client's lookup counts are the server's, node by node.
    ///
    /// # Panics
    ///
    /// If they differ.
    pub fn assert_lookups(&self, client: impl IntoIterator<Item = (u64, u64)>) {
        let client: BTreeMap<u64, u64> = client.into_iter().collect();
        assert_eq!(
            client,
            self.nodes(),
            "lookup counts: client on the left, server on the right"
        );
    }

    /// Returns the node id of an inode, if the client knows it.
    pub fn nodeid(&self, ino: Ino) -> Option<u64> {
        self.shared.device().server.node_of(ino)
    }

    /// Returns the generation of a node that the client knows.
    pub fn generation(&self, nodeid: u64) -> Option<u64> {
        self.shared.device().server.generation(nodeid)
    }

    /// Returns the open handles.
    pub fn open_handles(&self) -> BTreeMap<u64, OpenHandle> {
        self.shared.device().server.open_handles()
    }

    /// Returns the locks held on a file.
    pub fn locks(&self, ino: Ino) -> Vec<Lock> {
        self.shared.device().server.held_locks(ino)
    }

    /// Returns the live mappings in the window.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.shared.device().server.mappings()
    }

    /// Returns minor version and active flags, `None` without a session.
    pub fn negotiated(&self) -> Option<(u32, u64)> {
        self.shared.device().server.negotiated()
    }

    /// Returns the feature bits that the driver accepted.
    pub fn accepted_features(&self) -> u64 {
        self.shared.device().accepted()
    }

    /// Returns the data that came with NOTIFY_REPLY, each with its number.
    pub fn retrieved(&self) -> Vec<(u64, Vec<u8>)> {
        self.shared.device().server.retrieved.clone()
    }

    /// Returns what the device counted.
    pub fn stats(&self) -> DeviceStats {
        self.shared.device().stats
    }

    /// Returns the number of requests and buffers that the device owns.
    pub fn in_flight(&self) -> usize {
        self.shared.device().in_flight()
    }

    /// Returns what is shared and allocated.
    pub fn usage(&self) -> Usage {
        self.shared.memory.usage()
    }

    /// Returns the time of the device's clock.
    pub fn now(&self) -> Duration {
        self.shared.clock.now()
    }

    /// Returns everything that the driver did wrong, and forgets it.
    pub fn take_violations(&self) -> Vec<String> {
        let mut device = self.shared.device();
        let mut all = core::mem::take(&mut device.violations);
        all.append(&mut device.server.violations);
        all.extend(self.shared.memory.take_violations());
        all
    }

    /// Checks that the driver has done nothing wrong since the last look.
    ///
    /// # Panics
    ///
    /// If it has; the message lists it.
    pub fn assert_clean(&self) {
        let violations = self.take_violations();
        assert!(
            violations.is_empty(),
            "the driver broke rules:\n  {}",
            violations.join("\n  ")
        );
    }

    // Making things happen.

    /// Works on the tree, as another program on the host would. The device is
    /// locked meanwhile, so `work` must not use it.
    pub fn fs<T>(&self, work: impl FnOnce(&mut MemFs) -> T) -> T {
        let mut device = self.shared.device();
        let fs = &mut device.server.fs;
        fs.set_now(Duration::from_secs(1_700_000_000) + self.shared.clock.now());
        let done = work(fs);
        device.server.refresh_window();
        done
    }

    /// Changes the server's choices; what INIT negotiated stays.
    pub fn tune(&self, tune: impl FnOnce(&mut ServerConfig)) {
        tune(&mut self.shared.device().server.config);
    }

    /// Adds misbehaviour.
    pub fn fault(&self, rule: Rule) {
        self.shared.device().faults.add(rule);
    }

    /// Ends all misbehaviour that has not happened yet.
    pub fn clear_faults(&self) {
        self.shared.device().faults.clear();
    }

    /// Lets the device do what it can do now, and delivers its interrupts.
    /// Returns whether there was anything.
    pub fn step(&self) -> bool {
        self.shared.step()
    }

    /// Delivers the replies that [`Fault::Hold`](crate::Fault::Hold) kept back.
    /// Returns how many there were.
    pub fn release_held(&self) -> usize {
        let count = self.shared.device().release_held(self.shared.clock.now());
        self.run();
        count
    }

    /// Sends a notification, as soon as there is a buffer for it.
    pub fn notify(&self, notification: &Notification) {
        self.shared.device().server.notify(notification);
        self.run();
    }

    /// Sets what POLL says about a file.
    pub fn set_poll(&self, ino: Ino, events: u32) {
        self.shared.device().server.set_poll(ino, events);
        self.run();
    }

    /// Changes the configuration space and says so.
    pub fn change_config(&self, offset: usize, bytes: &[u8]) {
        self.shared.device().change_config(offset, bytes);
        self.run();
    }

    /// Kills the server and puts another process in its place, which hands out ids
    /// from the beginning. What was on the queues is lost; the device asks for a
    /// reset.
    pub fn restart_server(&self) {
        let mut device = self.shared.device();
        device.server.start_over();
        device.needs_reset();
        drop(device);
        self.run();
    }

    /// Lets the device ask for a reset. It serves nothing until then.
    pub fn needs_reset(&self) {
        self.shared.device().needs_reset();
        self.run();
    }

    /// Takes the device away: every register reads as all ones.
    pub fn vanish(&self) {
        self.shared.device().vanish();
    }

    /// Takes the window away: it reads as all ones, and the registers know none.
    pub fn vanish_window(&self) {
        self.shared.device().vanish_window();
    }

    /// Does nothing if nobody is to work unasked: the next `step` will.
    fn run(&self) {
        match self.shared.drive {
            crate::Drive::Immediate => {
                self.shared.device().run(self.shared.clock.now());
            }
            crate::Drive::Manual => (),
            crate::Drive::Threads => self.shared.wake.notify_all(),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.device().stop = true;
        self.shared.wake.notify_all();
        let joined = self.threads.drain(..).map(JoinHandle::join);
        let failed = joined.filter(Result::is_err).count();
        // The handler keeps the driver alive, the driver the device; a hook may
        // keep a copy of the control.
        self.platform.clear_hook();
        *self
            .shared
            .handler
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        if !thread::panicking() {
            assert_eq!(failed, 0, "threads of the device that panicked");
            self.assert_clean();
        }
    }
}
