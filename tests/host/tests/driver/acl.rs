//! Access control lists over real virtiofsd, compared with what the host's kernel
//! says about the same files. Needs root, to be other users.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use virtio_fs::Errno;
use virtio_fs::fs::{Access, At, Changes, MountOptions, Symlinks};
use virtio_fs::platform::{Caller, Capabilities};
use virtio_fs::wire::{OpenFlags, XattrFlags};
use virtio_fs_host::platform::set_caller;

use crate::common::{Guest, guest_with};

const NOBODY: u32 = u32::MAX;

fn guest() -> Guest {
    guest_with(
        &["--cache", "auto", "--xattr", "--posix-acl=always"],
        MountOptions::default(),
    )
}

/// The value of the attribute: tag, permissions, id each.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn list(&mut self) -> Vec<u8> {
        let mut entries = vec![(1, 0, NOBODY)];
        entries.extend(
            (1000..1003)
                .filter(|_| !self.0.is_multiple_of(3))
                .map(|uid| (2, 0, uid)),
        );
        entries.push((4, 0, NOBODY));
        entries.extend((2000..2002).map(|gid| (8, 0, gid)));
        entries.push((0x10, 0, NOBODY));
        entries.push((0x20, 0, NOBODY));
        for entry in &mut entries {
            entry.1 = self.below(8) as u16;
        }
        // Without a mask Linux gives those whom the list names what others get.
        let mask = entries.len() - 2;
        entries[mask].1 = entries[mask].1.max(1);
        acl(&entries)
    }
}

/// A user and the groups that he is in.
const USERS: [(u32, &[u32]); 6] = [
    (500, &[]),
    (1000, &[]),
    (1001, &[2000]),
    (1002, &[600]),
    (1003, &[600, 2001]),
    (1004, &[2000, 2001]),
];

fn become_user(uid: u32, groups: &[u32]) {
    let caller = Caller {
        uid,
        gid: uid,
        capabilities: Capabilities::empty(),
        ..Caller::ROOT
    };
    set_caller(if uid == 0 { Caller::ROOT } else { caller }, groups);
}

/// Asks the host's kernel in a thread of its own, whose user nobody else shares.
fn host_allows(path: &Path, uid: u32, groups: &[u32], wanted: u32) -> bool {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
            // SAFETY: system calls on this thread's own numbers; list and path live
            // through the calls.
            unsafe {
                let done = libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) == 0
                    && libc::syscall(libc::SYS_setresgid, -1, uid, -1) == 0
                    && libc::syscall(libc::SYS_setresuid, -1, uid, -1) == 0;
                assert!(done, "{}", std::io::Error::last_os_error());
                libc::faccessat(
                    libc::AT_FDCWD,
                    path.as_ptr(),
                    wanted as i32,
                    libc::AT_EACCESS,
                ) == 0
            }
        });
        asked.join().unwrap()
    })
}

#[test]
fn the_driver_allows_what_the_hosts_kernel_allows() {
    let guest = guest();
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(guest.path(""), everybody).unwrap();
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(0xac1);
    println!("SEED={seed}");
    let mut random = Random(seed);
    let p = &guest.process;
    let (mut yes, mut no) = (0, 0);
    for n in 0..40 {
        let name = format!("file{n}");
        std::fs::write(guest.path(&name), b"").unwrap();
        std::os::unix::fs::chown(guest.path(&name), Some(500), Some(600)).unwrap();
        let path = name.as_bytes();
        let list = random.list();
        let (acl, none) = (&b"system.posix_acl_access"[..], XattrFlags::empty());
        p.setxattr(At::Cwd, path, Symlinks::Follow, acl, &list, none)
            .unwrap();
        if random.below(2) == 0 {
            // The mode's group bits become the mask.
            let changes = Changes {
                permissions: Some(0o010 | random.below(0o1000) as u32),
                ..Changes::default()
            };
            p.set(At::Cwd, path, Symlinks::Follow, &changes).unwrap();
        }
        let file = p.lookup(At::Cwd, path, Symlinks::Follow).unwrap();
        for (uid, groups) in USERS {
            become_user(uid, groups);
            for wanted in 1..8 {
                let ours = file.permission(Access::from_bits_truncate(wanted)).is_ok();
                let theirs = host_allows(&guest.path(&name), uid, groups, wanted);
                assert_eq!(
                    ours, theirs,
                    "{name}: user {uid} of {groups:?} wants {wanted:#o}"
                );
                *(if ours { &mut yes } else { &mut no }) += 1;
            }
        }
        become_user(0, &[]);
    }
    assert!(yes > 100 && no > 100, "{yes} times yes, {no} times no");
    guest.finish();
}

#[test]
fn new_files_get_the_default_list_and_not_the_umask() {
    let guest = guest();
    let p = &guest.process;
    let (default, none) = (&b"system.posix_acl_default"[..], XattrFlags::empty());
    let list = acl(&[
        (1, 7, NOBODY),
        (2, 6, 1000),
        (4, 5, NOBODY),
        (0x10, 7, NOBODY),
        (0x20, 4, NOBODY),
    ]);
    p.mkdir(At::Cwd, b"dir", 0o755).unwrap();
    p.setxattr(At::Cwd, b"dir", Symlinks::Follow, default, &list, none)
        .unwrap();
    let flags = OpenFlags::WRONLY | OpenFlags::CREAT;
    let fd = p.open(At::Cwd, b"dir/here", flags, 0o666).unwrap();
    p.mkdir(At::Cwd, b"dir/sub", 0o777).unwrap();
    // 022 is what the driver says of its caller, and would take the group's right
    // to write.
    let host = |name: &str| std::fs::metadata(guest.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(host("dir/here"), 0o664);
    assert_eq!(host("dir/sub"), 0o774);
    assert_eq!(p.fstat(fd).unwrap().mode().permissions(), 0o664);
    let mut value = [0; 100];
    let n = p
        .fgetxattr(fd, b"system.posix_acl_access", &mut value)
        .unwrap();
    assert_eq!(
        value[4..n].len() / 8,
        5,
        "an entry for each of the default list's"
    );
    p.close(fd).unwrap();
    // Where there is no list, the umask counts.
    let fd = p.open(At::Cwd, b"plain", flags, 0o666).unwrap();
    assert_eq!(host("plain"), 0o644);
    let result = p.fgetxattr(fd, b"system.posix_acl_access", &mut value);
    assert_eq!(result.unwrap_err().errno(), Errno::ENODATA);
    p.close(fd).unwrap();
    guest.finish();
}
