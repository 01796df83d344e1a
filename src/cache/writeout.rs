//! Bringing dirty pages to the server.

use core::ops::Range;

use super::{Mapping, PAGE, Source};
use crate::conn::{Class, Connection, Turn};
use crate::error::Result;
use crate::platform::Platform;
use crate::wire::{SetIds, Write, WriteOrigin};

/// Sends WRITEs for the dirty pages in `pages` that are not on their way already,
/// neighbours together, cut where multiples of the longest WRITE are. `size` tells the
/// file's, which may grow meanwhile: nothing is written behind it. Blocks for free slots if it may, never
/// for the replies.
pub(crate) fn write_out<P: Platform>(
    conn: &Connection<P>,
    mapping: &Mapping<P::Hal>,
    pages: &Range<u64>,
    size: impl Fn() -> u64,
    source: &Source,
    turn: Turn,
) -> Result<()> {
    let most = (u64::from(conn.limits().max_write) / PAGE).max(1);
    let pieces = conn.max_pieces();
    let mut left = pages.start..pages.end.min(size().div_ceil(PAGE));
    while let Some(first) = mapping.next_dirty(&left) {
        let Some(mut io) = conn.begin_pages(Class::Background, turn)? else {
            return Ok(());
        };
        let limit = left.end.min((first / most + 1) * most);
        let mut page = first;
        while page < limit && io.pieces() < pieces {
            let Some((mut piece, n)) = mapping.take_dirty(page, limit, io.id()) else {
                break;
            };
            // Asked after the page was taken: who writes to it makes the file longer first.
            let rest = size().saturating_sub(page * PAGE);
            piece.len = piece.len.min(rest.min(u64::from(u32::MAX)) as u32);
            io.push(piece);
            page += u64::from(n);
        }
        left.start = page.max(first + 1);
        if page == first {
            continue;
        }
        conn.counters().pages_written.add(page - first);
        let request = Write {
            node: source.node,
            fh: source.fh,
            offset: first * PAGE,
            size: io.bytes() as u32,
            lock_owner: None,
            origin: WriteOrigin::Cache,
            // They went when the file was changed.
            set_ids: SetIds::Keep,
            flags: source.flags,
        };
        io.send(&request)?;
    }
    Ok(())
}

/// Waits until no page in `pages` is on its way to the server. Blocks.
pub(crate) fn await_written<P: Platform>(
    conn: &Connection<P>,
    mapping: &Mapping<P::Hal>,
    pages: &Range<u64>,
) -> Result<()> {
    let mut left = pages.clone();
    while let Some(folio) = mapping.first_in(&left) {
        left.start = folio.behind();
        if let Some(slot) = folio.writing(pages) {
            let done = || folio.writing(pages).is_none().then_some(());
            conn.await_pages(slot, done)?;
        }
        if left.is_empty() {
            break;
        }
    }
    Ok(())
}
