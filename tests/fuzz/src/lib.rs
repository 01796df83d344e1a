//! What is fuzzed: each [`Target`] is a function of bytes that panics where the driver breaks a promise.
//!
//! | target | bytes are |
//! |---|---|
//! | [`wire`] | a reply, its request's expectations, and the dialect |
//! | [`dirents`] | the records of a directory |
//! | [`ring`] | what a device writes into a queue, between what the driver does |
//! | [`session`] | a device, a server that lies, and calls on the mount |
//! | [`model`] | calls on a mount with caches, one without, and the tree behind them |
//!
//! The same functions run in three ways: under cargo-fuzz (`fuzz/`), guided by coverage; in the seeded
//! loops of [`seeded`], which `make test` runs for some seconds; and on the inputs in `corpus/`.
//! Calls on a real server and on a plain directory are compared in `tests/host`.

pub mod dirents;
pub mod input;
pub mod model;
pub mod ring;
pub mod seeded;
pub mod session;
pub mod wire;

/// One thing that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs one input; panics on a finding.
    pub run: fn(&[u8]),
    /// The longest input that is worth making.
    pub max_len: usize,
    /// How many inputs `make test` makes.
    pub executions: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "wire",
        run: wire::run,
        max_len: 512,
        executions: 40_000,
    },
    Target {
        name: "dirents",
        run: dirents::run,
        max_len: 1024,
        executions: 40_000,
    },
    Target {
        name: "ring",
        run: ring::run,
        max_len: 1024,
        executions: 5_000,
    },
    Target {
        name: "session",
        run: session::run,
        max_len: 2048,
        executions: 600,
    },
    Target {
        name: "model",
        run: model::run,
        max_len: 4096,
        executions: 100,
    },
];
