//! Other people's reclaim policies, as far as a ledger of ranges lets them be
//! expressed, written from descriptions of the algorithms.
//!
//! Like their originals they map whatever is accessed. An access to the range
//! accessed just before is not reported to them, so that many small reads of
//! one range do not look like popularity; that is kinder than reality.

mod arc;
mod frugal;
mod lirs;
mod queues;
mod simple;
mod tinylfu;

pub use arc::Arc;
pub use frugal::Frugal;
pub use lirs::Lirs;
pub use queues::{S3Fifo, TwoQueues};
pub use simple::{Clock, Fifo, Lifo, Lru};
pub use tinylfu::TinyLfu;

use virtio_fs::dax::{Access, Chunk, InodeKey, RangeId};

/// A chunk of a file.
type Key = (InodeKey, Chunk);

const fn key(access: &Access) -> Key {
    (access.inode, access.chunk)
}

/// A queue whose members can be taken from the middle; the front goes first.
#[derive(Clone, Debug)]
struct Queue<T>(Vec<T>);

impl<T: PartialEq + Copy> Queue<T> {
    const fn new() -> Self {
        Self(Vec::new())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, member: T) {
        self.0.push(member);
    }

    /// Takes `member` out; says whether it was in.
    fn take(&mut self, member: T) -> bool {
        let place = self.0.iter().position(|&other| other == member);
        place.map(|place| self.0.remove(place)).is_some()
    }

    fn pop(&mut self) -> Option<T> {
        (!self.0.is_empty()).then(|| self.0.remove(0))
    }

    /// Keeps the last `count` members.
    fn trim(&mut self, count: usize) {
        while self.len() > count {
            self.pop();
        }
    }

    fn first(&self, mut may: impl FnMut(T) -> bool) -> Option<T> {
        self.0.iter().copied().find(|&member| may(member))
    }
}

/// Remembers the range accessed last, to tell repeats.
#[derive(Debug, Default)]
struct Repeats(Option<RangeId>);

impl Repeats {
    fn is_repeat(&mut self, range: RangeId) -> bool {
        self.0.replace(range) == Some(range)
    }
}
