//! A virtio-fs guest driver that any kernel can link.
//!
//! # Layers
//!
//! From caller to bytes; a lower one never names a higher one.
//!
//! | module | holds | knows nothing of |
//! |---|---|---|
//! | [`fs`] | mounts, inodes, names, open files, paths | rings |
//! | `cache` | pages of files: read-ahead, write-back, their memory | names, paths |
//! | [`dax`] | the DAX window: pure accounting and reclaim, and the glue that sends the requests | names, paths |
//! | [`conn`] | a session with a server: INIT, requests in flight, forgets, deadlines, its end | names, paths |
//! | [`wire`] | FUSE messages as plain bytes and plain values | devices, time |
//! | [`device`] | registers, PCI, rings, lending of buffers | FUSE |
//! | [`sync`] | locks and wait queues | |
//! | [`platform`] | what a kernel gives: memory, time, sleeping, who is calling | everything above |
//!
//! A porter reads [`platform`] first and then [`conn::Connection::open`],
//! [`fs::Mount::new`] and [`fs::Process`] or [`fs::Inode`].
//!
//! # What may block
//!
//! What sends a request, and says so: "Blocks". It waits through
//! [`Platform::park`](platform::Platform::park), for as long as
//! [`Config::deadlines`](conn::Config::deadlines) allows. Nothing else waits, no
//! spin lock is held meanwhile, and no `drop` sends and waits.
//!
//! # Lock order
//!
//! From the first to the last; a thread holds at most one of a kind. Debug builds
//! check it, and that nobody sleeps with any but the first two ([`sync::order`]).
//!
//! | rank | guards | held for | in interrupt context |
//! |---|---|---|---|
//! | [`Position`](sync::Rank::Position) | the position of a descriptor ([`sync::SleepLock`]) | one call | no |
//! | [`Layout`](sync::Rank::Layout) | the layout of a file ([`sync::SleepRwLock`]) | one call | no |
//! | [`Dentries`](sync::Rank::Dentries) | a shard of the dentry cache | a look-up | no |
//! | [`Places`](sync::Rank::Places) | where inodes stand in the tree | a move | no |
//! | [`Inodes`](sync::Rank::Inodes) | a shard of the inode table | a look-up | no |
//! | [`Extra`](sync::Rank::Extra) | an inode's place, and its rarely used parts | a few fields | no |
//! | [`Attributes`](sync::Rank::Attributes) | an inode's attributes, which readers see without a lock | a few fields | no |
//! | [`Pages`](sync::Rank::Pages) | the pages of a file | a look-up | no |
//! | [`Folio`](sync::Rank::Folio) | the state of a folio | a few fields | no |
//! | [`Window`](sync::Rank::Window) | the accounts of the DAX window | one step | no |
//! | [`Arguments`](sync::Rank::Arguments) | arguments of a request slot | encoding | no |
//! | [`Ring`](sync::Rank::Ring) | ring of a queue ([`sync::HandoffLock`]) | adding, reaping | tried |
//! | [`Line`](sync::Rank::Line) | line for slots ([`sync::HandoffLock`]) | a list | tried |
//! | [`Forgets`](sync::Rank::Forgets) | what is to be forgotten | a batch | no |
//! | [`Leaf`](sync::Rank::Leaf) | who waits for a slot, and all else | a few fields | the first is tried |
//!
//! A kernel that preempts threads may preempt one that holds a spin lock; others
//! then spin until it runs again. Interrupt handlers never spin.
//!
//! # Unsafe code
//!
//! In DMA memory ([`device::dma`]), in the registers of PCI devices
//! ([`device::pci`]), in the copies from and to the window
//! ([`device::window`]), and where callers' buffers are lent to the device and taken
//! back (`device/share.rs`, `conn/call.rs`). Everything else denies it.
//!
//! # Not here
//!
//! See the table in the README.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

mod cache;
pub mod conn;
pub mod dax;
pub mod device;
pub mod errno;
pub mod error;
pub mod fs;
pub mod platform;
pub mod sync;
pub mod wire;

pub use errno::Errno;
pub use error::{Error, Result};

#[cfg(test)]
mod testing;

/// The example in the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
