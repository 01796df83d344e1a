//! Names: what random comparison with the host once found wrong, one by one.

use virtio_fs::Errno;
use virtio_fs::fs::{At, CachePolicy, Changes, Durable, MountOptions, Symlinks};
use virtio_fs::wire::{
    FileType, Mode, Name, NodeId, Notification, OpenFlags, Rdev, RenameFlags, SeekWhence,
};
use virtio_fs_fake::{Fake, MemFs, Op, init};
use virtio_fs_tests::Guest;

fn guest(cache: CachePolicy) -> Guest {
    let mut fs = MemFs::new();
    fs.mkdir("/dir").unwrap();
    fs.file("/file", "0123456789").unwrap();
    fs.hard_link("/file", "/second").unwrap();
    let options = MountOptions {
        cache,
        ..MountOptions::default()
    };
    Guest::with(Fake::new().fs(fs), options)
}

fn errno<T>(result: virtio_fs::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| error.errno())
}

fn nlink(guest: &Guest, path: &[u8]) -> Result<u32, Errno> {
    let stat = guest.process.stat(At::Cwd, path, Symlinks::NoFollow);
    errno(stat).map(|stat| stat.attr.nlink)
}

#[test]
fn renaming_a_file_to_a_name_of_its_own_keeps_both() {
    for cache in [CachePolicy::Auto, CachePolicy::Always, CachePolicy::None] {
        for known in [false, true] {
            for (old, new) in [(&b"file"[..], &b"file"[..]), (b"file", b"second")] {
                let guest = guest(cache);
                if known {
                    nlink(&guest, old).unwrap();
                    nlink(&guest, new).unwrap();
                }
                let none = RenameFlags::empty();
                guest
                    .process
                    .rename(At::Cwd, old, At::Cwd, new, none)
                    .unwrap();
                assert_eq!(nlink(&guest, old), Ok(2));
                assert_eq!(nlink(&guest, new), Ok(2));
                guest.finish();
            }
        }
    }
}

#[test]
fn a_removed_directory_is_empty_for_good_and_asks_nothing() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    p.chdir(At::Cwd, b"dir").unwrap();
    p.rmdir(At::Cwd, b"/dir").unwrap();
    guest.fake.clear_log();
    assert_eq!(nlink(&guest, b"name"), Err(Errno::ENOENT));
    assert_eq!(errno(p.mkdir(At::Cwd, b"name", 0o755)), Err(Errno::ENOENT));
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT;
    assert_eq!(
        errno(p.open(At::Cwd, b"name", flags, 0o644)),
        Err(Errno::ENOENT)
    );
    assert_eq!(errno(p.unlink(At::Cwd, b"name")), Err(Errno::ENOENT));
    let lookups = guest.fake.count(Op::LOOKUP) + guest.fake.count(Op::MKDIR);
    assert_eq!(
        lookups + guest.fake.count(Op::CREATE) + guest.fake.count(Op::UNLINK),
        0
    );
    assert_eq!(nlink(&guest, b".."), nlink(&guest, b"/"));
    assert_eq!(errno(p.getcwd()), Err(Errno::ENOENT));
    p.chdir(At::Cwd, b"/").unwrap();
    guest.finish();
}

#[test]
fn an_open_file_whose_forgotten_name_goes_has_no_links() {
    let mut fs = MemFs::new();
    fs.file("/file", "").unwrap();
    let guest = Guest::new(Fake::new().fs(fs));
    let p = &guest.process;
    let fd = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    let forget = Notification::InvalEntry {
        parent: NodeId::ROOT,
        name: Name::new(b"file").unwrap(),
        kind: virtio_fs::wire::InvalKind::Drop,
    };
    guest.mount.file_system().notified(&forget).unwrap();
    assert_eq!(p.fstat(fd).unwrap().attr.nlink, 1);
    p.unlink(At::Cwd, b"file").unwrap();
    assert_eq!(p.fstat(fd).unwrap().attr.nlink, 0);
    guest.fake.clear_log();
    p.fstat(fd).unwrap();
    assert_eq!(guest.fake.count(Op::GETATTR), 0, "asked again only once");
    p.close(fd).unwrap();
    guest.finish();
}

