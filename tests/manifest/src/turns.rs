//! How host and guest take turns at one tree.
//!
//! In round 0 nobody changes anything. From then on the host does the odd rounds and the guest the
//! even ones, each drawn by both from the same [`Churn`]. After each round the guest writes its
//! manifest to a file in [`DROP`], says so on the serial port, and waits for the host to compare
//! it with its own and to do the next round if that is the host's.

use crate::{Churn, Fs, Op, apply, walk};
use alloc::{format, string::String, vec::Vec};

/// The directory in the root by which manifests are handed over; the host makes it. It is no part
/// of them.
pub const DROP: &[u8] = b".manifest";
/// Changes in one round.
pub const CHANGES: usize = 150;

/// Who does a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nobody: the tree as the host made it.
    Nobody,
    /// The host.
    Host,
    /// The guest.
    Guest,
}

/// Whose turn a round is.
#[must_use]
pub fn turn(round: u32) -> Turn {
    match round {
        0 => Turn::Nobody,
        _ if round % 2 == 1 => Turn::Host,
        _ => Turn::Guest,
    }
}

/// How much of the tree a round's manifest covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Tree,
    /// What the churn changes.
    Churn,
}

impl Scope {
    /// Where to begin to walk.
    #[must_use]
    pub fn root(self) -> &'static [u8] {
        match self {
            Self::Tree => b"",
            Self::Churn => Churn::ROOT,
        }
    }
}

/// The scope of a round out of so many: the first and the last one cover everything.
#[must_use]
pub fn scope(round: u32, rounds: u32) -> Scope {
    if round == 0 || round == rounds {
        Scope::Tree
    } else {
        Scope::Churn
    }
}

/// The guest's part: all rounds from 0 to `rounds`. `say` writes a line to the serial port, without
/// its end; `wait` blocks until the host sends a line.
///
/// # Errors
/// What the guest could not do, and the file system's error then.
pub fn take_part<F: Fs>(
    fs: &mut F,
    seed: u64,
    rounds: u32,
    say: &mut dyn FnMut(&str),
    wait: &mut dyn FnMut(),
) -> Result<(), (String, F::Error)> {
    let mut churn = Churn::new(seed);
    for round in 0..=rounds {
        if turn(round) != Turn::Nobody {
            let ops = churn.round(CHANGES);
            if turn(round) == Turn::Guest {
                change(fs, &ops)?;
            }
        }
        let mut manifest = Vec::new();
        walk(fs, scope(round, rounds).root(), &mut |line| {
            manifest.extend_from_slice(line.as_bytes());
            manifest.push(b'\n');
        })
        .map_err(|(path, error)| (format!("walking {}", crate::escape(&path)), error))?;
        let file = [DROP, format!("/guest-{round}").as_bytes()].concat();
        fs.create(&file, 0o644)
            .and_then(|()| fs.write(&file, 0, &manifest))
            .map_err(|error| ("writing the manifest".into(), error))?;
        say(&format!("manifest: round {round}"));
        wait();
    }
    Ok(())
}

/// Does one round's changes.
fn change<F: Fs>(fs: &mut F, ops: &[Op]) -> Result<(), (String, F::Error)> {
    ops.iter()
        .try_for_each(|op| apply(fs, op).map_err(|error| (format!("{op:?}"), error)))
}
