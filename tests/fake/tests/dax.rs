//! The driver's DAX window on a device that refuses, forgets and falls silent.

use core::time::Duration;
use std::sync::Arc;

use virtio_fs::Errno;
use virtio_fs::conn::{Config, Connection, DaxMode, Deadlines};
use virtio_fs::dax::{Costs, Totals};
use virtio_fs::fs::{
    At, Changes, Durable, Fault as PageFault, File, Inode, Mount, MountOptions, PageUse, Process,
};
use virtio_fs::platform::{Hal, PhysAddr};
use virtio_fs::wire::OpenFlags;
use virtio_fs_fake::{
    Fake, FakeHal, FakePlatform, Fault, Handle, Interrupts, MemFs, Op, Rule, ServerConfig,
    WindowRules,
};

#[path = "dax/lost.rs"]
mod lost;

const MIB: usize = 1 << 20;
const RANGE: usize = 2 * MIB;

/// Costs that make every access worth a mapping.
const EAGER: Costs = Costs {
    map: 1000,
    request: 10_000_000,
    request_kib: 1000,
    access: 0,
    access_kib: 0,
};

struct Guest {
    mount: Mount<FakePlatform>,
    conn: Arc<Connection<FakePlatform>>,
    fake: Handle,
}

fn content(len: usize) -> Vec<u8> {
    (0..len as u32)
        .map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect()
}

fn config() -> Config {
    Config {
        deadlines: Deadlines {
            metadata: Some(Duration::from_secs(1)),
            ..Deadlines::default()
        },
        interrupt_line: true,
        ..Config::default()
    }
}

/// A mount of one file of `len` bytes over a window of so many ranges.
fn guest(ranges: usize, slots: usize, len: usize, change: impl FnOnce(Fake) -> Fake) -> Guest {
    guest_with(config(), ranges, slots, len, change)
}

fn guest_with(
    config: Config,
    ranges: usize,
    slots: usize,
    len: usize,
    change: impl FnOnce(Fake) -> Fake,
) -> Guest {
    let mut fs = MemFs::new();
    fs.file("/file", content(len)).unwrap();
    let rules = WindowRules::Qemu { slots };
    let fake = Fake::new().fs(fs).window((ranges * RANGE) as u64, rules);
    let (transport, fake) = change(fake.vectors(None).can_sleep()).build();
    let platform = Arc::new(fake.platform());
    let conn = Connection::open(platform, Arc::new(transport), config).unwrap();
    let options = MountOptions {
        dax_costs: EAGER,
        ..MountOptions::default()
    };
    let mount = Mount::new(conn.clone(), options).unwrap();
    let woken = Arc::downgrade(&conn);
    fake.on_interrupt(move |_| {
        if let Some(conn) = woken.upgrade() {
            conn.interrupt(None);
        }
    });
    Guest { mount, conn, fake }
}

impl Guest {
    fn open(&self) -> Arc<File<FakePlatform>> {
        let inode = self.mount.root().lookup(b"file").unwrap();
        inode.open(OpenFlags::RDWR).unwrap()
    }

    fn totals(&self) -> Totals {
        self.mount.file_system().dax().unwrap().totals()
    }

    /// Waits, in virtual time, until the worker has nothing unknown left.
    fn mend(&self) {
        for _ in 0..100 {
            self.mount.file_system().work().unwrap();
            if self.totals().unknown == 0 {
                return;
            }
            self.fake.platform().advance(Duration::from_millis(100));
        }
        panic!("not repaired: {:?}", self.totals());
    }

    fn finish(self) {
        let totals = self.totals();
        assert_eq!((totals.pins, totals.busy), (0, 0), "{totals:?}");
        self.mount.unmount();
        assert_eq!(self.fake.mappings(), []);
        self.fake.assert_clean();
    }
}

fn check(file: &File<FakePlatform>, len: usize) {
    let want = content(len);
    let mut buf = vec![0; len + 1];
    assert_eq!(file.read_at(0, &mut buf).unwrap(), len);
    assert!(buf[..len] == want);
}

