//! What the connection counts. Part of the interface: tests assert on these,
//! the shell prints them, benchmarks report them.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// A count that only grows. Relaxed: it orders nothing.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Adds `n`, for a caller who sees to it that nobody else adds meanwhile.
    pub(crate) fn add_alone(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Returns the count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Opcodes are counted one by one below this number.
const OPCODES: usize = 64;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The counts of one connection since it was made.
        #[derive(Debug)]
        pub struct Counters {
            requests: [Counter; OPCODES],
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Default for Counters {
            fn default() -> Self {
                Self { requests: core::array::from_fn(|_| Counter::default()), $($name: Counter::default(),)* }
            }
        }

        impl Counters {
            /// Calls `each` with the name and value of every count but those by opcode.
            pub fn for_each(&self, mut each: impl FnMut(&'static str, u64)) {
                $(each(stringify!($name), self.$name.get());)*
            }
        }
    };
}

counters! {
    /// Times a queue of the device was notified.
    kicks,
    /// Interrupts that were delivered to the driver.
    interrupts,
    /// Times a waiter looked at the ring itself.
    polls,
    /// Requests that found their ring full.
    queue_full,
    /// Requests that waited for a slot.
    slot_waits,
    /// Bytes sent to the server as payload.
    bytes_sent,
    /// Bytes received from the server as payload.
    bytes_received,
    /// Node ids forgotten, in whatever many messages.
    forgets,
    /// INTERRUPT messages sent.
    interrupts_sent,
    /// Requests given up by their callers.
    orphans,
    /// Requests that passed their deadline.
    timeouts,
    /// Replies that callers took.
    replies,
    /// Sessions made anew.
    restarts,
    /// Requests sent again after their session was lost.
    requests_resent,
    /// Requests lost with their session: their callers got EIO.
    requests_lost,
    /// Replies that were not believed.
    malformed_replies,
    /// Notifications from the server.
    notifications,
    /// Times the device was reset while in use.
    resets,
    /// Heap allocations for requests too long for their page.
    long_requests,
    /// Names found in the dentry cache, positive ones.
    dentry_hits,
    /// Names found in the dentry cache as known not to exist.
    negative_hits,
    /// Names that had to be looked up.
    dentry_misses,
    /// Attributes served from the inode.
    attr_hits,
    /// Attributes that had to be fetched.
    attr_misses,
    /// Directory reads served from cached entries.
    dir_hits,
    /// Symlink targets served from the inode.
    link_hits,
    /// Dentries dropped to stay within the bound.
    dentries_evicted,
    /// Pages of files that readers found in the page cache.
    page_hits,
    /// Pages that they had to wait for.
    page_misses,
    /// Pages asked for before anybody wanted them.
    ahead_pages,
    /// Of those, pages that somebody read.
    ahead_used,
    /// Pages that dirty data went to.
    pages_dirtied,
    /// Pages written out.
    pages_written,
    /// Copies between callers' memory and cached pages.
    page_copies,
    /// Accesses that went through the DAX window.
    dax_copies,
    /// Accesses, of those, that found their part of the file mapped.
    dax_hits,
    /// Bytes read from the DAX window.
    dax_bytes_read,
    /// Bytes written to the DAX window.
    dax_bytes_written,
    /// Parts of files mapped into the window.
    dax_maps,
    /// Parts of files unmapped, for whatever reason.
    dax_unmaps,
    /// Parts unmapped to make room for others.
    dax_reclaims,
    /// Accesses to a file with DAX that went by READ or WRITE.
    dax_fallbacks,
    /// Mappings that the server refused.
    dax_refusals,
    /// Mappings and unmappings of which nobody knows what became.
    dax_lost,
    /// Ranges of unknown state that were brought back.
    dax_repairs,
}

impl Counters {
    /// Counts one request.
    pub(crate) fn request(&self, opcode: u32) {
        if let Some(counter) = self.requests.get(opcode as usize) {
            counter.add(1);
        }
    }

    /// Returns how many requests with `opcode` were sent.
    pub fn requests(&self, opcode: u32) -> u64 {
        self.requests.get(opcode as usize).map_or(0, Counter::get)
    }

    /// Returns how many requests were sent in all, forgets and interrupts
    /// included.
    pub fn total_requests(&self) -> u64 {
        self.requests.iter().map(Counter::get).sum()
    }
}
