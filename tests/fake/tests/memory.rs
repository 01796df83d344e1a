//! Guest memory: what the device may reach, and what it notices.

mod client;

use std::ptr::NonNull;

use client::{Client, Page, Shared, cstr};
use virtio_drivers::{BufferDirection, Hal};
use virtio_fs::device::Transport;
use virtio_fs_fake::{Fake, FakeHal, Fault, MemFs, Memory, Op, Placement, ROOT_ID, Rule, Sharing};

fn expect(found: &[String], what: &[&str]) {
    let fits = found.len() == what.len() && found.iter().zip(what).all(|(f, w)| f.contains(w));
    assert!(fits, "{found:#?} are not {what:?}");
}

#[test]
fn an_allocation_fails_when_told() {
    let memory = Memory::new(Placement::Contiguous, Sharing::Direct);
    memory.attach();
    memory.fail_allocation(2);
    let first = Page::new();
    assert_eq!(FakeHal::dma_alloc(1, BufferDirection::Both).0, 0);
    let third = Page::new();
    assert_ne!(first.paddr, third.paddr);
    assert_eq!(
        (memory.usage().dma_pages, memory.usage().allocations),
        (2, 3)
    );
    drop((first, third));
    assert_eq!(memory.usage().dma_pages, 0);
    assert!(memory.violations().is_empty());
}

#[test]
fn addresses_are_no_pointers_and_never_come_back() {
    let memory = Memory::new(Placement::Scattered, Sharing::Direct);
    memory.attach();
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let shared = Shared::new(vec![0; 10], BufferDirection::Both);
        assert!(seen.insert(shared.paddr) && shared.paddr >> 62 == 1);
        shared.unshare();
    }
    // Neighbours in time are no neighbours in memory.
    let pages: Vec<u64> = seen.iter().map(|at| at >> 12).collect();
    assert!(pages.windows(2).all(|w| w[1] - w[0] > 1));
    assert!(memory.violations().is_empty());
}

#[test]
fn sharing_across_pages_is_noticed_when_scattered() {
    for (placement, count) in [(Placement::Contiguous, 0), (Placement::Scattered, 1)] {
        let memory = Memory::new(placement, Sharing::Direct);
        memory.attach();
        Shared::new(vec![0; 5000], BufferDirection::Both).unshare();
        assert_eq!(memory.take_violations().len(), count, "{placement:?}");
    }
}

#[test]
fn unsharing_something_else_is_noticed() {
    let memory = Memory::new(Placement::Contiguous, Sharing::Direct);
    memory.attach();
    let mut bytes = [0_u8; 8];
    let buffer = NonNull::from(&mut bytes[..]);
    // SAFETY: a live buffer that nobody else accesses; the wrong calls of
    // `unshare` only make the fake take a note.
    unsafe {
        let at = FakeHal::share(buffer, BufferDirection::DeviceToDriver);
        FakeHal::unshare(at, buffer, BufferDirection::DriverToDevice);
        FakeHal::unshare(at + 1, buffer, BufferDirection::DeviceToDriver);
        FakeHal::unshare(at, buffer, BufferDirection::DeviceToDriver);
        FakeHal::unshare(at, buffer, BufferDirection::DeviceToDriver);
    }
    assert_eq!(memory.take_violations().len(), 3);
    assert_eq!(memory.usage().shares, 0);
}

/// Publishes one descriptor and lets the device look at it.
fn poke(client: &mut Client, addr: u64, len: usize, flags: u16) {
    client.rings[1].describe(0, addr, len, flags, 0);
    client.rings[1].publish(0);
    client.transport.notify(1);
}

