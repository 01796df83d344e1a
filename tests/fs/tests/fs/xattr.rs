//! Extended attributes and access control lists.

use virtio_fs::Errno;
use virtio_fs::fs::{Access, At, Changes, Symlinks};
use virtio_fs::wire::{OpenFlags, XattrFlags, XattrList};
use virtio_fs_fake::{Fake, Fault, MemFs, Op, Rule, init};
use virtio_fs_tests::Guest;

const NONE: XattrFlags = XattrFlags::empty();

fn tree() -> MemFs {
    let mut fs = MemFs::new();
    fs.mkdir("/dir").unwrap();
    fs.file("/file", "content").unwrap();
    fs.symlink("/link", "file").unwrap();
    fs
}

fn get(guest: &Guest, path: &str, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 300];
    let path = path.as_bytes();
    let len = guest
        .process
        .getxattr(
            At::Cwd,
            path,
            Symlinks::NoFollow,
            name.as_bytes(),
            &mut value,
        )
        .map_err(|e| e.errno())?;
    value.truncate(len);
    Ok(value)
}

fn set(
    guest: &Guest,
    path: &str,
    name: &str,
    value: &[u8],
    flags: XattrFlags,
) -> Result<(), Errno> {
    let (path, name) = (path.as_bytes(), name.as_bytes());
    guest
        .process
        .setxattr(At::Cwd, path, Symlinks::NoFollow, name, value, flags)
        .map_err(|e| e.errno())
}

#[test]
fn values_are_set_got_listed_and_removed_by_path_and_descriptor() {
    let guest = Guest::new(Fake::new().fs(tree()));
    let p = &guest.process;
    assert_eq!(get(&guest, "file", "user.a"), Err(Errno::ENODATA));
    set(&guest, "file", "user.a", b"one", NONE).unwrap();
    assert_eq!(get(&guest, "file", "user.a").unwrap(), b"one");
    // The path's last link is followed if asked.
    let mut value = [0; 8];
    let n = p.getxattr(At::Cwd, b"link", Symlinks::Follow, b"user.a", &mut value);
    assert_eq!(&value[..n.unwrap()], b"one");
    let fd = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0).unwrap();
    p.fsetxattr(fd, b"user.b", b"", NONE).unwrap();
    assert_eq!(p.fgetxattr(fd, b"user.b", &mut value).unwrap(), 0);
    let mut list = [0; 64];
    let len = p.flistxattr(fd, &mut list).unwrap();
    let names: Vec<_> = XattrList::new(&list[..len])
        .map(|name| name.unwrap().as_bytes().to_vec())
        .collect();
    assert_eq!(names, [b"user.a".to_vec(), b"user.b".to_vec()]);
    p.fremovexattr(fd, b"user.a").unwrap();
    assert_eq!(
        p.fremovexattr(fd, b"user.a").unwrap_err().errno(),
        Errno::ENODATA
    );
    p.removexattr(At::Cwd, b"file", Symlinks::Follow, b"user.b")
        .unwrap();
    assert_eq!(
        p.listxattr(At::Cwd, b"file", Symlinks::Follow, &mut list)
            .unwrap(),
        0
    );
    p.close(fd).unwrap();
    guest.finish();
}

