//! The whole driver against real daemons.

mod acl;
mod common;
mod dax;
mod files;
mod kills;
mod tickets;