/// Where the device is sent, by what is said about it.
type Reach = (&'static str, fn(&Shared) -> (u64, usize));

#[test]
fn the_device_reaches_only_what_is_shared() {
    let bytes = || vec![0; 40];
    let cases: [Reach; 3] = [
        ("past the end", |s| (s.paddr, 41)),
        ("nothing is shared", |s| (s.paddr + 4096, 40)),
        ("nothing is shared", |s| (s.paddr - 1, 40)),
    ];
    for (what, place) in cases {
        let (mut client, handle) = Client::mount(Fake::new());
        let shared = Shared::new(bytes(), BufferDirection::DriverToDevice);
        let (addr, len) = place(&shared);
        poke(&mut client, addr, len, 0);
        expect(&handle.take_violations(), &[what]);
        assert!(
            client.transport.status().bits() & 64 != 0,
            "the device gives up"
        );
        client.reset();
        shared.unshare();
    }
    // A pointer in place of an address, an address after its time, and a
    // buffer of the other direction.
    let (mut client, handle) = Client::mount(Fake::new());
    let heap = Box::new([0_u8; 40]);
    poke(&mut client, heap.as_ptr() as u64, 40, 0);
    expect(&handle.take_violations(), &["nothing is shared"]);
    client.start(u64::MAX);
    let shared = Shared::new(bytes(), BufferDirection::DriverToDevice);
    let at = shared.paddr;
    shared.unshare();
    poke(&mut client, at, 40, 0);
    expect(&handle.take_violations(), &["nothing is shared"]);
    client.start(u64::MAX);
    let shared = Shared::new(bytes(), BufferDirection::DeviceToDriver);
    poke(&mut client, shared.paddr, 40, 0);
    expect(&handle.take_violations(), &["to write only"]);
    client.reset();
    shared.unshare();
}

#[test]
fn freeing_what_the_device_owns_is_noticed() {
    let (mut client, handle) = Client::mount(Fake::new());
    handle.fault(Rule::on(Op::STATFS, Fault::Hold));
    let (_, bytes) = client.message(Op::STATFS, ROOT_ID, &[]);
    let flight = client.submit(1, 0, bytes, 96);
    client.finish(flight, 0);
    expect(
        &handle.take_violations(),
        &["the device owns 40", "the device owns 96"],
    );
    // Rings as well, before the reset only.
    let ring = client.rings.pop();
    drop(ring);
    expect(&handle.take_violations(), &["the device owns"]);
    client.reset();
    assert_eq!((handle.usage().dma_pages, handle.usage().shares), (0, 0));
}

#[test]
fn a_bounced_reply_is_seen_after_unshare_only() {
    let mut fs = MemFs::new();
    fs.file("f", "").unwrap();
    let fake = Fake::new()
        .fs(fs)
        .sharing(Sharing::Bounced)
        .placement(Placement::Scattered);
    let (mut client, handle) = Client::mount(fake);
    let node = client.lookup(ROOT_ID, "f").unwrap();
    assert_eq!(handle.lookups(node), 1);
    let memory = handle.memory();
    let mut reply = [0_u8; 16];
    let buffer = NonNull::from(&mut reply[..]);
    // SAFETY: a live buffer; it is read only through `buffer` until it is unshared.
    let at = unsafe { FakeHal::share(buffer, BufferDirection::DeviceToDriver) };
    let (_, bytes) = client.message(Op::LOOKUP, ROOT_ID, &cstr("nothing"));
    let request = Shared::new(bytes, BufferDirection::DriverToDevice);
    client.rings[1].describe(0, request.paddr, 48, 1, 1);
    client.rings[1].describe(1, at, 16, 2, 0);
    client.rings[1].publish(0);
    client.transport.notify(1);
    client.wait(1);
    // SAFETY: as above.
    let first = unsafe { buffer.cast::<u8>().read_volatile() };
    assert_eq!(first, 0, "still in the bounce buffer");
    // SAFETY: the values of the `share` above.
    unsafe { FakeHal::unshare(at, buffer, BufferDirection::DeviceToDriver) };
    request.unshare();
    assert_eq!(reply[0], 16);
    assert!(memory.violations().is_empty());
}
