//! Workloads on the data of files.

use std::{ffi::CStr, os::fd::OwnedFd};

use rustix::{
    fs::{Mode, OFlags, SeekFrom, fsync, open, seek, unlink},
    io::{Errno, pread, pwrite, read, write},
    mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap},
};

use crate::{
    Workload,
    content::{BLOCK, Blocks, MIB, content},
    machine::drop_caches,
    region::{Bench, Done, Of, Refused},
};

const SEQ: &str = "data/seq.bin";
const SEQ_SIZE: usize = 128 * MIB;
const READ: OFlags = OFlags::RDONLY;
/// How new files are opened.
pub(crate) const NEW: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL);
/// A file did not hold what it should.
const WRONG_CONTENT: Refused = (Errno::BADMSG, "content");

/// Those of the set `posix`, first half.
pub(crate) const POSIX: &[Workload] = &[
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
        run: |b, n| b.seq_read(n, SEQ_SIZE, MIB, OFlags::DIRECT),
    },
    Workload {
        name: "randread_4k_direct",
        run: |b, n| b.rand_read(n, SEQ, SEQ_SIZE, OFlags::DIRECT),
    },
    Workload {
        name: "seqwrite_1m",
        run: |b, n| b.seq_write_new(n, "scratch/new1m.bin", 64 * MIB, MIB),
    },
    Workload {
        name: "seqwrite_4k",
        run: |b, n| b.seq_write_new(n, "scratch/new4k.bin", 16 * MIB, BLOCK),
    },
    Workload {
        name: "randwrite_4k",
        run: |b, n| b.rand_write(n, "data/over.bin", 64 * MIB, 2048),
    },
];

/// Those of the set `dax`.
pub(crate) const DAX: &[Workload] = &[
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
        run: |b, n| b.reread(n, "dax/fit32.bin", 32 * MIB),
    },
    Workload {
        name: "dax_randread_4k",
        run: |b, n| b.rand_read(n, "dax/fit32.bin", 32 * MIB, READ),
    },
    Workload {
        name: "dax_randread_4k_thrash",
        run: |b, n| b.rand_read(n, "dax/big256.bin", 256 * MIB, READ),
    },
    Workload {
        name: "dax_seqwrite_1m",
        run: |b, n| b.seq_write_over(n, "dax/over64.bin", 64 * MIB),
    },
    Workload {
        name: "mmap_read",
        run: |b, n| b.mmap_read(n, "dax/fit32.bin", 32 * MIB),
    },
    Workload {
        name: "mmap_write",
        run: |b, n| b.mmap_write(n, "dax/map32.bin", 32 * MIB),
    },
];

/// open(2), with the permissions that new files get.
pub(crate) fn open_file(path: &CStr, flags: OFlags) -> Result<OwnedFd, Refused> {
    open(path, flags, Mode::from_raw_mode(0o644)).of("open")
}

/// A write that must take all.
pub(crate) fn write_all(fd: &OwnedFd, data: &[u8]) -> Result<(), Refused> {
    whole(write(fd, data).of("write")?, data.len())
}

/// close(2), whose answer does not matter: what was written was made durable before.
pub(crate) fn close_file(fd: OwnedFd) {
    drop(fd);
}

fn whole(put: usize, len: usize) -> Result<(), Refused> {
    if put == len {
        return Ok(());
    }
    Err((Errno::IO, "short write"))
}

impl Bench {
    /// One read that must return `len` bytes, the first as at `at` of the stream.
    pub(crate) fn read(&mut self, fd: &OwnedFd, len: usize, at: usize) -> Result<(), Refused> {
        let got = read(fd, &mut self.buffer.bytes_mut()[..len]).of("read")?;
        self.verify(got, len, at)
    }

    fn verify(&self, got: usize, len: usize, at: usize) -> Result<(), Refused> {
        let bytes = self.buffer.bytes();
        let right =
            got == len && bytes[0] == content(at) && bytes[len - 1] == content(at + len - 1);
        if right { Ok(()) } else { Err(WRONG_CONTENT) }
    }

    fn read_all(&mut self, fd: &OwnedFd, size: usize, step: usize) -> Done {
        for at in (0..size).step_by(step) {
            self.read(fd, step, at)?;
        }
        Ok((size / step, size))
    }

    fn seq_read(&mut self, name: &str, size: usize, step: usize, flags: OFlags) {
        let path = self.path(SEQ);
        drop_caches();
        self.region(name, |b| {
            let fd = open_file(&path, flags)?;
            let done = b.read_all(&fd, size, step)?;
            close_file(fd);
            Ok(done)
        });
    }

    /// The second pass over one open file.
    fn reread(&mut self, name: &str, file: &str, size: usize) {
        let path = self.path(file);
        drop_caches();
        let first = open_file(&path, READ).and_then(|fd| {
            self.read_all(&fd, size, MIB)?;
            Ok(fd)
        });
        self.region(name, |b| {
            let fd = first?;
            seek(&fd, SeekFrom::Start(0)).of("lseek")?;
            let done = b.read_all(&fd, size, MIB)?;
            close_file(fd);
            Ok(done)
        });
    }