#[test]
fn the_size_is_told_and_too_little_room_is_erange() {
    let guest = Guest::new(Fake::new().fs(tree()));
    let p = &guest.process;
    set(&guest, "file", "user.a", &[7; 100], NONE).unwrap();
    let value = |room: &mut [u8]| p.getxattr(At::Cwd, b"file", Symlinks::Follow, b"user.a", room);
    assert_eq!(value(&mut []).unwrap(), 100);
    assert_eq!(value(&mut [0; 99]).unwrap_err().errno(), Errno::ERANGE);
    assert_eq!(value(&mut [0; 100]).unwrap(), 100);
    let list = |room: &mut [u8]| p.listxattr(At::Cwd, b"file", Symlinks::Follow, room);
    assert_eq!(list(&mut []).unwrap(), 7);
    assert_eq!(list(&mut [0; 6]).unwrap_err().errno(), Errno::ERANGE);
    assert_eq!(list(&mut [0; 7]).unwrap(), 7);
    // Values as large as there are travel whole.
    let large: Vec<u8> = (0..65536).map(|i| (i * 7) as u8).collect();
    set(&guest, "file", "user.large", &large, NONE).unwrap();
    let mut back = vec![0; 65536];
    let n = p.getxattr(At::Cwd, b"file", Symlinks::Follow, b"user.large", &mut back);
    assert!(n.unwrap() == 65536 && back == large);
    assert_eq!(
        set(&guest, "file", "user.l", &[0; 65537], NONE),
        Err(Errno::E2BIG)
    );
    assert_eq!(set(&guest, "file", "", b"", NONE), Err(Errno::ERANGE));
    let long = "user.".to_owned() + &"x".repeat(251);
    assert_eq!(set(&guest, "file", &long, b"", NONE), Err(Errno::ERANGE));
    assert_eq!(get(&guest, "file", &long), Err(Errno::ERANGE));
    guest.finish();
}

#[test]
fn create_and_replace_are_obeyed() {
    let guest = Guest::new(Fake::new().fs(tree()));
    let (create, replace) = (XattrFlags::CREATE, XattrFlags::REPLACE);
    assert_eq!(
        set(&guest, "file", "user.a", b"1", replace),
        Err(Errno::ENODATA)
    );
    set(&guest, "file", "user.a", b"1", create).unwrap();
    assert_eq!(
        set(&guest, "file", "user.a", b"2", create),
        Err(Errno::EEXIST)
    );
    set(&guest, "file", "user.a", b"2", replace).unwrap();
    assert_eq!(get(&guest, "file", "user.a").unwrap(), b"2");
    let unknown = XattrFlags::from_bits_retain(8);
    assert_eq!(
        set(&guest, "file", "user.a", b"3", unknown),
        Err(Errno::EINVAL)
    );
    guest.finish();
}

#[test]
fn a_change_makes_ctime_be_asked_for_and_nothing_else_does() {
    let guest = Guest::new(Fake::new().fs(tree()));
    let stat = || {
        guest
            .process
            .stat(At::Cwd, b"file", Symlinks::Follow)
            .unwrap()
    };
    let before = stat().attr.ctime;
    guest
        .fake
        .platform()
        .advance(core::time::Duration::from_millis(10));
    set(&guest, "file", "user.a", b"1", NONE).unwrap();
    guest.fake.clear_log();
    assert!(stat().attr.ctime > before);
    assert_eq!(guest.fake.count(Op::GETATTR), 1);
    get(&guest, "file", "user.a").unwrap();
    stat();
    assert_eq!(guest.fake.count(Op::GETATTR), 1, "getting changes nothing");
    guest.finish();
}

#[test]
fn each_request_that_the_server_lacks_is_sent_once() {
    let ops = [Op::GETXATTR, Op::SETXATTR, Op::LISTXATTR, Op::REMOVEXATTR];
    for lacking in ops {
        let fake = Fake::new().fs(tree());
        let guest = Guest::new(fake.tune(|config| {
            config.missing.insert(lacking);
        }));
        for _ in 0..3 {
            let list = guest
                .process
                .listxattr(At::Cwd, b"file", Symlinks::Follow, &mut []);
            let remove = || {
                let p = &guest.process;
                p.removexattr(At::Cwd, b"file", Symlinks::Follow, b"user.a")
            };
            let results = [
                set(&guest, "file", "user.a", b"1", NONE),
                get(&guest, "file", "user.a").map(|_| ()),
                list.map(|_| ()).map_err(|e| e.errno()),
                remove().map_err(|e| e.errno()),
            ];
            let mut unsupported = results.iter().filter(|r| **r == Err(Errno::EOPNOTSUPP));
            assert!(
                unsupported.next().is_some() && unsupported.next().is_none(),
                "{results:?}"
            );
        }
        for op in ops {
            let times = if op == lacking { 1 } else { 3 };
            assert_eq!(guest.fake.count(op), times, "{op:?} without {lacking:?}");
        }
        guest.finish();
    }
}

