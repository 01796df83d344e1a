//! Open files: control, flags of the server, sharing of handles, set-id bits.

use virtio_fs::Errno;
use virtio_fs::fs::{Access, At, Changes, IoctlMemory, MountOptions, SetTime, Symlinks};
use virtio_fs::wire::{FallocateMode, FopenFlags, OpenFlags, SeekWhence};
use virtio_fs_fake::{Fake, Fault, IOCTL_REVERSE, MemFs, Op, Rule, init};
use virtio_fs_tests::Guest;

fn tree() -> MemFs {
    let mut fs = MemFs::new();
    fs.mkdir("/dir").unwrap();
    fs.file("/file", "0123456789").unwrap();
    fs
}

fn guest() -> Guest {
    Guest::new(Fake::new().fs(tree()))
}

fn errno<T>(result: virtio_fs::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| error.errno())
}

const GETFLAGS: u32 = 0x8008_6601;
const SETFLAGS: u32 = 0x4008_6602;

#[test]
fn an_ioctl_moves_the_bytes_that_its_number_says() {
    let guest = guest();
    let p = &guest.process;
    for path in [&b"file"[..], b"dir"] {
        let fd = p.open(At::Cwd, path, OpenFlags::RDONLY, 0).unwrap();
        let mut out = [0xff; 8];
        p.ioctl(fd, SETFLAGS, 0, &[0x10, 0, 0, 0, 0, 0, 0, 0], &mut [])
            .unwrap();
        let result = p.ioctl(fd, GETFLAGS, 0, &[], &mut out).unwrap();
        assert_eq!(
            (result.value, result.written, out),
            (0, 8, [0x10, 0, 0, 0, 0, 0, 0, 0])
        );
        assert_eq!(
            errno(p.ioctl(fd, GETFLAGS, 0, &[], &mut out[..7])),
            Err(Errno::EFAULT)
        );
        assert_eq!(
            errno(p.ioctl(fd, SETFLAGS, 0, &[0; 7], &mut [])),
            Err(Errno::EFAULT)
        );
        let result = p
            .ioctl(fd, IOCTL_REVERSE, 0, b"abcdefgh", &mut out)
            .unwrap();
        assert_eq!((result.value, &out), (8, b"hgfedcba"));
        assert_eq!(
            errno(p.ioctl(fd, 0x5401, 0, &[], &mut [])),
            Err(Errno::ENOTTY)
        );
        p.close(fd).unwrap();
    }
    guest.finish();
}

#[test]
fn a_server_without_ioctl_is_asked_once() {
    let guest = Guest::new(Fake::new().fs(tree()).tune(|config| {
        config.missing.insert(Op::IOCTL);
    }));
    let p = &guest.process;
    let fd = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    for _ in 0..3 {
        assert_eq!(
            errno(p.ioctl(fd, GETFLAGS, 0, &[], &mut [0; 8])),
            Err(Errno::ENOTTY)
        );
    }
    assert_eq!(guest.fake.count(Op::IOCTL), 1);
    guest.finish();
}

/// A caller's memory from 1000 on.
struct Memory([u8; 16]);

impl Memory {
    fn at(&mut self, address: u64, len: usize) -> virtio_fs::Result<&mut [u8]> {
        let start = address.checked_sub(1000).map(|a| a as usize);
        start
            .and_then(|start| self.0.get_mut(start..start + len))
            .ok_or(Errno::EFAULT.into())
    }
}

