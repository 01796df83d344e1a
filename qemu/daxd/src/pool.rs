//! Threads that serve requests, whichever ring they come from.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// A fixed number of threads and what is left for them to do. Dropping it waits
/// until all of that is done.
pub struct Pool<J: Send + 'static> {
    work: Arc<Work<J>>,
    threads: Vec<JoinHandle<()>>,
}

struct Work<J> {
    queue: Mutex<Queue<J>>,
    more: Condvar,
}

struct Queue<J> {
    jobs: VecDeque<J>,
    closed: bool,
}

impl<J> Work<J> {
    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<J> {
        let mut queue = self
            .more
            .wait_while(self.lock(), |q| q.jobs.is_empty() && !q.closed)
            .unwrap_or_else(PoisonError::into_inner);
        queue.jobs.pop_front()
    }
}

impl<J: Send + 'static> Pool<J> {
    /// Starts `threads` threads that do jobs with `run`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(threads: usize, run: impl Fn(J) + Clone + Send + 'static) -> io::Result<Self> {
        let work = Arc::new(Work {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                closed: false,
            }),
            more: Condvar::new(),
        });
        let mut pool = Self {
            work,
            threads: Vec::new(),
        };
        for n in 0..threads {
            let (work, run) = (pool.work.clone(), run.clone());
            let body = move || {
                while let Some(job) = work.next() {
                    run(job);
                }
            };
            pool.threads.push(
                thread::Builder::new()
                    .name(format!("worker{n}"))
                    .spawn(body)?,
            );
        }
        Ok(pool)
    }

    /// Leaves a job to the next free thread. Does not block.
    pub fn push(&self, job: J) {
        self.work.lock().jobs.push_back(job);
        self.work.more.notify_one();
    }
}

impl<J: Send + 'static> Drop for Pool<J> {
    fn drop(&mut self) {
        self.work.lock().closed = true;
        self.work.more.notify_all();
        for thread in self.threads.drain(..) {
            // A job that panicked was reported when it did.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn jobs_run_at_the_same_time() {
        // Each waits for the other: one thread alone would never end.
        let meet = Arc::new(Barrier::new(2));
        let pool = Pool::new(2, |meet: Arc<Barrier>| {
            meet.wait();
        })
        .expect("threads");
        pool.push(meet.clone());
        pool.push(meet);
    }

    #[test]
    fn dropping_it_finishes_what_was_pushed() {
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let pool = Pool::new(3, move |n: usize| {
            count.fetch_add(n, Ordering::Relaxed);
        })
        .expect("threads");
        for n in 0..100 {
            pool.push(n);
        }
        drop(pool);
        assert_eq!(done.load(Ordering::Relaxed), 4950);
    }
}
