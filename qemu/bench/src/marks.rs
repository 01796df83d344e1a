//! What stands between marks, in the daemons' logs and in the instruction counts.
//!
//! A guest leaves two marks around each timed region, and the region's number in
//! the order of its output is theirs here: region n lies between marks 2n and
//! 2n + 1.

use std::collections::BTreeMap;

use virtio_fs::wire::Opcode;

use crate::results::{Instructions, Requests};

fn name(opcode: u32) -> String {
    Opcode::ALL
        .iter()
        .find(|known| known.to_wire() == opcode)
        .map_or(format!("OPCODE {opcode}"), |known| known.name().to_owned())
}

/// Reads virtiofsd's debug log: what came between one STATFS and the next, the
/// part behind the last one left out.
pub(crate) fn virtiofsd(log: &str) -> Vec<Requests> {
    let (mut all, mut now) = (Vec::new(), Requests::default());
    for line in log.lines() {
        if line.contains("QUEUE_EVENT") {
            now.kicks += 1;
        }
        // Received request: opcode=Lookup (1), inode=1, ...
        let Some((_, rest)) = line.split_once("Received request: opcode=") else {
            continue;
        };
        let number = rest
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'));
        let Some(opcode) = number.and_then(|(number, _)| number.parse().ok()) else {
            continue;
        };
        if opcode == Opcode::Statfs.to_wire() {
            all.push(std::mem::take(&mut now));
        } else {
            *now.by_name.entry(name(opcode)).or_default() += 1;
        }
    }
    all
}

/// Reads the requests log of this project's daemon.
pub(crate) fn daxd(log: &str) -> Vec<Requests> {
    let read = |line: &str| {
        let words = words(line);
        let list = words.get("requests").copied().unwrap_or("");
        let counts = list.split(',').filter_map(|one| {
            let (opcode, count) = one.split_once(':')?;
            Some((name(opcode.parse().ok()?), count.parse().ok()?))
        });
        Requests {
            by_name: counts.collect(),
            kicks: number(&words, "kicks"),
        }
    };
    log.lines()
        .filter(|line| line.starts_with("mark "))
        .map(read)
        .collect()
}

/// What lies in region `n`: the requests that were counted at its second mark.
pub(crate) fn requests(all: &[Requests], n: usize) -> Option<Requests> {
    all.get(2 * n + 1).cloned()
}

/// Reads the instruction counter's file; each is the sum since the start.
pub(crate) fn instructions(file: &str) -> Vec<Instructions> {
    let read = |line: &str| {
        let words = words(line);
        Instructions {
            kernel: number(&words, "kernel"),
            user: number(&words, "user"),
            io: number(&words, "io"),
        }
    };
    file.lines().map(read).collect()
}

/// What was executed in region `n`.
pub(crate) fn executed(all: &[Instructions], n: usize) -> Option<Instructions> {
    let (from, to) = (all.get(2 * n)?, all.get(2 * n + 1)?);
    Some(Instructions {
        kernel: to.kernel.checked_sub(from.kernel)?,
        user: to.user.checked_sub(from.user)?,
        io: to.io.checked_sub(from.io)?,
    })
}

/// The words `key=value` of a line.
pub(crate) fn words(line: &str) -> BTreeMap<&str, &str> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .collect()
}

/// The number behind a key; 0 if there is none.
pub(crate) fn number(words: &BTreeMap<&str, &str>, key: &str) -> u64 {
    words
        .get(key)
        .and_then(|word| word.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_from_statfs_to_statfs() {
        let line = |op: &str| {
            format!(
                "[2026 DEBUG virtiofsd::server] Received request: opcode={op}, inode=1, unique=2\n"
            )
        };
        let log = [
            line("Init (26)"),
            line("Statfs (17)"),
            "QUEUE_EVENT\n".into(),
            line("Read (15)"),
            line("Read (15)"),
            "QUEUE_EVENT\n".into(),
            line("Statfs (17)"),
            line("Lookup (1)"),
        ]
        .concat();
        let all = virtiofsd(&log);
        assert_eq!(all.len(), 2);
        let region = requests(&all, 0).unwrap();
        assert_eq!((region.total(), region.kicks), (2, 2));
        assert_eq!(region.by_name.get("READ"), Some(&2));
        assert_eq!(requests(&all, 1), None);
    }

    #[test]
    fn the_other_daemons_marks_say_the_same() {
        let all = daxd("mark 0 kicks=3 requests=1:1\nmark 1 kicks=7 requests=15:2,99:1\n");
        let region = requests(&all, 0).unwrap();
        assert_eq!(
            (region.kicks, region.by_name["READ"], region.total()),
            (7, 2, 3)
        );
    }

    #[test]
    fn instructions_are_differences() {
        let all = instructions("mark kernel=10 user=1 io=0\nmark kernel=25 user=3 io=4\n");
        let region = executed(&all, 0).unwrap();
        assert_eq!((region.total(), region.io), (17, 4));
        assert_eq!(executed(&all, 1), None);
    }
}
