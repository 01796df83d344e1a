//! Named tests of the driver on a real share.

use alloc::{format, string::String, vec, vec::Vec};

use virtio_fs::{
    Errno, Error,
    conn::{Config, State},
    fs::{At, Changes, Durable, MountOptions, Process, Symlinks},
    wire::{OpenFlags, RenameFlags},
};

use super::mount;
use crate::{
    Kernel, check, cpu,
    memory::heap,
    selftest::Test,
    thread,
    virtiofs::{self, Host, Mounted},
};

pub(super) const TESTS: &[Test] = &[
    Test {
        name: "the device is found by its tag",
        run: device_by_tag,
    },
    Test {
        name: "a tag that is not there is an error that lists the others",
        run: missing_tag,
    },
    Test {
        name: "a device that is in use is refused",
        run: double_attach,
    },
    Test {
        name: "a share is mounted, unmounted and mounted again",
        run: mount_again,
    },
    Test {
        name: "after unmount every call fails",
        run: after_unmount,
    },
    Test {
        name: "files are written and read back in sizes around the limits",
        run: sizes,
    },
    Test {
        name: "a hot stat sends no request and allocates nothing",
        run: hot_stat,
    },
    Test {
        name: "a read straight into the buffer allocates nothing",
        run: read_allocates_nothing,
    },
    Test {
        name: "names are made, moved and removed",
        run: names,
    },
    Test {
        name: "a directory of many names is read whole",
        run: many_names,
    },
    Test {
        name: "interrupts wake who waits",
        run: interrupts,
    },
    Test {
        name: "threads on all CPUs work side by side",
        run: threads,
    },
];

pub(super) fn text(error: Error) -> String {
    format!("{error}")
}

/// The directory in which tests work; made if it is missing.
pub(super) const DIR: &[u8] = b".kernel-tests";

/// Runs `work` with a process in an empty directory, and cleans up.
fn in_directory(
    kernel: &'static Kernel,
    work: impl FnOnce(&Mounted, &Process<Host>) -> Result<(), String>,
) -> Result<(), String> {
    let mounted = mount(kernel)?;
    let process = mounted.process();
    clear(&process, DIR);
    process.mkdir(At::Cwd, DIR, 0o755).map_err(text)?;
    process.chdir(At::Cwd, DIR).map_err(text)?;
    let result = work(&mounted, &process);
    process.chdir(At::Cwd, b"/").map_err(text)?;
    clear(&process, DIR);
    drop(process);
    let connection = mounted.connection.clone();
    mounted.unmount();
    check!(
        connection.load() == (0, 0),
        "requests were left behind: {:?}",
        connection.load()
    );
    check!(
        connection.counters().malformed_replies.get() == 0,
        "replies were not believed"
    );
    result
}

/// Removes a directory with all that is in it, as far as there is any.
pub(super) fn clear(process: &Process<Host>, dir: &[u8]) {
    let mut names: Vec<Vec<u8>> = Vec::new();
    if let Ok(fd) = process.open(At::Cwd, dir, OpenFlags::DIRECTORY, 0) {
        let _ = process.read_dir(fd, |entry| {
            if entry.name != b"." && entry.name != b".." {
                names.push(entry.name.to_vec());
            }
            true
        });
        let _ = process.close(fd);
    }
    for name in names {
        let path = [dir, b"/", &name].concat();
        if process.unlink(At::Cwd, &path).is_err() {
            clear(process, &path);
        }
    }
    let _ = process.rmdir(At::Cwd, dir);
}

fn device_by_tag(kernel: &'static Kernel) -> Result<(), String> {
    let devices = virtiofs::devices();
    check!(!devices.is_empty(), "no device");
    if let Some(tag) = kernel.arguments.get("tag") {
        let found = devices.iter().any(|d| d.tag().as_bytes() == tag.as_bytes());
        check!(found, "no device with tag {tag}");
    }
    Ok(())
}

fn missing_tag(_: &'static Kernel) -> Result<(), String> {
    let tried = virtiofs::mount(
        Some("no such tag"),
        Config::default(),
        MountOptions::default(),
    );
    let error = tried.err().unwrap_or_default();
    for device in virtiofs::devices() {
        check!(
            error.contains(&format!("{}", device.tag())),
            "not listed: {error}"
        );
    }
    Ok(())
}

fn double_attach(kernel: &'static Kernel) -> Result<(), String> {
    let mounted = mount(kernel)?;
    let again = mount(kernel).err();
    mounted.unmount();
    let error = again.ok_or("the device was mounted twice")?;
    check!(error.contains("in use"), "{error}");
    Ok(())
}