#[test]
fn namespaces_are_guarded_as_in_linux() {
    let mut fs = tree();
    fs.file("/foreign", "").unwrap();
    fs.mkdir("/sticky").unwrap();
    let guest = Guest::new(Fake::new().fs(fs));
    let p = &guest.process;
    let chmod = |path: &[u8], mode: u32, uid: u32| {
        let changes = Changes {
            permissions: Some(mode),
            uid: Some(uid),
            ..Changes::default()
        };
        p.set(At::Cwd, path, Symlinks::Follow, &changes).unwrap();
    };
    chmod(b"file", 0o600, 1);
    chmod(b"dir", 0o700, 1);
    chmod(b"foreign", 0o644, 0);
    chmod(b"sticky", 0o1777, 0);
    set(&guest, "foreign", "user.a", b"1", NONE).unwrap();
    set(&guest, "file", "trusted.t", b"1", NONE).unwrap();
    set(&guest, "file", "security.s", b"1", NONE).unwrap();
    guest.become_user(1, 1, &[]);
    set(&guest, "file", "user.a", b"1", NONE).unwrap();
    set(&guest, "dir", "user.a", b"1", NONE).unwrap();
    for (path, name, errno) in [
        ("foreign", "user.b", Errno::EACCES),
        ("link", "user.b", Errno::EPERM),
        ("sticky", "user.b", Errno::EPERM),
        ("file", "trusted.t", Errno::EPERM),
        ("file", "security.s", Errno::EPERM),
        ("foreign", "system.posix_acl_access", Errno::EPERM),
        ("link", "system.posix_acl_access", Errno::EOPNOTSUPP),
        ("file", "system.posix_acl_default", Errno::EACCES),
        ("file", "system.posix_acl_access", Errno::EINVAL),
    ] {
        assert_eq!(
            set(&guest, path, name, b"x", NONE),
            Err(errno),
            "{path} {name}"
        );
    }
    for (path, name, result) in [
        ("foreign", "user.a", Ok(b"1".to_vec())),
        ("file", "trusted.t", Err(Errno::ENODATA)),
        ("file", "security.s", Ok(b"1".to_vec())),
        ("link", "user.b", Err(Errno::ENODATA)),
    ] {
        assert_eq!(get(&guest, path, name), result, "{path} {name}");
    }
    guest.become_user(2, 2, &[]);
    assert_eq!(get(&guest, "file", "user.a"), Err(Errno::EACCES));
    guest.become_root();
    assert_eq!(get(&guest, "file", "trusted.t").unwrap(), b"1");
    guest.finish();
}

#[test]
fn a_list_that_makes_no_sense_is_eio_and_counted() {
    for list in [&b"user.a\0user.b"[..], b"\0", b"user.a\0\0user.b\0"] {
        let mut fs = tree();
        fs.file("/f", "").unwrap();
        let guest = Guest::new(Fake::new().fs(fs));
        guest
            .fake
            .fault(Rule::on(Op::LISTXATTR, Fault::Body(list.to_vec())));
        let before = guest.conn.counters().malformed_replies.get();
        let mut room = [0; 64];
        let result = guest
            .process
            .listxattr(At::Cwd, b"f", Symlinks::Follow, &mut room);
        assert_eq!(
            result.unwrap_err().errno(),
            Errno::EIO,
            "{}",
            list.escape_ascii()
        );
        assert_eq!(guest.conn.counters().malformed_replies.get(), before + 1);
        guest.fake.clear_faults();
        guest.finish();
    }
}

/// An access list: tag, permissions, id each.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ACL: &str = "system.posix_acl_access";

fn with_acls() -> Fake {
    Fake::new().fs(tree()).tune(|config| {
        config.flags |= init::POSIX_ACL | init::DONT_MASK;
    })
}

