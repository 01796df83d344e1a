//! The whole driver against real virtiofsd.

mod common;
mod device;
mod files;