impl IoctlMemory for Memory {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> virtio_fs::Result<()> {
        bytes.copy_from_slice(self.at(address, bytes.len())?);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> virtio_fs::Result<()> {
        self.at(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}

#[test]
fn an_unrestricted_ioctl_gets_the_memory_that_it_asks_for() {
    let guest = guest();
    let inode = guest
        .process
        .lookup(At::Cwd, b"file", Symlinks::Follow)
        .unwrap();
    let file = inode.open(OpenFlags::RDONLY).unwrap();
    let mut memory = Memory(*b"....abcdefgh....");
    let result = file
        .ioctl_unrestricted(IOCTL_REVERSE, 1004, &mut memory)
        .unwrap();
    assert_eq!((result.value, &memory.0), (8, b"....hgfedcba...."));
    assert_eq!(
        errno(file.ioctl_unrestricted(IOCTL_REVERSE, 7, &mut memory)),
        Err(Errno::EFAULT)
    );
    // A restricted one grants nothing of the kind.
    let retry = |areas: [u32; 2], list: &[u64]| {
        let mut body = vec![0, 0, 0, 0, 4, 0, 0, 0];
        areas.iter().for_each(|n| body.extend(n.to_le_bytes()));
        list.iter().for_each(|n| body.extend(n.to_le_bytes()));
        Fault::Body(body)
    };
    guest.fake.fault(Rule::on(Op::IOCTL, retry([1, 0], &[])));
    assert_eq!(
        errno(file.ioctl(SETFLAGS, 0, &[0; 8], &mut [])),
        Err(Errno::EIO)
    );
    for (areas, list, expected) in [
        ([1, 1], &[1000, 1][..], Errno::EIO),
        ([u32::MAX, u32::MAX], &[], Errno::EIO),
        ([200, 57], &[0; 400], Errno::EIO),
        ([1, 0], &[1000, u64::MAX], Errno::ENOMEM),
        ([0, 2], &[1000, u64::MAX, 1000, u64::MAX], Errno::ENOMEM),
    ] {
        guest.fake.fault(Rule::on(Op::IOCTL, retry(areas, list)));
        let result = file.ioctl_unrestricted(GETFLAGS, 0, &mut memory);
        assert_eq!(errno(result), Err(expected), "{areas:?}");
    }
    // One that never has enough.
    guest
        .fake
        .fault(Rule::on(Op::IOCTL, retry([1, 0], &[1000, 4])).always());
    guest.fake.clear_log();
    assert_eq!(
        errno(file.ioctl_unrestricted(GETFLAGS, 0, &mut memory)),
        Err(Errno::EIO)
    );
    assert_eq!(guest.fake.count(Op::IOCTL), 16);
    guest.fake.clear_faults();
    drop((file, inode));
    guest.finish();
}

#[test]
fn blocks_are_mapped_or_refused() {
    let guest = guest();
    let inode = guest
        .process
        .lookup(At::Cwd, b"file", Symlinks::Follow)
        .unwrap();
    let base = inode.bmap(0, 512).unwrap();
    assert_eq!(inode.bmap(5, 512).unwrap(), base + 5);
    assert_eq!(errno(inode.bmap(0, 0)), Err(Errno::EINVAL));
    assert_eq!(errno(guest.mount.root().bmap(0, 512)), Err(Errno::EINVAL));
    guest.fake.tune(|config| {
        config.missing.insert(Op::BMAP);
    });
    guest.fake.clear_log();
    for _ in 0..3 {
        assert_eq!(errno(inode.bmap(0, 512)), Err(Errno::EINVAL));
    }
    assert_eq!(guest.fake.count(Op::BMAP), 1);
    drop(inode);
    guest.finish();
}

#[test]
fn statx_tells_the_time_of_creation_or_falls_back_to_getattr() {
    for lacking in [false, true] {
        let guest = Guest::new(Fake::new().fs(tree()).tune(|config| {
            if lacking {
                config.missing.insert(Op::STATX);
            }
        }));
        let p = &guest.process;
        let plain = p.stat(At::Cwd, b"file", Symlinks::Follow).unwrap();
        for _ in 0..2 {
            let statx = p.statx(At::Cwd, b"file", Symlinks::Follow).unwrap();
            assert_eq!(statx.metadata, plain);
            assert_eq!(statx.btime.is_some(), !lacking);
        }
        assert_eq!(guest.fake.count(Op::STATX), if lacking { 1 } else { 2 });
        guest.finish();
    }
}

#[test]
fn without_default_permissions_access_is_the_servers_decision() {
    let mut fs = tree();
    fs.chmod("/file", 0o600).unwrap();
    let options = MountOptions {
        default_permissions: false,
        ..MountOptions::default()
    };
    let guest = Guest::with(Fake::new().fs(fs), options);
    guest.become_user(1, 1, &[]);
    let p = &guest.process;
    assert_eq!(
        errno(p.access(At::Cwd, b"file", Access::READ)),
        Err(Errno::EACCES)
    );
    p.chdir(At::Cwd, b"dir").unwrap();
    assert_eq!(guest.fake.count(Op::ACCESS), 2);
    p.chdir(At::Cwd, b"/").unwrap();
    guest.fake.tune(|config| {
        config.missing.insert(Op::ACCESS);
    });
    guest.fake.clear_log();
    for _ in 0..3 {
        p.access(At::Cwd, b"file", Access::READ).unwrap();
    }
    assert_eq!(guest.fake.count(Op::ACCESS), 1);
    guest.become_root();
    guest.finish();
}

#[test]
fn plain_opens_share_a_handle_and_others_do_not() {
    let fake = || Fake::new().fs(tree());
    let without_flock =
        |config: &mut virtio_fs_fake::ServerConfig| config.flags &= !init::FLOCK_LOCKS;
    let opens = |fake: Fake, flags: &[OpenFlags]| {
        let guest = Guest::new(fake);
        let p = &guest.process;
        let open = |&flags: &OpenFlags| p.open(At::Cwd, b"file", flags, 0).unwrap();
        let fds: Vec<_> = flags.iter().map(open).collect();
        let count = guest.fake.count(Op::OPEN);
        fds.into_iter().for_each(|fd| p.close(fd).unwrap());
        guest.finish();
        count
    };
    let (r, w, rw) = (OpenFlags::RDONLY, OpenFlags::WRONLY, OpenFlags::RDWR);
    assert_eq!(opens(fake().tune(without_flock), &[r, r, r]), 1);
    assert_eq!(opens(fake().tune(without_flock), &[rw, r, w]), 1);
    assert_eq!(opens(fake().tune(without_flock), &[w, r, rw, w, r]), 3);
    assert_eq!(
        opens(fake().tune(without_flock), &[rw, rw | OpenFlags::TRUNC]),
        2
    );
    assert_eq!(
        opens(fake().tune(without_flock), &[w, w | OpenFlags::APPEND]),
        2
    );
    assert_eq!(opens(fake(), &[r, r]), 2, "a flock may be the handle's");
    let direct = FopenFlags::DIRECT_IO.bits();
    let fake = fake()
        .tune(without_flock)
        .tune(|config| config.open_flags = direct);
    assert_eq!(opens(fake, &[r, r]), 2);
}

#[test]
fn a_file_without_positions_has_none() {
    for flag in [FopenFlags::NONSEEKABLE, FopenFlags::STREAM] {
        let guest = Guest::new(Fake::new().fs(tree()).tune(|config| {
            config.open_flags = flag.bits() | FopenFlags::DIRECT_IO.bits();
        }));
        let p = &guest.process;
        let fd = p.open(At::Cwd, b"file", OpenFlags::RDWR, 0).unwrap();
        let mut buf = [0; 4];
        assert_eq!(errno(p.pread(fd, &mut buf, 0)), Err(Errno::ESPIPE));
        assert_eq!(errno(p.pwrite(fd, &buf, 0)), Err(Errno::ESPIPE));
        assert_eq!(
            errno(p.lseek(fd, 0, SeekWhence::Current)),
            Err(Errno::ESPIPE)
        );
        let reads = [p.read(fd, &mut buf).unwrap(), p.read(fd, &mut buf).unwrap()];
        assert_eq!(reads, [4, 4]);
        let offset = guest.fake.log().last().unwrap().args[8];
        assert_eq!(offset, if flag == FopenFlags::STREAM { 0 } else { 4 });
        p.close(fd).unwrap();
        guest.finish();
    }
}

#[test]
fn two_who_append_do_not_hide_each_others_data() {
    let guest = guest();
    let p = &guest.process;
    let append = OpenFlags::WRONLY | OpenFlags::APPEND;
    let one = p.open(At::Cwd, b"file", append, 0).unwrap();
    let reader = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    p.write_all(one, b"aa").unwrap();
    // Another guest's, behind our back.
    guest.fake.fs(|fs| fs.write_at("/file", 12, b"bb")).unwrap();
    p.write_all(one, b"cc").unwrap();
    let mut buf = [0; 32];
    let n = p.pread(reader, &mut buf, 0).unwrap();
    assert_eq!(&buf[..n], b"0123456789aabbcc");
    assert_eq!(p.pwrite(one, b"dd", 0).unwrap(), 2);
    let n = p.pread(reader, &mut buf, 0).unwrap();
    assert_eq!(&buf[..n], b"0123456789aabbccdd");
    guest.finish();
}

#[test]
fn set_id_bits_go_with_a_write_whoever_clears_them() {
    for server in [init::HANDLE_KILLPRIV, init::HANDLE_KILLPRIV_V2, 0] {
        for privileged in [false, true] {
            let guest = Guest::new(Fake::new().fs(tree()).tune(|config| {
                config.flags &= !(init::HANDLE_KILLPRIV | init::HANDLE_KILLPRIV_V2);
                config.flags |= server;
            }));
            let p = &guest.process;
            let owner = Changes {
                uid: Some(1),
                ..Changes::default()
            };
            p.set(At::Cwd, b"file", Symlinks::Follow, &owner).unwrap();
            let changes = Changes {
                permissions: Some(0o6777),
                ..Changes::default()
            };
            let mode = || {
                let stat = p.stat(At::Cwd, b"file", Symlinks::Follow).unwrap();
                stat.mode().permissions()
            };
            // Only V2 and the driver know of privileges.
            let expected = match privileged && server != init::HANDLE_KILLPRIV {
                true => 0o6777,
                false => 0o777,
            };
            let kinds: [(&str, &dyn Fn()); 4] = [
                ("write", &|| {
                    let fd = p.open(At::Cwd, b"file", OpenFlags::WRONLY, 0).unwrap();
                    p.write_all(fd, b"x").unwrap();
                    p.close(fd).unwrap();
                }),
                ("truncate", &|| {
                    let size = Changes {
                        size: Some(5),
                        ..Changes::default()
                    };
                    p.set(At::Cwd, b"file", Symlinks::Follow, &size).unwrap();
                }),
                ("open", &|| {
                    let flags = OpenFlags::WRONLY | OpenFlags::TRUNC;
                    let fd = p.open(At::Cwd, b"file", flags, 0).unwrap();
                    p.close(fd).unwrap();
                }),
                ("chown", &|| {
                    let owner = Changes {
                        gid: Some(1),
                        ..Changes::default()
                    };
                    p.set(At::Cwd, b"file", Symlinks::Follow, &owner).unwrap();
                }),
            ];
            for (name, change) in kinds {
                guest.become_root();
                p.set(At::Cwd, b"file", Symlinks::Follow, &changes).unwrap();
                if !privileged {
                    guest.become_user(1, 1, &[]);
                }
                change();
                let expected = if name == "chown" { 0o777 } else { expected };
                assert_eq!(mode(), expected, "{name}, {server:#x}, {privileged}");
            }
            guest.become_root();
            guest.finish();
        }
    }
}

#[test]
fn times_may_be_touched_by_who_may_write_and_set_by_the_owner() {
    let guest = guest();
    let p = &guest.process;
    let mode = Changes {
        permissions: Some(0o666),
        ..Changes::default()
    };
    p.set(At::Cwd, b"file", Symlinks::Follow, &mode).unwrap();
    guest.become_user(1, 1, &[]);
    let set = |atime, mtime| {
        let changes = Changes {
            atime,
            mtime,
            ..Changes::default()
        };
        errno(p.set(At::Cwd, b"file", Symlinks::Follow, &changes))
    };
    assert_eq!(set(SetTime::Now, SetTime::Now), Ok(()));
    assert_eq!(set(SetTime::Now, SetTime::Keep), Err(Errno::EPERM));
    let then = SetTime::To(virtio_fs::wire::Time::new(1, 0));
    assert_eq!(set(then, then), Err(Errno::EPERM));
    assert_eq!(set(SetTime::Keep, SetTime::Keep), Ok(()));
    guest.become_root();
    guest.finish();
}

#[test]
fn chmod_drops_the_group_bit_of_who_is_not_in_the_group() {
    let guest = guest();
    let p = &guest.process;
    for path in [&b"file"[..], b"dir"] {
        let owner = Changes {
            uid: Some(1),
            gid: Some(9),
            ..Changes::default()
        };
        let mode = Changes {
            permissions: Some(0o2770),
            ..Changes::default()
        };
        guest.become_root();
        p.set(At::Cwd, path, Symlinks::Follow, &owner).unwrap();
        for (groups, expected) in [(&[][..], 0o770), (&[9][..], 0o2770)] {
            guest.become_user(1, 1, groups);
            p.set(At::Cwd, path, Symlinks::Follow, &mode).unwrap();
            let stat = p.stat(At::Cwd, path, Symlinks::Follow).unwrap();
            assert_eq!(stat.mode().permissions(), expected);
        }
    }
    guest.become_root();
    guest.finish();
}

#[test]
fn ranges_are_allocated_and_copied_by_descriptor() {
    let guest = guest();
    let p = &guest.process;
    let from = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    let flags = OpenFlags::RDWR | OpenFlags::CREAT;
    let to = p.open(At::Cwd, b"copy", flags, 0o644).unwrap();
    assert_eq!(p.copy_file_range(from, Some(8), to, None, 100).unwrap(), 2);
    assert_eq!(p.copy_file_range(from, None, to, None, 3).unwrap(), 3);
    assert_eq!(p.lseek(from, 0, SeekWhence::Current).unwrap(), 3);
    assert_eq!(p.lseek(to, 0, SeekWhence::Current).unwrap(), 5);
    p.fallocate(to, FallocateMode::empty(), 0, 8).unwrap();
    let mut buf = [1; 16];
    let n = p.pread(to, &mut buf, 0).unwrap();
    assert_eq!(&buf[..n], b"89012\0\0\0");
    assert_eq!(
        errno(p.fallocate(from, FallocateMode::empty(), 0, 8)),
        Err(Errno::EBADF)
    );
    guest.finish();
}
