//! Random sessions, repeated by their seed: replies changed at random, and the
//! driver against the tree that it works on.

use std::collections::BTreeMap;

use virtio_fs::conn::{Config, State};
use virtio_fs::fs::{At, CachePolicy, Changes, MountOptions, Symlinks};
use virtio_fs::wire::{OpenFlags, RenameFlags, SeekWhence};
use virtio_fs_attack::{Guest, Rng, tree};
use virtio_fs_fake::{Fake, Fault, Rule};

const NAMES: &[&str] = &["a", "b", "c", "file", "other", "sub", "link", "leaf"];

fn path(rng: &mut Rng) -> String {
    let mut path = String::from("/dir");
    for _ in 0..rng.below(2) {
        path.push_str("/sub");
    }
    format!("{path}/{}", NAMES[rng.below(NAMES.len() as u64) as usize])
}

/// One call of any kind. What it returns is for others to judge.
fn call(guest: &Guest, rng: &mut Rng) {
    let p = &guest.process;
    let (one, two) = (path(rng), path(rng));
    let (a, b) = (one.as_bytes(), two.as_bytes());
    let no = Symlinks::NoFollow;
    match rng.below(15) {
        0 => drop(guest.stat(&one).ok()),
        1 => drop(guest.read(&one)),
        2 => drop(guest.names("/dir")),
        3 => drop(p.mkdir(At::Cwd, a, 0o755)),
        4 => drop(p.rmdir(At::Cwd, a)),
        5 => drop(p.unlink(At::Cwd, a)),
        6 => drop(p.rename(At::Cwd, a, At::Cwd, b, RenameFlags::empty())),
        7 => drop(p.link(At::Cwd, a, no, At::Cwd, b)),
        8 => drop(p.symlink(b"file", At::Cwd, a)),
        9 => drop(p.readlink(At::Cwd, a)),
        10 | 11 => {
            let flags = OpenFlags::CREAT | OpenFlags::RDWR;
            if let Ok(fd) = p.open(At::Cwd, a, flags, 0o644) {
                let data = vec![rng.number() as u8; rng.below(9000) as usize];
                let _ = p.pwrite(fd, &data, rng.below(5000));
                let _ = p.pread(fd, &mut [0; 3000], rng.below(5000));
                let _ = p.lseek(fd, 0, SeekWhence::Hole);
                let _ = p.close(fd);
            }
        }
        12 => {
            let changes = Changes {
                size: Some(rng.below(20_000)),
                ..Changes::default()
            };
            let _ = p.set(At::Cwd, a, Symlinks::Follow, &changes);
        }
        13 => {
            let flags = RenameFlags::EXCHANGE;
            let _ = p.rename(At::Cwd, a, At::Cwd, b, flags);
        }
        _ => drop(p.statfs(At::Cwd, b"/")),
    }
}

#[test]
fn replies_changed_at_random_neither_panic_nor_hang() {
    let mut rng = Rng::from_env(1);
    let mut calls = 0;
    for round in 0..60 {
        let guest = Guest::new();
        let mut inner = Rng::new(rng.number());
        let edit = move |_: &[u8], reply: &mut Vec<u8>| match inner.below(8) {
            // Left alone, so that sessions get somewhere.
            0..=3 => {}
            4 => {
                let len = inner.below(reply.len() as u64 + 1) as usize;
                reply.truncate(len);
            }
            5 => reply.resize(reply.len() + inner.below(40) as usize, 0xA5),
            _ => {
                // Behind the header, which guards the rest.
                for _ in 0..=inner.below(3) {
                    if reply.len() > 16 {
                        let at = 16 + inner.below(reply.len() as u64 - 16) as usize;
                        reply[at] = *inner.pick(&[0, 1, 0x7f, 0x80, 0xff]);
                    }
                }
            }
        };
        guest
            .fake
            .fault(Rule::any(Fault::Edit(Box::new(edit))).always());
        for _ in 0..100 {
            call(&guest, &mut rng);
            calls += 1;
        }
        // Replies of the right length that lie about node ids or handles make
        // the driver ask for what there is not: that is the server's doing.
        guest.fake.clear_faults();
        guest.conn.work();
        let _ = guest.fake.take_violations();
        assert_eq!(guest.conn.state(), State::Ready, "round {round}");
        guest.mount.file_system().revalidate_all();
        assert!(guest.stat("/").is_ok());
        assert_eq!(guest.conn.load(), (0, 0));
        drop(guest.process);
        guest.mount.unmount();
        drop(guest.conn);
        assert_eq!(guest.fake.usage().dma_pages, 0, "round {round}");
        let _ = guest.fake.take_violations();
    }
    assert_eq!(calls, 6000);
}

#[test]
fn random_calls_leave_and_see_what_the_tree_holds() {
    let mut rng = Rng::from_env(2);
    for policy in [CachePolicy::Auto, CachePolicy::Always, CachePolicy::None] {
        let options = MountOptions {
            cache: policy,
            max_dentries: 64,
            ..MountOptions::default()
        };
        let guest = Guest::with(Fake::new().fs(tree()), Config::default(), options);
        for step in 0..1500 {
            call(&guest, &mut rng);
            if step % 10 != 0 {
                continue;
            }
            let theirs: BTreeMap<_, _> = guest.fake.fs(|fs| fs.manifest()).into_iter().collect();
            for (path, stat) in &theirs {
                let path = if path.is_empty() { "/" } else { path };
                let ours = guest
                    .stat(path)
                    .unwrap_or_else(|e| panic!("{path} at {step} of {policy:?}: {e}"));
                let ours = (ours.attr.mode.bits(), ours.attr.size, ours.attr.nlink);
                assert_eq!(ours, (stat.mode, stat.size, stat.nlink), "{path}");
            }
            for name in NAMES {
                let path = format!("/dir/{name}");
                let there = guest.fake.fs(|fs| fs.stat(&path)).is_ok();
                assert_eq!(guest.stat(&path).is_ok(), there, "{path} at {step}");
            }
        }
        guest.finish();
    }
}
