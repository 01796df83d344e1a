//! What a fresh daemon has to be told, kept while it is said to the first one: the
//! features, the owner, the guest's memory. Rings are not among it: a new
//! daemon knows nothing of what stands in them, and the driver sets them up anew
//! after it was told (see `rings`).

use super::message::{Message, request as r};
use std::{io, os::fd::AsFd};

/// The messages, in the order in which they came first.
#[derive(Debug, Default)]
pub(super) struct Session(Vec<Message>);

impl Session {
    /// Keeps a message if it belongs to the session.
    pub(super) fn note(&mut self, message: &Message) -> io::Result<()> {
        match message.request {
            r::ADD_MEM_REG => self.0.push(message.again()?),
            r::REM_MEM_REG => {
                // Address and size name it, behind the padding.
                let region = |message: &Message| (message.u64(8), message.u64(16));
                let gone = region(message);
                self.0
                    .retain(|known| known.request != r::ADD_MEM_REG || region(known) != gone);
            }
            r::GET_FEATURES
            | r::SET_FEATURES
            | r::SET_OWNER
            | r::SET_MEM_TABLE
            | r::GET_PROTOCOL_FEATURES
            | r::SET_PROTOCOL_FEATURES
            | r::GET_QUEUE_NUM
            | r::SET_BACKEND_REQ_FD
            | r::GET_MAX_MEM_SLOTS
            | r::GET_SHMEM_CONFIG => {
                let new = message.again()?;
                match self.0.iter_mut().find(|old| old.request == new.request) {
                    Some(old) => *old = new,
                    None => self.0.push(new),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Says it all to a fresh daemon, whose answers nobody needs.
    pub(super) fn replay(&self, daemon: impl AsFd) -> io::Result<()> {
        for message in &self.0 {
            message.send(&daemon)?;
            if message.is_asking() && Message::receive(&daemon)?.is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}
