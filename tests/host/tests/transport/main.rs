//! The transport against real daemons, below any FUSE driver.

mod common;
mod daxd;
mod virtiofsd;
