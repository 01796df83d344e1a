//! The file layer of the driver against the fake device.

mod file;
mod lock;
mod notified;
mod xattr;
