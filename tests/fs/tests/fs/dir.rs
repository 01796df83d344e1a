//! Directories: positions, and what reading one takes.

use virtio_fs::Errno;
use virtio_fs::fs::{At, CachePolicy, MountOptions};
use virtio_fs::wire::{DirCookie, OpenFlags, SeekWhence};
use virtio_fs_fake::{Fake, MemFs, Op};
use virtio_fs_tests::Guest;

fn guest(cache: CachePolicy, names: usize) -> Guest {
    let mut fs = MemFs::new();
    fs.mkdir("/dir").unwrap();
    fs.fill("/dir", "a-name-of-some-length-", names).unwrap();
    let options = MountOptions {
        cache,
        ..MountOptions::default()
    };
    Guest::with(Fake::new().fs(fs), options)
}

#[test]
fn every_position_is_an_off_t_and_leads_back_to_the_rest() {
    for cache in [CachePolicy::None, CachePolicy::Auto, CachePolicy::Always] {
        let guest = guest(cache, 50);
        let p = &guest.process;
        let fd = p.open(At::Cwd, b"dir", OpenFlags::DIRECTORY, 0).unwrap();
        let read = |from: DirCookie| {
            let offset = i64::try_from(from.0).expect("no position is negative");
            p.lseek(fd, offset, SeekWhence::Set).unwrap();
            let mut entries = Vec::new();
            let end = p.read_dir(fd, |entry| {
                entries.push((entry.name.to_vec(), entry.next));
                true
            });
            assert!(end.unwrap());
            entries
        };
        let all = read(DirCookie::START);
        assert_eq!(all.len(), 52);
        assert_eq!((&all[0].0[..], &all[1].0[..]), (&b"."[..], &b".."[..]));
        let mut cookies: Vec<_> = all.iter().map(|(_, next)| next.0).collect();
        for (i, (_, next)) in all.iter().enumerate() {
            assert_eq!(read(*next), all[i + 1..], "{cache:?}, behind entry {i}");
        }
        assert_eq!(read(DirCookie::START), all, "they stay the same");
        cookies.sort_unstable();
        cookies.dedup();
        assert_eq!(cookies.len(), all.len(), "and each is another");
        let negative = p.lseek(fd, -1, SeekWhence::Set);
        assert_eq!(negative.unwrap_err().errno(), Errno::EINVAL);
        p.close(fd).unwrap();
        guest.finish();
    }
}

#[test]
fn a_listing_stops_at_every_entry_and_goes_on_there() {
    let guest = guest(CachePolicy::Auto, 20);
    let p = &guest.process;
    let fd = p.open(At::Cwd, b"dir", OpenFlags::DIRECTORY, 0).unwrap();
    let mut names = Vec::new();
    let mut calls = 0;
    loop {
        let mut taken = false;
        let end = p.read_dir(fd, |entry| {
            if !taken {
                names.push(entry.name.to_vec());
            }
            !std::mem::replace(&mut taken, true)
        });
        calls += 1;
        if end.unwrap() {
            break;
        }
    }
    assert_eq!((names.len(), calls), (22, 22));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 22);
    p.close(fd).unwrap();
    guest.finish();
}

#[test]
fn ten_thousand_names_take_few_requests() {
    let guest = guest(CachePolicy::Auto, 10_000);
    let p = &guest.process;
    let fd = p.open(At::Cwd, b"dir", OpenFlags::DIRECTORY, 0).unwrap();
    let mut names = 0;
    p.read_dir(fd, |_| {
        names += 1;
        true
    })
    .unwrap();
    assert_eq!(names, 10_002);
    let asked = guest.fake.count(Op::READDIR) + guest.fake.count(Op::READDIRPLUS);
    assert!(asked <= 5, "{asked} requests");
    p.close(fd).unwrap();
    guest.finish();
}
