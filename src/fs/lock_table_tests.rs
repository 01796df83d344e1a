//! The table of locks against a model that knows nothing but single bytes.

extern crate std;

use std::collections::BTreeMap;
use std::string::String;
use std::vec::Vec;

use super::*;

const BYTES: u64 = 12;
const OWNERS: u64 = 4;
const FILES: usize = 2;

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

    fn wish(&mut self) -> (FileKey, Owned) {
        let (a, b) = (self.below(BYTES), self.below(BYTES));
        let kind = match self.below(5) {
            0 | 1 => LockKind::Read,
            2 | 3 => LockKind::Write,
            _ => LockKind::Unlock,
        };
        let end = match a.max(b) {
            last if last + 1 == BYTES => Lock::END,
            end => end,
        };
        let lock = Lock {
            start: a.min(b),
            end,
            kind,
            pid: 0,
        };
        let owner = LockOwner(1 + self.below(OWNERS));
        (self.below(FILES as u64) as usize, Owned { owner, lock })
    }
}

/// The kind of lock on each byte of each file, by owner. The last byte stands
/// for all that follow.
#[derive(Default)]
struct Model(BTreeMap<(FileKey, u64, u64), LockKind>);

fn bytes(lock: &Lock) -> impl Iterator<Item = u64> + use<> {
    lock.start..=lock.end.min(BYTES - 1)
}

impl Model {
    fn free(&self, file: FileKey, wish: &Owned) -> bool {
        wish.lock.kind == LockKind::Unlock
            || self.0.iter().all(|(&(f, owner, byte), &kind)| {
                f != file
                    || owner == wish.owner.0
                    || bytes(&wish.lock).all(|b| b != byte)
                    || kind == LockKind::Read && wish.lock.kind == LockKind::Read
            })
    }

    fn set(&mut self, file: FileKey, wish: &Owned) {
        for byte in bytes(&wish.lock) {
            let key = (file, wish.owner.0, byte);
            match wish.lock.kind {
                LockKind::Unlock => self.0.remove(&key),
                kind => self.0.insert(key, kind),
            };
        }
    }

    fn holds_any(&self, owner: LockOwner) -> bool {
        self.0.keys().any(|&(_, o, _)| o == owner.0)
    }
}

/// What the table says about each byte.
fn seen(table: &LockTable<Ticket>) -> BTreeMap<(FileKey, u64, u64), LockKind> {
    let mut all = BTreeMap::new();
    for (&file, held) in &table.files {
        assert!(!held.0.is_empty(), "an empty entry for file {file}");
        for (at, owned) in held.0.iter().enumerate() {
            for other in &held.0[at + 1..] {
                assert!(
                    owned.owner != other.owner
                        || !owned.overlaps(other)
                            && (owned.lock.kind != other.lock.kind || !owned.touches(other)),
                    "{owned:?} beside {other:?}"
                );
            }
            for byte in bytes(&owned.lock) {
                all.insert((file, owned.owner.0, byte), owned.lock.kind);
            }
        }
    }
    all
}

fn seed() -> u64 {
    let fixed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let seed = fixed.unwrap_or(0x10c4);
    std::println!("SEED={seed}");
    seed
}

#[test]
fn ranges_are_split_merged_and_converted_as_a_model_of_single_bytes_says() {
    let mut random = Random(seed());
    for _ in 0..300 {
        let (mut table, mut model) = (LockTable::<Ticket>::new(Circles::Refused), Model::default());
        for _ in 0..100 {
            let (file, wish) = random.wish();
            let free = model.free(file, &wish);
            let in_the_way = table.conflict(file, &wish);
            assert_eq!(in_the_way.is_none(), free);
            assert_eq!(table.set(file, wish, |_| ()), free, "{wish:?}");
            if free {
                model.set(file, &wish);
            }
            assert_eq!(seen(&table), model.0, "after {wish:?}");
        }
    }
}

