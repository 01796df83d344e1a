//! Keeps `tests/requirements.md` and `tests/attack/FIELDS.md` true: every number has
//! its row, every field a test, and every test and file that a row names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How many numbers each source of the requirements has.
const SOURCES: &[(&str, u32)] = &[
    ("S0-", 29),
    ("S1-", 31),
    ("S2-", 23),
    ("S3-", 17),
    ("S4-M", 44),
];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Row {
    number: String,
    state: String,
    place: String,
    tests: Vec<(String, String)>,
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(top().join("tests/requirements.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| S"));
    rows.map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{line}");
        Row {
            number: cells[1].to_owned(),
            state: cells[2].to_owned(),
            place: cells[3].to_owned(),
            tests: named(cells[4]),
        }
    })
    .collect()
}

/// The tests in a cell: package and function.
fn named(cell: &str) -> Vec<(String, String)> {
    let names = cell.split('`').filter(|cell| cell.contains("::"));
    let split = names.map(|name| name.split_once("::").unwrap());
    split.map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// Checks that tests are there; `row` says who names them.
fn must_exist(tests: &[(String, String)], row: &str) {
    let packages = [
        ("virtio-fs", "src"),
        ("virtio-fs-attack", "tests/attack"),
        ("virtio-fs-tests", "tests/fs"),
        ("virtio-fs-daxd", "qemu/daxd"),
        ("virtio-fs-fake", "tests/fake"),
        ("virtio-fs-fuzz", "tests/fuzz"),
        ("virtio-fs-host", "tests/host"),
    ];
    for (package, test) in tests {
        let folder = packages.iter().find(|(name, _)| name == package);
        let (_, folder) = folder.unwrap_or_else(|| panic!("{row}: {package}"));
        let mut found = BTreeSet::new();
        tests_in(&top().join(folder), &mut found);
        assert!(found.contains(test), "{row}: {package}::{test}");
    }
}

/// The names of all test functions under a folder.
fn tests_in(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" {
                    marked = true;
                } else if let Some(rest) = line.strip_prefix("fn ") {
                    if core::mem::take(&mut marked) {
                        found.extend(rest.split('(').next().map(str::to_owned));
                    }
                } else if !line.starts_with("#[") {
                    marked = false;
                }
            }
        }
    }
}

#[test]
fn every_number_has_one_row_in_order() {
    let mut wanted = Vec::new();
    for (source, count) in SOURCES {
        wanted.extend((1..=*count).map(|n| format!("{source}{n:02}")));
    }
    let rows: Vec<_> = rows().into_iter().map(|row| row.number).collect();
    assert_eq!(rows, wanted);
}

#[test]
fn every_row_has_a_state_and_a_place_or_reason() {
    for row in rows() {
        let states = ["done", "part", "not yet", "not applicable"];
        assert!(states.contains(&&*row.state), "{}", row.number);
        assert!(!row.place.is_empty(), "{}", row.number);
        for word in row.place.split([' ', ',', ';', ':']) {
            if word.starts_with("src/") || word.starts_with("tests/") {
                assert!(top().join(word).exists(), "{}: {word}", row.number);
            }
        }
    }
}

#[test]
fn the_named_tests_exist() {
    for row in rows() {
        must_exist(&row.tests, &row.number);
    }
}

#[test]
fn every_field_has_a_test_that_exists() {
    let text = fs::read_to_string(top().join("tests/attack/FIELDS.md")).unwrap();
    let mut fields = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if cells[1] == "field" {
            continue;
        }
        assert_eq!(cells.len(), 5, "{line}");
        let tests = named(cells[3]);
        assert!(!tests.is_empty(), "{line}");
        must_exist(&tests, line);
        fields += 1;
    }
    println!("{fields} fields");
    assert!(fields > 80, "{fields} fields");
}
