//! What the kernel asks through `/dev/fuse` arrives as it was meant. Needs root.

mod memory;

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use memory::{INO, Memory};
use virtio_fs_mount::{Mount, serve};

/// Mounts a file system in memory, runs `test` in it, unmounts it and checks
/// that it ended well.
fn with_mount(test: impl FnOnce(&Path, &Memory)) {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let mount = Mount::new("memory", folder.path()).expect("root and /dev/fuse");
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&mount, &memory));
        // The mount ends also if the test panics, or nothing would ever end.
        let unmount = Unmount(&mount);
        test(folder.path(), &memory);
        drop(unmount);
        server.join().unwrap().unwrap();
    });
    assert!(memory.state().destroyed);
    assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
}

struct Unmount<'a>(&'a Mount);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        if self.0.unmount().is_err() {
            self.0.detach().unwrap();
        }
    }
}

fn check(result: libc::c_long) -> u64 {
    assert!(result >= 0, "{}", std::io::Error::last_os_error());
    result as u64
}

#[test]
fn data_of_every_size_come_back() {
    with_mount(|root, _| {
        for len in [0, 1, 4095, 4096, 4097, 131_072, (1 << 20) + 1, 5 << 20] {
            let content: Vec<u8> = (0..len as u32).map(|at| (at / 7) as u8).collect();
            let path = root.join(format!("file{len}"));
            fs::write(&path, &content).unwrap();
            let mut direct = File::options()
                .read(true)
                .custom_flags(libc::O_DIRECT)
                .open(&path)
                .unwrap();
            let mut back = Vec::new();
            direct.read_to_end(&mut back).unwrap();
            assert!(back == content, "{len} direct");
            assert!(fs::read(&path).unwrap() == content, "{len}");
        }
    });
}

#[test]
fn names_come_and_go() {
    with_mount(|root, memory| {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/a"), "a").unwrap();
        fs::hard_link(root.join("dir/a"), root.join("b")).unwrap();
        symlink("dir/a", root.join("link")).unwrap();
        assert_eq!(
            fs::read_link(root.join("link")).unwrap(),
            Path::new("dir/a")
        );
        assert_eq!(fs::read(root.join("link")).unwrap(), b"a");
        assert_eq!(fs::metadata(root.join("b")).unwrap().nlink(), 2);
        fs::rename(root.join("b"), root.join("dir/c")).unwrap();
        assert_eq!(fs::read(root.join("dir/c")).unwrap(), b"a");
        assert!(fs::metadata(root.join("b")).is_err());
        fs::remove_file(root.join("dir/c")).unwrap();
        let [from, to] = ["dir/a", "d"].map(|name| {
            std::ffi::CString::new(root.join(name).as_os_str().as_encoded_bytes()).unwrap()
        });
        // SAFETY: both are C strings that outlive the call.
        check(unsafe {
            libc::syscall(
                libc::SYS_renameat2,
                libc::AT_FDCWD,
                from.as_ptr(),
                libc::AT_FDCWD,
                to.as_ptr(),
                libc::RENAME_NOREPLACE,
            )
        });
        assert!(memory.state().calls.contains(&"rename 1".into()));
        fs::remove_dir(root.join("dir")).unwrap();
    });
}

#[test]
fn a_directory_of_many_names_is_listed_whole() {
    with_mount(|root, memory| {
        let expected: Vec<_> = (0..3000)
            .map(|i| format!("name {i:05} {}", "x".repeat(i % 200)))
            .collect();
        for name in &expected {
            fs::write(root.join(name), "").unwrap();
        }
        for _ in 0..2 {
            let mut found: Vec<_> = fs::read_dir(root)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| {
                    (
                        entry.file_name().into_string().unwrap(),
                        entry.metadata().unwrap(),
                    )
                })
                .collect();
            found.sort_by(|a, b| a.0.cmp(&b.0));
            assert!(found.iter().map(|(name, _)| name).eq(&expected));
            assert!(found.iter().all(|(_, metadata)| metadata.ino() > INO));
        }
        for name in &expected {
            fs::remove_file(root.join(name)).unwrap();
        }
        // Nodes without names are forgotten one by one while mounted.
        for _ in 0..1000 {
            if memory.state().lookups() == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("{} look-ups never forgotten", memory.state().lookups());
    });
}

#[test]
fn attributes_arrive_and_can_be_changed() {
    with_mount(|root, _| {
        let path = root.join("file");
        let file = File::create(&path).unwrap();
        file.set_len(12_345).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(&path, Some(12), Some(34)).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::new(1_000_000, 5);
        file.set_modified(time).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode(), libc::S_IFREG | 0o640);
        assert_eq!((metadata.uid(), metadata.gid()), (12, 34));
        assert_eq!(metadata.len(), 12_345);
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000_000, 5));
        assert!(metadata.ino() > INO);
    });
}