#[test]
fn who_waits_gets_the_lock_in_turn_and_never_in_a_circle() {
    let mut random = Random(seed() ^ 1);
    let mut deadlocks = 0;
    for _ in 0..300 {
        let mut table = LockTable::<Ticket>::new(Circles::Refused);
        let mut model = Model::default();
        // The test's own view of the line: an owner waits for one lock at most.
        let mut line: Vec<(Ticket, FileKey, Owned)> = Vec::new();
        for _ in 0..100 {
            let (file, wish) = random.wish();
            let waits = line.iter().position(|(_, _, w)| w.owner == wish.owner);
            let mut woken = Vec::new();
            match (waits, random.below(8)) {
                (Some(at), 0) => {
                    let (ticket, ..) = line.remove(at);
                    assert!(table.leave(ticket, |t| woken.push(*t)));
                }
                (Some(_), _) => continue,
                (None, 0) => {
                    table.release(file, wish.owner, |t| woken.push(*t));
                    model
                        .0
                        .retain(|&(f, o, _), _| f != file || o != wish.owner.0);
                }
                (None, _) => {
                    // The table names threads by the tickets that it will give.
                    let name = Ticket(table.next_ticket);
                    match table.set_or_wait(file, wish, name, |t| woken.push(*t)) {
                        Outcome::Granted => {
                            assert!(model.free(file, &wish));
                            model.set(file, &wish);
                        }
                        Outcome::Waits(ticket) => {
                            assert_eq!(ticket, name);
                            line.push((ticket, file, wish));
                        }
                        Outcome::Deadlock => deadlocks += 1,
                    }
                }
            }
            for ticket in woken {
                let at = line.iter().position(|(t, ..)| *t == ticket).unwrap();
                let (ticket, file, wish) = line.remove(at);
                assert!(table.redeem(ticket) && !table.redeem(ticket));
                assert!(model.free(file, &wish), "{wish:?} was given too early");
                model.set(file, &wish);
            }
            assert_eq!(seen(&table), model.0);
            check_line(&model, &line);
        }
    }
    assert!(deadlocks > 10, "{deadlocks} circles in the whole test");
}

/// Nobody waits for what he could have, and nobody waits for himself.
fn check_line(model: &Model, line: &[(Ticket, FileKey, Owned)]) {
    for (place, (_, file, wish)) in line.iter().enumerate() {
        let behind = line[..place]
            .iter()
            .any(|(_, f, w)| f == file && w.conflicts(wish));
        assert!(
            !model.free(*file, wish) || behind && !model.holds_any(wish.owner),
            "{wish:?} waits for nothing"
        );
    }
    // Take away, again and again, whoever waits for nobody who waits: in the end
    // none must be left.
    let mut left: Vec<_> = line.iter().collect();
    loop {
        let stuck: Vec<_> = left
            .iter()
            .filter(|(_, file, wish)| {
                let blocks = |owner: LockOwner| {
                    owner != wish.owner
                        && model.0.iter().any(|(&(f, o, byte), &kind)| {
                            f == *file
                                && o == owner.0
                                && bytes(&wish.lock).any(|b| b == byte)
                                && (kind == LockKind::Write || wish.lock.kind == LockKind::Write)
                        })
                };
                left.iter().any(|(_, _, other)| blocks(other.owner))
            })
            .copied()
            .collect();
        if stuck.len() == left.len() {
            assert!(left.is_empty(), "a circle: {left:?}");
            return;
        }
        left = stuck;
    }
}

fn lock(owner: u64, kind: LockKind) -> Owned {
    Owned {
        owner: LockOwner(owner),
        lock: Lock {
            start: 0,
            end: Lock::END,
            kind,
            pid: owner as u32,
        },
    }
}

#[test]
fn a_reader_does_not_overtake_a_writer_who_waits() {
    let mut table = LockTable::<&str>::new(Circles::Allowed);
    let none = |_: &&str| ();
    assert_eq!(
        table.set_or_wait(1, lock(1, LockKind::Read), "a", none),
        Outcome::Granted
    );
    let Outcome::Waits(writer) = table.set_or_wait(1, lock(2, LockKind::Write), "writer", none)
    else {
        panic!("two kinds at once");
    };
    let Outcome::Waits(reader) = table.set_or_wait(1, lock(3, LockKind::Read), "reader", none)
    else {
        panic!("overtaken");
    };
    let mut woken = String::new();
    table.release(1, LockOwner(1), |name| woken.push_str(name));
    assert_eq!(woken, "writer");
    assert!(table.redeem(writer) && !table.redeem(reader));
    table.release(1, LockOwner(2), |name| woken.push_str(name));
    assert_eq!(woken, "writerreader");
    assert!(!table.leave(reader, none), "given before it left");
}

#[test]
fn who_waited_behind_one_that_gave_up_goes_on() {
    let mut table = LockTable::<&str>::new(Circles::Allowed);
    let none = |_: &&str| ();
    assert!(table.set(1, lock(1, LockKind::Read), none));
    let Outcome::Waits(writer) = table.set_or_wait(1, lock(2, LockKind::Write), "writer", none)
    else {
        panic!("two kinds at once");
    };
    let behind = table.set_or_wait(1, lock(3, LockKind::Read), "reader", none);
    assert!(matches!(behind, Outcome::Waits(_)));
    let mut woken = String::new();
    assert!(table.leave(writer, |name| woken.push_str(name)));
    assert_eq!(woken, "reader");
}
