//! The file layer of the driver against the fake device.

mod attr;
mod dir;
mod file;
mod lock;
mod names;
mod notified;
mod open;
mod xattr;
