//! What mappings cost, counted.

use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Returns the number.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Of all mappings since the boot.
        #[derive(Debug)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        /// The counters.
        pub static COUNTERS: Counters = Counters { $($name: Counter::new(),)* };

        impl Counters {
            /// Calls `each` with every counter's name and value.
            pub fn for_each(&self, mut each: impl FnMut(&'static str, u64)) {
                $(each(stringify!($name), self.$name.get());)*
            }
        }
    };
}

counters! {
    /// Page faults that asked the driver, or copied.
    faults,
    /// Page faults that found the page entered by another CPU meanwhile.
    faults_for_nothing,
    /// Faults that were refused: the end of the file, a page that cannot be mapped.
    faults_refused,
    /// Pages of 2 MiB entered.
    large_pages,
    /// Pages of 4 KiB entered, those around the one that was wanted too.
    small_pages,
    /// Frames filled with a page for a private mapping.
    copied_pages,
    /// Such frames given back.
    copies_freed,
    /// Pages, of both sizes, that the driver took back.
    pages_taken_back,
    /// Pages, of both sizes, that were found written when they were synced.
    dirty_pages,
    /// Times that all CPUs were made to forget translations.
    shootdowns,
}