#[test]
fn a_sticky_directory_protects_only_what_is_there() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    let mode = |path: &[u8], mode| {
        let changes = Changes {
            permissions: Some(mode),
            ..Changes::default()
        };
        p.set(At::Cwd, path, Symlinks::Follow, &changes).unwrap();
    };
    mode(b"dir", 0o1777);
    mode(b"/", 0o777);
    let rename = |old: &[u8], new: &[u8]| {
        let none = RenameFlags::empty();
        errno(p.rename(At::Cwd, old, At::Cwd, new, none))
    };
    guest.become_user(1, 1, &[]);
    assert_eq!(rename(b"file", b"dir/new"), Ok(()), "nothing was there");
    assert_eq!(
        rename(b"dir/new", b"file"),
        Err(Errno::EPERM),
        "not his own"
    );
    assert_eq!(rename(b"second", b"dir/new"), Ok(()), "one file, two names");
    guest.become_root();
    guest.finish();
}

#[test]
fn a_directory_of_others_cannot_change_its_parent() {
    let mut fs = MemFs::new();
    fs.mkdir("/to").unwrap();
    fs.mkdir("/theirs").unwrap();
    fs.chmod("/to", 0o777).unwrap();
    fs.chmod("/", 0o777).unwrap();
    let guest = Guest::new(Fake::new().fs(fs));
    guest.become_user(1, 1, &[]);
    let rename = |new: &[u8]| {
        let none = RenameFlags::empty();
        let p = &guest.process;
        errno(p.rename(At::Cwd, b"theirs", At::Cwd, new, none))
    };
    assert_eq!(rename(b"to/theirs"), Err(Errno::EACCES));
    assert_eq!(rename(b"renamed"), Ok(()), "its parent stays");
    guest.become_root();
    guest.finish();
}

#[test]
fn what_is_there_or_not_is_told_before_who_may_not() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    guest.become_user(1, 1, &[]);
    assert_eq!(errno(p.mkdir(At::Cwd, b"dir", 0o755)), Err(Errno::EEXIST));
    assert_eq!(errno(p.mkdir(At::Cwd, b"new", 0o755)), Err(Errno::EACCES));
    assert_eq!(errno(p.unlink(At::Cwd, b"new")), Err(Errno::ENOENT));
    assert_eq!(errno(p.unlink(At::Cwd, b"file")), Err(Errno::EACCES));
    guest.become_root();
    guest.finish();
}

#[test]
fn to_append_nothing_moves_no_position() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    let flags = OpenFlags::RDWR | OpenFlags::APPEND;
    let fd = p.open(At::Cwd, b"file", flags, 0).unwrap();
    assert_eq!(p.write(fd, b"").unwrap(), 0);
    assert_eq!(p.lseek(fd, 0, SeekWhence::Current).unwrap(), 0);
    p.close(fd).unwrap();
    guest.finish();
}

#[test]
fn a_link_to_itself_is_a_loop_also_for_who_creates() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    p.symlink(b"loop", At::Cwd, b"loop").unwrap();
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT;
    assert_eq!(
        errno(p.open(At::Cwd, b"loop", flags, 0o644)),
        Err(Errno::ELOOP)
    );
    guest.finish();
}

#[test]
fn a_path_from_the_root_does_not_care_what_it_would_be_relative_to() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    let nowhere = At::Fd(virtio_fs::fs::Fd(99));
    assert!(p.stat(nowhere, b"/file", Symlinks::Follow).is_ok());
    let stat = |path| errno(p.stat(nowhere, path, Symlinks::Follow).map(drop));
    assert_eq!(stat(&b"file"[..]), Err(Errno::EBADF));
    assert_eq!(stat(b""), Err(Errno::ENOENT));
    guest.finish();
}

