//! The whole driver against real daemons.

mod common;
mod dax;
mod files;
mod tickets;
