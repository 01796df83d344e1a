//! The whole driver against real virtiofsd.

mod acl;
mod common;
mod files;
mod tickets;
