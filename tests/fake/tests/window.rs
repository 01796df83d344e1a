//! The DAX window, by the specification and by QEMU.

mod client;

use client::{Client, longs, words};
use virtio_fs_fake::{Fake, MemFs, Op, ROOT_ID, WindowRules};

const MIB: u64 = 1 << 20;

/// Maps the window of a transport into a plain pointer.
fn window(client: &Client) -> (*mut u8, u64) {
    use virtio_drivers::Hal;
    let memory = virtio_fs::device::Transport::shared_memory(&client.transport, 0).unwrap();
    // SAFETY: the region that the transport just named.
    let base =
        unsafe { virtio_fs_fake::FakeHal::mmio_phys_to_virt(memory.addr, memory.len as usize) };
    (base.as_ptr(), memory.len)
}

fn windowed(rules: WindowRules, size: usize) -> (Client, virtio_fs_fake::Handle, u64) {
    let mut fs = MemFs::new();
    let data: Vec<u8> = (0..size)
        .map(|n| ((n / 4096) as u8).wrapping_add(1))
        .collect();
    fs.file("f", data).unwrap();
    let (mut client, handle) = Client::mount(Fake::new().fs(fs).window(8 * MIB, rules));
    let node = client.lookup(ROOT_ID, "f").unwrap();
    (client, handle, node)
}

fn setup(client: &mut Client, node: u64, foffset: u64, len: u64, moffset: u64) -> Result<(), i32> {
    client
        .call(
            Op::SETUPMAPPING,
            node,
            &longs(&[u64::MAX, foffset, len, 3, moffset]),
            0,
        )
        .map(|_| ())
}

fn remove(client: &mut Client, moffset: u64, len: u64) -> Result<(), i32> {
    let args = [&words(&[1])[..], &longs(&[moffset, len])].concat();
    client.call(Op::REMOVEMAPPING, 0, &args, 0).map(|_| ())
}

#[test]
fn the_window_shows_the_file_itself() {
    let (mut client, handle, node) = windowed(WindowRules::Spec, 3 * MIB as usize);
    let (base, len) = window(&client);
    assert_eq!(len, 8 * MIB);
    setup(&mut client, node, 2 * MIB, 2 * MIB, 4 * MIB).unwrap();
    // SAFETY: 4 MiB to 5 MiB of the window are mapped to the file's third MiB.
    unsafe {
        assert_eq!(base.add(4 * MIB as usize + 4096).read_volatile(), 2);
        base.add(4 * MIB as usize).write_volatile(0xEE);
    }
    assert_eq!(handle.fs(|fs| fs.read_at("f", 2 * MIB, 1)).unwrap(), [0xEE]);
    handle
        .fs(|fs| fs.write_at("f", 2 * MIB + 1, &[0xDD]))
        .unwrap();
    // SAFETY: as above.
    let next = unsafe { base.add(4 * MIB as usize + 1).read_volatile() };
    assert_eq!(next, 0xDD);
    // The file grows into the mapping.
    handle.fs(|fs| fs.write_at("f", 3 * MIB, &[7])).unwrap();
    // SAFETY: the file has a page at 3 MiB now, and so has the mapping.
    assert_eq!(unsafe { base.add(5 * MIB as usize).read_volatile() }, 7);
    remove(&mut client, 4 * MIB, 2 * MIB).unwrap();
    assert!(handle.mappings().is_empty());
}

#[test]
fn the_spec_window_replaces_and_splits() {
    let (mut client, handle, node) = windowed(WindowRules::Spec, 4 * MIB as usize);
    setup(&mut client, node, 0, 2 * MIB, 0).unwrap();
    setup(&mut client, node, 2 * MIB, 4096, 4096).unwrap();
    let maps: Vec<_> = handle
        .mappings()
        .iter()
        .map(|m| (m.moffset, m.len, m.foffset))
        .collect();
    assert_eq!(
        maps,
        [
            (0, 4096, 0),
            (4096, 4096, 2 * MIB),
            (8192, 2 * MIB - 8192, 8192)
        ]
    );
    let (base, _) = window(&client);
    // SAFETY: all of the first 2 MiB of the window is mapped, nothing past the end.
    let seen = [0, 4096, 8192].map(|at| unsafe { base.add(at).read_volatile() });
    assert_eq!(seen, [1, 1, 3]);
    remove(&mut client, 0, 8 * MIB).unwrap();
    assert!(handle.mappings().is_empty());
    assert_eq!(
        setup(&mut client, node, 0, 4096, 8 * MIB),
        Err(libc::EINVAL)
    );
}

#[test]
fn the_qemu_window_refuses_what_qemu_refuses() {
    let (mut client, handle, node) = windowed(WindowRules::Qemu { slots: 2 }, MIB as usize + 100);
    assert_eq!(
        setup(&mut client, node, 0, 2 * MIB, 0),
        Err(libc::EINVAL),
        "past the end"
    );
    setup(&mut client, node, 0, MIB, 0).unwrap();
    assert_eq!(
        setup(&mut client, node, 0, MIB, 0),
        Err(libc::EINVAL),
        "exact overlap"
    );
    assert_eq!(
        setup(&mut client, node, MIB, 4096, 2 * MIB),
        Err(libc::EINVAL),
        "the tail"
    );
    setup(&mut client, node, 4096, 4096, 2 * MIB).unwrap();
    assert_eq!(
        setup(&mut client, node, 4096, 4096, 4 * MIB),
        Err(libc::ENOSPC)
    );
    assert_eq!(remove(&mut client, 0, 4096), Err(libc::EINVAL), "a part");
    remove(&mut client, 0, MIB).unwrap();
    assert_eq!(handle.mappings().len(), 1);
    // A mapped file outlives its name and its node.
    handle.fs(|fs| fs.remove("f")).unwrap();
    client.forget(node, 1);
    let (base, _) = window(&client);
    // SAFETY: one page at 2 MiB is mapped.
    assert_eq!(unsafe { base.add(2 * MIB as usize).read_volatile() }, 2);
}

#[test]
fn destroy_and_reset_forget_everything() {
    let (mut client, handle, node) = windowed(WindowRules::Spec, 8192);
    client.open(node, libc::O_RDONLY).unwrap();
    setup(&mut client, node, 0, 4096, 0).unwrap();
    assert_eq!(client.exchange(Op::DESTROY, 0, &[], 0).used_len, 0);
    handle.assert_lookups([]);
    assert!(handle.open_handles().is_empty() && handle.mappings().is_empty());
    client.reset();
    assert_eq!(handle.usage().dma_pages, 0);
    client.start(u64::MAX);
    client.init(45, 0).unwrap();
}
