//! What the workloads are compared with: copies of memory, and the requests of a
//! sequential read and write by themselves, one after the other over the ring,
//! with nothing of the file layer around them.

use alloc::vec::Vec;
use core::hint::black_box;

use virtio_fs::{
    conn::Class,
    device::Data,
    fs::{At, Symlinks},
    wire::{Open, OpenFlags, Read, SetIds, Write, WriteOrigin},
};

use super::{
    Bench, Done, Of, WRONG_CONTENT, Workload,
    content::{BLOCK, MIB},
};

/// The set `base`.
pub(super) const BASE: &[Workload] = &[
    Workload {
        name: "base_copy_1m",
        run: |b, n| b.copy(n, MIB),
    },
    Workload {
        name: "base_copy_4k",
        run: |b, n| b.copy(n, BLOCK),
    },
    Workload {
        name: "base_ring_read_1m",
        run: |b, n| b.ring(n, "/data/seq.bin", OpenFlags::RDONLY, 128),
    },
    Workload {
        name: "base_ring_write_1m",
        run: |b, n| b.ring(n, "/data/over.bin", OpenFlags::WRONLY, 64),
    },
];

impl Bench {
    /// Copies 128 MiB of memory into one buffer, as a cached read does.
    fn copy(&mut self, name: &str, step: usize) {
        let pieces: Vec<Vec<u8>> = (0..128).map(|n| alloc::vec![n; MIB]).collect();
        self.region(name, |b| {
            for from in pieces.iter().flat_map(|piece| piece.chunks(step)) {
                b.buffer.bytes_mut()[..step].copy_from_slice(from);
                black_box(b.buffer.bytes());
            }
            Ok((128 * MIB / step, 128 * MIB))
        });
    }

    /// The first `count` MiB of a file by requests of 1 MiB, or as much as one may
    /// hold, on a handle of its own.
    fn ring(&mut self, name: &str, path: &str, flags: OpenFlags, count: usize) {
        let found = self
            .process
            .lookup(At::Cwd, path.as_bytes(), Symlinks::Follow)
            .of("lookup");
        self.drop_caches();
        self.region(name, |b| {
            let node = found?.node();
            let conn = b.mounted.connection.clone();
            let open = Open {
                node,
                flags,
                set_ids: SetIds::Keep,
            };
            let fh = conn.ask(&open).of("open")?.fh;
            let limits = conn.limits();
            let most = limits.max_read.min(limits.max_write) as usize;
            let len = MIB.min(most).min(conn.fitting());
            let done = (|| -> Done {
                for n in 0..count * MIB / len {
                    let (offset, size) = ((n * len) as u64, len as u32);
                    let moved = if flags.writable() {
                        let request = Write {
                            node,
                            fh,
                            offset,
                            size,
                            lock_owner: None,
                            origin: WriteOrigin::Caller,
                            set_ids: SetIds::Keep,
                            flags,
                        };
                        let data = Data::Source(&[&b.other.bytes()[..len]]);
                        let count = conn.call(&request, data, Class::Normal).of("write")?;
                        count.of(size.into()).map_err(|_| WRONG_CONTENT)? as usize
                    } else {
                        let request = Read {
                            node,
                            fh,
                            offset,
                            size,
                            lock_owner: None,
                            flags,
                        };
                        let data = Data::Sink(&mut [&mut b.buffer.bytes_mut()[..len]]);
                        conn.call(&request, data, Class::Normal).of("read")?
                    };
                    if moved != len {
                        return Err(WRONG_CONTENT);
                    }
                }
                Ok((count * MIB / len, count * MIB))
            })();
            conn.release(node, fh, flags);
            done
        });
    }
}
