//! One FUSE session: checks each request, serves what the passthrough lacks, and
//! sees to it that every request that waits for an answer gets one.
//!
//! A guest may send anything. What is malformed is answered with EINVAL, what comes
//! before INIT or after DESTROY with EIO; nothing ends the daemon or a thread.

use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{Reader, VirtioFsWriter, Writer};
use log::{debug, error, info, warn};

use crate::limits::{Abilities, Answer, INIT_IN, INIT_OUT, MAX_REQUEST};
use crate::ring::{Stopped, Ticket};
use crate::share::{Place, Share};
use crate::stats::Stats;
use crate::window::{Access, Piece, Span, Window};
use crate::wire::{self, IN_HEADER, InHeader, OUT_HEADER, opcode, u32_at, u64_at};

/// A session over one device; a second INIT begins it anew.
pub struct Session {
    server: Server<Arc<Share>>,
    share: Arc<Share>,
    window: Arc<Window>,
    stats: Arc<Stats>,
    abilities: Abilities,
    /// Between INIT and DESTROY.
    begun: AtomicBool,
}

/// SETUPMAPPING's flag for a mapping that is written through.
const MAP_WRITE: u64 = 1;
const MAP_FLAGS: u64 = 3;

fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Session {
    /// A session that waits for its INIT.
    pub fn new(
        share: Arc<Share>,
        window: Arc<Window>,
        stats: Arc<Stats>,
        abilities: Abilities,
    ) -> Self {
        Self {
            server: Server::new(share.clone()),
            share,
            window,
            stats,
            abilities,
            begun: AtomicBool::new(false),
        }
    }

    /// Ends the session: nodes, handles and mappings are dropped. For a device
    /// reset and for a front end that is gone.
    pub fn end(&self) {
        self.begun.store(false, Ordering::Release);
        self.share.end();
        self.window.clear();
    }

    /// Serves a request, and returns how many bytes of the writable area it has
    /// written. Blocks as long as the operation does on the host.
    ///
    /// # Errors
    /// The ring was stopped while the request waited for the front end.
    pub fn serve(
        &self,
        reader: Reader<'_>,
        writer: VirtioFsWriter<'_>,
        ticket: &mut Ticket,
    ) -> Result<u32, Stopped> {
        let mut spare = writer.clone();
        let mut first = [0; IN_HEADER];
        let mut body = reader.clone();
        if body.read_exact(&mut first).is_err() {
            self.stats.malformed();
            // Who asked cannot be known.
            return Ok(self.refuse(&mut spare, 0, &errno(libc::EINVAL)));
        }
        let header = InHeader::parse(&first);
        self.stats.request(header.opcode);
        let served = match self.check(
            &header,
            reader.available_bytes(),
            body,
            spare.available_bytes(),
        ) {
            Err(e) => {
                self.stats.malformed();
                Err(e)
            }
            Ok(body) => {
                let dispatch =
                    AssertUnwindSafe(|| self.dispatch(&header, &body, reader, writer, ticket));
                match catch_unwind(dispatch) {
                    Ok(Ok(served)) => served,
                    Ok(Err(Stopped)) => return Err(Stopped),
                    Err(_) => {
                        error!("a request panicked: {header:?}");
                        Err(errno(libc::EIO))
                    }
                }
            }
        };
        Ok(match served {
            Ok(n) => n as u32,
            Err(e) if header.is_unanswered() => {
                debug!("{header:?}: {e}");
                0
            }
            Err(e) => self.refuse(&mut spare, header.unique, &e),
        })
    }

    /// Writes an error reply, if there is room.
    fn refuse(&self, writer: &mut VirtioFsWriter<'_>, unique: u64, e: &io::Error) -> u32 {
        self.stats.error();
        let code = e
            .raw_os_error()
            .filter(|code| (1..=511).contains(code))
            .unwrap_or(libc::EIO);
        match writer.write_all(&wire::out_header(unique, 0, code)) {
            Ok(()) => OUT_HEADER as u32,
            Err(_) => 0,
        }
    }

    /// Checks a request against its shape; returns its fixed arguments and names.
    fn check(
        &self,
        header: &InHeader,
        readable: usize,
        mut body: Reader<'_>,
        writable: usize,
    ) -> io::Result<Vec<u8>> {
        if header.len as usize != readable {
            return Err(errno(libc::EINVAL));
        }
        if readable > MAX_REQUEST {
            return Err(errno(libc::ENOMEM));
        }
        let room = match writable.checked_sub(OUT_HEADER) {
            Some(room) => room,
            None if header.is_unanswered() || header.opcode == opcode::DESTROY => 0,
            None => return Err(errno(libc::EINVAL)),
        };
        let body_len = readable - IN_HEADER;
        let wanted = match header.opcode {
            opcode::INIT => INIT_IN,
            opcode::REMOVEMAPPING => usize::MAX,
            _ => wire::checked_bytes(header),
        };
        let mut bytes = vec![0; wanted.min(body_len)];
        body.read_exact(&mut bytes)?;
        wire::check(header, &bytes, body_len, room)?;
        if header.opcode != opcode::INIT && !self.begun.load(Ordering::Acquire) {
            return Err(errno(libc::EIO));
        }
        Ok(bytes)
    }

    /// The outer error is for a request that must not touch its memory any more.
    fn dispatch(
        &self,
        header: &InHeader,
        body: &[u8],
        reader: Reader<'_>,
        mut writer: VirtioFsWriter<'_>,
        ticket: &mut Ticket,
    ) -> Result<io::Result<usize>, Stopped> {
        // These wait for the front end.
        let done = match header.opcode {
            opcode::INIT => ticket.away(|| self.init(body, writer.available_bytes()))?,
            opcode::DESTROY => ticket.away(|| {
                self.end();
                Ok(Vec::new())
            })?,
            opcode::SETUPMAPPING => ticket.away(|| self.setup_mapping(header.node, body))?,
            opcode::REMOVEMAPPING => ticket.away(|| self.remove_mapping(body))?,
            opcode::SYNCFS => self
                .share
                .sync_file_system(header.node)
                .map(|()| Vec::new()),
            opcode::COPY_FILE_RANGE | opcode::COPY_FILE_RANGE_64 => self.copy(header.node, body),
            opcode::INTERRUPT => return Ok(Ok(0)),
            _ => return Ok(self.hand_on(header, reader, writer)),
        };
        Ok(
            match done.and_then(|payload| reply(header, &mut writer, &payload)) {
                // There may be no room, and nobody need look at it.
                Err(_) if header.opcode == opcode::DESTROY => Ok(0),
                other => other,
            },
        )
    }

    /// Leaves a request to fuse-backend-rs.
    fn hand_on(
        &self,
        header: &InHeader,
        reader: Reader<'_>,
        writer: VirtioFsWriter<'_>,
    ) -> io::Result<usize> {
        match self
            .server
            .handle_message(reader, Writer::VirtioFs(writer), None, None)
        {
            Ok(n) => Ok(n),
            Err(e) => {
                debug!("{header:?}: {e}");
                Err(errno(libc::EINVAL))
            }
        }
    }

    fn init(&self, body: &[u8], room: usize) -> io::Result<Vec<u8>> {
        if room < OUT_HEADER + INIT_OUT {
            return Err(errno(libc::EINVAL));
        }
        let (flags, reply) = match self.abilities.answer(body)? {
            Answer::AskAgain { reply } => return Ok(reply.to_vec()),
            Answer::Begin { flags, reply } => (flags, reply),
        };
        info!("session begins, flags {flags:#x}");
        self.window.clear();
        self.share.begin(flags);
        self.begun.store(true, Ordering::Release);
        Ok(reply.to_vec())
    }

    fn setup_mapping(&self, node: u64, body: &[u8]) -> io::Result<Vec<u8>> {
        let flags = u64_at(body, 24);
        if flags == 0 || flags & !MAP_FLAGS != 0 {
            return Err(errno(libc::EINVAL));
        }
        let access = if flags & MAP_WRITE != 0 {
            Access::ReadWrite
        } else {
            Access::Read
        };
        let piece = Piece {
            file_offset: u64_at(body, 8),
            len: u64_at(body, 16),
            window_offset: u64_at(body, 32),
        };
        self.share
            .map(&self.window, node, piece, access)
            .map(|()| Vec::new())
    }

    fn remove_mapping(&self, body: &[u8]) -> io::Result<Vec<u8>> {
        let count = u32_at(body, 0) as usize;
        let spans: Vec<Span> = (0..count)
            .map(|n| 4 + 16 * n)
            .map(|at| Span {
                window_offset: u64_at(body, at),
                len: u64_at(body, at + 8),
            })
            .collect();
        self.window.unmap(&spans).map(|()| Vec::new())
    }

    fn copy(&self, node: u64, body: &[u8]) -> io::Result<Vec<u8>> {
        let from = Place {
            node,
            handle: u64_at(body, 0),
            offset: u64_at(body, 8),
        };
        let to = Place {
            node: u64_at(body, 16),
            handle: u64_at(body, 24),
            offset: u64_at(body, 32),
        };
        let copied = self
            .share
            .copy(from, to, u64_at(body, 40), u64_at(body, 48))?;
        // Both replies are 8 bytes, and `Share::copy` keeps it below 32 bits.
        Ok(copied.to_le_bytes().to_vec())
    }
}

fn reply(header: &InHeader, writer: &mut VirtioFsWriter<'_>, payload: &[u8]) -> io::Result<usize> {
    if writer.available_bytes() < OUT_HEADER + payload.len() {
        warn!("no room for the reply to {header:?}");
        return Err(errno(libc::EINVAL));
    }
    writer.write_all(&wire::out_header(header.unique, payload.len(), 0))?;
    writer.write_all(payload)?;
    Ok(OUT_HEADER + payload.len())
}
