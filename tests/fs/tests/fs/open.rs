//! Opening: labels of new files, copying up, what may be mapped, appending.

use std::time::Duration;

use virtio_fs::Errno;
use virtio_fs::conn::{Config, Offer};
use virtio_fs::fs::{Access, At, CachePolicy, Changes, File, MountOptions, Sharing, Symlinks};
use virtio_fs::platform::FileLabel;
use virtio_fs::wire::{Mode, OpenFlags, Rdev, SeekWhence};
use virtio_fs_fake::{Fake, FakePlatform, MemFs, Op, ServerConfig, init};
use virtio_fs_tests::Guest;

fn tree() -> MemFs {
    let mut fs = MemFs::new();
    fs.file("/file", "as it was").unwrap();
    fs.mkdir("/dir").unwrap();
    fs
}

fn labelling(server: impl FnOnce(&mut ServerConfig)) -> Guest {
    let config = Config {
        offer: Offer {
            security_labels: true,
            ..Offer::default()
        },
        ..Config::default()
    };
    let fake = Fake::new().fs(tree()).tune(server);
    Guest::configured(fake, config, MountOptions::default())
}

fn make_one_of_each(guest: &Guest) {
    let p = &guest.process;
    let new = OpenFlags::RDWR | OpenFlags::CREAT | OpenFlags::EXCL;
    let fd = p.open(At::Cwd, b"created", new, 0o644).unwrap();
    p.close(fd).unwrap();
    let fifo = Mode::from_wire(0o010_644).unwrap();
    p.mknod(At::Cwd, b"fifo", fifo, Rdev(0)).unwrap();
    p.mkdir(At::Cwd, b"made", 0o755).unwrap();
    p.symlink(b"file", At::Cwd, b"link").unwrap();
    let fd = p
        .open(At::Cwd, b"dir", OpenFlags::RDWR | OpenFlags::TMPFILE, 0o600)
        .unwrap();
    p.close(fd).unwrap();
}

const MADE: [&str; 4] = ["created", "fifo", "made", "link"];

#[test]
fn whatever_is_made_has_the_platforms_label_from_the_start() {
    let guest = labelling(|server| server.flags |= init::SECURITY_CTX);
    for (value, padded) in [("", "names of 0 to 8 bytes"), ("label of ", "and more")] {
        guest.fake.platform().set_label(Some(FileLabel {
            name: b"security.selinux".into(),
            value: value.into(),
        }));
        make_one_of_each(&guest);
        for name in MADE {
            let label = guest
                .fake
                .fs(|fs| fs.getxattr(&format!("/{name}"), "security.selinux"));
            assert_eq!(
                label.unwrap(),
                format!("{value}{name}").into_bytes(),
                "{padded}"
            );
        }
        for name in ["created", "fifo", "link"] {
            guest.process.unlink(At::Cwd, name.as_bytes()).unwrap();
        }
        guest.process.rmdir(At::Cwd, b"made").unwrap();
    }
    assert_eq!(
        guest.fake.count(Op::SETXATTR),
        0,
        "it came with the request"
    );
    guest.finish();
}

#[test]
fn a_platform_without_a_label_makes_files_without_one() {
    let guest = labelling(|server| server.flags |= init::SECURITY_CTX);
    make_one_of_each(&guest);
    for name in MADE {
        let label = guest
            .fake
            .fs(|fs| fs.getxattr(&format!("/{name}"), "security.selinux"));
        assert!(label.is_err(), "{name} has a label");
    }
    guest.finish();
}

#[test]
fn a_server_that_takes_no_labels_is_sent_none() {
    let guest = labelling(|_| ());
    guest.fake.platform().set_label(Some(FileLabel {
        name: b"security.selinux".into(),
        value: b"unused".into(),
    }));
    make_one_of_each(&guest);
    guest.finish();
}

#[test]
fn a_label_that_is_no_attribute_is_refused_before_anything_is_sent() {
    let guest = labelling(|server| server.flags |= init::SECURITY_CTX);
    for (name, len) in [(&b""[..], 1), (b"a\0b", 1), (b"security.x", 65_537)] {
        guest.fake.platform().set_label(Some(FileLabel {
            name: name.to_vec().into(),
            value: vec![1; len],
        }));
        let made = guest.process.mkdir(At::Cwd, b"made", 0o755);
        assert_eq!(made.unwrap_err().errno(), Errno::EINVAL);
    }
    assert_eq!(guest.fake.count(Op::MKDIR), 0);
    guest.finish();
}

