//! Ends an exchange of messages with a daemon that has fallen silent.
//!
//! A read timeout on the socket would not do: the vhost crate takes it for a
//! reason to try again, for ever. So one thread per process shuts down sockets
//! whose time is up, and the read ends as it would at the daemon's death.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// One exchange under way.
struct Watched {
    id: u64,
    deadline: Instant,
    socket: Arc<UnixStream>,
}

#[derive(Default)]
struct Watchlist {
    next_id: u64,
    watched: Vec<Watched>,
}

#[derive(Default)]
struct Watchdog {
    list: Mutex<Watchlist>,
    changed: Condvar,
}

impl Watchdog {
    fn list(&self) -> MutexGuard<'_, Watchlist> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut list = self.list();
        loop {
            let now = Instant::now();
            for late in list.watched.extract_if(.., |one| one.deadline <= now) {
                log::warn!("a daemon did not answer in time: connection given up");
                // It may be closed already.
                let _ = late.socket.shutdown(Shutdown::Both);
            }
            let next = list.watched.iter().map(|one| one.deadline).min();
            list = match next {
                None => self
                    .changed
                    .wait(list)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    self.changed
                        .wait_timeout(list, next.saturating_duration_since(now))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

fn watchdog() -> &'static Watchdog {
    static WATCHDOG: OnceLock<&'static Watchdog> = OnceLock::new();
    WATCHDOG.get_or_init(|| {
        let watchdog: &'static Watchdog = Box::leak(Box::default());
        std::thread::Builder::new()
            .name("watchdog".into())
            .spawn(|| watchdog.run())
            .expect("a thread to watch over daemons");
        watchdog
    })
}

/// An exchange that is over when this is dropped.
#[must_use]
pub(crate) struct Exchange(u64);

/// Shuts `socket` down unless the result is dropped within `timeout`.
pub(crate) fn watch(socket: &Arc<UnixStream>, timeout: Duration) -> Exchange {
    let watchdog = watchdog();
    let mut list = watchdog.list();
    let id = list.next_id;
    list.next_id += 1;
    list.watched.push(Watched {
        id,
        deadline: Instant::now() + timeout,
        socket: socket.clone(),
    });
    watchdog.changed.notify_one();
    Exchange(id)
}

impl Drop for Exchange {
    fn drop(&mut self) {
        watchdog().list().watched.retain(|one| one.id != self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_read_ends_at_the_timeout_and_not_before() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(ours);
        let begun = Instant::now();
        let exchange = watch(&ours, Duration::from_millis(30));
        assert_eq!((&*ours).read(&mut [0; 1]).unwrap(), 0);
        assert!(begun.elapsed() >= Duration::from_millis(30));
        drop((exchange, theirs));
    }

    #[test]
    fn an_exchange_in_time_leaves_the_socket_alone() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(ours);
        drop(watch(&ours, Duration::from_millis(10)));
        // Another one, still watched, so that the thread surely wakes up.
        let (other, _end) = UnixStream::pair().unwrap();
        let other = Arc::new(other);
        let exchange = watch(&other, Duration::from_millis(20));
        assert_eq!((&*other).read(&mut [0; 1]).unwrap(), 0);
        drop(exchange);
        theirs.write_all(b"x").unwrap();
        assert_eq!((&*ours).read(&mut [0; 1]).unwrap(), 1);
    }
}
