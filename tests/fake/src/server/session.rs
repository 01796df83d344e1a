//! INIT and DESTROY (protocol.md 3.1), and what was negotiated.

use super::message::{Args, Body, Stop, malformed};
use super::{DestroyReply, Handled, Request, Server};
use crate::abi::{Errno, Op, init};

/// The outcome of INIT.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) minor: u32,
    pub(super) flags: u64,
}

impl Server {
    pub(super) fn init(&mut self, request: &Request, mut args: Args) -> Handled {
        if request.nodeid != 0 {
            return malformed("INIT of a node");
        }
        let (major, minor) = (args.u32()?, args.u32()?);
        let (readahead, low) = (args.u32()?, args.u32()?);
        let mut sent = u64::from(low);
        let rest = args.rest();
        match rest.len() {
            0 if minor < 36 && sent & init::INIT_EXT == 0 => (),
            48 => {
                let mut args = Args::new(rest);
                let high = u64::from(args.u32()?);
                if sent & init::INIT_EXT != 0 {
                    sent |= high << 32;
                } else if high != 0 {
                    self.violations.push("INIT: flags2 without INIT_EXT".into());
                }
                args.reserved(44)?;
            }
            n => return malformed(format!("INIT of {} bytes", 16 + n)),
        }
        if sent & (1 << 31) != 0 {
            self.violations.push("INIT: reserved flag 31".into());
        }
        self.end_session();
        let config = &self.config;
        if major > 7 {
            // The client is to come again with our version.
            return Ok(Body::default().u32(7).u32(config.minor).zeros(56));
        }
        if major < 7 || minor < config.min_minor {
            return Err(Stop::Errno(Errno(libc::EPROTO)));
        }
        let flags = sent & config.flags;
        let reply = flags | config.unasked_flags;
        let mut body = Body::default()
            .u32(7)
            .u32(config.minor)
            .u32(readahead.min(config.max_readahead))
            .u32(reply as u32)
            .u16(config.max_background)
            .u16(config.congestion_threshold)
            .u32(config.max_write)
            .u32(config.time_gran)
            .u16(config.max_pages)
            .u16(config.map_alignment)
            .u32((reply >> 32) as u32)
            .u32(config.max_stack_depth)
            .u16(config.request_timeout);
        body.bytes.resize(64, 0);
        body.bytes.truncate(match minor {
            0..5 => 8,
            5..23 => 24,
            _ => 64,
        });
        self.session = Some(Session {
            minor: minor.min(config.minor),
            flags,
        });
        Ok(body)
    }

    /// Says whether an INIT flag is active.
    pub(super) fn has(&self, flag: u64) -> bool {
        self.session
            .is_some_and(|session| session.flags & flag != 0)
    }

    /// What was negotiated: minor version and active flags.
    pub(crate) fn negotiated(&self) -> Option<(u32, u64)> {
        self.session.map(|session| (session.minor, session.flags))
    }

    /// Says whether the client knows that there are no handles.
    pub(super) fn opens_nothing(&self) -> bool {
        self.has(init::NO_OPEN_SUPPORT) && self.config.missing.contains(&Op::OPEN)
            || self.has(init::NO_OPENDIR_SUPPORT) && self.config.missing.contains(&Op::OPENDIR)
    }

    pub(super) fn op_destroy(&mut self, args: Args) -> Handled {
        args.end()?;
        self.end_session();
        match self.config.destroy {
            DestroyReply::Nothing => Err(Stop::Silent),
            DestroyReply::Header => Ok(Body::default()),
        }
    }

    /// Takes the extensions of a create request apart (protocol.md 2.4).
    pub(super) fn extensions(&mut self, request: &mut Request, bytes: &[u8]) -> Result<(), Stop> {
        const GROUPS: u32 = 32;
        let creates = matches!(
            request.op,
            Op::CREATE | Op::TMPFILE | Op::MKDIR | Op::MKNOD | Op::SYMLINK
        );
        if !creates && !bytes.is_empty() {
            return malformed("extensions on a request that creates nothing");
        }
        let mut args = Args::new(bytes);
        let mut left = bytes.len();
        let mut contexts = 0;
        while left > 0 {
            let (size, kind) = (args.u32()? as usize, args.u32()?);
            if size < 8 || size % 8 != 0 || size > left {
                return malformed(format!("extension of {size} bytes"));
            }
            left -= size;
            let mut body = Args::new(args.bytes(size - 8)?);
            if kind == GROUPS && self.has(init::CREATE_SUPP_GROUP) {
                for _ in 0..body.u32()? {
                    request.groups.push(body.u32()?);
                }
            } else if kind < GROUPS && self.has(init::SECURITY_CTX) {
                contexts += 1;
                // The type is the number of contexts.
                for _ in 0..kind {
                    let len = body.u32()? as usize;
                    body.reserved(4)?;
                    let name = body.string()?.to_vec();
                    request.label = Some((name, body.bytes(len)?.to_vec()));
                }
                let padding = body.rest();
                if kind > 1 || padding.len() > 7 || padding.iter().any(|&b| b != 0) {
                    return malformed(format!(
                        "{kind} security contexts, {} bytes behind them",
                        padding.len()
                    ));
                }
            } else {
                return malformed(format!("extension {kind} was not negotiated"));
            }
        }
        if creates && self.has(init::SECURITY_CTX) && contexts != 1 {
            return malformed(format!("{contexts} security context blocks"));
        }
        Ok(())
    }
}