#[test]
fn a_file_open_for_reading_shows_what_is_written_after_the_host_copied_it_up() {
    for cache in [CachePolicy::None, CachePolicy::Auto, CachePolicy::Metadata] {
        for cut in [false, true] {
            let fake = Fake::new().fs(tree()).tune(|server| server.copy_up = true);
            let options = MountOptions {
                cache,
                ..MountOptions::default()
            };
            let guest = Guest::with(fake, options);
            let p = &guest.process;
            let open = |flags| p.open(At::Cwd, b"file", flags, 0).unwrap();
            let (reader, other) = (open(OpenFlags::RDONLY), open(OpenFlags::RDONLY));
            let mut buf = [0; 16];
            assert_eq!(p.pread(reader, &mut buf, 0).unwrap(), 9);
            if cut {
                let changes = Changes {
                    size: Some(2),
                    ..Changes::default()
                };
                p.set(At::Cwd, b"file", Symlinks::Follow, &changes).unwrap();
            }
            let writer = open(OpenFlags::WRONLY);
            p.pwrite(writer, b"AS IT IS NOW", 0).unwrap();
            for fd in [reader, other] {
                let n = p.pread(fd, &mut buf, 0).unwrap();
                assert_eq!(&buf[..n], b"AS IT IS NOW", "{cache:?}");
            }
            let opened = guest.fake.count(Op::OPEN);
            let late = open(OpenFlags::WRONLY);
            let more = open(OpenFlags::RDONLY);
            assert!(guest.fake.count(Op::OPEN) <= opened + 2, "copied up once");
            for fd in [reader, other, writer, late, more] {
                p.close(fd).unwrap();
            }
            // And every handle is released: finish() looks.
            guest.finish();
        }
    }
}

#[test]
fn a_host_without_layers_is_asked_for_no_handle_twice() {
    let options = MountOptions {
        copy_up: false,
        ..MountOptions::default()
    };
    let guest = Guest::with(Fake::new().fs(tree()), options);
    let p = &guest.process;
    let reader = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    let writer = p.open(At::Cwd, b"file", OpenFlags::WRONLY, 0).unwrap();
    assert_eq!(guest.fake.count(Op::OPEN), 2);
    p.close(reader).unwrap();
    p.close(writer).unwrap();
    guest.finish();
}

const DIRECT_IO: u32 = 1;
const KEEP_CACHE: u32 = 2;

#[test]
fn an_old_handle_stays_where_the_new_one_is_not_as_good() {
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.copy_up = true;
        server.open_flags = KEEP_CACHE;
    });
    let guest = Guest::new(fake);
    let p = &guest.process;
    let reader = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    guest.fake.tune(|server| server.open_flags = DIRECT_IO);
    let writer = p.open(At::Cwd, b"file", OpenFlags::WRONLY, 0).unwrap();
    p.pwrite(writer, b"A", 0).unwrap();
    let mut buf = [0; 16];
    let n = p.pread(reader, &mut buf, 0).unwrap();
    assert_eq!(&buf[..n], b"as it was");
    p.close(reader).unwrap();
    p.close(writer).unwrap();
    guest.finish();
}

#[test]
fn a_direct_file_is_mapped_shared_only_where_the_server_allows_it() {
    for allowed in [false, true] {
        for direct in [false, true] {
            let fake = Fake::new().fs(tree()).tune(|server| {
                server.open_flags = if direct { DIRECT_IO } else { 0 };
                if !allowed {
                    server.flags &= !init::DIRECT_IO_ALLOW_MMAP;
                }
            });
            let guest = Guest::new(fake);
            let open = |flags| {
                let fd = guest.process.open(At::Cwd, b"file", flags, 0).unwrap();
                guest.process.file(fd).unwrap()
            };
            let (both, reader) = (open(OpenFlags::RDWR), open(OpenFlags::RDONLY));
            let writer = open(OpenFlags::WRONLY);
            let may = |file: &File<FakePlatform>, access, sharing| {
                file.may_map(access, sharing).map_err(|error| error.errno())
            };
            let shared = if direct && !allowed {
                Err(Errno::ENODEV)
            } else {
                Ok(())
            };
            let change = Access::READ | Access::WRITE;
            assert_eq!(may(&both, change, Sharing::Shared), shared);
            assert_eq!(may(&both, Access::READ, Sharing::Shared), shared);
            assert_eq!(may(&both, change, Sharing::Private), Ok(()));
            assert_eq!(may(&reader, change, Sharing::Private), Ok(()));
            assert_eq!(may(&reader, change, Sharing::Shared), Err(Errno::EACCES));
            assert_eq!(
                may(&writer, Access::READ, Sharing::Private),
                Err(Errno::EACCES)
            );
            drop((both, reader, writer));
            guest.finish();
        }
    }
}

