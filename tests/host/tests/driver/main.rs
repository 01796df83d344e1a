//! The whole driver against real virtiofsd.

mod common;
mod files;
mod tickets;
