//! Reads and cold stats in ns, beside the same calls on the bare directory, a copy
//! of memory, and the same requests by themselves.

use std::os::unix::fs::FileExt;
use std::time::Instant;

use virtio_fs::conn::Class;
use virtio_fs::device::Data;
use virtio_fs::fs::{At, Symlinks};
use virtio_fs::wire::{Open, OpenFlags, Read, SetIds};

/// The best of five runs of `work`, for each of `count` operations, in ns.
fn best(count: usize, mut work: impl FnMut()) -> f64 {
    let run = |_| {
        let begun = Instant::now();
        work();
        begun.elapsed().as_secs_f64() * 1e9 / count as f64
    };
    (0..5).map(run).fold(f64::INFINITY, f64::min)
}

/// Reads beside pread(2) on the bare directory, a copy of memory, and the same
/// requests by themselves.
pub(super) fn data() {
    const MIB: usize = 1 << 20;
    const LEN: usize = 32 * MIB;
    let share = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let content: Vec<u8> = (0..LEN).map(|i| ((i * 131) >> 3) as u8).collect();
    std::fs::write(share.path().join("big"), &content).unwrap();
    let guest = super::guest(share.path(), "always", 16_384);
    let p = &guest.process;
    let bare = std::fs::File::open(share.path().join("big")).unwrap();
    let direct = p.open(At::Cwd, b"big", OpenFlags::DIRECT, 0).unwrap();
    let cached = p.open(At::Cwd, b"big", OpenFlags::RDONLY, 0).unwrap();
    let inode = p.lookup(At::Cwd, b"big", Symlinks::Follow).unwrap();
    let open = Open {
        node: inode.node(),
        flags: OpenFlags::RDONLY,
        set_ids: SetIds::Keep,
    };
    let fh = guest.conn.ask(&open).unwrap().fh;
    println!(
        "\n{:9} {:>11} {:>11} {:>11} {:>11} {:>11}   ns for each read, best of 5",
        "reads of", "requests", "direct", "cached", "a copy", "pread(2)"
    );
    for size in [4096, MIB] {
        let mut buf = vec![0; size];
        let offsets = || (0..LEN).step_by(size);
        let count = LEN / size;
        let requests = best(count, || {
            for at in offsets() {
                let request = Read {
                    node: inode.node(),
                    fh,
                    offset: at as u64,
                    size: size as u32,
                    lock_owner: None,
                    flags: OpenFlags::RDONLY,
                };
                let data = Data::Sink(&mut [&mut buf]);
                let got = guest.conn.call(&request, data, Class::Normal).unwrap();
                assert_eq!(got, size);
            }
        });
        let read = |fd, buf: &mut [u8]| {
            for at in offsets() {
                assert_eq!(p.pread(fd, buf, at as u64).unwrap(), size);
            }
        };
        let ours = best(count, || read(direct, &mut buf));
        read(cached, &mut buf);
        let sent = guest.conn.counters().total_requests();
        let again = best(count, || read(cached, &mut buf));
        assert_eq!(
            guest.conn.counters().total_requests(),
            sent,
            "cached data are not asked for"
        );
        assert_eq!(buf, content[LEN - size..]);
        let copy = best(count, || {
            for at in offsets() {
                buf.copy_from_slice(&content[at..at + size]);
                std::hint::black_box(&buf);
            }
        });
        let host = best(count, || {
            for at in offsets() {
                bare.read_exact_at(&mut buf, at as u64).unwrap();
            }
        });
        println!("{size:9} {requests:>11.0} {ours:>11.0} {again:>11.0} {copy:>11.0} {host:>11.0}");
    }
    guest.conn.release(inode.node(), fh, OpenFlags::RDONLY);
    p.close(direct).unwrap();
    p.close(cached).unwrap();
    drop(inode);
    drop(guest.process);
    guest.mount.unmount();
}

/// A stat that must ask, beside one of the bare directory.
pub(super) fn cold_stat() {
    const FILES: usize = 1000;
    let share = tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap();
    let names: Vec<String> = (0..FILES).map(|n| format!("f{n:04}")).collect();
    for name in &names {
        std::fs::write(share.path().join(name), b"x").unwrap();
    }
    let guest = super::guest(share.path(), "always", 16_384);
    let ours = best(FILES, || {
        guest.mount.file_system().revalidate_all();
        for name in &names {
            let found = guest
                .process
                .stat(At::Cwd, name.as_bytes(), Symlinks::Follow);
            found.unwrap();
        }
    });
    let host = best(FILES, || {
        for name in &names {
            std::fs::metadata(share.path().join(name)).unwrap();
        }
    });
    println!("\ncold stat {ours:.0} ns; stat(2) on the bare directory {host:.0} ns");
    drop(guest.process);
    guest.mount.unmount();
}
