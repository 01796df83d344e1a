//! What this guest pays besides its file system: system calls, and copies over
//! the border of user space. The set `base`.

use std::{fs, hint::black_box};

use rustix::fs::{Mode, OFlags, SeekFrom, open, seek};

use crate::{
    Workload,
    content::{BLOCK, MIB},
    region::{Bench, Of},
};

const TMPFS: &str = "/tmp/base";
const SIZE: usize = 128 * MIB;

pub(crate) const BASE: &[Workload] = &[
    Workload {
        name: "base_syscall",
        run: |b, n| b.empty_calls(n),
    },
    Workload {
        name: "base_tmpfs_1m",
        run: |b, n| b.tmpfs(n, MIB),
    },
    Workload {
        name: "base_tmpfs_4k",
        run: |b, n| b.tmpfs(n, BLOCK),
    },
    Workload {
        name: "base_copy_1m",
        run: |b, n| b.copy(n, MIB),
    },
    Workload {
        name: "base_copy_4k",
        run: |b, n| b.copy(n, BLOCK),
    },
];

impl Bench {
    /// A system call that does nothing.
    fn empty_calls(&mut self, name: &str) {
        const COUNT: usize = 100_000;
        self.region(name, |_| {
            for _ in 0..COUNT {
                black_box(rustix::process::getppid());
            }
            Ok((COUNT, 0))
        });
    }

    /// Reads a file of 128 MiB that lies in the guest's memory.
    fn tmpfs(&mut self, name: &str, step: usize) {
        if fs::metadata(TMPFS).is_err()
            && let Err(error) = fs::write(TMPFS, vec![1; SIZE])
        {
            println!("env tmpfs={error}");
        }
        let opened = open(TMPFS, OFlags::RDONLY, Mode::empty()).of("open");
        self.region(name, |b| {
            let fd = opened?;
            seek(&fd, SeekFrom::Start(0)).of("lseek")?;
            for _ in 0..SIZE / step {
                rustix::io::read(&fd, &mut b.buffer.bytes_mut()[..step]).of("read")?;
            }
            Ok((SIZE / step, SIZE))
        });
    }

    /// Copies 128 MiB of memory into one buffer, without the kernel.
    fn copy(&mut self, name: &str, step: usize) {
        let pieces: Vec<Vec<u8>> = (0..128).map(|n| vec![n; MIB]).collect();
        self.region(name, |b| {
            for from in pieces.iter().flat_map(|piece| piece.chunks(step)) {
                b.buffer.bytes_mut()[..step].copy_from_slice(from);
                black_box(b.buffer.bytes());
            }
            Ok((SIZE / step, SIZE))
        });
    }
}
