//! Mappings of unknown fate: what is done but called failed, what is lost, and that
//! nobody waits for ever for what cannot be repaired.

use super::*;

const REFUSED: Fault = Fault::Error(-libc::EIO);

#[test]
fn a_mapping_whose_reply_is_lost_is_not_used_again_before_it_is_repaired() {
    let rule = Rule::on(Op::SETUPMAPPING, Fault::Hold);
    let deaf = |server: &mut ServerConfig| server.interrupts = Interrupts::Ignored;
    let guest = guest(1, 100, RANGE, |fake| fake.fault(rule).tune(deaf));
    let file = guest.open();
    check(&file, RANGE);
    assert_eq!(guest.totals().unknown, 1);
    assert_eq!(guest.conn.counters().dax_lost.get(), 1);
    // Whatever the device does with it is not known while it has the request.
    for _ in 0..3 {
        check(&file, RANGE);
        guest.mount.file_system().work().unwrap();
        guest.fake.platform().advance(Duration::from_secs(1));
    }
    assert_eq!(guest.fake.count(Op::REMOVEMAPPING), 0);
    assert_eq!(guest.totals().unknown, 1);
    assert_eq!(guest.fake.release_held(), 1);
    guest.mend();
    assert_eq!(guest.conn.counters().dax_repairs.get(), 1);
    let before = guest.conn.counters().dax_copies.get();
    check(&file, RANGE);
    assert!(guest.conn.counters().dax_copies.get() > before);
    drop(file);
    guest.finish();
}