fn mount_again(kernel: &'static Kernel) -> Result<(), String> {
    for _ in 0..3 {
        let mounted = mount(kernel)?;
        let process = mounted.process();
        process
            .stat(At::Cwd, b"/", Symlinks::Follow)
            .map_err(text)?;
        drop(process);
        mounted.unmount();
    }
    Ok(())
}

fn after_unmount(kernel: &'static Kernel) -> Result<(), String> {
    let mounted = mount(kernel)?;
    let process = mounted.process();
    let connection = mounted.connection.clone();
    mounted.unmount();
    check!(
        connection.state() == State::Closed,
        "{:?}",
        connection.state()
    );
    let error = process
        .stat(At::Cwd, b"x", Symlinks::Follow)
        .err()
        .map(Error::errno);
    check!(error == Some(Errno::ENOTCONN), "{error:?}");
    Ok(())
}

fn pattern(len: usize, salt: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((i * 131 + salt) ^ (i >> 12)) as u8)
        .collect()
}

fn sizes(kernel: &'static Kernel) -> Result<(), String> {
    in_directory(kernel, |mounted, process| {
        let max = mounted.connection.limits().max_write as usize;
        for len in [0, 1, 4095, 4096, 4097, max - 1, max, max + 1, 3 * max + 17] {
            let data = pattern(len, len);
            let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::TRUNC;
            let fd = process.open(At::Cwd, b"f", flags, 0o644).map_err(text)?;
            process.write_all(fd, &data).map_err(text)?;
            process.fsync(fd, Durable::All).map_err(text)?;
            let mut back = vec![0; len + 100];
            let n = process.pread(fd, &mut back, 0).map_err(text)?;
            process.close(fd).map_err(text)?;
            check!(n == len, "{n} of {len} bytes");
            check!(back[..n] == data[..], "content of {len} bytes differs");
            let size = process
                .stat(At::Cwd, b"f", Symlinks::Follow)
                .map_err(text)?
                .size();
            check!(size == len as u64, "size {size} of {len}");
        }
        Ok(())
    })
}

fn hot_stat(kernel: &'static Kernel) -> Result<(), String> {
    in_directory(kernel, |mounted, process| {
        process.mkdir(At::Cwd, b"a", 0o755).map_err(text)?;
        process.mkdir(At::Cwd, b"a/b", 0o755).map_err(text)?;
        let warm = || {
            process
                .stat(At::Cwd, b"a/b", Symlinks::Follow)
                .map_err(text)
        };
        warm()?;
        let (requests, allocations) = (
            mounted.connection.counters().total_requests(),
            heap::allocations(),
        );
        for _ in 0..100 {
            warm()?;
        }
        let sent = mounted.connection.counters().total_requests() - requests;
        let allocated = heap::allocations() - allocations;
        // A forget of an earlier test's directory may still go out.
        check!(sent <= 1, "{sent} requests for 100 hot stats");
        check!(allocated == 0, "{allocated} allocations for 100 hot stats");
        Ok(())
    })
}

fn read_allocates_nothing(kernel: &'static Kernel) -> Result<(), String> {
    in_directory(kernel, |_, process| {
        let flags = OpenFlags::RDWR | OpenFlags::CREAT;
        let fd = process.open(At::Cwd, b"f", flags, 0o644).map_err(text)?;
        let mut data = pattern(1 << 20, 1);
        process.write_all(fd, &data).map_err(text)?;
        process.pread(fd, &mut data, 0).map_err(text)?;
        let before = heap::allocations();
        for at in 0..32 {
            process
                .pread(fd, &mut data[..4096], at * 4096)
                .map_err(text)?;
            process.pread(fd, &mut data, 0).map_err(text)?;
            process.pwrite(fd, &data[..4096], at * 4096).map_err(text)?;
        }
        let allocated = heap::allocations() - before;
        process.close(fd).map_err(text)?;
        check!(allocated == 0, "{allocated} allocations for 96 transfers");
        Ok(())
    })
}

