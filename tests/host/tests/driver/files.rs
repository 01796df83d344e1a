//! Files, directories and links, seen from both sides.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use virtio_fs::Errno;
use virtio_fs::fs::{At, CachePolicy, Changes, Durable, MountOptions, Symlinks};
use virtio_fs::wire::{FileType, Opcode, OpenFlags, RenameFlags, SeekWhence};

use crate::common::{guest, guest_with};

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| ((i * 131 + 7) ^ (i >> 12)) as u8)
        .collect()
}

#[test]
fn a_file_written_by_the_host_reads_the_same() {
    let guest = guest();
    let content = pattern(3 << 20 | 123);
    std::fs::write(guest.path("file"), &content).unwrap();
    let fd = guest
        .process
        .open(At::Cwd, b"file", OpenFlags::RDONLY, 0)
        .unwrap();
    let mut buf = vec![0; content.len() + 10];
    let mut done = 0;
    loop {
        let n = guest.process.read(fd, &mut buf[done..]).unwrap();
        if n == 0 {
            break;
        }
        done += n;
    }
    assert_eq!(done, content.len());
    assert!(buf[..done] == content[..]);
    guest.process.close(fd).unwrap();
    guest.finish();
}

#[test]
fn a_file_written_here_reads_the_same_on_the_host() {
    let guest = guest();
    let content = pattern(5 << 20 | 77);
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT | OpenFlags::EXCL;
    let fd = guest.process.open(At::Cwd, b"new", flags, 0o640).unwrap();
    guest.process.write_all(fd, &content).unwrap();
    guest.process.fsync(fd, Durable::All).unwrap();
    assert_eq!(
        guest.process.fstat(fd).unwrap().size(),
        content.len() as u64
    );
    guest.process.close(fd).unwrap();
    assert!(std::fs::read(guest.path("new")).unwrap() == content);
    let mode = std::fs::metadata(guest.path("new"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
    let again = guest.process.open(At::Cwd, b"new", flags, 0o640);
    assert_eq!(again.unwrap_err().errno(), Errno::EEXIST);
    guest.finish();
}

#[test]
fn a_directory_of_five_thousand_names_is_read_whole() {
    let guest = guest();
    let dir = guest.path("many");
    std::fs::create_dir(&dir).unwrap();
    let mut names = BTreeSet::new();
    for i in 0..5000 {
        let name = format!("name-{i:05}-{}", "x".repeat(i % 50));
        std::fs::write(dir.join(&name), b"").unwrap();
        names.insert(name.into_bytes());
    }
    for _ in 0..2 {
        let fd = guest
            .process
            .open(At::Cwd, b"many", OpenFlags::DIRECTORY, 0)
            .unwrap();
        let mut seen = BTreeSet::new();
        let end = guest.process.read_dir(fd, |entry| {
            assert!(
                seen.insert(entry.name.to_vec()),
                "twice: {}",
                entry.name.escape_ascii()
            );
            true
        });
        assert!(end.unwrap());
        assert!(seen.remove(&b"."[..]) && seen.remove(&b".."[..]));
        assert_eq!(seen, names);
        guest.process.close(fd).unwrap();
    }
    guest.finish();
}

#[test]
fn a_directory_can_be_read_entry_by_entry_and_from_any_position() {
    let guest = guest();
    for i in 0..300 {
        std::fs::write(guest.path(&format!("f{i}")), b"").unwrap();
    }
    let mut dir = guest.mount.root().open_dir().unwrap();
    let mut all = Vec::new();
    loop {
        let mut one = None;
        let end = dir
            .read(|entry| {
                if one.is_some() {
                    return false;
                }
                one = Some((entry.name.to_vec(), entry.next));
                true
            })
            .unwrap();
        all.extend(one);
        if end {
            break;
        }
    }
    assert_eq!(all.len(), 302);
    for at in [0, 1, 2, 150, 300] {
        dir.seek(all[at].1);
        let mut next = None;
        dir.read(|entry| {
            if next.is_none() {
                next = Some(entry.name.to_vec());
                return true;
            }
            false
        })
        .unwrap();
        assert_eq!(next.as_ref(), Some(&all[at + 1].0));
    }
    drop(dir);
    guest.finish();
}

#[test]
fn names_appear_move_and_vanish_on_both_sides() {
    let guest = guest();
    let p = &guest.process;
    p.mkdir(At::Cwd, b"dir", 0o755).unwrap();
    p.mkdir(At::Cwd, b"dir/sub/", 0o700).unwrap();
    assert_eq!(
        p.mkdir(At::Cwd, b"dir", 0o755).unwrap_err().errno(),
        Errno::EEXIST
    );
    std::fs::write(guest.path("dir/sub/host"), b"from the host").unwrap();
    assert_eq!(
        p.stat(At::Cwd, b"dir/sub/host", Symlinks::Follow)
            .unwrap()
            .size(),
        13
    );
    p.rename(
        At::Cwd,
        b"dir/sub/host",
        At::Cwd,
        b"moved",
        RenameFlags::empty(),
    )
    .unwrap();
    assert_eq!(
        std::fs::read(guest.path("moved")).unwrap(),
        b"from the host"
    );
    assert_eq!(
        p.stat(At::Cwd, b"dir/sub/host", Symlinks::Follow)
            .unwrap_err()
            .errno(),
        Errno::ENOENT
    );
    p.link(At::Cwd, b"moved", Symlinks::NoFollow, At::Cwd, b"dir/hard")
        .unwrap();
    assert_eq!(std::fs::metadata(guest.path("moved")).unwrap().nlink(), 2);
    assert_eq!(
        p.stat(At::Cwd, b"moved", Symlinks::Follow)
            .unwrap()
            .attr
            .nlink,
        2
    );
    p.unlink(At::Cwd, b"moved").unwrap();
    assert!(!guest.path("moved").exists());
    assert_eq!(
        p.stat(At::Cwd, b"dir/hard", Symlinks::Follow)
            .unwrap()
            .attr
            .nlink,
        1
    );
    assert_eq!(
        p.rmdir(At::Cwd, b"dir").unwrap_err().errno(),
        Errno::ENOTEMPTY
    );
    p.unlink(At::Cwd, b"dir/hard").unwrap();
    p.rmdir(At::Cwd, b"dir/sub").unwrap();
    p.rmdir(At::Cwd, b"dir/").unwrap();
    assert!(!guest.path("dir").exists());
    guest.finish();
}

#[test]
fn symbolic_links_are_followed_as_the_manual_says() {
    let guest = guest();
    let p = &guest.process;
    std::fs::create_dir_all(guest.path("a/b/c")).unwrap();
    std::fs::write(guest.path("a/b/c/file"), b"x").unwrap();
    symlink("b/c", guest.path("a/rel")).unwrap();
    symlink("/a/b", guest.path("abs")).unwrap();
    symlink("../../rel/file", guest.path("a/b/c/up")).unwrap();
    symlink("loop", guest.path("loop")).unwrap();
    symlink("nowhere", guest.path("dangling")).unwrap();
    for path in [
        &b"a/rel/file"[..],
        b"abs/c/file",
        b"/a/rel/up",
        b"a/rel/up",
        b"abs/../rel/./file",
    ] {
        let meta = p.stat(At::Cwd, path, Symlinks::Follow);
        assert_eq!(
            meta.unwrap().file_type(),
            FileType::Regular,
            "{}",
            path.escape_ascii()
        );
    }
    let error = |path: &[u8], symlinks| p.stat(At::Cwd, path, symlinks).unwrap_err().errno();
    assert_eq!(error(b"loop", Symlinks::Follow), Errno::ELOOP);
    assert_eq!(error(b"loop/x", Symlinks::NoFollow), Errno::ELOOP);
    assert_eq!(error(b"dangling", Symlinks::Follow), Errno::ENOENT);
    assert_eq!(error(b"a/b/c/file/", Symlinks::Follow), Errno::ENOTDIR);
    assert_eq!(error(b"a/b/c/file/x", Symlinks::Follow), Errno::ENOTDIR);
    assert_eq!(error(b"", Symlinks::Follow), Errno::ENOENT);
    assert_eq!(error(&[b'x'; 300], Symlinks::Follow), Errno::ENAMETOOLONG);
    assert_eq!(
        error(&b"x/".repeat(3000), Symlinks::Follow),
        Errno::ENAMETOOLONG
    );
    assert_eq!(
        p.stat(At::Cwd, b"a/rel", Symlinks::NoFollow)
            .unwrap()
            .file_type(),
        FileType::Symlink
    );
    assert_eq!(
        p.stat(At::Cwd, b"a/rel/", Symlinks::NoFollow)
            .unwrap()
            .file_type(),
        FileType::Directory
    );
    assert_eq!(&*p.readlink(At::Cwd, b"abs").unwrap(), b"/a/b");
    p.symlink(b"target with spaces", At::Cwd, b"made").unwrap();
    assert_eq!(
        std::fs::read_link(guest.path("made")).unwrap().as_os_str(),
        "target with spaces"
    );
    // Creating through a dangling link makes its target.
    let fd = p
        .open(
            At::Cwd,
            b"dangling",
            OpenFlags::WRONLY | OpenFlags::CREAT,
            0o644,
        )
        .unwrap();
    p.close(fd).unwrap();
    assert!(guest.path("nowhere").exists());
    guest.finish();
}

#[test]
fn the_working_directory_can_be_changed_and_named() {
    let guest = guest();
    let p = &guest.process;
    std::fs::create_dir_all(guest.path("one/two/three")).unwrap();
    assert_eq!(p.getcwd().unwrap(), b"/");
    p.chdir(At::Cwd, b"one/two").unwrap();
    p.chdir(At::Cwd, b"three").unwrap();
    assert_eq!(p.getcwd().unwrap(), b"/one/two/three");
    p.chdir(At::Cwd, b"../../..").unwrap();
    p.chdir(At::Cwd, b"../..").unwrap();
    assert_eq!(p.getcwd().unwrap(), b"/");
    std::fs::write(guest.path("file"), b"").unwrap();
    assert_eq!(
        p.chdir(At::Cwd, b"file").unwrap_err().errno(),
        Errno::ENOTDIR
    );
    guest.finish();
}

#[test]
fn attributes_change_on_both_sides() {
    let guest = guest();
    let p = &guest.process;
    std::fs::write(guest.path("f"), pattern(10_000)).unwrap();
    let change = |changes| p.set(At::Cwd, b"f", Symlinks::Follow, &changes).unwrap();
    change(Changes {
        permissions: Some(0o751),
        ..Changes::default()
    });
    change(Changes {
        size: Some(5_000),
        ..Changes::default()
    });
    change(Changes {
        uid: Some(12),
        gid: Some(34),
        ..Changes::default()
    });
    let time = virtio_fs::wire::Time::new(-1, 5);
    change(Changes {
        mtime: time.into(),
        ..Changes::default()
    });
    let host = std::fs::metadata(guest.path("f")).unwrap();
    assert_eq!(
        (host.mode() & 0o7777, host.size(), host.uid(), host.gid()),
        (0o751, 5_000, 12, 34)
    );
    assert_eq!((host.mtime(), host.mtime_nsec()), (-1, 5));
    let here = p.stat(At::Cwd, b"f", Symlinks::Follow).unwrap();
    assert_eq!((here.size(), here.attr.mtime), (5_000, time));
    guest.finish();
}

#[test]
fn appending_goes_to_the_end_and_positions_follow() {
    let guest = guest();
    let p = &guest.process;
    std::fs::write(guest.path("log"), b"one\n").unwrap();
    let fd = p
        .open(At::Cwd, b"log", OpenFlags::RDWR | OpenFlags::APPEND, 0)
        .unwrap();
    assert_eq!(p.lseek(fd, 0, SeekWhence::Current).unwrap(), 0);
    p.write_all(fd, b"two\n").unwrap();
    assert_eq!(p.lseek(fd, 0, SeekWhence::Current).unwrap(), 8);
    p.write_all(fd, b"three\n").unwrap();
    assert_eq!(p.lseek(fd, 0, SeekWhence::End).unwrap(), 14);
    let dup = p.dup(fd).unwrap();
    p.lseek(fd, 4, SeekWhence::Set).unwrap();
    let mut buf = [0; 4];
    assert_eq!(p.read(dup, &mut buf).unwrap(), 4);
    assert_eq!(&buf, b"two\n");
    assert_eq!(p.lseek(fd, 0, SeekWhence::Current).unwrap(), 8);
    p.close(fd).unwrap();
    p.close(dup).unwrap();
    assert_eq!(p.close(dup).unwrap_err().errno(), Errno::EBADF);
    assert_eq!(
        std::fs::read(guest.path("log")).unwrap(),
        b"one\ntwo\nthree\n"
    );
    guest.finish();
}

#[test]
fn an_unlinked_file_lives_while_it_is_open() {
    let guest = guest();
    let p = &guest.process;
    let fd = p
        .open(At::Cwd, b"gone", OpenFlags::RDWR | OpenFlags::CREAT, 0o600)
        .unwrap();
    p.write_all(fd, b"still here").unwrap();
    p.unlink(At::Cwd, b"gone").unwrap();
    assert!(!guest.path("gone").exists());
    let mut buf = [0; 20];
    assert_eq!(p.pread(fd, &mut buf, 0).unwrap(), 10);
    assert_eq!(p.fstat(fd).unwrap().attr.nlink, 0);
    p.close(fd).unwrap();
    guest.finish();
}

#[test]
fn pages_written_back_stay_where_they_belong_in_a_file_open_for_appending() {
    let guest = guest();
    std::fs::write(guest.path("log"), b"0123456789").unwrap();
    let log = guest.mount.root().lookup(b"log").unwrap();
    let file = log
        .open(OpenFlags::RDWR | OpenFlags::APPEND)
        .expect("opens for appending");
    assert_eq!(file.write_back_at(2, b"xy").unwrap(), 2);
    assert_eq!(file.metadata().unwrap().size(), 10);
    assert_eq!(file.write_at(0, b"end").unwrap(), 3);
    assert_eq!(file.metadata().unwrap().size(), 13);
    assert_eq!(std::fs::read(guest.path("log")).unwrap(), b"01xy456789end");
    drop((file, log));
    guest.finish();
}

#[test]
fn a_lookup_brings_the_attributes_along_where_nothing_may_be_kept() {
    let options = MountOptions {
        cache: CachePolicy::None,
        // Permission to search the directory would ask as well.
        default_permissions: false,
        ..MountOptions::default()
    };
    let guest = guest_with(&["--cache", "never"], options);
    let root = guest.mount.root();
    // The same inode each time, as for a kernel that keeps it.
    let mut held = Vec::new();
    for size in [0, 10, 4] {
        std::fs::write(guest.path("file"), pattern(size)).unwrap();
        let (lookup, getattr) = (Opcode::Lookup.to_wire(), Opcode::Getattr.to_wire());
        let counters = guest.conn.counters();
        let before = (counters.requests(lookup), counters.requests(getattr));
        let (file, metadata) = root.lookup_with_metadata(b"file").unwrap();
        let asked = (
            counters.requests(lookup) - before.0,
            counters.requests(getattr) - before.1,
        );
        assert_eq!(asked, (1, 0));
        assert_eq!(metadata.size(), size as u64);
        assert_eq!(file.metadata().unwrap(), metadata);
        held.push(file);
    }
    drop(held);
    guest.finish();
}

#[test]
fn directories_that_only_a_child_kept_go_with_it() {
    let guest = guest();
    let depth = 40;
    std::fs::create_dir_all(guest.path(&"dir/".repeat(depth))).unwrap();
    let fs = guest.mount.file_system();
    let mut last = guest.mount.root().clone();
    for _ in 0..depth {
        last = last.lookup(b"dir").unwrap();
    }
    fs.shrink(usize::MAX);
    assert_eq!(fs.dentry_count(), 0);
    assert_eq!(fs.inode_count(), 1 + depth);
    drop(last);
    assert_eq!(fs.inode_count(), 1);
    guest.finish();
}

#[test]
fn a_directory_knows_its_parent_after_a_rename_that_nothing_was_remembered_for() {
    let guest = guest();
    std::fs::create_dir_all(guest.path("outer/inner")).unwrap();
    let root = guest.mount.root();
    let outer = root.lookup(b"outer").unwrap();
    let inner = outer.lookup(b"inner").unwrap();
    guest.mount.file_system().shrink(usize::MAX);
    let flags = RenameFlags::empty();
    outer.rename(b"inner", root, b"inner", flags).unwrap();
    assert!(std::sync::Arc::ptr_eq(&inner.parent(), root));
    // Not into itself any more.
    root.lookup(b"outer").unwrap();
    root.rename(b"outer", &inner, b"outer", flags).unwrap();
    assert!(guest.path("inner/outer").is_dir());
    // The same for both sides of an exchange.
    let other = root.mkdir(b"other", 0o755).unwrap();
    guest.mount.file_system().shrink(usize::MAX);
    let exchange = RenameFlags::EXCHANGE;
    inner.rename(b"outer", root, b"other", exchange).unwrap();
    assert!(std::sync::Arc::ptr_eq(&outer.parent(), root));
    assert!(std::sync::Arc::ptr_eq(&other.parent(), &inner));
    drop((outer, inner, other));
    guest.finish();
}
