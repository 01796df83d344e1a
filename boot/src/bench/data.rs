//! Workloads on the data of files.

use virtio_fs::{
    fs::{At, Durable, Fd},
    wire::{OpenFlags, SeekWhence},
};

use crate::mmap::{self, Access, Mapping, Sharing};

use super::{
    Bench, Done, Of, Refused, WRONG_CONTENT, Workload,
    content::{BLOCK, Blocks, MIB, content},
};

const SEQ: &str = "/data/seq.bin";
const SEQ_SIZE: usize = 128 * MIB;
const READ: OpenFlags = OpenFlags::RDONLY;
const NEW: OpenFlags = OpenFlags::WRONLY
    .union(OpenFlags::CREAT)
    .union(OpenFlags::EXCL);

/// Those of the set `posix`, first half.
pub(super) const POSIX: &[Workload] = &[
    Workload {
        name: "seqread_1m",
        run: |b, n| b.seq_read(n, SEQ_SIZE, MIB, READ),
    },
    Workload {
        name: "seqread_4k",
        run: |b, n| b.seq_read(n, SEQ_SIZE, BLOCK, READ),
    },
    Workload {
        name: "reread_1m",
        run: |b, n| b.reread(n, SEQ, SEQ_SIZE),
    },
    Workload {
        name: "reread_1m_reopen",
        run: |b, n| b.reread_reopen(n, SEQ, SEQ_SIZE),
    },
    Workload {
        name: "randread_4k",
        run: |b, n| b.rand_read(n, SEQ, SEQ_SIZE, READ),
    },
    Workload {
        name: "seqread_1m_direct",
        run: |b, n| b.seq_read(n, SEQ_SIZE, MIB, OpenFlags::DIRECT),
    },
    Workload {
        name: "randread_4k_direct",
        run: |b, n| b.rand_read(n, SEQ, SEQ_SIZE, OpenFlags::DIRECT),
    },
    Workload {
        name: "seqwrite_1m",
        run: |b, n| b.seq_write_new(n, "/scratch/new1m.bin", 64 * MIB, MIB),
    },
    Workload {
        name: "seqwrite_4k",
        run: |b, n| b.seq_write_new(n, "/scratch/new4k.bin", 16 * MIB, BLOCK),
    },
    Workload {
        name: "randwrite_4k",
        run: |b, n| b.rand_write(n, "/data/over.bin", 64 * MIB, 2048),
    },
];

/// Those of the set `dax`.
pub(super) const DAX: &[Workload] = &[
    Workload {
        name: "dax_seqread_1m",
        run: |b, n| b.seq_read(n, SEQ_SIZE, MIB, READ),
    },
    Workload {
        name: "dax_seqread_4k",
        run: |b, n| b.seq_read(n, SEQ_SIZE, BLOCK, READ),
    },
    Workload {
        name: "dax_reread_1m",
        run: |b, n| b.reread(n, "/dax/fit32.bin", 32 * MIB),
    },
    Workload {
        name: "dax_randread_4k",
        run: |b, n| b.rand_read(n, "/dax/fit32.bin", 32 * MIB, READ),
    },
    Workload {
        name: "dax_randread_4k_thrash",
        run: |b, n| b.rand_read(n, "/dax/big256.bin", 256 * MIB, READ),
    },
    Workload {
        name: "dax_seqwrite_1m",
        run: |b, n| b.seq_write_over(n, "/dax/over64.bin", 64 * MIB),
    },
    Workload {
        name: "mmap_read",
        run: |b, n| b.mmap_read(n, "/dax/fit32.bin", 32 * MIB),
    },
    Workload {
        name: "mmap_write",
        run: |b, n| b.mmap_write(n, "/dax/map32.bin", 32 * MIB),
    },
];

impl Bench {
    pub(super) fn open(&self, path: &str, flags: OpenFlags) -> Result<Fd, Refused> {
        let opened = self.process.open(At::Cwd, path.as_bytes(), flags, 0o644);
        opened.of("open")
    }

    pub(super) fn close(&self, fd: Fd) -> Result<(), Refused> {
        self.process.close(fd).of("close")
    }

    /// One read that must return `len` bytes, the first as at `at` of the stream.
    pub(super) fn read(&mut self, fd: Fd, len: usize, at: usize) -> Result<(), Refused> {
        let buffer = &mut self.buffer.bytes_mut()[..len];
        let got = self.process.read(fd, buffer).of("read")?;
        self.verify(got, len, at)
    }

    fn verify(&self, got: usize, len: usize, at: usize) -> Result<(), Refused> {
        let bytes = self.buffer.bytes();
        let right =
            got == len && bytes[0] == content(at) && bytes[len - 1] == content(at + len - 1);
        if right { Ok(()) } else { Err(WRONG_CONTENT) }
    }

    fn read_all(&mut self, fd: Fd, size: usize, step: usize) -> Done {
        for at in (0..size).step_by(step) {
            self.read(fd, step, at)?;
        }
        Ok((size / step, size))
    }

