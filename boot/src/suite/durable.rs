//! Writes and stores that are made durable one after the other, each then told to
//! the host, until the host kills daemon and machine: see `qemu/run`.

use alloc::{format, string::String, vec};

use virtio_fs::{
    conn::DaxMode,
    dax::Costs,
    fs::{At, Durable},
    wire::OpenFlags,
};
use virtio_fs_manifest::{
    cells::{self, CELL},
    torture::durable_cell,
};

use super::{dax::mount, tests::text};
use crate::{
    Kernel,
    cmdline::Key,
    mmap::{self, Access, Sharing},
    println,
    selftest::Test,
};

/// The word that makes the kernel do it.
pub const DURABLE: Key = Key {
    name: "durable",
    help: "SEED: of writes that are told once they are durable, without end, with test=durable",
    valid: |word| word.parse::<u64>().is_ok(),
};

pub(super) const TESTS: &[Test] = &[Test {
    name: "durable: what was synced is told, until the end",
    run,
}];

fn run(kernel: &'static Kernel) -> Result<(), String> {
    let seed = kernel.arguments.get(DURABLE.name);
    let seed = seed.and_then(|word| word.parse().ok()).ok_or("no seed")?;
    let mounted = mount(kernel, DaxMode::Always, Costs::MEASURED)?;
    let process = mounted.process();
    let path = b".torture/durable";
    let fd = process
        .open(At::Cwd, path, OpenFlags::RDWR, 0)
        .map_err(text)?;
    let file = process.file(fd).map_err(text)?;
    let len = file.metadata().map_err(text)?.attr.size;
    let mapping = mmap::map(&file, 0, len, Sharing::Shared, Access::ReadWrite);
    let mapping = mapping.map_err(text)?;
    let mut bytes = vec![0; CELL as usize];
    for n in 1.. {
        let cell = durable_cell(seed, n, len / CELL);
        cells::fill(seed, cell, n, &mut bytes);
        match n % 3 {
            0 => {
                file.write_at(cell * CELL, &bytes).map_err(text)?;
                file.sync(Durable::Data).map_err(text)?;
            }
            // Synced by who knows nothing of the mapping.
            1 => {
                mapping
                    .write(cell * CELL, &bytes)
                    .map_err(|error| format!("{error}"))?;
                file.sync(Durable::All).map_err(text)?;
            }
            _ => {
                mapping
                    .write(cell * CELL, &bytes)
                    .map_err(|error| format!("{error}"))?;
                mapping.sync().map_err(text)?;
            }
        }
        println!("# durable {n}.");
    }
    Ok(())
}
