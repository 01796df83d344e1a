//! A small shell, without any idea of files: those commands come from whoever
//! uses it, in a [`Context`] of their own.
//!
//! [`words`] takes a line apart, [`line`](mod@line) edits one, [`command`] has the
//! commands and runs them. All three are pure: they read and write through what
//! they are given. [`interact`](mod@interact) joins them to the console.

pub mod command;
pub mod interact;
pub mod line;
pub mod words;

pub use command::{Command, Context, Shell};
pub use interact::interact;
pub use line::{Completion, Editor, Event};