#[test]
fn a_device_that_may_not_be_made_is_refused_after_a_name_that_is_there() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    guest.become_user(1000, 1000, &[]);
    let device = Mode::new(FileType::CharDevice, 0o600);
    let mknod = |path: &[u8]| errno(p.mknod(At::Cwd, path, device, Rdev(0x0103)));
    assert_eq!(mknod(b"file"), Err(Errno::EEXIST));
    guest.become_root();
    let open = Changes {
        permissions: Some(0o777),
        ..Changes::default()
    };
    p.set(At::Cwd, b"dir", Symlinks::Follow, &open).unwrap();
    guest.become_user(1000, 1000, &[]);
    assert_eq!(mknod(b"dir/new"), Err(Errno::EPERM));
    assert_eq!(mknod(&[b'x'; 300]), Err(Errno::ENAMETOOLONG));
    assert_eq!(guest.fake.count(Op::MKNOD), 0);
    guest.become_root();
    guest.finish();
}

#[test]
fn nothing_is_left_to_make_durable_of_a_removed_directory() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    let fd = p.open(At::Cwd, b"dir", OpenFlags::DIRECTORY, 0).unwrap();
    p.rmdir(At::Cwd, b"dir").unwrap();
    guest.fake.clear_log();
    assert_eq!(errno(p.fsync(fd, Durable::All)), Ok(()));
    let sent = guest.fake.count(Op::OPENDIR) + guest.fake.count(Op::FSYNCDIR);
    assert_eq!(sent, 0);
    p.close(fd).unwrap();
    guest.finish();
}

#[test]
fn a_file_and_a_directory_of_an_ordinary_user_change_places() {
    let guest = guest(CachePolicy::Auto);
    let p = &guest.process;
    let open = Changes {
        permissions: Some(0o777),
        ..Changes::default()
    };
    p.set(At::Cwd, b"/", Symlinks::Follow, &open).unwrap();
    guest.become_user(1000, 1000, &[]);
    p.mkdir(At::Cwd, b"one", 0o777).unwrap();
    p.mkdir(At::Cwd, b"one/inner", 0o777).unwrap();
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT;
    let fd = p.open(At::Cwd, b"plain", flags, 0o644).unwrap();
    p.close(fd).unwrap();
    let exchange = RenameFlags::EXCHANGE;
    p.rename(At::Cwd, b"one/inner", At::Cwd, b"plain", exchange)
        .unwrap();
    let is_dir = |path: &[u8]| {
        let stat = p.stat(At::Cwd, path, Symlinks::NoFollow).unwrap();
        stat.mode().file_type() == FileType::Directory
    };
    assert!(is_dir(b"plain") && !is_dir(b"one/inner"));
    // Without the exchange it is refused.
    let refused = p.rename(
        At::Cwd,
        b"plain",
        At::Cwd,
        b"one/inner",
        RenameFlags::empty(),
    );
    assert_eq!(errno(refused), Err(Errno::ENOTDIR));
    guest.become_root();
    guest.finish();
}

#[test]
fn a_copy_of_nothing_costs_no_set_id_bits() {
    let mut fs = MemFs::new();
    fs.file("/empty", "").unwrap();
    fs.file("/program", "0123456789").unwrap();
    let fake = Fake::new().fs(fs).tune(|server| {
        server.flags &= !(init::HANDLE_KILLPRIV | init::HANDLE_KILLPRIV_V2);
    });
    let guest = Guest::new(fake);
    let p = &guest.process;
    let set_id = Changes {
        permissions: Some(0o4777),
        ..Changes::default()
    };
    p.set(At::Cwd, b"program", Symlinks::Follow, &set_id)
        .unwrap();
    guest.become_user(1000, 1000, &[]);
    let from = p.open(At::Cwd, b"empty", OpenFlags::RDONLY, 0).unwrap();
    let to = p.open(At::Cwd, b"program", OpenFlags::RDWR, 0).unwrap();
    let mode = || p.fstat(to).unwrap().mode().permissions();
    assert_eq!(p.copy_file_range(from, None, to, Some(0), 100).unwrap(), 0);
    assert_eq!(mode(), 0o4777);
    // A copy of something does.
    assert_eq!(p.copy_file_range(to, Some(0), to, Some(5), 5).unwrap(), 5);
    assert_eq!(mode(), 0o777);
    p.close(from).unwrap();
    p.close(to).unwrap();
    guest.become_root();
    guest.finish();
}
