//! Messages of vhost-user as they pass (QEMU: docs/interop/vhost-user.rst): a
//! header, a payload, open files. Only what a relay must know is read.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

/// Bytes of the header: request, flags, length.
const HEADER: usize = 12;
/// The longest payload that is believed.
const LONGEST: usize = 1 << 16;
/// Open files that one message carries at most (memory regions).
const FILES: usize = 8;
/// Version 1, and "this is a reply".
const REPLY: u32 = 1 | 1 << 2;
/// "Answer even where no answer is usual".
const NEED_REPLY: u32 = 1 << 3;

/// Requests that a relay treats apart, by number.
pub(super) mod request {
    pub(crate) const GET_FEATURES: u32 = 1;
    pub(crate) const SET_FEATURES: u32 = 2;
    pub(crate) const SET_OWNER: u32 = 3;
    pub(crate) const SET_MEM_TABLE: u32 = 5;
    pub(crate) const SET_VRING_NUM: u32 = 8;
    pub(crate) const SET_VRING_ADDR: u32 = 9;
    pub(crate) const GET_VRING_BASE: u32 = 11;
    pub(crate) const SET_VRING_CALL: u32 = 13;
    pub(crate) const GET_PROTOCOL_FEATURES: u32 = 15;
    pub(crate) const SET_PROTOCOL_FEATURES: u32 = 16;
    pub(crate) const GET_QUEUE_NUM: u32 = 17;
    pub(crate) const SET_VRING_ENABLE: u32 = 18;
    pub(crate) const SET_BACKEND_REQ_FD: u32 = 21;
    pub(crate) const GET_CONFIG: u32 = 24;
    pub(crate) const GET_MAX_MEM_SLOTS: u32 = 36;
    pub(crate) const ADD_MEM_REG: u32 = 37;
    pub(crate) const REM_MEM_REG: u32 = 38;
    pub(crate) const GET_STATUS: u32 = 40;
    pub(crate) const GET_SHMEM_CONFIG: u32 = 44;
}

/// A message with all that came with it.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) request: u32,
    flags: u32,
    pub(super) payload: Vec<u8>,
    pub(super) files: Vec<OwnedFd>,
}

impl Message {
    /// A request that is to be answered.
    #[cfg(test)]
    pub(super) fn asking(request: u32, payload: Vec<u8>) -> Self {
        Self {
            request,
            flags: 1 | NEED_REPLY,
            payload,
            files: Vec::new(),
        }
    }

    /// The answer to a request.
    pub(super) fn answer(&self, payload: Vec<u8>) -> Self {
        Self {
            request: self.request,
            flags: REPLY,
            payload,
            files: Vec::new(),
        }
    }

    /// The same message again, with the same files.
    pub(super) fn again(&self) -> io::Result<Self> {
        let files = self.files.iter().map(OwnedFd::try_clone);
        Ok(Self {
            request: self.request,
            flags: self.flags,
            payload: self.payload.clone(),
            files: files.collect::<io::Result<_>>()?,
        })
    }

    /// Whether the other side will answer.
    pub(super) fn is_asking(&self) -> bool {
        use request as r;
        let always = [
            r::GET_FEATURES,
            r::GET_VRING_BASE,
            r::GET_PROTOCOL_FEATURES,
            r::GET_QUEUE_NUM,
            r::GET_CONFIG,
            r::GET_MAX_MEM_SLOTS,
            r::GET_STATUS,
            r::GET_SHMEM_CONFIG,
            // Its relatives that concern no file system, in the order of their numbers.
            6,
            26,
            28,
            31,
            41,
            42,
            43,
        ];
        self.flags & REPLY != REPLY
            && (self.flags & NEED_REPLY != 0 || always.contains(&self.request))
    }

    /// The number of 32 bits at byte `at` of the payload.
    pub(super) fn u32(&self, at: usize) -> Option<u32> {
        let bytes = self.payload.get(at..)?.first_chunk()?;
        Some(u32::from_ne_bytes(*bytes))
    }

    /// The number of 64 bits at byte `at` of the payload.
    pub(super) fn u64(&self, at: usize) -> Option<u64> {
        let bytes = self.payload.get(at..)?.first_chunk()?;
        Some(u64::from_ne_bytes(*bytes))
    }

    /// Reads one message. Blocks. `None` if the other side has gone.
    pub(super) fn receive(socket: impl AsFd) -> io::Result<Option<Self>> {
        let mut files = Vec::new();
        let mut header = [0; HEADER];
        if !fill(&socket, &mut header, &mut files)? {
            return Ok(None);
        }
        let word = |at: usize| {
            let bytes = header[at..].first_chunk().copied();
            u32::from_ne_bytes(bytes.unwrap_or_default())
        };
        let len = word(8) as usize;
        if len > LONGEST {
            return Err(io::Error::other(format!("a message of {len} bytes")));
        }
        let mut payload = vec![0; len];
        if len > 0 && !fill(&socket, &mut payload, &mut files)? {
            return Ok(None);
        }
        Ok(Some(Self {
            request: word(0),
            flags: word(4),
            payload,
            files,
        }))
    }

    /// Writes the message. Blocks while the other side does not read.
    pub(super) fn send(&self, socket: impl AsFd) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(HEADER + self.payload.len());
        for word in [self.request, self.flags, self.payload.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.payload);
        let files: Vec<_> = self.files.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
            return Err(io::Error::other("too many files in one message"));
        }
        let mut sent = 0;
        while sent < bytes.len() {
            let part = [IoSlice::new(&bytes[sent..])];
            sent += sendmsg(&socket, &part, &mut control, SendFlags::NOSIGNAL)?;
            // Files go with the first byte.
            control.clear();
        }
        Ok(())
    }
}

/// Fills `buffer`. False if the other side has gone.
fn fill(socket: &impl AsFd, buffer: &mut [u8], files: &mut Vec<OwnedFd>) -> io::Result<bool> {
    let mut done = 0;
    while done < buffer.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let part = &mut [IoSliceMut::new(&mut buffer[done..])];
        match recvmsg(socket, part, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(read) if read.bytes == 0 => return Ok(false),
            Ok(read) => done += read.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                files.extend(more);
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, os::unix::net::UnixStream};

    #[test]
    fn a_message_arrives_whole_with_its_files() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut message = Message::asking(request::SET_MEM_TABLE, vec![7; 300]);
        let (read, write) = UnixStream::pair().unwrap();
        message.files = vec![write.into(), File::open("/dev/null").unwrap().into()];
        message.send(&here).unwrap();
        drop((message, here));
        let got = Message::receive(&there).unwrap().unwrap();
        assert_eq!((got.request, got.payload.len()), (5, 300));
        assert!(got.is_asking() && !got.answer(vec![]).is_asking());
        assert_eq!(got.files.len(), 2);
        assert!(Message::receive(&there).unwrap().is_none());
        // The file is the one that was sent.
        drop(got);
        let mut read = read;
        assert_eq!(read.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_length_out_of_reason_is_refused() {
        let (here, there) = UnixStream::pair().unwrap();
        rustix::io::write(&here, &[0xff; HEADER]).unwrap();
        assert!(Message::receive(&there).is_err());
    }
}
