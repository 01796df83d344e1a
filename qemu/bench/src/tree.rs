//! The directory that is shared: made once, put back before every boot.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

const MIB: usize = 1 << 20;
const BLOCK: usize = 4096;

/// The tree of `README.md`.
pub(crate) struct Tree {
    dir: PathBuf,
    /// Removed with this value.
    ours: bool,
    /// The first MiB of the content stream, after which it repeats.
    stream: Vec<u8>,
}

impl Tree {
    /// Makes the tree in `dir`, or in a folder of its own in memory. Takes 580 MiB.
    pub(crate) fn new(dir: Option<&Path>) -> io::Result<Self> {
        let stream = (0..MIB)
            .map(|at| (at.wrapping_mul(131).wrapping_add(7) ^ at >> 12) as u8)
            .collect();
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        let own = parent.join(format!("virtio-fs-bench-{}", std::process::id()));
        let tree = Self {
            dir: dir.map_or(own, Path::to_owned),
            ours: dir.is_none(),
            stream,
        };
        tree.restore()?;
        Ok(tree)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Puts back what a boot changed, and reads all of it once.
    pub(crate) fn restore(&self) -> io::Result<()> {
        for dir in ["data", "dax", "small", "deep/1/2/3/4/5/6/7"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        self.once("data/seq.bin", 128)?;
        self.once("dax/fit32.bin", 32)?;
        self.once("dax/big256.bin", 256)?;
        // Always: a write through a mapping need not show in a file's times.
        self.write("data/over.bin", 64)?;
        self.write("dax/over64.bin", 64)?;
        self.write("dax/map32.bin", 32)?;
        for n in 0..2000 {
            let path = self.dir.join(format!("small/f{n:04}"));
            if fs::metadata(&path).is_ok_and(|meta| meta.len() == BLOCK as u64) {
                continue;
            }
            let at = n * BLOCK % MIB;
            fs::write(path, &self.stream[at..at + BLOCK])?;
        }
        fs::write(
            self.dir.join("deep/1/2/3/4/5/6/7/file"),
            &self.stream[..BLOCK],
        )?;
        let scratch = self.dir.join("scratch");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir(&scratch)
    }

    fn once(&self, name: &str, mib: usize) -> io::Result<()> {
        let len = (mib * MIB) as u64;
        if fs::metadata(self.dir.join(name)).is_ok_and(|meta| meta.len() == len) {
            return Ok(());
        }
        self.write(name, mib)
    }

    fn write(&self, name: &str, mib: usize) -> io::Result<()> {
        let path = self.dir.join(name);
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        for _ in 0..mib {
            file.write_all(&self.stream)?;
        }
        file.set_len((mib * MIB) as u64)
    }

    /// Says what is wrong with the files that a boot wrote.
    pub(crate) fn check(&self) -> Result<(), String> {
        let path = self.dir.join("scratch/new1m.bin");
        let Ok(written) = fs::read(&path) else {
            // That workload did not run.
            return Ok(());
        };
        let right =
            written.len() == 64 * MIB && written.chunks(MIB).all(|chunk| chunk == self.stream);
        if right {
            return Ok(());
        }
        Err("scratch/new1m.bin does not hold what was written".into())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            eprintln!("bench: {}: {error}", self.dir.display());
        }
    }
}
