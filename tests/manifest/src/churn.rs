//! Random changes that are always possible, because the generator keeps a model of what it made.
//!
//! Two generators with one seed give the same changes, so each side may do any round of them and
//! the other still knows the tree. They stay within one directory, [`Churn::ROOT`], which the first
//! round makes.
//!
//! A round ends by setting the times of all that it touched, directories too, so that the two
//! sides' clocks do not matter and every field of the two manifests must agree.

use crate::{Kind, Op, Time, op::Random, walk::join};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    format, vec,
    vec::Vec,
};

/// A number for a file, which may have several names and keeps it when it moves.
type Node = usize;

/// What the model knows of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    kind: Kind,
    node: Node,
}

/// Draws rounds of changes from a seed.
#[derive(Debug, Clone)]
pub struct Churn {
    random: Random,
    names: BTreeMap<Vec<u8>, Known>,
    /// Of each node; 0 for what is no regular file.
    sizes: Vec<u64>,
    /// What this round has changed.
    touched: BTreeSet<Node>,
}

impl Churn {
    /// The directory that all changes stay in.
    pub const ROOT: &[u8] = b"churn";
    /// Files do not grow beyond this; holes count.
    const LARGEST: u64 = 4 << 20;

    /// A generator at the first round.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            names: BTreeMap::new(),
            sizes: Vec::new(),
            touched: BTreeSet::new(),
        }
    }

    /// The next round: `count` changes, and those that set the times.
    pub fn round(&mut self, count: usize) -> Vec<Op> {
        let mut ops = Vec::with_capacity(count * 2);
        if self.names.is_empty() {
            self.make(Self::ROOT.to_vec(), Kind::Dir);
            self.touched.insert(0);
            ops.push(Op::Mkdir {
                path: Self::ROOT.to_vec(),
                mode: 0o755,
            });
        }
        while ops.len() < count {
            let Some(op) = self.draw() else { continue };
            for path in paths(&op) {
                for changed in [path, parent(path)] {
                    self.touched
                        .extend(self.names.get(changed).map(|known| known.node));
                }
            }
            ops.push(op);
        }
        // By node, not by name: a file may have moved or lost the name by which it was changed.
        let mut settle = Vec::new();
        for (path, known) in &self.names {
            if self.touched.remove(&known.node) {
                settle.push(path.clone());
            }
        }
        self.touched.clear();
        for path in settle {
            let mtime = self.time();
            ops.push(Op::SetMtime { path, mtime });
        }
        ops
    }

    /// How many names there are, the root of the churn included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing has been made yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// One change, or none if the dice fell on something that there is not.
    fn draw(&mut self) -> Option<Op> {
        Some(match self.random.below(24) {
            0..5 => {
                let path = self.fresh()?;
                self.make(path.clone(), Kind::File);
                Op::Create {
                    path,
                    mode: 0o600 | self.random.below(0o1000) as u32,
                }
            }
            5..7 => {
                let path = self.fresh()?;
                self.make(path.clone(), Kind::Dir);
                Op::Mkdir {
                    path,
                    mode: 0o700 | self.random.below(0o1000) as u32,
                }
            }
            kind @ 7..13 => {
                let (path, node) = self.file()?;
                let size = self.sizes[node];
                let most = [200, 9_000, 200_000][self.random.below(3) as usize];
                let length = 1 + self.random.below(most);
                let offset = match kind {
                    7..9 => size,
                    9..11 => self.random.below(size + 1),
                    _ => size + self.random.below(300_000),
                };
                if offset + length > Self::LARGEST {
                    return None;
                }
                self.sizes[node] = size.max(offset + length);
                Op::Write {
                    path,
                    offset,
                    length: length as usize,
                    seed: self.random.next(),
                }
            }
            13..15 => {
                let (path, node) = self.file()?;
                // Shorter or longer.
                let size = self
                    .random
                    .below(2 * self.sizes[node] + 2)
                    .min(Self::LARGEST);
                self.sizes[node] = size;
                Op::Truncate { path, size }
            }
            15..18 => self.rename()?,
            18 => {
                let (from, node) = self.file()?;
                let to = self.fresh()?;
                self.names.insert(
                    to.clone(),
                    Known {
                        kind: Kind::File,
                        node,
                    },
                );
                Op::Link { from, to }
            }
            19 => {
                let path = self.fresh()?;
                let target = if self.random.below(2) == 0 {
                    self.any()?
                } else {
                    b"../no/such\nplace".to_vec()
                };
                self.make(path.clone(), Kind::Link);
                Op::Symlink { target, path }
            }
            20..22 => {
                let path = self.any()?;
                if self.names[&path].kind == Kind::Dir {
                    return None;
                }
                self.names.remove(&path);
                Op::Unlink { path }
            }
            22 => {
                let path = self.any()?;
                let empty = !self.names.keys().any(|name| below(name, &path));
                if self.names[&path].kind != Kind::Dir || !empty || path == Self::ROOT {
                    return None;
                }
                self.names.remove(&path);
                Op::Rmdir { path }
            }
            _ => {
                let path = self.any()?;
                let least = match self.names[&path].kind {
                    Kind::Dir => 0o700,
                    Kind::File => 0o600,
                    _ => return None,
                };
                Op::Chmod {
                    path,
                    mode: least | self.random.below(0o1000) as u32,
                }
            }
        })
    }

    fn rename(&mut self) -> Option<Op> {
        let from = self.any()?;
        let known = self.names[&from];
        // Now and then onto another file, which is replaced.
        let onto = known.kind != Kind::Dir && self.random.below(4) == 0;
        let to = if onto { self.any()? } else { self.fresh()? };
        let taken = self.names.get(&to);
        // One file's two names would both stay.
        let refused =
            taken.is_some_and(|taken| taken.kind == Kind::Dir || taken.node == known.node);
        if from == Self::ROOT || refused || below(&to, &from) {
            return None;
        }
        let moved: Vec<_> = self
            .names
            .keys()
            .filter(|name| **name == from || below(name, &from))
            .cloned()
            .collect();
        for old in moved {
            let known = self.names.remove(&old)?;
            self.names.insert([&to, &old[from.len()..]].concat(), known);
        }
        Some(Op::Rename { from, to })
    }
    /// A new file of some kind.
    fn make(&mut self, path: Vec<u8>, kind: Kind) {
        self.names.insert(
            path,
            Known {
                kind,
                node: self.sizes.len(),
            },
        );
        self.sizes.push(0);
    }

    /// A name that is taken.
    fn any(&mut self) -> Option<Vec<u8>> {
        let index = self.random.below(self.names.len() as u64) as usize;
        self.names.keys().nth(index).cloned()
    }

    /// A regular file, if the dice fall on one.
    fn file(&mut self) -> Option<(Vec<u8>, Node)> {
        let path = self.any()?;
        let known = self.names[&path];
        (known.kind == Kind::File).then_some((path, known.node))
    }

    /// A path that is free, in some directory, with a name of any shape.
    fn fresh(&mut self) -> Option<Vec<u8>> {
        let dir = self.any()?;
        // Deep enough to be of interest, and no path beyond PATH_MAX.
        if self.names[&dir].kind != Kind::Dir
            || dir.len() > 1500
            || dir.iter().filter(|byte| **byte == b'/').count() > 12
        {
            return None;
        }
        let mut name = format!("{:x}", self.random.below(1 << 40)).into_bytes();
        match self.random.below(12) {
            0 => name.extend(b" with space"),
            1 => name.extend([0xff, 0xfe, 0x80]),
            2 => name.extend(b"\nline"),
            3 => name.extend("-älter-文".bytes()),
            4 => name.insert(0, b'-'),
            5 => name.resize(255, b'n'),
            6 => name.extend(b"\\x41"),
            7 => name.splice(0..0, *b"...").for_each(drop),
            _ => (),
        }
        let path = join(&dir, &name);
        (!self.names.contains_key(&path)).then_some(path)
    }

    /// Any time that common file systems hold, on both sides of 1970.
    fn time(&mut self) -> Time {
        let span = if self.random.below(8) == 0 {
            -1_000_000_000
        } else {
            2_000_000_000
        };
        let seconds = self.random.below(1_000_000_000) as i64 * span / 1_000_000_000;
        Time {
            seconds,
            nanos: self.random.below(1_000_000_000) as u32,
        }
    }
}

/// The paths that a change touches.
fn paths(op: &Op) -> Vec<&[u8]> {
    match op {
        Op::Rename { from, to } | Op::Link { from, to } => vec![from, to],
        Op::Create { path, .. }
        | Op::Write { path, .. }
        | Op::Truncate { path, .. }
        | Op::Symlink { path, .. }
        | Op::Unlink { path }
        | Op::Mkdir { path, .. }
        | Op::Rmdir { path }
        | Op::Chmod { path, .. }
        | Op::SetMtime { path, .. } => vec![path],
    }
}

fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    &path[..slash.unwrap_or(0)]
}

/// Whether `path` lies in `dir`, at any depth.
fn below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.first() == Some(&b'/'))
}