#[test]
fn an_unmapping_that_was_done_but_reported_as_failed_is_proved_by_the_next_one() {
    let rule = Rule::on(Op::REMOVEMAPPING, Fault::Error(-libc::EIO));
    let guest = guest(2, 100, 4 * RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    for _ in 0..3 {
        check(&file, 4 * RANGE);
    }
    guest.mount.file_system().work().unwrap();
    for _ in 0..10 {
        check(&file, 4 * RANGE);
        guest.fake.platform().advance(Duration::from_secs(1));
        guest.mount.file_system().work().unwrap();
    }
    assert_eq!(guest.conn.counters().dax_lost.get(), 1);
    assert_eq!(guest.conn.counters().dax_repairs.get(), 1);
    assert_eq!(guest.totals().unknown, 0);
    drop(file);
    guest.finish();
}

#[test]
fn a_lost_unmapping_is_repaired_once_the_device_has_returned_it() {
    let rule = Rule::on(Op::REMOVEMAPPING, Fault::Hold);
    let deaf = |server: &mut ServerConfig| server.interrupts = Interrupts::Ignored;
    let guest = guest(2, 100, 4 * RANGE, |fake| fake.fault(rule).tune(deaf));
    let file = guest.open();
    check(&file, 4 * RANGE);
    assert_eq!(guest.totals().unknown, 1);
    assert_eq!(guest.fake.release_held(), 1);
    for _ in 0..10 {
        guest.fake.platform().advance(Duration::from_secs(1));
        guest.mount.file_system().work().unwrap();
        check(&file, 4 * RANGE);
    }
    assert_eq!(guest.totals().unknown, 0);
    drop(file);
    guest.finish();
}

#[test]
fn faults_wait_until_the_last_range_is_found_to_be_free() {
    // Nothing is mapped any more after the first one, and nothing but that is known.
    let rule = Rule::on(Op::REMOVEMAPPING, REFUSED);
    let guest = guest(1, 100, 3 * RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    let want = content(3 * RANGE);
    for at in [0, RANGE, 2 * RANGE] {
        assert_eq!(touch(file.inode(), at, PageUse::Load, load), Some(want[at]));
    }
    let counters = guest.conn.counters();
    assert_eq!(counters.dax_repairs.get() + counters.dax_lost.get(), 2);
    drop(file);
    guest.finish();
}

#[test]
fn faults_map_over_the_last_range_if_no_unmapping_is_ever_called_done() {
    let rule = Rule::on(Op::REMOVEMAPPING, REFUSED).always();
    let guest = guest(2, 100, 5 * RANGE, |fake| fake.fault(rule));
    let file = guest.open();
    let want = content(5 * RANGE);
    for at in (0..5).map(|n| n * RANGE) {
        assert_eq!(touch(file.inode(), at, PageUse::Load, load), Some(want[at]));
    }
    check(&file, 5 * RANGE);
    drop(file);
    guest.finish();
}

#[test]
fn faults_do_not_wait_for_ever_for_a_range_that_cannot_be_repaired() {
    // The second chunk is too short to be mapped over what may be there.
    let len = RANGE + 8192;
    let rule = Rule::on(Op::REMOVEMAPPING, REFUSED).always();
    let guest = guest(1, 100, len, |fake| fake.fault(rule));
    let file = guest.open();
    let want = content(len);
    let inode = file.inode();
    assert_eq!(touch(inode, 0, PageUse::Load, load), Some(want[0]));
    assert_eq!(touch(inode, RANGE, PageUse::Load, load), None);
    assert_eq!(guest.totals().unknown, 1);
    // Who comes later does not wait at all.
    let asked = guest.fake.count(Op::REMOVEMAPPING);
    assert!(asked < 12, "{asked}");
    for _ in 0..20 {
        assert_eq!(touch(inode, RANGE, PageUse::Store, load), None);
    }
    assert!(guest.fake.count(Op::REMOVEMAPPING) <= asked + 1);
    let mut buf = [0; 8192];
    assert_eq!(file.read_at(RANGE as u64, &mut buf).unwrap(), 8192);
    assert!(buf[..] == want[RANGE..]);
    // One as long as what may be there does prove the range.
    guest.fake.platform().advance(Duration::from_secs(10));
    assert_eq!(touch(inode, 0, PageUse::Load, load), Some(want[0]));
    drop(file);
    guest.finish();
}

#[test]
fn faults_do_not_wait_for_ever_for_a_request_that_is_never_returned() {
    let rule = Rule::on(Op::REMOVEMAPPING, Fault::Hold);
    let deaf = |server: &mut ServerConfig| server.interrupts = Interrupts::Ignored;
    let guest = guest(1, 100, 2 * RANGE, |fake| fake.fault(rule).tune(deaf));
    let file = guest.open();
    let want = content(2 * RANGE);
    let inode = file.inode();
    assert_eq!(touch(inode, 0, PageUse::Load, load), Some(want[0]));
    assert_eq!(touch(inode, RANGE, PageUse::Load, load), None);
    check(&file, 2 * RANGE);
    assert_eq!(guest.fake.release_held(), 1);
    guest.mend();
    assert_eq!(touch(inode, RANGE, PageUse::Load, load), Some(want[RANGE]));
    drop(file);
    guest.finish();
}

#[test]
fn a_mapping_that_was_done_but_reported_as_failed_is_removed_before_one_of_another_length() {
    let len = RANGE + 8192;
    let rule = Rule::on(Op::SETUPMAPPING, REFUSED);
    let guest = guest(1, 100, len, |fake| fake.fault(rule));
    let file = guest.open();
    let want = content(len);
    let inode = file.inode();
    assert_eq!(touch(inode, RANGE, PageUse::Load, load), None);
    assert_eq!(guest.fake.mappings().len(), 1);
    assert_eq!(touch(inode, 0, PageUse::Load, load), Some(want[0]));
    assert_eq!(guest.conn.counters().dax_repairs.get(), 1);
    drop(file);
    guest.finish();
}

#[test]
fn a_range_in_which_something_of_unknown_length_is_is_not_proved_by_its_absence() {
    // The host has a longer mapping there than the driver asks to be removed.
    let len = RANGE + 8192;
    let exists = Fault::Error(-libc::EEXIST);
    let guest = guest(1, 100, len, |fake| {
        fake.fault(Rule::on(Op::SETUPMAPPING, exists))
            .fault(Rule::on(Op::REMOVEMAPPING, Fault::Error(-libc::ENOENT)).times(3))
    });
    let file = guest.open();
    let inode = file.inode();
    assert_eq!(touch(inode, RANGE, PageUse::Load, load), None);
    guest.mount.file_system().work().unwrap();
    assert_eq!(guest.fake.count(Op::REMOVEMAPPING), 1);
    assert_eq!(guest.totals().unknown, 1);
    drop(file);
    guest.finish();
}