fn appending(cache: CachePolicy, valid: u64) -> Guest {
    let fake = Fake::new().fs(tree()).tune(|server| {
        server.attr_valid = Duration::from_secs(valid);
        server.entry_valid = Duration::from_secs(valid);
    });
    let options = MountOptions {
        cache,
        ..MountOptions::default()
    };
    Guest::with(fake, options)
}

#[test]
fn an_append_is_one_request() {
    for (cache, valid) in [
        (CachePolicy::Always, 0),
        (CachePolicy::Auto, 1000),
        (CachePolicy::Auto, 0),
        (CachePolicy::None, 1000),
    ] {
        let guest = appending(cache, valid);
        let p = &guest.process;
        let flags = OpenFlags::WRONLY | OpenFlags::APPEND;
        let fd = p.open(At::Cwd, b"file", flags, 0).unwrap();
        p.write(fd, b"+").unwrap();
        guest.fake.clear_log();
        for _ in 0..10 {
            p.write(fd, b"+").unwrap();
        }
        assert_eq!(guest.fake.count(Op::WRITE), 10);
        assert_eq!(guest.fake.count(Op::GETATTR), 0, "{cache:?} {valid}");
        // Where that led is asked for by who wants to know.
        let here = p.lseek(fd, 0, SeekWhence::Current).unwrap();
        assert_eq!(here, 20);
        let asked = u64::from(cache != CachePolicy::Always);
        assert_eq!(guest.fake.count(Op::GETATTR), asked, "{cache:?} {valid}");
        p.close(fd).unwrap();
        let held = guest.fake.fs(|fs| fs.read("/file").unwrap());
        assert_eq!(held, b"as it was+++++++++++");
        guest.finish();
    }
}

#[test]
fn a_position_behind_an_append_stays_when_the_size_changes() {
    for cache in [CachePolicy::Always, CachePolicy::Auto, CachePolicy::None] {
        for size in [3, 1000] {
            let guest = appending(cache, 1000);
            let p = &guest.process;
            let flags = OpenFlags::RDWR | OpenFlags::APPEND;
            let fd = p.open(At::Cwd, b"file", flags, 0).unwrap();
            p.write(fd, b"ours").unwrap();
            let cut = Changes {
                size: Some(size),
                ..Changes::default()
            };
            p.fset(fd, &cut).unwrap();
            let here = p.lseek(fd, 0, SeekWhence::Current).unwrap();
            assert_eq!(here, 13, "{cache:?} {size}");
            p.close(fd).unwrap();
            guest.finish();
        }
    }
}

#[test]
fn what_others_append_is_kept_however_much_of_it_is_known() {
    for cache in [CachePolicy::Always, CachePolicy::Auto, CachePolicy::None] {
        let guest = appending(cache, 1000);
        let p = &guest.process;
        let flags = OpenFlags::WRONLY | OpenFlags::APPEND;
        let fd = p.open(At::Cwd, b"file", flags, 0).unwrap();
        for _ in 0..3 {
            p.write(fd, b"ours").unwrap();
            guest.fake.fs(|fs| {
                let end = fs.stat("/file").unwrap().size;
                fs.write_at("/file", end, b"theirs").unwrap();
            });
        }
        p.close(fd).unwrap();
        let held = guest.fake.fs(|fs| fs.read("/file").unwrap());
        assert_eq!(
            held, b"as it wasourstheirsourstheirsourstheirs",
            "{cache:?}"
        );
        guest.finish();
    }
}
