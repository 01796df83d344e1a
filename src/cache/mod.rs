//! The page cache: what was read of files, and what is to be written to them.
//!
//! For kernels that have none. It stands between the connection and the file
//! layer and knows files by number, not by name. It is made of
//!
//! | part | what it does |
//! |---|---|
//! | `state` | in which state each page is: pure |
//! | `folio` | a run of up to 64 pages with its memory and their states |
//! | `mapping` | the pages of one file, in order: O(log n) in what is cached |
//! | `store` | the memory of a mount: bound, second chance, reclaim |
//! | `ahead` | what a reader will want next: pure |
//! | `fill` | requests that bring pages |
//! | `writeout`, `errseq` | requests that bring dirty pages to the server, and what became of those that nobody waited for |
//! | `writers` | who writes at the same time |
//!
//! # States of a page
//!
//! | state | content | on the way | may go |
//! |---|---|---|---|
//! | absent | | | |
//! | filling | nobody's business yet | from the server, or from a writer | its place, not its memory |
//! | valid | as the server has it | | at any time |
//! | dirty | newer than the server's | | never |
//! | writing | as the server has it soon | to the server | never |
//! | writing and dirty | newer than what is on its way | to the server | never |
//!
//! The device reads into folios and writes from them; the one copy is the one from
//! or to the caller. A request has a reference to the memory of its folios, so
//! dropping pages never waits: the folio is taken out of its file (detached), and
//! whoever waited for it looks again.
//!
//! # Locks
//!
//! The tree of a file, then the state of a folio; the clock and the spare folios of
//! the store by themselves. All are spin locks, none is held across a request, a
//! copy, or an allocation. Readers of cached pages share the tree for the length of
//! a look-up and exclude nobody.

mod ahead;
mod errseq;
mod fill;
mod folio;
mod mapping;
mod state;
mod store;
mod writeout;
mod writers;

pub(crate) use ahead::{Plan, ReadAhead};
pub(crate) use errseq::ErrSeq;
pub(crate) use fill::{Source, fill};
pub(crate) use folio::{Folio, Found, Put};
pub(crate) use mapping::Mapping;
pub(crate) use store::Store;
pub(crate) use writeout::{await_written, write_out};
pub(crate) use writers::{Writer, Writers};

/// Pages that one folio holds at most: as many as a word has bits.
pub(crate) const FOLIO_PAGES: u32 = 64;

/// Bytes of a page, as offsets are counted.
pub(crate) const PAGE: u64 = crate::platform::PAGE_SIZE as u64;