#[test]
fn an_access_list_decides_and_is_fetched_once_while_attributes_hold() {
    let guest = Guest::new(with_acls());
    let changes = Changes {
        permissions: Some(0o670),
        uid: Some(1),
        gid: Some(5),
        ..Changes::default()
    };
    let p = &guest.process;
    p.set(At::Cwd, b"file", Symlinks::Follow, &changes).unwrap();
    let none = u32::MAX;
    let list = acl(&[
        (1, 6, none),
        (2, 4, 10),
        (4, 0, none),
        (8, 6, 20),
        (16, 7, none),
        (32, 0, none),
    ]);
    set(&guest, "file", ACL, &list, NONE).unwrap();
    let file = p.lookup(At::Cwd, b"file", Symlinks::Follow).unwrap();
    file.metadata().unwrap();
    guest.fake.clear_log();
    let may = |uid, gid, groups: &[u32], wanted: Access| {
        guest.become_user(uid, gid, groups);
        file.permission(wanted).is_ok()
    };
    let (r, w) = (Access::READ, Access::WRITE);
    assert!(may(1, 1, &[], r | w), "the owner needs no list");
    assert_eq!(guest.fake.count(Op::GETXATTR), 0);
    assert!(may(10, 99, &[], r));
    assert!(may(11, 99, &[20], r | w));
    assert_eq!(guest.fake.count(Op::GETXATTR), 1, "kept");
    assert!(!may(10, 99, &[20], w), "named, and no more than that");
    assert!(
        !may(12, 5, &[], r),
        "the mode's group bits are the mask, not the group's"
    );
    assert!(!may(12, 99, &[], r));
    guest.become_root();
    file.permission(r | w).unwrap();
    // A change made here is seen at once.
    set(
        &guest,
        "file",
        ACL,
        &acl(&[(1, 6, none), (4, 0, none), (32, 4, none)]),
        NONE,
    )
    .unwrap();
    assert!(may(12, 99, &[], r));
    guest.become_root();
    drop(file);
    guest.finish();
}

#[test]
fn a_list_changed_on_the_host_is_seen_when_attributes_expire() {
    let guest = Guest::new(with_acls());
    let p = &guest.process;
    let changes = Changes {
        permissions: Some(0o660),
        ..Changes::default()
    };
    p.set(At::Cwd, b"file", Symlinks::Follow, &changes).unwrap();
    let none = u32::MAX;
    let list = acl(&[
        (1, 6, none),
        (2, 4, 10),
        (4, 0, none),
        (16, 6, none),
        (32, 0, none),
    ]);
    set(&guest, "file", ACL, &list, NONE).unwrap();
    let file = p.lookup(At::Cwd, b"file", Symlinks::Follow).unwrap();
    guest.become_user(10, 10, &[]);
    file.permission(Access::READ).unwrap();
    guest.fake.fs(|fs| {
        let empty = acl(&[(1, 6, none), (4, 0, none), (32, 0, none)]);
        fs.setxattr("/file", ACL, &empty).unwrap();
    });
    file.permission(Access::READ).unwrap();
    guest
        .fake
        .platform()
        .advance(core::time::Duration::from_secs(2));
    assert_eq!(
        file.permission(Access::READ).unwrap_err().errno(),
        Errno::EACCES
    );
    guest.become_root();
    drop(file);
    guest.finish();
}

#[test]
fn a_malformed_access_list_denies_with_eio() {
    let guest = Guest::new(with_acls());
    let changes = Changes {
        permissions: Some(0o660),
        ..Changes::default()
    };
    let p = &guest.process;
    p.set(At::Cwd, b"file", Symlinks::Follow, &changes).unwrap();
    guest.fake.fs(|fs| {
        fs.setxattr("/file", ACL, b"no list").unwrap();
    });
    guest.become_user(10, 10, &[]);
    let result = p.open(At::Cwd, b"file", OpenFlags::RDONLY, 0);
    assert_eq!(result.unwrap_err().errno(), Errno::EIO);
    guest.become_root();
    guest.finish();
}