fn names(kernel: &'static Kernel) -> Result<(), String> {
    in_directory(kernel, |_, p| {
        let here = At::Cwd;
        p.mkdir(here, b"dir", 0o755).map_err(text)?;
        let fd = p
            .open(
                here,
                b"dir/file",
                OpenFlags::WRONLY | OpenFlags::CREAT,
                0o600,
            )
            .map_err(text)?;
        p.write_all(fd, b"content").map_err(text)?;
        p.close(fd).map_err(text)?;
        p.symlink(b"dir/file", here, b"soft").map_err(text)?;
        p.link(here, b"dir/file", Symlinks::NoFollow, here, b"hard")
            .map_err(text)?;
        p.rename(here, b"dir/file", here, b"moved", RenameFlags::empty())
            .map_err(text)?;
        let size = |path: &[u8]| p.stat(here, path, Symlinks::Follow).map(|meta| meta.size());
        check!(
            size(b"hard") == Ok(7) && size(b"moved") == Ok(7),
            "the file's other names are lost"
        );
        check!(
            size(b"soft").err().map(Error::errno) == Some(Errno::ENOENT),
            "the link still leads somewhere"
        );
        let not_empty = p.rename(here, b"moved", here, b"dir", RenameFlags::empty());
        check!(
            not_empty.err().map(Error::errno) == Some(Errno::EISDIR),
            "a file replaced a directory"
        );
        p.set(
            here,
            b"moved",
            Symlinks::Follow,
            &Changes {
                size: Some(3),
                ..Changes::default()
            },
        )
        .map_err(text)?;
        check!(size(b"hard") == Ok(3), "the size did not change");
        for name in [&b"hard"[..], b"moved", b"soft"] {
            p.unlink(here, name).map_err(text)?;
        }
        p.rmdir(here, b"dir").map_err(text)
    })
}

fn many_names(kernel: &'static Kernel) -> Result<(), String> {
    in_directory(kernel, |_, p| {
        const COUNT: usize = 1500;
        for i in 0..COUNT {
            let name = format!("name {i} {}", "x".repeat(i % 40));
            let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
            let fd = p
                .open(At::Cwd, name.as_bytes(), flags, 0o644)
                .map_err(text)?;
            p.close(fd).map_err(text)?;
        }
        let mut seen = vec![false; COUNT];
        let fd = p
            .open(At::Cwd, b".", OpenFlags::DIRECTORY, 0)
            .map_err(text)?;
        let mut strange = None;
        p.read_dir(fd, |entry| {
            if entry.name == b"." || entry.name == b".." {
                return true;
            }
            let number = core::str::from_utf8(entry.name)
                .ok()
                .and_then(|name| name.split(' ').nth(1));
            match number
                .and_then(|n| n.parse::<usize>().ok())
                .and_then(|n| seen.get_mut(n))
            {
                Some(mark) if !*mark => *mark = true,
                _ => strange = Some(entry.name.to_vec()),
            }
            true
        })
        .map_err(text)?;
        p.close(fd).map_err(text)?;
        check!(
            strange.is_none(),
            "{:?} came twice or was never made",
            strange
        );
        let missing = seen.iter().filter(|mark| !**mark).count();
        check!(missing == 0, "{missing} of {COUNT} names are missing");
        Ok(())
    })
}

fn interrupts(kernel: &'static Kernel) -> Result<(), String> {
    let mounted = mount(kernel)?;
    let process = mounted.process();
    let before = mounted.connection.counters().interrupts.get();
    for _ in 0..20 {
        process.statfs(At::Cwd, b"/").map_err(text)?;
    }
    let count = mounted.connection.counters().interrupts.get() - before;
    let vectors = mounted.vectors();
    drop(process);
    mounted.unmount();
    check!(vectors > 0, "the device has no interrupt vector");
    check!(
        (1..=25).contains(&count),
        "{count} interrupts for 20 requests"
    );
    Ok(())
}

fn threads(kernel: &'static Kernel) -> Result<(), String> {
    in_directory(kernel, |mounted, _| {
        let count = cpu::online().count().max(2) * 2;
        let mut running = Vec::new();
        for n in 0..count {
            let process = mounted.process();
            let work = move || -> Result<(), String> {
                let dir = [DIR, format!("/t{n}").as_bytes()].concat();
                process.mkdir(At::Cwd, &dir, 0o755).map_err(text)?;
                process.chdir(At::Cwd, &dir).map_err(text)?;
                for i in 0..40 {
                    let data = pattern(5000 * (i % 7) + 1, n * 1000 + i);
                    let name = format!("f{i}");
                    let flags = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
                    let fd = process
                        .open(At::Cwd, name.as_bytes(), flags, 0o644)
                        .map_err(text)?;
                    process.write_all(fd, &data).map_err(text)?;
                    let mut back = vec![0; data.len()];
                    let got = process.pread(fd, &mut back, 0).map_err(text)?;
                    check!(
                        got == data.len() && back == data,
                        "thread {n} read something else"
                    );
                    process.close(fd).map_err(text)?;
                    if i % 3 == 0 {
                        process.unlink(At::Cwd, name.as_bytes()).map_err(text)?;
                    }
                }
                Ok(())
            };
            running.push(thread::spawn("worker", work).map_err(|error| format!("{error}"))?);
        }
        running.into_iter().try_for_each(|thread| thread.join())
    })
}
