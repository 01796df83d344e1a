//! Names: what random comparison with the host once found wrong, one by one.

use virtio_fs::Errno;
use virtio_fs::fs::{At, CachePolicy, Changes, MountOptions, Symlinks};
use virtio_fs::wire::{Name, NodeId, Notification, OpenFlags, RenameFlags, SeekWhence};
use virtio_fs_fake::{Fake, MemFs, Op};
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