    /// The second pass over a file that was closed and opened again.
    fn reread_reopen(&mut self, name: &str, file: &str, size: usize) {
        let path = self.path(file);
        drop_caches();
        let through = |b: &mut Self| {
            let fd = open_file(&path, READ)?;
            let done = b.read_all(&fd, size, MIB)?;
            close_file(fd);
            Ok(done)
        };
        let first = through(self);
        self.region(name, |b| first.and_then(|_| through(b)));
    }

    fn rand_read(&mut self, name: &str, file: &str, size: usize, flags: OFlags) {
        const COUNT: usize = 4096;
        let path = self.path(file);
        drop_caches();
        self.region(name, |b| {
            let fd = open_file(&path, flags)?;
            let mut blocks = Blocks::new();
            for _ in 0..COUNT {
                let at = blocks.next(size);
                let buffer = &mut b.buffer.bytes_mut()[..BLOCK];
                let got = pread(&fd, buffer, at as u64).of("pread")?;
                b.verify(got, BLOCK, at)?;
            }
            close_file(fd);
            Ok((COUNT, COUNT * BLOCK))
        });
    }

    /// A new file, written from its start, then made durable.
    fn seq_write_new(&mut self, name: &str, file: &str, size: usize, step: usize) {
        let path = self.path(file);
        // Mostly not there.
        let _ = unlink(&path);
        drop_caches();
        self.region(name, |b| {
            let fd = open_file(&path, NEW)?;
            for at in (0..size).step_by(step) {
                write_all(&fd, &b.stream.bytes()[at % MIB..][..step])?;
            }
            fsync(&fd).of("fsync")?;
            close_file(fd);
            Ok((size / step, size))
        });
    }

    /// A file written over from its start, then made durable.
    fn seq_write_over(&mut self, name: &str, file: &str, size: usize) {
        let path = self.path(file);
        drop_caches();
        self.region(name, |b| {
            let fd = open_file(&path, OFlags::WRONLY)?;
            for _ in 0..size / MIB {
                write_all(&fd, b.other.bytes())?;
            }
            fsync(&fd).of("fsync")?;
            close_file(fd);
            Ok((size / MIB, size))
        });
    }

    fn rand_write(&mut self, name: &str, file: &str, size: usize, count: usize) {
        let path = self.path(file);
        drop_caches();
        self.region(name, |b| {
            let fd = open_file(&path, OFlags::WRONLY)?;
            let mut blocks = Blocks::new();
            for _ in 0..count {
                let at = blocks.next(size);
                let data = &b.other.bytes()[at % MIB..][..BLOCK];
                whole(pwrite(&fd, data, at as u64).of("pwrite")?, BLOCK)?;
            }
            fsync(&fd).of("fsync")?;
            close_file(fd);
            Ok((count, count * BLOCK))
        });
    }

    fn mmap_read(&mut self, name: &str, file: &str, size: usize) {
        let path = self.path(file);
        drop_caches();
        self.region(name, |_| {
            let fd = open_file(&path, READ)?;
            let base = map(&fd, size, ProtFlags::READ)?;
            let mut wrong = 0;
            for at in (0..size).step_by(BLOCK) {
                // SAFETY: `at` lies in the mapping, which is readable; nobody cuts
                // the file meanwhile.
                let byte = unsafe { base.add(at).read_volatile() };
                wrong += usize::from(byte != content(at));
            }
            unmap(base, size)?;
            close_file(fd);
            if wrong > 0 {
                return Err(WRONG_CONTENT);
            }
            Ok((size / BLOCK, size / BLOCK))
        });
    }

    fn mmap_write(&mut self, name: &str, file: &str, size: usize) {
        let path = self.path(file);
        drop_caches();
        self.region(name, |_| {
            let fd = open_file(&path, OFlags::RDWR)?;
            let base = map(&fd, size, ProtFlags::READ.union(ProtFlags::WRITE))?;
            for at in (0..size).step_by(BLOCK) {
                // SAFETY: `at` lies in the mapping, which is writable; nobody cuts
                // the file meanwhile.
                unsafe { base.add(at).write_volatile(!content(at)) };
            }
            // SAFETY: the mapping, whole.
            unsafe { msync(base.cast(), size, MsyncFlags::SYNC) }.of("msync")?;
            unmap(base, size)?;
            close_file(fd);
            Ok((size / BLOCK, size / BLOCK))
        });
    }
}

fn map(fd: &OwnedFd, size: usize, how: ProtFlags) -> Result<*mut u8, Refused> {
    // SAFETY: a new mapping, where the kernel likes; it is only used through raw
    // pointers.
    let mapped = unsafe { mmap(std::ptr::null_mut(), size, how, MapFlags::SHARED, fd, 0) };
    mapped.of("mmap").map(|base| base.cast())
}

fn unmap(base: *mut u8, size: usize) -> Result<(), Refused> {
    // SAFETY: a mapping of `map`'s, whole, that is not used any more.
    unsafe { munmap(base.cast(), size) }.of("munmap")
}
