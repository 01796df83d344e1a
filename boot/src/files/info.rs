//! What there is to know: mount, stats, df, sync, and the machine itself.

use alloc::string::String;

use virtio_fs::{device::Transport, fs::At, wire::Opcode};

use super::{Failure, Files, context::Show};
use crate::{
    clock, cpu,
    memory::{PAGE, frames, heap},
    mmap, pci,
    shell::Context,
};

pub(super) fn mount(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    let mounted = files.mounted.clone();
    let conn = &mounted.connection;
    let limits = conn.limits();
    let fs = mounted.mount.file_system();
    files.print(format_args!(
        "tag             {}\nprotocol        FUSE 7.{}\nflags           {}\n",
        conn.device().tag,
        limits.minor,
        limits.flags
    ));
    files.print(format_args!(
        "queues          {} request queue(s) of {} entries, {} interrupt vector(s)\n",
        conn.request_queues(),
        conn.queue_size(),
        mounted.vectors()
    ));
    files.print(format_args!(
        "requests        up to {} KiB to write, {} KiB to read, {} at once\n",
        limits.max_write / 1024,
        limits.max_read / 1024,
        conn.config().max_active
    ));
    match conn.transport().shared_memory(0) {
        Some(window) => files.print(format_args!(
            "window          {} MiB at {:#x}\n",
            window.len >> 20,
            window.addr
        )),
        None => files.print(format_args!("window          none\n")),
    }
    files.print(format_args!(
        "cache           {:?}: {} names, {} inodes; state {:?}\n",
        fs.options().cache,
        fs.dentry_count(),
        fs.inode_count(),
        conn.state()
    ));
    Ok(0)
}

pub(super) fn stats(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    let conn = files.mounted.connection.clone();
    let counters = conn.counters();
    files.print(format_args!(
        "{:20} {:>12}\n",
        "requests",
        counters.total_requests()
    ));
    for opcode in Opcode::ALL {
        let count = counters.requests(opcode.to_wire());
        if count > 0 {
            files.print(format_args!("  {:18} {count:>12}\n", opcode.name()));
        }
    }
    counters.for_each(|name, count| files.print(format_args!("{name:20} {count:>12}\n")));
    mmap::COUNTERS.for_each(|name, count| files.print(format_args!("{name:20} {count:>12}\n")));
    files.print(format_args!(
        "{:20} {:>12}\n",
        "heap_allocations",
        heap::allocations()
    ));
    Ok(0)
}

pub(super) fn df(args: &[String], files: &mut Files) -> Result<u8, Failure> {
    let root = [String::from("/")];
    let paths = if args.is_empty() { &root[..] } else { args };
    files.print(format_args!(
        "{:>12} {:>12} {:>12} {:>4} path\n",
        "KiB", "used", "available", "use"
    ));
    files.each("df", paths, |files, path| {
        let space = files.process.statfs(At::Cwd, path)?;
        let unit = u64::from(space.frsize.max(1));
        let kib = |blocks: u64| blocks.saturating_mul(unit) / 1024;
        let used = space.blocks.saturating_sub(space.bfree);
        let percent = (used * 100).checked_div(used + space.bavail).unwrap_or(0);
        files.print(format_args!(
            "{:>12} {:>12} {:>12} {percent:>3}% {}\n",
            kib(space.blocks),
            kib(used),
            kib(space.bavail),
            Show(path)
        ));
        Ok(())
    })
}

pub(super) fn sync(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    let result = files.mounted.mount.file_system().sync();
    result.map_err(|error| files.fail("sync", b"/", error))?;
    Ok(0)
}

pub(super) fn cpus(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    files.print(format_args!(
        "{} of at most {}\n",
        cpu::online().count(),
        cpu::MAX
    ));
    Ok(0)
}

pub(super) fn date(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    let up = clock::now().as_secs_f64();
    match clock::realtime() {
        Some(time) => files.print(format_args!("{:.3} (up {up:.3} s)\n", time.as_secs_f64())),
        None => files.print(format_args!("unknown (up {up:.3} s)\n")),
    }
    Ok(0)
}

pub(super) fn free(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    let free = (frames::available() as u64 * PAGE) >> 10;
    let used = heap::in_use() >> 10;
    files.print(format_args!(
        "{free} KiB free, {used} KiB of the heap in use\n"
    ));
    Ok(0)
}

pub(super) fn pci(_: &[String], files: &mut Files) -> Result<u8, Failure> {
    for (address, info) in pci::functions() {
        files.print(format_args!("{address} {info}\n"));
    }
    Ok(0)
}