#[test]
fn a_refused_mapping_is_read_by_request() {
    let rule = Rule::on(Op::SETUPMAPPING, Fault::Error(-libc::ENODEV));
    let guest = guest(4, 100, RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    check(&file, RANGE);
    assert!(guest.fake.count(Op::READ) > 0);
    assert_eq!(guest.conn.counters().dax_refusals.get(), 1);
    assert_eq!(guest.conn.counters().dax_bytes_read.get(), 0);
    assert_eq!(guest.totals().free, 4);
    drop(file);
    guest.finish();
}

#[test]
fn a_range_in_which_the_host_has_something_is_cleared_before_it_is_used() {
    let rule = Rule::on(Op::SETUPMAPPING, Fault::Error(-libc::EEXIST));
    let guest = guest(1, 100, RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    check(&file, RANGE);
    assert_eq!(guest.totals().unknown, 1);
    guest.mend();
    check(&file, RANGE);
    assert_eq!(guest.totals().mapped, 1);
    drop(file);
    guest.finish();
}

#[test]
fn a_file_that_cannot_be_mapped_is_not_tried_for_ever() {
    let rule = Rule::on(Op::SETUPMAPPING, Fault::Error(-libc::EACCES)).always();
    let guest = guest(64, 100, RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    for _ in 0..20 {
        check(&file, RANGE);
    }
    assert_eq!(guest.conn.counters().dax_refusals.get(), 4);
    drop(file);
    guest.finish();
}

#[test]
fn a_server_without_mappings_is_asked_once() {
    let rule = Rule::on(Op::SETUPMAPPING, Fault::Error(-libc::ENOSYS));
    let guest = guest(4, 100, 3 * RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    for _ in 0..5 {
        check(&file, 3 * RANGE);
    }
    assert_eq!(guest.fake.count(Op::SETUPMAPPING), 1);
    drop(file);
    guest.finish();
}

#[test]
fn where_fewer_ranges_can_live_than_there_are_one_makes_room_for_the_next() {
    let guest = guest(8, 3, 6 * RANGE, |fake| fake);
    let file = guest.open();
    for _ in 0..5 {
        check(&file, 6 * RANGE);
    }
    assert_eq!(guest.conn.counters().dax_refusals.get(), 1);
    assert!(guest.conn.counters().dax_reclaims.get() > 5);
    assert_eq!(guest.fake.mappings().len(), 3);
    assert_eq!(guest.totals().mapped, 3);
    drop(file);
    guest.finish();
}

#[test]
fn what_reaches_behind_the_new_end_is_unmapped_before_the_file_is_cut() {
    let guest = guest(8, 100, 4 * RANGE, |fake| fake);
    let file = guest.open();
    check(&file, 4 * RANGE);
    guest.fake.clear_log();
    let changes = Changes {
        size: Some(RANGE as u64 + 5000),
        ..Changes::default()
    };
    file.set_metadata(&changes).unwrap();
    let ops: Vec<_> = guest.fake.log().iter().map(|r| r.op).collect();
    assert_eq!(ops, [Op::REMOVEMAPPING, Op::SETATTR]);
    assert_eq!(guest.fake.mappings().len(), 1);
    let truncating = file
        .inode()
        .open(OpenFlags::RDWR | OpenFlags::TRUNC)
        .unwrap();
    assert_eq!(guest.fake.mappings(), []);
    drop((file, truncating));
    guest.finish();
}

#[test]
fn a_file_that_is_gone_is_unmapped_before_it_is_forgotten() {
    let guest = guest(8, 100, 4 * RANGE, |fake| fake);
    let file = guest.open();
    check(&file, 4 * RANGE);
    Process::new(&guest.mount).unlink(At::Cwd, b"file").unwrap();
    guest.fake.clear_log();
    drop(file);
    guest.fake.platform().advance(Duration::from_secs(1));
    guest.mount.file_system().work().unwrap();
    guest.fake.platform().advance(Duration::from_secs(1));
    guest.mount.file_system().work();
    let ops: Vec<_> = guest.fake.log().iter().map(|r| r.op).collect();
    let at = |op| ops.iter().position(|&o| o == op);
    assert!(at(Op::REMOVEMAPPING).is_some(), "{ops:?}");
    assert!(at(Op::REMOVEMAPPING) < at(Op::FORGET), "{ops:?}");
    assert_eq!(guest.fake.mappings(), []);
    guest.finish();
}

#[test]
fn an_abort_has_the_server_unmap_everything_before_the_reset() {
    let guest = guest(8, 100, 4 * RANGE, |fake| fake);
    let file = guest.open();
    check(&file, 4 * RANGE);
    assert_eq!(guest.fake.mappings().len(), 4);
    guest.conn.abort();
    assert_eq!(guest.fake.count(Op::DESTROY), 1);
    let mut byte = [0];
    assert!(file.read_at(0, &mut byte).is_err());
    drop(file);
    guest.mount.unmount();
    guest.fake.assert_clean();
}

#[test]
fn an_abort_ends_although_the_server_does_not_answer() {
    let rule = Rule::on(Op::DESTROY, Fault::Hold);
    let guest = guest(8, 100, RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    check(&file, RANGE);
    let before = guest.fake.now();
    guest.conn.abort();
    assert!(guest.fake.now() - before < Duration::from_secs(3));
    drop(file);
    guest.mount.unmount();
}

#[test]
fn ranges_are_as_long_as_the_server_needs_them() {
    let guest = guest(8, 100, 4 * RANGE, |fake| {
        fake.tune(|server| server.map_alignment = 22)
    });
    assert_eq!(guest.totals().free, 4);
    let file = guest.open();
    check(&file, 4 * RANGE);
    let lens: Vec<_> = guest.fake.mappings().iter().map(|m| m.len).collect();
    assert_eq!(lens, [4 << 20; 2]);
    drop(file);
    guest.finish();
}

#[test]
fn in_mode_inode_the_server_says_which_files_use_the_window() {
    for marked in [false, true] {
        let config = Config {
            dax: DaxMode::Inode,
            ..config()
        };
        let guest = guest_with(config, 8, 100, RANGE, |fake| fake);
        guest.fake.fs(|fs| fs.dax("/file", marked)).unwrap();
        let file = guest.open();
        check(&file, RANGE);
        assert_eq!(guest.fake.mappings().len(), usize::from(marked));
        drop(file);
        guest.finish();
    }
}

#[test]
fn a_write_through_the_window_clears_what_the_server_would_clear() {
    let guest = guest(8, 100, RANGE, |fake| fake);
    let file = guest.open();
    check(&file, RANGE);
    for round in 0..3 {
        guest.fake.clear_log();
        let before = guest.fake.count(Op::WRITE);
        file.write_at(0, b"data").unwrap();
        file.write_at(0, b"data").unwrap();
        // The first one by WRITE: the server takes off set-id bits and capabilities.
        assert_eq!(guest.fake.count(Op::WRITE) - before, 1, "round {round}");
        let changes = Changes {
            permissions: Some(0o644),
            ..Changes::default()
        };
        file.set_metadata(&changes).unwrap();
    }
    drop(file);
    guest.finish();
}

/// Faults a page in and does something to its first byte.
fn touch(
    inode: &Inode<FakePlatform>,
    offset: usize,
    want: PageUse,
    touch: impl FnOnce(*mut u8) -> u8,
) -> Option<u8> {
    match inode.fault(offset as u64, want).unwrap() {
        PageFault::Unmappable => None,
        PageFault::Page(page) => {
            let run = page.run();
            assert_eq!(page.addr() - run.addr, offset as PhysAddr - run.offset);
            // SAFETY: inside the window, and pinned.
            let at = unsafe { FakeHal::mmio_phys_to_virt(page.addr(), 4096) };
            Some(touch(at.as_ptr()))
        }
    }
}

fn load(at: *mut u8) -> u8 {
    // SAFETY: the address of a byte that is mapped.
    unsafe { at.read_volatile() }
}

fn store(at: *mut u8) -> u8 {
    // SAFETY: the address of a byte that is mapped for writing.
    unsafe { at.write_volatile(0x77) };
    0x77
}

#[test]
fn pages_are_faulted_in_one_range_after_the_other() {
    let guest = guest(1, 100, 3 * RANGE, |fake| fake);
    let file = guest.open();
    let inode = file.inode();
    let want = content(3 * RANGE);
    for round in 0..2 {
        for page in 0..3 * RANGE / 4096 {
            let at = page * 4096;
            assert_eq!(touch(inode, at, PageUse::Load, load), Some(want[at]));
        }
        let unmapped = guest.fake.platform().take_unmapped();
        let offsets: Vec<_> = unmapped.iter().map(|pages| pages.offset as usize).collect();
        // Each range is taken out of page tables before it makes room.
        let all = [2 * RANGE, 0, RANGE];
        assert_eq!(offsets, all[usize::from(round == 0)..]);
        assert!(unmapped.iter().all(|p| Some(p.mapping) == inode.mapping()));
    }
    assert_eq!(guest.fake.count(Op::SETUPMAPPING), 6);
    drop(file);
    guest.finish();
}

#[test]
fn pages_leave_page_tables_when_the_connection_is_aborted_or_its_device_is_lost() {
    let abort = |guest: &Guest| guest.conn.abort();
    let lose = |guest: &Guest| {
        guest.fake.needs_reset();
        // Whoever sends a request finds out.
        assert!(guest.mount.file_system().sync().is_err());
    };
    for end in [&abort as &dyn Fn(&Guest), &lose] {
        let guest = guest(8, 100, 3 * RANGE, |fake| fake);
        let file = guest.open();
        let inode = file.inode();
        for at in [0, 4096, 2 * RANGE] {
            assert!(touch(inode, at, PageUse::Load, load).is_some());
        }
        // One that is mapped, but in no page table.
        check(&file, 3 * RANGE);
        assert_eq!(guest.fake.platform().take_unmapped(), []);
        end(&guest);
        let unmapped = guest.fake.platform().take_unmapped();
        assert!(unmapped.iter().all(|p| Some(p.mapping) == inode.mapping()));
        let mut offsets: Vec<_> = unmapped.iter().map(|p| p.offset as usize).collect();
        offsets.sort_unstable();
        assert_eq!(offsets, [0, 2 * RANGE]);
        assert!(touch(inode, 0, PageUse::Load, load).is_none(), "no new one");
        drop(file);
        guest.mount.unmount();
        assert_eq!(guest.fake.platform().take_unmapped(), [], "only once");
    }
}

#[test]
fn a_store_upgrades_the_mapping_and_is_made_durable() {
    let guest = guest(4, 100, RANGE, |fake| fake);
    let file = guest.open();
    assert_eq!(
        touch(file.inode(), 8192, PageUse::Load, load),
        Some(content(RANGE)[8192])
    );
    assert_eq!(touch(file.inode(), 8192, PageUse::Store, store), Some(0x77));
    let seen = guest.fake.fs(|fs| fs.read_at("/file", 8192, 1)).unwrap();
    assert_eq!(seen, [0x77]);
    let before = guest.fake.count(Op::FSYNC);
    file.sync(Durable::Data).unwrap();
    assert_eq!(guest.fake.count(Op::FSYNC), before + 1);
    // The page is stored to again, and nobody notices.
    for round in 2..5 {
        file.sync(Durable::All).unwrap();
        assert_eq!(guest.fake.count(Op::FSYNC), before + round);
    }
    // Not any more once no page can be stored to.
    let changes = Changes {
        size: Some(RANGE as u64),
        ..Changes::default()
    };
    file.set_metadata(&changes).unwrap();
    for _ in 0..3 {
        file.sync(Durable::All).unwrap();
        assert_eq!(guest.fake.count(Op::FSYNC), before + 5);
    }
    drop(file);
    guest.finish();
}

#[test]
fn pages_leave_page_tables_before_the_file_is_cut_and_do_not_come_back() {
    let guest = guest(4, 100, RANGE + 100, |fake| fake);
    let file = guest.open();
    let inode = file.inode();
    assert!(touch(inode, 0, PageUse::Load, load).is_some());
    // The last page ends within the page: no server maps it.
    assert!(touch(inode, RANGE, PageUse::Load, load).is_none());
    let end = inode.fault(RANGE as u64 + 100, PageUse::Load).err();
    assert_eq!(end.unwrap().errno(), Errno::EFAULT);
    guest.fake.platform().take_unmapped();
    let changes = Changes {
        size: Some(4096),
        ..Changes::default()
    };
    inode.set_metadata(&changes).unwrap();
    let unmapped = guest.fake.platform().take_unmapped();
    assert_eq!((unmapped[0].offset, unmapped[0].len), (0, u64::MAX));
    assert!(touch(inode, 0, PageUse::Load, load).is_some());
    assert!(inode.fault(4096, PageUse::Load).is_err());
    drop(file);
    guest.finish();
}
