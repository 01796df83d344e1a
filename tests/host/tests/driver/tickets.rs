//! Requests that are polled, as an executor does.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use virtio_fs::conn::{Buffer, Ticket};
use virtio_fs::wire::{FileHandle, Lookup, Name, NodeId, Open, OpenFlags, Read, SetIds};
use virtio_fs_host::HostPlatform;

use crate::common::{Guest, guest};

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor: polls all futures until they are done.
fn run_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut pending: Vec<(usize, Pin<Box<F>>)> =
        futures.into_iter().map(Box::pin).enumerate().collect();
    let mut done: Vec<Option<F::Output>> = pending.iter().map(|_| None).collect();
    let end = Instant::now() + Duration::from_secs(20);
    while !pending.is_empty() {
        assert!(Instant::now() < end, "futures that never become ready");
        pending.retain_mut(|(index, future)| match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => {
                done[*index] = Some(output);
                false
            }
            Poll::Pending => true,
        });
        if !pending.is_empty() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    done.into_iter().map(Option::unwrap).collect()
}

fn open(guest: &Guest, name: &[u8]) -> (NodeId, FileHandle) {
    let inode = guest.mount.root().lookup(name).unwrap();
    let request = Open {
        node: inode.node(),
        flags: OpenFlags::RDONLY,
        set_ids: SetIds::Keep,
    };
    (inode.node(), guest.conn.ask(&request).unwrap().fh)
}

fn read(
    guest: &Guest,
    node: NodeId,
    fh: FileHandle,
    offset: u64,
    size: u32,
) -> Ticket<HostPlatform, Read> {
    let request = Read {
        node,
        fh,
        offset,
        size,
        lock_owner: None,
        flags: OpenFlags::RDONLY,
    };
    let buffer = Buffer::<HostPlatform>::new(size as usize).unwrap();
    guest.conn.submit(&request, Some(buffer)).unwrap()
}

#[test]
fn many_reads_are_in_flight_at_once_and_bring_the_right_bytes() {
    let guest = guest();
    let content: Vec<u8> = (0..1 << 20)
        .map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(guest.path("file"), &content).unwrap();
    let (node, fh) = open(&guest, b"file");
    const SIZE: usize = 32 << 10;
    let tickets = (0..content.len() / SIZE)
        .map(|n| read(&guest, node, fh, (n * SIZE) as u64, SIZE as u32))
        .collect();
    for (n, result) in run_all(tickets).into_iter().enumerate() {
        let (len, buffer) = result.unwrap();
        assert_eq!(len, SIZE);
        let mut bytes = vec![0; SIZE];
        buffer.unwrap().read(0, &mut bytes);
        assert!(bytes == content[n * SIZE..][..SIZE], "piece {n} differs");
    }
    guest.conn.release(node, fh, OpenFlags::RDONLY);
    guest.finish();
}

#[test]
fn a_dropped_ticket_leaks_neither_slot_nor_lookup_nor_handle() {
    let guest = guest();
    std::fs::write(guest.path("file"), b"x").unwrap();
    let inode = guest.mount.root().lookup(b"file").unwrap();
    let (parent, name) = (NodeId::ROOT, Name::new(b"file").unwrap());
    for round in 0..500 {
        let lookup = guest.conn.submit(&Lookup { parent, name }, None).unwrap();
        let request = Open {
            node: inode.node(),
            flags: OpenFlags::RDONLY,
            set_ids: SetIds::Keep,
        };
        let opened = guest.conn.submit(&request, None).unwrap();
        if round % 2 == 0 {
            // Sometimes the reply is there already.
            std::thread::sleep(Duration::from_micros(round));
            guest.conn.poll();
        }
        drop((lookup, opened));
    }
    let end = Instant::now() + Duration::from_secs(10);
    while guest.conn.load().0 > 0 && Instant::now() < end {
        guest.conn.work();
    }
    guest.conn.flush_forgets();
    assert_eq!(
        guest.conn.counters().requests(18),
        500,
        "each handle is released"
    );
    assert_eq!(
        guest.conn.counters().forgets.get(),
        500,
        "each lookup is forgotten"
    );
    drop(inode);
    guest.finish();
}

#[test]
fn a_ticket_can_be_waited_for() {
    let guest = guest();
    std::fs::write(guest.path("file"), b"hello").unwrap();
    let (node, fh) = open(&guest, b"file");
    // One that was polled once and dropped is none of its business.
    let mut early = Box::pin(read(&guest, node, fh, 0, 4096));
    let _ = early.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    drop(early);
    let (len, _) = read(&guest, node, fh, 0, 4096).wait().unwrap();
    assert_eq!(len, 5);
    guest.conn.release(node, fh, OpenFlags::RDONLY);
    guest.finish();
}