#[test]
fn the_rarer_calls_arrive_with_their_arguments() {
    with_mount(|root, memory| {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(root.join("file"))
            .unwrap();
        file.write_all(&[1; 10_000]).unwrap();
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        let fd = file.as_raw_fd();
        let mode = libc::FALLOC_FL_KEEP_SIZE;
        // SAFETY: no memory is passed.
        check(unsafe { libc::fallocate(fd, mode, 4096, 8192) }.into());
        // SAFETY: no memory is passed.
        let found = check(unsafe { libc::lseek(fd, 100, libc::SEEK_DATA) });
        assert_eq!(found, 105);
        let copy = File::create(root.join("copy")).unwrap();
        let (mut from, mut to) = (1000, 0);
        // SAFETY: the offsets are valid for the call.
        let copied = check(unsafe {
            libc::copy_file_range(fd, &mut from, copy.as_raw_fd(), &mut to, 5000, 0)
        } as libc::c_long);
        assert_eq!((copied, copy.metadata().unwrap().len()), (5000, 5000));
        let unnamed = File::options()
            .write(true)
            .read(true)
            .custom_flags(libc::O_TMPFILE)
            .open(root)
            .unwrap();
        unnamed.write_all_at(b"unnamed", 3).unwrap();
        let mut bytes = [0; 10];
        unnamed.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"\0\0\0unnamed");
        file.seek(SeekFrom::Start(0)).unwrap();
        let state = memory.state();
        for call in [
            "fsync true",
            "fsync false",
            "fallocate 4096 8192 1",
            "lseek 100 3",
            "tmpfile",
        ] {
            assert!(
                state.calls.iter().any(|made| made == call),
                "{call}: {:?}",
                state.calls
            );
        }
    });
}

#[test]
fn extended_attributes_of_every_length_pass() {
    with_mount(|root, _| {
        let path = root.join("file");
        fs::write(&path, "").unwrap();
        let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
        for (name, len) in [(c"user.none", 0), (c"user.one", 1), (c"user.long", 60_000)] {
            let value = vec![9_u8; len];
            // SAFETY: the strings and the value outlive the call.
            check(i64::from(unsafe {
                libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), len, 0)
            }));
            let mut back = vec![0_u8; len + 1];
            // SAFETY: `back` is valid for its length.
            let got = check(unsafe {
                libc::getxattr(
                    path.as_ptr(),
                    name.as_ptr(),
                    back.as_mut_ptr().cast(),
                    back.len(),
                )
            } as i64);
            assert_eq!(&back[..got as usize], &value);
        }
        let mut names = [0_u8; 100];
        // SAFETY: `names` is valid for its length.
        let len =
            check(
                unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) }
                    as i64,
            );
        assert_eq!(&names[..len as usize], b"user.long\0user.none\0user.one\0");
        // SAFETY: `names` is valid for one byte, which is too few.
        let short = unsafe { libc::listxattr(path.as_ptr(), names.as_mut_ptr().cast(), 1) };
        assert_eq!(short, -1);
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::ERANGE));
    });
}

#[test]
fn the_state_of_the_file_system_arrives() {
    with_mount(|root, _| {
        let path = std::ffi::CString::new(root.as_os_str().as_encoded_bytes()).unwrap();
        // SAFETY: all-zero bytes are a valid `statvfs`.
        let mut state: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: the string and the structure are valid.
        check(unsafe { libc::statvfs(path.as_ptr(), &mut state) }.into());
        assert_eq!(
            (state.f_blocks, state.f_bfree, state.f_bavail),
            (1000, 500, 400)
        );
        assert_eq!((state.f_files, state.f_ffree), (300, 200));
        assert_eq!(
            (state.f_bsize, state.f_frsize, state.f_namemax),
            (4096, 512, 255)
        );
    });
}

#[test]
fn waiting_locks_block_nobody_else_and_end_when_their_threads_are_signalled() {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all-zero bytes are a valid `sigaction`; the handler does nothing,
    // and without SA_RESTART system calls end with EINTR.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
    with_mount(|root, memory| {
        let path = root.join("file");
        fs::write(&path, "x").unwrap();
        std::thread::scope(|scope| {
            let waiters: Vec<_> = (0..12)
                .map(|_| {
                    let path = &path;
                    let (send, receive) = std::sync::mpsc::channel();
                    let waiter = scope.spawn(move || {
                        // SAFETY: no argument.
                        send.send(unsafe { libc::pthread_self() }).unwrap();
                        let file = File::options().write(true).open(path).unwrap();
                        // SAFETY: all-zero bytes are a valid `flock`.
                        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
                        lock.l_type = libc::F_WRLCK as i16;
                        // SAFETY: the lock is valid for the call.
                        let result =
                            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLKW, &lock) };
                        (result, std::io::Error::last_os_error().raw_os_error())
                    });
                    (receive.recv().unwrap(), waiter)
                })
                .collect();
            memory.await_call("wait");
            let count = |what: &str| {
                let state = memory.state();
                state.calls.iter().filter(|call| *call == what).count()
            };
            while count("wait") < 12 {
                std::thread::yield_now();
            }
            assert_eq!(fs::read(&path).unwrap(), b"x");
            for (thread, waiter) in waiters {
                // SAFETY: the thread has not been joined yet.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                assert_eq!(waiter.join().unwrap(), (-1, Some(libc::EINTR)));
            }
            assert_eq!(count("interrupted"), 12);
        });
    });
}

#[test]
fn a_busy_mount_refuses_to_go_until_it_is_detached() {
    let folder = tempfile::tempdir().unwrap();
    let memory = Memory::new();
    let mount = Mount::new("memory", folder.path()).unwrap();
    std::thread::scope(|scope| {
        let server = scope.spawn(|| serve(&mount, &memory));
        let mut file = File::create(folder.path().join("open")).unwrap();
        let refused = mount.unmount().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
        mount.detach().unwrap();
        assert!(!folder.path().join("open").exists());
        file.write_all(b"still there").unwrap();
        drop(file);
        server.join().unwrap().unwrap();
        assert!(mount.unmount().is_err());
    });
}
