//! The channel on which the device asks the front end to map and unmap.
//!
//! QEMU 11.1 acknowledges a request before it commits it: a guest that looks for
//! the reply in memory, instead of waiting for an interrupt, could touch the window
//! before the mapping is there. But it also announces every change of memory to the
//! device, after the commit. So a request here ends with the announcement; only one
//! is under way at a time, for its announcement to be told from another's.
//!
//! A front end that announces nothing for its mappings is recognised by that, and
//! not waited for any more.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use log::debug;
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vhost::vhost_user::{Backend, VhostUserFrontendReqHandler};

use crate::window::{Access, FrontEnd, Piece, Span};

/// Region of the window (`VIRTIO_FS_SHMCAP_ID_CACHE`).
const WINDOW_REGION: u8 = 0;

/// How long an announcement may take; it comes within a millisecond.
const PATIENCE: Duration = Duration::from_millis(500);

/// Changes of memory that the front end has announced.
#[derive(Default)]
pub struct Announcements {
    state: Mutex<Announced>,
    more: Condvar,
}

#[derive(Default)]
struct Announced {
    count: u64,
    habit: Habit,
    /// A request waits for the front end, or for its announcement.
    under_way: bool,
}

/// Whether a front end announces its mappings.
#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum Habit {
    #[default]
    Unknown,
    Announces,
    Silent,
}

impl Announcements {
    /// Counts one.
    pub fn add(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count += 1;
        if state.under_way {
            state.habit = Habit::Announces;
        }
        self.more.notify_all();
    }

    /// Runs `request`, and waits for what it causes if it succeeds.
    fn after<T>(&self, request: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let before = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.under_way = true;
            state.count
        };
        let result = request();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if result.is_ok() && state.habit != Habit::Silent {
            let waited;
            (state, waited) = self
                .more
                .wait_timeout_while(state, PATIENCE, |s| s.count == before)
                .unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                debug!("the front end does not announce its mappings");
                state.habit = Habit::Silent;
            }
        }
        state.under_way = false;
        result
    }
}

/// Asks over the vhost-user back-end channel.
pub struct Channel {
    backend: Backend,
    announcements: Arc<Announcements>,
    /// Held while one request is under way. Nothing that the front end waits for
    /// takes it.
    turn: Mutex<()>,
}

impl Channel {
    /// Asks over `backend`, whose front end's announcements are counted by the
    /// other.
    pub fn new(backend: Backend, announcements: Arc<Announcements>) -> Self {
        Self {
            backend,
            announcements,
            turn: Mutex::new(()),
        }
    }

    fn ask(&self, request: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.announcements.after(request).map(drop)
    }
}

impl FrontEnd for Channel {
    fn map(&self, piece: Piece, file: &File, access: Access) -> io::Result<()> {
        let message = VhostUserMMap {
            shmid: WINDOW_REGION,
            fd_offset: piece.file_offset,
            shm_offset: piece.window_offset,
            len: piece.len,
            flags: match access {
                Access::Read => 0,
                Access::ReadWrite => VhostUserMMapFlags::WRITABLE.bits(),
            },
            ..VhostUserMMap::default()
        };
        self.ask(|| self.backend.shmem_map(&message, file))
    }

    fn unmap(&self, span: Span) -> io::Result<()> {
        let message = VhostUserMMap {
            shmid: WINDOW_REGION,
            shm_offset: span.window_offset,
            len: span.len,
            ..VhostUserMMap::default()
        };
        self.ask(|| self.backend.shmem_unmap(&message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Instant;

    #[test]
    fn a_request_ends_with_its_announcement() {
        let announcements = Arc::new(Announcements::default());
        let (count, started) = (announcements.clone(), Instant::now());
        let late = Duration::from_millis(60);
        let thread = announcements
            .after(|| {
                Ok(thread::spawn(move || {
                    thread::sleep(late);
                    count.add();
                }))
            })
            .expect("it succeeds");
        assert!(started.elapsed() >= late);
        thread.join().expect("the thread ends");
    }

    #[test]
    fn a_front_end_that_announces_nothing_is_waited_for_once() {
        let announcements = Announcements::default();
        announcements.after(|| Ok(())).expect("it succeeds");
        let started = Instant::now();
        for _ in 0..1000 {
            announcements.after(|| Ok(())).expect("it succeeds");
        }
        assert!(started.elapsed() < PATIENCE, "1000 requests waited");
        // Until it announces something after all.
        announcements
            .after(|| {
                announcements.add();
                Ok(())
            })
            .expect("it succeeds");
        assert_eq!(
            announcements.state.lock().expect("unpoisoned").habit,
            Habit::Announces
        );
    }

    #[test]
    fn a_refused_request_is_not_waited_for() {
        let announcements = Announcements::default();
        let started = Instant::now();
        announcements
            .after(|| Err::<(), _>(io::Error::other("refused")))
            .expect_err("it is refused");
        assert!(started.elapsed() < PATIENCE);
        assert_eq!(
            announcements.state.lock().expect("unpoisoned").habit,
            Habit::Unknown
        );
    }
}
