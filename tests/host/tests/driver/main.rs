//! The whole driver against real virtiofsd.

mod acl;
mod common;
mod device;
mod files;
