//! Asking the server for pages.

use alloc::sync::Arc;
use core::ops::Range;

use super::mapping::Claim;
use super::{Mapping, PAGE};
use crate::conn::{Class, Connection, Turn};
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{FileHandle, NodeId, OpenFlags, Read};

/// Where the pages of a file come from and go to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub(crate) node: NodeId,
    pub(crate) fh: FileHandle,
    pub(crate) flags: OpenFlags,
}

/// Sends READs for the pages in `pages` that are neither here nor on their way, of
/// which somebody waits for those before `wanted`. They go in requests as long as
/// the session allows, cut where multiples of that length are, so that whoever reads
/// a file in any pieces sends the same few requests.
///
/// Blocks for a free slot if the first of them is wanted; all others go out only
/// while nobody else is kept waiting. Returns the page before which everything was
/// asked for: less than the end if there is no slot or no memory.
pub(crate) fn fill<P: Platform>(
    conn: &Connection<P>,
    mapping: &Arc<Mapping<P::Hal>>,
    pages: &Range<u64>,
    wanted: u64,
    source: &Source,
) -> Result<u64> {
    let most = u64::from(conn.limits().max_read) / PAGE;
    let pieces = conn.max_pieces();
    let mut left = pages.clone();
    while let Some(first) = mapping.next_absent(&left) {
        let (class, turn) = if first < wanted && left.start == pages.start {
            (Class::Normal, Turn::Wait)
        } else {
            (Class::Background, Turn::IfFree)
        };
        let Some(mut io) = conn.begin_pages(class, turn)? else {
            return Ok(first);
        };
        let limit = left.end.min((first / most + 1) * most);
        let mut page = first;
        let mut full = false;
        while page < limit && io.pieces() < pieces {
            match mapping.claim(page, limit, io.id(), page >= wanted) {
                Claim::Pages(piece, n) => {
                    io.push(piece);
                    page += u64::from(n);
                }
                Claim::Taken => break,
                Claim::Full => {
                    full = true;
                    break;
                }
            }
        }
        if page > first {
            if first >= wanted {
                conn.counters().ahead_pages.add(page - first);
            }
            let size = io.bytes() as u32;
            io.send(&Read {
                node: source.node,
                fh: source.fh,
                offset: first * PAGE,
                size,
                lock_owner: None,
                flags: source.flags,
            })?;
        }
        if full {
            return Ok(page);
        }
        left.start = page;
    }
    Ok(pages.end)
}
