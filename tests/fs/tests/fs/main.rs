//! The file layer of the driver against the fake device.

mod file;
mod lock;
mod names;
mod notified;
mod xattr;
