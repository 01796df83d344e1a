//! What a FUSE request does not say of its caller: groups and capabilities.

use std::fs;

use virtio_fs::platform::Capabilities;

use crate::operations::Context;

/// The credentials of a process beyond its ids.
pub(crate) struct Known {
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: Capabilities,
}

/// What becomes of set-id bits, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetIds {
    Keep,
    Clear,
}

impl SetIds {
    /// Only user 0 keeps them, where the kernel says nothing.
    pub(crate) fn of(context: &Context) -> Self {
        Self::when(context.uid != 0)
    }

    pub(crate) fn when(clear: bool) -> Self {
        if clear { Self::Clear } else { Self::Keep }
    }
}

/// Numbers of the capabilities in `linux/capability.h`.
const NUMBERS: [(u32, Capabilities); 7] = [
    (0, Capabilities::CHOWN),
    (1, Capabilities::DAC_OVERRIDE),
    (2, Capabilities::DAC_READ_SEARCH),
    (3, Capabilities::FOWNER),
    (4, Capabilities::FSETID),
    (27, Capabilities::MKNOD),
    (21, Capabilities::SYS_ADMIN),
];

/// Reads the credentials of thread `pid`. `None` for one that has ended, or for
/// the kernel itself.
pub(crate) fn look_up(pid: u32) -> Option<Known> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

fn parse(status: &str) -> Option<Known> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let groups = field("Groups")?
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
        .collect();
    let effective = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
    let capabilities = NUMBERS
        .into_iter()
        .filter(|(number, _)| effective >> number & 1 != 0)
        .map(|(_, capability)| capability)
        .collect();
    Some(Known {
        groups,
        capabilities,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_capabilities_are_read_from_the_status() {
        let status = "Name:\tsh\nGroups:\t4 24 1000 \nCapEff:\t0000000000200002\n";
        let known = parse(status).unwrap();
        assert_eq!(known.groups, [4, 24, 1000]);
        let both = Capabilities::DAC_OVERRIDE | Capabilities::SYS_ADMIN;
        assert_eq!(known.capabilities, both);
        assert!(parse("Name:\tsh\n").is_none());
    }

    #[test]
    fn the_own_process_can_be_looked_up() {
        assert!(look_up(std::process::id()).is_some());
        assert!(look_up(0).is_none());
    }
}
