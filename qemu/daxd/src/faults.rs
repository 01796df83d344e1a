//! Failures on purpose, to test drivers: requests about mappings that are refused
//! for no reason, or carried out and called failed.

use std::io;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SETUPMAPPING is refused; nothing is mapped.
    Map,
    /// SETUPMAPPING is done, and answered with an error.
    Mapped,
    /// REMOVEMAPPING is refused; everything stays mapped.
    Unmap,
    /// REMOVEMAPPING is done, and answered with an error.
    Unmapped,
}

/// A [`Fault`], and at every how manieth request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    fault: Fault,
    every: u64,
}

impl FromStr for Rule {
    type Err = String;

    /// Reads `map:N`, `mapped:N`, `unmap:N` or `unmapped:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("--fault is map, mapped, unmap or unmapped:N, not '{text}'");
        let (name, every) = text.split_once(':').ok_or_else(wrong)?;
        let fault = match name {
            "map" => Fault::Map,
            "mapped" => Fault::Mapped,
            "unmap" => Fault::Unmap,
            "unmapped" => Fault::Unmapped,
            _ => return Err(wrong()),
        };
        match every.parse() {
            Ok(every) if every > 1 => Ok(Self { fault, every }),
            _ => Err(format!("--fault {name}:N: N is a number from 2 on")),
        }
    }
}

/// The rules with their counts; none in a daemon that is not tested with.
#[derive(Debug, Default)]
pub struct Faults(Vec<(Rule, AtomicU64)>);

impl Faults {
    /// Begins to count.
    pub fn new(rules: &[Rule]) -> Self {
        Self(
            rules
                .iter()
                .map(|&rule| (rule, AtomicU64::new(0)))
                .collect(),
        )
    }

    /// Counts a request.
    ///
    /// # Errors
    /// EIO if it is its turn to fail in this way.
    pub fn strike(&self, fault: Fault) -> io::Result<()> {
        for (rule, count) in self.0.iter().filter(|(rule, _)| rule.fault == fault) {
            if (count.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(rule.every) {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_so_many_fail_and_no_others() {
        let faults = Faults::new(&["unmap:3".parse().expect("a rule")]);
        let failed = |fault| {
            (0..9)
                .map(|_| faults.strike(fault).is_err())
                .collect::<Vec<_>>()
        };
        let third = [false, false, true].repeat(3);
        assert_eq!(failed(Fault::Unmap), third);
        assert_eq!(failed(Fault::Unmapped), [false; 9]);
        for bad in ["unmap", "unmap:0", "unmap:1", "unmap:x", "walk:3", ""] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }
}
