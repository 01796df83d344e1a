//! Extension blocks behind the requests that create: security contexts and the
//! supplementary group of the new file's owner.
//!
//! A server that negotiated one of them parses every byte behind the names, so
//! only what was negotiated is written; one that negotiated security contexts
//! wants that block each time.

use super::{InitFlags, Writer, XattrName, abi};

/// A label that a new file gets, as an extended attribute.
#[derive(Clone, Copy, Debug)]
pub struct SecurityContext<'a> {
    /// Name of the attribute, "security.selinux".
    pub name: &'a XattrName,
    /// Its value.
    pub value: &'a [u8],
}

/// What goes behind the names of a request that creates.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extensions<'a> {
    /// Label of the new file.
    pub context: Option<SecurityContext<'a>>,
    /// The group of the directory, if the caller belongs to it beside its own.
    pub group: Option<u32>,
}

impl Extensions<'_> {
    /// No label and no group.
    pub const NONE: Self = Self {
        context: None,
        group: None,
    };

    /// Appends the blocks that were negotiated.
    pub(super) fn encode(&self, w: &mut Writer<'_>) {
        if w.dialect().has(InitFlags::SECURITY_CTX) {
            w.extension(|w| self.encode_context(w));
        }
        if let Some(group) = self.group
            && w.dialect().has(InitFlags::CREATE_SUPP_GROUP)
        {
            w.extension(|w| {
                w.put(&abi::ExtHeader {
                    size: 16,
                    kind: SUPP_GROUPS,
                });
                w.put(&[1, group]);
            });
        }
    }

    fn encode_context(&self, w: &mut Writer<'_>) {
        const HEADERS: usize = size_of::<abi::SecctxHeader>() + size_of::<abi::Secctx>();
        let Some(SecurityContext { name, value }) = self.context else {
            w.put(&abi::SecctxHeader {
                size: 8,
                nr_secctx: 0,
            });
            return;
        };
        // A label too long for its 32-bit length makes a request too long for
        // its own, which `encode` refuses.
        let size = (HEADERS + name.len() + 1).saturating_add(value.len());
        let size = size.saturating_add(7) & !7;
        w.put(&abi::SecctxHeader {
            size: size as u32,
            nr_secctx: 1,
        });
        w.put(&abi::Secctx {
            size: value.len() as u32,
            padding: 0,
        });
        w.terminated(name);
        w.bytes(value);
    }
}

/// Type of the block of supplementary groups (`FUSE_EXT_GROUPS`).
const SUPP_GROUPS: u32 = 32;