    fn seq_read(&mut self, name: &str, size: usize, step: usize, flags: OpenFlags) {
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(SEQ, flags)?;
            let done = b.read_all(fd, size, step)?;
            b.close(fd)?;
            Ok(done)
        });
    }

    /// The second pass over one open file.
    fn reread(&mut self, name: &str, path: &str, size: usize) {
        self.drop_caches();
        let first = self
            .open(path, READ)
            .and_then(|fd| self.read_all(fd, size, MIB).map(|_| fd));
        self.region(name, |b| {
            let fd = first?;
            b.process.lseek(fd, 0, SeekWhence::Set).of("lseek")?;
            let done = b.read_all(fd, size, MIB)?;
            b.close(fd)?;
            Ok(done)
        });
    }

    /// The second pass over a file that was closed and opened again.
    fn reread_reopen(&mut self, name: &str, path: &str, size: usize) {
        self.drop_caches();
        let through = |b: &mut Self| {
            let fd = b.open(path, READ)?;
            let done = b.read_all(fd, size, MIB)?;
            b.close(fd)?;
            Ok(done)
        };
        let first = through(self);
        self.region(name, |b| first.and_then(|_| through(b)));
    }

    fn rand_read(&mut self, name: &str, path: &str, size: usize, flags: OpenFlags) {
        const COUNT: usize = 4096;
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(path, flags)?;
            let mut blocks = Blocks::new();
            for _ in 0..COUNT {
                let at = blocks.next(size);
                let buffer = &mut b.buffer.bytes_mut()[..BLOCK];
                let got = b.process.pread(fd, buffer, at as u64).of("pread")?;
                b.verify(got, BLOCK, at)?;
            }
            b.close(fd)?;
            Ok((COUNT, COUNT * BLOCK))
        });
    }

    /// A new file, written from its start, then made durable.
    fn seq_write_new(&mut self, name: &str, path: &str, size: usize, step: usize) {
        // Mostly not there.
        let _ = self.process.unlink(At::Cwd, path.as_bytes());
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(path, NEW)?;
            for at in (0..size).step_by(step) {
                b.write(fd, &b.stream.bytes()[at % MIB..][..step])?;
            }
            b.process.fsync(fd, Durable::All).of("fsync")?;
            b.close(fd)?;
            Ok((size / step, size))
        });
    }

    /// A file written over from its start, then made durable.
    fn seq_write_over(&mut self, name: &str, path: &str, size: usize) {
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(path, OpenFlags::WRONLY)?;
            for _ in 0..size / MIB {
                b.write(fd, b.other.bytes())?;
            }
            b.process.fsync(fd, Durable::All).of("fsync")?;
            b.close(fd)?;
            Ok((size / MIB, size))
        });
    }

    fn rand_write(&mut self, name: &str, path: &str, size: usize, count: usize) {
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(path, OpenFlags::WRONLY)?;
            let mut blocks = Blocks::new();
            for _ in 0..count {
                let at = blocks.next(size);
                let data = &b.other.bytes()[at % MIB..][..BLOCK];
                let put = b.process.pwrite(fd, data, at as u64).of("pwrite")?;
                whole(put, BLOCK)?;
            }
            b.process.fsync(fd, Durable::All).of("fsync")?;
            b.close(fd)?;
            Ok((count, count * BLOCK))
        });
    }

    pub(super) fn write(&self, fd: Fd, data: &[u8]) -> Result<(), Refused> {
        whole(self.process.write(fd, data).of("write")?, data.len())
    }

    fn mmap_read(&mut self, name: &str, path: &str, size: usize) {
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(path, READ)?;
            let mapping = b.map(fd, size, Access::Read)?;
            let mut wrong = 0;
            for at in (0..size).step_by(BLOCK) {
                // SAFETY: `at` lies in the mapping, and the file is that long.
                let byte = unsafe { mapping.as_ptr().add(at).read_volatile() };
                wrong += usize::from(byte != content(at));
            }
            drop(mapping);
            b.close(fd)?;
            if wrong > 0 {
                return Err(WRONG_CONTENT);
            }
            Ok((size / BLOCK, size / BLOCK))
        });
    }

    fn mmap_write(&mut self, name: &str, path: &str, size: usize) {
        self.drop_caches();
        self.region(name, |b| {
            let fd = b.open(path, OpenFlags::RDWR)?;
            let mapping = b.map(fd, size, Access::ReadWrite)?;
            for at in (0..size).step_by(BLOCK) {
                // SAFETY: `at` lies in the mapping, which takes stores, and the
                // file is that long.
                unsafe { mapping.as_ptr().add(at).write_volatile(!content(at)) };
            }
            mapping.sync().of("msync")?;
            drop(mapping);
            b.close(fd)?;
            Ok((size / BLOCK, size / BLOCK))
        });
    }

    fn map(&self, fd: Fd, size: usize, access: Access) -> Result<Mapping, Refused> {
        let file = self.process.file(fd).of("mmap")?;
        mmap::map(&file, 0, size as u64, Sharing::Shared, access).of("mmap")
    }
}

fn whole(put: usize, len: usize) -> Result<(), Refused> {
    if put == len {
        return Ok(());
    }
    Err(Refused {
        errno: 5,
        at: "short write",
    })
}
